//! `classic-recorder-reads`: what keys that are easy to guess open of what was heard, or what stands there in clear.

use crate::attack::classic::{Foe, guesses};
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-recorder-reads",
    level: Level::Classic,
    property: "what is on the air is secret",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    Ok(Foe::new(plan)?.reads(&guesses()?))
}
