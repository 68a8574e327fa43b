//! The stranger and the recorder: they have a radio and no key.

use std::collections::HashSet;

use fivefold_core::id::{Did, Sid};
use fivefold_core::wire::ieee802154::Pan;

use super::Report;
use super::air::{Forgery, Heard, Seen, Transmitter, recorded};
use super::plan::{Plan, Station, found};

/// A payload that would be a reading if somebody took it: the E1-only form with number 1, and SenML inside.
const LURE: &[u8] = b"\x19\x01\x81\xa2\x00\x66forged\x02\x18\x2a";

fn address(station: &Station) -> anyhow::Result<(Sid, Did)> {
    Ok((station.sid.parse()?, station.eui64.parse()?))
}

/// As whom a stranger speaks to `target`: another station of the same network.
fn disguise(plan: &Plan, target: &Station, seen: &[Seen]) -> anyhow::Result<Forgery> {
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

fn seen(plan: &Plan) -> anyhow::Result<Vec<Seen>> {
    Ok(recorded(&plan.recording)?.iter().filter_map(Seen::of).collect())
}

/// `stranger-no-key`: no security at all, and the levels that only look like it.
///
/// # Errors
/// The plan is not complete, or a socket fails.
pub fn no_key(plan: &Plan) -> anyhow::Result<Report> {
    let (seen, mut radio, mut attempts) = (seen(plan)?, Transmitter::new()?, 0);
    for target in &plan.stations {
        let mut as_whom = disguise(plan, target, &seen)?;
        for _ in 0..4 {
            as_whom.counter += 1;
            for body in [as_whom.unsecured(LURE), as_whom.pretend(0x08, LURE, 0), as_whom.pretend(0x0C, LURE, 0)] {
                radio.send_body(target.addr, &body)?;
                attempts += 1;
            }
        }
    }
    Ok(Report::tried(attempts, "frames without security and of levels 0 and 4"))
}

/// `stranger-wrong-key`: everything right but the key.
///
/// # Errors
/// The plan is not complete, or a socket fails.
pub fn wrong_key(plan: &Plan) -> anyhow::Result<Report> {
    let (seen, mut radio, mut attempts) = (seen(plan)?, Transmitter::new()?, 0);
    let mut key = [0u8; 16];
    getrandom::fill(&mut key)?;
    for target in &plan.stations {
        let mut as_whom = disguise(plan, target, &seen)?;
        for _ in 0..8 {
            as_whom.counter += 1;
            radio.send_body(target.addr, &as_whom.seal(&key, LURE))?;
            attempts += 1;
        }
    }
    Ok(Report::tried(attempts, "frames of level 6 under a key of his own"))
}

/// `recorder-reads`: looks for a reading in everything heard.
///
/// # Errors
/// The recording cannot be read.
pub fn reads(plan: &Plan) -> anyhow::Result<Report> {
    let heard = recorded(&plan.recording)?;
    let payloads = plan.payloads();
    let all: Vec<u8> = heard.iter().flat_map(Heard::bytes).collect();
    let read = found(&all, &payloads);
    let note = format!("searched {} frames for {} readings", heard.len(), payloads.len());
    Ok(Report { attempts: heard.len() as u64, read, note })
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

fn replay(stations: &[Station], heard: &[Heard], most: usize) -> anyhow::Result<usize> {
    let (mut radio, mut attempts) = (Transmitter::new()?, 0);
    for target in stations {
        let frames: Vec<&Heard> = meant_for(target, heard).collect();
        for heard in frames.iter().rev().take(most).rev() {
            radio.send(target.addr, &heard.bytes())?;
            attempts += 1;
        }
    }
    Ok(attempts)
}

/// `recorder-replays-hop`: the same frames to the same receivers.
///
/// # Errors
/// The recording cannot be read, or a socket fails.
pub fn replays_hop(plan: &Plan) -> anyhow::Result<Report> {
    let attempts = replay(&plan.stations, &recorded(&plan.recording)?, 60)?;
    Ok(Report::tried(attempts, "recorded frames, HELLOs among them, sent to the same receivers again"))
}

/// `recorder-replays-elsewhere`: the same frames to other gateways.
///
/// # Errors
/// The recording cannot be read, or a socket fails.
pub fn replays_elsewhere(plan: &Plan) -> anyhow::Result<Report> {
    let heard = recorded(&plan.recording)?;
    let (mut radio, mut attempts) = (Transmitter::new()?, 0);
    for target in &plan.elsewhere {
        for heard in heard.iter().rev().take(60).rev() {
            radio.send(target.addr, &heard.bytes())?;
            attempts += 1;
        }
    }
    Ok(Report::tried(attempts, "recorded frames sent to other gateways"))
}

/// `recorder-flips`: a bit of every byte, under a counter that the receiver has not seen.
///
/// # Errors
/// The recording cannot be read, or a socket fails.
pub fn flips(plan: &Plan) -> anyhow::Result<Report> {
    const COUNTER_AT: usize = 10;
    let seen = seen(plan)?;
    let (mut radio, mut attempts) = (Transmitter::new()?, 0);
    for target in &plan.stations {
        let (to, _) = address(target)?;
        let Some(last) = seen.iter().rev().find(|s| s.to == to || s.to == Sid::ANY_GATEWAY) else {
            continue;
        };
        let newest = seen.iter().filter(|s| s.from == last.from).map(|s| s.counter).max().unwrap_or(0);
        for at in 0..last.body.len() {
            let mut body = last.body.clone();
            let counter = (newest + 2000 + at as u32).to_le_bytes();
            if let Some(slot) = body.get_mut(COUNTER_AT..COUNTER_AT + 4) {
                slot.copy_from_slice(&counter);
            }
            if let Some(byte) = body.get_mut(at) {
                *byte ^= 1 << (at % 8);
            }
            radio.send_body(target.addr, &body)?;
            attempts += 1;
        }
    }
    Ok(Report::tried(attempts, "one bit of every byte of a recorded frame, with a raised counter"))
}
