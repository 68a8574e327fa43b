//! The running gateway: one thread owns engine and store, two listen on sockets, the uplink runs beside them.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fivefold_audit::selfcheck::{Refused, Standing};
use fivefold_core::e1_link::{E1, Reach};
use fivefold_core::e5_renewal::PeerKid;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::Did;
use fivefold_core::key::Key;
use fivefold_core::profile::LinkClass;
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::time::Millis;
use fivefold_core::why::Refusal;
use fivefold_core::wire::envelope::{Reply, parse_downlinks};
use fivefold_keep::share::CA_FILE;
use fivefold_keep::sign::AgreementKey;
use fivefold_keep::site::{self, LOCAL_KID};
use fivefold_keep::tls::{Anchor, LiveRevoked, Revoked, Serial};
use fivefold_keep::vault::Vault;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::certificate::{Renewal, Step};
use crate::classic::{self, ClassicEvent, Desk};
use crate::config::{Config, ConfigError, Destination, Secrets};
use crate::credentials::{self, Credentials};
use crate::gateway::{AppliedState, Capture, Cloud, Gateway, Local, Output, Record, Restored, Setup, Toward};
use crate::lorawan;
use crate::metrics;
use crate::pcap;
use crate::radio::{self, Air, SocketError};
use crate::selfcheck;
use crate::spool::{Spool, SpoolError, SpoolReader, Wrap, WrapError};
use crate::uplink::{FromCloud, Uplink, Way, WayError, jittered};
use crate::xbee;
use crate::xbee::kind::Encryption;
use crate::xbee::module::{self, Peer};

/// Events that wait for the engine, at most.
const QUEUE: usize = 8192;
/// Messages of EDHOC that wait for the uplink, at most: what is beyond, its device sends again.
const RUNS: usize = 64;
/// Commands to a LoRaWAN network server that wait for its session, at most.
const COMMANDS: usize = 256;
/// Events that are handled before their writes are committed: what comes during a commit is the next group.
const GROUP: usize = 64;
/// How long to wait before a store that failed is tried again.
const STORE_PAUSE: Duration = Duration::from_secs(5);
/// How long a store that was probed counts as one that writes, in milliseconds.
const PROBE_PAUSE: u64 = 3_000;
/// How often the folder is looked at for a new certificate or air.
const LOOK_AT_FILES: Duration = Duration::from_secs(1);
/// Pauses between attempts to renew the certificate, and how often it is looked whether that is due.
const FIRST_RENEWAL_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_RENEWAL_PAUSE: Duration = Duration::from_secs(300);
const LOOK_AT_CERTIFICATE: u64 = 3_600_000;

/// Something for the engine.
#[derive(Debug)]
pub enum Event {
    /// Others hear this gateway's radio from now on.
    Air(Vec<SocketAddr>),
    /// A frame of a classic device.
    Classic(ClassicEvent),
    /// From the uplink.
    Cloud(FromCloud),
    /// A CoAP datagram.
    Coap(SocketAddr, Vec<u8>),
    /// An 802.15.4 frame with its link quality.
    Frame(Vec<u8>, u8),
    /// What a device sent over LoRaWAN.
    Lorawan(lorawan::session::Heard),
    /// An E1S message.
    Message {
        /// EUI-64 that the radio says it came from.
        source: Did,
        /// To whom the radio says it was sent.
        reach: Reach,
        /// Strength in dBm.
        rssi: Option<i16>,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Somebody asks for a page.
    Page(metrics::Page, tokio::sync::oneshot::Sender<String>),
    /// Something that was no frame.
    Refused(Rejected),
    /// So many of them.
    RefusedOften(Rejected, u64),
    /// What the operator's file says, at a site without a cloud: the parts of a state.
    State(Vec<Zeroizing<Vec<u8>>>),
    /// End.
    Stop,
}

/// Why a gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The capture file cannot be made.
    #[error("the capture file {0} cannot be written ({1}): choose another place")]
    Capture(std::path::PathBuf, std::io::Error),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The engine's thread has ended by itself.
    #[error(
        "the engine has ended, which is a mistake of this program: its last words stand above; start the gateway again"
    )]
    Engine,
    /// A thread or a task has ended by itself.
    #[error("{0} has ended, which is a mistake of this program: its last words stand above; start the gateway again")]
    Part(String),
    /// The system gives no randomness.
    #[error("the system gives no randomness: a gateway cannot run without it")]
    Random,
    /// The way to the LoRaWAN broker cannot be prepared.
    #[error(transparent)]
    Lorawan(#[from] lorawan::config::Unprepared),
    /// The listener for classic frames by HTTP cannot be had.
    #[error(
        "TCP {0} cannot be used for classic frames ({1}): does another program listen there, or is another port meant?"
    )]
    Http(SocketAddr, std::io::Error),
    /// The listener for metrics cannot be had.
    #[error(
        "TCP {0} (metrics.bind) cannot be used ({1}): does another program listen there, or is another port meant?"
    )]
    Metrics(SocketAddr, std::io::Error),
    /// A socket cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Something critical about itself, or that cannot be read.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The system refuses a thread, a signal or a listener.
    #[error("the system refuses: {0}")]
    System(#[from] std::io::Error),
    /// The bearer tokens of classic frames by HTTP.
    #[error(transparent)]
    Tokens(#[from] crate::classic::http::tokens::TokensError),
    /// The way to the cloud cannot be set up.
    #[error("E4 cannot be set up: {0}")]
    Way(#[from] WayError),
}

impl DaemonError {
    /// Whether the next start would end in the same way until somebody mends what it names. What may pass by itself (the clock, an
    /// address, the disk, whatever is about to come) does not last, nor does what happened while it ran.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Config(e) => e.is_lasting(),
            Self::Spool(e) => e.is_lasting(),
            Self::Refused(e) => e.is_lasting(),
            Self::Lorawan(e) => e.is_lasting(),
            Self::Tokens(e) => e.is_lasting(),
            Self::Way(e) => matches!(e, WayError::Tls(_)),
            Self::Capture(..)
            | Self::Engine
            | Self::Http(..)
            | Self::Metrics(..)
            | Self::Part(_)
            | Self::Random
            | Self::Socket(_)
            | Self::System(_) => false,
        }
    }
}

