//! The running cloud: two listeners, the registry's watcher, and an end that loses nothing.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fivefold_audit::selfcheck::Refused;
use fivefold_core::time::Millis;
use fivefold_keep::registry::{NotIssued, Registry};
use fivefold_keep::tls::{LiveIdentity, TlsError, server_config_api, server_config_e4, server_config_enrol};
use fivefold_keep::vault::Vault;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::{self, ClockWrong};
use crate::config::{Config, ConfigError};
use crate::enrol::Desk;
use crate::ingest::Doors;
use crate::log::{EVIDENCE_LOG, Logging, Missed};
use crate::selfcheck::{self, SelfCheck};
use crate::service::{Keeper, Service, ServiceError, by_itself};
use crate::store::{Store, StoreError, Write};
use crate::{alarm, api, ingest, meshlium, outbox, witnesses};

/// How often the registry is looked at: a revocation is in force within a second.
const REGISTRY: Duration = Duration::from_millis(300);
/// How often certificate files are looked at.
const CERTIFICATE: Duration = Duration::from_secs(2);
/// How often it is seen whether a rotation of a network's key can take its next step.
const ROTATIONS: Duration = Duration::from_secs(1);
/// How often it is seen whether something waits for the log, when nothing is stored.
const LOG: Duration = Duration::from_secs(1);
/// How often it is seen whether something is to be pruned; and when there was more than one round's work.
const LIMITS: Duration = Duration::from_secs(10);
const MORE: Duration = Duration::from_millis(100);
/// How often the engine looks at silence and gaps.
const WATCH: Duration = Duration::from_secs(10);
/// How long open requests may take to end.
const ENDING: Duration = Duration::from_secs(5);

/// Why the cloud does not run. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The clock cannot be right.
    #[error(transparent)]
    Clock(#[from] ClockWrong),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The MQTT broker's files cannot be used.
    #[error(transparent)]
    Mqtt(#[from] meshlium::Unprepared),
    /// Something critical about itself, or that cannot be read.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A sink of alarms cannot be used.
    #[error(transparent)]
    Alarm(#[from] alarm::Unprepared),
    /// A sink of readings cannot be used.
    #[error(transparent)]
    Outbox(#[from] outbox::Unprepared),
    /// The registry cannot be read.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened at.
    #[error("{address} ({what}) cannot be listened at: {source}; stop what uses it, or change {what} in cloud.toml")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// `ingest.bind` or `api.bind`.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread that writes the store has ended by itself.
    #[error(
        "the thread that writes the store has ended, which is a mistake of this program: its last words stand above; start the \
         cloud again, what was acknowledged is kept"
    )]
    Writer,
    /// A task has ended by itself.
    #[error(
        "a task of the cloud has ended, which is a mistake of this program: its last words stand above; start the cloud again, what \
         was acknowledged is kept"
    )]
    Task,
    /// The runtime could not start.
    #[error("the system gives no threads or signals: {0}")]
    System(std::io::Error),
}

impl DaemonError {
    /// Whether the next start would end in the same way until somebody mends what it names. What may pass by itself (the clock, an
    /// address, the disk, whatever is about to come) does not last, nor does what happened while it ran.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Config(e) => e.is_lasting(),
            Self::Store(e) => e.is_lasting(),
            Self::Service(e) => e.is_lasting(),
            Self::Alarm(e) => e.is_lasting(),
            Self::Mqtt(e) => e.is_lasting(),
            Self::Outbox(e) => e.is_lasting(),
            Self::Refused(e) => e.is_lasting(),
            Self::Tls(_) => true,
            Self::Clock(_) | Self::Listen { .. } | Self::System(_) | Self::Task | Self::Writer => false,
        }
    }
}

