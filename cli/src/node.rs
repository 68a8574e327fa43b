//! `fivefold node`: a software node on a real socket, with a state folder of its own.
//!
//! The engine is `fivefold_device::Node`; here are its rim: UDP, two slot files, a clock, readings, and words.

mod air;
pub(crate) mod join;
mod readings;
mod relay;
mod report;
mod signing_request;
pub(crate) mod state;
pub(crate) mod waspmote;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use fivefold_core::e2_gateway::E2Root;
use fivefold_core::e3_cloud::E3Secret;
use fivefold_core::e5_renewal::{Credential, PqMix};
use fivefold_core::id::Sid;
use fivefold_core::key::Key;
use fivefold_core::profile::{LinkClass, Mode, Sign};
use fivefold_core::proof::statement::BlindKey;
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::time::Millis;
use fivefold_core::wire::ieee802154::Pan;
use fivefold_device::evidence::{Downlink, Signing};
use fivefold_device::renewal::{Keys, Peer, Timers};
use fivefold_device::{Entropy, Node, Number, Patience, Record, Secrets, SendRefused, Settings, Slots};
use fivefold_keep::device_key::DeviceSigningKey;
use fivefold_keep::share::{self, NODE_FILE, NodeShare};
use fivefold_keep::sign::AgreementKey;
use fivefold_keep::vault::{self, Vault};
use tokio::signal::unix::{SignalKind, signal};

use crate::output::Output as Form;
use air::{Air, Heard, Module};
pub use readings::Measures;
use readings::{Lines, Sensor};
use report::Report;
use state::{Files, State};

/// Messages that wait for their confirmation at a time.
const OUTBOX: usize = 64;

/// `fivefold node`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the node's key and ask to be enrolled, or take the operator's answer.
    Join(Box<join::Args>),
    /// Forward for others, with a node's share and no readings of its own, until it is told to stop.
    Relay(relay::Args),
    /// Run a software node until it is told to stop.
    Run(Run),
    /// Make the signing key of an enrolled node, and ask for its certificate.
    SigningRequest(signing_request::Args),
    /// Be a Waspmote, made in software: to try a gateway out before real ones are pointed at it.
    Waspmote(Box<waspmote::Args>),
}

/// `fivefold node run`.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The node's folder: node.toml, its sealed secrets, and its state.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Seconds between two readings.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub every: f64,
    /// Stop after so many readings, once they are confirmed.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// With --count: wait so long for the last confirmations, in seconds, then exit 1.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub wait: f64,
    /// Take readings from standard input, one JSON record of SenML per line, e.g. {"n":"temp","u":"Cel","v":21.5}.
    #[arg(long, conflicts_with = "every")]
    pub stdin: bool,
    /// Send rows of this template instead of names and units (fivefold template add): of the made-up sensor what it measures,
    /// and the battery; with --stdin a line is a row, e.g. [21.5,null,true].
    #[arg(long, value_name = "ID")]
    pub template: Option<u64>,
    /// What its made-up sensor measures.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, conflicts_with = "stdin")]
    pub sensor: Measures,
    /// Try a message that nobody answered again after so many seconds, doubled each time up to sixteen times as much.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub retry: f64,
    /// Renew the keys after so many seconds, not after the days that node.toml says (renew_days).
    #[arg(long, value_name = "SECONDS")]
    pub renew_every: Option<f64>,
    /// Seconds before a message of a renewal that nobody answered is sent again.
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, hide = true)]
    pub renew_resend: f64,
    /// Seconds that the first renewal that failed pauses for, at most; doubled each time up to a day.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600.0, hide = true)]
    pub renew_pause: f64,
    /// Its radio, where that is an XBee module.
    #[command(flatten)]
    pub module: Module,
    /// Print the resolved configuration and stop.
    #[arg(long)]
    pub check: bool,
}

/// Runs the command. The exit code is 0 for yes, 1 when readings of `--count` were not confirmed; errors are 2.
///
/// # Errors
/// One sentence with what to do next.
pub fn run(args: &Args, form: Form) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Waspmote(args) => waspmote::run(args, form),
        Command::Join(args) => join::run(args, form).map(|()| ExitCode::SUCCESS),
        Command::Relay(args) => relay::run(args, form),
        Command::SigningRequest(args) => signing_request::run(args, form).map(|()| ExitCode::SUCCESS),
        Command::Run(run) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run_node(run, form))
        }
    }
}

