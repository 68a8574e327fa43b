//! # The hardened profile: readings under AES-256-CCM inside a Waspmote frame
//!
//! What the scheme of these nodes was described to have and its code never had: authenticity, freshness, a number that is
//! used once, and a key that can be renewed. Ours, and compatible with nothing older.
//!
//! | Key held by | one node and its gateway (68, 6C), or one node and the cloud (69, 6D) |
//! |---|---|
//! | Hides       | type, node id, sequence and fields of the frame that was sealed |
//! | Proves      | which node spoke; with [`Window`], that it is new; an answer, that it is to this frame |
//! | Binds       | type (level and direction), length, serial, epoch, sequence, seed |
//! | Refuses as  | [`Refused`] |
//! | Does not    | hide serial, epoch, sequence, length; sign; keep what was recorded safe once a key is known |
//! | Spec        | docs/protocol.md, "Classic, hardened" |
//!
//! ```text
//! 3C 3D 3E | type | N | serial(8) | epoch(4) | sequence(4) | seed(4) | ciphertext | tag(8)
//!            68 to the gateway, 69 to the cloud       N counts what follows it, numbers are big-endian
//!            6C, 6D the answers: 5 bytes of ciphertext; serial, epoch, sequence and seed repeat the frame's
//!
//! nonce  type(1) ‖ epoch(4) ‖ sequence(4) ‖ seed(4)           additional data  the 25 bytes before the ciphertext
//! plaintext of a frame    type(1) ‖ node id(0..=16) ‖ '#' ‖ sequence byte(1) ‖ fields    as in the binary frame of W4
//! plaintext of an answer  wishes(1) ‖ time(4)                 seconds since 1970, 0 if it is not known
//! ```
//!
//! A node seals the binary frame that its library made; whoever opens it gets that frame back, byte for byte, and reads it
//! as any other. A node that signs its readings seals the parts of its signatures ([`signature`]) in the same way. The sequence is leased ([`Lease`]) and never repeats under a key. The seed is whatever randomness the node
//! has: nothing rests on it, but a node whose memory was rolled back is not broken at once by it.
//!
//! A frame is answered once at most, when its number was new and its mark is durable: the answer's nonce is the frame's
//! under another type.

mod lease;
pub mod signature;
mod window;

pub use lease::{Lease, LeaseSpent};
pub use window::{Fresh, Verdict, Window};

use crate::{FrameType, Generation, Serial};
use aes::Aes256Enc;
use alloc::vec::Vec;
use ccm::Ccm;
use ccm::aead::{AeadInOut, KeyInit};
use ccm::consts::{U8, U13};
use core::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes before the ciphertext.
pub const HEADER: usize = 25;
/// Bytes of the tag.
pub const TAG: usize = 8;
/// What the profile adds to the binary frame that is sealed: 21 bytes.
pub const OVERHEAD: usize = HEADER + TAG - PLAIN_HEADER + 1;
/// Longest frame in bytes: the buffer of a node.
pub const LONGEST: usize = 255;
/// Bytes of an answer.
pub const ANSWER: usize = HEADER + ANSWER_PLAIN + TAG;

/// Delimiter, type, N and serial of a binary frame.
const PLAIN_HEADER: usize = 13;
const ANSWER_PLAIN: usize = 5;
/// Shortest plaintext: type, no node id, `#`, sequence.
const SHORTEST_PLAIN: usize = 3;
const LONGEST_NODE_ID: usize = 16;

type Aead = Ccm<Aes256Enc, U8, U13>;

/// Who holds the other copy of a node's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// Opened by the cloud; the gateway passes it unread.
    Cloud,
    /// Opened by the gateway.
    Gateway,
}

impl Peer {
    /// Type byte of a frame to it.
    pub const fn frame_type(self) -> u8 {
        match self {
            Self::Cloud => 0x69,
            Self::Gateway => 0x68,
        }
    }

    /// Type byte of its answers.
    pub const fn answer_type(self) -> u8 {
        match self {
            Self::Cloud => 0x6D,
            Self::Gateway => 0x6C,
        }
    }
}

/// A key of the profile: AES-256, of one node, one level and one epoch.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn aead(&self) -> Aead {
        Aead::new((&self.0).into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Number of a key: counts up with each renewal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

/// What makes a nonce one of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Number {
    /// Of the key.
    pub epoch: Epoch,
    /// Never twice under a key: from a [`Lease`].
    pub sequence: u32,
    /// Drawn by the node for each frame.
    pub seed: [u8; 4],
}

