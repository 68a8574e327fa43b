//! `classic-insider-forges`: speaks as the victim under the key of his own node.

use crate::attack::classic::Foe;
use crate::attack::classic::{hardened, sealed};
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-insider-forges",
    level: Level::Classic,
    property: "other nodes cannot speak in its name",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let foe = Foe::new(plan)?;
    let clear = foe.lie(1)?;
    let mut frames = sealed(&clear, &foe.own_key()?)?;
    frames.extend(hardened(&clear, [0xA7; 32], u32::MAX / 2)?);
    frames.push(clear);
    Ok(Report::tried(foe.hand_in(&frames)?, "the victim's name under another node's key, and in clear"))
}