async fn run_node(args: &Run, form: Form) -> anyhow::Result<ExitCode> {
    let renewal = [("renew-resend", args.renew_resend), ("renew-pause", args.renew_pause)];
    let times = [("every", args.every), ("wait", args.wait), ("retry", args.retry)];
    let every = args.renew_every.map(|seconds| ("renew-every", seconds));
    for (name, seconds) in times.into_iter().chain(renewal).chain(every) {
        if !(0.001..=1e9).contains(&seconds) {
            bail!("--{name} {seconds} is no number of seconds above 0");
        }
    }
    if args.dir.join(join::IDENTITY_FILE).exists() && !args.dir.join(NODE_FILE).exists() {
        let dir = args.dir.display();
        bail!("{dir} waits to be enrolled; give it its answer: fivefold node join --dir {dir} --answer-file FILE");
    }
    let share = NodeShare::read(&args.dir)?;
    let settings = settings(&share, args)?;
    if args.check {
        report::resolved(&share, &args.dir, form);
        return Ok(ExitCode::SUCCESS);
    }
    let secrets = secrets(&share)?;
    let State { marker, slots, record } = state::open(&args.dir)?;
    // The power may have gone before that was done.
    let agreed = record.as_ref().is_some_and(|r| r.confirmed && r.context.is_some() && r.epoch > share.epoch);
    let random = vault::random::<64>()?;
    let entropy = Entropy::check(*random).map_err(|e| anyhow::anyhow!("{e}; nothing is transmitted"))?;
    let air = Air::open(&share, &args.module).await?;
    let clock = Clock::start();
    let keys = keys(&share)?;
    let report = Report::new(form, &share);
    let evidence = evidence(&share, &args.dir, &secrets, record.as_ref(), &report)?;
    let node = Node::boot_signing(clock.now(), settings, &secrets, (keys, evidence), record, &entropy)
        .map_err(|e| anyhow::anyhow!("{}: {e}", args.dir.display()))?;
    drop((secrets, random, entropy));
    let mut process = Process { node, slots, marker, air, clock, report, share: &share, installed: Some(&args.dir) };
    if agreed {
        process.wipe_installed()?;
    }
    process.run(args).await
}

fn settings(share: &NodeShare, args: &Run) -> anyhow::Result<Settings> {
    let mut settings = place(share)?;
    let park = (args.retry * 1000.0) as u64;
    settings.patience = Patience { park, longest: park.saturating_mul(16) };
    let ms = |seconds: f64| (seconds * 1000.0) as u64;
    let usual = Timers::default();
    settings.timers = Timers {
        resend: ms(args.renew_resend),
        back_off: ms(args.renew_pause),
        enrolment: usual.enrolment.min(ms(args.renew_pause)),
        renew_after: args.renew_every.map(ms),
        ..usual
    };
    Ok(settings)
}

/// Who a node is, and whom it sends to.
fn place(share: &NodeShare) -> anyhow::Result<Settings> {
    let mut settings = Settings::new(share.did, share.sid, Pan(share.pan), share.policy, share.epoch);
    if !share.link.parents.is_empty() {
        settings.ways.parents.clear();
    }
    for parent in &share.link.parents {
        let sid: Sid = parent.parse().with_context(|| format!("node.toml, [link] parents: `{parent}`"))?;
        if settings.ways.parents.push(sid).is_err() {
            bail!("node.toml, [link] parents: at most {} can be given", fivefold_device::PARENTS);
        }
    }
    if share.link.air.is_empty() && share.link_class() != LinkClass::E1s {
        bail!("node.toml, [link] air: name the UDP address of at least one radio that hears this node");
    }
    Ok(settings)
}

