//! The cloud of the village: the real engine over its real store, which can die between any two steps of a request.

use std::path::{Path, PathBuf};

use fivefold_cloud::book::{Book, Enrolled, Maker, Remembered, Source};
use fivefold_cloud::cloud::{Cloud, Concluded, Judged};
use fivefold_cloud::embedded::Embedded;
use fivefold_cloud::store::{CountRow, EvidenceRow, ReadingRow, Store, Verdict, Write};
use fivefold_core::e4_channel::ProvenGateway;
use fivefold_core::error::Code;
use fivefold_core::id::{Did, Epoch, GatewayId};
use fivefold_core::profile::Profile;
use fivefold_core::time::Millis;
use fivefold_keep::registry;

use crate::family::{GROUP, Member, NET, PAN, wall};

/// How far a request has come.
#[derive(Debug)]
pub enum Stage {
    /// It is here.
    Received(Vec<u8>),
    /// It was opened; nothing is durable.
    Judged(Box<Judged>),
    /// It is durable; nothing was answered.
    Concluded(Box<Concluded>),
    /// Numbers for answers are durable too.
    Leased(Box<Concluded>),
    /// This is the reply.
    Replied(Vec<u8>),
    /// It was refused as a whole.
    Refused(Code),
}

/// What a step made durable, as the watch wants to know it.
#[derive(Debug, Default)]
pub struct Durable {
    /// Contexts, by their row, with their epoch and boot.
    pub contexts: Vec<(i64, Epoch, Option<[u8; 8]>)>,
    /// Rows of the ledger.
    pub rows: Vec<Taken>,
    /// Batches of which leaf hashes came.
    pub leaves: Vec<(Did, u64)>,
    /// Whether gateways are to be pushed something else after this.
    pub new_generation: bool,
}

/// A row that the ledger took.
#[derive(Debug)]
pub struct Taken {
    /// As it was written.
    pub row: fivefold_cloud::accepted::Row,
    /// What the ledger said.
    pub verdict: Verdict,
}

/// A claim as it stands in the store, read past the cloud's own code.
#[derive(Debug)]
pub struct ClaimRow {
    /// Number of the batch.
    pub number: u64,
    /// 0 open, 1 verified, 2 invalid, 3 given up.
    pub state: u8,
    /// The COSE_Sign1 of a verified one.
    pub cose: Option<Vec<u8>>,
}

/// The cloud.
#[derive(Debug)]
pub struct CloudStation {
    path: PathBuf,
    members: Vec<Member>,
    gateways: Vec<registry::Gateway>,
    /// Certified keys of gateways for receipts.
    pub receipt_signers: Vec<registry::ReceiptSigner>,
    engine: Option<Cloud<Embedded>>,
    /// Counts its processes.
    pub run: u32,
    gap_period: Option<u64>,
}

impl CloudStation {
    /// A cloud whose store lies in `folder`. It is not started.
    pub fn new(folder: &Path, members: Vec<Member>, gateways: Vec<registry::Gateway>) -> Self {
        Self {
            path: folder.join("readings.db"),
            members,
            gateways,
            receipt_signers: Vec::new(),
            engine: None,
            run: 0,
            gap_period: None,
        }
    }

    fn source(&self) -> Source {
        Source {
            version: 1,
            networks: vec![registry::Network {
                net: NET,
                name: "village".into(),
                pan: PAN.0,
                profile: Profile::ToBoth,
                group: GROUP,
                override_words: None,
            }],
            gateways: self.gateways.clone(),
            tokens: Vec::new(),
            is_change: false,
            renewals: Vec::new(),
            rotations: Vec::new(),
            classics: Vec::new(),
            templates: Default::default(),
            signers: self.members.iter().filter_map(|m| Some(m.signer.as_ref()?.registered.clone())).collect(),
            receipt_signers: self.receipt_signers.clone(),
            devices: self
                .members
                .iter()
                .map(|m| Enrolled { device: m.registered(), secrets: Some(m.at_cloud()) })
                .collect(),
        }
    }

    /// Starts a process over what the store has.
    pub fn start(&mut self, now: u64) -> anyhow::Result<()> {
        let memory = Embedded::new(Store::open(&self.path)?);
        let mut write = Write { now: wall(now), ..Write::default() };
        let maker = Maker {
            vault: None,
            new_context: &|| memory.store().new_context(),
            fresh_store: memory.store().was_empty(),
            restored: memory.read(|r| r.restored())?,
            now: wall(now),
        };
        let remembered: Remembered = memory.remembered()?;
        let book = maker.book(self.source(), &Book::default(), remembered, &mut write);
        memory.store().commit_now(write)?;
        let pushed = memory.read(|r| r.pushed())?;
        let engine = Cloud::new(book, memory, pushed);
        if let Some(period) = self.gap_period {
            engine.set_gap_period(fivefold_core::time::Millis(period));
        }
        self.engine = Some(engine);
        self.run += 1;
        Ok(())
    }

    /// Counts missing numbers over so many milliseconds in place of a day, in this process and later ones.
    pub fn count_gaps_over(&mut self, ms: u64) {
        self.gap_period = Some(ms);
        if let Some(engine) = &self.engine {
            engine.set_gap_period(fivefold_core::time::Millis(ms));
        }
    }

    /// Signing keys of devices, as the next process finds them in the book.
    pub fn signers(&mut self) -> impl Iterator<Item = &mut registry::Signer> {
        self.members.iter_mut().filter_map(|m| Some(&mut m.signer.as_mut()?.registered))
    }