/// Why bytes are no hardened frame, or cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// The place for it is too small.
    Buffer {
        /// Bytes that are needed.
        wanted: usize,
    },
    /// What was to be sealed is no binary frame of v15 hardware.
    Clear(&'static str),
    /// It opened, and holds no such frame or answer: the holder of the key made it so.
    Content(&'static str),
    /// An answer to something else.
    Foreign,
    /// N says another length.
    Length {
        /// Bytes after N.
        found: usize,
        /// N.
        said: u8,
    },
    /// Longer than [`LONGEST`].
    Long {
        /// Bytes.
        found: usize,
    },
    /// Too short for header and tag.
    Short {
        /// Bytes.
        found: usize,
    },
    /// It does not start with `<=>`.
    Start,
    /// The tag is wrong: another key, or somebody changed it.
    Tag,
    /// Another type of frame.
    Type(u8),
}

impl Refused {
    /// One word that stays the same from release to release.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Buffer { .. } => "buffer",
            Self::Clear(_) => "clear",
            Self::Content(_) => "content",
            Self::Foreign => "foreign",
            Self::Length { .. } => "length",
            Self::Long { .. } => "long",
            Self::Short { .. } => "short",
            Self::Start => "start",
            Self::Tag => "tag",
            Self::Type(_) => "type",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Buffer { wanted } => write!(f, "{wanted} bytes are needed for it"),
            Self::Clear(what) => write!(f, "only a binary frame of v15 hardware can be sealed: {what}"),
            Self::Content(what) => write!(f, "it opened under its key and holds nothing that belongs there: {what}"),
            Self::Foreign => f.write_str("it answers another frame"),
            Self::Length { found, said } => write!(f, "it says that {said} bytes follow, and {found} do"),
            Self::Long { found } => write!(f, "{found} bytes, and a frame has at most {LONGEST}"),
            Self::Short { found } => write!(f, "{found} bytes are no hardened frame"),
            Self::Start => f.write_str("it does not start with <=>"),
            Self::Tag => f.write_str("the tag is wrong: another key, or it was changed on its way"),
            Self::Type(kind) => write!(f, "frames of type {kind:02x} are not hardened ones"),
        }
    }
}

impl core::error::Error for Refused {}

/// A hardened frame: its shape was looked at, nothing is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed<'b> {
    /// Who can open it.
    pub peer: Peer,
    /// Who says to have sent it.
    pub serial: [u8; 8],
    /// Its number.
    pub number: Number,
    header: &'b [u8; HEADER],
    ciphertext: &'b [u8],
    tag: &'b [u8; TAG],
}

impl<'b> Sealed<'b> {
    /// Looks at a whole frame.
    ///
    /// # Errors
    /// [`Refused::Short`], [`Refused::Long`], [`Refused::Start`], [`Refused::Type`], [`Refused::Length`].
    pub fn parse(frame: &'b [u8]) -> Result<Self, Refused> {
        let found = frame.len();
        let (header, rest) = frame.split_first_chunk::<HEADER>().ok_or(Refused::Short { found })?;
        let &[d1, d2, d3, kind, said, ref serial_and_number @ ..] = header;
        if [d1, d2, d3] != START {
            return Err(Refused::Start);
        }
        let peer = [Peer::Cloud, Peer::Gateway].into_iter().find(|peer| peer.frame_type() == kind);
        let peer = peer.ok_or(Refused::Type(kind))?;
        if found > LONGEST {
            return Err(Refused::Long { found });
        }
        if usize::from(said) != found - 5 {
            return Err(Refused::Length { found: found - 5, said });
        }
        let (ciphertext, tag) = rest.split_last_chunk::<TAG>().ok_or(Refused::Short { found })?;
        if ciphertext.len() < SHORTEST_PLAIN {
            return Err(Refused::Short { found });
        }
        let &[s1, s2, s3, s4, s5, s6, s7, s8, e1, e2, e3, e4, q1, q2, q3, q4, r1, r2, r3, r4] = serial_and_number;
        Ok(Self {
            peer,
            serial: [s1, s2, s3, s4, s5, s6, s7, s8],
            number: Number {
                epoch: Epoch(u32::from_be_bytes([e1, e2, e3, e4])),
                sequence: u32::from_be_bytes([q1, q2, q3, q4]),
                seed: [r1, r2, r3, r4],
            },
            header,
            ciphertext,
            tag,
        })
    }

