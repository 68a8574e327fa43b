//! What Waspmote and Plug & Sense! nodes put on the wire: read and written, byte for byte. No I/O, no clock.
//!
//! [`Frame::parse`] takes any bytes and says what they are, or refuses them with one named reason. Fields are read with a
//! table of [`Sensors`], because a binary frame does not say how long a field is. Encrypted frames are AES in ECB, without
//! an integrity code: [`Encrypted::open`] believes nothing that the inner frame does not show, and cannot prove more.
//!
//! The crate knows nothing of Fivefold; it is of use to whoever must read such a frame.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

extern crate alloc;

mod builder;
pub mod cipher;
mod encrypted;
mod field;
mod fragment;
mod frame;
pub mod hardened;
pub mod hash;
mod key;
pub mod key_message;
mod kind;
mod refused;
#[cfg(not(target_pointer_width = "16"))]
pub mod rsa;
mod sensors;
mod serial;
mod stamp;
mod text;
mod time;
mod tiny;
pub mod xbee;

pub use builder::{Builder, MOST_FIELDS, NotAdded, Sender};
pub use encrypted::{Destination, Encrypted, EncryptedType, Inner, LONGEST_INNER};
pub use field::{Entry, Field, FieldFault, Fields, RefusedField, Rest, Value, Values, ValuesIter};
pub use fragment::{Joined, Joint, LONGEST_FRAGMENT, Pieces, fragments, tiny_frames};
pub use frame::{Clear, Decoded, Frame, OverTheAir, Reading};
pub use key::{ClassicKey, KeyBits, KeyRefused, Weak};
pub use kind::{Encoding, FrameType};
pub use refused::Refused;
pub use sensors::{Kind, Sensor, SensorRefused, Sensors, Table};
pub use serial::{Generation, Serial, SerialOrder, SerialRefused};
pub use stamp::{Stamp, stamped};
pub use text::Text;
pub use time::{TIME_REQUEST, time_reply};
pub use tiny::{LONGEST_TINY, Tiny};
