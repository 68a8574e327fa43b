//! The report: for people, and for programs of ours and of others.

mod json;
mod junit;
mod sarif;
mod text;

pub use json::json;
pub use junit::junit;
pub use sarif::sarif;
pub use text::text;

use crate::Audit;

/// Form of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For a person.
    #[default]
    Text,
    /// One JSON value.
    Json,
    /// JUnit's XML, for build servers.
    Junit,
    /// SARIF 2.1.0, for code hosts and editors.
    Sarif,
}

impl Format {
    /// The report.
    pub fn write(self, audit: &Audit) -> String {
        match self {
            Self::Text => text(audit),
            Self::Json => json(audit).to_string(),
            Self::Junit => junit(audit),
            Self::Sarif => sarif(audit).to_string(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::{Path, PathBuf};

    use crate::Audit;
    use crate::facts::Facts;
    use crate::foreign::Notes;
    use crate::gather;
    use crate::waiver::Waivers;

    /// The last day of the waiver in [`audit`].
    pub(crate) const WAIVED_AT: &str = "2099-12-31";

    /// An audit of a broker with two findings that are open and one that is waived, in a file with a difficult name.
    pub(crate) fn audit() -> Audit {
        let file = PathBuf::from("/etc/mos quitto<&/m.conf");
        let mut notes = Notes::default();
        notes.say("FX-02", &file, 3, "allow_anonymous true: \"<everybody>\" & \u{1b}his dog");
        notes.say("FX-06", &file, 0, "no acl_file");
        notes.say("FX-07", &file, 0, "persistence is off");
        let mut facts = Facts::at(1_800_000_000);
        gather::told(&file, notes, &mut facts);
        let open = Audit::of(&facts, &Waivers::NONE);
        let part = &open.findings.iter().find(|f| f.rule.id == "FX-07").unwrap().subject.part;
        let waivers = format!(
            "[[waiver]]\nrule = \"FX-07\"\nsubject = \"file /etc/mos quitto<&/m.conf\"\nfinding = \"{part}\"\nowner = \"Ann\"\n\
             reason = \"a test & no more\"\nuntil = \"{WAIVED_AT}\"\n"
        );
        let waivers = Waivers::parse(&waivers, Path::new("waivers.toml"), facts.now).unwrap();
        Audit::of(&facts, &waivers)
    }
}
