//! What is sent next, and when again: without a socket, a clock or a disk.
//!
//! The engine has one page of the store at a time, in order. It hands out what is not settled yet, takes the sink's answer, and
//! gives back what is settled from the page's beginning on: so far, and never further, the store may note that the sink is. What
//! is lost between the sink's yes and that note comes again, under the same id. A batch that is refused as a whole comes in
//! halves, until what is wrong is alone; that is put aside, and the rest goes on.

use std::collections::VecDeque;
use std::sync::Arc;

use fivefold_alarm::{Backoff, LONGEST_PAUSE};
use fivefold_core::time::Millis;

use crate::{Answer, Most, Outbound, Verdict};

/// How long is waited after the first failure, in milliseconds: doubled each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: u64 = 500;
/// Readings in a row that may be put aside before there is a pause: a sink that refuses everything is asked seldom.
const REFUSALS: u32 = 16;

/// Where a reading waits. Rows of each queue grow, and a page has them in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    /// What was stored.
    Reading,
    /// Labels that were raised.
    Label,
    /// Dead letters that a person sends again.
    Again,
}

/// One place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which queue.
    pub queue: Queue,
    /// Its row there.
    pub row: i64,
}

/// What became of a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sink has it.
    Taken,
    /// The sink will never take it, in its words.
    Dead(String),
}

/// What an answer has settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// From the beginning of the page on, without a gap.
    pub places: Vec<(Place, Outcome)>,
    /// Readings that are sent again.
    pub again: usize,
    /// Why, in the sink's words.
    pub failed: Option<String>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Load a page: this one is settled.
    Load,
    /// Wait until then, at the longest.
    Wait(Millis),
    /// Send this, and say what was answered.
    Send(Vec<Arc<Outbound>>),
}

#[derive(Debug)]
struct Slot {
    place: Place,
    reading: Arc<Outbound>,
    outcome: Option<Outcome>,
}

/// The engine of one sink.
#[derive(Debug)]
pub struct Engine {
    most: Most,
    page: VecDeque<Slot>,
    // Readings of the next batch: fewer after a failure, more after a success.
    ceiling: usize,
    // Readings of the batch that is under way.
    sent: usize,
    backoff: Backoff,
    pause_until: Option<Millis>,
    refusals: u32,
}

impl Engine {
    /// For a sink that takes so much at a time.
    pub fn new(most: Most) -> Self {
        let most = Most { readings: most.readings.max(1), ..most };
        Self {
            most,
            page: VecDeque::new(),
            ceiling: most.readings,
            sent: 0,
            backoff: Backoff::from(FIRST_PAUSE),
            pause_until: None,
            refusals: 0,
        }
    }

    /// Readings of a page, at most.
    pub const fn page(&self) -> usize {
        self.most.readings
    }

    /// Takes the next page, in order. What was left of the last one is forgotten: the store has it.
    pub fn load(&mut self, page: impl IntoIterator<Item = (Place, Outbound)>) {
        let slot = |(place, reading)| Slot { place, reading: Arc::new(reading), outcome: None };
        self.page = page.into_iter().map(slot).collect();
        self.sent = 0;
    }

    /// A person wants it tried now.
    pub fn hurry(&mut self) {
        self.pause_until = None;
        self.backoff.reset();
    }

    /// What to do now.
    pub fn next(&mut self, now: Millis) -> Next {
        if let Some(until) = self.pause_until.filter(|until| *until > now) {
            // A clock that was put back must not make a pause longer than pauses are.
            return Next::Wait(until.min(now.plus(LONGEST_PAUSE * 9 / 8)));
        }
        self.pause_until = None;
        let mut bytes = 0;
        let batch: Vec<_> = self
            .open()
            .map(|slot| slot.reading.clone())
            .take(self.ceiling)
            .take_while(|reading| {
                let is_first = bytes == 0;
                bytes += reading.weight();
                is_first || bytes <= self.most.bytes
            })
            .collect();
        self.sent = batch.len();
        if batch.is_empty() { Next::Load } else { Next::Send(batch) }
    }

    /// What is not settled yet, in order.
    fn open(&self) -> impl Iterator<Item = &Slot> {
        self.page.iter().filter(|slot| slot.outcome.is_none())
    }

    /// Takes the answer to what [`Self::next`] sent. `random` is any byte.
    pub fn answered(&mut self, answer: Answer, now: Millis, random: u8) -> Settled {
        let sent = std::mem::take(&mut self.sent);
        let verdicts = match answer {
            Answer::Taken => vec![Verdict::Done; sent],
            Answer::Refused(said) if sent == 1 => vec![Verdict::Dead(said)],
            Answer::Refused(_) => {
                self.ceiling = (sent / 2).max(1);
                return Settled::default();
            }
            Answer::Away { said, after } => {
                let after = after.map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
                self.ceiling = (sent / 2).max(1);
                self.pause(now, random, after.min(LONGEST_PAUSE));
                return Settled { again: sent, failed: Some(said), ..Settled::default() };
            }
            Answer::Each(verdicts) => verdicts,
        };
        let (mut again, mut failed) = (sent, None);
        let slots = self.page.iter_mut().filter(|slot| slot.outcome.is_none());
        for (slot, verdict) in slots.take(sent).zip(verdicts) {
            match verdict {
                Verdict::Done => {
                    slot.outcome = Some(Outcome::Taken);
                    self.refusals = 0;
                }
                Verdict::Dead(said) => {
                    slot.outcome = Some(Outcome::Dead(said));
                    self.refusals += 1;
                }
                Verdict::Retry(said) => {
                    // It holds up all that is behind it: a person must know which it is.
                    let did = slot.reading.did;
                    failed.get_or_insert_with(|| format!("{said} (device {did})"));
                    continue;
                }
            }
            again -= 1;
        }
        if again < sent {
            self.ceiling = (self.ceiling * 2).min(self.most.readings);
        }
        if again > 0 || self.refusals >= REFUSALS {
            // Something went well: the pause is short, but not where all that is well is a no.
            if again < sent && self.refusals < REFUSALS {
                self.backoff.reset();
            }
            self.pause(now, random, 0);
        } else {
            self.backoff.reset();
        }
        let mut places = Vec::new();
        while let Some(Slot { place, outcome: Some(_), .. }) = self.page.front() {
            let place = *place;
            let outcome = self.page.pop_front().and_then(|slot| slot.outcome);
            places.extend(outcome.map(|outcome| (place, outcome)));
        }
        if again > 0 && failed.is_none() {
            failed = Some("it did not say what became of all of a batch".into());
        }
        Settled { places, again, failed }
    }

    fn pause(&mut self, now: Millis, random: u8, at_least: u64) {
        self.pause_until = Some(now.plus(self.backoff.pause(random).max(at_least)));
    }
}
