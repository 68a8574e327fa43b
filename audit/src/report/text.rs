//! For a person: grades first, then what is wrong, the worst first, then what was waived and what was not looked at.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Audit;
use crate::grade::{Cap, Grade};
use crate::rule::{Finding, Sight};

/// The report in words.
pub fn text(audit: &Audit) -> String {
    let mut out = String::new();
    for wrong in &audit.unread {
        let _ = writeln!(out, "cannot be read: {wrong}");
    }
    let cap = |cap: Option<Cap>| cap.map_or(String::new(), |(most, why)| format!(" (never better than {most}: {why})"));
    let letter = |grade: Option<Grade>| grade.map_or_else(|| "-".to_owned(), |grade| grade.to_string());
    for n in &audit.grades.networks {
        let waived = if n.waived == 0 { String::new() } else { format!(", with {} waived", n.waived) };
        let _ = writeln!(out, "{}  network {}{waived}{}", letter(n.grade), n.network, cap(n.cap));
    }
    let waived = if audit.waived.is_empty() { String::new() } else { format!(", with {} waived", audit.waived.len()) };
    let _ = writeln!(out, "{}  the whole{waived}{}", letter(audit.grades.whole), cap(audit.grades.cap));
    if audit.grades.whole.is_none() {
        out.push_str("There is no grade where not all that makes it was looked at.\n");
    }
    for finding in audit.open() {
        let _ = write!(out, "\n{}", one(finding));
    }
    for waived in &audit.waived {
        let w = &waived.waiver;
        let _ = write!(out, "\nwaived until {} by {} ({}):\n{}", w.until, w.owner, w.reason, one(&waived.finding));
    }
    not_looked_at(audit, &mut out);
    let held = audit.rules.iter().filter(|j| matches!(j.rule.sight, Sight::Code(_))).map(|j| j.rule.id);
    // A dump of a Meshlium breaks AR-15 all the same.
    let waived = audit.waived.iter().map(|w| &w.finding);
    let broken: Vec<&str> = audit.findings.iter().chain(waived).map(|f| f.rule.id).collect();
    let held: Vec<&str> = held.filter(|id| !broken.contains(id)).collect();
    if !held.is_empty() {
        let _ = writeln!(out, "\nNo setting breaks these, and tests guard them: {}.", held.join(", "));
    }
    out.truncate(out.trim_end().len());
    out
}

/// What no rule could see, once for each reason.
fn not_looked_at(audit: &Audit, out: &mut String) {
    let mut reasons: BTreeMap<&str, (Vec<&str>, Vec<String>)> = BTreeMap::new();
    for judged in &audit.rules {
        for unknown in &judged.unknown {
            let (rules, subjects) = reasons.entry(&unknown.needs).or_default();
            if rules.last() != Some(&judged.rule.id) {
                rules.push(judged.rule.id);
            }
            let subject = unknown.subject.to_string();
            if !subjects.contains(&subject) && subjects.len() <= SHOWN {
                subjects.push(subject);
            }
        }
    }
    if !reasons.is_empty() {
        out.push_str("\nNot looked at, which is no \"good\":\n");
    }
    for (needs, (rules, subjects)) in reasons {
        let more = if subjects.len() > SHOWN { ", ..." } else { "" };
        let subjects: Vec<&str> = subjects.iter().take(SHOWN).map(String::as_str).collect();
        let _ = writeln!(out, "{} ({}{more}): needs {needs}", rules.join(", "), subjects.join(", "));
    }
}

/// Subjects that are named for one reason, at most.
const SHOWN: usize = 5;

fn one(finding: &Finding) -> String {
    let place = finding.subject.place.as_ref().map_or(String::new(), |place| format!(" ({place})"));
    let part = &finding.subject.part;
    let part = if part.is_empty() { String::new() } else { format!("; finding: {part}") };
    format!(
        "{}  {}: {}{place}\n    subject: {}{part}\n    {}\n",
        finding.rule.id, finding.severity, finding.sentence, finding.subject, finding.cure
    )
}
