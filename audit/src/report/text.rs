//! For a person: grades first, then what is wrong, the worst first, then what was waived and what was not looked at.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Audit;
use crate::foreign::System;
use crate::grade::{Cap, Grade};
use crate::rule::{Finding, Severity, Sight, Subject};
use crate::waiver;

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
    let _ = writeln!(out, "{}", counted(audit));
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

/// How many findings there are, and how bad they are.
fn counted(audit: &Audit) -> String {
    let of = |severity: Severity| audit.open().filter(|f| f.severity == severity).count();
    let counts = Severity::ALL.map(|severity| (of(severity), severity));
    let words: Vec<String> =
        counts.iter().filter(|(n, _)| *n > 0).map(|(n, severity)| format!("{n} {severity}")).collect();
    match audit.open().count() {
        0 => "No finding.".into(),
        1 => format!("1 finding: {}.", words.join(", ")),
        n => format!("{n} findings: {}.", words.join(", ")),
    }
}

/// What no rule could see, once for each reason, and what was not named once for all of it.
fn not_looked_at(audit: &Audit, out: &mut String) {
    let mut reasons: BTreeMap<&str, (Vec<&str>, Vec<String>)> = BTreeMap::new();
    let mut unnamed: Vec<&str> = Vec::new();
    for judged in &audit.rules {
        for unknown in &judged.unknown {
            if matches!(judged.rule.sight, Sight::Given(_)) && unknown.subject == Subject::deployment() {
                unnamed.push(judged.rule.id);
                continue;
            }
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
    if !reasons.is_empty() || !unnamed.is_empty() {
        out.push_str("\nNot looked at, which is no \"good\":\n");
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by(|(_, (a, _)), (_, (b, _))| a.cmp(b));
    for (needs, (rules, subjects)) in reasons {
        let more = if subjects.len() > SHOWN { ", ..." } else { "" };
        let subjects: Vec<&str> = subjects.iter().take(SHOWN).map(String::as_str).collect();
        let _ = writeln!(out, "{} ({}{more}): needs {needs}", rules.join(", "), subjects.join(", "));
    }
    if !unnamed.is_empty() {
        let systems = System::ALL.map(System::as_str).join(", ");
        let _ = writeln!(
            out,
            "{}: files that were not named. What stands beside it: --beside SYSTEM=FILE ({systems}); a node before it ships: \
             --node FOLDER",
            unnamed.join(", ")
        );
    }
}

/// Subjects that are named for one reason, at most.
const SHOWN: usize = 5;

fn one(finding: &Finding) -> String {
    let place = finding.subject.place.as_ref().map_or(String::new(), |place| format!(" ({place})"));
    let part = &finding.subject.part;
    let part = if part.is_empty() { String::new() } else { format!(", finding = {part:?}") };
    let subject = finding.subject.to_string();
    // What is wrong with a waiver cannot be waived.
    let waive = match finding.rule.id == waiver::RULE.id {
        true => String::new(),
        false => format!("    waive it: subject = {subject:?}{part}\n"),
    };
    let Finding { rule, severity, sentence, cure, .. } = finding;
    format!("{}  {severity}: {sentence}{place}\n    mend it:  {cure}\n{waive}", rule.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::audit;

    #[test]
    fn a_person_reads_how_many_there_are_what_mends_each_and_how_it_is_named() {
        let text = text(&audit());
        let counts = "\n2 findings: 1 high, 1 medium.\n";
        assert!(text.contains(counts), "{text}");
        let first = text.split(counts).nth(1).unwrap().trim_start();
        let lines: Vec<&str> = first.lines().take(3).collect();
        assert!(lines[0].starts_with("FX-02  high: ") && lines[0].ends_with("/m.conf:3)"), "{text}");
        assert!(lines[1].starts_with("    mend it:  Write allow_anonymous false"), "{text}");
        assert!(
            lines[2].starts_with("    waive it: subject = \"file /etc/mos quitto<&/m.conf\", finding = \""),
            "{text}"
        );
        // What nobody named is said in one line, whatever there is of it.
        let unnamed: Vec<&str> = text.lines().filter(|line| line.contains("files that were not named")).collect();
        assert!(unnamed.len() == 1 && unnamed[0].contains("FX-51") && !unnamed[0].contains("FX-02"), "{text}");
    }
}
