//! What a gateway tells of a classic frame: the bytes of envelopes of kind 4 (docs/protocol.md, "Classic frames over E4").
//!
//! The frame itself is opaque here: who reads it is the crate `fivefold-waspmote`.

use core::fmt;

use crate::error::{Code, SealError};
use crate::wire::cbor::{Malformed, Reader, Writer};

/// Bytes of a frame, or of what a gateway opened of one, at most. The longest that a node can build is 260 (W4, W7).
pub const FRAME: usize = 512;
/// Bytes of a report, at most.
pub const BYTES: usize = 1 + (1 + 3 + FRAME) * 2 + (1 + 1) + (1 + 9) + (1 + 6);

/// How a classic frame came to the gateway (item 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// 1: HTTP, at the path of Meshlium (W13).
    Http,
    /// 2: HTTP, at the bridge's path, with a bearer token (W13).
    Bridge,
    /// 3: an XBee module on a serial line, in API mode (W10).
    Xbee,
    /// 4: LoRaWAN, by the MQTT events of a network server.
    Lorawan,
}

impl Carrier {
    /// All, in the order of their wire numbers 1 to 4.
    pub const ALL: [Self; 4] = [Self::Http, Self::Bridge, Self::Xbee, Self::Lorawan];

    /// One word, lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Bridge => "bridge",
            Self::Xbee => "xbee",
            Self::Lorawan => "lorawan",
        }
    }

    /// Its number in item 2.
    pub const fn wire(self) -> u8 {
        match self {
            Self::Http => 1,
            Self::Bridge => 2,
            Self::Xbee => 3,
            Self::Lorawan => 4,
        }
    }

    /// The carrier of a wire number.
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Http),
            2 => Some(Self::Bridge),
            3 => Some(Self::Xbee),
            4 => Some(Self::Lorawan),
            _ => None,
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A classic frame as a gateway heard it: `{1: frame, 2: carrier, ?3: inner, ?4: source, ?5: code}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Report<'b> {
    /// 1: the frame as it came, 1 to [`FRAME`] bytes.
    pub frame: &'b [u8],
    /// 2: how it came.
    pub carrier: Carrier,
    /// 3: what the gateway opened of it, 1 to [`FRAME`] bytes.
    pub inner: Option<&'b [u8]>,
    /// 4: radio address of the sender: an XBee's 64 bits, or a DevEUI, in written order.
    pub source: Option<[u8; 8]>,
    /// 5: what the gateway found wrong.
    pub code: Option<Code>,
}

impl<'b> Report<'b> {
    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it is not deterministic CBOR, item 1 or 2 is missing, an item is unknown, or a frame is empty or longer than
    /// [`FRAME`].
    pub fn parse(bytes: &'b [u8]) -> Result<Self, Malformed> {
        const MISSING: Malformed = Malformed::new("classic report: items 1 and 2 are needed");
        let mut r = Reader::new(bytes);
        let (mut frame, mut carrier, mut inner, mut source, mut code) = (None, None, None, None, None);
        let mut keys = r.keys()?;
        while let Some(key) = keys.next(&mut r)? {
            match key {
                1 => frame = Some(sized(r.bytes()?)?),
                2 => {
                    let known = Carrier::from_wire(r.uint()?);
                    carrier = Some(known.ok_or(Malformed::new("classic report: unknown carrier"))?);
                }
                3 => inner = Some(sized(r.bytes()?)?),
                4 => source = Some(*r.bytes_of()?),
                5 => code = Some(r.text()?.parse().map_err(|_| Malformed::new("classic report: unknown code"))?),
                _ => return Err(Malformed::new("classic report: unknown key")),
            }
        }
        r.end()?;
        Ok(Self { frame: frame.ok_or(MISSING)?, carrier: carrier.ok_or(MISSING)?, inner, source, code })
    }

    /// Writes it, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small ([`BYTES`] always suffice), or [`SealError::TooLong`] when a frame is empty or longer than
    /// [`FRAME`].
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        for frame in [Some(self.frame), self.inner].into_iter().flatten() {
            sized(frame).map_err(|_| SealError::TooLong)?;
        }
        let optional = [self.inner.is_some(), self.source.is_some(), self.code.is_some()];
        let mut w = Writer::new(out);
        w.map(2 + optional.into_iter().map(usize::from).sum::<usize>())?;
        w.unsigned(1u8)?;
        w.bytes(self.frame)?;
        w.unsigned(2u8)?;
        w.unsigned(self.carrier.wire())?;
        if let Some(inner) = self.inner {
            w.unsigned(3u8)?;
            w.bytes(inner)?;
        }
        if let Some(source) = &self.source {
            w.unsigned(4u8)?;
            w.bytes(source)?;
        }
        if let Some(code) = self.code {
            w.unsigned(5u8)?;
            w.text(code.as_str())?;
        }
        Ok(w.len())
    }
}

fn sized(frame: &[u8]) -> Result<&[u8], Malformed> {
    match frame.len() {
        1..=FRAME => Ok(frame),
        _ => Err(Malformed::new("classic report: a frame has 1 to 512 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest(frame: &[u8]) -> Report<'_> {
        let code = Some(Code::ClassicForeignInner);
        Report { frame, carrier: Carrier::Lorawan, inner: Some(frame), source: Some([0xA5; 8]), code }
    }

    #[test]
    fn a_report_reads_as_it_was_written_and_not_when_cut_or_longer() {
        let full = longest(b"<=>\x06");
        for report in [
            full,
            Report { inner: None, ..full },
            Report { source: None, code: None, ..full },
            Report { inner: None, source: None, code: None, carrier: Carrier::Http, ..full },
        ] {
            let mut out = [0; BYTES];
            let len = report.emit(&mut out).unwrap();
            assert_eq!(Report::parse(&out[..len]), Ok(report));
            assert!(Report::parse(&out[..=len]).is_err());
            for cut in 0..len {
                assert!(Report::parse(&out[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn the_longest_report_fits_and_a_longer_frame_is_refused_both_ways() {
        let mut out = [0; BYTES];
        assert_eq!(longest(&[7; FRAME]).emit(&mut out), Ok(BYTES));
        assert_eq!(longest(&[7; FRAME + 1]).emit(&mut out), Err(SealError::TooLong));
        assert_eq!(longest(&[]).emit(&mut out), Err(SealError::TooLong));
        let mut written = [0; FRAME + 16];
        let mut w = Writer::new(&mut written);
        w.map(2).unwrap();
        w.unsigned(1u8).unwrap();
        w.bytes(&[7; FRAME + 1]).unwrap();
        w.unsigned(2u8).unwrap();
        w.unsigned(1u8).unwrap();
        let len = w.len();
        assert!(Report::parse(&written[..len]).is_err());
    }

    #[test]
    fn unknown_carriers_codes_and_items_are_refused() {
        assert!(Report::parse(&[0xA2, 1, 0x41, 0x3C, 2, 4]).is_ok());
        assert!(Report::parse(&[0xA2, 1, 0x41, 0x3C, 2, 5]).is_err(), "a carrier");
        assert!(Report::parse(&[0xA1, 1, 0x41, 0x3C]).is_err(), "no carrier");
        assert!(Report::parse(&[0xA2, 1, 0x40, 2, 1]).is_err(), "no frame");
        assert!(Report::parse(&[0xA3, 1, 0x41, 0x3C, 2, 1, 5, 0x61, b'x']).is_err(), "a code");
        assert!(Report::parse(&[0xA3, 1, 0x41, 0x3C, 2, 1, 6, 0]).is_err(), "an item");
    }

    #[test]
    fn every_carrier_has_one_number() {
        for carrier in Carrier::ALL {
            assert_eq!(Carrier::from_wire(carrier.wire()), Some(carrier));
        }
        assert_eq!(Carrier::from_wire(0), None);
    }
}
