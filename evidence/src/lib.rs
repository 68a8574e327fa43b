//! Proof of readings to strangers, offline and years later.
//!
//! The first half is the transparency log: a tree of hashes over the deployment's events in the layout and the words of
//! C2SP, signed by its operator, cosigned by witnesses, watched by monitors. The second half is the bundle: one reading
//! with everything that a stranger needs, and the steps that lead to a verdict about it.
//!
//! Nothing here has a socket or a clock: bytes and times come in as arguments. The directory of a log and the state of a
//! witness are files.
//!
//! Spec: docs/protocol.md 13.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]
