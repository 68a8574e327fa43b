//! `gateway-replays`: what passed, in new batches, twice.

use fivefold_core::profile::Profile;

use crate::attack::opener::contents;
use crate::attack::plan::Plan;
use crate::attack::thief::Thief;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "gateway-replays",
    level: Level::E3,
    property: "a message is stored once",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let contents = contents(plan)?;
    let mut thief = Thief::new(plan)?;
    let profile = thief.profile();
    let mut mail = Vec::new();
    for passed in thief.passed.iter().rev().skip(2).take(20) {
        let Some(opened) = Thief::item8(passed) else { continue };
        let bytes = match profile {
            Profile::ToCloud => Thief::expanded(passed),
            _ => contents(passed),
        };
        let Some(bytes) = bytes else { continue };
        mail.push(thief.envelope(passed.originator, bytes, opened));
    }
    anyhow::ensure!(!mail.is_empty(), "nothing passed that could be forwarded again");
    let first = thief.hand_in(&mail)?;
    let second = thief.hand_in(&mail)?;
    Ok(Report::tried(
        2 * mail.len(),
        format!("what passed, handed in twice more; the cloud answered {first}, {second}"),
    ))
}
