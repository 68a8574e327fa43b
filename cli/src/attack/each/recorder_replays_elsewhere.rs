//! `recorder-replays-elsewhere`: the same frames to other gateways.

use crate::attack::air::{Transmitter, recorded};
use crate::attack::door::Door;
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "recorder-replays-elsewhere",
    level: Level::E1,
    property: "a frame is for one receiver",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let heard = recorded(&plan.recording)?;
    let (mut radio, mut attempts) = (Transmitter::new(Door::of(plan)?)?, 0);
    for target in &plan.elsewhere {
        for heard in heard.iter().rev().take(60).rev() {
            radio.send(target.addr, &heard.bytes())?;
            attempts += 1;
        }
    }
    Ok(Report::tried(attempts, "recorded frames sent to other gateways"))
}
