//! The command's clock: read here and nowhere else.

use std::time::{SystemTime, UNIX_EPOCH};

/// 2025-01-01: no Fivefold existed before, so an earlier clock is wrong.
const EARLIEST: u64 = 1_735_689_600;

/// Unix seconds.
///
/// # Errors
/// The clock is before 2025: certificates made now would be valid for nobody.
pub fn now() -> anyhow::Result<u64> {
    #[expect(clippy::disallowed_methods, reason = "this is the rim")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    anyhow::ensure!(now >= EARLIEST, "the clock of this machine is before 2025; set it (date -s), then try again");
    Ok(now)
}

/// A time as an argument: a day in UTC (its beginning), or RFC 3339.
///
/// # Errors
/// One sentence.
pub fn parse(text: &str) -> Result<u64, String> {
    let day = |text: &str| text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let time = text.parse::<jiff::Timestamp>().ok().or_else(|| Some(day(text)?.timestamp()));
    let seconds = time.and_then(|time| u64::try_from(time.as_second()).ok());
    seconds.ok_or_else(|| format!("`{text}` is no time; write a day, as in 2026-11-01, or 2026-11-01T08:00:00Z"))
}

/// A time for people: RFC 3339, to the second.
pub fn text(unix_s: u64) -> String {
    i64::try_from(unix_s).ok().and_then(|s| jiff::Timestamp::from_second(s).ok()).map_or("?".into(), |t| t.to_string())
}

/// A time for people, to the minute: `2026-11-25 18:00Z`.
pub fn minute(unix_s: u64) -> String {
    match text(unix_s).get(..16) {
        Some(minute) => format!("{}Z", minute.replace('T', " ")),
        None => "?".into(),
    }
}