/// Checks a folder as far as that goes without taking anything: configuration, passphrase, certificate, registry, clock.
/// Returns the resolved configuration, one setting a line.
///
/// # Errors
/// [`DaemonError`].
pub fn check(folder: &Path) -> Result<String, DaemonError> {
    clock::check(clock::now())?;
    let config = Config::load(folder)?;
    let vault = config.open_vault()?;
    let identity = config.identity(&vault)?;
    config.anchor()?;
    config.meshlium_mqtt.as_ref().map(meshlium::MeshliumMqtt::prepare).transpose()?;
    config.alarm_sinks.iter().try_for_each(|sink| sink.prepare(&vault).map(drop))?;
    config.outbox.iter().try_for_each(|sink| sink.prepare(&vault).map(drop)).map_err(outbox::Unprepared::from)?;
    let registry = fivefold_keep::registry::Registry::open_read_only(&config.registry).map_err(ServiceError::from)?;
    registry.version().map_err(ServiceError::from)?;
    let (_, until) = identity.validity();
    let days = until.since(clock::now()) / 86_400_000;
    let issuing = match config.issuing(&vault)? {
        Some(issuing) => format!("{} days left", issuing.ends().saturating_sub(clock::now().0 / 1000) / 86_400),
        None => "none: the operator signs".to_owned(),
    };
    let empty = if config.store.exists() { "" } else { "\nstore.begins = empty: there is no store there yet" };
    Ok(format!("{}\ncertificate.days_left = {days}\nissuer = {issuing}{empty}", config.describe()))
}

/// Addresses that a running cloud listens at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// For gateways.
    pub ingest: SocketAddr,
    /// For people and programs.
    pub api: SocketAddr,
}

/// Runs until SIGTERM or SIGINT. `ready` is told once both listeners are open, and `beat` called each second in which the store's
/// writer had its turn.
///
/// # Errors
/// [`DaemonError`] when it cannot start, or not go on.
pub fn run(folder: &Path, ready: impl FnOnce(Listening), beat: impl Fn()) -> Result<(), DaemonError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(DaemonError::System)?;
    let folder = folder.to_owned();
    let outcome = runtime.block_on(async move {
        let mut running = Running::start(&folder).await?;
        let mut ends = [signal(SignalKind::terminate()), signal(SignalKind::interrupt())]
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(DaemonError::System)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(DaemonError::System)?;
        ready(running.listening);
        let (Some(interrupt), Some(terminate)) = (ends.pop(), ends.pop()) else { return Ok(()) };
        let (mut interrupt, mut terminate) = (interrupt, terminate);
        let ended = {
            let mut turning = std::pin::pin!(running.service.turn(beat));
            loop {
                tokio::select! {
                    _ = terminate.recv() => break Ok(()),
                    _ = interrupt.recv() => break Ok(()),
                    _ = hangup.recv() => running.reload_certificate(),
                    () = &mut turning => break Err(DaemonError::Writer),
                    why = ended(&mut running.listeners, &mut running.tasks) => break Err(why),
                }
            }
        };
        tracing::info!("ending");
        running.stop().await;
        ended
    });
    runtime.shutdown_timeout(ENDING);
    outcome
}

/// A cloud that runs in this process.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub listening: Listening,
    /// What it shares.
    pub service: Arc<Service>,
    config: Config,
    identity: LiveIdentity,
    vault: Arc<Vault>,
    stop: watch::Sender<bool>,
    // They end when they are told, the tasks never do.
    listeners: JoinSet<()>,
    tasks: JoinSet<()>,
}

