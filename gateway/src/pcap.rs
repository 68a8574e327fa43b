//! Capture files: what a gateway heard, as Wireshark reads it.
//!
//! A pcapng file with two interfaces: 802.15.4 frames with their check sequence, and IP, which holds the CoAP of IP
//! devices and the CoAP messages that tiny frames expand to. The latter never travelled as IP: [`tiny_endpoint`] and
//! [`PROXY`] are made up, so that a reader can follow who spoke to whom. Times are given by the caller.
//!
//! Frames go in as they came off the radio, sealed; the file holds no key. It still tells who spoke when.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use fivefold_core::id::Sid;

/// UDP port of CoAP (RFC 7252 6.1).
pub const COAP_PORT: u16 = 5683;
/// Where expanded tiny frames are said to go to and answers to come from.
pub const PROXY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 255, 255, 254), COAP_PORT));

/// The address that stands for a node of the radio: 10.0 and the two bytes of its sid.
#[must_use]
pub fn tiny_endpoint(sid: Sid) -> SocketAddr {
    let [hi, lo] = sid.to_bytes();
    SocketAddr::from((Ipv4Addr::new(10, 0, hi, lo), COAP_PORT))
}

/// Writes one capture file.
#[derive(Debug)]
pub struct Capture<W: Write> {
    out: W,
    identification: u16,
}

impl Capture<BufWriter<File>> {
    /// Makes the file, replacing one of the same name.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(path: &Path) -> io::Result<Self> {
        Self::start(BufWriter::new(File::create(path)?))
    }
}

impl<W: Write> Capture<W> {
    /// Writes the section header and describes both interfaces.
    ///
    /// # Errors
    /// What the sink says.
    pub fn start(mut out: W) -> io::Result<Self> {
        out.write_all(&preamble())?;
        out.flush()?;
        Ok(Self { out, identification: 0 })
    }

    /// Adds a frame of the radio, check sequence included. `at` is the time since 1970.
    ///
    /// # Errors
    /// What the sink says.
    pub fn frame(&mut self, at: Duration, frame: &[u8]) -> io::Result<()> {
        self.record(Interface::Radio, at, frame)
    }

    /// Adds a CoAP message as a UDP datagram in IPv4, or in IPv6 if either side is one of IPv6.
    ///
    /// # Errors
    /// `InvalidInput` for a message that fits no datagram; else what the sink says.
    pub fn coap(&mut self, at: Duration, from: SocketAddr, to: SocketAddr, message: &[u8]) -> io::Result<()> {
        self.identification = self.identification.wrapping_add(1);
        let packet = datagram(self.identification, from, to, message)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is too long for a UDP datagram"))?;
        self.record(Interface::Ip, at, &packet)
    }

    fn record(&mut self, interface: Interface, at: Duration, bytes: &[u8]) -> io::Result<()> {
        let stamp = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        self.out.write_all(&packet_block(interface as u32, stamp, bytes))?;
        self.out.flush()
    }
}

/// Puts captures of this writer together, in the order of their times. A file that ends in the middle of a packet, as
/// after a kill, counts up to there. Returns the number of packets.
///
/// # Errors
/// `InvalidData` for a file that this writer did not make; else what the file system says.
pub fn merge(inputs: &[impl AsRef<Path>], output: &Path) -> io::Result<usize> {
    let mut packets = Vec::new();
    for path in inputs {
        let path = path.as_ref();
        let bytes = std::fs::read(path)?;
        packets.extend(read(&bytes).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} is no capture of a gateway", path.display()))
        })?);
    }
    packets.sort_by_key(|p| p.stamp);
    let mut out = BufWriter::new(File::create(output)?);
    out.write_all(&preamble())?;
    for p in &packets {
        out.write_all(&packet_block(p.interface, p.stamp, &p.bytes))?;
    }
    out.flush()?;
    Ok(packets.len())
}

#[derive(Clone, Copy)]
enum Interface {
    Radio = 0,
    Ip = 1,
}

struct Packet {
    interface: u32,
    stamp: u64,
    bytes: Vec<u8>,
}

/// Frames with the 16-bit check sequence at the end.
const LINKTYPE_IEEE802_15_4_WITHFCS: u16 = 195;
/// IPv4 or IPv6, told apart by the first four bits.
const LINKTYPE_RAW: u16 = 101;

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1A2B_3C4D;
const OPTION_NAME: u16 = 2;

/// A pcapng block: type, length, body padded to four bytes, length again.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let length = u32::try_from(padded + 12).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = Vec::with_capacity(padded + 12);
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&length);
    out.extend_from_slice(body);
    out.resize(padded + 8, 0);
    out.extend_from_slice(&length);
    out
}

