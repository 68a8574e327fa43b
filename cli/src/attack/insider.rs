//! The insider: an enrolled node that turned. It holds the network key and its own keys, and nobody else's.

use fivefold_core::id::{Did, Sid};
use fivefold_core::wire::ieee802154::Pan;
use fivefold_core::wire::mesh;
use zeroize::Zeroizing;

use super::Report;
use super::air::{self, Forgery, Seen, Transmitter, recorded};
use super::door::Door;
use super::plan::{Plan, Station};
use super::thief::Passed;

/// What lets the insider speak on the air.
pub struct Badge {
    /// Its own short address; neighbours know it and its counter.
    pub sid: Sid,
    /// Its own EUI-64.
    pub did: Did,
    /// Index of the network key.
    pub key_index: u8,
    /// The network key.
    pub key: Zeroizing<[u8; 16]>,
}

/// The insider at work in one network.
pub(super) struct Insider<'p> {
    plan: &'p Plan,
    badge: Badge,
    radio: Transmitter,
    counter: u32,
    /// Requests of other nodes, heard and opened with the network key; oldest first.
    pub(super) heard: Vec<Passed>,
    /// Every plaintext of E1.
    pub(super) opened: Vec<u8>,
    /// How many frames were heard.
    pub(super) frames: usize,
}

impl<'p> Insider<'p> {
    pub(super) fn new(plan: &'p Plan, badge: Badge) -> anyhow::Result<Self> {
        let eui64s: Vec<Did> =
            plan.stations.iter().chain(&plan.elsewhere).filter_map(|s| s.eui64.parse().ok()).collect();
        let recording = recorded(&plan.recording)?;
        let seen: Vec<Seen> = recording.iter().filter_map(Seen::of).collect();
        let own = seen.iter().filter(|s| s.from == badge.sid).map(|s| s.counter).max();
        let (mut heard, mut opened) = (Vec::new(), Vec::new());
        for frame in &seen {
            let Some(plain) = air::open(frame, &badge.key, &eui64s) else {
                continue;
            };
            opened.extend(&plain);
            let Ok(parsed) = mesh::parse(&plain) else {
                continue;
            };
            let originator = parsed.mesh.map_or(frame.from, |m| m.originator);
            let is_request = matches!(parsed.dispatch, mesh::Dispatch::Tiny(0x19..=0x1B | 0x20..=0x37));
            if originator != badge.sid && is_request {
                heard.push(Passed { originator, tiny: parsed.rest.to_vec() });
            }
        }
        let counter = own.unwrap_or(0) + 1000 * (plan.turn + 1);
        Ok(Self { plan, badge, radio: Transmitter::new(Door::of(plan)?)?, counter, heard, opened, frames: seen.len() })
    }

    /// Sends `tiny` to the first gateway in reach as if it had been relayed for `originator`.
    pub(super) fn relay(&mut self, originator: Sid, tiny: &[u8]) -> anyhow::Result<()> {
        let Some(Station { addr, .. }) = self.plan.stations.first() else { anyhow::bail!("no station is in reach") };
        let header = mesh::Header { hops: 3, originator, destination: Sid::ANY_GATEWAY };
        let mut plaintext = header.to_bytes().to_vec();
        plaintext.extend(tiny);
        self.counter += 1;
        let frame = Forgery {
            pan: Pan(u16::from_str_radix(&self.plan.pan, 16)?),
            to: Sid::ANY_GATEWAY,
            from: self.badge.sid,
            eui64: self.badge.did,
            key_index: self.badge.key_index,
            counter: self.counter,
        };
        self.radio.send_body(*addr, &frame.seal(&self.badge.key, &plaintext))
    }
}

/// What other nodes sent, with E1 taken off.
///
/// # Errors
/// The recording cannot be read.
pub fn heard_of_others(plan: &Plan, badge: Badge) -> anyhow::Result<Vec<Passed>> {
    Ok(Insider::new(plan, badge)?.heard)
}

/// `insider-forges`: speaks as every other node that was heard, under a number that node has not used.
///
/// # Errors
/// The recording cannot be read, or a socket fails.
pub fn forges(plan: &Plan, badge: Badge) -> anyhow::Result<Report> {
    let mut insider = Insider::new(plan, badge)?;
    let mut victims: Vec<(Sid, u8)> =
        insider.heard.iter().filter_map(|d| Some((d.originator, *d.tiny.first()?))).collect();
    victims.sort();
    victims.dedup();
    let mut attempts = 0;
    let mut ahead = [0];
    getrandom::fill(&mut ahead)?;
    let [ahead] = ahead;
    for (sid, rule) in victims {
        for i in 0..4u8 {
            // Two-byte numbers far ahead of what the node has reached, and others each time.
            let mut tiny = vec![(rule & !0x03) | 2, 0x40 | (ahead & 0x3f), i];
            if rule & 0x20 == 0 {
                tiny.extend(b"\x81\xa2\x00\x66forged\x02\x18\x2a");
            } else {
                let mut ciphertext = [0u8; 30];
                getrandom::fill(&mut ciphertext)?;
                tiny.extend(ciphertext);
            }
            insider.relay(sid, &tiny)?;
            attempts += 1;
        }
    }
    Ok(Report::tried(attempts, "messages in other nodes' names, properly framed"))
}
