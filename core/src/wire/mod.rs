//! Byte layouts. No keys here: what is parsed is checked for shape and believed in nothing.

pub mod base45;
pub mod cbor;
pub mod classic;
pub mod classic_signature;
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

/// A limit in bytes, as far as the processor can address it: nodes of 16 bits make key messages by this crate, and compile
/// the limits of gateways and clouds along.
pub(crate) const fn addressable(bytes: u32) -> usize {
    if usize::BITS < u32::BITS && bytes > u16::MAX as u32 { usize::MAX } else { bytes as usize }
}
