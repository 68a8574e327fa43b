//! What a frame is, and who it says sent it.

use fivefold_core::error::{Code, Rejected};
use fivefold_core::time::Millis;

use super::roll::Classic;
use super::{Arrival, Finding};

/// What a frame is.
#[expect(dead_code, reason = "made by the crate that knows frames")]
pub(super) enum Seen<'f> {
    /// It names its sender.
    Named(Name, Seal<'f>),
    /// Over-the-air programming (W12).
    OverTheAir,
    /// A request for the time (W11).
    TimeRequest,
    /// A tiny frame (W6): its carrier says who sent it.
    Tiny,
}

/// A serial as it is written.
pub(super) struct Name {
    pub(super) text: Box<str>,
    /// Of v12: with its bytes in the other order (W4).
    pub(super) reversed: Option<Box<str>>,
}

/// What is sealed for the gateway in a frame.
pub(super) struct Seal<'f>(std::marker::PhantomData<&'f ()>);

impl Seal<'_> {
    /// What is inside; `None` where nothing is sealed for the gateway, or it has no key.
    #[expect(clippy::unused_self, reason = "see above")]
    pub(super) fn open(&self, device: &Classic) -> Option<Finding> {
        let _ = &device.key;
        None
    }
}

/// Reads a frame.
///
/// # Errors
/// `CL-01`.
pub(super) fn read<'f>(arrival: &Arrival<'f>) -> Result<Seen<'f>, Rejected> {
    let _ = arrival.frame;
    Err(Rejected::new(Code::ClassicMalformed, "no frame that this gateway reads yet"))
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