fn secrets(share: &NodeShare) -> anyhow::Result<Secrets> {
    let mut secrets = Secrets::default();
    let own = &share.secrets;
    if secrets.link.push((own.key_index, Key::new(*own.network_key))).is_err() {
        bail!("no room for a network key");
    }
    let random = share.policy.mode == Mode::Random;
    if share.policy.profile.has_e3() {
        secrets.e3 = match &own.e3 {
            _ if random => Some(E3Secret::bootstrap(&own.root_psk, share.did)),
            Some((ms3, salt3)) => E3Secret::new(ms3, salt3),
            None => None,
        };
    }
    if share.policy.profile.has_e2() {
        let root = match &own.e2_root {
            _ if random => Some(E2Root::bootstrap(&own.root_psk, share.did)),
            Some(root) => Some(E2Root::new(**root)),
            None => None,
        };
        secrets.e2 = root.map(|root| root.secret(share.group));
    }
    secrets.blind = match &own.blind {
        _ if random => Some(BlindKey::bootstrap(&own.root_psk, share.did)),
        blind => blind.as_ref().map(|blind| BlindKey::new(**blind)),
    };
    Ok(secrets)
}

/// What it signs its readings with, where its policy says so. Without the key for that it runs, and says so once.
fn evidence(
    share: &NodeShare,
    dir: &Path,
    secrets: &Secrets,
    record: Option<&Record>,
    report: &Report,
) -> anyhow::Result<Option<Signing<DeviceSigningKey>>> {
    if share.policy.sign != Sign::Batch {
        return Ok(None);
    }
    let key = share::signing_key(&Vault::open_folder(dir)?, dir)?;
    let agreed = record.is_some_and(|r| r.context.is_some() && r.epoch >= share.epoch);
    let installed = secrets.e2.is_some() || secrets.e3.is_some();
    let reason = if key.is_none() {
        format!("it has no signing key; make one: fivefold node signing-request --dir {}", dir.display())
    } else if installed && secrets.blind.is_none() && !agreed {
        "its share is of before readings were signed; it begins with the start after its next renewal".into()
    } else {
        return Ok(key.map(|key| Signing::new(key, Downlink::Heard)));
    };
    report.unsigned(&reason);
    Ok(None)
}

/// What the node renews its contexts with. `None` for a share that has none of it: then they stay what they are.
fn keys(share: &NodeShare) -> anyhow::Result<Option<Keys<AgreementKey>>> {
    let peer = match (share.cloud, share.gateway) {
        (Some(cloud), _) => Peer::Cloud(Credential::peer(cloud.kid, cloud.x)),
        (None, Some(gateway)) => Peer::Gateway(Credential::peer(gateway.kid, gateway.x)),
        (None, None) => return Ok(None),
    };
    let Some(scalar) = &share.secrets.dh_key else { return Ok(None) };
    let own = AgreementKey::from_random(scalar);
    let own = own.context("secrets.sealed: the key for renewal is none; enrol the device again")?;
    Ok(Some(Keys {
        credential: Credential::device(share.sid, own.public_x()),
        own,
        peer,
        mix: share.policy.pq_mix.then(|| PqMix::new(&share.secrets.root_psk, share.did)),
        group: share.group,
    }))
}

/// Uptime: the engine's time.
struct Clock {
    start: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the rim reads the clock for the engine")]
    fn start() -> Self {
        Self { start: Instant::now() }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn until(&self, at: Millis) -> Duration {
        Duration::from_millis(at.since(self.now()))
    }
}

struct Process<'s> {
    node: Node<OUTBOX, AgreementKey, Option<Signing<DeviceSigningKey>>>,
    slots: Slots<Files>,
    marker: state::Marker,
    air: Air,
    clock: Clock,
    report: Report,
    share: &'s NodeShare,
    /// The folder whose share still has the contexts that were installed.
    installed: Option<&'s Path>,
}

