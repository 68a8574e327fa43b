//! What a rule is, and what it can say of what it looks at.

use std::fmt;
use std::path::{Path, PathBuf};

use fivefold_core::suite::sha256;

use crate::facts::Facts;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Strangers read or forge readings, or may soon.
    Critical,
    /// A level of protection is missing or much weaker than it looks.
    High,
    /// Something is weaker than it needs to be.
    Medium,
    /// Good to know.
    Low,
}

impl Severity {
    /// All, the worst first.
    pub const ALL: [Self; 4] = [Self::Critical, Self::High, Self::Medium, Self::Low];

    /// By its word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }

    /// In a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }

    /// Whether it makes an audit fail.
    pub const fn is_grave(self) -> bool {
        matches!(self, Self::Critical | Self::High)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the facts of a rule are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// No setting breaks it: the code does not offer another way, and this guards it.
    Code(&'static str),
    /// In files of the deployment.
    Files,
    /// In the operator's book; more of them in other files of the deployment.
    Book,
    /// In a file that somebody has to name.
    Given(&'static str),
    /// Only in a running process: what it needs.
    Live(&'static str),
}

/// A rule of docs/protocol.md 15.
#[derive(Debug)]
pub struct Rule {
    /// Its id, e.g. `AR-01`.
    pub id: &'static str,
    /// How bad a finding of it is, unless the finding says otherwise.
    pub severity: Severity,
    /// What it finds, in a few words.
    pub title: &'static str,
    /// Why that is bad, in a sentence or two.
    pub why: &'static str,
    /// How it is mended, in a sentence or two.
    pub cure: &'static str,
    /// Where the rule is from: our section, and whose standard or lesson it is.
    pub source: &'static str,
    /// Where its facts are.
    pub sight: Sight,
    /// Looks.
    pub check: fn(&Facts, &mut Found),
}

/// What sort of thing a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The whole of it.
    Deployment,
    /// The cloud.
    Cloud,
    /// A network.
    Network,
    /// A gateway.
    Gateway,
    /// A device.
    Device,
    /// A computer that runs one of them.
    Host,
    /// A file.
    File,
    /// A waiver.
    Waiver,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 8] = [
        Self::Deployment,
        Self::Cloud,
        Self::Network,
        Self::Gateway,
        Self::Device,
        Self::Host,
        Self::File,
        Self::Waiver,
    ];

    /// In a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::Cloud => "cloud",
            Self::Network => "network",
            Self::Gateway => "gateway",
            Self::Device => "device",
            Self::Host => "host",
            Self::File => "file",
            Self::Waiver => "waiver",
        }
    }
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.line {
            Some(line) => write!(f, "{path}:{line}"),
            None => write!(f, "{path}"),
        }
    }
}

/// What a finding is about. Its words (`device acde480000000001`) name it in waivers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// What sort of thing.
    pub kind: Kind,
    /// Its name; empty where there is one of the kind.
    pub name: String,
    /// The network that it belongs to, by name.
    pub network: Option<String>,
    /// Where it is written.
    pub place: Option<Place>,
    /// Which one of the things that a rule finds about it, in words that stay the same from one audit to the next; empty where
    /// it finds one at most. A waiver names it too.
    pub part: String,
}

impl Subject {
    /// Something of a kind.
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into(), network: None, place: None, part: String::new() }
    }

    /// The whole.
    pub fn deployment() -> Self {
        Self::new(Kind::Deployment, "")
    }

    /// The cloud.
    pub fn cloud() -> Self {
        Self::new(Kind::Cloud, "")
    }

    /// A network.
    pub fn network(name: &str) -> Self {
        Self::new(Kind::Network, name).of(name)
    }

    /// A file, named by its path.
    pub fn file(path: &Path) -> Self {
        Self::new(Kind::File, path.display().to_string()).at(path, None)
    }

    /// It belongs to this network.
    #[must_use]
    pub fn of(mut self, network: &str) -> Self {
        self.network = Some(network.to_owned());
        self
    }

    /// It is this one of several.
    #[must_use]
    pub fn on(mut self, part: impl Into<String>) -> Self {
        self.part = part.into();
        self
    }

    /// It is written there.
    #[must_use]
    pub fn at(mut self, path: &Path, line: Option<usize>) -> Self {
        self.place = Some(Place { path: path.to_owned(), line });
        self
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.as_str())?;
        if self.name.is_empty() { Ok(()) } else { write!(f, " {}", self.name) }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    /// By which rule.
    pub rule: &'static Rule,
    /// How bad.
    pub severity: Severity,
    /// About what.
    pub subject: Subject,
    /// What is wrong, in one sentence.
    pub sentence: String,
    /// What mends it: the command to type or the line to write.
    pub cure: String,
}

