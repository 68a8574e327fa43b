//! `gateway-splices`: what one device sent, as another's.

use fivefold_core::id::Sid;
use fivefold_core::profile::Profile;
use fivefold_core::wire::envelope::Opened;

use crate::attack::plan::Plan;
use crate::attack::thief::{Thief, lie};
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "gateway-splices",
    level: Level::E3,
    property: "a message is bound to its sender",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let mut thief = Thief::new(plan)?;
    let profile = thief.profile();
    let mut others: Vec<Sid> = thief.passed.iter().map(|p| p.originator).collect();
    others.sort();
    others.dedup();
    let mut mail = Vec::new();
    for (i, passed) in thief.passed.iter().rev().take(10).enumerate() {
        let Some(opened) = Thief::item8(passed) else { continue };
        let bytes = match profile {
            Profile::ToGateway | Profile::DangerLinkOnly => lie(profile),
            _ => Thief::expanded(passed).unwrap_or_default(),
        };
        for &victim in others.iter().filter(|v| **v != passed.originator) {
            let piv = if profile == Profile::ToCloud { opened.piv } else { 21_000 + (i * 16 + mail.len()) as u64 };
            mail.push(thief.envelope(victim, bytes.clone(), Opened { piv, ..opened }));
        }
    }
    let answer = thief.hand_in(&mail)?;
    Ok(Report::tried(mail.len(), format!("messages under another device's name; the cloud answered {answer}")))
}
