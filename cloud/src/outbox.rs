//! Readings go out: to each sink of `[[outbox]]`, in order of each device, at least once.
//!
//! The store is the queue, and each sink has a task of its own, so that one that is away holds up nobody: not another sink, and
//! not what comes in. What a sink has taken is durable before the next is sent; what is lost between its yes and our note comes
//! again, under the same id. Which is sent when, the engine of the crate `sinks` says.

mod reading;

use std::collections::HashMap;
use std::sync::Arc;

use fivefold_core::time::Millis;
use fivefold_keep::vault::Vault;
use fivefold_sinks::engine::{Engine, Next, Outcome, Place, Queue, Settled};
use fivefold_sinks::{About, Answer, Outbound, PATIENCE, Settings, Sink};
use tokio::task::JoinSet;

pub(crate) use reading::id;
pub use reading::outbound;

use crate::alarm::{Clock, Wall};
use crate::book::Book;
use crate::clock;
use crate::cloud::Cloud;
use crate::embedded::Embedded;
use crate::service::Service;
use crate::store::{
    Dead, Ledger as _, MOST_DEAD, OutboxMove, OutboxPage, OutboxSink, OutboxWrite, Reader, StoreError, Write,
};

/// How often it is looked whether there is something, or whether a person wants something, in milliseconds.
const IDLE: u64 = 250;
/// What a page may weigh when it is ready to be sent, as [`Outbound::weight`] counts it: a short payload may say much.
const HEAVIEST: usize = 32 << 20;

/// Why a sink cannot be prepared. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum Unprepared {
    /// Its words, secret or files.
    #[error(transparent)]
    Sink(#[from] fivefold_sinks::Wrong),
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its name stands for another kind of sink.
    #[error(
        "outbox \"{name}\": it was a sink with {was} before, and its place in the readings is that one's; give the new sink another name"
    )]
    Renamed {
        /// Its name.
        name: String,
        /// What it was.
        was: String,
    },
}

impl Unprepared {
    /// Whether it is the same at the next try, until somebody mends it.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Sink(e) => e.lasts,
            Self::Store(e) => e.is_lasting(),
            Self::Renamed { .. } => true,
        }
    }
}

/// What the outbox works on: a running cloud, or what a test has of one.
pub trait Ground: Send + Sync + 'static {
    /// The store.
    fn memory(&self) -> &Embedded;
    /// What is known of networks and templates.
    fn book(&self) -> Arc<Book>;
}

impl Ground for Service {
    fn memory(&self) -> &Embedded {
        self.cloud.memory()
    }

    fn book(&self) -> Arc<Book> {
        self.cloud.book()
    }
}

impl Ground for Cloud<Embedded> {
    fn memory(&self) -> &Embedded {
        self.memory()
    }

    fn book(&self) -> Arc<Book> {
        self.book()
    }
}

/// Notes which sinks there are.
///
/// # Errors
/// [`Unprepared`]: a name is another kind's.
pub fn enter(memory: &Embedded, sinks: &[Settings], now: Millis) -> Result<Write, Unprepared> {
    let known = memory.read(Reader::outbox)?;
    for sink in sinks {
        if let Some(other) = known.iter().find(|k| k.name == sink.name && k.kind != sink.kind()) {
            return Err(Unprepared::Renamed { name: sink.name.clone(), was: other.kind.clone() });
        }
    }
    let of = |s: &Settings| OutboxSink { name: s.name.clone(), kind: s.kind(), from_start: s.from_start };
    let outbox = OutboxWrite { sinks: Some(sinks.iter().map(of).collect()), ..OutboxWrite::default() };
    Ok(Write { now, outbox, ..Write::default() })
}

/// Starts a task for each sink.
///
/// # Errors
/// [`Unprepared`].
pub async fn start(
    tasks: &mut JoinSet<()>,
    service: &Arc<Service>,
    sinks: &[Settings],
    vault: &Vault,
) -> Result<(), Unprepared> {
    let prepared = sinks.iter().map(|sink| Ok((sink.name.clone(), sink.prepare(vault)?)));
    let prepared = prepared.collect::<Result<Vec<_>, Unprepared>>()?;
    for sink in service.cloud.memory().read(Reader::outbox)?.iter().filter(|k| k.gone.is_some()) {
        let missed = service.cloud.memory().read(|r| r.outbox_missed(&sink.name))?;
        if missed > 0 && sinks.iter().any(|s| s.name == sink.name) {
            tracing::warn!(
                sink = sink.name,
                missed,
                "readings were pruned while this sink was not in cloud.toml; it does not get them"
            );
        }
    }
    service.commit(enter(service.cloud.memory(), sinks, clock::now())?).await?;
    for (name, sink) in prepared {
        tasks.spawn(run(service.clone(), name, sink, Wall));
    }
    Ok(())
}

