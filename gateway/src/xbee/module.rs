//! One module on one line, for whoever has a host to it: a gateway, a software node, a relay.
//!
//! A thread reads the line and opens it anew when it goes away; another writes, one packet at a time, each after the module
//! said what became of the one before: modules buffer little and drop the rest without a word.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use fivefold_core::e1_link::Reach;
use fivefold_core::id::Did;
use fivefold_waspmote::xbee::{Address16, Address64, At, Decoder, LinkKey, Mode, Packet, Refused, link_key_commands};
use rustix::event::PollFlags;

use super::kind::{Addressing, Encryption, Kind};
use super::tty;

/// How often a waiting thread looks whether it is to end.
const LOOK_UP: Duration = Duration::from_millis(200);
/// Looks without a byte after which what was begun is no frame, and after which an unanswered start is tried again.
const SILENT: u32 = 5;
const UNANSWERED: u32 = 25;
/// How long a module may take to say what became of a payload. Its own retries take less.
const STATUS: Duration = Duration::from_millis(1_500);
/// Payloads that wait for the line, at most.
const QUEUE: usize = 256;
/// Ids of the commands at a start. Payloads have those above.
const SETTING: u8 = 1;
const FIRST_PAYLOAD: u8 = 8;
/// 16-bit address of a module that has none: it is seen by its 64-bit one (W10).
const NO_ADDRESS_16: [u8; 2] = [0xFF, 0xFF];
/// Bits of the receive options that say "to all": of 0x80 and 0x81 (address, PAN), and of 0x90 and 0x91.
const TO_ALL_802154: u8 = 0x06;
const TO_ALL: u8 = 0x02;

/// What a module needs.
#[derive(Debug)]
pub struct Settings {
    /// Its line, e.g. `/dev/ttyUSB0`.
    pub port: PathBuf,
    /// Bits a second.
    pub baud: u32,
    /// What it speaks.
    pub kind: Kind,
    /// The key that it encrypts with among modules; without one that is left as it is.
    pub link_key: Option<LinkKey>,
}

impl Settings {
    /// Whether modules encrypt among themselves, as far as it was set here.
    pub const fn encryption(&self) -> Encryption {
        if self.link_key.is_some() { Encryption::On } else { Encryption::Off }
    }
}

/// Another module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// All in reach.
    Everybody,
    /// By its 64-bit address.
    Long(Did),
    /// By its 16-bit address.
    Short([u8; 2]),
}

/// A payload that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Wherefrom.
    pub from: Peer,
    /// To whom it was sent.
    pub reach: Reach,
    /// Strength in dBm, where the module says it.
    pub rssi: Option<i16>,
    /// What was sent.
    pub payload: Vec<u8>,
}

/// What a module, or its line, says.
#[derive(Debug)]
pub enum Said {
    /// The line is not there, or went away; it is tried again. Why.
    Away(String),
    /// A payload came.
    Heard(Heard),
    /// It answers nothing: another speed, or no API mode.
    Mute,
    /// It runs, under this 64-bit address.
    Ready(Did),
    /// Bytes that are no packet, or one that is none of ours.
    Refused(Refused),
    /// It does not take a setting.
    SettingRefused(At),
}

/// Why a payload was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendRefused {
    /// More wait than the line takes.
    #[error("more payloads wait than the XBee module takes")]
    Busy,
    /// Longer than the module sends at once.
    #[error("{length} bytes are more than the {longest} that this XBee module sends at once")]
    TooLong {
        /// Bytes.
        length: usize,
        /// Bytes, at most.
        longest: usize,
    },
}

/// The sending side of a module.
#[derive(Clone, Debug)]
pub struct Sender {
    kind: Kind,
    encryption: Encryption,
    queue: SyncSender<(Peer, Box<[u8]>)>,
}

impl Sender {
    /// Puts a payload in line. It may be lost on the air, and is while the line is away.
    ///
    /// # Errors
    /// [`SendRefused`]: nothing is cut to fit.
    pub fn send(&self, to: Peer, payload: Box<[u8]>) -> Result<(), SendRefused> {
        let addressing = match to {
            Peer::Everybody => Addressing::Broadcast,
            Peer::Long(_) => Addressing::Long,
            Peer::Short(_) => Addressing::Short,
        };
        let (length, longest) = (payload.len(), self.kind.longest(addressing, self.encryption));
        if length > longest {
            return Err(SendRefused::TooLong { length, longest });
        }
        match self.queue.try_send((to, payload)) {
            // Without its threads the program ends.
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
            Err(TrySendError::Full(_)) => Err(SendRefused::Busy),
        }
    }
}

/// What reader and writer share.
#[derive(Default)]
struct Shared {
    line: Mutex<Line>,
    changed: Condvar,
}

