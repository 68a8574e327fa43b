//! What travels between gateway and cloud under E4: envelopes, the reply to a batch, downlinks (docs/protocol.md 10).
//!
//! A batch is a CBOR sequence of envelopes and ends with the gateway's receipt, a COSE_Sign1 (tag 18).

use crate::error::{Code, SealError};
use crate::id::{BootContext, Epoch, Net, Sid};
use crate::profile::LinkClass;
use crate::time::Millis;
use crate::wire::cbor::{Element, List, Malformed, Reader, Writer};

/// Envelopes in a batch, at most.
pub const ENVELOPES: usize = 1000;
/// Bytes of a batch, at most, with its receipt.
pub const BYTES: usize = super::addressable(1 << 20);

/// What an envelope holds (its item 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// 1: a C3 OSCORE message, expanded from a tiny frame.
    CloudTiny,
    /// 2: the plaintext of C2, from a device that seals for the gateway only; with item 8.
    GatewayOpened,
    /// 3: EDHOC.
    Edhoc,
    /// 4: a classic frame.
    Classic,
    /// 5: something that happened at the gateway.
    Event,
    /// 6: a C3 OSCORE message that came as CoAP over UDP.
    CloudCoap,
    /// 7: the payload of a device with E1 alone, under the operator's override; with item 8, whose epoch is 0. Nothing
    /// but the link protected it. Our addition: docs/protocol.md, "Differences from the draft".
    DangerPlain,
    /// 8: a whole KR1 of a classic device (docs/protocol.md 12).
    KeyMessage,
}

impl Kind {
    /// All, in the order of their wire numbers 1 to 8.
    pub const ALL: [Self; 8] = [
        Self::CloudTiny,
        Self::GatewayOpened,
        Self::Edhoc,
        Self::Classic,
        Self::Event,
        Self::CloudCoap,
        Self::DangerPlain,
        Self::KeyMessage,
    ];

    /// Its number in item 3.
    pub const fn wire(self) -> u8 {
        match self {
            Self::CloudTiny => 1,
            Self::GatewayOpened => 2,
            Self::Edhoc => 3,
            Self::Classic => 4,
            Self::Event => 5,
            Self::CloudCoap => 6,
            Self::DangerPlain => 7,
            Self::KeyMessage => 8,
        }
    }

    /// The kind of a wire number.
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::CloudTiny),
            2 => Some(Self::GatewayOpened),
            3 => Some(Self::Edhoc),
            4 => Some(Self::Classic),
            5 => Some(Self::Event),
            6 => Some(Self::CloudCoap),
            7 => Some(Self::DangerPlain),
            8 => Some(Self::KeyMessage),
            _ => None,
        }
    }
}

/// Who sent what an envelope holds, as far as the gateway can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Originator<'b> {
    /// A classic device: its serial or radio address.
    Classic(&'b str),
    /// A device of a network.
    Node {
        /// Must be the network of the gateway's certificate (E4-02).
        net: Net,
        /// Its short id.
        sid: Sid,
    },
}

impl<'b> Originator<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        if r.peek()? == crate::wire::cbor::Major::Text {
            return r.text().map(Self::Classic);
        }
        let [a, b, c, d, e, f] = *r.bytes_of()?;
        Ok(Self::Node { net: Net::from_bytes([a, b, c, d]), sid: Sid::from_bytes([e, f]) })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        match self {
            Self::Classic(text) => w.text(text),
            Self::Node { net, sid } => {
                let [a, b, c, d] = net.to_bytes();
                let [e, f] = sid.to_bytes();
                w.bytes(&[a, b, c, d, e, f])
            }
        }
    }
}

/// Item 8: which message the gateway opened. `{1: kid, 2: piv, ?3: bctx, 4: epoch}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Opened {
    /// The device.
    pub kid: Sid,
    /// Its sender number.
    pub piv: u64,
    /// Its boot, in mode R.
    pub bctx: Option<BootContext>,
    /// Epoch of the C2 context; 0 in kind 7, where there is none.
    pub epoch: Epoch,
}

