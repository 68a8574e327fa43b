//! Where a request is addressed to, and the frame in its query or its form.

use super::refusal::Refusal;

/// Bytes of a frame, at most: N counts 255, and five bytes stand before what it counts (W4).
pub const LONGEST_FRAME: usize = 260;

/// Where a frame was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `/getpost_frame_parser.php`, as at a Meshlium: open to whoever reaches it.
    Meshlium,
    /// `/hw/ps`, as at the vendor's cloud bridge: with a bearer token.
    Bridge,
}

/// A request's target, as far as it means something here.
pub(super) struct Target {
    pub(super) door: Door,
    pub(super) frame: Result<Box<[u8]>, Refusal>,
}

impl Target {
    pub(super) fn parse(target: &[u8]) -> Result<Self, Refusal> {
        // Clients that were told of a proxy write it whole.
        let target = if starts_with(target, b"http://") || starts_with(target, b"https://") {
            let host = target.iter().position(|b| *b == b':').map_or(0, |at| at + 3);
            let host = target.get(host..).unwrap_or_default();
            host.iter().position(|b| *b == b'/').and_then(|at| host.get(at..)).ok_or(Refusal::Path)?
        } else {
            target
        };
        let target = target.split(|b| *b == b'#').next().unwrap_or_default();
        let query = target.iter().position(|b| *b == b'?');
        let (path, query) = target.split_at(query.unwrap_or(target.len()));
        let root = path.iter().position(|b| *b != b'/').map_or(0, |at| at.saturating_sub(1));
        let door = match path.get(root..).unwrap_or_default() {
            b"/getpost_frame_parser.php" => Door::Meshlium,
            b"/hw/ps" => Door::Bridge,
            _ => return Err(Refusal::Path),
        };
        Ok(Self { door, frame: frame_in(query.get(1..).unwrap_or_default()) })
    }
}

/// Whether bytes begin so, in either case.
pub(super) fn starts_with(bytes: &[u8], start: &[u8]) -> bool {
    bytes.get(..start.len()).is_some_and(|b| b.eq_ignore_ascii_case(start))
}

/// The frame of a form: `a=b&frame=3C3D3E…`.
pub(super) fn frame_in(form: &[u8]) -> Result<Box<[u8]>, Refusal> {
    let mut found = None;
    for pair in form.split(|b| *b == b'&') {
        let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at(at);
        if name.trim_ascii().eq_ignore_ascii_case(b"frame")
            && found.replace(value.get(1..).unwrap_or_default()).is_some()
        {
            return Err(Refusal::TwoFrames);
        }
    }
    unhex(found.ok_or(Refusal::NoFrame)?)
}

/// Bytes of hex digits in either case, which may be percent-encoded; blanks around and between them mean nothing.
fn unhex(text: &[u8]) -> Result<Box<[u8]>, Refusal> {
    let mut frame = Vec::with_capacity((text.len() / 2).min(LONGEST_FRAME));
    let mut high = None;
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        let byte = match byte {
            b'%' => match (rest.next().and_then(digit), rest.next().and_then(digit)) {
                (Some(h), Some(l)) => h << 4 | l,
                _ => return Err(Refusal::NotHex),
            },
            b'+' => b' ',
            byte => byte,
        };
        if byte.is_ascii_whitespace() {
            continue;
        }
        let low = digit(byte).ok_or(Refusal::NotHex)?;
        match high.take() {
            None => high = Some(low),
            Some(high) if frame.len() < LONGEST_FRAME => frame.push(high << 4 | low),
            Some(_) => return Err(Refusal::FrameTooLong),
        }
    }
    if high.is_some() {
        return Err(Refusal::OddHex);
    }
    if frame.is_empty() { Err(Refusal::EmptyFrame) } else { Ok(frame.into()) }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
