//! For a person: grades first, then what is wrong, the worst first, then what was waived and what was not looked at.

use std::fmt::Write as _;

use crate::Audit;
use crate::rule::Finding;

/// The report in words.
pub fn text(audit: &Audit) -> String {
    let mut out = String::new();
    for wrong in &audit.unread {
        let _ = writeln!(out, "cannot be read: {wrong}");
    }
    for n in &audit.networks {
        let waived = if n.waived == 0 { String::new() } else { format!(", with {} waived", n.waived) };
        let cap = n.cap.map_or(String::new(), |(most, why)| format!(" (never better than {most}: {why})"));
        let _ = writeln!(out, "{}  network {}{waived}{cap}", n.grade, n.network);
    }
    let _ = writeln!(out, "{}  the whole", audit.grade);
    for finding in audit.open() {
        let _ = write!(out, "\n{}", one(finding));
    }
    for waived in &audit.waived {
        let w = &waived.waiver;
        let _ = write!(out, "\nwaived until {} by {} ({}): {}", w.until, w.owner, w.reason, one(&waived.finding));
    }
    let mut unknown = audit.rules.iter().flat_map(|j| j.unknown.iter().map(move |u| (j.rule, u))).peekable();
    if unknown.peek().is_some() {
        out.push_str("\nNot looked at:\n");
    }
    for (rule, unknown) in unknown {
        let _ = writeln!(out, "{}  {} ({}): {}", rule.id, rule.title, unknown.subject, unknown.needs);
    }
    out.truncate(out.trim_end().len());
    out
}

fn one(finding: &Finding) -> String {
    let place = finding.subject.place.as_ref().map_or(String::new(), |place| format!(" ({place})"));
    format!(
        "{:<8}  {}  {}: {}{place}\n          {}\n",
        finding.severity.as_str(),
        finding.rule.id,
        finding.subject,
        finding.sentence,
        finding.cure
    )
}
