//! What a gateway says of itself: envelopes of kind 5 (docs/protocol.md, "Gateway events").
//!
//! `{1: uptime_s, 2: [spool bytes used, spool bytes at most], 3: [[code, sid or null, n]]}`, all three always present.
//! Item 3 holds increments since the event before: adding up all events of a gateway gives its counters. A gateway sends
//! one at most every two seconds, and none when nothing was counted, but for one a minute as a sign of life.

use crate::error::{Code, SealError};
use crate::id::Sid;
use crate::wire::cbor::{Element, List, Malformed, Reader, Writer};

/// Counts in one event, at most; more go into the next.
pub const COUNTS: usize = 256;
/// Bytes of an event, at most.
pub const BYTES: usize = 64 + COUNTS * 24;

/// An increment of one counter: `[code, sid or null, n]`, the code as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Count {
    /// What was refused, or happened.
    pub code: Code,
    /// The device, where it is known or claimed.
    pub sid: Option<Sid>,
    /// How many times since the last event.
    pub count: u64,
}

impl Element<'_> for Count {
    fn parse(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.array_of(3)?;
        let code = r.text()?.parse().map_err(|_| Malformed::new("event: unknown code"))?;
        let sid = if r.null() { None } else { Some(Sid::from_bytes(*r.bytes_of()?)) };
        Ok(Self { code, sid, count: r.unsigned()? })
    }

    fn emit(&self, w: &mut Writer<'_>) -> Result<(), SealError> {
        w.array(3)?;
        w.text(self.code.as_str())?;
        match self.sid {
            Some(sid) => w.bytes(&sid.to_bytes())?,
            None => w.null()?,
        }
        w.unsigned(self.count)
    }
}

/// An event of a gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'b> {
    /// 1: seconds since it started.
    pub uptime: u64,
    /// 2: bytes in its spool.
    pub spool_used: u64,
    /// 2: bytes that its spool takes at most.
    pub spool_max: u64,
    /// 3: what was counted.
    pub counts: List<'b, Count>,
}

impl<'b> Event<'b> {
    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it is not deterministic CBOR, or an item is missing or unknown.
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        const MISSING: Malformed = Malformed::new("event: items 1 to 3 in order are needed");
        let mut r = Reader::new(bytes);
        if r.map()? != 3 || r.unsigned()? != 1 {
            return Err(MISSING);
        }
        let uptime = r.unsigned()?;
        if r.unsigned()? != 2 {
            return Err(MISSING);
        }
        r.array_of(2)?;
        let (spool_used, spool_max) = (r.unsigned()?, r.unsigned()?);
        if r.unsigned()? != 3 {
            return Err(MISSING);
        }
        let counts = List::parse(&mut r)?;
        r.end()?;
        Ok(Self { uptime, spool_used, spool_max, counts })
    }

    /// Writes it, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small; [`BYTES`] suffice for [`COUNTS`].
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.map(3)?;
        w.unsigned(1u8)?;
        w.unsigned(self.uptime)?;
        w.unsigned(2u8)?;
        w.array(2)?;
        w.unsigned(self.spool_used)?;
        w.unsigned(self.spool_max)?;
        w.unsigned(3u8)?;
        self.counts.emit(&mut w)?;
        Ok(w.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_as_it_was_written_and_not_when_cut() {
        let counts = [
            Count { code: Code::LinkForged, sid: None, count: 3 },
            Count { code: Code::GatewayForged, sid: Some(Sid(0x0a17)), count: u64::MAX },
        ];
        let event = Event { uptime: 61, spool_used: 7, spool_max: 9, counts: List::of(&counts) };
        let mut out = [0; BYTES];
        let len = event.emit(&mut out).unwrap();
        assert_eq!(Event::parse(&out[..len]).unwrap(), event);
        for cut in 0..len {
            assert!(Event::parse(&out[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn the_longest_event_fits() {
        let counts = [Count { code: Code::GatewayForged, sid: Some(Sid(0x0a17)), count: u64::MAX }; COUNTS];
        let event = Event { uptime: u64::MAX, spool_used: u64::MAX, spool_max: u64::MAX, counts: List::of(&counts) };
        assert!(event.emit(&mut [0; BYTES]).is_ok());
    }
}
