//! The only place where the cloud reads a clock.

use std::time::{SystemTime, UNIX_EPOCH};

use fivefold_core::time::Millis;

/// The clock cannot be right: nothing that checks certificates may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system clock says a time before 2025: set it (for example by NTP), then start again")]
pub struct ClockWrong;

/// 1 January 2025.
const EARLIEST: Millis = Millis(1_735_689_600_000);

/// Unix time, as far as the system knows it.
pub fn now() -> Millis {
    #[expect(clippy::disallowed_methods, reason = "the rim reads the clock; engines get it as an argument")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Refuses a time that cannot be.
///
/// # Errors
/// [`ClockWrong`].
pub fn check(now: Millis) -> Result<Millis, ClockWrong> {
    if now < EARLIEST { Err(ClockWrong) } else { Ok(now) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_in_1970_is_refused() {
        assert_eq!(check(Millis(5_000)), Err(ClockWrong));
        assert!(check(Millis(1_790_000_000_000)).is_ok());
    }
}