/// Unix milliseconds that do not jump while nothing is wrong: read from the monotonic clock, compared with the wall clock
/// now and then.
#[derive(Debug)]
struct Clock {
    start: Instant,
    unix_ms: u64,
}

impl Clock {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the rim")]
        let start = Instant::now();
        Self { start, unix_ms: wall_clock().0 }
    }

    fn now(&self) -> Millis {
        Millis(self.unix_ms + self.start.elapsed().as_millis() as u64)
    }

    /// Follows the wall clock when it was set.
    fn follow(&mut self) {
        let (shown, wall) = (self.now().0, wall_clock().0);
        if shown.abs_diff(wall) > 2_000 {
            tracing::warn!("the clock was set by {} s", wall as i64 / 1000 - shown as i64 / 1000);
            *self = Self::new();
        }
    }
}

/// Unix milliseconds of this machine; 0 when its clock is before 1970.
pub fn wall_clock() -> Millis {
    #[expect(clippy::disallowed_methods, reason = "this is the rim")]
    let now = SystemTime::now();
    Millis(now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64))
}

impl Wrap for Arc<Vault> {
    fn wrap(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, WrapError> {
        self.seal(name, plain).map_err(|e| WrapError(e.to_string()))
    }

    fn unwrap(&self, name: &str, sealed: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>, WrapError> {
        self.open(name, sealed).map_err(|e| WrapError(e.to_string()))
    }
}

/// Runs the gateway of a folder until SIGTERM or SIGINT. With `pcap`, what is heard and said goes into a capture file.
/// `ready` is called once it listens, and `beat` by the engine, each second.
///
/// # Errors
/// One sentence about why it cannot start, or go on.
pub async fn run(
    folder: &Path,
    pcap: Option<&Path>,
    ready: impl FnOnce(&Config),
    beat: impl Fn() + Send + 'static,
) -> Result<(), DaemonError> {
    let config = Arc::new(Config::read(folder, wall_clock())?);
    let vault = config.open_vault()?;
    credentials::recover(folder, &vault).map_err(ConfigError::from)?;
    let Secrets { vault, identity, anchor, signing, keys } = config.secrets(vault)?;
    let (vault, credentials) = (Arc::new(vault), Arc::new(Credentials::new(identity, signing)));
    let boot = GatewayBoot(random()?);
    let (spool, restored) = Spool::open(&config.store, boot, Box::new(vault.clone()))?;
    let own = selfcheck::Own::new(&config, vault.clone(), &keys);
    own.may_start(restored.state.as_ref(), wall_clock())?;
    let zep = radio::bind(config.bind, "the radio (ZEP)")?;
    let coap = config.coap.map(|address| radio::bind(address, "CoAP")).transpose()?;
    let capture = match pcap {
        Some(path) => Some(pcap::Capture::create(path).map_err(|e| DaemonError::Capture(path.to_owned(), e))?),
        None => None,
    };
    let local = config.local_key(&vault)?.map(Arc::new);
    let (from_cloud, mut cloud_events) = mpsc::channel(64);
    let (revoked, watch_revoked) = watch::channel(restored.state.as_ref().map(revoked_in).unwrap_or_default());
    let (events, queue) = sync_channel(QUEUE);
    let (stored, watch_stored) = watch::channel(0);
    let (runs, asked) = mpsc::channel(RUNS);
    let (lorawan, commands) = mpsc::channel(COMMANDS);
    let stop = Arc::new(AtomicBool::new(false));
    let mut parts = Parts::default();
    parts.threads.push(radio::listen_zep(zep.try_clone()?, events.clone(), stop.clone())?);
    if let Some(coap) = &coap {
        parts.threads.push(radio::listen_coap(coap.try_clone()?, events.clone(), stop.clone())?);
    }
    let module = match &config.xbee {
        Some(xbee) => {
            let settings = xbee.settings().map_err(ConfigError::from)?;
            let (did, time) = (config.radio.did, xbee.time);
            let (module, threads, classic) = xbee::start(settings, (did, time), events.clone(), stop.clone())?;
            parts.threads.extend(threads);
            parts.tasks.push(("what takes classic frames of the XBee module", classic));
            Some(module)
        }
        None => None,
    };
    let told = revoked.subscribe();
    let air = Air::new(zep, config.air.clone(), config.radio.sid.0);
    let standing = Arc::new(Standing::default());
    let mut engine = Engine {
        setup: SetupSource {
            config: Config::read(folder, wall_clock())?,
            keys,
            boot,
            local: local.clone(),
            capture: capture.is_some(),
        },
        air,
        coap,
        module,
        capture,
        spool,
        credentials: credentials.clone(),
        standing: standing.clone(),
        stored,
        runs,
        revoked,
        classic: classic::Waiting::default(),
        lorawan,
        lorawan_held: lorawan::desk::Held::default(),
        persisted: 0,
        refusals: Vec::new(),
        clock: Clock::new(),
        broken: None,
        probed: (Millis(0), metrics::Store::Writes),
        looked: Millis(0),
        away: false,
        beat: Box::new(beat),
    };
    let reader = engine.spool.reader()?;
    // What may fail comes before the engine's thread: until then the store is closed well by itself.
    let uplink = match &config.uplink {
        Destination::Cloud { cloud, groups } => {
            let live = Arc::new(LiveRevoked::from_pointee(watch_revoked.borrow().clone()));
            let way = Way { cloud: cloud.clone(), anchor: anchor.clone(), groups: *groups, revoked: live };
            let uplink = Arc::new(Uplink::new(way, config.identity.gateway, credentials.clone(), from_cloud)?);
            let bridge = events.clone();
            parts.threads.push(std::thread::Builder::new().name("downlink".into()).spawn(move || {
                while let Some(event) = cloud_events.blocking_recv() {
                    if bridge.send(Event::Cloud(event)).is_err() {
                        return;
                    }
                }
            })?);
            Some(uplink)
        }
        // Nobody takes what the engine would pass on, and nobody sends anything down.
        Destination::None { .. } => None,
    };
    if let Some(address) = config.metrics {
        let listener = tokio::net::TcpListener::bind(address).await.map_err(|e| DaemonError::Metrics(address, e))?;
        parts.tasks.push(("the listener for metrics", tokio::spawn(metrics::serve(listener, events.clone()))));
    }
    let classic = classic::listen(&config, &Desk::new(events.clone())).await?;
    parts.tasks.extend(classic.map(|task| ("the listener for classic frames", task)));
    let lorawan = lorawan::session::start(&config, &events, commands)?;
    parts.tasks.extend(lorawan.map(|task| ("the session with the LoRaWAN broker", task)));
    let (main, mut turning) = Turning::start(move || engine.run(restored, &queue))?;
    if let Some(uplink) = uplink {
        let renew = renew(config.clone(), vault.clone(), anchor, credentials.clone(), uplink.clone(), events.clone());
        parts.tasks.extend(talk(&uplink, reader, watch_stored, asked, watch_revoked));
        parts.tasks.push(("the renewal of the certificate", tokio::spawn(renew)));
    }
    let audit = tokio::spawn(selfcheck::watch(own, standing, told, events.clone()));
    parts.tasks.push(("the audit of itself", audit));
    let site = Site { config: config.clone(), key: local };
    site.tell(&events);
    ready(&config);
    let ended = tokio::select! {
        // First: others end when it has.
        biased;
        why = turning.ended() => Err(why),
        attended = attend(&config, &vault, &credentials, &site, &events, &parts) => attended,
    };
    stop.store(true, Ordering::Relaxed);
    for (_, task) in parts.tasks {
        task.abort();
        let _ = task.await;
    }
    let _ = tokio::task::spawn_blocking(move || {
        let _ = events.send(Event::Stop);
        drop(events);
        parts.threads.into_iter().chain([main]).for_each(|t| drop(t.join()));
    })
    .await;
    ended
}

/// The engine's thread, as long as it turns.
struct Turning(oneshot::Receiver<Result<(), DaemonError>>);

impl Turning {
    fn start(
        run: impl FnOnce() -> Result<(), DaemonError> + Send + 'static,
    ) -> std::io::Result<(std::thread::JoinHandle<()>, Self)> {
        let (ends, ended) = oneshot::channel();
        // A panic drops the channel.
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || drop(ends.send(run())))?;
        Ok((thread, Self(ended)))
    }

    /// Waits until it has ended, and says why. Without it nothing is heard or kept, whatever else runs.
    async fn ended(&mut self) -> DaemonError {
        match (&mut self.0).await {
            Ok(Err(why)) => why,
            Ok(Ok(())) | Err(_) => DaemonError::Engine,
        }
    }
}

/// Threads and tasks that run until they are told to end.
#[derive(Default)]
struct Parts {
    threads: Vec<std::thread::JoinHandle<()>>,
    tasks: Vec<(&'static str, JoinHandle<()>)>,
}

impl Parts {
    /// One that has ended, as one that panicked has.
    fn ended(&self) -> Option<String> {
        let thread = self.threads.iter().find(|t| t.is_finished());
        let thread = thread.map(|t| format!("the thread \"{}\"", t.thread().name().unwrap_or_default()));
        thread.or_else(|| self.tasks.iter().find(|(_, t)| t.is_finished()).map(|(what, _)| (*what).to_owned()))
    }
}

/// Everything between this gateway and the cloud, as tasks that never end by themselves.
fn talk(
    uplink: &Arc<Uplink>,
    reader: SpoolReader,
    stored: watch::Receiver<u64>,
    asked: mpsc::Receiver<(u64, Box<[u8]>)>,
    mut revoked: watch::Receiver<Revoked>,
) -> [(&'static str, JoinHandle<()>); 4] {
    let [drains, listens, exchanges, heeds] = std::array::from_fn(|_| uplink.clone());
    let heeds = async move {
        while revoked.changed().await.is_ok() {
            let revoked = revoked.borrow_and_update().clone();
            heeds.revoke(revoked);
        }
    };
    [
        ("what brings the cloud what is stored", tokio::spawn(async move { drains.drain(reader, stored).await })),
        ("what takes downlinks of the cloud", tokio::spawn(async move { listens.listen().await })),
        ("what carries key exchanges to the cloud", tokio::spawn(async move { exchanges.exchange(asked).await })),
        ("what heeds revoked certificates", tokio::spawn(heeds)),
    ]
}

/// What the operator tells a gateway without a cloud, by a file.
struct Site {
    config: Arc<Config>,
    key: Option<Arc<AgreementKey>>,
}

impl Site {
    /// Hands the file to the engine, which knows by its version whether it is new. What is no file for this gateway is counted,
    /// and what was applied before stays.
    fn tell(&self, events: &SyncSender<Event>) {
        let (Destination::None { state }, Some(key)) = (&self.config.uplink, &self.key) else { return };
        if !state.exists() {
            return tracing::warn!(
                "no {} yet: the operator writes it with: fivefold gateway state {}",
                state.display(),
                self.config.name
            );
        }
        let read = || -> Result<_, String> {
            let ca = std::fs::read(self.config.folder.join(CA_FILE)).map_err(|e| e.to_string())?;
            let file = std::fs::read(state).map_err(|e| e.to_string())?;
            site::open(&ca, self.config.identity, key, &file).map_err(|e| e.to_string())
        };
        let event = read().map_or_else(
            |why| {
                tracing::error!("{}: {why}; what was known before stays", state.display());
                Event::Refused(Rejected::new(Code::ChannelSequence, "a state file that is none for this gateway"))
            },
            Event::State,
        );
        let _ = events.send(event);
    }
}

/// Waits for signals, for files that change, and for a part that ends by itself.
async fn attend(
    config: &Config,
    vault: &Vault,
    credentials: &Credentials,
    site: &Site,
    events: &SyncSender<Event>,
    parts: &Parts,
) -> Result<(), DaemonError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut tick = tokio::time::interval(LOOK_AT_FILES);
    let mut seen = changed(config);
    loop {
        let asked = tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => true,
            _ = tick.tick() => false,
        };
        if let Some(part) = parts.ended() {
            return Err(DaemonError::Part(part));
        }
        let now = changed(config);
        if !asked && now == seen {
            continue;
        }
        seen = now;
        site.tell(events);
        match credentials.reload(config, vault) {
            Ok(true) => tracing::info!("new certificate {}", credentials.identity().current().serial()),
            Ok(false) => {}
            Err(why) => tracing::error!("the old certificate stays: {why}"),
        }
        match Config::read(&config.folder, wall_clock()) {
            Ok(new) => drop(events.try_send(Event::Air(new.air))),
            Err(why) => tracing::error!("the old configuration stays: {why}"),
        }
    }
}

/// Gets the next certificate when it is time, for ever.
async fn renew(
    config: Arc<Config>,
    vault: Arc<Vault>,
    anchor: Anchor,
    credentials: Arc<Credentials>,
    uplink: Arc<Uplink>,
    events: SyncSender<Event>,
) {
    let renewal =
        Renewal { folder: &config.folder, vault: &vault, name: config.identity, anchor: &anchor, desk: &*uplink };
    let mut pause = FIRST_RENEWAL_PAUSE;
    loop {
        let current = credentials.identity().current();
        let failed = match renewal.attempt(&current, wall_clock()).await {
            Ok(Step::NotYet(at)) => {
                pause = FIRST_RENEWAL_PAUSE;
                // Not to the end: the clock may be set, and the pair replaced by hand.
                let wait = at.since(wall_clock()).clamp(1_000, LOOK_AT_CERTIFICATE);
                tokio::time::sleep(Duration::from_millis(wait)).await;
                continue;
            }
            Ok(Step::Proven) => match credentials.settle(&config, &vault) {
                Ok(()) => {
                    tracing::info!("renewed: certificate {}", credentials.identity().current().serial());
                    continue;
                }
                Err(why) => why.to_string(),
            },
            Ok(Step::Again(rejected, why)) => {
                if let Some(rejected) = rejected {
                    let _ = events.try_send(Event::Refused(rejected));
                }
                why
            }
            Err(why) => why.to_string(),
        };
        tracing::warn!("the certificate is not renewed yet: {failed}");
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_RENEWAL_PAUSE);
    }
}

