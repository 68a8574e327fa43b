//! The timestamp that a node puts into a finished frame, rightly and as it really does (W4).

use alloc::vec::Vec;

use crate::frame::{Clear, LONGEST, TST};
use crate::kind::Encoding;

/// Where the timestamp goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// Behind the header.
    Right,
    /// Where a node puts it: behind the byte after the first `#` from byte 9 on. That is inside its own serial if one of
    /// the serial's last four bytes is 0x23, and such a frame is lost.
    AsNode,
}

/// The frame with the time in seconds since 1970: in front of the fields, or at the end of an ASCII frame. `None` if it
/// would be too long.
pub fn stamped(frame: &Clear<'_>, epoch: u32, stamp: Stamp) -> Option<Vec<u8>> {
    let mut bytes = Vec::from(frame.bytes);
    match frame.encoding {
        Encoding::Ascii => {
            bytes.extend_from_slice(alloc::format!("TST:{epoch}#").as_bytes());
            let count = bytes.get_mut(4)?;
            *count = count.checked_add(1)?;
        }
        Encoding::Binary => {
            let at = match stamp {
                Stamp::Right => bytes.len().checked_sub(frame.payload.len())?,
                Stamp::AsNode => bytes.iter().skip(9).position(|&byte| byte == b'#')?.checked_add(9 + 2)?,
            };
            let tail = bytes.split_off(at.min(bytes.len()));
            bytes.push(TST);
            bytes.extend_from_slice(&epoch.to_le_bytes());
            bytes.extend_from_slice(&tail);
            let n = bytes.get_mut(4)?;
            // Before API v012 it is the number of fields.
            *n = n.checked_add(if frame.count.is_some() { 1 } else { 5 })?;
        }
    }
    (bytes.len() <= LONGEST).then_some(bytes)
}