impl Running {
    /// Starts all of it.
    ///
    /// # Errors
    /// [`DaemonError`].
    pub async fn start(folder: &Path) -> Result<Self, DaemonError> {
        let now = clock::check(clock::now())?;
        let folder = folder.to_owned();
        // Deriving the vault's key takes some tenths of a second, and the store may be large.
        let opened = tokio::task::spawn_blocking(move || open(&folder, now)).await;
        let (config, identity, vault, service) =
            opened.map_err(|e| DaemonError::System(std::io::Error::other(e)))??;
        let identity = LiveIdentity::new(identity);
        let service = Arc::new(service.with_identity(identity.clone()));
        let e4 = server_config_e4(&identity, &config.anchor()?, service.roll.clone(), config.groups)?;
        let enrolment = server_config_enrol(&identity, service.desk.ca().as_bytes(), config.groups)?;
        let doors = Doors { gateways: Arc::new(e4), enrolment: Arc::new(enrolment) };
        let https = server_config_api(&identity)?;
        let to_gateways = listen(config.ingest, "ingest.bind")?;
        let to_people = listen(config.api, "api.bind")?;
        let at = |listener: &TcpListener, or| listener.local_addr().unwrap_or(or);
        let listening = Listening { ingest: at(&to_gateways, config.ingest), api: at(&to_people, config.api) };
        let stop = watch::Sender::new(false);
        let (mut listeners, mut tasks) = (JoinSet::new(), JoinSet::new());
        listeners.spawn(ingest::serve(to_gateways, doors, service.clone(), stop.subscribe()));
        let api = (Arc::new(https), service.clone(), config.trust.clone(), stop.subscribe());
        listeners.spawn(async move { api::serve(to_people, api.0, api.1, &api.2, api.3).await });
        tasks.spawn(watch_registry(service.clone()));
        tasks.spawn(watch_rotations(service.clone()));
        tasks.spawn(watch_time(service.clone()));
        tasks.spawn(keep_limits(service.clone()));
        tasks.spawn(selfcheck::watch(service.clone()));
        if let Some(logging) = service.logging() {
            tasks.spawn(write_log(service.clone()));
            let (wanted, missed) = (logging.wanted().clone(), Arc::new(Missed::new(service.clone())));
            let at = service.clone();
            let publish = move || {
                let (service, missed) = (at.clone(), missed.clone());
                async move {
                    let Some(done) = service.publish_head(clock::now()).await else { return };
                    let looked = tokio::task::spawn_blocking(move || missed.look(&done, clock::now())).await;
                    looked.unwrap_or_else(|error| tracing::error!(%error, "nobody looked for missing witnesses"));
                }
            };
            listeners.spawn(witnesses::run(config.head_every, wanted, stop.subscribe(), publish));
        }
        if let Some(mqtt) = &config.meshlium_mqtt {
            let options = mqtt.prepare()?;
            tasks.spawn(meshlium::run(service.clone(), mqtt.clone(), options));
        }
        alarm::start(&mut tasks, &service, &config.alarm_sinks, &vault).await?;
        outbox::start(&mut tasks, &service, &config.outbox, &vault).await?;
        let running = Self { listening, service, config, identity, vault, stop, listeners, tasks };
        Ok(running.with_certificate_watch())
    }

    fn with_certificate_watch(mut self) -> Self {
        let (config, identity, vault) = (self.config.clone(), self.identity.clone(), self.vault.clone());
        let service = self.service.clone();
        self.tasks.spawn(async move {
            let written = || [&config.certificate, &config.key, &config.issuer, &config.issuer_key].map(modified);
            let mut seen = written();
            loop {
                tokio::time::sleep(CERTIFICATE).await;
                let now = written();
                if now != seen {
                    seen = now;
                    reload(&config, &identity, &service, &vault);
                }
            }
        });
        self
    }

    /// Takes the certificate and the issuing key that are in the folder now. What cannot be used leaves the old one there.
    pub fn reload_certificate(&self) {
        reload(&self.config, &self.identity, &self.service, &self.vault);
    }

