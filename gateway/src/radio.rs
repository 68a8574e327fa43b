//! The sockets: 802.15.4 frames in ZEP over UDP, and CoAP over UDP.
//!
//! The air is a list of UDP addresses. Who is not on it may still be heard, as on any radio: E1 decides.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use fivefold_core::wire::zep::{MAX_DATAGRAM, Zep};

use crate::daemon::Event;

/// How often a waiting thread looks whether it is to end.
const LOOK_UP: Duration = Duration::from_millis(200);
/// Bytes of a receive buffer: a burst waits there while the store commits.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A socket could not be had.
#[derive(Debug, thiserror::Error)]
#[error("UDP {address} cannot be used for {purpose} ({source}): is another gateway running, or is another port meant?")]
pub struct SocketError {
    address: SocketAddr,
    purpose: &'static str,
    source: io::Error,
}

/// Binds a UDP socket.
///
/// # Errors
/// One sentence with address and purpose.
pub fn bind(address: SocketAddr, purpose: &'static str) -> Result<UdpSocket, SocketError> {
    let fail = |source| SocketError { address, purpose, source };
    let socket = UdpSocket::bind(address).map_err(fail)?;
    // More is better, less still works.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
    socket.set_read_timeout(Some(LOOK_UP)).map_err(fail)?;
    Ok(socket)
}

/// Listens for ZEP datagrams, until `stop`.
///
/// # Errors
/// When no thread can be started.
pub fn listen_zep(socket: UdpSocket, to: SyncSender<Event>, stop: Arc<AtomicBool>) -> io::Result<JoinHandle<()>> {
    let mut buffer = [0; MAX_DATAGRAM + 1];
    let hear = move || {
        while !stop.load(Ordering::Relaxed) {
            let Ok((len, _)) = socket.recv_from(&mut buffer) else { continue };
            let event = match Zep::parse(buffer.get(..len).unwrap_or_default()) {
                Ok(zep) => Event::Frame(zep.frame.to_vec(), zep.lqi),
                Err(rejected) => Event::Refused(rejected),
            };
            // A full queue loses frames as a busy radio does.
            let _ = to.try_send(event);
        }
    };
    std::thread::Builder::new().name("zep".into()).spawn(hear)
}

/// Listens for CoAP datagrams, until `stop`.
///
/// # Errors
/// When no thread can be started.
pub fn listen_coap(socket: UdpSocket, to: SyncSender<Event>, stop: Arc<AtomicBool>) -> io::Result<JoinHandle<()>> {
    let mut buffer = [0; 2048];
    let hear = move || {
        while !stop.load(Ordering::Relaxed) {
            let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
            let _ = to.try_send(Event::Coap(from, buffer.get(..len).unwrap_or_default().to_vec()));
        }
    };
    std::thread::Builder::new().name("coap".into()).spawn(hear)
}

/// The sending side of the air.
#[derive(Debug)]
pub struct Air {
    socket: UdpSocket,
    hearers: Vec<SocketAddr>,
    device: u16,
    sequence: u32,
}

impl Air {
    /// Sends by `socket` to all of `hearers`.
    pub fn new(socket: UdpSocket, hearers: Vec<SocketAddr>, device: u16) -> Self {
        Self { socket, hearers, device, sequence: 0 }
    }

    /// Others hear it from now on.
    pub fn set_hearers(&mut self, hearers: Vec<SocketAddr>) {
        self.hearers = hearers;
    }

    /// Sends a frame to everybody who hears it.
    pub fn send(&mut self, frame: &[u8], unix_ms: u64) {
        self.sequence = self.sequence.wrapping_add(1);
        let time = ntp(unix_ms);
        let zep = Zep { channel: 26, device: self.device, lqi: 255, time, sequence: self.sequence, frame };
        let mut out = [0; MAX_DATAGRAM];
        let Ok(len) = zep.emit(&mut out) else { return };
        for to in &self.hearers {
            // Who is not there does not hear.
            let _ = self.socket.send_to(out.get(..len).unwrap_or_default(), to);
        }
    }
}

/// NTP time: seconds since 1900 and their fraction.
fn ntp(unix_ms: u64) -> [u8; 8] {
    let seconds = (unix_ms / 1000).wrapping_add(2_208_988_800) as u32;
    let fraction = ((unix_ms % 1000) << 32).wrapping_div(1000) as u32;
    (u64::from(seconds) << 32 | u64::from(fraction)).to_be_bytes()
}
