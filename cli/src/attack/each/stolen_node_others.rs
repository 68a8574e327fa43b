//! `stolen-node-others`: every key of the node on what others sent, and messages in others' names sealed under them.

use anyhow::Context as _;
use fivefold_core::e2_gateway::E2Root;
use fivefold_core::e3_cloud::E3Secret;
use fivefold_keep::share::NodeShare;

use crate::attack::insider::{forges, heard_of_others};
use crate::attack::opener::{badge_of, open};
use crate::attack::plan::Plan;
use crate::attack::plan::found;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "stolen-node-others",
    level: Level::E3,
    property: "one node's keys are no other's",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let share = NodeShare::read(plan.node.as_ref().context("the plan names no node")?)?;
    let others = heard_of_others(plan, badge_of(plan)?)?;
    let e3 = share.secrets.e3.as_ref().and_then(|(ms3, salt3)| E3Secret::new(ms3, salt3));
    let e2 = share.secrets.e2_root.as_ref().map(|root| E2Root::new(**root).secret(share.group));
    let (mut tries, mut clear) = (0u64, Vec::new());
    for passed in &others {
        // Under the node's own id, and as if its secret were the other's.
        for sid in [share.sid, passed.originator] {
            let e3 = e3.as_ref().and_then(|s| s.context_for_peer(sid, share.epoch, None, share.policy.alg).ok());
            let e2 = e2.as_ref().and_then(|s| s.context_for_peer(sid, share.epoch, None, share.policy.alg).ok());
            tries += u64::from(e3.is_some()) + u64::from(e2.is_some());
            clear.extend(e3.as_ref().and_then(|c| open(c, passed)).unwrap_or_default());
            clear.extend(e2.as_ref().and_then(|c| open(c, passed)).unwrap_or_default());
        }
    }
    let read = found(&clear, &plan.payloads());
    let forged = forges(plan, badge_of(plan)?)?;
    let note =
        format!("{tries} keys tried on {} messages of others, {} spoken in their names", others.len(), forged.attempts);
    Ok(Report { attempts: tries + forged.attempts, read, note, ..Report::default() })
}
