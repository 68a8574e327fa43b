//! `gateway-alters`: one bit of every byte of a message that it forwards.

use anyhow::Context as _;
use fivefold_core::profile::Profile;
use fivefold_core::wire::envelope::Opened;

use crate::attack::plan::Plan;
use crate::attack::thief::{Thief, lie};
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "gateway-alters",
    level: Level::E3,
    property: "the gateway cannot change what it forwards",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let mut thief = Thief::new(plan)?;
    let profile = thief.profile();
    let last = thief.passed.last().cloned().context("nothing passed the gateway")?;
    let honest = match profile {
        Profile::ToGateway | Profile::DangerLinkOnly => lie(profile),
        // Of nested messages the thief holds C2: what it forwards is the C3 message, as good as these bytes to the cloud.
        _ => Thief::expanded(&last).context("what passed cannot be expanded")?,
    };
    let opened = Thief::item8(&last).context("what passed has no number")?;
    let mut mail = Vec::new();
    for at in 0..honest.len() {
        let mut bytes = honest.clone();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << (at % 8);
        }
        // Where the number is the gateway's word, an altered message takes one that the node has not come to.
        let piv = if profile == Profile::ToCloud { opened.piv } else { 20_000 + at as u64 };
        mail.push(thief.envelope(last.originator, bytes, Opened { piv, ..opened }));
    }
    let answer = thief.hand_in(&mail)?;
    Ok(Report::tried(mail.len(), format!("altered messages handed in; the cloud answered {answer}")))
}
