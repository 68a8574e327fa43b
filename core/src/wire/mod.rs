//! Byte layouts. No keys here: what is parsed is checked for shape and believed in nothing.

pub mod base45;
pub mod cbor;
pub mod classic;
pub mod coap;
pub mod control;
pub mod enrolment;
pub mod envelope;
pub mod event;
pub mod ieee802154;
pub mod key_message;
pub mod mesh;
pub mod serial;
pub mod state;
pub mod tiny;
pub mod zep;
