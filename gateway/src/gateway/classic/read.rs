//! What a frame is, and who it says sent it.

use fivefold_core::error::{Code, Rejected};
use fivefold_core::wire::classic::Carrier;
use fivefold_waspmote::hardened::Peer;
use fivefold_waspmote::{Destination, Encrypted, Frame, Generation, Reading, Refused, Serial, Software, Tiny};

use super::roll::{Classic, Roll};
use super::{Arrival, Finding};

/// What a frame is.
pub(super) enum Seen<'f> {
    /// A device that is known.
    Known(usize, Content<'f>),
    /// Over-the-air programming (W12).
    OverTheAir,
    /// It names a serial that is not known.
    Stranger(Serial),
    /// A request for the time (W11).
    TimeRequest,
    /// A tiny frame (W6): its carrier says who sent it.
    Tiny,
}

/// What is in the frame of a known device.
pub(super) enum Content<'f> {
    /// A frame of the hardened profile for this gateway.
    Hardened,
    /// A part of a key message.
    KeyMessage,
    /// Anything that the gateway only hands on.
    Other,
    /// AES in ECB.
    Sealed(Encrypted<'f>),
}

const NO_FRAME: Rejected = Rejected::new(Code::ClassicMalformed, "no frame of a Waspmote");
const NOT_OPENED: Rejected = Rejected::new(Code::ClassicForged, "the gateway's key of this serial does not open it");
const FOREIGN: Rejected = Rejected::new(Code::ClassicForeignInner, "the inner frame is of another device");

/// Reads a frame. Nothing in a binary frame of types 1 to 5 says which generation sent it (W2): the one that makes it a
/// device of the book is right. Frames from before API v012 are never taken for others, nor others for them: N of a frame is
/// greater than its number of fields.
///
/// # Errors
/// `CL-01`.
pub(super) fn read<'f>(arrival: &Arrival<'f>, roll: &Roll) -> Result<Seen<'f>, Rejected> {
    let now = Reading::default();
    let guesses = [
        now,
        Reading { generation: Some(Generation::V15), ..now },
        Reading { generation: Some(Generation::V12), ..now },
        Reading { software: Software::BeforeV012, ..now },
    ];
    let mut stranger = None;
    for guess in guesses {
        let (serial, content) = match Frame::parse_as(arrival.frame, guess) {
            Ok(Frame::TimeRequest) => return Ok(Seen::TimeRequest),
            Ok(Frame::OverTheAir(_)) => return Ok(Seen::OverTheAir),
            Ok(Frame::Clear(clear)) => (clear.serial, Content::Other),
            Ok(Frame::Encrypted(sealed)) => (sealed.serial, Content::Sealed(sealed)),
            Ok(Frame::Hardened(frame)) if frame.get(3) == Some(&Peer::Gateway.frame_type()) => {
                (hardened_serial(frame)?, Content::Hardened)
            }
            Ok(Frame::Hardened(frame)) => (hardened_serial(frame)?, Content::Other),
            Ok(Frame::KeyMessage(frame)) => (hardened_serial(frame)?, Content::KeyMessage),
            Ok(_) => return Err(NO_FRAME),
            Err(_) => continue,
        };
        if let Some(at) = roll.find(serial) {
            return Ok(Seen::Known(at, content));
        }
        stranger = stranger.or(Some(serial));
    }
    match stranger {
        Some(serial) => Ok(Seen::Stranger(serial)),
        // A tiny frame has no delimiter: its first bytes may be anything.
        None if arrival.carrier == Carrier::Lorawan && Tiny::parse(arrival.frame).is_ok() => Ok(Seen::Tiny),
        None => Err(NO_FRAME),
    }
}

/// The serial of a frame of the hardened profile: 8 bytes behind N.
fn hardened_serial(frame: &[u8]) -> Result<Serial, Rejected> {
    frame.get(5..).and_then(<[u8]>::first_chunk).copied().map(Serial::V15).ok_or(NO_FRAME)
}

/// Opens what is sealed for the gateway; `None` where it has no key, or the cloud is meant.
pub(super) fn open(sealed: &Encrypted<'_>, device: &Classic) -> Option<Finding> {
    let key = device.key.as_ref().filter(|_| sealed.destination() == Destination::Gateway)?;
    Some(match sealed.open(key) {
        Ok(inner) => Finding::Inner(inner.bytes().into()),
        Err(Refused::ForeignSerial | Refused::ForeignNodeId) => Finding::Wrong(FOREIGN),
        Err(_) => Finding::Wrong(NOT_OPENED),
    })
}
