//! What orders a device's next run of EDHOC (docs/protocol.md 7.3, item 6), beside the runs themselves.

use fivefold_core::e3_cloud::E3;
use fivefold_core::time::Millis;
use fivefold_keep::registry;

/// An order to renew is not said again for so long, in milliseconds: the device is about it.
const SAY_AGAIN: u64 = 300_000;

/// The cloud's runs with one device.
pub(crate) type Runs = fivefold_keep::runs::Runs<E3>;

/// Of one device.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    ordered: Option<Millis>,
    said: Option<Millis>,
    /// When it was counted as overdue last.
    pub(crate) overdue: Option<Millis>,
}

impl Orders {
    /// What the book says.
    pub(crate) fn noted(&mut self, renewal: &registry::Renewal) {
        self.ordered = renewal.ordered_until();
    }

    /// When the operator ordered the device to renew.
    pub(crate) const fn ordered(&self) -> Option<Millis> {
        self.ordered
    }

    /// Whether an order may be said now. Lost ones are said again, later; or at once, when the operator orders it again.
    pub(crate) fn may_say(&self, now: Millis) -> bool {
        let again = |at| self.ordered().is_some_and(|ordered| ordered > at);
        self.said.is_none_or(|at| now.since(at) >= SAY_AGAIN || again(at))
    }

    pub(crate) fn say(&mut self, now: Millis) {
        self.said = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_said_again_only_after_a_while() {
        let mut orders = Orders::default();
        assert!(orders.may_say(Millis(0)));
        orders.say(Millis(10));
        assert!(!orders.may_say(Millis(300_009)) && orders.may_say(Millis(300_010)));
    }
}