    /// The engine, while its process runs.
    pub const fn engine(&self) -> Option<&Cloud<Embedded>> {
        self.engine.as_ref()
    }

    /// Whether its process runs.
    pub const fn is_on(&self) -> bool {
        self.engine.is_some()
    }

    /// The process dies.
    pub fn kill(&mut self) {
        self.engine = None;
    }

    /// Takes note that a gateway is about to be pushed its state.
    pub fn push(&mut self, now: u64, gateway: GatewayId) -> anyhow::Result<()> {
        if let Some(engine) = &self.engine {
            let write = Write { now: wall(now), pushed: vec![(gateway, 1)], ..Write::default() };
            engine.memory().store().commit_now(write)?;
            engine.pushed(gateway, 1);
        }
        Ok(())
    }

    /// Takes a request one step further. What became durable in that step comes with it.
    pub fn step(&self, now: u64, gateway: &ProvenGateway, stage: Stage) -> anyhow::Result<(Stage, Durable)> {
        let Some(engine) = &self.engine else { anyhow::bail!("the cloud is not running") };
        step(engine, wall(now), gateway, stage)
    }

    /// Time has passed.
    pub fn timeout(&self, now: u64) -> anyhow::Result<()> {
        if let Some(engine) = &self.engine {
            let write = engine.handle_timeout(wall(now));
            if !write.is_empty() {
                engine.memory().store().commit_now(write)?;
            }
        }
        Ok(())
    }

    /// Queues a command for a device.
    pub fn command(&self, now: u64, did: Did) -> anyhow::Result<()> {
        let Some(engine) = &self.engine else { return Ok(()) };
        // Devices without E3, and those that have too many waiting, take none.
        let Ok(row) = engine.command(did, 1, Vec::new(), wall(now)) else { return Ok(()) };
        let write = Write { now: wall(now), commands: vec![row.clone()], ..Write::default() };
        engine.memory().store().commit_now(write)?;
        engine.commanded(row);
        Ok(())
    }

    /// All rows of the ledger.
    pub fn ledger(&self) -> anyhow::Result<Vec<ReadingRow>> {
        let Some(engine) = &self.engine else { return Ok(Vec::new()) };
        Ok(engine.memory().read(|r| r.ledger())?)
    }

    /// Readings of a device, with what proves them.
    pub fn evidence(&self, did: Did) -> anyhow::Result<Vec<EvidenceRow>> {
        let Some(engine) = &self.engine else { return Ok(Vec::new()) };
        Ok(engine.memory().read(|r| r.evidence(did, Millis(0), Millis(i64::MAX as u64), usize::MAX))?)
    }

    /// All that a device claimed to have signed.
    pub fn claims(&self, did: Did) -> anyhow::Result<Vec<ClaimRow>> {
        let store = rusqlite::Connection::open(&self.path)?;
        let mut all = store.prepare("SELECT number, state, cose FROM batch WHERE did = ? ORDER BY id")?;
        let row = |r: &rusqlite::Row<'_>| {
            Ok(ClaimRow { number: r.get::<_, i64>(0)? as u64, state: r.get(1)?, cose: r.get(2)? })
        };
        Ok(all.query_map([did.0], row)?.collect::<rusqlite::Result<_>>()?)
    }

    /// All counters.
    pub fn counts(&self) -> anyhow::Result<Vec<CountRow>> {
        let Some(engine) = &self.engine else { return Ok(Vec::new()) };
        Ok(engine.memory().read(|r| r.counts())?)
    }
}

/// Takes a request one step further. What became durable in that step comes with it.
pub fn step(
    engine: &Cloud<Embedded>,
    now: Millis,
    gateway: &ProvenGateway,
    stage: Stage,
) -> anyhow::Result<(Stage, Durable)> {
    let store = engine.memory().store();
    Ok(match stage {
        Stage::Received(body) => match engine.judge(gateway, &body, now) {
            Ok(judged) => (Stage::Judged(Box::new(judged)), Durable::default()),
            Err(refused) => {
                let mut write = Write { now, ..Write::default() };
                write.count(refused.key);
                store.commit_now(write)?;
                (Stage::Refused(refused.rejected.code), Durable::default())
            }
        },
        Stage::Judged(mut judged) => {
            let committed = store.commit_now(judged.write.clone())?;
            let rows = judged.write.accepted.iter().map(|a| a.row().clone());
            let rows = rows.zip(&committed.verdicts).map(|(row, v)| Taken { row, verdict: *v }).collect();
            let contexts = judged.write.contexts.iter().map(|c| (c.id.0, c.epoch, c.bctx.map(|b| b.0))).collect();
            let leaves = judged.write.evidence.leaves.iter().map(|l| (l.did, l.number)).collect();
            let new_generation = committed.generation.is_some();
            let written = std::sync::Arc::new(std::mem::take(&mut judged.write));
            let concluded = engine.conclude(*judged, written, committed);
            (Stage::Concluded(Box::new(concluded)), Durable { contexts, rows, leaves, new_generation })
        }
        Stage::Concluded(concluded) => {
            if !concluded.write.is_empty() {
                store.commit_now(Write::clone(&concluded.write))?;
            }
            (Stage::Leased(concluded), Durable::default())
        }
        Stage::Leased(concluded) => (Stage::Replied(engine.reply(*concluded)), Durable::default()),
        done => (done, Durable::default()),
    })
}
