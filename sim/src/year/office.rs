//! The cloud of the year: the real service over registry, vault and store, which dies between any two durable writes.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fivefold_cloud::cloud::{Agreement, Exchange, Outcome, RenewalSettings};
use fivefold_cloud::context::ContextSecrets;
use fivefold_cloud::push::Push;
use fivefold_cloud::service::{Service, reply};
use fivefold_cloud::store::{CountRow, ReadingRow, Standing, Store, Write};
use fivefold_core::e4_channel::ProvenGateway;
use fivefold_core::e5_renewal::Message;
use fivefold_core::id::{Did, Epoch, Net, Sid};
use fivefold_core::time::Millis;
use fivefold_keep::registry::{By, Registry};
use fivefold_keep::rotation::Rotation;
use fivefold_keep::vault::Vault;

use super::plan::Flaw;
use crate::cloud::{Durable, Stage, step};
use crate::dice::Dice;
use crate::family::wall;

/// Who opens the book, for the operator's log.
fn opened_by(who: &str, at: Millis) -> By {
    By::new(who, "the year", "simulation", at.0 / 1000)
}

/// How far a message of EDHOC has come.
#[derive(Debug)]
pub(super) enum Run {
    /// It is here.
    Received,
    /// Its proof holds; nothing is durable.
    Agreed(Box<Agreement>),
    /// Its epoch is spent in the operator's book.
    Noted(Box<Agreement>),
    /// The context is durable too.
    Kept(Box<Agreement>, Option<u64>),
    /// This goes back.
    Replied(Vec<u8>),
    /// It was refused as a whole.
    Refused,
}

/// The cloud.
#[derive(Debug)]
pub(super) struct Office {
    store: PathBuf,
    registry: PathBuf,
    vault: Arc<Vault>,
    flaw: Option<Flaw>,
    service: Option<Service>,
    /// Counts its processes.
    pub(super) run: u32,
    /// Milliseconds that its clock is ahead.
    pub(super) ahead: i64,
    /// Dies after so many steps.
    pub(super) fuse: Option<u64>,
    /// Contexts that are durable, or were.
    pub(super) kept: HashSet<(Did, Epoch)>,
    /// Most contexts that were pending of one device.
    pub(super) most_pending: usize,
}

impl Office {
    /// A cloud over this registry. It is not started.
    pub(super) fn new(folder: &Path, registry: PathBuf, vault: Arc<Vault>, flaw: Option<Flaw>) -> Self {
        Self {
            store: folder.join("readings.db"),
            registry,
            vault,
            flaw,
            service: None,
            run: 0,
            ahead: 0,
            fuse: None,
            kept: HashSet::new(),
            most_pending: 0,
        }
    }

    /// The time by its clock.
    pub(super) const fn clock(&self, now: u64) -> Millis {
        Millis(wall(now).0.saturating_add_signed(self.ahead))
    }

    /// Starts a process.
    pub(super) fn start(&mut self, now: u64) -> anyhow::Result<()> {
        let store = Store::open(&self.store)?;
        let (registry, vault) = (self.registry.clone(), self.vault.clone());
        let service = Service::open(store, registry, vault, RenewalSettings::default(), self.clock(now))?;
        let rows = service.cloud.memory().read(|r| r.contexts())?;
        self.kept.extend(rows.iter().map(|row| (row.did, row.epoch)));
        (self.service, self.fuse) = (Some(service), None);
        self.run += 1;
        Ok(())
    }

    /// The process dies.
    pub(super) fn kill(&mut self) {
        (self.service, self.fuse) = (None, None);
    }

    /// Whether it runs.
    pub(super) const fn is_on(&self) -> bool {
        self.service.is_some()
    }

    fn service(&self) -> anyhow::Result<&Service> {
        self.service.as_ref().ok_or_else(|| anyhow::anyhow!("the cloud is not running"))
    }

    /// Takes a batch one step further.
    pub(super) fn step(&mut self, now: u64, by: &ProvenGateway, stage: Stage) -> anyhow::Result<(Stage, Durable)> {
        step(&self.service()?.cloud, self.clock(now), by, stage)
    }

