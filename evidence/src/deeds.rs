//! The operator's log against the evidence log: whether its lines are those that the log has the hashes of.
//!
//! Spec: docs/evidence.md 4.1.

use std::collections::HashMap;

use fivefold_keep::registry::Line;

use crate::log::{Entry, EntryKind};
use crate::record::Deed;

/// What a comparison has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Lines that the log has.
    pub logged: usize,
    /// Lines behind the last one that the log has: it gets them with the next head.
    pub waiting: usize,
    /// What is wrong, a sentence each.
    pub wrong: Vec<String>,
}

/// Compares lines, from the first one on, with the entries `op` of a log, in its order and with their places there.
pub fn compare(lines: &[Line], log: &[(u64, Entry)]) -> Compared {
    let entry = |line: &Line| Deed::of(line).emit().ok().map(|record| Entry::of(EntryKind::Operator, &record));
    let numbers: HashMap<Entry, u64> = lines.iter().filter_map(|line| Some((entry(line)?, line.number))).collect();
    let mut found = Compared::default();
    let mut last = 0;
    for (index, entry) in log {
        match numbers.get(entry) {
            None => found.wrong.push(format!(
                "entry {index} of the log is that of a line which is not here: it was altered or taken out, or the book was put \
                 back from a copy"
            )),
            Some(number) if *number <= last => {
                found.wrong.push(format!("line {number} stands in the log behind line {last}, at entry {index}"));
            }
            Some(number) => {
                found.logged += 1;
                // Those between were to be there before it.
                for line in lines.iter().filter(|l| l.number > last && l.number < *number) {
                    let n = line.number;
                    found.wrong.push(format!("line {n} is not in the log, which has line {number}: it was altered or put in"));
                }
                last = *number;
            }
        }
    }
    found.waiting = lines.iter().filter(|l| l.number > last).count();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(n: u64) -> Vec<Line> {
        let mut before = [0; 32];
        let line = |number| {
            let line = Line {
                number,
                deed: number,
                at: 1_790_000_000 + number,
                who: "operator anna (uid 1000)".into(),
                place: "pts/1".into(),
                command: "device revoke".into(),
                done: "device revoked".into(),
                about: format!("device acde4800000000{number:02}"),
                version: number,
                salt: [number as u8; 16],
                before,
            };
            before = line.hash();
            line
        };
        (1..=n).map(line).collect()
    }

    fn log(lines: &[Line]) -> Vec<(u64, Entry)> {
        let entry = |line: &Line| Entry::of(EntryKind::Operator, &Deed::of(line).emit().unwrap());
        lines.iter().map(|line| (10 * line.number, entry(line))).collect()
    }

    #[test]
    fn lines_that_the_log_has_are_counted_and_those_behind_it_wait() {
        let all = lines(5);
        let found = compare(&all, &log(&all[..3]));
        assert_eq!(found, Compared { logged: 3, waiting: 2, wrong: Vec::new() });
        assert_eq!(compare(&[], &[]), Compared::default());
    }

    #[test]
    fn a_line_that_was_altered_dropped_put_in_or_moved_is_found() {
        let all = lines(5);
        let there = log(&all);
        let wrong = |lines: &[Line], log: &[(u64, Entry)]| compare(lines, log).wrong;
        assert!(wrong(&all, &there).is_empty());
        for n in 0..5 {
            let mut altered = all.clone();
            altered[n].who = "operator bert (uid 1001)".into();
            assert!(wrong(&altered, &there).concat().contains(&format!("entry {}0", n + 1)), "line {n}");
            let mut dropped = all.clone();
            dropped.remove(n);
            assert!(!wrong(&dropped, &there).is_empty(), "line {n}");
        }
        // Whoever hashes all that follows anew is found by the log alone.
        let mut forged = all.clone();
        forged[1].about = "nothing".into();
        for n in 2..5 {
            forged[n].before = forged[n - 1].hash();
        }
        assert_eq!(wrong(&forged, &there).len(), 4);
        let mut moved = there.clone();
        moved.swap(1, 2);
        assert!(wrong(&all, &moved).concat().contains("behind line 3"));
        let mut less = there.clone();
        less.remove(1);
        assert!(wrong(&all, &less)[0].contains("line 2 is not in the log"));
    }

    #[test]
    fn a_log_that_has_nothing_of_the_line_says_so_of_each() {
        let all = lines(2);
        let other = lines(3);
        assert_eq!(compare(&all, &log(&other)).wrong.len(), 1);
    }
}
