//! No key seals twice under one nonce: what the world of this thread has sealed since it began.

use std::cell::RefCell;
use std::collections::HashSet;

thread_local! {
    static SEALS: RefCell<Seals> = RefCell::default();
}

#[derive(Default)]
struct Seals {
    seen: HashSet<[u8; 32]>,
    repeated: bool,
}

/// To be given to `fivefold_core::suite::set_seal_witness` (feature `witness` of core), once in a process.
pub fn sealed(key_and_nonce: &[u8; 32], _plaintext: &[u8; 32]) {
    SEALS.with_borrow_mut(|seals| seals.repeated |= !seals.seen.insert(*key_and_nonce));
}

/// A world begins.
pub(super) fn begin() {
    SEALS.with_borrow_mut(|seals| *seals = Seals::default());
}

/// Whether a nonce came twice.
pub(super) fn repeated() -> bool {
    SEALS.with_borrow(|seals| seals.repeated)
}

/// Whether anybody told of a seal: false when [`sealed`] was not installed.
pub(super) fn are_watched() -> bool {
    SEALS.with_borrow(|seals| !seals.seen.is_empty())
}
