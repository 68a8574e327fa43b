//! `insider-replays`: other nodes' sealed messages, framed as a hop of the insider's own.

use crate::attack::insider::Insider;
use crate::attack::opener::badge_of;
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "insider-replays",
    level: Level::E2,
    property: "a message is taken once, whoever hands it on",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let mut insider = Insider::new(plan, badge_of(plan)?)?;
    let heard = std::mem::take(&mut insider.heard);
    let mut attempts = 0;
    for datagram in heard.iter().rev().take(40).rev() {
        insider.relay(datagram.originator, &datagram.tiny)?;
        attempts += 1;
    }
    Ok(Report::tried(attempts, "other nodes' messages, sent again as if relayed"))
}