    /// Ends: no new connections, open requests are finished, what was accepted is written.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let ended = async { while self.listeners.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(ENDING, ended).await;
        // Connections hold the service; they are told to end, and get a moment for what is under way.
        let watchers = 7
            + self.config.alarm_sinks.len()
            + self.config.outbox.len()
            + usize::from(self.config.meshlium_mqtt.is_some())
            + 2 * usize::from(self.service.logging().is_some());
        for _ in 0..50 {
            if Arc::strong_count(&self.service) <= watchers {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.listeners.shutdown().await;
        self.tasks.shutdown().await;
    }
}

/// Waits until one has ended by itself, as one that panicked has: without it the rest is of no use.
async fn ended(listeners: &mut JoinSet<()>, tasks: &mut JoinSet<()>) -> DaemonError {
    tokio::select! {
        Some(_) = listeners.join_next() => DaemonError::Task,
        Some(_) = tasks.join_next() => DaemonError::Task,
        else => std::future::pending().await,
    }
}

type Opened = (Config, fivefold_keep::tls::Identity, Arc<Vault>, Service);

fn open(folder: &Path, now: Millis) -> Result<Opened, DaemonError> {
    let config = Config::load(folder)?;
    let vault = Arc::new(config.open_vault()?);
    let identity = config.identity(&vault)?;
    let store = Store::open(&config.store)?;
    let desk = Desk::new(config.issuing(&vault)?, config.ca_pem()?);
    let book = config.registry.clone();
    // Without them readings are stored and proven all the same: nobody is shown which gateway heard them.
    match Registry::open(&book, by_itself(now))
        .map_err(NotIssued::from)
        .and_then(|mut r| desk.certify_receipts(&mut r, now))
    {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "keys for receipts of gateways were certified"),
        Err(error) => tracing::warn!(%error, "keys for receipts of gateways have no certificate"),
    }
    let service = Service::open(store, book, vault.clone(), config.renewals, now)?.with_desk(desk);
    let key = config.log_key(&vault)?;
    // Readings go on being stored: what waits for the log waits in the store.
    let service = match Logging::open(&config.log, key, &config.witnesses, config.log_serving, service.cloud.memory()) {
        Ok(logging) => service.with_logging(logging),
        Err(error) => {
            tracing::error!(code = "EV-05", %error, "nothing is logged");
            let mut write = Write { now, ..Write::default() };
            write.count(EVIDENCE_LOG);
            service.cloud.memory().store().commit_now(write)?;
            service
        }
    };
    let publishes = config.meshlium_mqtt.is_some();
    let keeper = Keeper::new(config.limits, config.folder.clone(), config.store.clone(), publishes);
    let service = service
        .with_keeper(keeper)
        .with_outbox(&config.outbox)
        .with_selfcheck(SelfCheck::new(config.clone(), vault.clone()));
    service.selfcheck().map_or(Ok(()), |own| own.may_start(&service, now))?;
    Ok((config, identity, vault, service))
}

fn listen(address: SocketAddr, what: &'static str) -> Result<TcpListener, DaemonError> {
    let failed = |source| DaemonError::Listen { address, what, source };
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(failed)?;
    socket.set_reuseaddr(true).map_err(failed)?;
    socket.bind(address).map_err(failed)?;
    socket.listen(1024).map_err(failed)
}

fn modified(path: &PathBuf) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

fn reload(config: &Config, identity: &LiveIdentity, service: &Service, vault: &Vault) {
    match config.issuing(vault) {
        Ok(issuing) => service.desk.replace_issuing(issuing),
        Err(error) => tracing::error!(%error, "the new issuing key cannot be used; the old one stays"),
    }
    match config.identity(vault) {
        Ok(new) => {
            tracing::info!(serial = %new.serial(), "the certificate was reloaded");
            identity.replace(new);
        }
        Err(error) => tracing::error!(%error, "the new certificate cannot be used; the old one stays"),
    }
}

async fn watch_registry(service: Arc<Service>) {
    let mut complained = false;
    loop {
        tokio::time::sleep(REGISTRY).await;
        let at = service.clone();
        let refreshed = tokio::task::spawn_blocking(move || at.refresh(clock::now())).await;
        match refreshed {
            Ok(Ok(())) => complained = false,
            Ok(Err(error)) if !complained => {
                complained = true;
                tracing::error!(%error, "the registry cannot be read; what was known stays in force");
            }
            Ok(_) => {}
            // It panicked: see `ended`.
            Err(_) => return,
        }
    }
}

