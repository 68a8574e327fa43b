//! What stands beside Fivefold.

use std::path::Path;

use crate::facts::{Facts, Seen as Fact};
use crate::foreign::{Disk, Seen, System, examine};
use crate::rule::Subject;

/// Looks at a file of somebody else's, and at what it includes.
pub fn beside(system: System, path: &Path, facts: &mut Facts) {
    match examine(system, path, &mut Disk) {
        Ok(seen) => told(system, path, seen, facts),
        Err(why) => facts.unread.push(format!("{}: {why}", path.display())),
    }
}

/// Takes what was seen in a file: its subject is the file that was named, its place the line in it or in one it includes.
pub fn told(system: System, path: &Path, seen: Vec<Seen>, facts: &mut Facts) {
    facts.examined.extend(system.rules().iter().copied());
    facts.seen.extend(seen.into_iter().map(|one| Fact {
        rule: one.rule,
        subject: Subject::file(path).at(&one.file, Some(one.line).filter(|line| *line > 0)),
        sentence: one.what,
        cure: String::new(),
    }));
}