impl Process<'_> {
    async fn run(&mut self, args: &Run) -> anyhow::Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        self.script().await?;
        self.report.started(&self.node);
        let mut lines = args.stdin.then(|| Lines::start(args.template));
        let mut sensor = Sensor::new(args.sensor, args.template);
        let every = Millis((args.every * 1000.0).max(1.0) as u64).0;
        let mut next = self.clock.now();
        let mut taken = 0u64;
        let mut give_up = None;
        let mut told = false;
        while !told {
            let done = args.count.is_some_and(|count| taken >= count) || lines.as_ref().is_some_and(Lines::is_over);
            if done {
                if self.node.waiting().next().is_none() {
                    break;
                }
                let end = *give_up.get_or_insert(self.clock.now().plus((args.wait * 1000.0) as u64));
                if end <= self.clock.now() {
                    break;
                }
            }
            if !done && lines.is_none() && next <= self.clock.now() {
                let reading = sensor.reading(self.node.room());
                taken += u64::from(self.take(&reading, false).await?);
                next = next.plus(every).max(self.clock.now());
            }
            if !done
                && let Some(lines) = &mut lines
                && let Some(reading) = lines.reading(self.node.room())?
            {
                let sent = self.take(&reading, true).await?;
                if sent {
                    lines.taken();
                }
                taken += u64::from(sent);
            }
            let wake = [self.node.poll_timeout(), (!done && lines.is_none()).then_some(next), give_up];
            let wake = wake.into_iter().flatten().min().unwrap_or(Millis(u64::MAX));
            let wait = self.clock.until(wake).min(Duration::from_secs(3600));
            let full = lines.as_ref().is_some_and(Lines::has_one);
            tokio::select! {
                _ = terminate.recv() => told = true,
                _ = interrupt.recv() => told = true,
                heard = self.air.hear() => self.heard(heard),
                () = tokio::time::sleep(wait) => self.node.handle_timeout(self.clock.now()),
                () = Lines::wait(lines.as_mut()), if !done && !full => {}
            }
            self.script().await?;
        }
        let waiting: Vec<Number> = self.node.waiting().collect();
        self.report.stopped(taken, &waiting, self.node.tally());
        let complete = told || waiting.is_empty();
        Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn heard(&mut self, heard: Heard) {
        let now = self.clock.now();
        match heard {
            Heard::Datagram(datagram) => self.node.handle_datagram(now, &datagram),
            Heard::Frame(mut frame) => self.node.handle_frame(now, &mut frame),
            Heard::Message(source, reach, mut message) => {
                self.node.handle_message(now, (source, reach), &mut message);
            }
            Heard::Nothing => {}
            Heard::Refused(rejected) => self.node.count_refused(now, rejected),
        }
    }

    /// Hands a reading to the engine. Whether it was taken.
    async fn take(&mut self, reading: &[u8], patient: bool) -> anyhow::Result<bool> {
        match self.node.send(self.clock.now(), reading) {
            Ok(number) => {
                self.report.taken(number, reading);
                self.script().await?;
                Ok(true)
            }
            // A line of standard input waits until there is room, and keys.
            Err(SendRefused::Full) if patient => Ok(false),
            Err(SendRefused::NotAgreed | SendRefused::RenewalNeeded) if patient && self.node.renews() => Ok(false),
            Err(refused) => {
                self.report.not_taken(refused);
                // With a key of its own it renews by itself; the next readings wait for that.
                if refused == SendRefused::RenewalNeeded && !self.node.renews() {
                    bail!("the cloud asks for new keys, and this node has nothing to renew them with; enrol it again");
                }
                Ok(false)
            }
        }
    }

    /// Takes what opens the contexts of the enrolment out of the share: others have taken their place (docs/protocol.md 3, K5).
    fn wipe_installed(&mut self) -> anyhow::Result<()> {
        let Some(dir) = self.installed.take() else { return Ok(()) };
        match self.share.without_contexts(dir)? {
            Some(sealed) => self.marker.replace_secrets(dir, &sealed),
            None => Ok(()),
        }
    }

    /// Carries out what the engine wants, in order, and stops for good at a record that cannot be written.
    async fn script(&mut self) -> anyhow::Result<()> {
        use fivefold_device::{Event, Output};
        while let Some(output) = self.node.poll() {
            match output {
                Output::Persist(record) => {
                    self.slots.write(&record)?;
                    self.marker.set()?;
                }
                Output::Transmit(frame) => self.air.transmit(&frame).await,
                Output::Datagram(message) => self.air.datagram(&message).await,
                Output::Event(event) => {
                    // The new contexts are durable, and in use at the other side.
                    if let Event::RenewalConfirmed(_) = event {
                        self.wipe_installed()?;
                    }
                    self.report.event(event);
                }
                Output::Dropped(rejected) => self.report.dropped(rejected),
                Output::Execute(command) => {
                    let status = self.report.execute(&command);
                    self.node.command_done(self.clock.now(), command.id, status);
                }
                _ => {}
            }
        }
        Ok(())
    }
}
