//! `classic-recorder-cuts`: the beginning of a new frame, with its sequence, and the values of older ones.

use fivefold_waspmote::Frame;

use crate::attack::classic::Foe;
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-recorder-cuts",
    level: Level::Classic,
    property: "parts of two frames make no third",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let foe = Foe::new(plan)?;
    let newest = foe.last();
    // The inner header ends with a block, by the length of this node's name.
    let head = if matches!(Frame::parse(newest), Ok(Frame::Clear(_))) { 16 } else { 13 + 16 };
    let (head, values) = (newest.get(..head).unwrap_or_default(), head);
    let mut frames: Vec<Vec<u8>> = Vec::new();
    for old in foe.heard.iter().rev().skip(1).filter(|old| old.len() == newest.len()).take(8) {
        let cut = [head, old.get(values..).unwrap_or_default()].concat();
        if !foe.heard.contains(&cut) && !frames.contains(&cut) {
            frames.push(cut);
        }
    }
    Ok(Report::tried(foe.hand_in(&frames)?, "blocks of two frames in one"))
}
