//! What the operator lives with: who answers for it, why, and until when.
//!
//! ```toml
//! [[waiver]]
//! rule = "AR-09"
//! subject = "network old-farm"
//! finding = ""                       # which one, where the report says so
//! severity = "high"                  # absent: as bad as the rule says
//! owner = "Maria Keller"
//! reason = "the nodes are replaced in March"
//! until = "2027-03-31"
//! ```
//!
//! Subject and finding are what a finding says of itself, and nothing worse than the severity is waived. A waiver that says too
//! little, is past its last day, or names a rule or a subject that does not exist, waives nothing, and is a finding itself. What
//! is waived stays in the report.

use std::path::Path;

use fivefold_core::suite::sha256;
use fivefold_keep::format::{self, Unread};
use fivefold_keep::registry::{By, Registry, RegistryError, WaiverWords};
use serde::Deserialize;

use crate::facts::{Facts, line_of};
use crate::rule::{Finding, Found, Kind, Rule, Severity, Sight, Subject};
use crate::rules;

/// Waivers to a file, at most.
const MOST: usize = 10_000;
/// Seconds of a day.
const DAY: u64 = 86_400;

/// A waiver that holds nothing.
pub static RULE: Rule = Rule {
    id: "WAIVER",
    severity: Severity::High,
    title: "waiver that waives nothing",
    why: "A weakness is lived with only as long as somebody answers for it, says why, and says until when.",
    cure: "Give the waiver rule, subject, owner, reason and a last day that is to come; or mend what it waives, and delete it.",
    source: "docs/protocol.md 15",
    sight: Sight::Files,
    check: |_, _| {},
};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    waiver: Vec<Words>,
}

/// A waiver as it stands in the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Words {
    rule: String,
    subject: String,
    finding: String,
    severity: Option<String>,
    owner: String,
    reason: String,
    until: String,
}

/// A waiver that says all it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiver {
    /// Rule.
    pub rule: &'static str,
    /// Subject, as findings say it.
    pub subject: String,
    /// Which one of those that the rule finds about it ([`Subject::part`]).
    pub part: String,
    /// The worst that it waives.
    pub severity: Severity,
    /// Who answers for it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// Its last day, as it was written.
    pub until: String,
    /// The end of that day in UTC, Unix seconds.
    pub ends: u64,
    /// Which one of the file, from 1.
    number: usize,
}

/// A finding that is lived with.
#[derive(Clone, Debug)]
pub struct Waived {
    /// What is wrong.
    pub finding: Finding,
    /// By whose word it stays.
    pub waiver: Waiver,
}

/// Findings, sorted by waivers.
#[derive(Clone, Debug, Default)]
pub struct Sorted {
    /// Those that count.
    pub open: Vec<Finding>,
    /// Those that are lived with.
    pub waived: Vec<Waived>,
    /// What is wrong with the waivers.
    pub of_waivers: Vec<Finding>,
}

/// Waivers of a file.
#[derive(Clone, Debug, Default)]
pub struct Waivers {
    whole: Vec<Waiver>,
    broken: Vec<Finding>,
}

/// The file is no file of waivers.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoWaivers(String);

impl Waivers {
    /// None.
    pub const NONE: Self = Self { whole: Vec::new(), broken: Vec::new() };

    /// Reads the text of a file; `path` is what findings call it.
    ///
    /// # Errors
    /// It is not of the form above: nothing of it counts.
    pub fn parse(text: &str, path: &Path, now: u64) -> Result<Self, NoWaivers> {
        let shown = path.display();
        let file: File = format::from_toml(&shown, text).map_err(|e| match e {
            Unread::Newer(newer) => NoWaivers(newer.to_string()),
            Unread::Form(_) => {
                let line = e.span().map_or(1, |s| line_of(text, s.start));
                NoWaivers(format!("{shown}:{line}: {}", e.message()))
            }
        })?;
        if file.waiver.len() > MOST {
            return Err(NoWaivers(format!("{shown} has more than {MOST} waivers; mend some of what they waive")));
        }
        let mut all = Self::NONE;
        for (words, number) in file.waiver.iter().zip(1..) {
            match words.check(number, now) {
                Ok(waiver) => all.whole.push(waiver),
                Err(wrong) => all.broken.push(finding(number, wrong, Some(path))),
            }
        }
        Ok(all)
    }

    /// Enters in the operator's log what is new about the waivers of a file; `by` is asked only then. Says how many lines came of it.
    ///
    /// # Errors
    /// [`RegistryError`]: the book cannot be read, or takes no line.
    pub fn enter(&self, file: &Path, book: &Path, by: impl FnOnce() -> By, now: u64) -> Result<usize, RegistryError> {
        let words: Vec<WaiverWords> = self.whole.iter().map(Waiver::words).collect();
        // One file is one, wherever it is named from, and when it is gone.
        let folder = file.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        let source = folder.join(file.file_name().unwrap_or_default()).display().to_string();
        if Registry::open_read_only(book)?.knows_waivers(&source, &words, now)? {
            return Ok(0);
        }
        Registry::open(book, by())?.note_waivers(&source, &words, now)
    }

