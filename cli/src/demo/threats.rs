//! The one list of attacks: read from docs/threats.md, so that what is promised there is what the demo checks.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::attack::Report;

/// docs/threats.md, as it was when this program was built.
const PAGE: &str = include_str!("../../../docs/threats.md");
/// Marks of the table of networks, and of that of classic nodes.
const NETWORKS: &str = "attacks";
const CLASSIC: &str = "classic-attacks";

/// What an attacker can walk away with; the words of docs/threats.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gain {
    /// Readings are stored that no node made.
    Forges,
    /// What that node could do anyway.
    Itself,
    /// Readings that the node was told are safe never reach the cloud.
    Loses,
    /// Readings in the clear.
    Reads,
    /// Commands of its own are run.
    Runs,
    /// Readings are kept from the cloud for a while.
    Withholds,
}

impl Gain {
    const ALL: [Self; 6] = [Self::Forges, Self::Itself, Self::Loses, Self::Reads, Self::Runs, Self::Withholds];

    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forges => "forges",
            Self::Itself => "itself",
            Self::Loses => "loses",
            Self::Reads => "reads",
            Self::Runs => "runs",
            Self::Withholds => "withholds",
        }
    }
}

/// Everything that one attack obtained in one network; empty is "nothing".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Outcome(pub BTreeSet<Gain>);

impl Outcome {
    /// With one gain more.
    #[must_use]
    pub fn and(mut self, gain: Gain) -> Self {
        self.0.insert(gain);
        self
    }
}

impl Report {
    /// What came of it, with what the attacker says that it read and ran.
    pub fn gained(&self, mut outcome: Outcome) -> Outcome {
        if self.read > 0 {
            outcome = outcome.and(Gain::Reads);
        }
        if self.ran {
            outcome = outcome.and(Gain::Runs);
        }
        outcome
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (i, gain) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, gain.as_str())?;
        }
        Ok(())
    }
}

impl FromStr for Outcome {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut outcome = Self::default();
        if text == "nothing" {
            return Ok(outcome);
        }
        for word in text.split(", ") {
            let gain = Gain::ALL.into_iter().find(|g| g.as_str() == word);
            outcome = outcome.and(gain.ok_or_else(|| format!("`{word}` is no word of the table"))?);
        }
        Ok(outcome)
    }
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Attack {
    /// Its name, e.g. `stranger-no-key`.
    pub name: String,
    /// What is done.
    pub what: String,
    /// What docs/threats.md says it obtains, in the order of [`Table::networks`].
    pub expected: Vec<Outcome>,
}

/// The table of docs/threats.md.
#[derive(Clone, Debug)]
pub struct Table {
    /// The combinations that head the columns, e.g. `e1+e3+e4`.
    pub networks: Vec<String>,
    /// One for each row.
    pub attacks: Vec<Attack>,
}

impl Table {
    /// Reads the table of the page that was built in.
    ///
    /// # Errors
    /// One sentence that names the row that is not of the table's form.
    pub fn of_threats_page() -> Result<Self, String> {
        Self::parse(PAGE, NETWORKS)
    }

    /// Reads the table of attacks on classic nodes.
    ///
    /// # Errors
    /// As of [`Table::of_threats_page`].
    pub fn of_classic_nodes() -> Result<Self, String> {
        Self::parse(PAGE, CLASSIC)
    }

    fn parse(page: &str, mark: &str) -> Result<Self, String> {
        let body = page
            .split_once(&format!("<!-- {mark}:begin -->"))
            .and_then(|(_, rest)| rest.split_once(&format!("<!-- {mark}:end -->")))
            .map(|(body, _)| body)
            .ok_or("docs/threats.md has no attack table")?;
        let mut rows = body.lines().filter(|l| l.starts_with('|')).map(cells);
        let networks: Vec<String> = rows.next().ok_or("the attack table is empty")?.into_iter().skip(2).collect();
        rows.next();
        let mut attacks = Vec::new();
        for row in rows {
            let mut row = row.into_iter();
            let name = row.next().unwrap_or_default();
            let what = row.next().unwrap_or_default();
            let expected: Vec<Outcome> = row
                .map(|cell| cell.parse().map_err(|e| format!("docs/threats.md, row {name}: {e}")))
                .collect::<Result<_, _>>()?;
            if expected.len() != networks.len() {
                return Err(format!(
                    "docs/threats.md, row {name}: {} cells for {} networks",
                    expected.len(),
                    networks.len()
                ));
            }
            attacks.push(Attack { name, what, expected });
        }
        Ok(Self { networks, attacks })
    }
}

fn cells(line: &str) -> Vec<String> {
    line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_a_row_for_every_attack_and_a_cell_for_every_network() {
        let table = Table::of_threats_page().unwrap();
        assert_eq!(table.networks, ["e1+e2+e4", "e1+e3+e4", "e1+e2+e3+e4", "e1 only"]);
        assert!(table.attacks.len() >= 25);
        let mut names: Vec<_> = table.attacks.iter().map(|a| &a.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), table.attacks.len());
        let classic = Table::of_classic_nodes().unwrap();
        assert_eq!(classic.networks, crate::demo::shore::Sketch::ALL.map(crate::demo::shore::Sketch::title));
        assert!(classic.attacks.iter().all(|a| a.name.starts_with("classic-")));
        assert!(classic.attacks.len() >= 15);
    }

    #[test]
    fn a_word_that_is_not_of_the_table_is_refused_with_its_row() {
        let page = "<!-- attacks:begin -->\n| A | W | n |\n|---|---|---|\n| x | y | wins |\n<!-- attacks:end -->";
        assert_eq!(Table::parse(page, NETWORKS).unwrap_err(), "docs/threats.md, row x: `wins` is no word of the table");
    }

    #[test]
    fn outcomes_print_what_they_parse() {
        for text in ["nothing", "reads", "forges, reads"] {
            assert_eq!(text.parse::<Outcome>().unwrap().to_string(), text);
        }
    }
}