/// Certificates of the cloud that a state says are revoked.
fn revoked_in(state: &AppliedState) -> Revoked {
    state.revoked_serials().into_iter().map(Serial).collect()
}

/// When the files that may be replaced were written last.
fn changed(config: &Config) -> Vec<Option<SystemTime>> {
    use fivefold_keep::share::{CERTIFICATE_FILE, GATEWAY_FILE, SECRETS_FILE};
    let written = |file| std::fs::metadata(config.folder.join(file)).and_then(|m| m.modified()).ok();
    let mut all: Vec<_> = [CERTIFICATE_FILE, GATEWAY_FILE, SECRETS_FILE].map(written).into();
    if let Destination::None { state } = &config.uplink {
        all.push(std::fs::metadata(state).and_then(|m| m.modified()).ok());
    }
    all
}

fn random<const N: usize>() -> Result<[u8; N], DaemonError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| DaemonError::Random)?;
    Ok(bytes)
}

/// Makes the same setup again, for an engine that is built anew.
struct SetupSource {
    config: Config,
    keys: Vec<(u8, Key<E1, 16>)>,
    boot: GatewayBoot,
    local: Option<Arc<AgreementKey>>,
    capture: bool,
}

impl SetupSource {
    fn engine(&self, now: Millis, restored: Restored) -> Result<Gateway, DaemonError> {
        let local = match (&self.local, PeerKid::new(LOCAL_KID)) {
            (Some(key), Some(kid)) => Some(Local { kid, key: key.clone(), seed: random()? }),
            _ => None,
        };
        let setup = Setup {
            net: self.config.identity.net,
            gateway: self.config.identity.gateway,
            boot: self.boot,
            identity: self.config.radio,
            policy: self.config.policy,
            seed: random()?,
            keys: self.keys.iter().map(|(index, key)| (*index, Key::new(*key.danger_bytes()))).collect(),
            coap_devices: self.config.coap_devices.clone(),
            limits: self.config.limits,
            capture: if self.capture { Capture::On } else { Capture::Off },
            local,
        };
        let mut gateway = Gateway::new(now, setup, restored);
        if self.config.xbee.as_ref().is_some_and(|xbee| xbee.encryption() == Encryption::On) {
            gateway.note_module_class(LinkClass::XbeeEe);
        }
        for s in &self.config.danger_synced {
            if let Err(rejected) = gateway.danger_assume_synced(s.did, s.sid, s.key_index, s.counter) {
                tracing::error!("link.danger_synced {}: {rejected}", s.sid);
            }
        }
        Ok(gateway)
    }
}

