//! The gateway's audit of itself (docs/protocol.md 15): before it starts, then once a day and whenever it was told another state.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use fivefold_audit::Audit;
use fivefold_audit::facts::{Facts, KeySeen};
use fivefold_audit::gather::{self, Secrets, live};
use fivefold_audit::rule::Kind;
use fivefold_audit::selfcheck::{self, Refused, Standing};
use fivefold_core::e1_link::E1;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::key::Key;
use fivefold_core::time::Millis;
use fivefold_keep::tls::Revoked;
use fivefold_keep::vault::Vault;
use tokio::sync::watch;

use crate::config::Config;
use crate::daemon::{Event, wall_clock};
use crate::gateway::AppliedState;
use crate::spool::SpoolReader;

/// How often files are looked at.
const DAILY: Duration = Duration::from_secs(86_400);
/// States that follow each other sooner are looked at together.
const PACE: Duration = Duration::from_secs(5);
const VIOLATED: Rejected =
    Rejected::new(Code::ConfigurationViolated, "the gateway's audit of itself found it critical");

/// What a gateway looks at.
pub struct Own {
    folder: PathBuf,
    store: PathBuf,
    vault: Arc<Vault>,
    installed: Vec<KeySeen>,
}

impl Own {
    /// Of a gateway, with the network keys that it was enrolled with.
    pub fn new(config: &Config, vault: Arc<Vault>, keys: &[(u8, Key<E1, 16>)]) -> Self {
        let network = config.identity.net.to_string();
        let installed =
            keys.iter().map(|(index, key)| live::network_key(*index, key.danger_bytes(), &network)).collect();
        Self { folder: config.folder.clone(), store: config.store.clone(), vault, installed }
    }

    /// Whether it may start, with the state that it was told before.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn may_start(&self, state: Option<&AppliedState>, now: Millis) -> Result<(), Refused> {
        let mut facts = Facts::at(now.0 / 1000);
        gather::gateway(&self.folder, &mut facts);
        selfcheck::may_start(&self.judge(facts, state), Kind::Gateway, &self.folder)
    }

    fn judge(&self, mut facts: Facts, state: Option<&AppliedState>) -> Audit {
        live::gateway(&self.installed, state.map(|s| s.parts.as_slice()), &mut facts);
        let waivers = selfcheck::waivers(&self.folder, &mut facts);
        Audit::of(&facts, &waivers)
    }

    /// All of its folder, searched.
    fn files(&self, now: u64) -> Facts {
        let mut facts = Facts { has_databases_open: true, ..Facts::at(now) };
        gather::deployment(&self.folder, Secrets::Sealed, &mut facts);
        facts
    }

    fn look(&self, files: &Facts, now: u64) -> Audit {
        let mut facts = Facts { now, ..files.clone() };
        let read = |path: &Path| match SpoolReader::open(path)? {
            Some(reader) => reader.state(&self.vault),
            None => Ok(None),
        };
        let state = read(&self.store).unwrap_or_else(|wrong| {
            facts.unread.push(wrong.to_string());
            None
        });
        self.judge(facts, state.as_ref())
    }
}

/// Looks for ever, on a thread that may block. `told` tells that a state was applied.
pub(crate) async fn watch(
    own: Own,
    standing: Arc<Standing>,
    mut told: watch::Receiver<Revoked>,
    events: SyncSender<Event>,
) {
    let own = Arc::new(own);
    let mut daily = tokio::time::interval(DAILY);
    let mut files: Option<Facts> = None;
    loop {
        tokio::select! {
            _ = daily.tick() => files = None,
            changed = told.changed() => if changed.is_err() { return },
        }
        let (own, standing, events, seen) = (own.clone(), standing.clone(), events.clone(), files.take());
        let looked = tokio::task::spawn_blocking(move || {
            let now = wall_clock().0 / 1000;
            let seen = seen.unwrap_or_else(|| own.files(now));
            let news = standing.take(own.look(&seen, now));
            for (is_waived, line) in news.lines() {
                if is_waived { tracing::warn!("{line}") } else { tracing::error!(code = %VIOLATED.code, "{line}") }
            }
            if !news.critical.is_empty() {
                let _ = events.send(Event::RefusedOften(VIOLATED, news.critical.len() as u64));
            }
            seen
        });
        files = looked.await.ok();
        tokio::time::sleep(PACE).await;
    }
}
