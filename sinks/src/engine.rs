//! What is sent next, and when again: without a socket, a clock or a disk.
//!
//! The engine has one page of the store at a time, in order. It hands out what is not settled yet, takes the sink's answer, and
//! gives back what became of each, and how far each queue is settled without a gap: so far, and never further, the store may note
//! that the sink is. What is lost between the sink's yes and that note comes again, under the same id. A batch that is refused as
//! a whole comes in halves, until what is wrong is alone; that is put aside, and the rest goes on. A device that a sink does not
//! take from is tried by itself; the others go on behind it as far as [`AHEAD`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fivefold_alarm::{Backoff, LONGEST_PAUSE};
use fivefold_core::id::Did;
use fivefold_core::time::Millis;

use crate::{Answer, Most, Outbound, Verdict};

/// How long is waited after the first failure, in milliseconds: doubled each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: u64 = 500;
/// Readings in a row that may be put aside before there is a pause: a sink that refuses everything is asked seldom.
const REFUSALS: u32 = 16;
/// So often in a row a sink does not take from a device before the others go on without it.
const HELD_AFTER: u32 = 3;
/// Readings behind one that is held, at most: what of them the sink has comes again if the cloud is started anew.
pub const AHEAD: usize = 20_000;
/// What those of them may weigh that the sink has not, as [`Outbound::weight`] counts.
const HEAVIEST: usize = 32 << 20;

/// From one reading to a whole batch in so many steps, where a batch may be too much: doubled, each second one would be for nothing.
const STEPS: usize = 64;

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
    /// What became of what was sent, where it is settled.
    pub places: Vec<(Place, Outcome)>,
    /// All readings up to this one are settled.
    pub reading: Option<i64>,
    /// All labels up to this one are.
    pub label: Option<i64>,
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
    /// Load what is behind this page, if there is room, and what a person wants: all that is left of it is of devices that the
    /// sink does not take from now.
    More,
    /// Wait until then, at the longest.
    Wait(Millis),
    /// Send this, and say what was answered.
    Send(Vec<Arc<Outbound>>),
}

#[derive(Debug)]
struct Slot {
    place: Place,
    // None once it is settled.
    reading: Option<Arc<Outbound>>,
}

/// A device that the sink does not take from.
#[derive(Debug)]
struct Held {
    times: u32,
    said: String,
}

/// The engine of one sink.
#[derive(Debug)]
pub struct Engine {
    most: Most,
    page: VecDeque<Slot>,
    // Readings of the next batch: fewer after a failure, more after a success.
    ceiling: usize,
    // More were once too many for the time that there is, or came to nothing: it grows in small steps.
    is_careful: bool,
    // Places in the page of the batch that is under way.
    sent: Vec<usize>,
    backoff: Backoff,
    pause_until: Option<Millis>,
    refusals: u32,
    held: BTreeMap<Did, Held>,
    held_backoff: Backoff,
    // Devices that are held are not tried before.
    held_until: Option<Millis>,
}

impl Engine {
    /// For a sink that takes so much at a time.
    pub fn new(most: Most) -> Self {
        let most = Most { readings: most.readings.max(1), ..most };
        Self {
            most,
            page: VecDeque::new(),
            ceiling: most.readings,
            is_careful: false,
            sent: Vec::new(),
            backoff: Backoff::from(FIRST_PAUSE),
            pause_until: None,
            refusals: 0,
            held: BTreeMap::new(),
            held_backoff: Backoff::from(FIRST_PAUSE),
            held_until: None,
        }
    }

    /// Readings of a page, at most.
    pub const fn page(&self) -> usize {
        self.most.readings
    }

    /// Takes the next page, in order. What was left of the last one is forgotten: the store has it.
    pub fn load(&mut self, page: impl IntoIterator<Item = (Place, Outbound)>) {
        self.page.clear();
        self.sent.clear();
        self.held.clear();
        self.held_until = None;
        self.extend(page);
    }

    /// Takes what is behind the page.
    pub fn extend(&mut self, more: impl IntoIterator<Item = (Place, Outbound)>) {
        let slot = |(place, reading)| Slot { place, reading: Some(Arc::new(reading)) };
        self.page.extend(more.into_iter().map(slot));
    }

    /// A person wants it tried now.
    pub fn hurry(&mut self) {
        self.pause_until = None;
        self.held_until = None;
        self.backoff.reset();
        self.held_backoff.reset();
    }

    /// What to do now.
    pub fn next(&mut self, now: Millis) -> Next {
        // A clock that was put back must not make a pause longer than pauses are.
        let within = |until: Millis| until.min(now.plus(LONGEST_PAUSE * 9 / 8));
        if let Some(until) = self.pause_until.filter(|until| *until > now) {
            return Next::Wait(within(until));
        }
        self.pause_until = None;
        self.held_until = self.held_until.filter(|until| *until > now);
        let (mut bytes, mut seen) = (0, BTreeSet::new());
        let open = self.page.iter().enumerate().filter_map(|(at, slot)| Some((at, slot.reading.as_ref()?)));
        // Of one that is held the first, when it is time again.
        let open = open.filter(|(_, reading)| {
            !self.is_held(reading.did) || (self.held_until.is_none() && seen.insert(reading.did))
        });
        let (sent, batch): (Vec<_>, Vec<_>) = open
            .map(|(at, reading)| (at, reading.clone()))
            .take(self.ceiling)
            .take_while(|(_, reading)| {
                let is_first = bytes == 0;
                bytes += reading.weight();
                is_first || bytes <= self.most.bytes
            })
            .unzip();
        self.sent = sent;
        match self.held_until {
            _ if !batch.is_empty() => Next::Send(batch),
            Some(_) => Next::More,
            None => Next::Load,
        }
    }