impl Opened {
    fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        const MISSING: Malformed = Malformed::new("item 8: kid, piv and epoch are needed");
        let (mut kid, mut piv, mut bctx, mut epoch) = (None, None, None, None);
        let mut keys = r.keys()?;
        while let Some(key) = keys.next(r)? {
            match key {
                1 => kid = Some(Sid::from_bytes(*r.bytes_of()?)),
                2 => piv = Some(r.unsigned()?),
                3 => bctx = Some(BootContext(*r.bytes_of()?)),
                4 => epoch = Some(Epoch(r.uint()?)),
                _ => return Err(Malformed::new("item 8: unknown key")),
            }
        }
        Ok(Self { kid: kid.ok_or(MISSING)?, piv: piv.ok_or(MISSING)?, bctx, epoch: epoch.ok_or(MISSING)? })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.map(3 + usize::from(self.bctx.is_some()))?;
        w.unsigned(1u8)?;
        w.bytes(&self.kid.to_bytes())?;
        w.unsigned(2u8)?;
        w.unsigned(self.piv)?;
        if let Some(bctx) = self.bctx {
            w.unsigned(3u8)?;
            w.bytes(&bctx.0)?;
        }
        w.unsigned(4u8)?;
        w.unsigned(self.epoch.0)
    }
}

/// The record around one message on its way to the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Envelope<'b> {
    /// 1: increases by one per (gateway, boot id).
    pub seq: u64,
    /// 2: when the gateway received it, Unix milliseconds.
    pub received: Millis,
    /// 3: what `bytes` are.
    pub kind: Kind,
    /// 4: the message.
    pub bytes: &'b [u8],
    /// 5: who sent it.
    pub originator: Originator<'b>,
    /// 6: signal strength in dBm.
    pub rssi: Option<i16>,
    /// 7: link quality, 0 to 255.
    pub lqi: Option<u8>,
    /// 8: what the gateway opened around it.
    pub opened: Option<Opened>,
    /// 9: how E1 was done.
    pub link: LinkClass,
    /// 10: hops left in the mesh header when the gateway received it.
    pub hops: Option<u8>,
    /// 11: index of the network key it came under.
    pub key_index: Option<u8>,
}

impl<'b> Envelope<'b> {
    /// Reads one envelope, and nothing after it.
    ///
    /// # Errors
    /// When it is not deterministic CBOR, an item is missing or unknown, or kinds 2 and 7 lack item 8.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let envelope = Element::parse(&mut r)?;
        r.end()?;
        Ok(envelope)
    }

    /// Writes it, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small; `bytes.len() + 100` always suffices for a node's message.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        Element::emit(self, &mut w)?;
        Ok(w.len())
    }
}

