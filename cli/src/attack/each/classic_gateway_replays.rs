//! `classic-gateway-replays`: what passed, in a new batch.

use crate::attack::classic::Foe;
use crate::attack::classic::REPLAYED;
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-gateway-replays",
    level: Level::Classic,
    property: "a frame is stored once",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let foe = Foe::new(plan)?;
    let reports: Vec<_> = foe.heard.iter().rev().skip(2).take(REPLAYED).map(|f| (f.clone(), None)).collect();
    let answer = foe.report(&reports)?;
    Ok(Report::tried(reports.len(), format!("what passed, in a new batch; the cloud answered {answer}")))
}