/// The thread that owns engine and store.
struct Engine {
    setup: SetupSource,
    air: Air,
    coap: Option<UdpSocket>,
    module: Option<module::Sender>,
    capture: Option<pcap::Capture<std::io::BufWriter<std::fs::File>>>,
    spool: Spool,
    credentials: Arc<Credentials>,
    standing: Arc<Standing>,
    stored: watch::Sender<u64>,
    runs: mpsc::Sender<(u64, Box<[u8]>)>,
    revoked: watch::Sender<Revoked>,
    classic: classic::Waiting,
    lorawan: mpsc::Sender<lorawan::command::Downlink>,
    lorawan_held: lorawan::desk::Held,
    persisted: u64,
    /// Why things were refused, to be kept within a second.
    refusals: Vec<Refusal>,
    clock: Clock,
    broken: Option<Millis>,
    // When the store was probed last, and how.
    probed: (Millis, metrics::Store),
    looked: Millis,
    away: bool,
    /// Says that the engine turns.
    beat: Box<dyn Fn() + Send>,
}

impl Engine {
    fn run(&mut self, restored: Restored, queue: &Receiver<Event>) -> Result<(), DaemonError> {
        let mut gateway = self.setup.engine(self.clock.now(), restored)?;
        self.carry_out(&mut gateway);
        let mut group = Vec::with_capacity(GROUP);
        loop {
            let now = self.clock.now();
            let due = gateway.poll_timeout().map_or(1_000, |at| at.since(now)).min(1_000);
            let first = match queue.recv_timeout(Duration::from_millis(due)) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let now = self.clock.now();
            if let Some(first) = first {
                group.push(first);
                group.extend(queue.try_iter().take(GROUP - 1));
            }
            for event in &group {
                if let Event::Frame(frame, _) = event {
                    gateway.foresee(frame);
                }
            }
            for event in group.drain(..) {
                if matches!(event, Event::Stop) {
                    self.carry_out(&mut gateway);
                    self.note();
                    return Ok(());
                }
                self.handle(&mut gateway, now, event);
            }
            if gateway.poll_timeout().is_some_and(|at| at <= now) {
                gateway.handle_timeout(now);
            }
            self.carry_out(&mut gateway);
            if now.since(self.looked) >= 1_000 {
                self.looked = now;
                self.clock.follow();
                self.mend(&mut gateway);
                self.note();
                (self.beat)();
            }
        }
    }