impl<'b> Element<'b> for Envelope<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        const MISSING: Malformed = Malformed::new("envelope: items 1 to 5 and 9 are needed");
        let (mut seq, mut received, mut kind, mut bytes, mut originator) = (None, None, None, None, None);
        let (mut rssi, mut lqi, mut opened, mut link, mut hops, mut key_index) = (None, None, None, None, None, None);
        let mut keys = r.keys()?;
        while let Some(key) = keys.next(r)? {
            match key {
                1 => seq = Some(r.unsigned()?),
                2 => received = Some(Millis(r.unsigned()?)),
                3 => kind = Some(Kind::from_wire(r.uint()?).ok_or(Malformed::new("envelope: unknown kind"))?),
                4 => bytes = Some(r.bytes()?),
                5 => originator = Some(Originator::parse(r)?),
                6 => rssi = Some(i16::try_from(r.int()?).map_err(|_| Malformed::new("envelope: rssi out of range"))?),
                7 => lqi = Some(r.uint()?),
                8 => opened = Some(Opened::parse(r)?),
                9 => link = Some(LinkClass::from_wire(r.uint()?).ok_or(Malformed::new("envelope: unknown E1 class"))?),
                10 => hops = Some(r.uint()?),
                11 => key_index = Some(crate::profile::key_index(r)?),
                _ => return Err(Malformed::new("envelope: unknown key")),
            }
        }
        let envelope = Self {
            seq: seq.ok_or(MISSING)?,
            received: received.ok_or(MISSING)?,
            kind: kind.ok_or(MISSING)?,
            bytes: bytes.ok_or(MISSING)?,
            originator: originator.ok_or(MISSING)?,
            rssi,
            lqi,
            opened,
            link: link.ok_or(MISSING)?,
            hops,
            key_index,
        };
        match (envelope.kind, &envelope.opened) {
            (Kind::GatewayOpened | Kind::DangerPlain, None) => {
                Err(Malformed::new("envelope: kinds 2 and 7 need item 8"))
            }
            (Kind::DangerPlain, Some(o)) if o.epoch != Epoch(0) || o.bctx.is_some() => {
                Err(Malformed::new("envelope: kind 7 has epoch 0 and no boot id"))
            }
            _ => Ok(envelope),
        }
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        let optional = [
            self.rssi.is_some(),
            self.lqi.is_some(),
            self.opened.is_some(),
            self.hops.is_some(),
            self.key_index.is_some(),
        ];
        w.map(6 + optional.into_iter().map(usize::from).sum::<usize>())?;
        w.unsigned(1u8)?;
        w.unsigned(self.seq)?;
        w.unsigned(2u8)?;
        w.unsigned(self.received.0)?;
        w.unsigned(3u8)?;
        w.unsigned(self.kind.wire())?;
        w.unsigned(4u8)?;
        w.bytes(self.bytes)?;
        w.unsigned(5u8)?;
        self.originator.emit(w)?;
        if let Some(rssi) = self.rssi {
            w.unsigned(6u8)?;
            w.int(rssi)?;
        }
        if let Some(lqi) = self.lqi {
            w.unsigned(7u8)?;
            w.unsigned(lqi)?;
        }
        if let Some(opened) = &self.opened {
            w.unsigned(8u8)?;
            opened.emit(w)?;
        }
        w.unsigned(9u8)?;
        w.unsigned(self.link.wire())?;
        if let Some(hops) = self.hops {
            w.unsigned(10u8)?;
            w.unsigned(hops)?;
        }
        if let Some(index) = self.key_index {
            w.unsigned(11u8)?;
            w.unsigned(index)?;
        }
        Ok(())
    }
}

/// One item of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'b> {
    /// An envelope, with its bytes as they came: their hash is its leaf in the receipt.
    Envelope(&'b [u8], Envelope<'b>),
    /// The receipt, a COSE_Sign1 with tag 18; always the last item.
    Receipt(&'b [u8]),
}

/// The items of a batch, one after the other. A batch without a receipt at its end, with something after it, or with more
/// than [`ENVELOPES`] ends in an error, after which nothing more comes.
///
/// What came before the error is as good as it is: take nothing of a batch until its receipt was reached and verified.
#[derive(Clone, Debug)]
pub struct Batch<'b> {
    reader: Reader<'b>,
    left: usize,
    done: bool,
}

impl<'b> Batch<'b> {
    /// Over the body of a request.
    ///
    /// # Errors
    /// When it is longer than [`BYTES`].
    pub const fn new(body: &'b [u8]) -> Result<Self, Malformed> {
        if body.len() > BYTES {
            return Err(Malformed::new("batch: more than 1 MiB"));
        }
        Ok(Self { reader: Reader::new(body), left: ENVELOPES, done: false })
    }

