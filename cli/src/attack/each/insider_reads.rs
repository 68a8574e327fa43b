//! `insider-reads`: opens E1 of everything heard and looks for a reading.

use crate::attack::insider::Insider;
use crate::attack::opener::badge_of;
use crate::attack::plan::Plan;
use crate::attack::plan::found;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "insider-reads",
    level: Level::E2,
    property: "other nodes of the network cannot read",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let insider = Insider::new(plan, badge_of(plan)?)?;
    let payloads = plan.payloads();
    let read = found(&insider.opened, &payloads);
    let note = format!("opened E1 of {} frames; inside are {} requests of others", insider.frames, insider.heard.len());
    Ok(Report { attempts: insider.frames as u64, read, note, ..Report::default() })
}
