//! The record in memory, and what of it is not durable yet.

use fivefold_core::counter::Lease;
use fivefold_core::e1_link::{LeaseWrite, LinkKeys};

use super::{PIV_BLOCK, Record};

/// A lease of sender numbers is extended when fewer than this are left.
const PIV_LOW: u32 = 8;

#[derive(Debug)]
pub(crate) struct Durable {
    record: Record,
    dirty: bool,
    handed_out: bool,
}

impl Durable {
    /// The record is written once at each boot.
    pub(crate) const fn new(record: Record) -> Self {
        Self { record, dirty: true, handed_out: false }
    }

    pub(crate) const fn record(&self) -> &Record {
        &self.record
    }

    /// To change the record: it is written before anything else leaves.
    pub(crate) const fn change(&mut self) -> &mut Record {
        self.dirty = true;
        &mut self.record
    }

    /// The next record to write, if one is due. The next call says that the one before is durable: what was leased in it
    /// can be used from then on.
    pub(crate) fn due(&mut self, mut keys: Option<&mut LinkKeys>, mut piv: Option<&mut Lease>) -> Option<Record> {
        if core::mem::take(&mut self.handed_out) {
            for key in self.record.keys.iter().flatten() {
                if let Some(keys) = &mut keys {
                    keys.extend_lease(LeaseWrite { key_index: key.index, bound: key.bound });
                }
            }
            if let Some(piv) = &mut piv {
                piv.extend(self.record.piv_bound);
            }
        }
        if let Some(keys) = &keys {
            if let Some(write) = keys.lease_due()
                && let Some(key) = self.record.key_mut(write.key_index)
            {
                key.bound = key.bound.max(write.bound);
                self.dirty = true;
            }
            let sending = keys.sending().unwrap_or_default();
            self.dirty |= self.record.sending != sending;
            self.record.sending = sending;
        }
        if let Some(bound) = piv.filter(|p| p.left() < PIV_LOW).and_then(|p| p.proposal(PIV_BLOCK)) {
            self.record.piv_bound = bound;
            self.dirty = true;
        }
        self.handed_out = core::mem::take(&mut self.dirty);
        self.handed_out.then(|| self.record.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fivefold_core::id::Epoch;

    #[test]
    fn a_lease_is_usable_only_after_the_call_that_follows_the_write() {
        let mut durable = Durable::new(Record::new(Epoch(1)));
        let mut piv = Lease::resume(0, 1 << 20);
        let written = durable.due(None, Some(&mut piv)).unwrap();
        assert_eq!((written.piv_bound, piv.left()), (64, 0));
        assert_eq!(durable.due(None, Some(&mut piv)), None);
        assert_eq!(piv.left(), 64);
    }
}