fn preamble() -> Vec<u8> {
    let mut section = Vec::new();
    section.extend_from_slice(&BYTE_ORDER.to_le_bytes());
    section.extend_from_slice(&1u16.to_le_bytes()); // version 1.0
    section.extend_from_slice(&0u16.to_le_bytes());
    section.extend_from_slice(&u64::MAX.to_le_bytes()); // length of the section: not known
    let mut out = block(SECTION_HEADER, &section);
    for (link, name) in [(LINKTYPE_IEEE802_15_4_WITHFCS, *b"radio\0\0\0"), (LINKTYPE_RAW, *b"coap\0\0\0\0")] {
        let mut body = Vec::new();
        body.extend_from_slice(&link.to_le_bytes());
        body.extend_from_slice(&0u16.to_le_bytes());
        body.extend_from_slice(&0u32.to_le_bytes()); // no snap length
        let len: u16 = name.iter().map(|&b| u16::from(b != 0)).sum();
        body.extend_from_slice(&OPTION_NAME.to_le_bytes());
        body.extend_from_slice(&len.to_le_bytes());
        body.extend_from_slice(name.get(..usize::from(len).next_multiple_of(4)).unwrap_or(&name));
        body.extend_from_slice(&[0; 4]); // end of options
        out.extend_from_slice(&block(INTERFACE_DESCRIPTION, &body));
    }
    out
}

fn packet_block(interface: u32, stamp: u64, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut body = Vec::with_capacity(bytes.len() + 20);
    body.extend_from_slice(&interface.to_le_bytes());
    let [s7, s6, s5, s4, s3, s2, s1, s0] = stamp.to_be_bytes();
    body.extend_from_slice(&[s4, s5, s6, s7]); // upper half first, each half little-endian
    body.extend_from_slice(&[s0, s1, s2, s3]);
    body.extend_from_slice(&length);
    body.extend_from_slice(&length);
    body.extend_from_slice(bytes);
    block(ENHANCED_PACKET, &body)
}

fn read(mut bytes: &[u8]) -> Option<Vec<Packet>> {
    bytes = bytes.strip_prefix(preamble().as_slice())?;
    let mut packets = Vec::new();
    while let Some((packet, rest)) = read_packet(bytes) {
        packets.push(packet?);
        bytes = rest;
    }
    Some(packets)
}

/// The next block and what follows it; nothing at the end or when the last block is cut short. A block that is none of
/// ours is `Some((None, ..))`.
fn read_packet(bytes: &[u8]) -> Option<(Option<Packet>, &[u8])> {
    let word = |bytes: &[u8], at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let kind = word(bytes, 0)?;
    let length = usize::try_from(word(bytes, 4)?).ok()?;
    let whole = bytes.get(..length)?;
    let rest = bytes.get(length..)?;
    let packet = (|| {
        let captured = usize::try_from(word(whole, 20)?).ok()?;
        (kind == ENHANCED_PACKET).then_some(())?;
        Some(Packet {
            interface: word(whole, 8)?,
            stamp: u64::from(word(whole, 12)?) << 32 | u64::from(word(whole, 16)?),
            bytes: whole.get(28..)?.get(..captured)?.to_vec(),
        })
    })();
    Some((packet, rest))
}

const UDP: u8 = 17;

fn datagram(identification: u16, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(payload.len() + 8).ok()?;
    let total = length.checked_add(20)?;
    let mut udp = Vec::with_capacity(usize::from(length));
    udp.extend_from_slice(&from.port().to_be_bytes());
    udp.extend_from_slice(&to.port().to_be_bytes());
    udp.extend_from_slice(&length.to_be_bytes());
    udp.extend_from_slice(&[0; 2]);
    udp.extend_from_slice(payload);

    let (mut packet, pseudo) = match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, 0];
            header.extend_from_slice(&total.to_be_bytes());
            header.extend_from_slice(&identification.to_be_bytes());
            header.extend_from_slice(&[0x40, 0, 64, UDP, 0, 0]); // do not fragment, 64 hops
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
            let sum = checksum(&[&header]);
            header.splice(10..12, sum.to_be_bytes());
            let mut pseudo = source.octets().to_vec();
            pseudo.extend_from_slice(&destination.octets());
            (header, pseudo)
        }
        (source, destination) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => Ipv6Addr::octets(&v6),
            };
            let mut header = vec![0x60, 0, 0, 0];
            header.extend_from_slice(&length.to_be_bytes());
            header.extend_from_slice(&[UDP, 64]);
            header.extend_from_slice(&octets(source));
            header.extend_from_slice(&octets(destination));
            let mut pseudo = octets(source).to_vec();
            pseudo.extend_from_slice(&octets(destination));
            (header, pseudo)
        }
    };
    let sum = match checksum(&[&pseudo, &[0, UDP], &length.to_be_bytes(), &udp]) {
        0 => 0xFFFF, // RFC 768: 0 would say "no checksum"
        sum => sum,
    };
    udp.splice(6..8, sum.to_be_bytes());
    packet.extend_from_slice(&udp);
    Some(packet)
}

