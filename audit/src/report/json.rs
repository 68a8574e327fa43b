//! As one JSON value.

use serde_json::{Value, json};

use crate::grade::Grade;
use crate::rule::{Finding, Subject};
use crate::{Audit, Outcome};

/// The report as JSON.
pub fn json(audit: &Audit) -> Value {
    let networks = audit.grades.networks.iter().map(|n| {
        json!({ "network": n.network, "grade": letter(n.grade), "waived": n.waived, "cap": n.cap.map(|(_, why)| why) })
    });
    let waived = audit.waived.iter().map(|w| {
        let mut value = finding(&w.finding);
        let by = json!({ "owner": w.waiver.owner, "reason": w.waiver.reason, "until": w.waiver.until });
        if let Some(object) = value.as_object_mut() {
            object.insert("waiver".into(), by);
        }
        value
    });
    let rules = audit.rules.iter().map(|judged| {
        let unknown = judged.unknown.iter();
        let unknown = unknown.map(|u| json!({ "subject": subject(&u.subject), "needs": u.needs }));
        json!({ "rule": judged.rule.id, "good": judged.good, "not_looked_at": unknown.collect::<Vec<_>>() })
    });
    json!({
        "at": audit.at, "grade": letter(audit.grades.whole), "cap": audit.grades.cap.map(|(_, why)| why), "outcome": outcome(audit.outcome()),
        "networks": networks.collect::<Vec<_>>(), "findings": audit.open().map(finding).collect::<Vec<_>>(),
        "waived": waived.collect::<Vec<_>>(), "rules": rules.collect::<Vec<_>>(), "unreadable": audit.unread,
    })
}

/// `null` where nobody knows.
pub(super) fn letter(grade: Option<Grade>) -> Option<String> {
    grade.map(|grade| grade.to_string())
}

const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Clean => "clean",
        Outcome::Findings => "findings",
        Outcome::Unreadable => "unreadable",
    }
}

fn subject(subject: &Subject) -> Value {
    let place = subject.place.as_ref();
    json!({
        "words": subject.to_string(), "kind": subject.kind.as_str(), "name": subject.name, "network": subject.network,
        "file": place.map(|p| &p.path), "line": place.and_then(|p| p.line),
    })
}

fn finding(finding: &Finding) -> Value {
    json!({
        "rule": finding.rule.id, "severity": finding.severity.as_str(), "title": finding.rule.title,
        "subject": subject(&finding.subject), "finding": finding.subject.part, "sentence": finding.sentence, "cure": finding.cure,
    })
}
