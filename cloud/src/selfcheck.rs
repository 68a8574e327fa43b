//! The cloud's audit of itself (docs/protocol.md 15): before it starts, then once a day, whenever the book changed, and when somebody
//! asks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fivefold_audit::Audit;
use fivefold_audit::facts::{Facts, Live, PolicyReport, Reported};
use fivefold_audit::gather::{self, live};
use fivefold_audit::rule::{Finding, Kind};
use fivefold_audit::selfcheck::{self, Refused, Standing, WAIVERS_FILE};
use fivefold_core::error::Code;
use fivefold_core::id::Did;
use fivefold_core::profile::KeyIndexes;
use fivefold_core::time::Millis;
use fivefold_core::wire::control::Uplink;
use fivefold_keep::registry::Registry;
use fivefold_keep::vault::Vault;

use crate::book::Device;
use crate::clock;
use crate::config::Config;
use crate::service::{Service, by_itself};
use crate::store::{CountKey, Place, Reader, Report, Write};

/// How often files are looked at, in seconds.
const DAY: u64 = 86_400;
/// Changes of the book that follow each other sooner are looked at together.
const PACE: Duration = Duration::from_secs(60);
/// Who asks sooner after a look is told what it found, in seconds.
const FRESH: u64 = 5;

/// The audit of a cloud by itself.
#[derive(Debug)]
pub struct SelfCheck {
    config: Config,
    vault: Arc<Vault>,
    standing: Standing,
    // What was read of files, which are not read again for each look. What the book says is much, and soon read again.
    folder: Mutex<Option<Facts>>,
}

impl SelfCheck {
    /// Of a cloud.
    pub fn new(config: Config, vault: Arc<Vault>) -> Self {
        Self { config, vault, standing: Standing::default(), folder: Mutex::default() }
    }

    /// What was found last.
    pub const fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether it may start.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn may_start(&self, service: &Service, now: Millis) -> Result<(), Refused> {
        let mut facts = Facts::at(now.0 / 1000);
        gather::cloud(&self.config.folder, &self.config.vault, &mut facts);
        live::cloud(known(service), HashMap::new(), &mut facts);
        selfcheck::may_start(&self.judge(facts), Kind::Cloud, &self.config.folder)
    }

    fn judge(&self, mut facts: Facts) -> Audit {
        let unread = facts.unread.len();
        let waivers = selfcheck::waivers(&self.config.folder, &mut facts);
        // A file that cannot be read now takes no waiver back.
        if facts.unread.len() == unread {
            let (file, at) = (self.config.folder.join(WAIVERS_FILE), Millis(facts.now.saturating_mul(1000)));
            if let Err(error) = waivers.enter(&file, &self.config.registry, || by_itself(at), facts.now) {
                tracing::error!(%error, "the waivers of this cloud could not be entered in the operator's log");
            }
        }
        Audit::of(&facts, &waivers)
    }

    /// What was found in the last seconds, or is found now.
    pub fn looked(&self, service: &Service, now: Millis) -> Arc<Audit> {
        self.look(service, now, FRESH)
    }

    /// Looks, tells the log what is new, and counts what is critical. Blocks. What was found so many seconds ago is found still.
    fn look(&self, service: &Service, now: Millis, fresh: u64) -> Arc<Audit> {
        let at = now.0 / 1000;
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = self.standing.last().filter(|last| at.abs_diff(last.at) < fresh) {
            return last;
        }
        let mut facts = self.files(&mut folder, at);
        // What cannot be read is as if nothing had been said: the rule has its word for that.
        let reports = service.cloud.memory().read(Reader::reports).unwrap_or_default();
        let mut reports: HashMap<Did, _> = reports.into_iter().collect();
        let book = service.cloud.book();
        let reported = |d: &Arc<Device>| (d.did.to_string(), reported(d, reports.remove(&d.did)));
        let reported = book.by_did.values().map(reported).collect();
        live::cloud(known(service), reported, &mut facts);
        let news = self.standing.take(self.judge(facts));
        for (is_waived, line) in news.lines() {
            if is_waived {
                tracing::warn!("{line}")
            } else {
                tracing::error!(code = %Code::ConfigurationViolated, "{line}")
            }
        }
        let mut write = Write { now, ..Write::default() };
        news.critical.iter().for_each(|finding| write.count(violated(service, finding)));
        if !write.is_empty()
            && let Err(error) = service.cloud.memory().store().commit_now(write)
        {
            tracing::error!(%error, code = %Code::ConfigurationViolated, "what the audit found could not be counted");
        }
        news.audit
    }