/// Brings a sink what waits for it, until the task is dropped.
pub async fn run<P: Ground>(at: Arc<P>, name: String, sink: Box<dyn Sink>, clock: impl Clock) {
    let engine = Engine::new(sink.most());
    let mut outbox = Outbox {
        at,
        name,
        sink,
        clock,
        engine,
        page: Loaded::default(),
        asked: None,
        gathering: None,
        complained: false,
    };
    loop {
        if let Err(error) = outbox.step().await {
            tracing::error!(%error, sink = outbox.name, "readings that wait for a sink cannot be read; it is tried again");
            // What of the page is not noted is read again.
            outbox.engine.load([]);
            outbox.page = Loaded::default();
            outbox.clock.sleep(4 * IDLE).await;
        }
    }
}

/// The page that the engine has.
#[derive(Debug, Default)]
struct Loaded {
    // Of each place that is not settled, the reading's row.
    rows: HashMap<Place, i64>,
    // The last reading and the last label that were looked at: the sink's place when all of it is settled.
    upto: (Option<i64>, Option<i64>),
}

struct Outbox<P, C> {
    at: Arc<P>,
    name: String,
    sink: Box<dyn Sink>,
    clock: C,
    engine: Engine,
    page: Loaded,
    asked: Option<i64>,
    // Since when something waits for a batch to fill.
    gathering: Option<Millis>,
    complained: bool,
}