    fn item(&mut self) -> Result<Item<'b>, Malformed> {
        use crate::wire::cbor::Major;
        if self.reader.is_at_end() {
            return Err(Malformed::new("batch: the receipt is missing"));
        }
        if self.reader.peek()? == Major::Tag {
            let receipt = self.reader.item()?;
            self.reader.end().map_err(|_| Malformed::new("batch: something follows the receipt"))?;
            self.done = true;
            return Ok(Item::Receipt(receipt));
        }
        self.left = self.left.checked_sub(1).ok_or(Malformed::new("batch: more than 1000 envelopes"))?;
        let start = self.reader.rest();
        let envelope = Element::parse(&mut self.reader)?;
        let bytes = start.get(..start.len() - self.reader.rest().len()).unwrap_or_default();
        Ok(Item::Envelope(bytes, envelope))
    }
}

impl<'b> Iterator for Batch<'b> {
    type Item = Result<Item<'b>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = self.item();
        self.done |= item.is_err();
        Some(item)
    }
}

/// An envelope that the cloud refused: `[seq, code]`, the code as text, e.g. `"E3-03"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Which envelope.
    pub seq: u64,
    /// Why. The gateway deletes it all the same: sending it again changes nothing.
    pub code: Code,
}

impl Element<'_> for Refusal {
    fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.array_of(2)?;
        let seq = r.unsigned()?;
        let code = r.text()?.parse().map_err(|_| Malformed::new("refusal: unknown code"))?;
        Ok(Self { seq, code })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(2)?;
        w.unsigned(self.seq)?;
        w.text(self.code.as_str())
    }
}

/// What a downlink holds (its item 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DownlinkKind {
    /// 1: an answer to a request; Type, MID and Token of the CoAP message are set by the gateway.
    Answer,
    /// 2: a request to a listening device.
    Request,
    /// 3: EDHOC.
    Edhoc,
    /// 4: the gateway's own state ([`State`](crate::wire::state::State)).
    State,
    /// 5: one context for the gateway, ahead of its next state ([`Added`](crate::wire::state::Added)).
    Context,
    /// 6: the KR2 that answers a classic device's KR1 (docs/protocol.md 12).
    KeyMessage,
}

/// Something for a device, or for the gateway itself: `{1: kind, ?2: originator, 3: bytes, ?4: seq, ?5: expires}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Downlink<'b> {
    /// 1: what it is.
    pub kind: DownlinkKind,
    /// 2: the device it is for, named as in its envelopes; always there but for kinds 4 and 5.
    pub originator: Option<Originator<'b>>,
    /// 3: the message.
    pub bytes: &'b [u8],
    /// 4: the envelope that it answers.
    pub seq: Option<u64>,
    /// 5: no use after this, Unix milliseconds.
    pub expires: Option<Millis>,
}

impl<'b> Downlink<'b> {
    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it is not deterministic CBOR, an item is missing or unknown, or a kind but 4 and 5 names no device.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let downlink = Element::parse(&mut r)?;
        r.end()?;
        Ok(downlink)
    }

    /// Writes it, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        Element::emit(self, &mut w)?;
        Ok(w.len())
    }
}

