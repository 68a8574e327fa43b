//! What may be stored: only what a device's own seal proved, or what a proven gateway vouches for, and which of the two it
//! was stays with it for ever. [`signed`] is the one way to a better label.

pub mod signed;

use fivefold_core::e3_cloud::E3;
use fivefold_core::e4_channel::{Origin, ProvenGateway};
use fivefold_core::id::{GatewayId, Net, Sid};
use fivefold_core::oscore::Authentic;
use fivefold_core::profile::LinkClass;
use fivefold_core::proof::statement::Salt;
use fivefold_core::suite::CiphertextHash;
use fivefold_core::time::Millis;
use fivefold_core::why::FrameId;

/// First bytes of SHA-256 over what tells two messages under one number apart (docs/protocol.md 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageHash(pub [u8; 16]);

impl From<MessageHash> for FrameId {
    fn from(MessageHash(hash): MessageHash) -> Self {
        CiphertextHash(hash).into()
    }
}

/// A row of the ledger's contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextId(pub i64);

/// Bits of [`Row::flags`].
pub mod flag {
    /// Kept out of what is shown: two different messages under one number.
    pub const QUARANTINED: u8 = 1;
    /// Opened and refused (E3-07): its number is used up, and it is no reading.
    pub const REFUSED: u8 = 2;
    /// The one answer without a number of its own was given (docs/protocol.md 9.2).
    pub const ANSWERED: u8 = 4;
    /// Nothing but the link protected it.
    pub const INSECURE: u8 = 8;
    /// A gateway vouched for another message under the same number as well.
    pub const CONFLICT: u8 = 16;
    /// Under a context of before the store was put back from a copy (docs/protocol.md 8.4): it may be a recording of what the
    /// copy does not have, and is no reading until the operator says so (E3-14).
    pub const HELD: u8 = 32;
    /// What is no reading, and never was one.
    pub const HIDDEN: u8 = QUARANTINED | REFUSED | HELD;
    /// What it said is pruned: the row stays, and knows a repeat.
    pub const PRUNED: u8 = 64;
}

/// Whether a reading is new in every sense (docs/protocol.md 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Freshness {
    /// The highest number so far, at the gateway at most 15 minutes ago.
    Fresh,
    /// Otherwise accepted.
    Late,
}

impl Freshness {
    /// `fresh` or `late`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Late => "late",
        }
    }
}

/// How a message came: what its envelope says around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Network.
    pub net: Net,
    /// The device's short id.
    pub sid: Sid,
    /// The gateway that brought it.
    pub gateway: GatewayId,
    /// Its number in that gateway's sequence.
    pub seq: u64,
    /// When the gateway received it, by its clock.
    pub received: Millis,
    /// When it came here.
    pub ingested: Millis,
    /// How E1 was done.
    pub link: LinkClass,
    /// Hops left on arrival at the gateway.
    pub hops: Option<u8>,
    /// Index of the network key.
    pub key_index: Option<u8>,
    /// Signal strength, dBm.
    pub rssi: Option<i16>,
    /// Link quality.
    pub lqi: Option<u8>,
}

/// A ledger row as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Under which context.
    pub context: ContextId,
    /// 3, 2 or 1.
    pub level: u8,
    /// Sender number.
    pub piv: u64,
    /// Tells a repeat from a second message.
    pub hash: MessageHash,
    /// How it came.
    pub way: Way,
    /// How it was proven.
    pub origin: Origin,
    /// Whether it is the newest.
    pub freshness: Freshness,
    /// See [`flag`].
    pub flags: u8,
    /// Items of docs/protocol.md 7.
    pub payload: Vec<u8>,
    /// Hides its leaf, if its device signs.
    pub salt: Option<Salt>,
}

/// A message that may be stored. There are two ways to one:
/// ```compile_fail,E0423
/// use fivefold_cloud::accepted::{Accepted, Row};
/// fn invent(row: Row) -> Accepted { Accepted(row) }
/// ```
/// ```
/// use fivefold_cloud::accepted::{Accepted, Row};
/// fn look(accepted: &Accepted) -> &Row { accepted.row() }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted(Row);

/// What stands in a row beside its proof.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) context: ContextId,
    pub(crate) hash: MessageHash,
    pub(crate) way: Way,
    pub(crate) freshness: Freshness,
    pub(crate) flags: u8,
    pub(crate) payload: Vec<u8>,
    pub(crate) salt: Option<Salt>,
}

impl Accepted {
    /// The node's own seal was opened.
    pub(crate) fn by_node(proof: &Authentic<'_, E3>, content: Content) -> Self {
        Self::new(3, proof.piv().value(), Origin::Node, content)
    }

    /// A proven gateway says that it opened C2 around this, under number `piv`.
    pub(crate) fn by_gateway(word: &ProvenGateway, piv: u64, content: Content) -> Self {
        Self::new(2, piv, Origin::Gateway(word.gateway()), content)
    }

    /// A proven gateway says that this came over the link, and nothing else protected it.
    pub(crate) fn danger_plain(_word: &ProvenGateway, piv: u64, content: Content) -> Self {
        let content = Content { flags: content.flags | flag::INSECURE, ..content };
        Self::new(1, piv, Origin::Plain, content)
    }

    /// A proven gateway says that a classic frame came, and it is encrypted as the operator says. Nothing proves who made it.
    pub(crate) fn legacy(_word: &ProvenGateway, seq: u64, content: Content) -> Self {
        Self::new(1, seq, Origin::Legacy, content)
    }

    fn new(level: u8, piv: u64, origin: Origin, c: Content) -> Self {
        let Content { context, hash, way, freshness, flags, payload, salt } = c;
        Self(Row { context, level, piv, hash, way, origin, freshness, flags, payload, salt })
    }

    /// What is written.
    pub const fn row(&self) -> &Row {
        &self.0
    }
}
