//! `classic-recorder-flips`: one bit of every byte of the last frame.

use crate::attack::classic::Foe;
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-recorder-flips",
    level: Level::Classic,
    property: "no bit of a frame can be changed",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let foe = Foe::new(plan)?;
    let last = foe.last();
    let frames: Vec<Vec<u8>> = (0..last.len())
        .map(|at| {
            let mut frame = last.to_vec();
            if let Some(byte) = frame.get_mut(at) {
                *byte ^= 1 << (at % 8);
            }
            frame
        })
        .collect();
    Ok(Report::tried(foe.hand_in(&frames)?, "one bit of every byte"))
}