    /// Takes a message of EDHOC one step further, as [`Service::exchange`] does.
    pub(super) fn run(
        &mut self,
        now: u64,
        by: &ProvenGateway,
        asked: &[u8],
        run: Run,
        dice: &mut Dice,
    ) -> anyhow::Result<Run> {
        let at = self.clock(now);
        let service = self.service()?;
        let cloud = &service.cloud;
        let store = cloud.memory().store();
        let answer = |added, message: Option<Message>| Run::Replied(reply(asked, added, message.as_ref()));
        Ok(match run {
            Run::Received => match cloud.exchange(by, asked, &dice.bytes(), at) {
                Err(refused) => {
                    let mut write = Write { now: at, ..Write::default() };
                    write.count(refused.key);
                    store.commit_now(write)?;
                    Run::Refused
                }
                Ok(Exchange { write, outcome }) => {
                    if !write.is_empty() {
                        store.commit_now(write)?;
                    }
                    match outcome {
                        Outcome::Agree(agreement) => Run::Agreed(agreement),
                        Outcome::Answer(message) => answer(None, Some(message)),
                        Outcome::Nothing => answer(None, None),
                        Outcome::Repeat { device, context, epoch, m4 } => {
                            let row = cloud.memory().read(|r| r.context(context))?;
                            let sealed = row.and_then(|r| r.sealed).filter(|_| device.policy.profile.has_e2());
                            let mut added = None;
                            if let Some(sealed) = sealed {
                                let secrets = ContextSecrets::open(&self.vault, device.did, epoch, &sealed)?;
                                added = service.share(by, &device, (epoch, &secrets), self.version()?);
                            }
                            answer(added.as_ref(), Some(m4))
                        }
                    }
                }
            },
            Run::Agreed(agreement) if self.flaw == Some(Flaw::EarlyMessage4) => {
                let message = cloud.agreed(&agreement);
                answer(None, message)
            }
            Run::Agreed(agreement) => {
                let mut book = Registry::open(&self.registry, opened_by("cloud", agreement.at()))?;
                let noted = book.note_agreed(&[agreement.noted()], agreement.at().0 / 1000)?;
                match noted.first() {
                    Some(true) => Run::Noted(agreement),
                    _ => {
                        store.commit_now(cloud.superseded(by, &agreement))?;
                        answer(None, None)
                    }
                }
            }
            Run::Noted(agreement) => {
                let committed = store.commit_now(agreement.write(&self.vault)?)?;
                self.kept.insert(agreement.noted());
                Run::Kept(agreement, committed.generation)
            }
            Run::Kept(agreement, generation) => {
                let message = cloud.agreed(&agreement);
                let device = agreement.device();
                let pending = device.contexts().iter().filter(|c| c.standing == Standing::Pending).count();
                let mut added = None;
                if generation.is_some() {
                    let named = (agreement.epoch(), agreement.secrets());
                    added = service.share(by, device, named, self.version()?);
                }
                let run = answer(added.as_ref(), message);
                self.most_pending = self.most_pending.max(pending);
                run
            }
            done @ (Run::Replied(_) | Run::Refused) => done,
        })
    }

    /// Version of what gateways are pushed.
    pub(super) fn version(&self) -> anyhow::Result<u64> {
        let generation = self.service()?.cloud.memory().read(|r| r.generation())?;
        Ok(self.service()?.cloud.book().version + generation)
    }

    /// The state of a gateway, durable as pushed.
    pub(super) fn push(&self, by: &ProvenGateway) -> anyhow::Result<Push> {
        Ok(self.service()?.push(by.name())?)
    }

    /// An hour has passed.
    pub(super) fn hour(&self, now: u64) -> anyhow::Result<()> {
        let at = self.clock(now);
        let service = self.service()?;
        service.advance_rotations(at)?;
        let write = service.cloud.handle_timeout(at);
        if !write.is_empty() {
            service.cloud.memory().store().commit_now(write)?;
        }
        Ok(())
    }

    /// The operator changes the book, and the cloud takes it over.
    pub(super) fn operate<T>(
        &self,
        now: u64,
        act: impl FnOnce(&mut Registry, &Vault, u64) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let at = self.clock(now);
        let done = act(&mut Registry::open(&self.registry, opened_by("operator", at))?, &self.vault, at.0 / 1000)?;
        self.service()?.refresh(at)?;
        Ok(done)
    }

    /// How far the rotation of a network's key is.
    pub(super) fn rotation(&self, net: Net) -> Option<Rotation> {
        let book = self.service.as_ref()?.cloud.book();
        book.rotations.get(&net).map(|link| link.rotation.clone())
    }

    /// Epoch of the context in use of a device.
    pub(super) fn active(&self, net: Net, sid: Sid) -> Option<Epoch> {
        let book = self.service.as_ref()?.cloud.book();
        let contexts = book.devices.get(&(net, sid))?.contexts();
        contexts.iter().find(|c| c.standing == Standing::Active).map(|c| c.epoch)
    }

    /// All rows of the ledger.
    pub(super) fn ledger(&self) -> anyhow::Result<Vec<ReadingRow>> {
        Ok(self.service()?.cloud.memory().read(|r| r.ledger())?)
    }

    /// All counters.
    pub(super) fn counts(&self) -> anyhow::Result<Vec<CountRow>> {
        Ok(self.service()?.cloud.memory().read(|r| r.counts())?)
    }
}
