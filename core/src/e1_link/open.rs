//! CCM* over a frame or an E1S message, without any state: nonce, additional data, MIC.

use crate::error::{Code, Rejected, SealError};
use crate::id::Did;
use crate::suite::{LinkSchedule, MicLen, NONCE};
use crate::wire::ieee802154::{Address, Frame, Security, SecurityLevel};
use crate::wire::mesh;

/// RuleID of an E1S message.
pub const E1S_RULE: u8 = 0x1F;
/// Bytes before the ciphertext of an E1S message.
pub const E1S_HEADER: usize = 7;

/// Opens a frame without check sequence in place, as a receiver without any state would: form, level and MIC are judged;
/// counter, address and content are not.
///
/// # Errors
/// `E1-01`, `E1-03`, `E1-05`, `E1-11`.
pub fn open_frame<'b>(
    schedule: &LinkSchedule,
    source: Did,
    minimum: SecurityLevel,
    frame: &'b mut [u8],
) -> Result<(Security, &'b mut [u8]), Rejected> {
    let view = Frame::parse(frame)?;
    let security = view.security(minimum)?;
    let header = view.header_len();
    // A frame that names its EUI-64 is opened under that one.
    let source = if let Address::Extended(did) = view.source { did } else { source };
    Ok((security, open_in_place(schedule, source, &security, frame, header)?))
}

/// Opens an E1S message in place, as a receiver without any state would.
///
/// # Errors
/// `E1-03`, `E1-05`, `E1-11`, `T-01`.
pub fn open_e1s<'b>(
    schedule: &LinkSchedule,
    source: Did,
    minimum: SecurityLevel,
    message: &'b mut [u8],
) -> Result<(Security, &'b mut [u8]), Rejected> {
    let security = parse_e1s(message, minimum)?;
    Ok((security, open_in_place(schedule, source, &security, message, E1S_HEADER)?))
}

pub(super) fn parse_e1s(message: &[u8], minimum: SecurityLevel) -> Result<Security, Rejected> {
    const SHORT: Rejected = Rejected::new(Code::LinkMalformed, "shorter than E1S header and MIC");
    let (&rule, rest) = message.split_first().ok_or(SHORT)?;
    if rule != E1S_RULE {
        return Err(Rejected::new(Code::TinyMalformed, "not RuleID 1f"));
    }
    let (head, sealed) = rest.split_first_chunk::<6>().ok_or(SHORT)?;
    let security = Security::parse(*head, minimum)?;
    if sealed.len() < security.level.mic_len() {
        return Err(SHORT);
    }
    Ok(security)
}

pub(super) fn write_e1s_header(out: &mut [u8], security: &Security) -> Result<(), SealError> {
    let (rule, rest) = out.split_first_mut().ok_or(SealError::BufferTooSmall)?;
    *rule = E1S_RULE;
    *rest.first_chunk_mut().ok_or(SealError::BufferTooSmall)? = security.to_bytes();
    Ok(())
}

pub(super) fn write_body(
    out: &mut [u8],
    at: usize,
    mesh: Option<mesh::Header>,
    payload: &[u8],
) -> Result<(), SealError> {
    let mut body = out.get_mut(at..).ok_or(SealError::BufferTooSmall)?;
    if let Some(mesh) = mesh {
        let n = mesh.emit(body)?;
        body = body.get_mut(n..).ok_or(SealError::BufferTooSmall)?;
    }
    body.get_mut(..payload.len()).ok_or(SealError::BufferTooSmall)?.copy_from_slice(payload);
    Ok(())
}

/// Opens `frame[header..]`; what stands before is the additional data.
pub(super) fn open_in_place<'b>(
    schedule: &LinkSchedule,
    source: Did,
    security: &Security,
    frame: &'b mut [u8],
    header: usize,
) -> Result<&'b mut [u8], Rejected> {
    const SHORT: Rejected = Rejected::new(Code::LinkMalformed, "too short for the MIC");
    let (aad, sealed) = frame.split_at_mut_checked(header).ok_or(SHORT)?;
    let body = sealed.len().checked_sub(security.level.mic_len()).ok_or(SHORT)?;
    let (body, mic) = sealed.split_at_mut_checked(body).ok_or(SHORT)?;
    schedule
        .open(&nonce(source, security), aad, body, mic)
        .map_err(|_| Rejected::new(Code::LinkForged, "the MIC does not hold"))?;
    Ok(body)
}

/// Seals `out[header..body_end]`, writes the MIC behind it, and returns where that ends.
pub(super) fn seal_in_place(
    schedule: &LinkSchedule,
    source: Did,
    security: &Security,
    out: &mut [u8],
    header: usize,
    body_end: usize,
) -> Result<usize, SealError> {
    let (aad, rest) = out.split_at_mut_checked(header).ok_or(SealError::BufferTooSmall)?;
    let body = body_end.checked_sub(header).and_then(|n| rest.split_at_mut_checked(n));
    let (body, rest) = body.ok_or(SealError::BufferTooSmall)?;
    let mic_len = security.level.mic_len();
    let slot = rest.get_mut(..mic_len).ok_or(SealError::BufferTooSmall)?;
    let mic = schedule.seal(mic_kind(security.level), &nonce(source, security), aad, body);
    slot.iter_mut().zip(mic).for_each(|(s, m)| *s = m);
    Ok(body_end + mic_len)
}

const fn mic_kind(level: SecurityLevel) -> MicLen {
    match level {
        SecurityLevel::EncMic32 => MicLen::M4,
        SecurityLevel::EncMic64 => MicLen::M8,
    }
}

/// EUI-64 ‖ frame counter (big-endian) ‖ level.
fn nonce(source: Did, security: &Security) -> [u8; NONCE] {
    let Did([e1, e2, e3, e4, e5, e6, e7, e8]) = source;
    let [a, b, c, d] = security.frame_counter.to_be_bytes();
    [e1, e2, e3, e4, e5, e6, e7, e8, a, b, c, d, security.level.number()]
}
