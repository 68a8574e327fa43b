//! Grades, from A to F, of each network and of the whole.
//!
//! | Grade | The worst that is open |
//! |---|---|
//! | A | nothing, or of severity low |
//! | B | one or two findings of severity medium |
//! | C | more of severity medium |
//! | D | of severity high |
//! | F | of severity critical |
//!
//! Waived findings do not count, and are counted beside the grade. Whatever is waived: a network with E1 alone has F, and one
//! with classic frames in ECB or in the clear has D at best. The whole is as good as its worst part, and no better where E1 alone
//! or ECB was found in what belongs to no network here, a Meshlium's dump for one.
//!
//! Where something could not be read, or nothing was, there is no grade but F: nobody knows. The same is true of a gateway's folder
//! without the book, for no file there says whether its network has E1 alone; a running gateway knows it from its cloud.

use std::fmt;

use crate::facts::Facts;
use crate::rule::{Finding, Severity};
use crate::waiver::Sorted;

/// A grade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// Nothing of weight.
    A,
    /// A little.
    B,
    /// Some.
    C,
    /// Weak.
    D,
    /// Open.
    F,
}

impl Grade {
    /// As a number, for gauges: 0 for A to 4 for F.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What a grade cannot be better than, and why.
pub type Cap = (Grade, &'static str);

const LINK_ONLY: Cap = (Grade::F, "E1 alone");
const NO_MAC: Cap = (Grade::D, "classic frames without a MAC");

/// A network's grade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkGrade {
    /// The network, by name.
    pub network: String,
    /// Its grade, where it can be known.
    pub grade: Option<Grade>,
    /// Open findings in it, by severity, the worst first.
    pub open: [usize; Severity::ALL.len()],
    /// Waived ones.
    pub waived: usize,
    /// What the grade cannot be better than, and why.
    pub cap: Option<Cap>,
}

/// All grades.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grades {
    /// Each network's.
    pub networks: Vec<NetworkGrade>,
    /// The whole's, where it can be known.
    pub whole: Option<Grade>,
    /// What that cannot be better than, by what was waived.
    pub cap: Option<Cap>,
}

fn of<'f>(findings: impl Iterator<Item = &'f Finding>) -> (Grade, [usize; Severity::ALL.len()]) {
    let mut open = [0; Severity::ALL.len()];
    for finding in findings {
        for (count, severity) in open.iter_mut().zip(Severity::ALL) {
            *count += usize::from(severity == finding.severity);
        }
    }
    let [critical, high, medium, _] = open;
    let grade = match (critical, high, medium) {
        (0, 0, 0) => Grade::A,
        (0, 0, 1 | 2) => Grade::B,
        (0, 0, _) => Grade::C,
        (0, _, _) => Grade::D,
        _ => Grade::F,
    };
    (grade, open)
}

/// The grade of each network, and of the whole. `is_read` is whether anything was looked at, and all of it could be read.
pub fn grades(facts: &Facts, sorted: &Sorted, is_read: bool) -> Grades {
    let is_known = is_read && (facts.knows_devices() || facts.gateways.is_empty());
    let known = |grade: Grade| Some(grade).filter(|g| is_known || *g == Grade::F);
    let mut worst = Grade::A;
    let networks: Vec<NetworkGrade> = facts
        .networks
        .iter()
        .map(|network| {
            let is_its = |f: &&Finding| f.subject.network.as_deref() == Some(&network.name);
            let (grade, open) = of(sorted.open.iter().filter(is_its));
            let waived = sorted.waived.iter().filter(|w| is_its(&&w.finding)).count();
            let cap = cap(facts, &network.name);
            let grade = cap.map_or(grade, |(most, _)| grade.max(most));
            worst = worst.max(grade);
            NetworkGrade { network: network.name.clone(), grade: known(grade), open, waived, cap }
        })
        .collect();
    let (all, _) = of(sorted.open.iter().chain(&sorted.of_waivers));
    let whole = worst.max(all);
    let cap = sorted.waived.iter().filter_map(|w| lasting(&w.finding)).max();
    Grades { networks, whole: known(cap.map_or(whole, |(most, _)| whole.max(most))), cap }
}

/// What a finding caps even where it is waived.
fn lasting(finding: &Finding) -> Option<Cap> {
    match finding.rule.id {
        "AR-01" => Some(LINK_ONLY),
        "AR-09" => Some(NO_MAC),
        _ => None,
    }
}

/// What nothing that is waived lifts.
fn cap(facts: &Facts, network: &str) -> Option<Cap> {
    if facts.is_link_only(network) {
        Some(LINK_ONLY)
    } else if facts.has_no_mac(network) {
        Some(NO_MAC)
    } else {
        None
    }
}
