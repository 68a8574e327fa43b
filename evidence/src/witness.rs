//! A witness: cosigns a log's heads if, and only if, each goes on from the one before (C2SP `tlog-witness`).
//!
//! The engine has no socket, file or clock. A request becomes either an answer that refuses, or a [`Pending`]: what is to be
//! made durable. Only [`Witness::cosign`] makes of that a signature, and it must not be called before it is. So a crash
//! between two lines loses an answer and never lets two heads of one size, or a smaller one, be cosigned.
//!
//! [`Store`] is the state as files, for those who have a disk.

mod engine;
mod request;
mod store;

pub use engine::{Answer, Fork, Pending, Witness};
pub use request::{LONGEST_REQUEST, Record, Request};
pub use store::{Store, StoreError};
