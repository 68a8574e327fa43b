//! `gateway-invents`: readings that no node made, under every way the wire has.

use anyhow::Context as _;
use fivefold_core::id::Epoch;
use fivefold_core::profile::Profile;
use fivefold_core::wire::envelope::{Kind, Opened};

use crate::attack::plan::Plan;
use crate::attack::thief::{LIE, Thief, lie};
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "gateway-invents",
    level: Level::E3,
    property: "a gateway makes no reading of a node",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let mut thief = Thief::new(plan)?;
    let victim = thief.passed.last().context("nothing passed the gateway")?.originator;
    let mut mail = Vec::new();
    for i in 0..4u64 {
        let opened = |epoch| Opened { kid: victim, piv: 22_000 + i, bctx: None, epoch: Epoch(epoch) };
        let mut sealed = Thief::expanded(thief.passed.last().context("nothing passed")?).unwrap_or_default();
        let tail = sealed.len().saturating_sub(20);
        getrandom::fill(sealed.get_mut(tail..).unwrap_or_default())?;
        mail.push((Kind::CloudTiny, victim, sealed, Some(opened(1))));
        mail.push((Kind::GatewayOpened, victim, lie(Profile::ToGateway), Some(opened(1))));
        mail.push((Kind::DangerPlain, victim, LIE.to_vec(), Some(opened(0))));
    }
    let answer = thief.hand_in(&mail)?;
    Ok(Report::tried(mail.len(), format!("readings of its own; the cloud answered {answer}")))
}