impl<'b> Element<'b> for Downlink<'b> {
    fn parse(r: &mut Reader<'b>) -> Result<Self, Malformed> {
        const MISSING: Malformed = Malformed::new("downlink: items 1 and 3 are needed");
        let (mut kind, mut originator, mut bytes, mut seq, mut expires) = (None, None, None, None, None);
        let mut keys = r.keys()?;
        while let Some(key) = keys.next(r)? {
            match key {
                1 => {
                    kind = Some(match r.unsigned()? {
                        1 => DownlinkKind::Answer,
                        2 => DownlinkKind::Request,
                        3 => DownlinkKind::Edhoc,
                        4 => DownlinkKind::State,
                        5 => DownlinkKind::Context,
                        6 => DownlinkKind::KeyMessage,
                        _ => return Err(Malformed::new("downlink: unknown kind")),
                    });
                }
                2 => originator = Some(Originator::parse(r)?),
                3 => bytes = Some(r.bytes()?),
                4 => seq = Some(r.unsigned()?),
                5 => expires = Some(Millis(r.unsigned()?)),
                _ => return Err(Malformed::new("downlink: unknown key")),
            }
        }
        let kind = kind.ok_or(MISSING)?;
        if originator.is_none() && !matches!(kind, DownlinkKind::State | DownlinkKind::Context) {
            return Err(Malformed::new("downlink: it names no device"));
        }
        Ok(Self { kind, originator, bytes: bytes.ok_or(MISSING)?, seq, expires })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        let optional = [self.originator.is_some(), self.seq.is_some(), self.expires.is_some()];
        w.map(2 + optional.into_iter().map(usize::from).sum::<usize>())?;
        w.unsigned(1u8)?;
        w.unsigned(match self.kind {
            DownlinkKind::Answer => 1u8,
            DownlinkKind::Request => 2,
            DownlinkKind::Edhoc => 3,
            DownlinkKind::State => 4,
            DownlinkKind::Context => 5,
            DownlinkKind::KeyMessage => 6,
        })?;
        if let Some(originator) = &self.originator {
            w.unsigned(2u8)?;
            originator.emit(w)?;
        }
        w.unsigned(3u8)?;
        w.bytes(self.bytes)?;
        if let Some(seq) = self.seq {
            w.unsigned(4u8)?;
            w.unsigned(seq)?;
        }
        if let Some(expires) = self.expires {
            w.unsigned(5u8)?;
            w.unsigned(expires.0)?;
        }
        Ok(())
    }
}

/// The cloud's reply to a batch, only after everything in it is durable (W7): `{1: durable_upto_seq,
/// ?2: [[seq, code]], ?3: [downlink]}`; 2 and 3 are left out when empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply<'b> {
    /// Every envelope up to this sequence number is durable or refused: the gateway may delete it.
    pub durable_upto: u64,
    /// Those that were refused.
    pub refused: List<'b, Refusal>,
    /// What is to be sent down.
    pub downlinks: List<'b, Downlink<'b>>,
}

impl<'b> Reply<'b> {
    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it is not deterministic CBOR, item 1 is missing, or a key is unknown.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let (mut durable_upto, mut refused, mut downlinks) = (None, List::default(), List::default());
        let mut keys = r.keys()?;
        while let Some(key) = keys.next(&mut r)? {
            match key {
                1 => durable_upto = Some(r.unsigned()?),
                2 => refused = List::parse(&mut r)?,
                3 => downlinks = List::parse(&mut r)?,
                _ => return Err(Malformed::new("reply: unknown key")),
            }
        }
        r.end()?;
        let durable_upto = durable_upto.ok_or(Malformed::new("reply: item 1 is needed"))?;
        Ok(Self { durable_upto, refused, downlinks })
    }

    /// Writes it, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.map(1 + usize::from(!self.refused.is_empty()) + usize::from(!self.downlinks.is_empty()))?;
        w.unsigned(1u8)?;
        w.unsigned(self.durable_upto)?;
        if !self.refused.is_empty() {
            w.unsigned(2u8)?;
            self.refused.emit(&mut w)?;
        }
        if !self.downlinks.is_empty() {
            w.unsigned(3u8)?;
            self.downlinks.emit(&mut w)?;
        }
        Ok(w.len())
    }
}

/// Reads the body of a long poll: a CBOR array of downlinks, empty when there was none.
///
/// # Errors
/// When it is anything else.
pub fn parse_downlinks(bytes: &[u8]) -> Result<List<'_, Downlink<'_>>, Malformed> {
    let mut r = Reader::new(bytes);
    let downlinks = List::parse(&mut r)?;
    r.end()?;
    Ok(downlinks)
}

/// Writes the body of a long poll, and returns how many bytes it took.
///
/// # Errors
/// When `out` is too small.
pub fn emit_downlinks(downlinks: &[Downlink<'_>], out: &mut [u8]) -> Result<usize, SealError> {
    let mut w = Writer::new(out);
    List::of(downlinks).emit(&mut w)?;
    Ok(w.len())
}
