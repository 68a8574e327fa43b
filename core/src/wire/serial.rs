//! Frames on a serial line, for enrolment (docs/protocol.md 11.1): a device may say other things on the same line before and
//! after, and bytes may be lost.
//!
//! ```text
//! "FV" ‖ kind(1) ‖ length(2) ‖ body ‖ FCS(2, LE)      FCS: that of 802.15.4 (4.1), over kind, length and body
//! ```

use crate::error::SealError;
use crate::wire::enrolment::{Answer, Request};
use crate::wire::ieee802154::fcs;

const MARK: [u8; 2] = *b"FV";
const HEAD: usize = 5;
const FCS: usize = 2;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 1, to the device: say your request. No body.
    Ask,
    /// 2, from the device: its request.
    Request,
    /// 3, to the device: the answer.
    Answer,
    /// 4, from the device: what it was granted is durable. No body.
    Stored,
    /// 5, from either: no, and why, as text.
    Refused,
}

impl Kind {
    const fn wire(self) -> u8 {
        match self {
            Self::Ask => 1,
            Self::Request => 2,
            Self::Answer => 3,
            Self::Stored => 4,
            Self::Refused => 5,
        }
    }

    const fn from_wire(kind: u8) -> Option<Self> {
        match kind {
            1 => Some(Self::Ask),
            2 => Some(Self::Request),
            3 => Some(Self::Answer),
            4 => Some(Self::Stored),
            5 => Some(Self::Refused),
            _ => None,
        }
    }

    /// Bytes of its body, at most. What says that it is longer is none of ours, and holds nothing up.
    pub const fn longest(self) -> usize {
        match self {
            Self::Ask | Self::Stored => 0,
            Self::Request => Request::LONGEST,
            Self::Answer => Answer::LONGEST,
            Self::Refused => 160,
        }
    }
}

/// Bytes of a frame, at most.
pub const LONGEST: usize = HEAD + Answer::LONGEST + FCS;

/// A frame whose check sequence holds. Nothing of its body is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'b> {
    /// What it is.
    pub kind: Kind,
    /// Its body.
    pub body: &'b [u8],
}

impl Frame<'_> {
    /// Writes it, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small ([`LONGEST`] bytes suffice), or the body longer than its kind allows.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let len = HEAD + self.body.len();
        if self.body.len() > self.kind.longest() {
            return Err(SealError::BufferTooSmall);
        }
        let out = out.get_mut(..len + FCS).ok_or(SealError::BufferTooSmall)?;
        let (frame, sum) = out.split_at_mut(len);
        let (head, body) = frame.split_at_mut(HEAD);
        let [high, low] = (self.body.len() as u16).to_be_bytes();
        head.copy_from_slice(&[MARK[0], MARK[1], self.kind.wire(), high, low]);
        body.copy_from_slice(self.body);
        sum.copy_from_slice(&fcs(frame.get(MARK.len()..).unwrap_or_default()).to_le_bytes());
        Ok(len + FCS)
    }
}

/// Finds frames in what comes over a line, whatever stands between them.
#[derive(Clone, Debug)]
pub struct Deframer {
    held: [u8; LONGEST],
    len: usize,
    /// Bytes at the front that were given out.
    spent: usize,
}

impl Default for Deframer {
    fn default() -> Self {
        Self { held: [0; LONGEST], len: 0, spent: 0 }
    }
}

enum Look {
    Frame(Kind, usize),
    More,
    No,
}

impl Deframer {
    /// Takes one byte; ask for a [`frame`](Self::frame) after each.
    pub fn feed(&mut self, byte: u8) {
        self.drop_front(self.spent);
        self.spent = 0;
        if let Some(place) = self.held.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    /// The next frame, if one is whole. Ask until there is none.
    pub fn frame(&mut self) -> Option<Frame<'_>> {
        self.drop_front(self.spent);
        self.spent = 0;
        loop {
            match self.look() {
                Look::More => return None,
                Look::No => self.drop_front(1),
                Look::Frame(kind, body) => {
                    self.spent = HEAD + body + FCS;
                    let body = self.held.get(HEAD..HEAD + body).unwrap_or_default();
                    return Some(Frame { kind, body });
                }
            }
        }
    }

    /// Forgets what was begun: the line was silent.
    pub fn forget(&mut self) {
        (self.len, self.spent) = (0, 0);
    }

    fn look(&self) -> Look {
        let held = self.held.get(..self.len).unwrap_or_default();
        let begins = held.iter().zip(MARK).all(|(h, m)| *h == m);
        if !begins {
            return Look::No;
        }
        let Some(kind) = held.get(2) else { return Look::More };
        let Some(kind) = Kind::from_wire(*kind) else { return Look::No };
        let Some(&[high, low]) = held.get(3..HEAD) else { return Look::More };
        let body = usize::from(u16::from_be_bytes([high, low]));
        if body > kind.longest() {
            return Look::No;
        }
        let Some(whole) = held.get(..HEAD + body + FCS) else { return Look::More };
        match whole.split_last_chunk::<FCS>() {
            Some((frame, sum)) if u16::from_le_bytes(*sum) == fcs(frame.get(MARK.len()..).unwrap_or_default()) => {
                Look::Frame(kind, body)
            }
            _ => Look::No,
        }
    }

    fn drop_front(&mut self, n: usize) {
        let n = n.min(self.len);
        self.held.copy_within(n..self.len, 0);
        self.len -= n;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
        let mut out = vec![0; LONGEST];
        let len = Frame { kind, body }.emit(&mut out).unwrap();
        out.truncate(len);
        out
    }

    fn heard(bytes: &[u8]) -> Vec<(Kind, Vec<u8>)> {
        let (mut deframer, mut all) = (Deframer::default(), Vec::new());
        for byte in bytes {
            deframer.feed(*byte);
            while let Some(frame) = deframer.frame() {
                all.push((frame.kind, frame.body.to_vec()));
            }
        }
        all
    }

    #[test]
    fn frames_are_found_among_what_a_console_says() {
        let line =
            [&b"boot FV 1.2 FVFV"[..], &frame(Kind::Ask, b""), b"\r\nF", &frame(Kind::Refused, b"no"), b"FV"].concat();
        assert_eq!(heard(&line), [(Kind::Ask, vec![]), (Kind::Refused, b"no".to_vec())]);
    }

    #[test]
    fn a_damaged_frame_is_lost_and_the_next_one_is_not() {
        let whole = frame(Kind::Answer, &[7; 300]);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            // Wherever it was damaged, the same frame again gets through, at the second time at the latest.
            let again = [&changed[..], &whole, &whole].concat();
            assert!(heard(&changed).is_empty() && !heard(&again).is_empty(), "byte {at}");
            let cut = [&whole[..at], &whole, &whole].concat();
            assert!(!heard(&cut).is_empty(), "cut at {at}");
        }
    }

    #[test]
    fn a_frame_never_says_more_than_its_kind_allows() {
        assert!(Frame { kind: Kind::Ask, body: b"x" }.emit(&mut [0; LONGEST]).is_err());
        assert!(Frame { kind: Kind::Answer, body: &[0; Answer::LONGEST + 1] }.emit(&mut [0; 600]).is_err());
        assert_eq!(heard(b"FV\x03\xFF\xFF").len(), 0);
        let mut deframer = Deframer::default();
        b"FV\x03\x00".iter().for_each(|b| deframer.feed(*b));
        assert!(deframer.frame().is_none());
        deframer.forget();
        frame(Kind::Ask, b"").iter().for_each(|b| deframer.feed(*b));
        assert_eq!(deframer.frame().map(|f| f.kind), Some(Kind::Ask));
    }
}
