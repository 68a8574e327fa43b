//! The Node and Relay engines of a Fivefold sensor. no_std, no alloc, no I/O.
//!
//! [`Node`] seals readings, holds them until the level that the policy names has confirmed them, renews its keys, and relays
//! for others.
//! [`Relay`] only relays. Both take frames and time, and give out a script of things to do; [`storage`] keeps in two slots
//! what must survive a loss of power.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod boot;
pub mod enrolment;
mod entropy;
pub mod evidence;
pub mod link_keys;
pub mod node;
mod outbox;
mod relay;
pub mod renewal;
pub mod storage;
mod tally;

pub use boot::{BootRefused, Secrets, Settings};
pub use entropy::{ENTROPY, Entropy, Unhealthy};
pub use node::{Event, Node, Output, SendRefused};
pub use outbox::{IN_FLIGHT, Number, Patience};
pub use relay::{Frame, NEIGHBOURS, PARENTS, PAYLOAD, ROUTES, Relay, RelayOutput, Ways};
pub use storage::{Record, Slot, Slots, Storage};
pub use tally::Tally;

/// A radio as the rim sees it: it sends frames with their check sequence, and hands received ones to the engine.
pub trait Radio {
    /// Why a frame could not be sent.
    type Error;

    /// Sends a frame to everybody in reach.
    ///
    /// # Errors
    /// When the radio fails; a frame that is lost on the air is no error.
    fn transmit(&mut self, frame: &[u8]) -> Result<(), Self::Error>;
}
