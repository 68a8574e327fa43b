//! What is weak in a deployment (docs/protocol.md 15): facts that were seen go in, findings and grades come out.
//!
//! ```text
//! gather ──▶ facts ──▶ rules ──▶ findings ──▶ waivers ──▶ grades ──▶ report
//! ```
//!
//! [`gather`] reads the operator's book, shares and config files, and fills [`facts`]; whoever sees more (the cloud, a gateway,
//! the command) fills more of them. [`rules`] are pure functions over facts: [`rule`] says what one is, and what it can say.
//! [`waiver`] is what the operator lives with, until when and why; [`grade`] sums up; [`report`] writes. [`selfcheck`] is what a
//! daemon makes of an audit of itself.
//!
//! What no fact is known of is said to be not looked at: it never passes. Nothing here has a socket or a clock: times come in
//! as arguments.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod facts;
pub mod foreign;
pub mod gather;
pub mod grade;
pub mod keys;
pub mod known;
pub mod report;
pub mod rule;
pub mod rules;
pub mod selfcheck;
pub mod waiver;

use facts::Facts;
use grade::Grades;
use rule::{Finding, Found, Rule, Unknown};
use waiver::{Waived, Waivers};

/// What one rule came to.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The rule.
    pub rule: &'static Rule,
    /// How many things it found as they should be.
    pub good: usize,
    /// What it could not look at.
    pub unknown: Vec<Unknown>,
}

/// What came out of an audit.
#[derive(Clone, Debug)]
pub struct Audit {
    /// When, Unix seconds.
    pub at: u64,
    /// Every rule, in order, and what it came to.
    pub rules: Vec<Judged>,
    /// What is wrong and nobody waived, the worst first.
    pub findings: Vec<Finding>,
    /// What is wrong and somebody waived.
    pub waived: Vec<Waived>,
    /// What is wrong with waivers themselves.
    pub waivers: Vec<Finding>,
    /// What could not be read at all, in sentences.
    pub unread: Vec<String>,
    /// Whether the first of these is that the clock is behind.
    pub is_clock_behind: bool,
    /// The grades of each network and of the whole.
    pub grades: Grades,
}

/// The answer in one word: also the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing of severity high or critical that nobody waived.
    Clean,
    /// Findings.
    Findings,
    /// Something could not be read.
    Unreadable,
}

impl Audit {
    /// Judges facts by all rules.
    pub fn of(facts: &Facts, waivers: &Waivers) -> Self {
        let mut rules = Vec::new();
        let mut findings = Vec::new();
        for rule in rules::all() {
            let mut found = Found::of(rule);
            (rule.check)(facts, &mut found);
            found.elsewhere(facts);
            findings.append(&mut found.findings);
            rules.push(Judged { rule, good: found.good, unknown: found.unknown });
        }
        let is_seen = !findings.is_empty() || rules.iter().any(|judged| judged.good > 0);
        findings.sort_by(|a, b| (a.severity, a.rule.id, &a.subject).cmp(&(b.severity, b.rule.id, &b.subject)));
        let sorted = waivers.sort(findings, facts);
        let clock = facts.clock_is_behind();
        let is_clock_behind = clock.is_some();
        // First: by such a clock a waiver may look wrong, too.
        let unread: Vec<String> = clock.into_iter().chain(facts.unread.iter().cloned()).collect();
        let grades = grade::grades(facts, &sorted, is_seen && unread.is_empty());
        Self {
            at: facts.now,
            rules,
            findings: sorted.open,
            waived: sorted.waived,
            waivers: sorted.of_waivers,
            unread,
            is_clock_behind,
            grades,
        }
    }

    /// All findings that count, those about waivers too.
    pub fn open(&self) -> impl Iterator<Item = &Finding> {
        self.waivers.iter().chain(&self.findings)
    }

    /// The answer in one word.
    pub fn outcome(&self) -> Outcome {
        if !self.unread.is_empty() {
            Outcome::Unreadable
        } else if self.open().any(|f| f.severity.is_grave()) {
            Outcome::Findings
        } else {
            Outcome::Clean
        }
    }
}
