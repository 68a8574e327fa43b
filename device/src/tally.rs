//! How often something was refused, by code (docs/protocol.md 14).

use fivefold_core::error::{Code, Rejected};

/// One counter for each code.
#[derive(Clone, Debug)]
pub struct Tally {
    counts: [u32; Code::ALL.len()],
}

impl Tally {
    /// All zero.
    pub const fn new() -> Self {
        Self { counts: [0; Code::ALL.len()] }
    }

    /// Counts a refusal.
    pub fn count(&mut self, rejected: Rejected) {
        if let Some(n) = self.counts.get_mut(rejected.code as usize) {
            *n = n.saturating_add(1);
        }
    }

    /// How often a code was counted.
    pub fn of(&self, code: Code) -> u32 {
        self.counts.get(code as usize).copied().unwrap_or_default()
    }

    /// The codes that were counted, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Code, u32)> + '_ {
        Code::ALL.iter().map(|&code| (code, self.of(code))).filter(|&(_, n)| n > 0)
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_counter_of_its_own() {
        let mut tally = Tally::new();
        for (n, &code) in Code::ALL.iter().enumerate() {
            for _ in 0..=n {
                tally.count(Rejected::new(code, ""));
            }
        }
        for (n, &code) in Code::ALL.iter().enumerate() {
            assert_eq!(tally.of(code), n as u32 + 1);
        }
        assert_eq!(tally.iter().count(), Code::ALL.len());
    }
}
