//! `classic-gateway-invents`: readings that no node made, in every way the wire has.

use crate::attack::classic::Foe;
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-gateway-invents",
    level: Level::Classic,
    property: "a gateway makes no reading of a node",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let foe = Foe::new(plan)?;
    let clear = foe.lie(2)?;
    let mut noise = foe.last().to_vec();
    getrandom::fill(noise.get_mut(13..).unwrap_or_default())?;
    let reports = [
        (clear.clone(), None),
        (foe.last().to_vec(), Some(clear.clone())),
        (noise.clone(), Some(clear)),
        (noise, None),
    ];
    let answer = foe.report(&reports)?;
    Ok(Report::tried(reports.len(), format!("readings of its own; the cloud answered {answer}")))
}
