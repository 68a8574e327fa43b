//! Secrets at rest and the E4 channel: what a gateway, the cloud and the command need from files and TLS.
//!
//! [`vault`] wraps secrets under a passphrase file, [`files`] writes them so that a crash or a neighbour does no harm,
//! [`registry`] is the operator's book, [`rotation`] how a network's key is changed, [`share`] is what each party is handed of
//! it, [`ca`] issues certificates, [`enrol`] is what a gateway asks for one with, [`imported`] looks at public keys from
//! outside, [`own_sensors`] reads what users added to the sensors of classic nodes, [`templates`] what the columns of rows
//! mean, [`successor`] how a gateway's next one takes the place of the one in use, [`runs`] is what a server of EDHOC keeps
//! of its runs, [`device_key`] is what a device of ours signs with, [`site`] how a gateway without a cloud is told its state,
//! [`backup`] takes a copy of a folder that is in use, [`closed`] tells a database that was
//! closed from one that was interrupted, [`broker`] is the way to an MQTT broker, [`why`] keeps for a while why something was refused.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod acts;
pub mod backup;
pub mod broker;
pub mod ca;
pub mod closed;
pub mod device_key;
pub mod enrol;
pub mod files;
pub mod format;
pub mod imported;
pub mod key_message;
pub mod migrate;
pub mod own_sensors;
pub mod registry;
pub mod rotation;
pub mod runs;
pub mod share;
pub mod sign;
pub mod site;
pub mod successor;
pub mod templates;
pub mod tls;
pub mod vault;
pub mod why;
