//! Time comes in as an argument: milliseconds since an epoch that the caller chose and keeps.

/// A point in time, in milliseconds. At the gateway and the cloud it is Unix time, on a node it is uptime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// The point `ms` milliseconds later; the end of time if that cannot be represented.
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds that have passed since `earlier`; 0 if it lies in the future.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
