//! What a node that asks for the time is told (W11).

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
    let (days, second) = (local.div_euclid(86_400), local.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    if !(0..=9999).contains(&year) {
        return None;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (sign, east) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs());
    let text =
        format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}{sign}{:02}{:02}", east / 60, east % 60);
    (text.len() == 19).then(|| text.into_bytes())
}

/// Year, month and day of a number of days since 1970, in the calendar that everybody uses.
const fn civil(days: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that the day that some of them have more comes last.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
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
}
