//! What a node that asks for the time is told (W11), and the calendar that it needs.

use alloc::format;
use alloc::vec::Vec;

/// What a node that wants to know the time sends: the same from every node.
pub const TIME_REQUEST: [u8; 24] = *b"<=>\x9b\x00#387264539#node1#0#";

/// The answer: `YYYYMMDDhhmmss+hhmm`, without delimiter and end. Nothing proves it to the node, which reads the offset and
/// sets its clock to what stands before it.
///
/// `unix` is in seconds since 1970, `offset` in minutes east of Greenwich. `None` for years that have no four digits.
pub fn time_reply(unix: i64, offset: i16) -> Option<Vec<u8>> {
    let local = unix.checked_add(i64::from(offset) * 60)?;
    let Moment { year, month, day, hour, minute, second } = Moment::of_unix(local);
    if !(0..=9999).contains(&year) {
        return None;
    }
    let (sign, east) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs());
    let text =
        format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}{sign}{:02}{:02}", east / 60, east % 60);
    (text.len() == 19).then(|| text.into_bytes())
}

/// A second of UTC in the calendar that everybody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The year; 0 is the one before 1.
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
    /// 0 to 23.
    pub hour: i64,
    /// 0 to 59.
    pub minute: i64,
    /// 0 to 59.
    pub second: i64,
}

impl Moment {
    /// Of seconds since 1970.
    pub const fn of_unix(unix: i64) -> Self {
        let (days, second) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
        // Years begin in March here, in eras of 400, so that the day that some of them have more comes last.
        let days = days + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Self {
            year: year_of_era + era * 400 + if month <= 2 { 1 } else { 0 },
            month,
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
            hour: second / 3600,
            minute: second / 60 % 60,
            second: second % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_told_in_19_characters() {
        let told = |unix, offset| alloc::string::String::from_utf8(time_reply(unix, offset).unwrap()).unwrap();
        assert_eq!(told(0, 0), "19700101000000+0000");
        assert_eq!(told(951_782_399, 0), "20000228235959+0000");
        assert_eq!(told(951_782_400, 0), "20000229000000+0000");
        assert_eq!(told(1_795_658_400, 60), "20261126030000+0100");
        assert_eq!(told(1_795_658_400, -210), "20261125223000-0330");
        assert_eq!(time_reply(i64::MAX, 0), None);
        assert_eq!(time_reply(253_402_300_800, 0), None);
    }

    #[test]
    fn a_moment_is_right_at_the_ends_of_years_and_before_1970() {
        let date = |unix| {
            let m = Moment::of_unix(unix);
            (m.year, m.month, m.day, m.hour, m.minute, m.second)
        };
        assert_eq!(date(-1), (1969, 12, 31, 23, 59, 59));
        assert_eq!(date(-62_135_596_801), (0, 12, 31, 23, 59, 59));
        assert_eq!(date(4_107_542_400), (2100, 3, 1, 0, 0, 0));
        assert_eq!(date(4_107_542_399), (2100, 2, 28, 23, 59, 59));
    }
}
