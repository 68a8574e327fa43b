//! What stands beside Fivefold.

use std::path::Path;

use crate::facts::{Facts, Seen as Fact};
use crate::foreign::{Disk, Notes, System, examine};
use crate::rule::Subject;

/// Looks at a file of somebody else's, and at what it includes.
pub fn beside(system: System, path: &Path, facts: &mut Facts) {
    match examine(system, path, &mut Disk) {
        Ok(notes) => told(path, notes, facts),
        Err(why) => facts.unread.push(format!("{}: {why}", path.display())),
    }
}

/// Takes what was seen in a file: its subject is the file that was named, its place the line in it or in one it includes.
pub fn told(path: &Path, notes: Notes, facts: &mut Facts) {
    facts.examined.extend(notes.examined());
    facts.unread.extend(notes.left().into_iter().map(|left| format!("{}: {left}", path.display())));
    facts.seen.extend(notes.into_vec().into_iter().map(|one| Fact {
        rule: one.rule,
        subject: Subject::file(path).at(&one.file, Some(one.line).filter(|line| *line > 0)),
        sentence: one.what,
        cure: String::new(),
        severity: None,
    }));
}
