//! Numbers that are durable before they are used.

/// Numbers of a node, in blocks: `end` is in its EEPROM before any number below it is used, so that no loss of power makes
/// one be used again. A node that boots goes on at the stored end.
#[derive(Debug, PartialEq, Eq)]
pub struct Lease {
    next: u32,
    end: u32,
}

/// All leased numbers are used: lease more first. After the last number of all, a new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseSpent;

impl Lease {
    /// Numbers of a block: a cell of EEPROM that lasts 100,000 writes lasts 6.4 million frames.
    pub const BLOCK: u32 = 64;

    /// After a boot, with the end that was stored, 0 if none was. Nothing is leased yet.
    pub const fn boot(stored_end: u32) -> Self {
        Self { next: stored_end, end: stored_end }
    }

    /// The end to store now, if the lease is spent; then [`extend`](Self::extend). `None` also when no number is left.
    pub const fn due(&self) -> Option<u32> {
        if self.next < self.end || self.end == u32::MAX { None } else { Some(self.end.saturating_add(Self::BLOCK)) }
    }

    /// The end was stored and read back. An earlier one changes nothing.
    pub const fn extend(&mut self, stored_end: u32) {
        if stored_end > self.end {
            self.end = stored_end;
        }
    }

    /// The next number, once. It never wraps.
    ///
    /// # Errors
    /// [`LeaseSpent`].
    pub const fn take(&mut self) -> Result<u32, LeaseSpent> {
        if self.next >= self.end {
            return Err(LeaseSpent);
        }
        let taken = self.next;
        self.next += 1;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_comes_before_its_end_was_stored_or_again_after_a_boot() {
        let mut lease = Lease::boot(0);
        assert_eq!(lease.take(), Err(LeaseSpent));
        assert_eq!(lease.due(), Some(64));
        lease.extend(64);
        assert_eq!(lease.due(), None);
        assert_eq!((0..64).map(|_| lease.take().unwrap()).last(), Some(63));
        assert_eq!((lease.take(), lease.due()), (Err(LeaseSpent), Some(128)));
        let mut lease = Lease::boot(64);
        lease.extend(lease.due().unwrap());
        assert_eq!(lease.take(), Ok(64));
        lease.extend(3);
        assert_eq!(lease.take(), Ok(65));
    }

    #[test]
    fn a_lease_ends_rather_than_wraps() {
        let mut lease = Lease::boot(u32::MAX - 2);
        lease.extend(lease.due().unwrap());
        assert_eq!((lease.take(), lease.take()), (Ok(u32::MAX - 2), Ok(u32::MAX - 1)));
        assert_eq!((lease.take(), lease.due()), (Err(LeaseSpent), None));
    }
}
