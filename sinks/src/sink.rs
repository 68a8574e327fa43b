//! What a sink is to the engine.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Outbound;

/// How long a sink may take for one batch. Who waits drops [`Sink::send`] then, and asks again later: a sink holds nothing that
/// this could break.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How far a sink that answers for each goes within [`PATIENCE`]: what it has by then it says, so that a slow link loses nothing of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// From then on it begins nothing more of a batch.
    pub(crate) begins: Duration,
    /// From then on it waits for no answer.
    pub(crate) waits: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { begins: PATIENCE / 2, waits: PATIENCE * 5 / 6 }
    }
}

/// The same for a batch that begins now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Until {
    /// See [`Pace::begins`].
    pub(crate) begins: Instant,
    /// See [`Pace::waits`].
    pub(crate) waits: Instant,
}

impl Pace {
    pub(crate) fn begin(self) -> Until {
        let now = Instant::now();
        Until { begins: now + self.begins, waits: now + self.waits }
    }
}

/// What became of one of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has it, as durably as it promises.
    Done,
    /// There was no time for it, or none for its answer: it is sent again, in a smaller batch, and nothing is wrong.
    Later,
    /// Not now: it is sent again. In the sink's words.
    Retry(String),
    /// This one will never do: it is put aside for a person to see, and the rest goes on. In the sink's words.
    Dead(String),
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has all of it.
    Taken,
    /// It was not reached, does not speak as it should, or has no time: the same is sent again later. Nothing is known of what
    /// was sent.
    Away {
        /// In the sink's words, without secrets.
        said: String,
        /// How long it wants to be left alone.
        after: Option<Duration>,
    },
    /// It refused the batch as a whole, and the batch is why: it comes in halves, until what is wrong is alone.
    Refused(String),
    /// One verdict for each, in order; what has none is sent again. Of one device nothing may be `Done` behind a `Later`
    /// or a `Retry`.
    Each(Vec<Verdict>),
}

/// Of a reading that was not sent, for its device's order.
pub(crate) const EARLIER: &str = "an earlier one of its device was not taken";

impl Answer {
    /// It was not reached.
    pub fn away(said: impl std::fmt::Display) -> Self {
        Self::Away { said: said.to_string(), after: None }
    }
}

/// What a batch may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Readings.
    pub readings: usize,
    /// Bytes, as [`Outbound::weight`] counts; a single one may be larger.
    pub bytes: usize,
}

/// An answer under way.
pub type Sending<'s> = Pin<Box<dyn Future<Output = Answer> + Send + 's>>;

/// Somebody who takes readings.
///
/// Of each device readings come in order; the same one may come again, under the same id: a sink that can, takes it once.
pub trait Sink: Send + Sync {
    /// What a batch for it may hold.
    fn most(&self) -> Most;

    /// How long a reading may wait for a batch to fill.
    fn gathers(&self) -> Duration {
        Duration::ZERO
    }

    /// Sends a batch, which is never empty. Bounded in memory; a connection may be kept for the next.
    fn send<'s>(&'s mut self, batch: &'s [Arc<Outbound>]) -> Sending<'s>;
}
