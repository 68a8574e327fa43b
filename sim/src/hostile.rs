//! A gateway that was taken over: it holds the gateway's own keys, and decides what the cloud gets to see.

use fivefold_core::id::Sid;
use fivefold_core::wire::coap::{Outer, Protected};
use fivefold_core::wire::envelope::{Envelope, Kind, Originator, Reply};

use crate::dice::Dice;
use crate::plan::Hostility;

/// Envelopes that it keeps for later, at most.
const HOARD: usize = 64;

/// What it has put aside.
#[derive(Debug, Default)]
pub struct Hoard {
    withheld: Vec<Vec<u8>>,
    copies: Vec<Vec<u8>>,
    /// What it did, for showing.
    pub deeds: Deeds,
}

/// How often it did what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deeds {
    /// Envelopes that the cloud never saw.
    pub dropped: u64,
    /// Envelopes that came late.
    pub withheld: u64,
    /// Envelopes that came again.
    pub replayed: u64,
    /// Envelopes with other content.
    pub altered: u64,
    /// Envelopes under another name.
    pub spliced: u64,
}

impl Hoard {
    /// What it hands on in place of `envelopes`.
    pub fn turn(
        &mut self,
        dice: &mut Dice,
        manners: Hostility,
        envelopes: Vec<Vec<u8>>,
        names: &[Sid],
    ) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut more = Vec::new();
        let mut last = 0;
        for bytes in envelopes {
            let Ok(envelope) = Envelope::parse(&bytes) else { continue };
            last = envelope.seq;
            // Its own reports are not worth the trouble.
            if envelope.kind == Kind::Event {
                out.push(bytes);
                continue;
            }
            if self.copies.len() < HOARD {
                self.copies.push(bytes.clone());
            }
            if dice.permille(manners.alter) {
                let mut inside = envelope.bytes.to_vec();
                let at = dice.place(inside.len());
                if let Some(byte) = inside.get_mut(at) {
                    *byte ^= 1 << dice.below(8);
                }
                more.extend(emitted(&Envelope { bytes: &inside, ..envelope }));
                self.deeds.altered += 1;
            }
            if dice.permille(manners.splice)
                && let Some(sid) = dice.one_of(names)
            {
                let mut opened = envelope.opened;
                if let Some(opened) = &mut opened {
                    opened.kid = sid;
                }
                let originator = match envelope.originator {
                    Originator::Node { net, .. } => Originator::Node { net, sid },
                    classic @ Originator::Classic(_) => classic,
                };
                more.extend(emitted(&Envelope { originator, opened, ..envelope }));
                self.deeds.spliced += 1;
            }
            if dice.permille(manners.drop) || is_censored(&envelope, manners.censor) {
                self.deeds.dropped += 1;
            } else if dice.permille(manners.withhold) && self.withheld.len() < HOARD {
                self.withheld.push(bytes);
                self.deeds.withheld += 1;
            } else {
                out.push(bytes);
            }
        }
        if !self.withheld.is_empty() && dice.permille(200) {
            more.append(&mut self.withheld);
            more.reverse();
        }
        if dice.permille(manners.replay)
            && let Some(copy) = self.copies.get(dice.place(self.copies.len()))
        {
            more.push(copy.clone());
            self.deeds.replayed += 1;
        }
        // Under numbers that go up: it can count.
        for bytes in more {
            if let Ok(envelope) = Envelope::parse(&bytes) {
                last += 1;
                out.extend(emitted(&Envelope { seq: last, ..envelope }));
            }
        }
        out
    }

    /// It repents: what it withheld comes out.
    pub fn release(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.withheld)
    }
}

fn is_censored(envelope: &Envelope<'_>, every: u64) -> bool {
    // What the cloud will take it for: the number inside, whatever was put around it.
    let number = match envelope.kind {
        Kind::CloudCoap | Kind::CloudTiny => Protected::parse_request(envelope.bytes, Outer::Strict)
            .ok()
            .and_then(|message| message.option.piv)
            .map(|piv| piv.value()),
        _ => envelope.opened.map(|o| o.piv),
    };
    every > 0 && number.is_some_and(|n| n.is_multiple_of(every))
}

fn emitted(envelope: &Envelope<'_>) -> Option<Vec<u8>> {
    let mut out = vec![0; envelope.bytes.len() + 128];
    let len = envelope.emit(&mut out).ok()?;
    out.truncate(len);
    Some(out)
}

/// A reply of the cloud that is not what the cloud said.
///
/// # Errors
/// When it does not fit one.
pub fn forged(reply: &Reply<'_>) -> anyhow::Result<Vec<u8>> {
    let mut out = vec![0; 1 << 20];
    let len = reply.emit(&mut out).map_err(|e| anyhow::anyhow!("reply: {e}"))?;
    out.truncate(len);
    Ok(out)
}
