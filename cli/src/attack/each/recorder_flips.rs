//! `recorder-flips`: a bit of every byte, under a counter that the receiver has not seen.

use fivefold_core::id::Sid;

use crate::attack::air::Transmitter;
use crate::attack::door::Door;
use crate::attack::plan::Plan;
use crate::attack::radio::{address, seen};
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "recorder-flips",
    level: Level::E1,
    property: "no bit of a frame can be changed",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    const COUNTER_AT: usize = 10;
    let seen = seen(plan)?;
    let (mut radio, mut attempts) = (Transmitter::new(Door::of(plan)?)?, 0);
    for target in &plan.stations {
        let (to, _) = address(target)?;
        let Some(last) = seen.iter().rev().find(|s| s.to == to || s.to == Sid::ANY_GATEWAY) else {
            continue;
        };
        let newest = seen.iter().filter(|s| s.from == last.from).map(|s| s.counter).max().unwrap_or(0);
        for at in 0..last.body.len() {
            let mut body = last.body.clone();
            let counter = (newest + 2000 + at as u32).to_le_bytes();
            if let Some(slot) = body.get_mut(COUNTER_AT..COUNTER_AT + 4) {
                slot.copy_from_slice(&counter);
            }
            if let Some(byte) = body.get_mut(at) {
                *byte ^= 1 << (at % 8);
            }
            radio.send_body(target.addr, &body)?;
            attempts += 1;
        }
    }
    Ok(Report::tried(attempts, "one bit of every byte of a recorded frame, with a raised counter"))
}
