//! Proof of readings to strangers, offline and years later.
//!
//! The first half is the transparency log: a tree of hashes over the deployment's events in the layout and the words of
//! C2SP, signed by its operator, cosigned by witnesses, watched by monitors. The second half is the bundle: one reading
//! with everything that a stranger needs, and the steps that lead to a verdict about it.
//!
//! [`note`] is signed text, [`checkpoint`] what a log signs of its tree, [`cosignature`] what witnesses say of it,
//! [`tile`] the tree as static files, [`tlog_proof`] the proof that an entry is in it; [`log`] keeps one in a folder,
//! [`witness`] cosigns other people's, [`monitor`] watches one from outside.
//!
//! [`record`] is what stands behind the log's entries, [`bundle`] the file, [`trust`] what a stranger believes beforehand,
//! [`verify`] the steps, with [`chain`] and [`timestamp`]; [`words`] says the answer to a person.
//!
//! Nothing here has a socket or a clock: bytes and times come in as arguments. The directory of a log and the state of a
//! witness are files.
//!
//! Spec: docs/protocol.md 13.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod bundle;
pub mod chain;
pub mod checkpoint;
pub mod cosignature;
pub mod deeds;
mod der;
pub mod log;
mod logged;
pub mod monitor;
pub mod note;
pub mod record;
pub mod tile;
pub mod timestamp;
pub mod tlog_proof;
pub mod trust;
pub mod verify;
pub mod witness;
pub mod words;
