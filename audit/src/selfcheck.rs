//! A daemon's audit of itself: whether it may start, what became critical since it looked last, and what it shows of it.
//!
//! What is critical about the daemon itself stops its start: its config, its keys, its files. What is critical about networks and devices
//! is told and counted (CF-01) and stops nothing: a gateway that goes silent over one weak device is an outage of all others, and
//! mends nothing. What the operator lives with stands in [`WAIVERS_FILE`] beside the daemon's config.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Audit;
use crate::facts::Facts;
use crate::gather;
use crate::rule::{Finding, Kind, Severity};
use crate::waiver::{Waived, Waivers};

/// File name of a daemon's waivers.
pub const WAIVERS_FILE: &str = "waivers.toml";

/// Why a daemon does not start.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    text: String,
    lasts: bool,
}

impl Refused {
    /// Whether it is the same at the next try, until somebody mends it: a clock that is behind is soon set.
    pub const fn is_lasting(&self) -> bool {
        self.lasts
    }
}

/// The waivers of a daemon. A file that cannot be read is in [`Facts::unread`].
pub fn waivers(folder: &Path, facts: &mut Facts) -> Waivers {
    let path = folder.join(WAIVERS_FILE);
    if path.symlink_metadata().is_err() {
        return Waivers::NONE;
    }
    let read = gather::text(&path).and_then(|text| Waivers::parse(&text, &path, facts.now).map_err(|e| e.to_string()));
    read.unwrap_or_else(|wrong| {
        facts.unread.push(wrong);
        Waivers::NONE
    })
}

/// Whether the daemon with this folder may start; `own` is what findings about it are about.
///
/// # Errors
/// [`Refused`]: something critical about itself is not waived, or something could not be read.
pub fn may_start(audit: &Audit, own: Kind, folder: &Path) -> Result<(), Refused> {
    if let Some(unread) = audit.unread.first() {
        let text = format!("it looks at itself before it starts, and cannot: {unread}");
        return Err(Refused { text, lasts: !audit.is_clock_behind });
    }
    let is_own = |f: &&Finding| f.subject.kind == own || matches!(f.subject.kind, Kind::Deployment | Kind::File);
    let mut stops = audit.findings.iter().filter(|f| f.severity == Severity::Critical).filter(is_own);
    let Some(Finding { rule, sentence, cure, subject, .. }) = stops.next() else { return Ok(()) };
    let quoted = |text: &str| toml::Value::String(text.to_owned());
    let part = Some(&subject.part).filter(|p| !p.is_empty()).map(|p| format!(", finding = {}", quoted(p)));
    let mut text = format!(
        "{} (critical): {sentence}; mend it ({cure}), or say in {WAIVERS_FILE} in its folder who lives with it, why and until when: rule = \
         \"{}\", subject = {}{}",
        rule.id,
        rule.id,
        quoted(&subject.to_string()),
        part.unwrap_or_default()
    );
    audit.waivers.iter().for_each(|w| text += &format!("; {}", w.sentence));
    let more = stops.count();
    if more > 0 {
        text += &format!("; {more} more such finding(s): fivefold audit --dir {}", folder.display());
    }
    Err(Refused { text, lasts: true })
}

/// An audit, and what it has that the one before it had not.
#[derive(Clone, Debug)]
pub struct News {
    /// The audit.
    pub audit: Arc<Audit>,
    /// What is critical.
    pub critical: Vec<Finding>,
    /// What is critical and waived.
    pub waived: Vec<Waived>,
}

impl News {
    /// A line for a log each: whether it is waived, and the words.
    pub fn lines(&self) -> impl Iterator<Item = (bool, String)> {
        let critical =
            self.critical.iter().map(|f| (false, format!("{}: {}. What mends it: {}", f.rule.id, f.sentence, f.cure)));
        let waived = self.waived.iter().map(|Waived { finding, waiver }| {
            let (rule, sentence) = (finding.rule.id, &finding.sentence);
            (true, format!("{rule}: {sentence}; waived until {} by {} ({})", waiver.until, waiver.owner, waiver.reason))
        });
        critical.chain(waived)
    }
}

/// What a running daemon found last.
#[derive(Debug, Default)]
pub struct Standing(Mutex<Option<Arc<Audit>>>);

impl Standing {
    /// Takes what was found now, and says what is new in it.
    pub fn take(&self, audit: Audit) -> News {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before: HashSet<_> = last.iter().flat_map(|a| a.findings.iter().map(key)).collect();
        let waived_before: HashSet<_> = last.iter().flat_map(|a| a.waived.iter().map(|w| key(&w.finding))).collect();
        let is_critical = |f: &Finding| f.severity == Severity::Critical;
        let critical = audit.findings.iter().filter(|f| is_critical(f) && !before.contains(&key(f)));
        let waived = audit.waived.iter();
        let waived = waived.filter(|w| is_critical(&w.finding) && !waived_before.contains(&key(&w.finding)));
        let (critical, waived) = (critical.cloned().collect(), waived.cloned().collect());
        let audit = Arc::new(audit);
        *last = Some(audit.clone());
        News { audit, critical, waived }
    }

    /// What was found last; `None` before the first look has ended.
    pub fn last(&self) -> Option<Arc<Audit>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The grade, 0 for A to 4 for F; `None` while nobody knows.
    pub fn grade(&self) -> Option<u64> {
        Some(self.last()?.grades.whole?.number().into())
    }

    /// How much is open, by rule and severity.
    pub fn open(&self) -> BTreeMap<(&'static str, Severity), u64> {
        let mut open = BTreeMap::new();
        for finding in self.last().iter().flat_map(|a| a.open()) {
            *open.entry((finding.rule.id, finding.severity)).or_default() += 1;
        }
        open
    }
}

/// What a finding is, however it is worded.
fn key(finding: &Finding) -> (&'static str, String, String) {
    (finding.rule.id, finding.subject.to_string(), finding.subject.part.clone())
}
