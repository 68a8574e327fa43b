//! `classic-insider-reads`: what the key of its own node opens of what others sent.

use crate::attack::classic::Foe;
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-insider-reads",
    level: Level::Classic,
    property: "other nodes cannot read",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let foe = Foe::new(plan)?;
    Ok(foe.reads(&[foe.own_key()?]))
}