    /// The serial as other frames have it.
    pub const fn serial(&self) -> Serial {
        Serial::V15(self.serial)
    }

    /// Opens it with the key of its serial, peer and epoch. Whether it is new is the caller's [`Window`] to say, before and
    /// after: check, open, mark.
    ///
    /// # Errors
    /// [`Refused::Tag`]; [`Refused::Content`] when the node sealed what is no binary frame.
    pub fn open(&self, key: &Key) -> Result<Opened, Refused> {
        let mut plain = zeroize::Zeroizing::new(self.ciphertext.to_vec());
        let nonce = nonce(self.peer.frame_type(), &self.number);
        key.aead()
            .decrypt_inout_detached((&nonce).into(), self.header, plain.as_mut_slice().into(), self.tag.into())
            .map_err(|_| Refused::Tag)?;
        let (&kind, rest) = plain.split_first().ok_or(Refused::Content("nothing"))?;
        content(kind, rest).map_err(Refused::Content)?;
        // At most 255 - 33 - 1 + 8.
        let n = u8::try_from(8 + rest.len()).map_err(|_| Refused::Content("too long"))?;
        let mut frame = Vec::with_capacity(PLAIN_HEADER + rest.len());
        frame.extend_from_slice(&START);
        frame.extend_from_slice(&[kind, n]);
        frame.extend_from_slice(&self.serial);
        frame.extend_from_slice(rest);
        Ok(Opened { frame, number: self.number })
    }
}

/// A frame that its node sealed. Only [`Sealed::open`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    frame: Vec<u8>,
    number: Number,
}

impl Opened {
    /// The binary frame in clear, as the node's library made it, for [`Frame::parse`](crate::Frame::parse).
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Its number, authentic.
    pub const fn number(&self) -> Number {
        self.number
    }
}

/// Seals the binary frame that a node's library made, into the front of `out`. Returns how many bytes that took: its own
/// and [`OVERHEAD`].
///
/// # Errors
/// [`Refused::Clear`] for everything but a binary frame of v15 hardware; [`Refused::Long`]; [`Refused::Buffer`].
pub fn seal(peer: Peer, key: &Key, number: &Number, clear: &[u8], out: &mut [u8]) -> Result<usize, Refused> {
    let (head, rest) = clear.split_first_chunk::<PLAIN_HEADER>().ok_or(Refused::Clear("it is too short"))?;
    let &[d1, d2, d3, kind, n, ref serial @ ..] = head;
    if [d1, d2, d3] != START {
        return Err(Refused::Clear("it does not start with <=>"));
    }
    if usize::from(n) != clear.len() - 5 {
        return Err(Refused::Clear("its length is not what it says"));
    }
    content(kind, rest).map_err(Refused::Clear)?;
    let wanted = clear.len() + OVERHEAD;
    if wanted > LONGEST {
        return Err(Refused::Long { found: wanted });
    }
    let (header, room) = out.split_first_chunk_mut::<HEADER>().ok_or(Refused::Buffer { wanted })?;
    let (body, room) = room.split_at_mut_checked(1 + rest.len()).ok_or(Refused::Buffer { wanted })?;
    let tag_slot = room.first_chunk_mut::<TAG>().ok_or(Refused::Buffer { wanted })?;
    // Not above LONGEST - 5.
    *header = self::header(peer.frame_type(), (wanted - 5) as u8, serial, number);
    body.iter_mut().zip([kind].iter().chain(rest)).for_each(|(slot, byte)| *slot = *byte);
    *tag_slot = close(key, header, peer.frame_type(), number, body)?;
    Ok(wanted)
}

/// What a gateway or the cloud tells a node about its frame: that it was stored, and this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// What it wants.
    pub wish: Wish,
    /// Seconds since 1970; 0: not known.
    pub time: u32,
}

/// What a gateway or the cloud wants of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    #[default]
    None,
    /// A new key, by KR1.
    Renew,
}

impl Wish {
    const fn byte(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Renew => 1,
        }
    }
}

