//! Frames of a capture file: pcapng and pcap, of 802.15.4 and of IP. Read totally: what is cut or unknown is left out.

/// Frames of IEEE 802.15.4 with their check sequence, the same without it, and IPv4 or IPv6.
const WITH_FCS: u32 = 195;
const WITHOUT_FCS: u32 = 230;
const RAW_IP: u32 = 101;

const SECTION: u32 = 0x0A0D_0D0A;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const UDP: u8 = 17;

/// What was on the air, and what stood in datagrams, in the order of the file; `None` for a file of another form.
pub(super) fn frames(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    match word(bytes, 0)? {
        SECTION => pcapng(bytes),
        0xA1B2_C3D4 | 0xA1B2_3C4D => pcap(bytes),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn size(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(word(bytes, at)?).ok()
}

fn pcapng(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    // Of the other byte order: no writer that is in use.
    if word(bytes, 8)? != 0x1A2B_3C4D {
        return None;
    }
    let (mut links, mut frames) = (Vec::new(), Vec::new());
    while let (Some(kind), Some(length)) = (word(bytes, 0), size(bytes, 4)) {
        // Every block has its type and its length twice.
        let (Some(block), Some(rest)) = (bytes.get(..length), bytes.get(length.max(12)..)) else { break };
        match kind {
            SECTION => links.clear(),
            INTERFACE => links.push(word(block, 8)? & 0xFFFF),
            PACKET => {
                let link = size(block, 8).and_then(|at| links.get(at)).copied();
                let packet = size(block, 20).and_then(|n| block.get(28..)?.get(..n));
                frames.extend(link.zip(packet).and_then(|(link, packet)| frame(link, packet)));
            }
            _ => {}
        }
        bytes = rest;
    }
    Some(frames)
}

fn pcap(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let link = word(bytes, 20)? & 0xFFFF;
    let (mut rest, mut frames) = (bytes.get(24..)?, Vec::new());
    while let Some(packet) = size(rest, 8).and_then(|n| rest.get(16..)?.get(..n)) {
        frames.extend(frame(link, packet));
        rest = rest.get(16 + packet.len()..).unwrap_or_default();
    }
    Some(frames)
}

fn frame(link: u32, packet: &[u8]) -> Option<Vec<u8>> {
    match link {
        WITH_FCS | WITHOUT_FCS => Some(packet.to_vec()),
        RAW_IP => {
            let datagram = match packet.first()? >> 4 {
                4 if packet.get(9) == Some(&UDP) => packet.get(usize::from(packet.first()? & 0x0F) * 4..),
                6 if packet.get(6) == Some(&UDP) => packet.get(40..),
                _ => None,
            };
            Some(datagram?.get(8..)?.to_vec())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use fivefold_gateway::pcap::{Capture, PROXY};

    use super::*;

    fn sample() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut capture = Capture::start(&mut bytes).unwrap();
        capture.frame(Duration::ZERO, b"a frame").unwrap();
        for from in ["127.0.0.1:40000", "[::1]:40000"] {
            capture.coap(Duration::ZERO, from.parse::<SocketAddr>().unwrap(), PROXY, b"a message").unwrap();
        }
        bytes
    }

    #[test]
    fn a_gateways_capture_gives_its_frames_and_messages_up_to_where_it_is_cut() {
        let bytes = sample();
        assert_eq!(frames(&bytes).unwrap(), [b"a frame".to_vec(), b"a message".to_vec(), b"a message".to_vec()]);
        for cut in 12..bytes.len() {
            let found = frames(&bytes[..cut]).unwrap();
            assert!(found.len() < 3 && found.first().is_none_or(|f| f == b"a frame"), "{cut}");
        }
        for cut in 0..12 {
            assert_eq!(frames(&bytes[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn any_byte_changed_is_read_to_its_end() {
        let bytes = sample();
        for at in 0..bytes.len() {
            for change in [0x01, 0x80, 0xFF] {
                let mut other = bytes.clone();
                other[at] ^= change;
                let _ = frames(&other);
            }
        }
        assert_eq!(frames(b"no capture at all"), None);
    }

    #[test]
    fn the_older_form_is_read_too() {
        let mut bytes = vec![0xD4, 0xC3, 0xB2, 0xA1, 2, 0, 4, 0];
        bytes.extend([0; 8]);
        bytes.extend([0xFF, 0xFF, 0, 0, 195, 0, 0, 0]);
        bytes.extend([0; 8]);
        bytes.extend([3, 0, 0, 0, 3, 0, 0, 0]);
        bytes.extend(b"abc");
        assert_eq!(frames(&bytes).unwrap(), [b"abc".to_vec()]);
    }
}