    /// The folder is searched once a day, and the book is read.
    fn files(&self, folder: &mut Option<Facts>, at: u64) -> Facts {
        let known = folder.take().filter(|f| at.abs_diff(f.now) < DAY);
        let searched = known.unwrap_or_else(|| {
            let mut facts = Facts { has_databases_open: true, ..Facts::at(at) };
            gather::cloud(&self.config.folder, &self.config.vault, &mut facts);
            gather::search(&self.config.folder, &mut facts);
            facts
        });
        let mut facts = Facts { now: at, ..folder.insert(searched).clone() };
        let read = Registry::open_read_only(&self.config.registry).and_then(|registry| {
            gather::book(&registry, &mut facts)?;
            gather::secrets(&registry, &self.vault, &mut facts)
        });
        if let Err(wrong) = read {
            facts.unread.push(wrong.to_string());
        }
        facts
    }
}

/// What this process knows of itself.
fn known(service: &Service) -> Live {
    let logging = service.logging();
    Live {
        started: service.started.0 / 1000,
        cosigned: logging.iter().flat_map(|l| l.witnesses().iter()).map(|w| w.standing().at).collect(),
        strays: logging.map_or(0, |l| l.strays()),
        is_restored: service.restored().is_some(),
    }
}

/// What a device said last of itself, and when.
fn reported(device: &Device, report: Option<Report>) -> Reported {
    let enrolled = device.enrolled().enrolled_at;
    let policy = report.filter(|(at, _)| at.0 / 1000 >= enrolled).map(|(at, control)| {
        let none = KeyIndexes { sending: 0, receiving: None };
        let expected = |map: &Uplink<'_>| device.policy.digest8(map.key_indexes.unwrap_or(none));
        let map = Uplink::parse(&control).ok();
        let is_as_in_book = map.and_then(|map| Some(map.digest? == expected(&map)));
        PolicyReport { at: at.0 / 1000, is_as_in_book }
    });
    Reported {
        enrolled,
        heard: device.heard().map(|at| at.0 / 1000),
        policy,
        unsigned: device.unsigned_since(clock::now()).map(|at| at.0 / 1000),
    }
}

/// Where a finding is counted.
fn violated(service: &Service, finding: &Finding) -> CountKey {
    let book = service.cloud.book();
    let named = finding.subject.network.as_ref();
    let net = named.and_then(|name| book.networks.iter().find(|n| n.name == *name)).map(|n| n.net);
    CountKey { code: Code::ConfigurationViolated, net, gateway: None, sid: None, place: Place::Cloud }
}

/// Looks for ever, on a thread that may block.
pub(crate) async fn watch(service: Arc<Service>) {
    let mut versions = service.versions();
    let mut daily = tokio::time::interval(Duration::from_secs(DAY));
    loop {
        tokio::select! {
            _ = daily.tick() => {}
            changed = versions.changed() => if changed.is_err() { return },
        }
        let at = service.clone();
        let looked = tokio::task::spawn_blocking(move || drop(at.selfcheck().map(|s| s.look(&at, clock::now(), 0))));
        looked.await.unwrap_or_else(|error| tracing::error!(%error, "the audit did not end"));
        tokio::time::sleep(PACE).await;
    }
}
