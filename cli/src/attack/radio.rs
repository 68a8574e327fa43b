//! The stranger and the recorder: they have a radio and no key.

use std::collections::HashSet;

use fivefold_core::id::{Did, Sid};
use fivefold_core::wire::ieee802154::Pan;

use super::air::{Forgery, Heard, Seen, Transmitter, recorded};
use super::door::Door;
use super::plan::{Plan, Station};

/// A payload that would be a reading if somebody took it: the E1-only form with number 1, and SenML inside.
pub(super) const LURE: &[u8] = b"\x19\x01\x81\xa2\x00\x66forged\x02\x18\x2a";

pub(super) fn address(station: &Station) -> anyhow::Result<(Sid, Did)> {
    Ok((station.sid.parse()?, station.eui64.parse()?))
}

/// As whom a stranger speaks to `target`: another station of the same network.
pub(super) fn disguise(plan: &Plan, target: &Station, seen: &[Seen]) -> anyhow::Result<Forgery> {
    let (to, _) = address(target)?;
    let heard_by_target = |s: &&Seen| s.to == to || s.to == Sid::ANY_GATEWAY;
    let last = seen.iter().rev().find(heard_by_target).or(seen.last());
    let from = match last {
        Some(seen) => seen.from,
        None => to,
    };
    let neighbour = plan.stations.iter().find(|s| s.sid.parse() == Ok(from));
    let eui64 = neighbour.map_or(Ok(Did([0xEE; 8])), |s| s.eui64.parse())?;
    let counter = seen.iter().filter(|s| s.from == from).map(|s| s.counter).max().unwrap_or(0) + 1000;
    let key_index = last.map_or(1, |s| s.key_index);
    Ok(Forgery { pan: Pan(u16::from_str_radix(&plan.pan, 16)?), to, from, eui64, key_index, counter })
}

pub(super) fn seen(plan: &Plan) -> anyhow::Result<Vec<Seen>> {
    Ok(recorded(&plan.recording)?.iter().filter_map(Seen::of).collect())
}

/// Frames worth sending to `target` again: addressed to it, or to any gateway.
fn meant_for<'h>(target: &Station, heard: &'h [Heard]) -> impl Iterator<Item = &'h Heard> {
    let to = target.sid.parse();
    let mut once = HashSet::new();
    heard.iter().filter(move |h| {
        let wanted = Seen::of(h).is_none_or(|s| Ok(s.to) == to || s.to == Sid::ANY_GATEWAY || s.to == Sid::BROADCAST);
        wanted && once.insert(h.frame.clone())
    })
}

/// Sends to each station in reach what was meant for it, the newest `most` frames.
pub(super) fn replay(plan: &Plan, heard: &[Heard], most: usize) -> anyhow::Result<usize> {
    let (mut radio, mut attempts) = (Transmitter::new(Door::of(plan)?)?, 0);
    for target in &plan.stations {
        let frames: Vec<&Heard> = meant_for(target, heard).collect();
        for heard in frames.iter().rev().take(most).rev() {
            radio.send(target.addr, &heard.bytes())?;
            attempts += 1;
        }
    }
    Ok(attempts)
}