/// What it takes where there is no book.
pub(crate) const NO_BOOK: &str = "the operator's book: run fivefold audit --dir FOLDER where it lies";

/// What it takes where something happens to be made tomorrow.
pub(crate) const NO_CLOCK: &str = "a clock that is right: by this one, it is yet to be made";

/// Something that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// What.
    pub subject: Subject,
    /// What it would take, as in "needs the running cloud".
    pub needs: String,
}

/// What one rule says. A rule says something of each thing that it is about: good, bad, or unknown.
#[derive(Debug)]
pub struct Found {
    rule: &'static Rule,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub unknown: Vec<Unknown>,
    /// How many things are as they should be.
    pub good: usize,
}

impl Found {
    /// Nothing yet.
    pub const fn of(rule: &'static Rule) -> Self {
        Self { rule, findings: Vec::new(), unknown: Vec::new(), good: 0 }
    }

    /// The rule.
    pub const fn rule(&self) -> &'static Rule {
        self.rule
    }

    /// What others saw that this rule is about; and where nobody looked, what it would take.
    pub(crate) fn elsewhere(&mut self, facts: &Facts) {
        for seen in facts.seen.iter().filter(|s| s.rule == self.rule.id) {
            let cure = if seen.cure.is_empty() { self.rule.cure } else { &seen.cure };
            // The words of an examination say which listener or record it is, and no line, which moves.
            let hash = sha256(&[seen.sentence.as_bytes()]);
            let hash = || hex::encode(hash.get(..8).unwrap_or_default());
            let part = if seen.subject.part.is_empty() { hash() } else { seen.subject.part.clone() };
            let severity = seen.severity.unwrap_or(self.rule.severity);
            self.bad_as(severity, seen.subject.clone().on(part), &seen.sentence, cure);
        }
        if facts.examined.contains(&self.rule.id) && !facts.seen.iter().any(|s| s.rule == self.rule.id) {
            self.good();
        }
        if self.rule.sight == Sight::Book && !facts.has_book {
            self.unknown(Subject::deployment(), NO_BOOK);
        }
        self.unknown.extend(facts.passed_over.iter().filter(|(rule, _)| *rule == self.rule.id).map(|(_, u)| u.clone()));
        let needs = match self.rule.sight {
            Sight::Given(needs) => Some(needs),
            // The running cloud says itself what it does not know.
            Sight::Live(needs) => Some(needs).filter(|_| facts.live.is_none()),
            Sight::Code(_) | Sight::Files | Sight::Book => None,
        };
        if let Some(needs) = needs.filter(|_| !facts.examined.contains(&self.rule.id)) {
            self.unknown(Subject::deployment(), needs);
        }
    }

    /// One thing is as it should be.
    pub const fn good(&mut self) {
        self.good += 1;
    }

    /// One thing is not.
    pub fn bad(&mut self, subject: Subject, sentence: impl Into<String>, cure: impl Into<String>) {
        self.bad_as(self.rule.severity, subject, sentence, cure);
    }

    /// One thing is not, and how bad depends on it.
    pub fn bad_as(
        &mut self,
        severity: Severity,
        subject: Subject,
        sentence: impl Into<String>,
        cure: impl Into<String>,
    ) {
        let (sentence, cure) = (sentence.into(), cure.into());
        self.findings.push(Finding { rule: self.rule, severity, subject, sentence, cure });
    }

    /// One thing could not be looked at.
    pub fn unknown(&mut self, subject: Subject, needs: impl Into<String>) {
        self.unknown.push(Unknown { subject, needs: needs.into() });
    }
}
