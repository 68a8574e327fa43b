//! The rules, by theme: one table each, put together here.

mod channel;
mod classic;
mod contexts;
mod foreign;
mod keys;
mod levels;
mod signing;
mod tokens;

use fivefold_keep::share::GatewaySettings;

use crate::facts::{Config, Facts, Gateway};
use crate::rule::{Found, Rule};

static THEMES: &[&[Rule]] = &[
    levels::RULES,
    keys::RULES,
    contexts::RULES,
    channel::RULES,
    classic::RULES,
    signing::RULES,
    tokens::RULES,
    foreign::RULES,
];

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

/// What it takes where a gateway's files are elsewhere.
const NO_CONFIG: &str = "its gateway.toml: run fivefold audit --dir FOLDER at the gateway";

/// Looks at each gateway's config, and says of which it is not here.
fn each_config(facts: &Facts, found: &mut Found, look: impl Fn(&Gateway, &Config<GatewaySettings>, &mut Found)) {
    for gateway in facts.gateways() {
        match &gateway.config {
            Some(config) => look(gateway, config, found),
            None => found.unknown(gateway.subject(), NO_CONFIG),
        }
    }
}