    fn is_held(&self, did: Did) -> bool {
        self.held.get(&did).is_some_and(|held| held.times >= HELD_AFTER)
    }

    /// Whether there may be more readings behind what is held.
    pub fn has_room(&self) -> bool {
        let weight: usize = self.page.iter().filter_map(|slot| Some(slot.reading.as_ref()?.weight())).sum();
        self.page.len() < AHEAD && weight < HEAVIEST
    }

    /// Takes the answer to what [`Self::next`] sent. `random` is any byte.
    pub fn answered(&mut self, answer: Answer, now: Millis, random: u8) -> Settled {
        let sent = std::mem::take(&mut self.sent);
        let verdicts = match answer {
            Answer::Taken => vec![Verdict::Done; sent.len()],
            Answer::Refused(said) if sent.len() == 1 => vec![Verdict::Dead(said)],
            Answer::Refused(_) => {
                self.ceiling = (sent.len() / 2).max(1);
                return Settled::default();
            }
            Answer::Away { said, after } => {
                let after = after.map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
                self.take_at_most(sent.len() / 2);
                self.pause(now, random, after.min(LONGEST_PAUSE));
                return Settled { again: sent.len(), failed: Some(said), ..Settled::default() };
            }
            Answer::Each(verdicts) => verdicts,
        };
        let (mut places, mut late, mut left, mut failed) = (Vec::new(), Vec::new(), Vec::new(), None);
        let (mut open, mut settled) = (BTreeMap::new(), BTreeSet::new());
        let verdicts = verdicts.into_iter().map(Some).chain(std::iter::repeat(None));
        for (at, verdict) in sent.iter().zip(verdicts) {
            let Some(slot) = self.page.get_mut(*at) else { continue };
            let Some(did) = slot.reading.as_ref().map(|reading| reading.did) else { continue };
            let outcome = match verdict {
                Some(Verdict::Done) => {
                    self.refusals = 0;
                    Outcome::Taken
                }
                Some(Verdict::Dead(said)) => {
                    self.refusals += 1;
                    Outcome::Dead(said)
                }
                Some(Verdict::Later) => {
                    late.push(did);
                    continue;
                }
                Some(Verdict::Retry(said)) => {
                    // It holds up all that is behind it: a person must know which it is.
                    let said = format!("{said} (device {did})");
                    failed.get_or_insert_with(|| said.clone());
                    open.entry(did).or_insert(said);
                    left.push(did);
                    continue;
                }
                None => {
                    left.push(did);
                    continue;
                }
            };
            slot.reading = None;
            places.push((slot.place, outcome));
            settled.insert(did);
        }
        let (taken, is_late) = (places.len(), !late.is_empty());
        if taken == 0 {
            // What nothing came of in time is no better than what was not spoken of.
            left.append(&mut late);
        }
        let again = left.len();
        if again > 0 && failed.is_none() {
            failed = Some("it did not say what became of all of a batch".into());
        }
        self.hold(&settled, open);
        if is_late {
            self.take_at_most(taken);
        } else if taken > 0 {
            self.take_more();
        }
        // Those that are held are waited for by themselves.
        let are_held = again > 0 && left.iter().all(|did| self.is_held(*did));
        if are_held {
            self.held_until = Some(now.plus(self.held_backoff.pause(random)));
        }
        if (again > 0 && !are_held) || self.refusals >= REFUSALS {
            // Something went well: the pause is short, but not where all that is well is a no.
            if taken > 0 && self.refusals < REFUSALS {
                self.backoff.reset();
            }
            self.pause(now, random, 0);
        } else if taken > 0 {
            self.backoff.reset();
        }
        let [reading, label] = self.settled();
        // As long as one is held, that is what is wrong.
        let held = || self.held.values().find(|held| held.times >= HELD_AFTER).map(|held| held.said.clone());
        Settled { places, reading, label, again, failed: failed.or_else(held) }
    }

    /// Up to which row readings and labels are settled without a gap. What is settled at the page's beginning is forgotten.
    fn settled(&mut self) -> [Option<i64>; 2] {
        let upto = |queue| {
            let of = self.page.iter().filter(move |slot| slot.place.queue == queue);
            of.take_while(|slot| slot.reading.is_none()).last().map(|slot| slot.place.row)
        };
        let upto = [upto(Queue::Reading), upto(Queue::Label)];
        while self.page.front().is_some_and(|slot| slot.reading.is_none()) {
            self.page.pop_front();
        }
        upto
    }

    /// Takes note of whom the sink took nothing from.
    fn hold(&mut self, settled: &BTreeSet<Did>, open: BTreeMap<Did, String>) {
        for did in settled {
            self.held.remove(did);
        }
        if self.held.is_empty() {
            self.held_backoff.reset();
        }
        for (did, said) in open.into_iter().filter(|(did, _)| !settled.contains(did)) {
            // What is wrong with the sink as a whole is no answer for each.
            let held = self.held.entry(did).or_insert(Held { times: 0, said: String::new() });
            (held.times, held.said) = (held.times.saturating_add(1), said);
        }
    }

    fn take_at_most(&mut self, readings: usize) {
        self.ceiling = readings.max(1);
        self.is_careful = true;
    }

    fn take_more(&mut self) {
        let more = if self.is_careful { (self.most.readings / STEPS).max(1) } else { self.ceiling };
        self.ceiling = (self.ceiling + more).min(self.most.readings);
        self.is_careful &= self.ceiling < self.most.readings;
    }

    fn pause(&mut self, now: Millis, random: u8, at_least: u64) {
        self.pause_until = Some(now.plus(self.backoff.pause(random).max(at_least)));
    }
}