async fn watch_rotations(service: Arc<Service>) {
    let mut complained = false;
    loop {
        tokio::time::sleep(ROTATIONS).await;
        let at = service.clone();
        match tokio::task::spawn_blocking(move || at.advance_rotations(clock::now())).await {
            Ok(Ok(())) => complained = false,
            Ok(Err(error)) if !complained => {
                complained = true;
                tracing::error!(%error, "a rotation of a network's key cannot go on by itself; see: fivefold key show");
            }
            Ok(_) => {}
            // It panicked: see `ended`.
            Err(_) => return,
        }
    }
}

async fn watch_time(service: Arc<Service>) {
    loop {
        tokio::time::sleep(WATCH).await;
        let at = service.clone();
        let Ok(done) = tokio::task::spawn_blocking(move || at.order_by_age(clock::now())).await else { return };
        if let Err(error) = done {
            tracing::error!(%error, "devices with old keys cannot be ordered to renew; type: fivefold device renew");
        }
        let at = service.clone();
        let Ok(done) = tokio::task::spawn_blocking(move || at.expire_keys(clock::now())).await else { return };
        if let Err(error) = done {
            tracing::error!(%error, "keys of classic nodes that have drained cannot be erased; it is tried again");
        }
        let at = service.clone();
        let Ok(write) = tokio::task::spawn_blocking(move || at.cloud.handle_timeout(clock::now())).await else {
            return;
        };
        if !write.is_empty()
            && let Err(error) = service.commit(write).await
        {
            tracing::error!(%error, "what was seen over time could not be counted");
        }
    }
}

async fn keep_limits(service: Arc<Service>) {
    let mut complained = false;
    let mut pause = Duration::ZERO;
    loop {
        tokio::time::sleep(pause).await;
        let at = service.clone();
        let kept = tokio::task::spawn_blocking(move || at.keep_limits(clock::now())).await;
        pause = if matches!(kept, Ok(Ok(false))) { MORE } else { LIMITS };
        match kept {
            Ok(Ok(_)) => complained = false,
            Ok(Err(error)) if !complained => {
                complained = true;
                tracing::error!(%error, "what is due cannot be pruned; it is tried again");
            }
            Ok(_) => {}
            // It panicked: see `ended`.
            Err(_) => return,
        }
    }
}

/// What became durable goes to the log. A head is signed when there is something new since a while, by its own clock.
async fn write_log(service: Arc<Service>) {
    let mut stored = service.stored();
    let mut complained = false;
    loop {
        let _ = tokio::time::timeout(LOG, stored.changed()).await;
        let at = service.clone();
        match tokio::task::spawn_blocking(move || at.write_log()).await {
            Ok(Ok(_)) => complained = false,
            Ok(Err(error)) if !complained => {
                complained = true;
                tracing::error!(%error, "what waits for the log cannot be written to it");
            }
            Ok(_) => {}
            // It panicked: see `ended`.
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panicked_ends_the_daemon_and_one_that_runs_does_not() {
        let waits = || JoinSet::from_iter([std::future::pending()]);
        let (mut listeners, mut tasks) = (waits(), waits());
        let soon = Duration::from_millis(50);
        assert!(tokio::time::timeout(soon, ended(&mut listeners, &mut tasks)).await.is_err());
        tasks.spawn(async { panic!("as a mistake of ours does") });
        assert!(matches!(ended(&mut listeners, &mut tasks).await, DaemonError::Task));
        listeners.spawn(async { panic!("as a mistake of ours does") });
        assert!(matches!(ended(&mut listeners, &mut tasks).await, DaemonError::Task));
        assert!(tokio::time::timeout(soon, ended(&mut listeners, &mut tasks)).await.is_err());
    }
}
