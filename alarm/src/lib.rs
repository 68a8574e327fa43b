//! When what was counted is an alarm, and what is said of it: without a socket, a clock or a disk.
//!
//! [`Window`] adds up occurrences of one code and says when a step of docs/protocol.md 14 is reached, once. [`Alarm`] is what is
//! said then; its [`AlarmId`] is by which a receiver tells that it has it already. [`Backoff`] says when a sink that was away is
//! tried again. [`webhook`] and [`mail`] are the two forms that are ours.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod alarm;
mod backoff;
pub mod mail;
pub mod webhook;
mod window;

pub use alarm::{Alarm, AlarmId, Cause, Subject};
pub use backoff::{Backoff, LONGEST_PAUSE};
pub use window::Window;
