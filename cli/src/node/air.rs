//! What carries a software node's frames: UDP sockets that stand for a radio, or an XBee module on a serial line.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use fivefold_core::e1_link::{Over, Reach};
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::Did;
use fivefold_core::profile::{LinkClass, Radio};
use fivefold_core::wire::zep::{MAX_DATAGRAM, Zep};
use fivefold_device::Frame;
use fivefold_gateway::xbee::kind::Kind;
use fivefold_gateway::xbee::module::{self, Peer, Said, Settings};
use fivefold_gateway::xbee::read_link_key;
use fivefold_keep::share::NodeShare;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// What a module said, and nobody took yet, at most.
const QUEUE: usize = 256;

/// Where the node's XBee module is, if its radio is one.
#[derive(Debug, clap::Args)]
pub struct Module {
    /// The serial line of its XBee module in API mode 2, e.g. /dev/ttyUSB0: for radio xbee and digimesh.
    #[arg(long, value_name = "TTY")]
    xbee: Option<PathBuf>,
    /// Speed of that line, in baud.
    #[arg(long, default_value_t = 115_200, requires = "xbee")]
    baud: u32,
    /// File with the key that XBee modules encrypt with among themselves, 16 characters or 32 hex digits; what the module
    /// has set stays if it is not given.
    #[arg(long, value_name = "FILE", requires = "xbee")]
    link_key_file: Option<PathBuf>,
}

/// The way in and out of a node.
pub(super) enum Air {
    /// By UDP, as radio (ZEP) or as the way to the gateway (CoAP).
    Udp(Udp),
    /// By a module.
    Xbee { sender: module::Sender, said: mpsc::Receiver<Said>, did: Did },
}

/// Sockets that stand for a radio.
pub(super) struct Udp {
    socket: UdpSocket,
    hearers: Vec<SocketAddr>,
    device: u16,
    sequence: u32,
    is_ip: bool,
    buffer: Vec<u8>,
}

/// What came in.
pub(super) enum Heard {
    /// A CoAP message.
    Datagram(Vec<u8>),
    /// An 802.15.4 frame.
    Frame(Vec<u8>),
    /// An E1S message: from, to whom, bytes.
    Message(Did, Reach, Vec<u8>),
    /// Nothing that counts.
    Nothing,
    /// What was no frame.
    Refused(Rejected),
}

impl Air {
    /// The air of a share.
    ///
    /// # Errors
    /// Its radio is an XBee module and none is named, or the other way round; a port that is in use.
    pub(super) async fn open(share: &NodeShare, module: &Module) -> anyhow::Result<Self> {
        let radio = share.policy.radio;
        let Some(port) = &module.xbee else {
            if radio.link_class() == LinkClass::E1s {
                bail!("this node's radio is an XBee module ({radio}): say where its line is, e.g. --xbee /dev/ttyUSB0");
            }
            return Ok(Self::Udp(Udp {
                socket: bind(share.link.bind).await?,
                hearers: share.link.air.clone(),
                device: share.sid.0,
                sequence: 0,
                is_ip: radio == Radio::Ip,
                buffer: vec![0; 2048],
            }));
        };
        let kind = match radio {
            Radio::Digimesh => Kind::Digimesh,
            Radio::Xbee => Kind::Ieee802154,
            other => bail!("--xbee is for radio xbee and digimesh, and node.toml says {other}"),
        };
        let link_key = module.link_key_file.as_deref().map(read_link_key).transpose()?;
        let settings = Settings { port: port.clone(), baud: module.baud, kind, link_key };
        let (to, said) = mpsc::channel(QUEUE);
        // What is beyond is lost as by a busy radio. The threads end with the process.
        let hear = move |heard| drop(to.try_send(heard));
        let (sender, _) = module::start(settings, hear, Arc::new(AtomicBool::new(false)))?;
        Ok(Self::Xbee { sender, said, did: share.did })
    }

