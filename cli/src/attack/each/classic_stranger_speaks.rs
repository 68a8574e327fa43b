//! `classic-stranger-speaks`: frames in clear, in the node's name.

use crate::attack::classic::Foe;
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-stranger-speaks",
    level: Level::Classic,
    property: "who has no key is not believed",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let foe = Foe::new(plan)?;
    let frames: Vec<_> = (1..5).map(|ahead| foe.lie(ahead)).collect::<anyhow::Result<_>>()?;
    Ok(Report::tried(foe.hand_in(&frames)?, "frames in clear, in the node's name"))
}
