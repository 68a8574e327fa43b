//! `classic-recorder-replays`: recorded frames again.

use crate::attack::classic::Foe;
use crate::attack::classic::REPLAYED;
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-recorder-replays",
    level: Level::Classic,
    property: "a frame is taken once",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let foe = Foe::new(plan)?;
    let from = foe.heard.len().saturating_sub(REPLAYED + 2);
    let frames: Vec<_> = foe.heard.iter().skip(from).take(REPLAYED).cloned().collect();
    Ok(Report::tried(foe.hand_in(&frames)?, "recorded frames again"))
}
