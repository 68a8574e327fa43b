//! Frames from the air: E1 before anything else, then what the tiny frame says it is.

use std::net::SocketAddr;

use fivefold_core::e1_link::{Reach, Received};
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{Did, Epoch, Sid};
use fivefold_core::oscore::{Id, PartialIv};
use fivefold_core::profile::{LinkClass, Profile};
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{Token, Type};
use fivefold_core::wire::envelope::{Envelope, Kind, Opened, Originator};
use fivefold_core::wire::ieee802154::{Address, Frame};
use fivefold_core::wire::mesh::Dispatch;
use fivefold_core::wire::tiny::{EdhocRule, KidLength, Layers, Reassembly, Tiny, Wants};

use super::flight::{Reply, Via, Way};
use super::renewal::Back;
use super::{Gateway, Toward};

/// Longest tiny frame that is put together from fragments.
pub(super) const LONGEST_TINY: usize = 1280;
/// Longest CoAP message that is taken.
pub(super) const LONGEST_COAP: usize = 2048;
/// Datagrams that are being put together at a time.
const PIECES: usize = 64;

/// Where a message came from, and how its answer goes back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    /// Who it says sent it.
    pub(super) sid: Sid,
    pub(super) wants: Wants,
    pub(super) way: Way,
    pub(super) link: LinkClass,
    pub(super) hops: Option<u8>,
    pub(super) key_index: Option<u8>,
    pub(super) lqi: Option<u8>,
    pub(super) rssi: Option<i16>,
    /// When it was received, where that was not now.
    pub(super) received: Option<Millis>,
}

/// What a radio says of a frame.
struct Heard {
    link: LinkClass,
    lqi: Option<u8>,
    rssi: Option<i16>,
}

impl Source {
    /// What came as CoAP over UDP.
    pub(super) fn over_ip(
        sid: Sid,
        peer: SocketAddr,
        link: LinkClass,
        (token, message_id, kind): (Token, u16, Type),
        at: Millis,
    ) -> Self {
        let way = Way::Coap { peer, token, message_id, kind, at, acknowledged: false };
        Self {
            sid,
            wants: Wants::Answer,
            way,
            link,
            hops: None,
            key_index: None,
            lqi: None,
            rssi: None,
            received: None,
        }
    }

    pub(super) fn envelope<'b>(
        &self,
        g: &Gateway,
        now: Millis,
        kind: Kind,
        bytes: &'b [u8],
        opened: Option<Opened>,
    ) -> Envelope<'b> {
        Envelope {
            seq: g.next_seq,
            received: self.received.unwrap_or(now),
            kind,
            bytes,
            originator: Originator::Node { net: g.net, sid: self.sid },
            rssi: self.rssi,
            lqi: self.lqi,
            opened,
            link: self.link,
            hops: self.hops,
            key_index: self.key_index,
        }
    }
}

/// What [`Gateway::open_frame`] opened: the plaintext under C2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedFrame {
    /// The device.
    pub sid: Sid,
    /// Its number.
    pub number: u64,
    /// Length of the plaintext, at the front of the buffer.
    pub len: usize,
    /// Whether its number was not seen in the window.
    pub fresh: bool,
}

impl Gateway {
    /// A frame from the air, with its check sequence. It is decrypted in place.
    pub fn handle_frame(&mut self, now: Millis, frame: &mut [u8], lqi: Option<u8>) {
        self.scribe.hear(now, None, frame);
        self.frame(now, frame, lqi);
        self.scribe.over(now);
    }

    fn frame(&mut self, now: Millis, frame: &mut [u8], lqi: Option<u8>) {
        let delivered = match self.link.receive(now, frame) {
            Err(rejected) => {
                // The header, which says who claims to have sent it, is never changed.
                let claimed = Frame::parse(frame).ok().and_then(|f| match f.source {
                    Address::Short(sid) => Some(sid),
                    Address::Extended(_) => None,
                });
                return self.count(rejected, claimed);
            }
            Ok(received) => received,
        };
        self.received(now, delivered, Heard { link: LinkClass::MacCcm, lqi, rssi: None });
    }

    /// An E1S message (docs/protocol.md 4.2), with the EUI-64 that the radio says it came from, to whom it says it was
    /// sent, and how strong it was in dBm. It is decrypted in place.
    pub fn handle_message(&mut self, now: Millis, source: (Did, Reach), message: &mut [u8], rssi: Option<i16>) {
        self.scribe.hear(now, Some(source.0), message);
        match self.link.e1s_open(now, source, message) {
            Err(rejected) => self.count(rejected, None),
            Ok(received) => self.received(now, received, Heard { link: LinkClass::E1s, lqi: None, rssi }),
        }
        self.scribe.over(now);
    }

