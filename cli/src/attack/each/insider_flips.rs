//! `insider-flips`: one bit of every byte of another node's message.

use crate::attack::insider::Insider;
use crate::attack::opener::badge_of;
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "insider-flips",
    level: Level::E2,
    property: "no bit of a message can be changed by who hands it on",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let mut insider = Insider::new(plan, badge_of(plan)?)?;
    let Some(last) = insider.heard.pop() else { anyhow::bail!("nothing of another node was heard") };
    for at in 0..last.tiny.len() {
        let mut tiny = last.tiny.clone();
        if let Some(byte) = tiny.get_mut(at) {
            // A high bit: of the number, that is one which the node has not reached.
            *byte ^= 0x80 >> (at % 2);
        }
        insider.relay(last.originator, &tiny)?;
    }
    Ok(Report::tried(last.tiny.len(), "one bit of every byte of another node's message, properly framed"))
}
