//! `recorder-reads`: looks for a reading in everything heard.

use crate::attack::air::{Heard, recorded};
use crate::attack::plan::Plan;
use crate::attack::plan::found;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "recorder-reads",
    level: Level::E1,
    property: "what is on the air is secret",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let heard = recorded(&plan.recording)?;
    let payloads = plan.payloads();
    let all: Vec<u8> = heard.iter().flat_map(Heard::bytes).collect();
    let read = found(&all, &payloads);
    let note = format!("searched {} frames for {} readings", heard.len(), payloads.len());
    Ok(Report { attempts: heard.len() as u64, read, note, ..Report::default() })
}