    /// Sorts findings: those that are waived, those that are not, and what is wrong with the waivers.
    pub fn sort(&self, findings: Vec<Finding>, facts: &Facts) -> Sorted {
        let mut sorted = Sorted { of_waivers: self.broken.clone(), ..Sorted::default() };
        for finding in findings {
            match self.whole.iter().find(|w| w.is_about(&finding) && w.why_not(&finding).is_none()) {
                Some(waiver) => sorted.waived.push(Waived { finding, waiver: waiver.clone() }),
                None => sorted.open.push(finding),
            }
        }
        let idle = self.whole.iter().filter(|w| !sorted.waived.iter().any(|f| f.waiver.number == w.number));
        let wrong = idle.filter_map(|w| {
            let other = sorted.open.iter().filter(|f| w.is_about(f)).find_map(|f| w.why_not(f));
            // Of a file nothing is left to be found when it is mended, or gone.
            let is_file = w.subject.split(' ').next() == Some(Kind::File.as_str());
            let is_known = || is_file || facts.subjects().any(|s| s.to_string() == w.subject);
            let unknown = || format!("there is no {} here; write the subject as the finding does", w.subject);
            Some(finding(w.number, other.or_else(|| (!is_known()).then(unknown))?, None))
        });
        let mut wrong: Vec<_> = wrong.collect();
        sorted.of_waivers.append(&mut wrong);
        sorted
    }
}

impl Waiver {
    /// What the operator's log is told of it: whose word it is, and the hash of the words (docs/evidence.md 4.1).
    pub fn words(&self) -> WaiverWords {
        let Self { rule, subject, part, severity, owner, reason, until, ends, .. } = self;
        let said: [&str; 7] = [rule, subject, part, severity.as_str(), owner, reason, until];
        let json = serde_json::Value::from(said.to_vec()).to_string();
        let part = if part.is_empty() { String::new() } else { format!(", {part}") };
        WaiverWords {
            rule: (*rule).to_owned(),
            subject: format!("{subject}{part}, {severity}"),
            owner: owner.clone(),
            until: until.clone(),
            ends: *ends,
            words: sha256(&[json.as_bytes()]),
        }
    }

    fn is_about(&self, finding: &Finding) -> bool {
        self.rule == finding.rule.id && self.subject == finding.subject.to_string()
    }

    /// Why it does not waive a finding of its rule about its subject.
    fn why_not(&self, finding: &Finding) -> Option<String> {
        let (part, severity) = (&finding.subject.part, finding.severity);
        if self.part != *part {
            Some(format!("{} finds about {} what it does not name: finding = \"{part}\"", self.rule, self.subject))
        } else if severity < self.severity {
            let least = self.severity;
            Some(format!("it is for severity {least}, and the finding is {severity} now: severity = \"{severity}\""))
        } else {
            None
        }
    }
}

impl Words {
    fn check(&self, number: usize, now: u64) -> Result<Waiver, String> {
        let rule = rules::all().find(|r| r.id == self.rule);
        let rule = rule.ok_or_else(|| format!("there is no rule `{}`; see: fivefold audit rules", self.rule))?;
        let said = [
            ("subject", &self.subject, "what it is about, as the finding names it"),
            ("owner", &self.owner, "who answers for it"),
            ("reason", &self.reason, "why"),
            ("until", &self.until, "its last day, as in until = \"2027-03-31\""),
        ];
        if let Some((key, _, what)) = said.iter().find(|(_, text, _)| text.trim().is_empty()) {
            return Err(format!("it has no {key}: say {what}"));
        }
        let severity = self.severity.as_deref().map_or(Some(rule.severity), Severity::named);
        let severity = severity.ok_or("its severity is none of critical, high, medium and low")?;
        let begins = day(&self.until).ok_or_else(|| {
            format!("until = \"{}\" is no day; write year, month and day, as in 2027-03-31", self.until)
        })?;
        let ends = begins.saturating_add(DAY);
        if ends <= now {
            return Err(format!("it ended with {}", self.until));
        }
        let text = |text: &str| text.trim().to_owned();
        let (subject, part, owner) = (text(&self.subject), text(&self.finding), text(&self.owner));
        let (reason, until) = (text(&self.reason), self.until.clone());
        Ok(Waiver { rule: rule.id, subject, part, severity, owner, reason, until, ends, number })
    }
}

fn finding(number: usize, wrong: String, path: Option<&Path>) -> Finding {
    let mut subject = Subject::new(Kind::Waiver, number.to_string());
    if let Some(path) = path {
        subject = subject.at(path, None);
    }
    let mut found = Found::of(&RULE);
    found.bad(subject, format!("waiver {number} waives nothing: {wrong}"), RULE.cure);
    found.findings.remove(0)
}

/// The beginning of a day in UTC, Unix seconds.
fn day(text: &str) -> Option<u64> {
    let mut parts = text.split('-');
    let mut number = |digits: usize| {
        let part = parts.next()?;
        (part.len() == digits && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse::<u64>().ok())?
    };
    let (year, month, day) = (number(4)?, number(2)?, number(2)?);
    let is_leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if parts.next().is_some() || year < 1970 || !(1..=length).contains(&day) {
        return None;
    }
    let years: u64 = (1970..year).map(|y| 365 + u64::from(is_leap(y))).sum();
    let months: u64 = lengths.iter().take(usize::try_from(month).ok()? - 1).sum();
    Some((years + months + day - 1) * DAY)
}