impl Answer {
    /// Seals the answer to an opened frame. Once for each, and only when its mark is durable.
    ///
    /// # Errors
    /// None that can happen; the cipher's own is passed on.
    pub fn seal(&self, peer: Peer, serial: &[u8; 8], opened: &Opened, key: &Key) -> Result<[u8; ANSWER], Refused> {
        let mut out = [0; ANSWER];
        let header = header(peer.answer_type(), (ANSWER - 5) as u8, serial, &opened.number);
        let [t1, t2, t3, t4] = self.time.to_be_bytes();
        let mut body = [self.wish.byte(), t1, t2, t3, t4];
        let tag = close(key, &header, peer.answer_type(), &opened.number, &mut body)?;
        out.iter_mut().zip(header.iter().chain(&body).chain(&tag)).for_each(|(slot, byte)| *slot = *byte);
        Ok(out)
    }

    /// Opens what came as the answer to the frame that this node sent last.
    ///
    /// # Errors
    /// [`Refused::Foreign`] for everything that is not shaped as its answer, [`Refused::Tag`], [`Refused::Content`].
    pub fn open(frame: &[u8], peer: Peer, serial: &[u8; 8], sent: &Number, key: &Key) -> Result<Self, Refused> {
        let expected = header(peer.answer_type(), (ANSWER - 5) as u8, serial, sent);
        let (header, rest) = frame.split_first_chunk::<HEADER>().ok_or(Refused::Short { found: frame.len() })?;
        let (body, tag) = rest.split_first_chunk::<ANSWER_PLAIN>().ok_or(Refused::Short { found: frame.len() })?;
        let tag: &[u8; TAG] = tag.try_into().map_err(|_| Refused::Foreign)?;
        if *header != expected {
            return Err(Refused::Foreign);
        }
        let mut plain = *body;
        let nonce = nonce(peer.answer_type(), sent);
        key.aead()
            .decrypt_inout_detached((&nonce).into(), header, plain.as_mut_slice().into(), tag.into())
            .map_err(|_| Refused::Tag)?;
        let [wish, t1, t2, t3, t4] = plain;
        let wish = match wish {
            0 => Wish::None,
            1 => Wish::Renew,
            _ => return Err(Refused::Content("an unknown wish")),
        };
        Ok(Self { wish, time: u32::from_be_bytes([t1, t2, t3, t4]) })
    }
}

const START: [u8; 3] = *b"<=>";

fn header(kind: u8, n: u8, serial: &[u8; 8], number: &Number) -> [u8; HEADER] {
    let [s1, s2, s3, s4, s5, s6, s7, s8] = *serial;
    let [e1, e2, e3, e4] = number.epoch.0.to_be_bytes();
    let [q1, q2, q3, q4] = number.sequence.to_be_bytes();
    let [r1, r2, r3, r4] = number.seed;
    let [d1, d2, d3] = START;
    #[rustfmt::skip]
    let bytes = [
        d1, d2, d3, kind, n, s1, s2, s3, s4, s5, s6, s7, s8, e1, e2, e3, e4, q1, q2, q3, q4, r1, r2, r3, r4,
    ];
    bytes
}

fn nonce(kind: u8, number: &Number) -> [u8; 13] {
    let [e1, e2, e3, e4] = number.epoch.0.to_be_bytes();
    let [q1, q2, q3, q4] = number.sequence.to_be_bytes();
    let [r1, r2, r3, r4] = number.seed;
    [kind, e1, e2, e3, e4, q1, q2, q3, q4, r1, r2, r3, r4]
}

fn close(key: &Key, header: &[u8], kind: u8, number: &Number, body: &mut [u8]) -> Result<[u8; TAG], Refused> {
    let wanted = body.len();
    let tag = key.aead().encrypt_inout_detached((&nonce(kind, number)).into(), header, body.into());
    tag.map(Into::into).map_err(|_| Refused::Buffer { wanted })
}

/// Whether this is type and rest of a binary frame of v15 hardware, or of a part of a signature, and if not, why.
fn content(kind: u8, rest: &[u8]) -> Result<(), &'static str> {
    if kind == signature::TYPE {
        return signature::is_rest(rest);
    }
    match FrameType::from_number(kind) {
        None => return Err("its type is none of 1 to 8"),
        Some(kind) if kind.generation() == Some(Generation::V12) => return Err("its type is of v12 hardware"),
        Some(_) => {}
    }
    let id = rest.iter().take(LONGEST_NODE_ID + 1).position(|&byte| byte == b'#').ok_or("no # after the node id")?;
    if rest.len() < id + 2 { Err("no sequence") } else { Ok(()) }
}

#[cfg(test)]
mod tests;