#[derive(Default)]
struct Line {
    tty: Option<Arc<File>>,
    /// What became of the payload with this id.
    status: Option<(u8, u8)>,
}

impl Shared {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut Line)) {
        change(&mut self.line());
        self.changed.notify_all();
    }
}

/// Starts the two threads of a module, which end after `stop`. `hear` is told everything that it says.
///
/// # Errors
/// When no thread can be started.
pub fn start(
    settings: Settings,
    hear: impl FnMut(Said) + Send + 'static,
    stop: Arc<AtomicBool>,
) -> io::Result<(Sender, Vec<JoinHandle<()>>)> {
    let (queue, waiting) = sync_channel(QUEUE);
    let sender = Sender { kind: settings.kind, encryption: settings.encryption(), queue };
    let shared = Arc::new(Shared::default());
    let writer = Writer { kind: settings.kind, shared: shared.clone(), stop: stop.clone(), id: FIRST_PAYLOAD };
    let mut reader = Reader { settings, hear, shared, stop, high: None, low: None, ready: false, told: None };
    let threads = vec![
        std::thread::Builder::new().name("xbee in".into()).spawn(move || reader.run())?,
        std::thread::Builder::new().name("xbee out".into()).spawn(move || writer.run(&waiting))?,
    ];
    Ok((sender, threads))
}

struct Writer {
    kind: Kind,
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    id: u8,
}