    fn received(&mut self, now: Millis, received: Received<'_>, heard: Heard) {
        let delivered = match received {
            Received::Deliver(d) => d,
            Received::Forward(f) => {
                let not_ours = Rejected::new(Code::LinkNotOurs, "a gateway is the end of the way");
                return self.count(not_ours, Some(f.mesh.originator));
            }
            Received::Hello { .. } | Received::KeySwitch { .. } | Received::Synced { .. } => return,
        };
        let via = Via::Neighbour(delivered.from);
        let source = Source {
            sid: delivered.originator,
            wants: Wants::Nothing,
            way: Way::Radio { to: delivered.originator, via, token: 0, layers: Layers::C3 },
            link: heard.link,
            hops: delivered.mesh.map(|m| m.hops),
            key_index: Some(delivered.security.key_index),
            lqi: heard.lqi,
            rssi: heard.rssi,
            received: None,
        };
        let judged = match delivered.dispatch {
            // Under a retired key it is EDHOC.
            Dispatch::Tiny(_) => self.tiny(now, source, via, delivered.payload),
            Dispatch::Iphc | Dispatch::Fragment => Err(Rejected::new(Code::TinyMalformed, "no 6LoWPAN is spoken here")),
        };
        if let Err(rejected) = judged {
            self.count(rejected, Some(source.sid));
        }
    }

    /// Looks at what a frame will need of whoever it claims to come from; nothing is judged and nothing changes. Called
    /// for a group of frames before the first of them is handled, it has the processor fetch their places in memory side
    /// by side, which it cannot do while it opens one after the other.
    pub fn foresee(&self, frame: &[u8]) {
        let Ok(Frame { source: Address::Short(sid), .. }) = Frame::parse(frame) else { return };
        // Kept from being left out as useless: what comes of it is of no interest.
        std::hint::black_box(self.link.neighbours().look(sid));
        std::hint::black_box(self.devices.look(sid));
    }

    /// Opens E1 and C2 of one frame, in memory alone: parsing, neighbour, counter, device, context and window are
    /// judged, nothing is stored, marked under C2, answered or counted. For measuring what opening costs; the plaintext
    /// is at the front of `out`.
    ///
    /// # Errors
    /// As the code it would be counted under.
    pub fn open_frame(&mut self, now: Millis, frame: &mut [u8], out: &mut [u8]) -> Result<OpenedFrame, Rejected> {
        let Received::Deliver(d) = self.link.receive(now, frame)? else {
            return Err(Rejected::new(Code::LinkNotOurs, "no datagram for this gateway"));
        };
        let (kid, ciphertext, piv, boot) = match Tiny::parse(d.payload, self.kid_length(d.originator))? {
            Tiny::Request { piv, bctx, kid, ciphertext, .. } => (kid, ciphertext, piv, bctx),
            _ => return Err(Rejected::new(Code::TinyMalformed, "no request")),
        };
        let sid = kid.unwrap_or(d.originator);
        let device = self.devices.find_mut(sid).ok_or(Rejected::new(Code::GatewayUnknownKid, "unknown kid"))?;
        let spoken = device.open(piv, boot, ciphertext, out)?;
        let verdict = device.slot(spoken.context).map(|s| s.window.check(piv.value()));
        let fresh = verdict == Some(fivefold_core::window::Verdict::Fresh);
        Ok(OpenedFrame { sid, number: piv.value(), len: spoken.len, fresh })
    }

    fn kid_length(&self, originator: Sid) -> KidLength {
        self.devices.find(originator).map_or(KidLength::None, |d| d.policy.kid_length)
    }

