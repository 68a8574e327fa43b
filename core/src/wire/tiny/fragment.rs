//! Fragments of tiny frames (RuleID 17) for links that have none of their own: one datagram per originator at a time, no
//! acknowledgements.

use super::Tiny;
use crate::error::{Code, Rejected};
use crate::time::Millis;

/// Fragments of one datagram, at most.
pub const MAX_FRAGMENTS: usize = 128;
/// Milliseconds after which an incomplete datagram is dropped.
pub const REASSEMBLY_TIMEOUT: u64 = 60_000;

/// Cuts a tiny frame into fragments of `size` bytes, the last one shorter or equal.
#[derive(Clone, Debug)]
pub struct Fragments<'b> {
    rest: &'b [u8],
    tag: u8,
    index: u8,
    size: usize,
}

impl<'b> Fragments<'b> {
    /// `None` when the datagram is empty or would need more than 128 fragments.
    pub fn new(datagram: &'b [u8], tag: u8, size: usize) -> Option<Self> {
        (!datagram.is_empty() && size > 0 && datagram.len().div_ceil(size) <= MAX_FRAGMENTS).then_some(Self {
            rest: datagram,
            tag,
            index: 0,
            size,
        })
    }
}

impl<'b> Iterator for Fragments<'b> {
    type Item = Tiny<'b>;

    fn next(&mut self) -> Option<Tiny<'b>> {
        if self.rest.is_empty() {
            return None;
        }
        let (bytes, rest) = self.rest.split_at_checked(self.size).unwrap_or((self.rest, &[]));
        self.rest = rest;
        let index = self.index;
        self.index += 1;
        Some(Tiny::Fragment { tag: self.tag, index, last: rest.is_empty(), bytes })
    }
}

/// The datagram of one originator that is being put together, of at most `N` bytes.
#[derive(Clone, Debug)]
pub struct Reassembly<const N: usize> {
    bytes: [u8; N],
    started: Option<Millis>,
    tag: u8,
    /// Size of all fragments but the last; 0 while only the last is here.
    size: usize,
    seen: u128,
    /// Index and length of the last fragment.
    last: Option<(u8, usize)>,
}

impl<const N: usize> Default for Reassembly<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Reassembly<N> {
    /// With nothing in it.
    pub const fn new() -> Self {
        Self { bytes: [0; N], started: None, tag: 0, size: 0, seen: 0, last: None }
    }

    /// When the datagram in it is to be given up, if there is one.
    pub fn deadline(&self) -> Option<Millis> {
        self.started.map(|s| s.plus(REASSEMBLY_TIMEOUT))
    }

    /// Gives up a datagram whose time is over.
    ///
    /// # Errors
    /// `T-03` when there was one.
    pub fn expire(&mut self, now: Millis) -> Result<(), Rejected> {
        match self.deadline() {
            Some(deadline) if deadline <= now => {
                *self = Self::new();
                Err(Rejected::new(Code::FragmentLost, "fragment timeout"))
            }
            _ => Ok(()),
        }
    }

    /// Takes one fragment and returns the datagram when it is whole. A fragment of another tag begins a new datagram, and
    /// the old one is gone; a repeat of the same fragment changes nothing. Call [`expire`](Self::expire) before.
    ///
    /// # Errors
    /// `T-03` when it contradicts the ones before it (other content, size or end) or exceeds `N` bytes: all is dropped.
    pub fn take(
        &mut self,
        now: Millis,
        tag: u8,
        index: u8,
        last: bool,
        part: &[u8],
    ) -> Result<Option<&[u8]>, Rejected> {
        if self.started.is_none() || self.tag != tag {
            *self = Self { started: Some(now), tag, ..Self::new() };
        }
        let Some(end) = self.place(index, last, part) else {
            *self = Self::new();
            return Err(Rejected::new(Code::FragmentLost, "fragment overlap, or a datagram too long"));
        };
        let Some(end) = end else { return Ok(None) };
        self.started = None;
        Ok(self.bytes.get(..end))
    }

    /// `None` for a contradiction; `Some(Some(len))` when the datagram is whole.
    #[allow(clippy::option_option, reason = "private: contradiction, more to come, or the length")]
    fn place(&mut self, index: u8, last: bool, part: &[u8]) -> Option<Option<usize>> {
        let bit = 1u128.checked_shl(index.into())?;
        if part.is_empty() {
            return None;
        }
        if last {
            if self.last.is_some_and(|l| l != (index, part.len())) || (self.size > 0 && part.len() > self.size) {
                return None;
            }
            // Nothing may lie behind the end.
            if self.seen & !(bit | (bit - 1)) != 0 {
                return None;
            }
        } else {
            if self.last.is_some_and(|(end, len)| index >= end || len > part.len()) {
                return None;
            }
            if self.size == 0 {
                self.size = part.len();
                self.move_last()?;
            } else if self.size != part.len() {
                return None;
            }
        }
        let at = if last && self.size == 0 && index > 0 {
            // Where it belongs is not known before another fragment is here: it waits at the end of the buffer.
            N.checked_sub(part.len())?
        } else {
            usize::from(index).checked_mul(self.size)?
        };
        let place = self.bytes.get_mut(at..at.checked_add(part.len())?)?;
        if self.seen & bit != 0 {
            return (place == part).then_some(None);
        }
        place.copy_from_slice(part);
        self.seen |= bit;
        if last {
            self.last = Some((index, part.len()));
        }
        let (end, len) = match self.last {
            Some(last) => last,
            None => return Some(None),
        };
        let all = (1u128 << end) | ((1u128 << end) - 1);
        let total = usize::from(end).checked_mul(self.size)?.checked_add(len)?;
        if total > N {
            return None;
        }
        Some((self.seen == all).then_some(total))
    }

    /// Moves a last fragment that came first to where it belongs, now that the size is known.
    fn move_last(&mut self) -> Option<()> {
        if let Some((index, len)) = self.last {
            let from = N.checked_sub(len)?;
            let to = usize::from(index).checked_mul(self.size)?;
            if to > from {
                return None;
            }
            self.bytes.copy_within(from..from.checked_add(len)?, to);
        }
        Some(())
    }
}
