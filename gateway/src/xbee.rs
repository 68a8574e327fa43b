//! The XBee module of a gateway (W10): classic frames for the desk, E1S messages (docs/protocol.md 4.2) for the engine, and
//! what either has to say back.
//!
//! What a module hears is told apart by its first bytes: `<=>` begins every classic frame, 1F every E1S message.

pub mod kind;
pub mod module;
#[cfg(test)]
mod tests;
pub mod tty;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;

use fivefold_core::e1_link::E1S_RULE;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::Did;
use fivefold_core::wire::classic::Carrier;
use fivefold_keep::files::{self, FileError};
use fivefold_waspmote::Frame;
use fivefold_waspmote::key_message::TYPE as KEY_MESSAGE;
use fivefold_waspmote::xbee::{LinkKey, Refused};
use tokio::sync::{Semaphore, mpsc};
use zeroize::{Zeroize as _, Zeroizing};

use crate::classic::{ClassicEvent, Desk};
use crate::daemon::Event;
use crate::gateway::ClassicDone;
use kind::{Encryption, Kind};
use module::{Heard, Peer, Said, Sender, Settings};

/// Classic frames that wait for the engine, at most.
const QUEUE: usize = 256;
/// Parts of key messages that wait for what becomes of them, at most.
const KEY_MESSAGES: usize = 64;
/// What every classic frame begins with (W2).
const CLASSIC: &[u8] = b"<=>";

/// `[xbee]` of `gateway.toml`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xbee {
    /// The line.
    pub port: PathBuf,
    /// Bits a second.
    pub baud: u32,
    /// What the module speaks.
    pub kind: Kind,
    /// The file with the key that modules encrypt with among themselves.
    pub link_key_file: Option<PathBuf>,
    /// Whether nodes that ask for the time are told it (W11).
    pub time: Time,
}

/// What becomes of time requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// They are answered by the gateway's clock.
    Answered,
    /// They are ignored.
    Ignored,
}

impl Xbee {
    /// Whether the modules encrypt among themselves, as far as it is set here.
    pub const fn encryption(&self) -> Encryption {
        if self.link_key_file.is_some() { Encryption::On } else { Encryption::Off }
    }

    /// What the module is started with.
    ///
    /// # Errors
    /// The key file cannot be read, is readable by others, or holds no key.
    pub fn settings(&self) -> Result<Settings, LinkKeyError> {
        let link_key = self.link_key_file.as_deref().map(read_link_key).transpose()?;
        Ok(Settings { port: self.port.clone(), baud: self.baud, kind: self.kind, link_key })
    }
}

/// Why a link key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LinkKeyError {
    /// The file cannot be read, or others can.
    #[error(transparent)]
    File(#[from] FileError),
    /// It holds none.
    #[error("{0}: a link key is 16 characters or 32 hex digits, in one line")]
    Form(PathBuf),
}

/// The key in a file: 16 characters, as sketches set it, or 32 hex digits.
///
/// # Errors
/// The file cannot be read, is readable by others, or holds no key.
pub fn read_link_key(path: &Path) -> Result<LinkKey, LinkKeyError> {
    let form = || LinkKeyError::Form(path.to_owned());
    let text = Zeroizing::new(String::from_utf8(files::read_private(path)?.to_vec()).map_err(|_| form())?);
    let text = text.trim_end_matches(['\n', '\r']);
    if text.len() == 32 {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| form())?;
        let key = LinkKey::from_bytes(bytes);
        bytes.zeroize();
        return Ok(key);
    }
    LinkKey::from_text(text).map_err(|_| form())
}

/// Starts the module; what it hears goes to the engine until `stop`. `did` is the EUI-64 that the gateway has on the radio.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn start(
    settings: Settings,
    (did, time): (Did, Time),
    events: SyncSender<Event>,
    stop: Arc<AtomicBool>,
) -> io::Result<(Sender, Vec<JoinHandle<()>>, tokio::task::JoinHandle<()>)> {
    let (frames, heard) = mpsc::channel(QUEUE);
    let port = settings.port.display().to_string();
    let mut rim = Rim { port, did, events: events.clone(), frames };
    let (sender, threads) = module::start(settings, move |said| rim.take(said), stop)?;
    let classic = tokio::spawn(classic(heard, time, Desk::new(events), sender.clone()));
    Ok((sender, threads, classic))
}