    /// A tiny frame of `source.sid`, which the link names, that came by `via`.
    pub(super) fn tiny(&mut self, now: Millis, source: Source, via: Via, frame: &[u8]) -> Result<(), Rejected> {
        self.scribe.read_tiny(frame);
        match Tiny::parse(frame, self.kid_length(source.sid))? {
            Tiny::Request { layers, wants, piv, bctx, kid, ciphertext } => {
                self.scribe.read_layers(Some(layers));
                self.scribe.read_number(piv, bctx);
                let sid = kid.unwrap_or(source.sid);
                if via == Via::Lorawan && sid != source.sid {
                    return Err(Rejected::new(Code::TinyMalformed, "a kid that is not the DevEUI's"));
                }
                let way = Way::Radio { to: source.sid, via, token: piv.value() as u8, layers };
                let source = Source { sid, wants, way, ..source };
                let id = Id::from(sid);
                let tiny = Tiny::Request { layers, wants, piv, bctx, kid: Some(sid), ciphertext };
                let mut scratch = [0; 2];
                let message = tiny.protected(Some(&id), &mut scratch).ok_or(MALFORMED)?;
                if self.capture == super::Capture::On {
                    let mut out = [0; LONGEST_TINY];
                    if let Ok(n) = message.emit(&mut out) {
                        self.expanded(sid, Toward::Cloud, out.get(..n).unwrap_or_default());
                    }
                }
                match (self.devices.find(sid).map(|d| d.policy.profile), layers) {
                    (None, Layers::C3) => Err(Rejected::new(Code::CloudUnknownKid, "not in the allow-list")),
                    (None, _) => Err(Rejected::new(Code::GatewayUnknownKid, "unknown kid")),
                    (Some(Profile::ToCloud), Layers::C3) => {
                        self.heard(now, sid, via);
                        self.offer(now, source, &message, Kind::CloudTiny, None, Reply { way, c2: None })
                    }
                    (Some(Profile::ToCloud), Layers::C2) => {
                        Err(Rejected::new(Code::CloudLevelMissing, "E3 is missing"))
                    }
                    (Some(Profile::ToGateway | Profile::ToBoth), Layers::C3) => Err(LEVEL_MISSING),
                    (Some(Profile::DangerLinkOnly), Layers::C3) => {
                        Err(Rejected::new(Code::CloudUnknownKid, "the device has no C3 context"))
                    }
                    (Some(Profile::DangerLinkOnly | Profile::ToCloud), _) => {
                        Err(Rejected::new(Code::GatewayUnknownKid, "the device has no C2 context"))
                    }
                    (Some(Profile::ToGateway | Profile::ToBoth), _) => self.sealed(now, source, piv, bctx, ciphertext),
                }
            }
            Tiny::Plain { piv, kid, payload } => {
                self.scribe.read_layers(None);
                self.plain(now, Source { sid: kid.unwrap_or(source.sid), ..source }, piv, payload)
            }
            Tiny::DeviceAnswer { layers, token, ciphertext } => {
                self.device_answer(now, source, layers, token, ciphertext)
            }
            Tiny::Fragment { tag, index, last, bytes } => {
                let whole = {
                    if !self.pieces.contains_key(&source.sid) && self.pieces.len() >= PIECES {
                        return Err(Rejected::new(Code::FragmentLost, "too many datagrams are being put together"));
                    }
                    let pieces = self.pieces.entry(source.sid).or_insert_with(|| Box::new(Reassembly::new()));
                    let expired = pieces.expire(now);
                    let whole = pieces.take(now, tag, index, last, bytes);
                    let whole = whole.map(|w| w.map(Box::<[u8]>::from));
                    if matches!(whole, Ok(Some(_)) | Err(_)) {
                        self.pieces.remove(&source.sid);
                    }
                    if let Err(lost) = expired {
                        self.count(lost, Some(source.sid));
                    }
                    whole?
                };
                match whole {
                    Some(w) if w.first() == Some(&fivefold_core::wire::tiny::FRAGMENT) => Err(MALFORMED),
                    Some(w) => self.tiny(now, source, via, &w),
                    None => Ok(()),
                }
            }
            Tiny::Edhoc { rule: EdhocRule::ToServer, payload } => {
                self.heard(now, source.sid, via);
                let recovery = source.key_index.filter(|i| self.link.keys().indexes().all(|usable| usable != *i));
                self.pass_run(now, &source, Back::Radio { to: source.sid, via, recovery }, payload)
            }
            Tiny::Answer { .. } | Tiny::Downlink { .. } | Tiny::Edhoc { .. } | Tiny::Hello(_) | Tiny::Link(_) => {
                Err(Rejected::new(Code::TinyMalformed, "not a frame for a gateway"))
            }
        }
    }

    /// The body of a device with E1 alone: only where its record says so, by the operator's override.
    fn plain(&mut self, now: Millis, source: Source, piv: PartialIv, payload: &[u8]) -> Result<(), Rejected> {
        let device = self.devices.find(source.sid);
        let allowed = |d: &super::devices::Device| {
            d.policy.profile == Profile::DangerLinkOnly && d.overrides.danger_link_only && source.link.is_e1()
        };
        if !device.is_some_and(allowed) {
            return Err(LEVEL_MISSING);
        }
        let opened = Opened { kid: source.sid, piv: piv.value(), bctx: None, epoch: Epoch(0) };
        let envelope = source.envelope(self, now, Kind::DangerPlain, payload, Some(opened));
        self.store(&envelope).map(drop)
    }

    pub(super) fn heard(&mut self, now: Millis, sid: Sid, via: Via) {
        if let Some(device) = self.devices.find_mut(sid) {
            device.heard(now, via);
        }
    }

    pub(super) fn expire_pieces(&mut self, now: Millis) {
        let mut lost = Vec::new();
        self.pieces.retain(|sid, pieces| match pieces.expire(now) {
            Ok(()) => true,
            Err(rejected) => {
                lost.push((rejected, *sid));
                false
            }
        });
        for (rejected, sid) in lost {
            self.count(rejected, Some(sid));
        }
    }
}

pub(super) const LEVEL_MISSING: Rejected = Rejected::new(Code::GatewayLevelMissing, "E2 is missing");
const MALFORMED: Rejected = Rejected::new(Code::TinyMalformed, "no OSCORE message");
