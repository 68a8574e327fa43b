//! `fivefold node relay`: the relay engine as a process. It has a node's share; of its secrets it uses the network key alone.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use fivefold_core::time::Millis;
use fivefold_device::{Entropy, Event, Relay, RelayOutput};
use fivefold_keep::share::NodeShare;
use fivefold_keep::vault;
use tokio::signal::unix::{SignalKind, signal};

use super::air::{Air, Heard, Module};
use super::report::Report;
use super::{Clock, place, secrets, state};
use crate::output::Output as Form;

/// `fivefold node relay`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The relay's folder: node.toml, its sealed secrets, and its state.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    module: Module,
}

/// Runs the relay.
///
/// # Errors
/// One sentence with what to do next.
pub(super) fn run(args: &Args, form: Form) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(relay(args, form)).map(|()| ExitCode::SUCCESS)
}

async fn relay(args: &Args, form: Form) -> anyhow::Result<()> {
    let share = NodeShare::read(&args.dir)?;
    let (settings, secrets) = (place(&share)?, secrets(&share)?);
    let state::State { mut marker, mut slots, record } = state::open(&args.dir)?;
    let random = vault::random::<64>()?;
    let entropy = Entropy::check(*random).map_err(|e| anyhow::anyhow!("{e}; nothing is transmitted"))?;
    let mut air = Air::open(&share, &args.module).await?;
    let clock = Clock::start();
    let relay = Relay::boot(clock.now(), &settings, &secrets, record, &entropy);
    let mut relay = relay.map_err(|e| anyhow::anyhow!("{}: {e}", args.dir.display()))?;
    drop((secrets, random, entropy));
    let mut report = Report::new(form, &share);
    report.relays(&share);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        while let Some(output) = relay.poll() {
            match output {
                RelayOutput::Persist(record) => {
                    slots.write(&record)?;
                    marker.set()?;
                }
                RelayOutput::Transmit(frame) => air.transmit(&frame).await,
                RelayOutput::Synced(did, sid) => report.event(Event::Synced(did, sid)),
                RelayOutput::Dropped(rejected) => report.dropped(rejected),
                _ => {}
            }
        }
        let wake = relay.poll_timeout().unwrap_or(Millis(u64::MAX));
        let wait = clock.until(wake).min(Duration::from_secs(3600));
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            heard = air.hear() => match heard {
                Heard::Frame(mut frame) => relay.handle_frame(clock.now(), &mut frame),
                Heard::Message(source, reach, mut message) => {
                    relay.handle_message(clock.now(), (source, reach), &mut message);
                }
                Heard::Refused(rejected) => relay.count_refused(clock.now(), rejected),
                Heard::Datagram(_) | Heard::Nothing => {}
            },
            () = tokio::time::sleep(wait) => relay.handle_timeout(clock.now()),
        }
    }
}