    /// Gives a frame to the radio. A radio hears everybody or nobody: what cannot be sent is a frame that is lost.
    pub(super) async fn transmit(&mut self, frame: &Frame) {
        match (self, frame.over()) {
            (Self::Udp(udp), Over::Ieee802154) => udp.frame(frame.as_bytes()).await,
            (Self::Xbee { sender, .. }, Over::E1s { to }) => {
                let to = to.map_or(Peer::Everybody, Peer::Long);
                if let Err(why) = sender.send(to, frame.as_bytes().into()) {
                    tracing::warn!("a frame is not sent: {why}");
                }
            }
            // The policy record says which radio it is, to the engine and to us.
            (Self::Udp(_), Over::E1s { .. }) | (Self::Xbee { .. }, Over::Ieee802154) => {}
        }
    }

    /// Sends a CoAP message to the gateway.
    pub(super) async fn datagram(&self, bytes: &[u8]) {
        if let Self::Udp(udp) = self {
            udp.datagram(bytes).await;
        }
    }

    /// Waits for what comes.
    pub(super) async fn hear(&mut self) -> Heard {
        match self {
            Self::Udp(udp) => udp.hear().await,
            Self::Xbee { said, did, .. } => match said.recv().await {
                Some(said) => take(said, *did),
                None => std::future::pending().await,
            },
        }
    }
}

fn take(said: Said, own: Did) -> Heard {
    match said {
        Said::Heard(module::Heard { from: Peer::Long(source), reach, payload, .. }) => {
            return Heard::Message(source, reach, payload);
        }
        Said::Heard(_) => {
            let reason = "an E1S message of a module with a 16-bit address: it must have MY=FFFF";
            return Heard::Refused(Rejected::new(Code::LinkMalformed, reason));
        }
        Said::Refused(refused) => {
            tracing::debug!("{refused}");
            return Heard::Refused(Rejected::new(Code::LinkMalformed, "the serial line said what is no packet"));
        }
        Said::Away(why) => tracing::warn!("no XBee module: {why}; it is tried again"),
        Said::Mute => tracing::warn!("the XBee module answers nothing: API mode 2 (AP=2), and this speed?"),
        Said::Ready(did) if did == own => tracing::info!("XBee module {did}"),
        Said::Ready(did) => tracing::warn!(
            "the XBee module is {did}, and this node is {own}: nobody opens what it says; enrol it with --did {did}"
        ),
        Said::SettingRefused(at) => tracing::error!("the XBee module does not take {at:?}"),
    }
    Heard::Nothing
}

impl Udp {
    async fn frame(&mut self, frame: &[u8]) {
        self.sequence = self.sequence.wrapping_add(1);
        let zep = Zep { channel: 26, device: self.device, lqi: 255, time: ntp(), sequence: self.sequence, frame };
        let mut datagram = [0; MAX_DATAGRAM];
        if let Ok(len) = zep.emit(&mut datagram) {
            self.datagram(datagram.get(..len).unwrap_or_default()).await;
        }
    }

    async fn datagram(&self, bytes: &[u8]) {
        for &to in &self.hearers {
            if let Err(e) = self.socket.send_to(bytes, to).await {
                tracing::debug!("{to}: {e}");
            }
        }
    }

    async fn hear(&mut self) -> Heard {
        let Ok((len, _)) = self.socket.recv_from(&mut self.buffer).await else { return Heard::Nothing };
        let datagram = self.buffer.get(..len).unwrap_or_default();
        if self.is_ip {
            return Heard::Datagram(datagram.to_vec());
        }
        match Zep::parse(datagram) {
            Ok(zep) => Heard::Frame(zep.frame.to_vec()),
            Err(rejected) => Heard::Refused(rejected),
        }
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<UdpSocket> {
    match UdpSocket::bind(address).await {
        Ok(socket) => Ok(socket),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            bail!("cannot listen on {address}: it is in use; stop what uses it, or change [link] bind in node.toml")
        }
        Err(e) => Err(e).with_context(|| format!("cannot listen on {address}; change [link] bind in node.toml")),
    }
}

/// NTP time of the host; untrusted and informative, as all of ZEP's header.
#[expect(clippy::disallowed_methods, reason = "a capture shows it; nothing is decided by it")]
fn ntp() -> [u8; 8] {
    const TO_1900: u64 = 2_208_988_800;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
    ((now.as_secs() + TO_1900) << 32 | fraction).to_be_bytes()
}