    fn handle(&mut self, gateway: &mut Gateway, now: Millis, event: Event) {
        match event {
            Event::Air(hearers) => self.air.set_hearers(hearers),
            Event::Classic(mut event) => {
                let ticket = self.classic.ticket(event.done.take());
                gateway.handle_classic(now, ticket, event.arrival());
            }
            Event::Cloud(FromCloud::Away(code, why)) => {
                if !std::mem::replace(&mut self.away, true) {
                    tracing::warn!("the cloud is away: {why}; messages are kept until it is back");
                }
                if let Some(rejected) = code {
                    gateway.count(rejected, None);
                }
                gateway.handle_cloud(now, Cloud::Away);
            }
            Event::Cloud(FromCloud::Exchanged(ticket, reply)) => gateway.handle_exchanged(ticket, reply.as_deref()),
            Event::Cloud(FromCloud::Downlinks(bytes)) => match parse_downlinks(&bytes) {
                Ok(downlinks) => downlinks.iter().for_each(|d| gateway.handle_downlink(now, &d)),
                Err(malformed) => tracing::error!("downlinks of the cloud: {}", malformed.reason),
            },
            Event::Cloud(FromCloud::Reachable) => {
                if std::mem::replace(&mut self.away, false) {
                    tracing::info!(kept_bytes = gateway.spool_used(), "the cloud is back");
                }
                gateway.handle_cloud(now, Cloud::Reachable);
            }
            Event::Cloud(FromCloud::Reply(boot, bytes)) => match Reply::parse(&bytes) {
                Ok(reply) => gateway.handle_uplink_reply(now, boot, &reply),
                Err(malformed) => tracing::error!("reply of the cloud: {}", malformed.reason),
            },
            Event::Coap(from, datagram) => {
                let to = self.setup.config.coap.unwrap_or(from);
                self.record(|c, at| c.coap(at, from, to, &datagram));
                gateway.handle_coap(now, from, &datagram);
            }
            Event::Frame(mut frame, lqi) => {
                self.record(|c, at| c.frame(at, &frame));
                gateway.handle_frame(now, &mut frame, Some(lqi));
            }
            Event::Lorawan(heard) => self.lorawan_held.hand_in(gateway, &mut self.classic, now, heard),
            Event::Message { source, reach, rssi, mut bytes } => {
                gateway.handle_message(now, (source, reach), &mut bytes, rssi);
            }
            Event::Page(page, asked) => {
                let is_asked = page == metrics::Page::Ready;
                let store = if is_asked { self.probed(now) } else { metrics::Store::default() };
                let beside = metrics::Beside {
                    audit: &self.standing,
                    certificate: self.credentials.identity().current().validity(),
                    oldest: self.spool.oldest().ok().flatten(),
                    store,
                };
                let _ = asked.send(page.write(gateway, now, &beside));
            }
            Event::Refused(rejected) => gateway.count(rejected, None),
            Event::RefusedOften(rejected, times) => gateway.count_often(rejected, times),
            Event::State(parts) => {
                // What is refused is counted there.
                for part in &parts {
                    let _ = gateway.handle_state(now, part);
                }
            }
            Event::Stop => {}
        }
    }