impl<P: Ground, C: Clock> Outbox<P, C> {
    async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Reader, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (at, name) = (self.at.clone(), self.name.clone());
        let read = tokio::task::spawn_blocking(move || at.memory().read(|r| ask(r, &name))).await;
        read.unwrap_or(Err(StoreError::Closed))
    }

    async fn step(&mut self) -> Result<(), StoreError> {
        let (is_paused, asked, dead) = self.read(Reader::outbox_state).await?;
        if self.asked.replace(asked).is_some_and(|before| before != asked) {
            self.engine.hurry();
        }
        if is_paused {
            self.clock.sleep(IDLE).await;
            return Ok(());
        }
        if dead >= MOST_DEAD {
            let failed = format!(
                "{MOST_DEAD} readings were put aside, and none more is: look at them, mend the sink, \
                                  and type: fivefold outbox resend {}",
                self.name
            );
            self.note(OutboxMove { failed: Some(failed), ..OutboxMove::default() }).await;
            self.clock.sleep(40 * IDLE).await;
            return Ok(());
        }
        match self.engine.next(self.clock.now()) {
            Next::Wait(until) => {
                // In small steps: a person may want it tried now.
                let left = until.since(self.clock.now());
                self.clock.sleep(left.clamp(1, 4 * IDLE)).await;
            }
            Next::Load => self.load().await?,
            Next::More => self.load_more().await?,
            Next::Send(batch) => {
                let sent = tokio::time::timeout(PATIENCE, self.sink.send(&batch)).await;
                let silent = |_| Answer::away(format_args!("no answer within {} seconds", PATIENCE.as_secs()));
                let mut random = [0];
                // Without randomness all clouds come back in the same second, and no reading is lost.
                let _ = getrandom::fill(&mut random);
                let settled = self.engine.answered(sent.unwrap_or_else(silent), self.clock.now(), random[0]);
                self.settle(settled).await;
            }
        }
        Ok(())
    }

    async fn load(&mut self) -> Result<(), StoreError> {
        let most = self.engine.page();
        let page = self.read(move |r, name| r.outbox_page(name, most)).await?;
        self.take_out(&page.void).await;
        if page.is_empty() {
            if page.is_ahead {
                // What is there is nothing that is sent.
                let (reading, raised) = (Some(page.reading), Some(page.raised));
                self.note(OutboxMove { reading, raised, ..OutboxMove::default() }).await;
            }
            self.clock.sleep(IDLE).await;
            return Ok(());
        }
        let left = if page.is_urgent { 0 } else { self.gathers() };
        if left > 0 {
            self.clock.sleep(left.min(20 * IDLE)).await;
            return Ok(());
        }
        self.gathering = None;
        let (reading, raised) = (page.reading, page.raised);
        let (all, is_whole) = light(places(page, &self.at.book()), HEAVIEST);
        let last = |queue| all.iter().rev().find(|(place, ..)| place.queue == queue).map(|(place, ..)| place.row);
        let upto = if is_whole { (Some(reading), Some(raised)) } else { (last(Queue::Reading), last(Queue::Label)) };
        self.page = Loaded { rows: all.iter().map(|(place, row, _)| (*place, *row)).collect(), upto };
        self.engine.load(all.into_iter().map(|(place, _, reading)| (place, reading)));
        Ok(())
    }

    /// Loads what is behind the page: the sink's place stays where the first is that it does not take now.
    async fn load_more(&mut self) -> Result<(), StoreError> {
        let most = if self.engine.has_room() { self.engine.page() } else { 0 };
        let (upto, letters) =
            (self.page.upto, self.page.rows.keys().filter(|place| place.queue == Queue::Again).count());
        let page = self.read(move |r, name| r.outbox_behind(name, upto, letters, most)).await?;
        self.take_out(&page.void).await;
        let (reading, raised) = (page.reading, page.raised);
        let book = self.at.book();
        let all = places(page, &book).filter(|(place, ..)| !self.page.rows.contains_key(place));
        let (all, is_whole) = light(all, HEAVIEST);
        if all.is_empty() {
            self.clock.sleep(IDLE).await;
        }
        let last = |queue| all.iter().rev().find(|(place, ..)| place.queue == queue).map(|(place, ..)| place.row);
        self.page.upto = if is_whole {
            (Some(reading), Some(raised))
        } else {
            (last(Queue::Reading).or(upto.0), last(Queue::Label).or(upto.1))
        };
        self.page.rows.extend(all.iter().map(|(place, row, _)| (*place, *row)));
        self.engine.extend(all.into_iter().map(|(place, _, reading)| (place, reading)));
        Ok(())
    }

    /// Takes out dead letters of which nothing is sent.
    async fn take_out(&self, void: &[i64]) {
        if void.is_empty() {
            return;
        }
        tracing::warn!(
            sink = self.name,
            letters = void.len(),
            "dead letters are not sent again, and taken out: their readings are pruned, in quarantine, or no longer there"
        );
        let again = void.iter().map(|letter| (*letter, None)).collect();
        self.note(OutboxMove { again, ..OutboxMove::default() }).await;
    }

    /// Milliseconds that a page which is not full is still waited for.
    fn gathers(&mut self) -> u64 {
        let now = self.clock.now();
        // A clock that was put back must not make it longer.
        let since = *self.gathering.insert(self.gathering.filter(|since| *since <= now).unwrap_or(now));
        let most = u64::try_from(self.sink.gathers().as_millis()).unwrap_or(u64::MAX);
        most.saturating_sub(now.since(since))
    }

    /// Notes what was settled, and what the sink said.
    async fn settle(&mut self, settled: Settled) {
        let mut moved = OutboxMove {
            reading: settled.reading,
            raised: settled.label,
            retried: settled.again as u64,
            failed: settled.failed,
            ..OutboxMove::default()
        };
        let is_moved = !settled.places.is_empty();
        for (place, outcome) in settled.places {
            let row = self.page.rows.remove(&place).unwrap_or(0);
            match (place.queue, outcome) {
                (queue, Outcome::Taken) => {
                    moved.sent += 1;
                    moved.again.extend((queue == Queue::Again).then_some((place.row, None)));
                }
                (Queue::Again, Outcome::Dead(said)) => moved.again.push((place.row, Some(said))),
                (queue, Outcome::Dead(said)) => {
                    tracing::warn!(sink = self.name, %said, "a sink refused a reading; see: fivefold outbox dead");
                    moved.dead.push(Dead { reading: row, label: queue == Queue::Label, said });
                }
            }
        }
        if is_moved && self.page.rows.is_empty() {
            let (reading, raised) = self.page.upto;
            (moved.reading, moved.raised) = (reading.or(moved.reading), raised.or(moved.raised));
        }
        match &moved.failed {
            Some(error) if !self.complained => {
                self.complained = true;
                tracing::warn!(sink = self.name, %error, "readings were not taken; none is lost, it is tried again");
            }
            None if is_moved && self.complained => {
                self.complained = false;
                tracing::info!(sink = self.name, "readings are taken again");
            }
            _ => {}
        }
        if moved != OutboxMove::default() {
            self.note(moved).await;
        }
    }

    /// What a sink has taken must be noted before anything else: else it would get it again.
    async fn note(&self, moved: OutboxMove) {
        let outbox =
            OutboxWrite { moves: vec![OutboxMove { name: self.name.clone(), ..moved }], ..OutboxWrite::default() };
        let write = Arc::new(Write { now: self.clock.now(), outbox, ..Write::default() });
        while let Err(error) = self.at.memory().commit(write.clone()).await {
            tracing::error!(%error, sink = self.name, "it cannot be noted what a sink has taken; it is tried again");
            self.clock.sleep(4 * IDLE).await;
        }
    }
}

/// A page in the order in which it is sent, with each reading's row. Each is prepared when it is asked for.
fn places(page: OutboxPage, book: &Book) -> impl Iterator<Item = (Place, i64, Outbound)> {
    let all = page.again.into_iter().map(|(letter, is_label, r)| (Queue::Again, letter, is_label, r));
    let all = all.chain(page.readings.into_iter().map(|r| (Queue::Reading, r.row.id, false, r)));
    let all = all.chain(page.labels.into_iter().map(|(raised, r)| (Queue::Label, raised, true, r)));
    all.map(|(queue, row, is_label, reading)| {
        let about = if is_label { About::Label } else { About::Reading };
        (Place { queue, row }, reading.row.id, outbound(&reading, about, book))
    })
}

/// As many as weigh no more than that, the first in any case; and whether that is all of them.
fn light(all: impl Iterator<Item = (Place, i64, Outbound)>, most: usize) -> (Vec<(Place, i64, Outbound)>, bool) {
    let (mut kept, mut weight) = (Vec::new(), 0);
    for one in all {
        weight += one.2.weight();
        if weight > most && !kept.is_empty() {
            return (kept, false);
        }
        kept.push(one);
    }
    (kept, true)
}
