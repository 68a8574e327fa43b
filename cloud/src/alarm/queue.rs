//! What waits for one sink, oldest first, until the sink has said yes.

use std::sync::Arc;
use std::time::Duration;

use fivefold_alarm::Backoff;
use fivefold_core::time::Millis;

use super::{NotTaken, Prepared};
use crate::clock;
use crate::embedded::Embedded;
use crate::service::Service;
use crate::store::{AlarmRow, AlarmWrite, Ledger as _, StoreError, Write};

/// Alarms that are read at a time.
const PAGE: u32 = 64;
/// How often it is looked whether there is one, in milliseconds.
const IDLE: u64 = 1_000;
/// Alarms that a sink may refuse in a row before it gets a pause.
const REFUSALS: u32 = 16;

/// What the queue knows of time. Tests have another than [`Wall`].
pub trait Clock: Send + Sync + 'static {
    /// Unix time.
    fn now(&self) -> Millis;
    /// Waits so many milliseconds.
    fn sleep(&self, ms: u64) -> impl Future<Output = ()> + Send;
}

/// The clock on the wall.
#[derive(Clone, Copy, Debug)]
pub struct Wall;

impl Clock for Wall {
    fn now(&self) -> Millis {
        clock::now()
    }

    async fn sleep(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

impl AsRef<Embedded> for Service {
    fn as_ref(&self) -> &Embedded {
        self.cloud.memory()
    }
}

impl AsRef<Self> for Embedded {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Brings a sink what waits for it, until the task is dropped.
pub async fn run<M: AsRef<Embedded> + Send + Sync + 'static>(at: Arc<M>, sink: Prepared, clock: impl Clock) {
    let mut queue = Queue { at, sink, clock, backoff: Backoff::default(), complained: false };
    // What lies before it was refused in this round; at the end of the round it is tried again.
    let (mut after, mut refusals) = (0, 0);
    loop {
        let rows = match queue.waiting(after).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, sink = queue.sink.name, "alarms that wait cannot be read; it is tried again");
                queue.pause().await;
                continue;
            }
        };
        if rows.is_empty() {
            if after == 0 {
                queue.clock.sleep(IDLE).await;
            } else {
                (after, refusals) = (0, 0);
                queue.pause().await;
            }
            continue;
        }
        for row in rows {
            match queue.bring(&row).await {
                Ok(()) => refusals = 0,
                Err(NotTaken::Refused(_)) if refusals + 1 < REFUSALS => {
                    (after, refusals) = (row.n, refusals + 1);
                }
                Err(NotTaken::Refused(_)) => {
                    (after, refusals) = (row.n, 0);
                    queue.pause().await;
                }
                Err(NotTaken::Away(_)) => {
                    queue.pause().await;
                    break;
                }
            }
        }
    }
}

struct Queue<M, C> {
    at: Arc<M>,
    sink: Prepared,
    clock: C,
    backoff: Backoff,
    complained: bool,
}

impl<M: AsRef<Embedded> + Send + Sync + 'static, C: Clock> Queue<M, C> {
    async fn waiting(&self, after: i64) -> Result<Vec<AlarmRow>, StoreError> {
        let (at, name) = (self.at.clone(), self.sink.name.clone());
        let read =
            tokio::task::spawn_blocking(move || (*at).as_ref().read(|r| r.waiting_alarms(&name, after, PAGE))).await;
        read.unwrap_or(Err(StoreError::Closed))
    }

    async fn pause(&mut self) {
        let mut random = [0];
        // Without randomness all clouds come back in the same second, and no alarm is lost.
        let _ = getrandom::fill(&mut random);
        let pause = self.backoff.pause(random[0]);
        self.clock.sleep(pause).await;
    }

    /// Brings it one, and notes what became of it.
    async fn bring(&mut self, row: &AlarmRow) -> Result<(), NotTaken> {
        let name = &self.sink.name;
        let told = if row.alarm.severity < self.sink.least {
            Ok(())
        } else {
            self.sink.deliver(&row.alarm, self.clock.now()).await
        };
        let alarms = match &told {
            Ok(()) => AlarmWrite { taken: vec![(name.clone(), row.n)], ..AlarmWrite::default() },
            Err(error) => AlarmWrite { refused: vec![(name.clone(), error.to_string())], ..AlarmWrite::default() },
        };
        match &told {
            Ok(()) => {
                self.backoff.reset();
                self.complained = false;
            }
            Err(error) if !self.complained => {
                self.complained = true;
                tracing::warn!(sink = name, %error, "an alarm was not taken; none is lost, it is tried again");
            }
            Err(_) => {}
        }
        let write = Arc::new(Write { now: self.clock.now(), alarms, ..Write::default() });
        // What it has taken must be noted before anything else: else it would get it again.
        while let Err(error) = (*self.at).as_ref().commit(write.clone()).await {
            tracing::error!(%error, sink = self.sink.name, "it cannot be noted what a sink has taken; it is tried again");
            self.pause().await;
        }
        told
    }
}