    fn record(
        &mut self,
        write: impl FnOnce(&mut pcap::Capture<std::io::BufWriter<std::fs::File>>, Duration) -> std::io::Result<()>,
    ) {
        let at = Duration::from_millis(self.clock.now().0);
        if let Some(capture) = &mut self.capture
            && let Err(why) = write(capture, at)
        {
            tracing::error!("the capture ends here: {why}");
            self.capture = None;
        }
    }

    /// Carries out what the engine wants, in order; writes of one round are one transaction.
    fn carry_out(&mut self, gateway: &mut Gateway) {
        loop {
            if let Err(why) = self.round(gateway) {
                tracing::error!("{why}");
                gateway.handle_store_failed();
                self.classic.fail();
                self.lorawan_held.fail();
                self.broken = Some(self.clock.now());
                return;
            }
            if !self.spool.is_open() && !gateway.has_output() {
                return self.lorawan_held.safe();
            }
        }
    }

    fn round(&mut self, gateway: &mut Gateway) -> Result<(), SpoolError> {
        while let Some(output) = gateway.poll() {
            match output {
                Output::Classic { ticket, done } => self.classic.done(ticket, done),
                Output::Dropped { rejected, sid } => {
                    tracing::debug!(code = rejected.code.as_str(), sid = ?sid, "{}", rejected.reason);
                }
                Output::Explained(refusal) => self.refusals.push(*refusal),
                Output::Expanded { sid, toward, message } => {
                    let node = pcap::tiny_endpoint(sid);
                    let (from, to) = match toward {
                        Toward::Cloud => (node, pcap::PROXY),
                        Toward::Device => (pcap::PROXY, node),
                    };
                    self.record(|c, at| c.coap(at, from, to, &message));
                }
                Output::Exchange { ticket, envelope } => {
                    if self.runs.try_send((ticket, envelope)).is_err() {
                        gateway.handle_exchanged(ticket, None);
                    }
                }
                Output::Lorawan { dev_eui, f_port, payload } => {
                    // What does not get there, the device asks for again.
                    let _ = self.lorawan.try_send(lorawan::command::Downlink { dev_eui, f_port, payload });
                }
                Output::Lookup(lookup) => {
                    let stored = self.spool.answer(lookup)?;
                    gateway.handle_stored(self.clock.now(), stored);
                }
                Output::Persist(record) => {
                    let freed = self.spool.write(&record)?;
                    if let Record::State(applied) = &record {
                        self.revoked.send_replace(revoked_in(applied));
                    }
                    gateway.handle_freed(freed);
                    self.persisted += 1;
                }
                Output::Send { to, message } => {
                    if let Some(socket) = &self.coap {
                        let _ = socket.send_to(&message, to);
                    }
                    let from = self.setup.config.coap.unwrap_or(to);
                    self.record(|c, at| c.coap(at, from, to, &message));
                }
                Output::Transmit(frame) => {
                    self.air.send(&frame, self.clock.now().0);
                    self.record(|c, at| c.frame(at, &frame));
                }
                Output::TransmitMessage { to, message } => {
                    let to = to.map_or(Peer::Everybody, Peer::Long);
                    if let Some(module) = &self.module
                        && let Err(why) = module.send(to, message)
                    {
                        tracing::debug!("an E1S message is not sent: {why}");
                    }
                }
            }
        }
        if self.spool.is_open() {
            self.spool.commit()?;
            self.stored.send_replace(self.persisted);
            gateway.handle_durable(self.clock.now(), self.persisted);
        }
        Ok(())
    }

