//! Why something was refused, for the operator: which check, what was expected, what came, what to do now.
//!
//! What is told of a message comes out of its clear header and of what the one who refused it knows: numbers, addresses and
//! indexes. [`Value`] has no place for more than eight bytes of it, so that no payload and no key can be kept in one.
//! Nodes have no use for any of this, and it costs them nothing: nothing in [`Rejected`] refers to it.

mod about;

use core::fmt;
use core::str::FromStr;

use crate::error::{Code, Rejected};
use crate::id::{BootContext, Did, Epoch, GatewayId, Net, Sid};
use crate::suite::{CiphertextHash, sha256};
use crate::time::Millis;

pub use about::About;

/// Names a refused message without telling what is in it: the first 8 bytes of a SHA-256.
///
/// At a gateway it is over the frame as it came, as a capture file has it. At the cloud it is over the ciphertext of a C3
/// message, so that a message has one name whoever brings it and however often; of all else over the bytes of its envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId(pub [u8; 8]);

impl FrameId {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::over(&[bytes])
    }

    /// Of what was no message: a limit that was reached, a gateway that was away. Two of one code in the same millisecond
    /// about the same have one name.
    pub fn of_event(code: Code, at: Millis, sid: Option<Sid>) -> Self {
        let sid = sid.map_or([0; 3], |sid| [1, sid.to_bytes()[0], sid.to_bytes()[1]]);
        Self::over(&[b"fivefold event", code.as_str().as_bytes(), &at.0.to_be_bytes(), &sid])
    }

    fn over(parts: &[&[u8]]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = sha256(parts);
        Self([a, b, c, d, e, f, g, h])
    }
}

impl From<CiphertextHash> for FrameId {
    fn from(CiphertextHash([a, b, c, d, e, f, g, h, ..]): CiphertextHash) -> Self {
        Self([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for FrameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for FrameId {
    type Err = NoFrameId;

    fn from_str(text: &str) -> Result<Self, NoFrameId> {
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NoFrameId);
        }
        u64::from_str_radix(text, 16).map(|n| Self(n.to_be_bytes())).map_err(|_| NoFrameId)
    }
}

/// A text that is no [`FrameId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoFrameId;

impl fmt::Display for NoFrameId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the id of a refusal: 16 hex digits")
    }
}

impl core::error::Error for NoFrameId {}

/// Something that a check compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Value {
    /// Nothing that can be told in a number: the words of [`Code::about`] say all.
    #[default]
    Unsaid,
    /// A number.
    Number(u64),
    /// Any number above this one.
    Above(u64),
    /// This number, or any above it.
    AtLeast(u64),
    /// Any number up to this one.
    AtMost(u64),
    /// A device's sender number under E2 or E3.
    Sender(u64),
    /// So many bytes.
    Bytes(usize),
    /// So many seconds.
    Seconds(u64),
    /// A security level of IEEE 802.15.4.
    Level(u8),
    /// The index of a network key.
    KeyIndex(u8),
    /// Indexes of network keys; 0 is none.
    KeyIndexes([u8; 4]),
    /// The network identifier of the MAC.
    Pan(u16),
    /// A network.
    Net(Net),
    /// A short id.
    Sid(Sid),
    /// An EUI-64.
    Did(Did),
    /// A key generation.
    Epoch(Epoch),
    /// A boot of a device in mode R.
    Boot(BootContext),
    /// The RuleID of a tiny frame.
    Rule(u8),
    /// Another refused message: the same one, as the cloud names it.
    Message(FrameId),
    /// A word of ours, never one that came.
    Word(&'static str),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsaid => Ok(()),
            Self::Number(n) => write!(f, "{n}"),
            Self::Above(n) => write!(f, "above {n}"),
            Self::AtLeast(n) => write!(f, "at least {n}"),
            Self::AtMost(n) => write!(f, "at most {n}"),
            Self::Sender(n) => write!(f, "sender number {n}"),
            Self::Bytes(n) => write!(f, "{n} bytes"),
            Self::Seconds(n) => write!(f, "{n} s"),
            Self::Level(n) => write!(f, "level {n}"),
            Self::KeyIndex(n) => write!(f, "index {n}"),
            Self::KeyIndexes(all) => {
                f.write_str("index")?;
                let mut used = all.iter().filter(|i| **i != 0).peekable();
                if used.peek().is_none() {
                    f.write_str(" none")?;
                }
                used.try_for_each(|i| write!(f, " {i}"))
            }
            Self::Pan(n) => write!(f, "PAN {n:04x}"),
            Self::Net(n) => write!(f, "network {n}"),
            Self::Sid(n) => write!(f, "short id {n}"),
            Self::Did(n) => write!(f, "EUI-64 {n}"),
            Self::Epoch(n) => write!(f, "epoch {n}"),
            Self::Boot(BootContext(bytes)) => {
                f.write_str("boot ")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Rule(n) => write!(f, "RuleID {n:02x}"),
            Self::Message(id) => write!(f, "message {id}"),
            Self::Word(word) => f.write_str(word),
        }
    }
}

/// What a check expected, and what came, as far as it is a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// What would have passed.
    pub expected: Value,
    /// What came.
    pub came: Value,
}

impl Detail {
    /// Both.
    pub const fn new(expected: Value, came: Value) -> Self {
        Self { expected, came }
    }
}

/// One refusal, as it is kept for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which message, or which event.
    pub id: FrameId,
    /// When.
    pub at: Millis,
    /// Code and exact reason.
    pub rejected: Rejected,
    /// What the check compared.
    pub detail: Detail,
    /// Network, where it is known.
    pub net: Option<Net>,
    /// Gateway, where it is known.
    pub gateway: Option<GatewayId>,
    /// Who sent it, as far as that is known or claimed.
    pub sid: Option<Sid>,
}

impl Refusal {
    /// What was expected, in a few words and the value.
    pub fn expected(&self) -> impl fmt::Display {
        Told { words: self.rejected.code.about().expected, value: self.detail.expected }
    }

    /// What came, in a few words and the value.
    pub fn came(&self) -> impl fmt::Display {
        Told { words: self.rejected.code.about().came, value: self.detail.came }
    }
}

struct Told {
    words: &'static str,
    value: Value,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words)?;
        if self.value == Value::Unsaid { Ok(()) } else { write!(f, ": {}", self.value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_of_the_bytes_alone_and_reads_back_as_it_is_written() {
        let id = FrameId::of(b"a frame");
        assert_eq!(id, FrameId::of(b"a frame"));
        assert_ne!(id, FrameId::of(b"a frame."));
        let mut text = heapless_text(id);
        assert_eq!(core::str::from_utf8(&text).unwrap().parse(), Ok(id));
        text[0] = b'x';
        assert_eq!(core::str::from_utf8(&text).unwrap().parse::<FrameId>(), Err(NoFrameId));
        assert_eq!("+123456789abcdef".parse::<FrameId>(), Err(NoFrameId));
        let hash = CiphertextHash::of(b"a ciphertext");
        assert_eq!(FrameId::from(hash), FrameId::of(b"a ciphertext"));
    }

    fn heapless_text(id: FrameId) -> [u8; 16] {
        struct Into16([u8; 16], usize);
        impl fmt::Write for Into16 {
            fn write_str(&mut self, s: &str) -> fmt::Result {
                for b in s.bytes() {
                    *self.0.get_mut(self.1).ok_or(fmt::Error)? = b;
                    self.1 += 1;
                }
                Ok(())
            }
        }
        let mut out = Into16([0; 16], 0);
        fmt::write(&mut out, format_args!("{id}")).unwrap();
        out.0
    }
}