/// Brings classic frames to the desk, in the order in which they came, and sends what is to be answered.
async fn classic(mut heard: mpsc::Receiver<Heard>, time: Time, desk: Desk, sender: Sender) {
    let places = Arc::new(Semaphore::new(KEY_MESSAGES));
    while let Some(Heard { from, rssi, payload, .. }) = heard.recv().await {
        if time == Time::Ignored && matches!(Frame::parse(&payload), Ok(Frame::TimeRequest)) {
            continue;
        }
        let source = if let Peer::Long(did) = from { Some(did.0) } else { None };
        let event = ClassicEvent { carrier: Carrier::Xbee, source, rssi, frame: payload.into(), done: None };
        if event.frame.get(3) != Some(&KEY_MESSAGE) {
            bring(&desk, &sender, from, event).await;
            continue;
        }
        // Its answer comes from the cloud: what is heard meanwhile does not wait for it.
        let Ok(place) = places.clone().try_acquire_owned() else {
            desk.refuse(BUSY);
            continue;
        };
        let (desk, sender) = (desk.clone(), sender.clone());
        tokio::spawn(async move {
            bring(&desk, &sender, from, event).await;
            drop(place);
        });
    }
}

async fn bring(desk: &Desk, sender: &Sender, from: Peer, event: ClassicEvent) {
    if let ClassicDone::Answer(answer) = desk.bring(event).await
        && let Err(why) = sender.send(from, answer)
    {
        tracing::warn!("an answer is not sent: {why}");
    }
}

/// What becomes of what the module says.
struct Rim {
    port: String,
    did: Did,
    events: SyncSender<Event>,
    frames: mpsc::Sender<Heard>,
}

const STRANGE: Rejected = Rejected::new(Code::ClassicMalformed, "neither a classic frame nor an E1S message");
const SHORT: Rejected =
    Rejected::new(Code::LinkMalformed, "an E1S message of a module with a 16-bit address: it must have MY=FFFF");
const BUSY: Rejected = Rejected::new(Code::ClassicTooMany, "more frames wait than the gateway takes");

impl Rim {
    fn take(&mut self, said: Said) {
        let port = &self.port;
        match said {
            Said::Heard(heard) => {
                if let Err(rejected) = self.sort(heard) {
                    self.refuse(rejected);
                }
            }
            Said::Refused(refused) => {
                tracing::debug!("{port}: {refused}");
                self.refuse(Rejected::new(Code::ClassicMalformed, noise(&refused)));
            }
            Said::Away(why) => tracing::warn!("no XBee module at {port}: {why}; it is tried again"),
            Said::Mute => tracing::warn!(
                "the XBee module at {port} answers nothing: look whether it is in API mode 2 (AP=2) and at this speed"
            ),
            Said::Ready(did) if did == self.did => tracing::info!("XBee module {did} at {port}"),
            Said::Ready(did) => tracing::warn!(
                "XBee module {did} at {port}, and this gateway is {} to its network: nodes with E1 will not hear it; \
                 write link.did = \"{did}\" once the book says so (fivefold gateway add --did {did})",
                self.did
            ),
            Said::SettingRefused(at) => tracing::error!("the XBee module at {port} does not take {at:?}"),
        }
    }

    /// A full queue loses messages as a busy radio does.
    fn sort(&self, heard: Heard) -> Result<(), Rejected> {
        if heard.payload.starts_with(CLASSIC) {
            return self.frames.try_send(heard).map_err(|_| BUSY);
        }
        if heard.payload.first() != Some(&E1S_RULE) {
            return Err(STRANGE);
        }
        let Peer::Long(source) = heard.from else { return Err(SHORT) };
        let Heard { reach, rssi, payload, .. } = heard;
        let _ = self.events.try_send(Event::Message { source, reach, rssi, bytes: payload });
        Ok(())
    }

    fn refuse(&self, rejected: Rejected) {
        let _ = self.events.try_send(Event::Refused(rejected));
    }
}

const fn noise(refused: &Refused) -> &'static str {
    match refused {
        Refused::Checksum { .. } => "a packet of the serial line whose checksum does not hold",
        Refused::Long { .. } => "a packet of the serial line that is longer than any",
        Refused::Short { .. } => "a packet of the serial line that is cut",
        _ => "a packet of the serial line that no module sends",
    }
}