impl Writer {
    fn run(mut self, waiting: &Receiver<(Peer, Box<[u8]>)>) {
        while !self.stop.load(Ordering::Relaxed) {
            match waiting.recv_timeout(LOOK_UP) {
                Ok((to, payload)) => self.write(to, &payload),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn write(&mut self, to: Peer, payload: &[u8]) {
        self.id = self.id.checked_add(1).unwrap_or(FIRST_PAYLOAD);
        let Some(tty) = self.shared.line().tty.clone() else { return };
        let Ok(frame) = packet(self.kind, self.id, to, payload).emit(Mode::Escaped) else { return };
        // What went wrong with the line, its reader finds out.
        if tty::write_all(&tty, &frame).is_err() {
            return;
        }
        let id = self.id;
        let waits = |line: &mut Line| line.tty.is_some() && line.status.is_none_or(|(of, _)| of != id);
        let waited = self.shared.changed.wait_timeout_while(self.shared.line(), STATUS, waits);
        let (line, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match line.status {
            Some((of, 0)) if of == id => {}
            Some((of, status)) if of == id => tracing::debug!(status, "an XBee payload did not arrive"),
            _ => tracing::debug!("the XBee module does not say what became of a payload"),
        }
    }
}

/// A payload as this kind of module takes it.
fn packet(kind: Kind, id: u8, to: Peer, payload: &[u8]) -> Packet<'_> {
    let long = match to {
        Peer::Long(did) => Address64(did.0),
        Peer::Everybody | Peer::Short(_) => Address64::BROADCAST,
    };
    match (kind, to) {
        (Kind::Ieee802154, Peer::Short(address)) => {
            Packet::Transmit16 { id, destination: Address16(address), options: 0, payload }
        }
        (Kind::Ieee802154, _) => Packet::Transmit64 { id, destination: long, options: 0, payload },
        (_, to) => {
            let network = if let Peer::Short(address) = to { Address16(address) } else { Address16::UNKNOWN };
            Packet::Transmit { id, destination: long, network, radius: 0, options: 0, payload }
        }
    }
}

struct Reader<H> {
    settings: Settings,
    hear: H,
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    high: Option<[u8; 4]>,
    low: Option<[u8; 4]>,
    ready: bool,
    /// Why the line is away, as it was said last.
    told: Option<String>,
}

impl<H: FnMut(Said)> Reader<H> {
    fn run(&mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let why = match tty::open(&self.settings.port, self.settings.baud) {
                Ok(tty) => {
                    self.told = None;
                    let why = self.read(&Arc::new(tty));
                    self.shared.set(|line| line.tty = None);
                    why.to_string()
                }
                Err(why) => why.to_string(),
            };
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if self.told.as_ref() != Some(&why) {
                (self.hear)(Said::Away(why.clone()));
                self.told = Some(why);
            }
            std::thread::sleep(LOOK_UP);
        }
    }

    /// Reads until the line is gone.
    fn read(&mut self, tty: &Arc<File>) -> io::Error {
        let mut decoder = Decoder::new(Mode::Escaped);
        let mut bytes = [0; 512];
        let (mut silent, mut unanswered) = (0, 0);
        self.shared.set(|line| line.tty = Some(tty.clone()));
        if let Err(gone) = self.begin(tty) {
            return gone;
        }
        while !self.stop.load(Ordering::Relaxed) {
            match tty::wait(tty, PollFlags::IN, LOOK_UP) {
                Err(gone) => return gone,
                Ok(true) => silent = 0,
                Ok(false) => {
                    silent += 1;
                    if silent == SILENT
                        && let Err(cut) = decoder.idle()
                    {
                        (self.hear)(Said::Refused(cut));
                    }
                    unanswered = if self.ready { 0 } else { unanswered + 1 };
                    if unanswered == UNANSWERED {
                        unanswered = 0;
                        (self.hear)(Said::Mute);
                        if let Err(gone) = self.begin(tty) {
                            return gone;
                        }
                    }
                    continue;
                }
            }
            let mut file: &File = tty;
            let read = match file.read(&mut bytes) {
                Ok(0) => return ErrorKind::UnexpectedEof.into(),
                Ok(n) => bytes.get(..n).unwrap_or_default(),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
                Err(gone) => return gone,
            };
            for &byte in read {
                let Some(found) = decoder.push(byte) else { continue };
                let restarted = match found.and_then(|()| Packet::parse(decoder.packet())) {
                    Ok(packet) => self.take(&packet),
                    Err(refused) => {
                        (self.hear)(Said::Refused(refused));
                        false
                    }
                };
                if restarted && let Err(gone) = self.begin(tty) {
                    return gone;
                }
            }
        }
        ErrorKind::Interrupted.into()
    }

    /// Asks the module who it is, and sets what is configured.
    fn begin(&mut self, tty: &File) -> io::Result<()> {
        (self.ready, self.high, self.low) = (false, None, None);
        let ask = |at| Packet::AtCommand { id: SETTING, at, value: &[] };
        let mut commands = Vec::new();
        if self.settings.kind == Kind::Ieee802154 {
            commands.push(Packet::AtCommand { id: SETTING, at: At::ADDRESS_16, value: &NO_ADDRESS_16 });
        }
        if let Some(key) = &self.settings.link_key {
            commands.extend(link_key_commands(SETTING, key));
        }
        commands.extend([ask(At::SERIAL_HIGH), ask(At::SERIAL_LOW)]);
        for command in commands {
            if let Ok(frame) = command.emit(Mode::Escaped) {
                tty::write_all(tty, &frame)?;
            }
        }
        Ok(())
    }

    /// A packet of the module. Whether it says that the module started anew, and forgot what it was told.
    fn take(&mut self, packet: &Packet<'_>) -> bool {
        let (from, to_all, rssi, payload) = match *packet {
            Packet::Receive64 { source, rssi, options, payload } => {
                (Peer::Long(Did(source.0)), options & TO_ALL_802154, Some(rssi), payload)
            }
            Packet::Receive16 { source, rssi, options, payload } => {
                (Peer::Short(source.0), options & TO_ALL_802154, Some(rssi), payload)
            }
            Packet::Receive { source, options, payload, .. }
            | Packet::ExplicitReceive { source, options, payload, .. } => {
                (Peer::Long(Did(source.0)), options & TO_ALL, None, payload)
            }
            Packet::TransmitStatus { id, delivery: status, .. } | Packet::TransmitStatusLegacy { id, status } => {
                self.shared.set(|line| line.status = Some((id, status)));
                return false;
            }
            Packet::AtResponse { at, status, value, .. } => {
                self.set(at, status, value);
                return false;
            }
            Packet::ModemStatus { status } => return matches!(status, 0 | 1),
            // What a host says to a module, heard from one.
            _ => {
                (self.hear)(Said::Refused(Refused::Type(0)));
                return false;
            }
        };
        let reach = if to_all == 0 { Reach::Us } else { Reach::Everybody };
        (self.hear)(Said::Heard(Heard { from, reach, rssi, payload: payload.to_vec() }));
        false
    }

    fn set(&mut self, at: At, status: u8, value: &[u8]) {
        if status != 0 {
            return (self.hear)(Said::SettingRefused(at));
        }
        match at {
            At::SERIAL_HIGH => self.high = four(value),
            At::SERIAL_LOW => self.low = four(value),
            _ => return,
        }
        if let (Some([a, b, c, d]), Some([e, f, g, h])) = (self.high, self.low)
            && !std::mem::replace(&mut self.ready, true)
        {
            (self.hear)(Said::Ready(Did([a, b, c, d, e, f, g, h])));
        }
    }
}

/// Half of an address: modules leave out leading zeros.
fn four(value: &[u8]) -> Option<[u8; 4]> {
    let mut out = [0; 4];
    let at = out.len().checked_sub(value.len())?;
    out.get_mut(at..)?.copy_from_slice(value);
    Some(out)
}
