//! What a frame is, and who it says sent it.

use fivefold_core::error::{Code, Rejected};
use fivefold_core::time::Millis;
use fivefold_core::wire::classic::Carrier;
use fivefold_waspmote::{Destination, Encrypted, Frame, Generation, Reading, Refused, Serial, Tiny};

use super::roll::{Classic, Roll};
use super::{Arrival, Finding};

/// What a frame is.
pub(super) enum Seen<'f> {
    /// A device that is known.
    Known(usize, Option<Encrypted<'f>>),
    /// Over-the-air programming (W12).
    OverTheAir,
    /// It names a serial that is not known.
    Stranger(Serial),
    /// A request for the time (W11).
    TimeRequest,
    /// A tiny frame (W6): its carrier says who sent it.
    Tiny,
}

const NO_FRAME: Rejected = Rejected::new(Code::ClassicMalformed, "no frame of a Waspmote");
const NOT_OPENED: Rejected = Rejected::new(Code::ClassicForged, "the gateway's key of this serial does not open it");
const FOREIGN: Rejected = Rejected::new(Code::ClassicForeignInner, "the inner frame is of another device");

/// Reads a frame. Nothing in a binary frame of types 1 to 5 says which generation sent it (W2): the one that makes it a
/// device of the book is right.
///
/// # Errors
/// `CL-01`.
pub(super) fn read<'f>(arrival: &Arrival<'f>, roll: &Roll) -> Result<Seen<'f>, Rejected> {
    let guesses = [None, Some(Generation::V15), Some(Generation::V12)];
    let mut stranger = None;
    for generation in guesses {
        let (serial, seal) = match Frame::parse_as(arrival.frame, Reading { generation, ..Reading::default() }) {
            Ok(Frame::TimeRequest) => return Ok(Seen::TimeRequest),
            Ok(Frame::OverTheAir(_)) => return Ok(Seen::OverTheAir),
            Ok(Frame::Clear(clear)) => (clear.serial, None),
            Ok(Frame::Encrypted(sealed)) => (sealed.serial, Some(sealed)),
            Ok(Frame::Hardened(frame) | Frame::KeyMessage(frame)) => (hardened_serial(frame)?, None),
            Ok(_) => return Err(NO_FRAME),
            Err(_) => continue,
        };
        if let Some(at) = roll.find(serial) {
            return Ok(Seen::Known(at, seal));
        }
        stranger = stranger.or(Some(serial));
    }
    match stranger {
        Some(serial) => Ok(Seen::Stranger(serial)),
        // A tiny frame has no delimiter: its first bytes may be anything.
        None if arrival.carrier == Carrier::Lorawan && Tiny::parse(arrival.frame).is_ok() => Ok(Seen::Tiny),
        None => Err(NO_FRAME),
    }
}

/// The serial of a frame of the hardened profile: 8 bytes behind N.
fn hardened_serial(frame: &[u8]) -> Result<Serial, Rejected> {
    frame.get(5..).and_then(<[u8]>::first_chunk).copied().map(Serial::V15).ok_or(NO_FRAME)
}

/// Opens what is sealed for the gateway; `None` where it has no key, or the cloud is meant.
pub(super) fn open(sealed: &Encrypted<'_>, device: &Classic) -> Option<Finding> {
    let key = device.key.as_ref().filter(|_| sealed.destination() == Destination::Gateway)?;
    Some(match sealed.open(key) {
        Ok(inner) => Finding::Inner(inner.bytes().into()),
        Err(Refused::ForeignSerial | Refused::ForeignNodeId) => Finding::Wrong(FOREIGN),
        Err(_) => Finding::Wrong(NOT_OPENED),
    })
}

/// The answer to a time request: `YYYYMMDDhhmmss+hhmm`, in UTC (W11).
pub(super) fn time_answer(now: Millis) -> [u8; 19] {
    let seconds = now.0 / 1000;
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    let text = format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}+0000", of_day / 3600, of_day / 60 % 60, of_day % 60);
    text.as_bytes().try_into().unwrap_or(*b"19700101000000+0000")
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar: years begin in March, in eras of 400.
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let of_years = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * of_years + of_years / 4 - of_years / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = of_years + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_told_as_nodes_read_it() {
        for (unix_s, text) in [
            (0, b"19700101000000+0000"),
            (951_827_696, b"20000229123456+0000"),
            (1_772_323_199, b"20260228235959+0000"),
            (1_772_323_200, b"20260301000000+0000"),
            (4_102_444_799, b"20991231235959+0000"),
        ] {
            assert_eq!(&time_answer(Millis(unix_s * 1000 + 999)), text);
        }
    }
}
