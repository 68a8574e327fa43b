//! An attacker's radio: it hears what is on the air and sends what it likes. Nothing of our engines is used, so that no
//! rule of ours stands in its way.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use fivefold_core::id::{Did, Sid};
use fivefold_core::suite::{LinkSchedule, MicLen};
use fivefold_core::wire::ieee802154::{Ack, Address, Frame, MAX_FRAME, Pan, append_fcs, check_fcs};
use fivefold_core::wire::zep::{MAX_DATAGRAM, Zep};
use serde::{Deserialize, Serialize};

use super::door::Door;

/// A frame heard on the air.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Heard {
    /// UDP address it came from.
    pub from: SocketAddr,
    /// The frame with its check sequence, in hex.
    pub frame: String,
}

impl Heard {
    /// The frame's bytes, with check sequence.
    pub fn bytes(&self) -> Vec<u8> {
        hex::decode(&self.frame).unwrap_or_default()
    }
}

/// Listens on `bind` and appends every frame to `out`, until the process ends.
///
/// # Errors
/// The address is taken, or the file cannot be written.
pub fn listen(bind: SocketAddr, out: &Path) -> anyhow::Result<()> {
    let socket = UdpSocket::bind(bind).with_context(|| format!("cannot listen on {bind}"))?;
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(out)
        .with_context(|| format!("cannot write {}", out.display()))?;
    let mut datagram = [0u8; MAX_DATAGRAM];
    loop {
        let (len, from) = socket.recv_from(&mut datagram)?;
        let Some(Ok(zep)) = datagram.get(..len).map(Zep::parse) else {
            continue;
        };
        let heard = Heard { from, frame: hex::encode(zep.frame) };
        writeln!(file, "{}", serde_json::to_string(&heard)?)?;
    }
}

/// Everything recorded so far, oldest first.
///
/// # Errors
/// The recording cannot be read.
pub fn recorded(path: &Path) -> anyhow::Result<Vec<Heard>> {
    let file = File::open(path).with_context(|| format!("cannot read the recording {}", path.display()))?;
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    Ok(lines.filter_map(|line| serde_json::from_str(&line).ok()).collect())
}

/// Sends frames. The pause keeps a receiver's socket buffer from overflowing: what is lost there was not tried.
#[derive(Debug)]
pub struct Transmitter {
    door: Door,
    socket: UdpSocket,
    sequence: u32,
}

impl Transmitter {
    /// A transmitter on any free port, that is heard by whom the door lets it speak to.
    ///
    /// # Errors
    /// No socket is to be had.
    pub fn new(door: Door) -> anyhow::Result<Self> {
        Ok(Self { socket: door.socket()?, door, sequence: 0 })
    }

    /// Sends a frame that has its check sequence.
    ///
    /// # Errors
    /// The frame is longer than the radio carries, nobody may be spoken to there, or the socket fails.
    pub fn send(&mut self, to: SocketAddr, frame: &[u8]) -> anyhow::Result<()> {
        self.sequence += 1;
        let zep = Zep { channel: 26, device: 0xBAD, lqi: 255, time: [0; 8], sequence: self.sequence, frame };
        let mut out = [0; MAX_DATAGRAM];
        let len = zep.emit(&mut out)?;
        self.door.send_to(&self.socket, out.get(..len).unwrap_or_default(), to)?;
        std::thread::sleep(Duration::from_millis(2));
        Ok(())
    }

    /// Adds a check sequence and sends.
    ///
    /// # Errors
    /// As [`Transmitter::send`].
    pub fn send_body(&mut self, to: SocketAddr, body: &[u8]) -> anyhow::Result<()> {
        let mut out = [0; MAX_FRAME];
        out.get_mut(..body.len()).context("longer than a frame")?.copy_from_slice(body);
        let len = append_fcs(&mut out, body.len())?;
        self.send(to, out.get(..len).unwrap_or_default())
    }
}

/// A recorded frame taken apart: what everybody can see of it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The frame without check sequence.
    pub body: Vec<u8>,
    /// Destination short address.
    pub to: Sid,
    /// Source, if it is a short address (not a HELLO).
    pub from: Sid,
    /// Frame counter.
    pub counter: u32,
    /// Key index.
    pub key_index: u8,
    /// Destination PAN.
    pub pan: Pan,
}

impl Seen {
    /// What can be seen of a recorded data frame; `None` for a HELLO or something else.
    pub fn of(heard: &Heard) -> Option<Self> {
        let bytes = heard.bytes();
        let body = check_fcs(&bytes).ok()?;
        let frame = Frame::parse(body).ok()?;
        let Address::Short(from) = frame.source else {
            return None;
        };
        let [_, c0, c1, c2, c3, key_index] = frame.security;
        let counter = u32::from_le_bytes([c0, c1, c2, c3]);
        Some(Self { body: body.to_vec(), to: frame.destination, from, counter, key_index, pan: frame.pan })
    }
}

