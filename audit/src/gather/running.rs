//! What a running cloud says of itself, by its API: the report of its own audit.

use serde_json::Value;

use crate::facts::{Facts, Seen};
use crate::rule::{Kind, Rule, Severity, Sight, Subject, Unknown};
use crate::rules;

/// Takes from the report what only a running cloud knows. The rest stands in files, and is looked at there.
///
/// # Errors
/// It is no such report.
pub fn running(report: &Value, facts: &mut Facts) -> Result<(), String> {
    let list = |key: &str| {
        let list = report.get(key).and_then(Value::as_array);
        list.ok_or_else(|| format!("the running cloud sent no report of an audit: `{key}` is missing"))
    };
    let is_live = |rule: &&'static Rule| matches!(rule.sight, Sight::Live(_));
    let rule_of = |value: &Value| rules::all().filter(is_live).find(|r| value.get("rule").is_some_and(|id| id == r.id));
    let (findings, waived) = (list("findings")?, list("waived")?);
    // By whose word it stays is this audit's to say.
    for finding in findings.iter().chain(waived) {
        let Some(rule) = rule_of(finding) else { continue };
        facts.seen.push(Seen {
            rule: rule.id,
            subject: subject(finding.get("subject")).on(text(finding, "finding")),
            sentence: text(finding, "sentence"),
            cure: text(finding, "cure"),
            severity: Severity::named(&text(finding, "severity")),
        });
        facts.examined.push(rule.id);
    }
    for judged in list("rules")? {
        let Some(rule) = rule_of(judged) else { continue };
        if judged.get("good").and_then(Value::as_u64).is_some_and(|good| good > 0) {
            facts.examined.push(rule.id);
        }
        let unknown = judged.get("not_looked_at").and_then(Value::as_array).into_iter().flatten();
        let unknown = unknown.map(|u| Unknown { subject: subject(u.get("subject")), needs: text(u, "needs") });
        facts.passed_over.extend(unknown.map(|unknown| (rule.id, unknown)));
    }
    let unread = list("unreadable")?.iter().filter_map(Value::as_str);
    facts.unread.extend(unread.map(|why| format!("the running cloud: {why}")));
    Ok(())
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn subject(value: Option<&Value>) -> Subject {
    let Some(value) = value else { return Subject::cloud() };
    let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == text(value, "kind")).unwrap_or(Kind::Cloud);
    let subject = Subject::new(kind, text(value, "name"));
    match value.get("network").and_then(Value::as_str) {
        Some(network) => subject.of(network),
        None => subject,
    }
}
