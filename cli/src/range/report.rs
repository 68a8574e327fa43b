//! What came of a run: attack by attack, what was tried, what was obtained, what docs/threats.md states, and who noticed.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::attack::each;
use crate::attack::permit::Permit;
use crate::demo::siege::{Cell, Row};
use crate::demo::threats::Outcome;

/// The report.
pub(super) struct Report<'a> {
    permit: &'a Permit,
    rows: &'a [Row],
    left_out: &'a [String],
}

impl<'a> Report<'a> {
    pub(super) const fn of(permit: &'a Permit, rows: &'a [Row], left_out: &'a [String]) -> Self {
        Self { permit, rows, left_out }
    }

    fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.rows.iter().flat_map(|row| &row.cells)
    }

    /// Whether something was obtained that the page does not state.
    pub(super) fn is_more_than_stated(&self) -> bool {
        self.cells().any(|cell| !more(cell).0.is_empty())
    }

    /// Whether all was obtained that the page states, and nothing else.
    pub(super) fn is_as_stated(&self) -> bool {
        self.cells().all(Cell::is_as_stated)
    }

    pub(super) fn to_json(&self) -> Value {
        let cell = |cell: &Cell| {
            json!({ "network": cell.name, "levels": cell.network, "tried": cell.attempts, "obtained": cell.obtained,
                    "stated": cell.expected, "more_than_stated": more(cell), "noticed": cell.counted, "note": cell.note })
        };
        let row = |row: &Row| {
            let attack = each::named(&row.attack);
            json!({ "attack": row.attack, "level": attack.map(|a| a.level.as_str()),
                    "property": attack.map(|a| a.property), "what": row.what,
                    "against": row.cells.iter().map(cell).collect::<Vec<_>>() })
        };
        json!({ "permit": self.permit.nonce(), "attacks": self.rows.iter().map(row).collect::<Vec<_>>(),
                "left_out": self.left_out, "as_stated": self.is_as_stated(),
                "more_than_stated": self.is_more_than_stated() })
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        for row in self.rows {
            let (level, property) = each::named(&row.attack).map_or(("?", "?"), |a| (a.level.as_str(), a.property));
            let _ = writeln!(text, "{}  ({level}: {property})\n  {}", row.attack, row.what);
            for cell in &row.cells {
                let _ = writeln!(text, "    {}", line(cell));
            }
        }
        for left in self.left_out {
            let _ = writeln!(text, "NOT ATTACKED: {left}");
        }
        let (all, more) = (self.cells().count(), self.cells().filter(|c| !more(c).0.is_empty()).count());
        let other = self.cells().filter(|c| !c.is_as_stated()).count() - more;
        let _ = match (more, other) {
            (0, 0) => write!(text, "\nAll {all} outcomes are what docs/threats.md states."),
            (0, n) => {
                write!(text, "\nNothing was obtained that docs/threats.md does not state, and in {n} of {all} less.")
            }
            (n, _) => write!(text, "\nIn {n} of {all}, more was obtained than docs/threats.md states."),
        };
        text
    }
}

/// What was obtained beyond what the page states.
fn more(cell: &Cell) -> Outcome {
    Outcome(cell.obtained.0.difference(&cell.expected.0).copied().collect())
}

/// One network, in one line.
fn line(cell: &Cell) -> String {
    let noticed: Vec<String> = cell.counted.iter().map(|(code, n)| format!("{code}×{n}")).collect();
    let noticed = if noticed.is_empty() { "nothing".to_owned() } else { noticed.join(", ") };
    let verdict = match (more(cell), cell.is_as_stated()) {
        (_, true) => String::new(),
        (more, false) if !more.0.is_empty() => format!("  MORE THAN STATED ({}): {more}", cell.expected),
        _ => format!("  less than stated ({})", cell.expected),
    };
    let who = format!("{} ({})", cell.name, cell.network);
    format!("{who:<34} {} tried, obtained {}; noticed: {noticed}; {}{verdict}", cell.attempts, cell.obtained, cell.note)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::attack::permit::tests::{NOW, operator};

    fn row(expected: &str, obtained: &str) -> Row {
        let cell = Cell {
            network: "e1+e3+e4".into(),
            name: "dams".into(),
            expected: expected.parse().unwrap(),
            obtained: obtained.parse().unwrap(),
            attempts: 7,
            counted: BTreeMap::from([("E1-03".to_owned(), 7)]),
            note: "tried".into(),
        };
        Row { attack: "insider-reads".into(), what: "reads".into(), cells: vec![cell] }
    }

    #[test]
    fn more_than_stated_is_told_from_less() {
        let folder = tempfile::tempdir().unwrap();
        let (key, address) = (operator(folder.path()), "127.0.0.1:1".parse().unwrap());
        let attacks = BTreeSet::from(["insider-reads".to_owned()]);
        let path = folder.path().join("p");
        let permit = Permit::write(&path, &key, BTreeSet::from([address]), attacks, (NOW, NOW + 9)).unwrap();
        let cases = [("nothing", "nothing", false, true), ("reads", "nothing", false, false)];
        for (expected, obtained, is_more, is_as_stated) in
            cases.into_iter().chain([("nothing", "reads", true, false), ("reads", "forges, reads", true, false)])
        {
            let rows = [row(expected, obtained)];
            let report = Report::of(&permit, &rows, &[]);
            let told = (report.is_more_than_stated(), report.is_as_stated());
            assert_eq!(told, (is_more, is_as_stated), "{expected} / {obtained}");
            assert_eq!(report.to_json()["more_than_stated"], is_more);
            assert_eq!(report.to_text().contains("MORE THAN STATED"), is_more);
            assert!(report.to_text().contains("E1-03×7") && report.to_text().contains("7 tried"));
        }
    }
}
