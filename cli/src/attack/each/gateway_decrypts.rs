//! `gateway-decrypts`: every key of the gateway on everything that passed: its C2 contexts, and the same secrets tried as
//! if they were those of C3.

use anyhow::Context as _;
use fivefold_core::e2_gateway::E2;
use fivefold_core::e3_cloud::{E3, E3Secret};
use fivefold_core::oscore::Context;

use crate::attack::opener::{open, open_inside, stolen_contexts};
use crate::attack::plan::Plan;
use crate::attack::plan::found;
use crate::attack::thief::Thief;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "gateway-decrypts",
    level: Level::E3,
    property: "no key of the gateway's opens what is for the cloud",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let folder = plan.gateway.clone().context("the plan names no stolen gateway")?;
    let thief = Thief::new(plan)?;
    let secrets = stolen_contexts(&folder)?;
    let mut clear = Vec::new();
    let (mut tries, mut opened) = (0u64, 0u64);
    for (sid, epoch, alg, secret) in &secrets {
        let e2: Context<E2> =
            secret.context_for_peer(*sid, *epoch, None, *alg).map_err(|e| anyhow::anyhow!("{e:?}"))?;
        let key = secret.danger_master_secret();
        let as_e3 = E3Secret::new(key.get(..alg.key_len()).unwrap_or_default(), secret.master_salt());
        let as_e3: Option<Context<E3>> = as_e3.and_then(|s| s.context_for_peer(*sid, *epoch, None, *alg).ok());
        for passed in thief.passed.iter().filter(|p| p.originator == *sid) {
            tries += 2;
            let inner = open(&e2, passed);
            opened += u64::from(inner.is_some());
            if let Some(plaintext) = &inner {
                clear.extend_from_slice(plaintext);
                clear.extend(as_e3.as_ref().and_then(|c| open_inside(c, plaintext, passed)).unwrap_or_default());
            }
            clear.extend(as_e3.as_ref().and_then(|c| open(c, passed)).unwrap_or_default());
        }
    }
    // What E1 alone protected is in the clear at the gateway anyway.
    let plain: Vec<u8> = thief
        .passed
        .iter()
        .filter(|p| p.tiny.first().is_some_and(|r| r & 0x20 == 0))
        .flat_map(|p| p.tiny.clone())
        .collect();
    tries += thief.passed.len() as u64;
    clear.extend(plain);
    let read = found(&clear, &plan.payloads());
    let note = format!(
        "{} keys on {} messages: {opened} opened at E2, {read} readings seen",
        secrets.len() + 1,
        thief.passed.len()
    );
    Ok(Report { attempts: tries, read, note, ..Report::default() })
}
