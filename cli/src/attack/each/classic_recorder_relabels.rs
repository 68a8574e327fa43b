//! `classic-recorder-relabels`: other types, and other nodes' serials, on the same ciphertext.

use fivefold_waspmote::Serial;

use crate::attack::classic::Foe;
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-recorder-relabels",
    level: Level::Classic,
    property: "a frame is bound to its sender and its kind",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let foe = Foe::new(plan)?;
    let mut frames = Vec::new();
    for kind in [0x06, 0x60, 0x64, 0x66, 0x67, 0x68, 0x69] {
        let mut frame = foe.last().to_vec();
        if let Some(byte) = frame.get_mut(3).filter(|byte| **byte != kind) {
            *byte = kind;
            frames.push(frame);
        }
    }
    for other in &foe.means.others {
        let Ok(Serial::V15(serial)) = other.parse() else { continue };
        let mut frame = foe.last().to_vec();
        if let Some(place) = frame.get_mut(5..13) {
            place.copy_from_slice(&serial);
            frames.push(frame);
        }
    }
    Ok(Report::tried(foe.hand_in(&frames)?, "other types and serials around the same bytes"))
}