/// The header that a forger writes; every field is free.
#[derive(Clone, Copy, Debug)]
pub struct Forgery {
    /// Destination PAN.
    pub pan: Pan,
    /// Destination short address.
    pub to: Sid,
    /// Source short address claimed.
    pub from: Sid,
    /// EUI-64 that goes into the nonce.
    pub eui64: Did,
    /// Key index claimed.
    pub key_index: u8,
    /// Frame counter claimed.
    pub counter: u32,
}

impl Forgery {
    /// A level 6 frame body (no check sequence) with `plaintext` sealed under `key`.
    pub fn seal(&self, key: &[u8; 16], plaintext: &[u8]) -> Vec<u8> {
        let mut body = self.header(0x0E);
        let mut nonce = [0u8; 13];
        nonce[..8].copy_from_slice(&self.eui64.0);
        nonce[8..12].copy_from_slice(&self.counter.to_be_bytes());
        nonce[12] = 6;
        let mut sealed = plaintext.to_vec();
        let mic = LinkSchedule::new(key).seal(MicLen::M8, &nonce, &body, &mut sealed);
        body.extend(sealed);
        body.extend(mic);
        body
    }

    /// A frame body whose security control is `control` and whose payload is in the clear, followed by `mic` zero bytes.
    pub fn pretend(&self, control: u8, plaintext: &[u8], mic: usize) -> Vec<u8> {
        let mut body = self.header(control);
        body.extend(plaintext);
        body.extend(vec![0; mic]);
        body
    }

    /// A frame body without any security: the bit is not set and there is no security header.
    pub fn unsecured(&self, plaintext: &[u8]) -> Vec<u8> {
        let mut body = self.header(0);
        body.truncate(9);
        if let Some(first) = body.first_mut() {
            *first &= !0x08;
        }
        body.extend(plaintext);
        body
    }

    fn header(&self, control: u8) -> Vec<u8> {
        let [a, b, c, d] = self.counter.to_le_bytes();
        let security = [control, a, b, c, d, self.key_index];
        let frame = Frame {
            ack: Ack::None,
            sequence: 0,
            pan: self.pan,
            destination: self.to,
            source: Address::Short(self.from),
            security,
            sealed: &[],
        };
        let mut out = [0; MAX_FRAME];
        let len = frame.emit(&mut out).unwrap_or(0);
        out.get(..len).unwrap_or_default().to_vec()
    }
}

/// Opens a recorded frame with a network key, trying each EUI-64 that is known for the short address.
pub fn open(seen: &Seen, key: &[u8; 16], eui64s: &[Did]) -> Option<Vec<u8>> {
    const HEADER: usize = fivefold_core::wire::ieee802154::SHORT_HEADER;
    let (aad, sealed) = seen.body.split_at_checked(HEADER)?;
    let (ciphertext, mic) = sealed.split_at_checked(sealed.len().checked_sub(8)?)?;
    eui64s.iter().find_map(|eui64| {
        let mut nonce = [0u8; 13];
        nonce[..8].copy_from_slice(&eui64.0);
        nonce[8..12].copy_from_slice(&seen.counter.to_be_bytes());
        nonce[12] = 6;
        let mut plain = ciphertext.to_vec();
        LinkSchedule::new(key).open(&nonce, aad, &mut plain, mic).ok()?;
        Some(plain)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 16] = [7; 16];
    const FORGERY: Forgery =
        Forgery { pan: Pan(0x4321), to: Sid(1), from: Sid(0x0a17), eui64: Did([1; 8]), key_index: 1, counter: 77 };

    #[test]
    fn a_forged_frame_with_the_right_key_opens_and_with_another_does_not() {
        let mut bytes = FORGERY.seal(&KEY, b"hello");
        let len = bytes.len();
        bytes.extend([0, 0]);
        append_fcs(&mut bytes, len).unwrap();
        let heard = Heard { from: "127.0.0.1:1".parse().unwrap(), frame: hex::encode(&bytes) };
        let seen = Seen::of(&heard).unwrap();
        assert_eq!((seen.counter, seen.key_index, seen.from), (77, 1, Sid(0x0a17)));
        assert_eq!(open(&seen, &KEY, &[Did([2; 8]), Did([1; 8])]).unwrap(), b"hello");
        assert_eq!(open(&seen, &[8; 16], &[Did([1; 8])]), None);
    }

    #[test]
    fn an_unsecured_frame_has_no_security_bit() {
        let body = FORGERY.unsecured(b"x");
        assert_eq!(body.len(), 10);
        assert_eq!(body[0] & 0x08, 0);
    }
}
