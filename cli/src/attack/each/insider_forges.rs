//! `insider-forges`: speaks as every other node that was heard, under a number that node has not used.

use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};
use crate::attack::{insider, opener};

pub(super) static ATTACK: Attack = Attack {
    name: "insider-forges",
    level: Level::E2,
    property: "other nodes of the network cannot speak in its name",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    insider::forges(plan, opener::badge_of(plan)?)
}
