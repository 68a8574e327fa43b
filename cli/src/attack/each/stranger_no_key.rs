//! `stranger-no-key`: no security at all, and the levels that only look like it.

use crate::attack::air::Transmitter;
use crate::attack::door::Door;
use crate::attack::plan::Plan;
use crate::attack::radio::{LURE, disguise, seen};
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "stranger-no-key",
    level: Level::E1,
    property: "who has no key is not heard",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let (seen, mut radio, mut attempts) = (seen(plan)?, Transmitter::new(Door::of(plan)?)?, 0);
    for target in &plan.stations {
        let mut as_whom = disguise(plan, target, &seen)?;
        for _ in 0..4 {
            as_whom.counter += 1;
            for body in [as_whom.unsecured(LURE), as_whom.pretend(0x08, LURE, 0), as_whom.pretend(0x0C, LURE, 0)] {
                radio.send_body(target.addr, &body)?;
                attempts += 1;
            }
        }
    }
    Ok(Report::tried(attempts, "frames without security and of levels 0 and 4"))
}
