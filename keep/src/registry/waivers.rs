//! What the operator lives with, as the operator's log was told: each waiver leaves a line when it comes, is changed, is
//! taken away, and ends.

use rusqlite::{Connection, Transaction, params};

use super::deeds::{Done, Makes};
use super::{Registry, Result, hidden};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS waivers (       -- those that hold, as far as the operator's log was told
    source      TEXT NOT NULL,             -- the file that they stand in
    rule        TEXT NOT NULL,
    subject     TEXT NOT NULL,
    owner       TEXT NOT NULL,
    until       TEXT NOT NULL,
    ends        INTEGER NOT NULL,
    words       BLOB NOT NULL,             -- SHA-256 of all that it says
    PRIMARY KEY (source, rule, subject)
) STRICT;";

pub(super) fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(SCHEMA)
}

/// A waiver that holds, for the operator's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaiverWords {
    /// Rule.
    pub rule: String,
    /// What of it is waived.
    pub subject: String,
    /// Who answers for it.
    pub owner: String,
    /// Its last day, as it was written.
    pub until: String,
    /// The end of that day, Unix seconds.
    pub ends: u64,
    /// SHA-256 of all that it says.
    pub words: [u8; 32],
}

impl WaiverWords {
    fn is_about(&self, other: &Self) -> bool {
        (&self.rule, &self.subject) == (&other.rule, &other.subject)
    }

    fn done(&self, done: &'static str) -> Done {
        let Self { rule, subject, owner, until, words, .. } = self;
        Done::new(done, format_args!("{rule}, words {}, until {until}, by {owner}: {subject}", hex::encode(words)))
    }
}

/// What came of a waiver.
enum News<'w> {
    Waived(&'w WaiverWords),
    Changed(&'w WaiverWords),
    Removed(WaiverWords),
    Ended(WaiverWords),
}

impl News<'_> {
    fn done(&self) -> Done {
        match self {
            Self::Waived(w) => w.done("waived"),
            Self::Changed(w) => w.done("waiver changed"),
            Self::Removed(w) => w.done("waiver removed"),
            Self::Ended(w) => w.done("waiver ended"),
        }
    }

    fn write(&self, tx: &Transaction<'_>, source: &str) -> rusqlite::Result<usize> {
        match self {
            Self::Waived(w) | Self::Changed(w) => tx.execute(
                "INSERT OR REPLACE INTO waivers VALUES (?, ?, ?, ?, ?, ?, ?)",
                params![source, w.rule, w.subject, w.owner, w.until, w.ends as i64, w.words],
            ),
            Self::Removed(w) | Self::Ended(w) => tx.execute(
                "DELETE FROM waivers WHERE source = ? AND rule = ? AND subject = ?",
                params![source, w.rule, w.subject],
            ),
        }
    }
}

impl Registry {
    /// Whether the operator's log knows of exactly these waivers of a file.
    ///
    /// # Errors
    /// [`RegistryError::Database`](super::RegistryError::Database).
    pub fn knows_waivers(&self, source: &str, waivers: &[WaiverWords], now: u64) -> Result<bool> {
        Ok(self.waiver_news(source, waivers, now)?.is_empty())
    }

    /// Enters what is new about the waivers of a file, a line each: `waivers` are all that hold now. Says how many lines.
    ///
    /// # Errors
    /// [`RegistryError::Database`](super::RegistryError::Database).
    pub fn note_waivers(&mut self, source: &str, waivers: &[WaiverWords], now: u64) -> Result<usize> {
        let news = self.waiver_news(source, waivers, now)?;
        for one in &news {
            let written = self.logged(&one.done(), Makes::NoVersion, |tx| one.write(tx, source).map(Some));
            written.map_err(|e| self.failed(e))?;
        }
        Ok(news.len())
    }

    fn waiver_news<'w>(&self, source: &str, waivers: &'w [WaiverWords], now: u64) -> Result<Vec<News<'w>>> {
        let told = self.told_waivers(source)?;
        let mut news = Vec::new();
        for (n, waiver) in waivers.iter().enumerate() {
            // Of two that say they waive the same, the first one counts.
            if waivers.iter().take(n).any(|w| w.is_about(waiver)) {
                continue;
            }
            match told.iter().find(|t| t.is_about(waiver)) {
                None => news.push(News::Waived(waiver)),
                Some(t) if t.words != waiver.words => news.push(News::Changed(waiver)),
                Some(_) => {}
            }
        }
        for gone in told.into_iter().filter(|t| !waivers.iter().any(|w| w.is_about(t))) {
            news.push(if gone.ends <= now { News::Ended(gone) } else { News::Removed(gone) });
        }
        Ok(news)
    }

    fn told_waivers(&self, source: &str) -> Result<Vec<WaiverWords>> {
        let sql = "SELECT source, rule, subject, owner, until, ends, words FROM waivers ORDER BY rule, subject";
        let all = self.all(sql, |r| {
            let words = WaiverWords {
                rule: r.get(1)?,
                subject: r.get(2)?,
                owner: r.get(3)?,
                until: r.get(4)?,
                ends: hidden(r.get(5)?),
                words: r.get(6)?,
            };
            Ok((r.get::<_, String>(0)?, words))
        })?;
        Ok(all.into_iter().filter(|(of, _)| of == source).map(|(_, words)| words).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::By;
    use super::*;

    fn waiver(rule: &str, ends: u64, words: u8) -> WaiverWords {
        WaiverWords {
            rule: rule.into(),
            subject: "network north, high".into(),
            owner: "Maria Keller".into(),
            until: "2027-03-31".into(),
            ends,
            words: [words; 32],
        }
    }

    #[test]
    fn a_waiver_is_told_of_once_and_again_when_it_is_changed_removed_or_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.db");
        let mut book = Registry::create(&path, By::new("anna", "pts/1", "audit", 1)).unwrap();
        let version = book.version().unwrap();
        let (a, b) = (waiver("AR-09", 100, 1), waiver("AR-10", 200, 2));
        assert!(!book.knows_waivers("w.toml", std::slice::from_ref(&a), 5).unwrap());
        let mut note = |source: &str, waivers: &[WaiverWords], now: u64| {
            let before = book.last_deed().unwrap();
            let n = book.note_waivers(source, waivers, now).unwrap();
            assert!(book.knows_waivers(source, waivers, now).unwrap());
            let done: Vec<_> = book.deeds(before, 9).unwrap().into_iter().map(|l| l.done).collect();
            assert_eq!(done.len(), n);
            done
        };
        assert_eq!(note("w.toml", &[a.clone(), b.clone()], 5), ["waived", "waived"]);
        assert!(note("w.toml", &[a.clone(), b.clone()], 6).is_empty());
        assert_eq!(note("w.toml", &[WaiverWords { words: [9; 32], ..a.clone() }, b.clone()], 7), ["waiver changed"]);
        assert_eq!(note("other.toml", std::slice::from_ref(&a), 7), ["waived"], "each file by itself");
        assert_eq!(note("w.toml", std::slice::from_ref(&a), 8), ["waiver changed", "waiver removed"]);
        assert_eq!(note("w.toml", &[], 100), ["waiver ended"]);
        assert_eq!(note("w.toml", &[a.clone(), a.clone()], 5), ["waived"], "one that is there twice is one");
        assert_eq!(book.version().unwrap(), version, "gateways are told nothing of it");
        let (lines, wrong) = book.check_deeds().unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
        let words = hex::encode([1; 32]);
        assert_eq!(
            lines[0].about,
            format!("AR-09, words {words}, until 2027-03-31, by Maria Keller: network north, high")
        );
    }
}
