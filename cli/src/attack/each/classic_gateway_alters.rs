//! `classic-gateway-alters`: what it forwards, with a bit of every byte flipped; what it was to open, as it likes.

use fivefold_waspmote::Frame;

use crate::attack::classic::Foe;
use crate::attack::classic::is_for_gateway;
use crate::attack::plan::Plan;
use crate::attack::{Attack, Level, Report, Way};

pub(super) static ATTACK: Attack = Attack {
    name: "classic-gateway-alters",
    level: Level::Classic,
    property: "the gateway cannot change what it forwards",
    way: Way::Process(run),
};

fn run(plan: &Plan) -> anyhow::Result<Report> {
    let foe = Foe::new(plan)?;
    let mut reports = Vec::new();
    for at in 13..foe.last().len() {
        let mut frame = foe.last().to_vec();
        if let Some(byte) = frame.get_mut(at) {
            *byte ^= 1 << (at % 8);
        }
        reports.push((frame, None));
    }
    if is_for_gateway(foe.last()) {
        // What it says that it opened is its word.
        for (ahead, (_, inner)) in (1..).zip(&mut reports) {
            *inner = Some(foe.lie(ahead)?);
        }
    }
    if let Ok(Frame::Clear(_)) = Frame::parse(foe.last()) {
        reports.push((foe.lie(1)?, None));
    }
    let answer = foe.report(&reports)?;
    Ok(Report::tried(reports.len(), format!("altered frames; the cloud answered {answer}")))
}