    /// Keeps why things were refused in the last second: the engine tells a bounded number.
    fn note(&mut self) {
        let refusals = std::mem::take(&mut self.refusals);
        if self.broken.is_none()
            && let Err(why) = self.spool.note(&refusals, self.clock.now())
        {
            tracing::debug!("{} explanations of refusals are not kept: {why}", refusals.len());
        }
    }

    /// Whether the store can be written, as it was tried within the last seconds.
    fn probed(&mut self, now: Millis) -> metrics::Store {
        if self.broken.is_some() {
            return metrics::Store::Fails;
        }
        let (at, found) = self.probed;
        // What is being written now says more than a probe.
        if self.spool.is_open() || (found == metrics::Store::Writes && now.since(at) < PROBE_PAUSE) {
            return found;
        }
        let found = match self.spool.probe() {
            Ok(()) => metrics::Store::Writes,
            Err(SpoolError::Full { .. }) => metrics::Store::Full,
            Err(_) => metrics::Store::Fails,
        };
        self.probed = (now, found);
        found
    }

    /// Tries a store that failed again, with an engine made from what is in it.
    fn mend(&mut self, gateway: &mut Gateway) {
        let now = self.clock.now();
        if self.broken.is_none_or(|at| now.since(at) < STORE_PAUSE.as_millis() as u64) {
            return;
        }
        self.broken = Some(now);
        let mended = self.spool.probe().and_then(|()| self.spool.restore());
        let Ok(restored) = mended else { return };
        let Ok(fresh) = self.setup.engine(now, restored) else { return };
        tracing::warn!("the store works again: messages are taken from now on");
        *gateway = fresh;
        self.persisted = 0;
        self.broken = None;
        self.carry_out(gateway);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_panicked_is_named() {
        let (go, waits) = sync_channel::<()>(1);
        let thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.into()).spawn(run).unwrap()
        };
        let zep = thread("zep", Box::new(move || waits.recv().unwrap_or_default()));
        let mut parts = Parts { threads: vec![zep], tasks: vec![("what waits", tokio::spawn(std::future::pending()))] };
        assert_eq!(parts.ended(), None);
        parts.tasks.push(("what panics", tokio::spawn(async { panic!("as a mistake of ours does") })));
        while !parts.tasks[1].1.is_finished() {
            tokio::task::yield_now().await;
        }
        assert_eq!(parts.ended().unwrap(), "what panics");
        parts.threads.push(thread("coap", Box::new(|| panic!("as a mistake of ours does"))));
        while !parts.threads[1].is_finished() {
            std::thread::yield_now();
        }
        assert_eq!(parts.ended().unwrap(), "the thread \"coap\"");
        drop(go);
    }

    #[tokio::test]
    async fn an_engine_that_ended_is_told_of_with_its_reason_and_one_that_panicked_too() {
        let (fails, mut turning) = Turning::start(|| Err(DaemonError::Random)).unwrap();
        assert!(matches!(turning.ended().await, DaemonError::Random));
        fails.join().unwrap();
        let (panics, mut turning) = Turning::start(|| panic!("as a mistake of ours does")).unwrap();
        assert!(matches!(turning.ended().await, DaemonError::Engine));
        assert!(panics.join().is_err());
        let (go, waits) = sync_channel(1);
        let (turns, mut turning) = Turning::start(move || {
            let () = waits.recv().unwrap();
            Ok(())
        })
        .unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), turning.ended()).await.is_err());
        go.send(()).unwrap();
        assert!(matches!(turning.ended().await, DaemonError::Engine));
        turns.join().unwrap();
    }
}
