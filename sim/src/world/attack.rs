//! Those who mean harm on the air: one without any key, and one who was bought and holds the network's.

use fivefold_core::e1_link::{FixedNeighbours, Identity, Link, LinkKeys, LinkPolicy, Station as Kind};
use fivefold_core::id::Sid;
use fivefold_core::key::Key;
use fivefold_core::time::Millis;
use fivefold_core::wire::ieee802154::{Ack, FCS, append_fcs};
use fivefold_core::wire::mesh::MAX_HOPS;

use super::{Event, Station, World};
use crate::dice::Dice;
use crate::family::{KEY_INDEX, PAN, did};
use crate::watch::{Datagram, unwatched};

/// A member of the network that replays what it heard, in its own frames.
#[derive(Debug)]
pub(super) struct Insider {
    link: Link<FixedNeighbours<16>>,
}

impl Insider {
    pub(super) fn new(dice: &mut Dice, sid: Sid, key: &[u8; 16]) -> Self {
        let mut keys = LinkKeys::new();
        let _ = keys.install(KEY_INDEX, &Key::new(*key), 0);
        lease(&mut keys);
        let identity = Identity { did: did(sid), sid, pan: PAN, station: Kind::Node };
        Self { link: Link::new(identity, LinkPolicy::default(), keys, FixedNeighbours::new(), dice.bytes()) }
    }

    pub(super) fn wake(&self) -> Option<u64> {
        self.link.poll_timeout().map(|at| at.0)
    }

    pub(super) fn hear(&mut self, now: u64, frame: &[u8]) {
        // He hears everything anyhow; this keeps his neighbours synced.
        let _ = self.link.receive(Millis(now), &mut frame.to_vec());
    }

    /// Another's datagram in a frame of his own.
    fn seal(&mut self, to: Sid, datagram: &Datagram) -> Option<Vec<u8>> {
        lease(self.link.keys_mut());
        let mut frame = [0; 127];
        let len = self.link.seal(to, Ack::None, Some(datagram.mesh), &datagram.rest, &mut frame).ok()?;
        frame.get(..len).map(<[u8]>::to_vec)
    }
}

fn lease(keys: &mut LinkKeys) {
    while let Some(due) = keys.lease_due() {
        keys.extend_lease(due);
    }
}

impl World {
    pub(super) fn insider_speaks(&mut self) {
        let now = Millis(self.now);
        let mut frames = Vec::new();
        if let Some(insider) = &mut self.insider {
            lease(insider.link.keys_mut());
            let mut out = [0; 127];
            while let Some(control) = unwatched(|| insider.link.poll_control(now, &mut out)) {
                frames.extend(out.get(..control.len).map(<[u8]>::to_vec));
            }
        }
        for frame in frames {
            self.transmit(Station::Insider, frame);
        }
    }

    /// He sends what he recorded, as it was, to whom it was or to somebody else.
    pub(super) fn insider_acts(&mut self) {
        let at = self.dice.place(self.recorded.len());
        let Some((_, to, mut datagram)) = self.recorded.get(at).cloned() else { return };
        datagram.mesh.hops = self.dice.between(1, u64::from(MAX_HOPS)) as u8;
        let near: Vec<Sid> = self
            .reach
            .iter()
            .filter(|(a, _)| *a == Station::Insider)
            .map(|(_, b)| b.sid(self.plan.nodes.len()))
            .chain([to])
            .collect();
        if let Some(to) = self.dice.one_of(&near) {
            self.insider_sends(to, &datagram);
        }
    }

    /// He sends this to a neighbour in a frame of his own.
    pub fn insider_sends(&mut self, to: Sid, datagram: &Datagram) {
        let sealed = self.insider.as_mut().and_then(|i| unwatched(|| i.seal(to, datagram)));
        if let Some(frame) = sealed {
            self.tell(|| format!("the insider replays a datagram of {} to {to}", datagram.mesh.originator));
            self.transmit(Station::Insider, frame);
        }
    }

    /// Somebody without keys sends what he can make of what he heard.
    pub(super) fn stranger(&mut self) {
        let from = if self.dice.permille(300) { &self.hellos } else { &self.frames };
        let Some(frame) = from.get(self.dice.place(from.len())).cloned() else { return };
        let mut frame = frame;
        let len = frame.len().saturating_sub(FCS);
        match self.dice.below(6) {
            // As it was.
            0 | 1 => {}
            // A flipped bit.
            2 | 3 => {
                let at = self.dice.place(len);
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= 1 << self.dice.below(8);
                }
            }
            // A later counter.
            4 => {
                if let Some(byte) = frame.get_mut(11) {
                    *byte = byte.wrapping_add(1);
                }
            }
            // In clear.
            _ => {
                if let Some(byte) = frame.first_mut() {
                    *byte &= !0x08;
                }
            }
        }
        if append_fcs(&mut frame, len).is_ok() {
            self.stranger_sends(&frame);
        }
    }

    /// These bytes reach everybody who has a radio.
    pub fn stranger_sends(&mut self, frame: &[u8]) {
        self.tell(|| format!("a stranger sends {} bytes", frame.len()));
        let mut hearers: Vec<Station> = self.reach.iter().flat_map(|&(a, b)| [a, b]).collect();
        hearers.sort_unstable();
        hearers.dedup();
        for to in hearers {
            self.after(2, Event::Frame(to, frame.to_vec()));
        }
    }
}
