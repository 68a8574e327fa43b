//! `stranger-wrong-key`: everything right but the key.

use crate::attack::air::Transmitter;
use crate::attack::door::Door;
use crate::attack::plan::Plan;
use crate::attack::radio::{LURE, disguise, seen};
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "stranger-wrong-key",
    level: Level::E1,
    property: "who has another key is not heard",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let (seen, mut radio, mut attempts) = (seen(plan)?, Transmitter::new(Door::of(plan)?)?, 0);
    let mut key = [0u8; 16];
    getrandom::fill(&mut key)?;
    for target in &plan.stations {
        let mut as_whom = disguise(plan, target, &seen)?;
        for _ in 0..8 {
            as_whom.counter += 1;
            radio.send_body(target.addr, &as_whom.seal(&key, LURE))?;
            attempts += 1;
        }
    }
    Ok(Report::tried(attempts, "frames of level 6 under a key of his own"))
}
