//! What Waspmote and Plug & Sense! nodes put on the wire: read and written, byte for byte. No I/O, no clock.
//!
//! [`Frame::parse`] takes any bytes and says what they are, or refuses them with one named reason. Fields are read with a
//! table of [`Sensors`], because a binary frame does not say how long a field is. Encrypted frames are AES in ECB, without
//! an integrity code: [`Encrypted::open`] believes nothing that the inner frame does not show, and cannot prove more.
//!
//! ```
//! use fivefold_waspmote::{ClassicKey, Frame, KeyBits, Sensors};
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let bytes = [
//!     0x3c, 0x3d, 0x3e, 0x60, 0x28, 0x69, 0x0c, 0x9e, 0x3e, 0x20, 0x30, 0xa4, 0xec, // <=>, type, N, serial
//! #   0xa5, 0x1f, 0x12, 0x5c, 0x5d, 0x3c, 0x35, 0xd8, 0x5d, 0x1e, 0x6e, 0x4d, 0x03, 0x0b, 0x53, 0x90,
//! #   0x1d, 0x5e, 0x1a, 0xa9, 0x51, 0x3d, 0x1d, 0x50, 0x5e, 0x73, 0x4d, 0x19, 0x52, 0x3c, 0x6d, 0x77,
//!     // and 32 bytes of ciphertext
//! ];
//! let Frame::Encrypted(outer) = Frame::parse(&bytes)? else { panic!("type 0x60 is encrypted") };
//! assert_eq!(outer.serial.to_string(), "690c9e3e2030a4ec");
//! let key = ClassicKey::from_text(b"not this one", KeyBits::Aes256)?;
//! match outer.open(&key) {
//!     Ok(inner) => {
//!         let frame = inner.clear();
//!         let sensors = Sensors::of(frame.table());
//!         for field in frame.decode(&sensors)?.fields {
//!             println!("{}: {:?}", field.tag, field.values.iter().collect::<Vec<_>>());
//!         }
//!     }
//!     Err(refused) => println!("{refused}"),
//! }
//! # Ok(())
//! # }
//! ```
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
pub use frame::{Clear, Decoded, Frame, OverTheAir, Reading, Software};
pub use key::{ClassicKey, KeyBits, KeyRefused, Weak};
pub use kind::{Encoding, FrameType};
pub use refused::Refused;
pub use sensors::{Kind, Sensor, SensorRefused, Sensors, Table};
pub use serial::{Generation, Serial, SerialOrder, SerialRefused};
pub use stamp::{Stamp, stamped};
pub use text::Text;
pub use time::{Moment, TIME_REQUEST, time_reply};
pub use tiny::{LONGEST_TINY, Tiny};
