//! Other people's configuration: what stands beside Fivefold and can undo what it protects.
//!
//! A file is hostile until it is read: every parser here is total, keeps no more than [`LONGEST`] bytes of a file, follows
//! at most [`MOST_FILES`] files, and says what it could not look at ([`NOT_EXAMINED`]) instead of passing it over.

pub mod chirpstack;
mod files;
mod host;
mod lines;
pub mod meshlium;
pub mod mosquitto;
pub mod pg_hba;
pub mod sshd;
pub mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub use files::{Disk, Files, LONGEST, MOST_FILES, Unread, Walk};

/// The rule about what could not be looked at.
pub const NOT_EXAMINED: &str = "FX-01";

/// Things that one examination lists of each rule, at most. What is beyond is counted, and makes the whole unreadable.
pub const MOST_SEEN: usize = 1000;

/// What an examination saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Id of the rule that is broken.
    pub rule: &'static str,
    /// The file.
    pub file: PathBuf,
    /// Its line; 0 where it is what no line says.
    pub line: usize,
    /// What stands there, as one sentence. Without any secret that stands there.
    pub what: String,
}

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Notes {
    seen: Vec<Seen>,
    /// Of each rule, how many are listed.
    listed: BTreeMap<&'static str, usize>,
    /// What there is more of than is looked at, or listed, and how many more.
    left: BTreeMap<String, usize>,
    /// Rules whose settings were there to be looked at, or whose defaults count where they are not.
    looked: BTreeSet<&'static str>,
    /// Rules of those of which something lies elsewhere.
    blind: BTreeSet<&'static str>,
}

impl Notes {
    /// Notes that a rule is broken at a line of a file.
    pub fn say(&mut self, rule: &'static str, file: &Path, line: usize, what: impl Into<String>) {
        self.looked.insert(rule);
        let listed = self.listed.entry(rule).or_default();
        if *listed == MOST_SEEN {
            return self.leave(&format!("findings of {rule}"));
        }
        *listed += 1;
        self.seen.push(Seen { rule, file: file.to_owned(), line, what: what.into() });
    }

    /// Notes that the files show what these rules are about.
    pub(crate) fn look(&mut self, rules: &[&'static str]) {
        self.looked.extend(rules);
    }

    /// Notes that they show a part of it alone: what is not broken there is not good for that.
    pub(crate) fn miss(&mut self, rule: &'static str) {
        self.blind.insert(rule);
    }

    /// The rules whose whole was looked at.
    pub fn examined(&self) -> impl Iterator<Item = &'static str> {
        self.looked.difference(&self.blind).copied()
    }

    /// Counts one more of what there is too much of, as in "listeners".
    pub(crate) fn leave(&mut self, what: &str) {
        *self.left.entry(what.to_owned()).or_default() += 1;
    }

    /// What was left, in sentences: so much could not be looked at.
    pub fn left(&self) -> Vec<String> {
        self.left.iter().map(|(what, count)| format!("it has more {what} than are looked at, by {count}")).collect()
    }

    /// Notes a file that is included and could not be read.
    pub(crate) fn unread(&mut self, from: &Path, line: usize, what: &Path, why: &Unread) {
        self.say(
            NOT_EXAMINED,
            from,
            line,
            format!("it includes {}, which was not looked at: {why}", shown(&what.display())),
        );
    }

    /// All of them, in the order in which they stand in the files.
    pub fn into_vec(self) -> Vec<Seen> {
        self.seen
    }
}

/// Whose files are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum System {
    /// `chirpstack.toml`, or what its API says of devices and device profiles, as JSON.
    Chirpstack,
    /// A dump of a Meshlium's database, which somebody else walks through ([`meshlium`]).
    Meshlium,
    /// `mosquitto.conf`.
    Mosquitto,
    /// `pg_hba.conf` of PostgreSQL.
    PgHba,
    /// `sshd_config` of OpenSSH.
    Sshd,
    /// A unit of systemd, of a service.
    Unit,
}

impl System {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Chirpstack, Self::Meshlium, Self::Mosquitto, Self::PgHba, Self::Sshd, Self::Unit];

    /// As the command names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chirpstack => "chirpstack",
            Self::Meshlium => "meshlium",
            Self::Mosquitto => "mosquitto",
            Self::PgHba => "pg-hba",
            Self::Sshd => "sshd",
            Self::Unit => "unit",
        }
    }
}

/// Looks at a file of a kind, and at what it includes.
///
/// # Errors
/// The file itself cannot be read, or is none of its kind.
pub fn examine(system: System, path: &Path, files: &mut dyn Files) -> Result<Notes, Unread> {
    let mut walk = Walk::new(files);
    let mut notes = Notes::default();
    let text = walk.enter(path)?;
    match system {
        System::Chirpstack => chirpstack::examine(path, &text, &mut notes)?,
        System::Meshlium => return Err(Unread::Form("read here: a dump is walked through".into(), 0)),
        System::Mosquitto => mosquitto::examine(path, &text, &mut walk, &mut notes)?,
        System::PgHba => pg_hba::examine(path, &text, &mut walk, &mut notes)?,
        System::Sshd => sshd::examine(path, &text, &mut walk, &mut notes),
        System::Unit => unit::examine(path, &text, &mut walk, &mut notes)?,
    }
    // What the others show depends on what is in them.
    if system != System::Chirpstack {
        notes.look(system.rules());
    }
    Ok(notes)
}

/// What stands in a file, for a report: short, and nothing in it that a terminal obeys.
pub(crate) fn shown(text: &dyn std::fmt::Display) -> String {
    const SHOWN: usize = 60;
    let text = text.to_string();
    let plain: String = text.chars().take(SHOWN).map(|c| if is_plain(c) { c } else { '?' }).collect();
    if text.chars().nth(SHOWN).is_some() { format!("{plain}...") } else { plain }
}

fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Whether a setting of this name holds a secret itself, and not where one lies.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let is_place =
        ["file", "path", "dir", "folder", "url", "name", "id", "label"].iter().any(|end| name.ends_with(end));
    let is_secret =
        ["password", "passwd", "passphrase", "secret", "token", "kek", "api_key", "api-key", "apikey", "private_key"]
            .iter()
            .any(|word| name.contains(word));
    is_secret && !is_place
}
