//! Facts from files: the operator's book and vault, shares, config files.

mod book;

use crate::facts::Facts;

pub use book::book;

/// Says that something could not be read.
pub fn unread(facts: &mut Facts, what: impl std::fmt::Display) {
    facts.unread.push(what.to_string());
}
