//! LoRaWAN, by the MQTT broker of its network server: ChirpStack v4, or The Things Stack v3.
//!
//! The network server holds the radio's keys; what it says of an uplink is its word, and no more. What a device sent comes
//! out of an [`Uplink`]: a message of the modern suite, whose RuleID is the FPort (docs/protocol.md 6), or a Waspmote frame,
//! whole or tiny. [`event`] and [`command`] are pure; [`session`] keeps a connection to the broker, by way of [`broker`], as
//! [`config`] says.

pub mod broker;
pub mod command;
pub mod config;
pub(crate) mod desk;
pub mod event;
pub mod session;
pub mod uplink;

pub use config::Config;
pub use uplink::{Application, NetworkServer, NoApplication, NoNetworkServer, Uplink};
