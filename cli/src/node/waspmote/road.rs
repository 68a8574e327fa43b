//! The ways of a software Waspmote to its gateway.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fivefold_gateway::xbee::tty;
use fivefold_waspmote::key_message;
use fivefold_waspmote::xbee::{Address16, Address64, Decoder, Mode, Packet};

/// The path at which Meshlium takes frames (W13).
const PATH: &str = "/getpost_frame_parser.php";
/// Speed of an XBee module's line.
const BAUD: u32 = 115_200;
/// A module waits so long for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// So long by radio for the answer to a key message: the gateway asks the cloud.
const KEY_PATIENCE: Duration = Duration::from_secs(8);
/// Bytes of a frame that every kind of XBee module carries (W10: DigiMesh, 73).
const XBEE_ROOM: usize = 73;

/// The way to the gateway.
pub(super) enum Road {
    Http(String),
    Xbee { line: std::fs::File, to: Address64 },
}

impl Road {
    /// By the module on that line.
    pub(super) fn by_radio(path: &Path, to: Address64) -> anyhow::Result<Self> {
        Ok(Self::Xbee { line: tty::open(path, BAUD)?, to })
    }

    /// Bytes of a frame that it carries.
    pub(super) const fn room(&self) -> usize {
        match self {
            Self::Http(_) => key_message::LONGEST_FRAME,
            Self::Xbee { .. } => XBEE_ROOM,
        }
    }

    /// Sends a frame, and says what is known of it then.
    pub(super) fn send(&mut self, frame: &[u8]) -> anyhow::Result<&'static str> {
        match self {
            Self::Http(host) => post(host, frame).map(|_| "delivered"),
            Self::Xbee { line, to } => transmit(line, *to, frame).map(|()| "sent"),
        }
    }

    /// Sends the parts of a key message, and waits for a frame that may be its answer.
    pub(super) fn ask(&mut self, frames: &[Vec<u8>]) -> anyhow::Result<Option<Vec<u8>>> {
        match self {
            Self::Http(host) => {
                for frame in frames {
                    if let Some(answer) = post(host, frame)? {
                        return Ok(Some(answer));
                    }
                }
                Ok(None)
            }
            Self::Xbee { line, to } => {
                for frame in frames {
                    transmit(line, *to, frame)?;
                }
                listen(line)
            }
        }
    }
}

fn transmit(line: &std::fs::File, to: Address64, payload: &[u8]) -> anyhow::Result<()> {
    let (destination, network) = (to, Address16::UNKNOWN);
    let packet = Packet::Transmit { id: 0, destination, network, radius: 0, options: 0, payload };
    Ok(tty::write_all(line, &packet.emit(Mode::Escaped)?)?)
}

/// The next part of a key message that the module hears.
fn listen(line: &mut std::fs::File) -> anyhow::Result<Option<Vec<u8>>> {
    #[expect(clippy::disallowed_methods, reason = "this is the rim")]
    let until = Instant::now() + KEY_PATIENCE;
    let mut decoder = Decoder::new(Mode::Escaped);
    let mut some = [0; 256];
    loop {
        #[expect(clippy::disallowed_methods, reason = "this is the rim")]
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let read = match line.read(&mut some) {
            Ok(0) => 0,
            Ok(read) => read,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => 0,
            Err(e) => return Err(e).context("the module's line"),
        };
        if read == 0 {
            std::thread::sleep(Duration::from_millis(10).min(left));
        }
        for byte in some.get(..read).unwrap_or_default() {
            if !matches!(decoder.push(*byte), Some(Ok(()))) {
                continue;
            }
            let (Packet::Receive { payload, .. }
            | Packet::ExplicitReceive { payload, .. }
            | Packet::Receive64 { payload, .. }
            | Packet::Receive16 { payload, .. }) = (match Packet::parse(decoder.packet()) {
                Ok(packet) => packet,
                Err(_) => continue,
            })
            else {
                continue;
            };
            if is_key_message(payload) {
                return Ok(Some(payload.to_vec()));
            }
        }
    }
}

fn is_key_message(frame: &[u8]) -> bool {
    frame.starts_with(b"<=>") && frame.get(3) == Some(&key_message::TYPE)
}

/// As a 4G module posts it: any answer with a body is taken for success. A part of a key message in it comes back.
pub(crate) fn post(host: &str, frame: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let stream = TcpStream::connect(host).with_context(|| format!("cannot connect to {host}"))?;
    post_over(stream, host, frame)
}

/// The same over a connection that somebody else made.
pub(crate) fn post_over(mut stream: TcpStream, host: &str, frame: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = format!("frame={}", hex::encode_upper(frame));
    let request = format!(
        "POST {PATH} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split_whitespace().nth(1).unwrap_or("nothing");
    anyhow::ensure!(status == "200", "{host} answered {status}");
    Ok(answer.lines().filter_map(|line| hex::decode(line.trim()).ok()).find(|frame| is_key_message(frame)))
}
