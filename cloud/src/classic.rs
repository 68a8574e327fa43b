//! Classic frames (Waspmote, Plug & Sense!) as the cloud keeps them: what is remembered of a device, and what becomes of a
//! frame.

pub mod history;

use fivefold_core::error::Code;
use fivefold_core::id::{Did, GatewayId, Net};
use fivefold_core::time::Millis;
use fivefold_core::wire::classic::Carrier;

use crate::accepted::Accepted;
use history::Glimpse;

/// By what a classic frame was protected, if by anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// As the vendor made it: in clear, or AES in ECB.
    Classic,
    /// The hardened profile of docs/protocol.md.
    Hardened,
}

impl Suite {
    /// `classic` or `classic-hardened`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Hardened => "classic-hardened",
        }
    }
}

/// One field of a frame, for people's own tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueRow {
    /// Tag of the sensor.
    pub tag: String,
    /// Its value as ASCII frames have it; several with `;` between.
    pub value: String,
}

/// A classic frame that was judged: the ledger's row, and what is written beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassicFrame {
    /// The ledger's row; quarantined where something is against it.
    pub accepted: Accepted,
    /// Whose it is.
    pub did: Did,
    /// How it was protected.
    pub suite: Suite,
    /// Serial as text.
    pub serial: String,
    /// Node id, as far as it is text.
    pub node_id: String,
    /// Type byte as it came; none for tiny frames.
    pub outer: Option<u8>,
    /// Type byte of what could be read.
    pub kind: u8,
    /// Its sequence, if it could be read.
    pub sequence: Option<u8>,
    /// Blocks of ciphertext that an earlier frame has too.
    pub equal: u8,
    /// What is against it, or to be known of it.
    pub codes: Vec<Code>,
    /// Fields, and the rest that could not be read: JSON.
    pub content: String,
    /// Field by field; empty where it is no reading.
    pub values: Vec<ValueRow>,
    /// The frame as it came, if it was for the cloud.
    pub for_cloud: Option<Vec<u8>>,
    /// What is remembered of it, and under which number; none where it is no reading.
    pub glimpse: Option<(u64, Glimpse)>,
}

/// A frame of somebody who is not in the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFrame {
    /// Network of the gateway that heard it.
    pub net: Net,
    /// Serial or DevEUI, as text.
    pub serial: String,
    /// The gateway.
    pub gateway: GatewayId,
    /// How it came.
    pub carrier: Carrier,
    /// When it came here.
    pub at: Millis,
    /// The frame.
    pub frame: Vec<u8>,
}

/// Serials that are kept of one network's strangers, at most.
pub const UNKNOWN: usize = 1000;
