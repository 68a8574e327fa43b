//! The rules, by theme: one table each, put together here.

mod classic;
mod levels;
mod signing;

use crate::rule::Rule;

static THEMES: &[&[Rule]] = &[levels::RULES, classic::RULES, signing::RULES];

/// All rules, by id.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    let mut all: Vec<&'static Rule> = THEMES.iter().flat_map(|theme| theme.iter()).collect();
    all.sort_by_key(|rule| rule.id);
    all.into_iter()
}

/// The rule with an id, however it is written.
pub fn named(id: &str) -> Option<&'static Rule> {
    all().find(|rule| rule.id.eq_ignore_ascii_case(id))
}
