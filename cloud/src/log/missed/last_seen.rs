//! When each witness cosigned last, by this cloud's clock, and when it was last said that it is missing. A file beside the log:
//! a cloud that starts again each day would else miss nobody.
//!
//! `own/witnesses` in the log's folder has one line for each: its first key, and both times in milliseconds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fivefold_core::time::Millis;
use fivefold_keep::files::{self, FileError, Readers};

/// A witness is missing after so long, in milliseconds (EV-05).
const MISSING: u64 = 24 * 3600 * 1000;

#[derive(Debug)]
pub(super) struct LastSeen {
    path: PathBuf,
    /// By the witness's first key. Without a witness that is asked no more, there is no line of it.
    known: BTreeMap<String, Times>,
    /// The time that one has who is not known yet: now, where nothing was written before. Where what was written does not
    /// read, nobody was ever seen: said once too often, and never too little.
    strangers: Option<Millis>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    cosigned: Millis,
    said: Millis,
}

impl LastSeen {
    /// What is remembered in the log's folder.
    pub(super) fn open(log: &Path) -> Self {
        let path = log.join("own/witnesses");
        let (known, strangers) = match std::fs::read_to_string(&path) {
            Ok(text) => match parse(&text) {
                Some(known) => (known, None),
                None => (BTreeMap::new(), Some(Millis(0))),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => (BTreeMap::new(), None),
            Err(_) => (BTreeMap::new(), Some(Millis(0))),
        };
        if strangers.is_some() {
            tracing::warn!(path = %path.display(), "it does not read when witnesses cosigned last: each counts as missing until it cosigns");
        }
        Self { path, known, strangers }
    }

    /// Takes note of who is asked and whether it cosigned now; those who are missing, each once a day.
    pub(super) fn look(&mut self, asked: Vec<(String, bool)>, now: Millis) -> Vec<String> {
        let strangers = self.strangers.take().unwrap_or(now);
        let mut known = BTreeMap::new();
        let mut missing = Vec::new();
        for (key, cosigned) in asked {
            let before = self.known.get(&key).copied().unwrap_or(Times { cosigned: strangers, said: Millis(0) });
            // Of a clock that went back, no time lies ahead.
            let (last, said) = (before.cosigned.min(now), before.said.min(now));
            let mut times = Times { cosigned: if cosigned { now } else { last }, said };
            if now.since(times.cosigned.max(said)) > MISSING {
                times.said = now;
                missing.push(key.clone());
            }
            known.insert(key, times);
        }
        self.known = known;
        missing
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// [`FileError::Write`].
    pub(super) fn write(&self) -> Result<(), FileError> {
        let line = |(key, times): (&String, &Times)| format!("{key} {} {}\n", times.cosigned.0, times.said.0);
        files::write(&self.path, Readers::Owner, self.known.iter().map(line).collect::<String>().as_bytes())
    }
}

fn parse(text: &str) -> Option<BTreeMap<String, Times>> {
    if !text.is_empty() && !text.ends_with('\n') {
        return None;
    }
    let line = |line: &str| {
        let mut parts = line.split(' ');
        let key = parts.next().filter(|key| !key.is_empty())?.to_owned();
        let times = Times { cosigned: Millis(parts.next()?.parse().ok()?), said: Millis(parts.next()?.parse().ok()?) };
        parts.next().is_none().then_some((key, times))
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn at(hours: u64) -> Millis {
        Millis(1_790_000_000_000 + hours * HOUR)
    }

    /// One start of the cloud: what it says in each of these hours, asking `key`, which cosigns or not.
    fn life(log: &Path, hours: std::ops::Range<u64>, key: &str, cosigns: bool) -> Vec<u64> {
        let mut seen = LastSeen::open(log);
        let mut said = Vec::new();
        for hour in hours {
            said.extend(seen.look(vec![(key.into(), cosigns)], at(hour)).iter().map(|_| hour));
            seen.write().unwrap();
        }
        said
    }

    fn log() -> tempfile::TempDir {
        let log = tempfile::tempdir().unwrap();
        std::fs::create_dir(log.path().join("own")).unwrap();
        log
    }

    #[test]
    fn a_witness_that_is_away_is_missed_once_a_day_however_often_the_cloud_starts() {
        let log = log();
        let log = log.path();
        assert!(life(log, 0..5, "w+1", true).is_empty());
        let said: Vec<u64> = (1..20).flat_map(|n| life(log, n * 5..n * 5 + 5, "w+1", false)).collect();
        assert_eq!(said, [29, 54, 79], "25 hours after it cosigned in hour 4, and each 25 after");
        assert!(life(log, 100..130, "w+1", true).is_empty());
        assert!(life(log, 130..150, "w+1", false).is_empty());
    }

    #[test]
    fn one_that_never_cosigned_is_missed_a_day_after_it_was_first_asked() {
        let log = log();
        let said: Vec<u64> = (0..10).flat_map(|n| life(log.path(), n * 4..n * 4 + 4, "w+1", false)).collect();
        assert_eq!(said, [25]);
        // Another one in its place begins anew, and the first one is forgotten.
        assert!(life(log.path(), 40..60, "w+2", false).is_empty());
        assert!(!std::fs::read_to_string(log.path().join("own/witnesses")).unwrap().contains("w+1"));
    }

    #[test]
    fn what_does_not_read_hides_nobody() {
        let log = log();
        for text in ["w+1", "w+1 1 2", "w+1 1\n", "w+1 1 2 3\n", " 1 2\n", "w+1 1 -2\n", "\u{0}\n"] {
            std::fs::write(log.path().join("own/witnesses"), text).unwrap();
            assert_eq!(life(log.path(), 0..5, "w+1", false), [0], "{text:?}");
        }
        std::fs::write(log.path().join("own/witnesses"), [0xFF]).unwrap();
        assert!(life(log.path(), 0..30, "w+1", true).is_empty(), "who cosigns is not missing");
    }

    #[test]
    fn a_clock_that_was_ahead_hides_nobody_for_longer_than_a_day() {
        let log = log();
        assert!(life(log.path(), 9000..9001, "w+1", true).is_empty());
        assert_eq!(life(log.path(), 0..30, "w+1", false), [25]);
    }
}
