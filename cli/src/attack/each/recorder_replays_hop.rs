//! `recorder-replays-hop`: the same frames to the same receivers.

use crate::attack::air::recorded;
use crate::attack::plan::Plan;
use crate::attack::radio::replay;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "recorder-replays-hop",
    level: Level::E1,
    property: "a frame is taken once",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let attempts = replay(plan, &recorded(&plan.recording)?, 60)?;
    Ok(Report::tried(attempts, "recorded frames, HELLOs among them, sent to the same receivers again"))
}
