//! `classic-stranger-guesses`: frames under keys that are easy to guess.

use crate::attack::classic::{Foe, guesses, hardened, sealed};
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-stranger-guesses",
    level: Level::Classic,
    property: "who guesses a key is not believed",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let foe = Foe::new(plan)?;
    let clear = foe.lie(1)?;
    let mut frames = hardened(&clear, [0; 32], u32::MAX / 2)?;
    for key in guesses()? {
        frames.extend(sealed(&clear, &key)?);
    }
    Ok(Report::tried(foe.hand_in(&frames)?, "frames sealed under keys that people choose"))
}
