//! `classic-gateway-reads`: disk, memory, and every key of the gateway's on what passed.

use anyhow::Context as _;
use fivefold_waspmote::ClassicKey;

use crate::attack::classic::Foe;
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};
use crate::attack::{opener, thief};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-gateway-reads",
    level: Level::Classic,
    property: "the gateway cannot read",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let foe = Foe::new(plan)?;
    let searched = thief::disk_and_memory(plan)?;
    let folder = plan.gateway.as_deref().context("the plan names no stolen gateway")?;
    let keys: Vec<ClassicKey> =
        opener::stolen_classic(folder)?.iter().filter_map(|key| ClassicKey::from_bytes(key).ok()).collect();
    let opened = foe.reads(&keys);
    let note = format!("{}; {}", searched.note, opened.note);
    Ok(Report { attempts: searched.attempts + opened.attempts, read: searched.read + opened.read, note, ..Report::default() })
}
