//! Cutting a frame into tiny frames or fragments as a node does (W6), and putting the pieces together.

use alloc::vec::Vec;

use crate::builder::with_payload;
use crate::field::{Entry, Fields};
use crate::frame::Clear;
use crate::refused::Refused;
use crate::sensors::Sensors;
use crate::tiny::{LONGEST_TINY, Tiny};

/// Bytes of the largest fragment.
pub const LONGEST_FRAGMENT: usize = 101;

/// The pieces of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Tiny frames or fragments.
    pub pieces: Vec<Vec<u8>>,
    /// Fields that fit into none of them, and that the node drops without a word.
    pub dropped: usize,
}

/// Cuts a binary frame into tiny frames of at most `most` bytes, which a node takes to be 10 to 100.
///
/// # Errors
/// A frame whose fields cannot be read.
pub fn tiny_frames(frame: &Clear<'_>, sensors: &Sensors, most: usize) -> Result<Pieces, Refused> {
    let most = most.clamp(10, LONGEST_TINY);
    let (packed, dropped) = packed(&split(frame, sensors)?, most.saturating_sub(2));
    let piece = |payload: Vec<u8>| {
        let length = u8::try_from(payload.len().saturating_add(2)).unwrap_or(u8::MAX);
        let mut tiny = Vec::from([frame.sequence, length]);
        tiny.extend_from_slice(&payload);
        tiny
    };
    Ok(Pieces { pieces: packed.into_iter().map(piece).collect(), dropped })
}

/// Cuts a binary frame into fragments of at most `most` bytes, never more than 101.
///
/// # Errors
/// A frame whose fields cannot be read.
pub fn fragments(frame: &Clear<'_>, sensors: &Sensors, most: usize) -> Result<Pieces, Refused> {
    let header = frame.bytes.len().saturating_sub(frame.payload.len());
    let (packed, dropped) = packed(&split(frame, sensors)?, most.min(LONGEST_FRAGMENT).saturating_sub(header));
    Ok(Pieces { pieces: packed.iter().filter_map(|payload| with_payload(frame, payload)).collect(), dropped })
}

/// The fields of a binary frame, each by itself.
fn split<'a>(frame: &Clear<'a>, sensors: &Sensors) -> Result<Vec<&'a [u8]>, Refused> {
    if frame.encoding != crate::kind::Encoding::Binary {
        return Err(Refused::Type { byte: frame.kind.number() | 0x80 });
    }
    let start = frame.bytes.len().saturating_sub(frame.payload.len());
    let mut starts = Vec::new();
    for entry in Fields::binary(frame.payload, frame.bytes.len(), sensors) {
        match entry? {
            Entry::Field(field) => starts.push(field.at),
            Entry::Refused(_) => {}
            Entry::Rest(rest) => return Err(Refused::UnknownSensor { id: rest.id, at: rest.at }),
        }
    }
    let ends = starts.iter().skip(1).copied().chain([frame.bytes.len()]);
    let cut = |(from, to)| frame.bytes.get(from..to);
    debug_assert!(starts.first().is_none_or(|&first| first == start));
    Ok(starts.iter().copied().zip(ends).filter_map(cut).collect())
}

/// First fit: each piece takes, in order, whatever still fits into it.
fn packed(fields: &[&[u8]], room: usize) -> (Vec<Vec<u8>>, usize) {
    let mut left: Vec<&[u8]> = fields.iter().copied().filter(|field| field.len() <= room).collect();
    let dropped = fields.len().saturating_sub(left.len());
    let mut pieces = Vec::new();
    while !left.is_empty() {
        let mut piece = Vec::with_capacity(room);
        left.retain(|field| {
            let fits = piece.len() + field.len() <= room;
            if fits {
                piece.extend_from_slice(field);
            }
            !fits
        });
        pieces.push(piece);
    }
    (pieces, dropped)
}

/// What a piece is to those that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// One more.
    Added,
    /// The same bytes are there.
    Repeated,
    /// A piece of another frame: nothing changed.
    Other,
    /// No frame has so many fields: nothing changed.
    TooLong,
}

/// The pieces of one frame, put together in the order in which they come.
///
/// Nothing on the wire says how many pieces there are, nor in which order the node had its fields: a frame is whole when
/// the node begins the next one, or when one has waited long enough. Every piece is a frame of its own and can be used
/// without this.
#[derive(Clone, Debug)]
pub struct Joint {
    /// Header of a fragment; of tiny frames the carrier keeps whose they are.
    head: Option<Vec<u8>>,
    sequence: u8,
    payload: Vec<u8>,
    /// Where each piece ends in the payload.
    ends: Vec<usize>,
}

impl Joint {
    /// Begins with a fragment.
    pub fn of_fragment(fragment: &Clear<'_>) -> Self {
        let head = head(fragment);
        Self {
            head,
            sequence: fragment.sequence,
            payload: fragment.payload.into(),
            ends: [fragment.payload.len()].into(),
        }
    }

    /// Begins with a tiny frame of whoever the carrier says.
    pub fn of_tiny(tiny: &Tiny<'_>) -> Self {
        Self { head: None, sequence: tiny.sequence, payload: tiny.payload.into(), ends: [tiny.payload.len()].into() }
    }

    /// Adds a fragment, if it is of the same frame: same type, serial, node id and sequence.
    pub fn join_fragment(&mut self, fragment: &Clear<'_>) -> Joined {
        if self.head.is_none() || self.head != head(fragment) {
            return Joined::Other;
        }
        self.join(fragment.payload)
    }

    /// Adds a tiny frame of the same sender, if it has the same sequence.
    pub fn join_tiny(&mut self, tiny: &Tiny<'_>) -> Joined {
        if self.head.is_some() || self.sequence != tiny.sequence { Joined::Other } else { self.join(tiny.payload) }
    }

    fn join(&mut self, payload: &[u8]) -> Joined {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        if starts.zip(&self.ends).any(|(from, &to)| self.payload.get(from..to) == Some(payload)) {
            return Joined::Repeated;
        }
        let length = self.head.as_ref().map_or(0, Vec::len) + self.payload.len() + payload.len();
        if length > crate::frame::LONGEST {
            return Joined::TooLong;
        }
        self.payload.extend_from_slice(payload);
        self.ends.push(self.payload.len());
        Joined::Added
    }

    /// Counter of the node.
    pub const fn sequence(&self) -> u8 {
        self.sequence
    }

    /// The fields of all pieces, as in a binary frame.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The fields of all pieces, read.
    pub fn fields<'a>(&'a self, sensors: &'a Sensors) -> Fields<'a> {
        Fields::binary(&self.payload, self.payload.len(), sensors)
    }

    /// A binary frame with all fields; `None` of tiny frames, which have no header.
    pub fn frame(&self) -> Option<Vec<u8>> {
        let mut frame = self.head.clone()?;
        let length = frame.len().checked_add(self.payload.len())?.checked_sub(5)?;
        *frame.get_mut(4)? = u8::try_from(length).ok()?;
        frame.extend_from_slice(&self.payload);
        Some(frame)
    }
}

/// Everything in front of the fields but N, which differs from piece to piece.
fn head(fragment: &Clear<'_>) -> Option<Vec<u8>> {
    let end = fragment.bytes.len().checked_sub(fragment.payload.len())?;
    let mut head = Vec::from(fragment.bytes.get(..end)?);
    *head.get_mut(4)? = 0;
    Some(head)
}