/// The Internet checksum (RFC 1071). All parts but the last are of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for pair in parts.iter().flat_map(|p| p.chunks(2)) {
        let word = match *pair {
            [hi, lo] => u16::from_be_bytes([hi, lo]),
            [hi] => u16::from_be_bytes([hi, 0]),
            _ => 0,
        };
        sum += u32::from(word);
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn sample(stamps: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut capture = Capture::start(&mut bytes).unwrap();
        for &t in stamps {
            capture.frame(at(t), &[0x49, 0x98, t as u8]).unwrap();
            capture.coap(at(t), tiny_endpoint(Sid(0x0A17)), PROXY, &[0x50, 2, 1]).unwrap();
        }
        bytes
    }

    #[test]
    fn checksums_of_ipv4_and_udp_are_those_of_the_rfc() {
        // A receiver adds everything up, checksum included, and must get all ones.
        for payload in [&[][..], &[1], &[1, 2, 3, 4], &[0xFF; 61]] {
            let from = SocketAddr::from(([127, 0, 0, 1], 40000));
            let packet = datagram(7, from, PROXY, payload).unwrap();
            assert_eq!(checksum(&[&packet[..20]]), 0);
            assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
            assert_eq!(checksum(&[&packet[12..20], &[0, UDP], &packet[24..26], &packet[20..]]), 0);
        }
        // RFC 1071 section 3: the sum of its example is DDF2, so its checksum is the complement.
        assert_eq!(checksum(&[&[0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7]]), !0xDDF2);
    }

    #[test]
    fn ipv6_is_written_when_a_side_speaks_it() {
        let from: SocketAddr = "[::1]:5000".parse().unwrap();
        let packet = datagram(1, from, "[::1]:5683".parse().unwrap(), b"abc").unwrap();
        assert_eq!(packet[0] >> 4, 6);
        assert_eq!(packet.len(), 40 + 8 + 3);
        assert_eq!(checksum(&[&packet[8..40], &[0, UDP], &packet[44..46], &packet[40..]]), 0);
    }

    #[test]
    fn a_message_longer_than_a_datagram_is_refused() {
        let mut capture = Capture::start(Vec::new()).unwrap();
        let error = capture.coap(at(0), PROXY, PROXY, &[0; 65_536]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn blocks_are_aligned_and_say_their_length_twice() {
        let bytes = sample(&[1]);
        let mut rest = &bytes[..];
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(rest[4..8], rest[length - 4..length]);
            kinds.push(u32::from_le_bytes(rest[..4].try_into().unwrap()));
            rest = &rest[length..];
        }
        assert_eq!(kinds, [SECTION_HEADER, 1, 1, 6, 6]);
    }

    #[test]
    fn merging_sorts_by_time_and_takes_a_file_cut_short_up_to_there() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, out) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("out"));
        std::fs::write(&a, sample(&[10, 1 << 40])).unwrap();
        let mut cut = sample(&[5, 20]);
        cut.truncate(cut.len() - 3);
        std::fs::write(&b, cut).unwrap();
        assert_eq!(merge(&[&a, &b], &out).unwrap(), 7);
        let packets = read(&std::fs::read(&out).unwrap()).unwrap();
        let stamps: Vec<u64> = packets.iter().map(|p| p.stamp).collect();
        assert_eq!(stamps, [5, 5, 10, 10, 20, 1 << 40, 1 << 40]);
        assert_eq!(packets[0].bytes, [0x49, 0x98, 5]);
        assert_eq!(packets.iter().map(|p| p.interface).collect::<Vec<_>>(), [0, 1, 0, 1, 0, 0, 1]);
    }

    #[test]
    fn merging_refuses_what_this_writer_did_not_make() {
        let dir = tempfile::tempdir().unwrap();
        let (a, out) = (dir.path().join("a"), dir.path().join("out"));
        std::fs::write(&a, b"not a capture at all, but long enough to look at").unwrap();
        assert_eq!(merge(&[&a], &out).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
