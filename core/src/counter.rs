//! Sender numbers that never repeat: a [`Lease`] is durable before it is used (docs/protocol.md 8.2, W1).

use crate::error::LeaseSpent;

/// A sender number that was taken from a lease. It can be used for one seal: it is neither `Copy` nor `Clone`.
#[derive(Debug, PartialEq, Eq)]
pub struct Counter(u32);

impl Counter {
    /// The number.
    pub const fn value(&self) -> u32 {
        self.0
    }
}

/// The numbers that may be used before the next durable write: `next..bound`.
///
/// A lease starts spent. The caller makes a greater bound durable ([`Lease::proposal`]), then calls
/// [`Lease::extend`]. After a restart it resumes at the stored bound: numbers are skipped, never repeated.
///
/// ```
/// use fivefold_core::counter::Lease;
/// let mut lease = Lease::resume(128, 1 << 20);          // 128 was read from flash
/// assert!(lease.take().is_err());                       // nothing is leased yet
/// let bound = lease.proposal(64).unwrap();              // write 192 to flash ...
/// lease.extend(bound);                                  // ... and only then go on
/// assert_eq!(lease.take().unwrap().value(), 128);
/// ```
///
/// A number cannot be used twice:
/// ```compile_fail,E0382
/// # use fivefold_core::counter::{Counter, Lease};
/// fn seal(_: Counter) {}
/// let mut lease = Lease::resume(0, 10);
/// lease.extend(5);
/// let n = lease.take().unwrap();
/// seal(n);
/// seal(n);
/// ```
#[derive(Debug)]
pub struct Lease {
    next: u32,
    bound: u32,
    limit: u32,
}

impl Lease {
    /// A spent lease that goes on at `durable_bound`, the last bound that was made durable (0 for a new key).
    /// No number at or above `limit` is ever taken.
    pub const fn resume(durable_bound: u32, limit: u32) -> Self {
        Self { next: durable_bound, bound: durable_bound, limit }
    }

    /// The number that the next [`Lease::take`] gives, if any is left.
    pub const fn next(&self) -> u32 {
        self.next
    }

    /// The durable bound: every number taken so far is below it.
    pub const fn bound(&self) -> u32 {
        self.bound
    }

    /// Numbers left before another durable write is needed.
    pub const fn left(&self) -> u32 {
        self.bound.saturating_sub(self.next)
    }

    /// The bound to make durable next: `block` numbers more. `None` when the limit is reached.
    pub fn proposal(&self, block: u32) -> Option<u32> {
        let bound = self.bound.saturating_add(block).min(self.limit);
        (bound > self.bound).then_some(bound)
    }

    /// Takes note that `durable_bound` is durable. A bound below the present one changes nothing.
    pub fn extend(&mut self, durable_bound: u32) {
        self.bound = self.bound.max(durable_bound.min(self.limit));
    }

    /// The next number.
    ///
    /// # Errors
    /// [`LeaseSpent`] when a durable write has to come first, or the limit is reached.
    pub fn take(&mut self) -> Result<Counter, LeaseSpent> {
        if self.next >= self.bound {
            return Err(LeaseSpent);
        }
        let n = self.next;
        self.next += 1;
        Ok(Counter(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_lease_gives_nothing() {
        assert_eq!(Lease::resume(0, 100).take(), Err(LeaseSpent));
    }

    #[test]
    fn a_lease_ends_rather_than_wraps() {
        let mut lease = Lease::resume(u32::MAX - 2, u32::MAX);
        let bound = lease.proposal(1024).unwrap();
        lease.extend(bound);
        assert_eq!(lease.take().unwrap().value(), u32::MAX - 2);
        assert_eq!(lease.take().unwrap().value(), u32::MAX - 1);
        assert_eq!(lease.take(), Err(LeaseSpent));
        assert_eq!(lease.proposal(1024), None);
    }

    #[test]
    fn a_restart_skips_what_was_leased() {
        let mut lease = Lease::resume(0, 1000);
        lease.extend(64);
        let used = lease.take().unwrap().value();
        let mut after = Lease::resume(lease.bound(), 1000);
        after.extend(128);
        assert!(after.take().unwrap().value() > used);
        assert_eq!(after.next(), 65);
    }

    #[test]
    fn a_lower_bound_takes_nothing_back() {
        let mut lease = Lease::resume(0, 1000);
        lease.extend(64);
        lease.extend(10);
        assert_eq!(lease.left(), 64);
    }
}
