//! Messages that were sealed and are not known to have arrived (docs/protocol.md 9.1, 9.4).
//!
//! A message keeps its sealed bytes: sent again, it is the same bytes, which is always safe. It leaves when the innermost
//! level of the policy confirms it; custody of a gateway frees nothing. Three retransmissions without an answer park it;
//! it is tried again later, and at once when any answer shows that the way is open again.
//!
//! What was sealed under an older epoch stays as well, and is never sealed anew: two messages would make two readings. The
//! other side takes it while that epoch drains, and answers nothing to it; item 10 of answers under the newer one says
//! that it arrived (docs/protocol.md 7.3).

use core::fmt;

use fivefold_core::id::Epoch;
use fivefold_core::time::Millis;
use fivefold_core::wire::tiny::Wants;
use heapless::Vec;

use crate::relay::PAYLOAD;

/// Requests that wait for their answer at a time (docs/protocol.md 8.1).
pub const IN_FLIGHT: usize = 4;
/// Sending, and three times again.
const ATTEMPTS: u8 = 4;
/// Between messages of an older epoch that are sent anew, in milliseconds.
const PACE: u64 = 250;
/// Pauses after each of the attempts, in milliseconds.
const BACK_OFF: [u64; 4] = [2_000, 4_000, 8_000, 8_000];

/// A in the RuleID of a request (docs/protocol.md 6.1).
const ASKS: u8 = 0x04;

/// Names a message: its sender number at the innermost level, and the key generation that counts it. Under new keys numbers
/// start at 0 again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number {
    /// Key generation.
    pub epoch: Epoch,
    /// Sender number.
    pub value: u32,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// A sealed tiny frame.
pub(crate) type Sealed = Vec<u8, PAYLOAD>;

/// Which answers to a request one level has taken (docs/protocol.md 8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    unnumbered: bool,
    highest: Option<u64>,
}

impl Taken {
    /// Whether an answer with this number, or without one, is new.
    pub(crate) fn is_new(&self, piv: Option<u64>) -> bool {
        match piv {
            None => !self.unnumbered,
            Some(piv) => self.highest.is_none_or(|highest| piv > highest),
        }
    }

    pub(crate) fn mark(&mut self, piv: Option<u64>) {
        match piv {
            None => self.unnumbered = true,
            Some(piv) => self.highest = self.highest.max(Some(piv)),
        }
    }
}

/// A request that can be answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Its number at the innermost level.
    pub(crate) number: Number,
    /// Its number on the wire; another one when it was wrapped again for the gateway.
    pub(crate) outer: u32,
    pub(crate) by_gateway: Taken,
    pub(crate) by_cloud: Taken,
}

/// What a message carried beside the reading, to be confirmed with it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    /// Results of commands up to this id.
    pub(crate) results: u64,
    /// Something about this batch; 0 for none.
    pub(crate) batch: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The cloud said that it has it.
    Confirmed,
    /// To be sent, or sent again, at that time.
    Due(Millis),
    /// Tried often enough for now; again at that time.
    Parked(Millis),
    /// Sent; without an answer by then it is sent again.
    Sent(Millis),
}

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) asked: Asked,
    pub(crate) wants: Wants,
    pub(crate) state: State,
    pub(crate) frame: Sealed,
    /// What stands inside for the cloud, to be wrapped again (docs/protocol.md 6.3, rule 02); empty without E2 over E3.
    pub(crate) inner: Sealed,
    pub(crate) carried: Carried,
    pub(crate) attempts: u8,
    pub(crate) parkings: u8,
    pub(crate) first_sent: Option<Millis>,
    /// 4.01 was the answer to it: under other keys it is of no use.
    pub(crate) unwelcome: bool,
    /// Its epoch is over, and so will be the other side's patience with it.
    pub(crate) until: Option<Millis>,
}

/// How patient a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// First pause of a parked message, in milliseconds; doubled each time.
    pub park: u64,
    /// Longest pause, in milliseconds.
    pub longest: u64,
}

impl Default for Patience {
    /// One minute, then 2, 4, 8, 16.
    fn default() -> Self {
        Self { park: 60_000, longest: 960_000 }
    }
}

#[derive(Debug)]
pub(crate) struct Outbox<const N: usize> {
    messages: Vec<Message, N>,
    /// Requests that were confirmed lately: the cloud may answer them again, with numbers of its own.
    answered: [Option<Asked>; IN_FLIGHT],
    next: usize,
    pub(crate) patience: Patience,
}

impl<const N: usize> Outbox<N> {
    pub(crate) const fn new(patience: Patience) -> Self {
        Self { messages: Vec::new(), answered: [None; IN_FLIGHT], next: 0, patience }
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.messages.is_full()
    }

    pub(crate) fn push(&mut self, message: Message) {
        // The caller looked for room before it sealed.
        let _ = self.messages.push(message);
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = Number> + '_ {
        self.messages.iter().map(|m| m.asked.number)
    }

    pub(crate) fn find(&mut self, number: Number) -> Option<&mut Message> {
        self.messages.iter_mut().find(|m| m.asked.number == number)
    }

    /// Requests with this token, those that wait first.
    pub(crate) fn asked(&self, token: u8) -> impl Iterator<Item = Asked> + '_ {
        let asked = self.messages.iter().filter(|m| m.wants == Wants::Answer).map(|m| m.asked);
        asked.chain(self.answered.iter().flatten().copied()).filter(move |a| a.outer as u8 == token)
    }

    pub(crate) fn asked_mut(&mut self, number: Number) -> Option<&mut Asked> {
        let waiting = self.messages.iter_mut().map(|m| &mut m.asked);
        waiting.chain(self.answered.iter_mut().flatten()).find(|a| a.number == number)
    }

    /// Takes a message out.
    pub(crate) fn take(&mut self, number: Number) -> Option<Message> {
        let at = self.messages.iter().position(|m| m.asked.number == number)?;
        let message = self.messages.remove(at);
        if message.wants == Wants::Answer
            && let Some(place) = self.answered.get_mut(self.next)
        {
            *place = Some(message.asked);
            self.next = (self.next + 1) % IN_FLIGHT;
        }
        Some(message)
    }

    /// The way is open: what was parked goes now, but for messages that want no answer, or will get none: whether those
    /// arrived is said by item 1 and 10 of an answer (docs/protocol.md 7.3).
    pub(crate) fn wake(&mut self, now: Millis) {
        for message in self.messages.iter_mut().filter(|m| m.wants == Wants::Answer && m.until.is_none()) {
            if let State::Parked(_) = message.state {
                (message.state, message.attempts) = (State::Due(now), 0);
            }
        }
    }

    /// An answer to `answered` says which numbers of its epoch were received: those leave. Older ones that want no answer
    /// and are not among them are sent again, and want one now: item 1 reaches back 64 numbers, and what it does not reach
    /// would otherwise be sent for ever.
    pub(crate) fn received(&mut self, now: Millis, answered: Number, covers: impl Fn(u64) -> bool) {
        for message in self.messages.iter_mut().filter(|m| m.asked.number.epoch == answered.epoch) {
            if covers(message.asked.number.value.into()) {
                message.state = State::Confirmed;
            } else if message.wants == Wants::Nothing && message.asked.number < answered && message.attempts > 0 {
                (message.state, message.attempts) = (State::Due(now), 0);
                message.ask();
            }
        }
    }

    /// Which messages of older epochs were received: those leave.
    pub(crate) fn received_earlier(&mut self, covers: impl Fn(Epoch, u64) -> bool) {
        for message in self.messages.iter_mut().filter(|m| m.until.is_some()) {
            if covers(message.asked.number.epoch, message.asked.number.value.into()) {
                message.state = State::Confirmed;
            }
        }
    }

    /// Another epoch began. What waits is sent anew, one after the other, and goes on being sent `drain` milliseconds long:
    /// all of it, for nobody will ask for it.
    pub(crate) fn retire(&mut self, now: Millis, drain: u64) {
        let mut due = now;
        for message in self.messages.iter_mut().filter(|m| m.until.is_none() && m.state != State::Confirmed) {
            message.until = Some(if message.unwelcome { now } else { now.plus(drain) });
            message.ask();
            (message.attempts, message.parkings) = (0, 0);
            if !matches!(message.state, State::Sent(_)) {
                due = due.plus(PACE);
                message.state = State::Due(due);
            }
        }
    }

    /// Where there is no room, the oldest message of an older epoch makes some, once it was sent four times under that:
    /// the other side may have lost its contexts, and what is new must go out.
    pub(crate) fn gives_way(&self) -> Option<Number> {
        let may = |m: &&Message| m.until.is_some() && m.parkings > 0 && m.state != State::Confirmed;
        self.messages.iter().find(may).map(|m| m.asked.number)
    }

    /// The number of a message whose epoch is over for good.
    pub(crate) fn over(&self, now: Millis) -> Option<Number> {
        let over = |m: &&Message| m.state != State::Confirmed && m.until.is_some_and(|until| until <= now);
        self.messages.iter().find(over).map(|m| m.asked.number)
    }

    /// Moves on what is overdue. Returns the number of a message that was given up for now.
    pub(crate) fn tick(&mut self, now: Millis) -> Option<Number> {
        let patience = self.patience;
        for message in &mut self.messages {
            match message.state {
                // One try at a time of what will get no answer of its own.
                State::Parked(at) if at <= now && message.until.is_some() => {
                    (message.state, message.attempts) = (State::Due(now), ATTEMPTS - 1);
                }
                State::Parked(at) if at <= now => (message.state, message.attempts) = (State::Due(now), 0),
                State::Sent(until) if until <= now && message.attempts < ATTEMPTS => message.state = State::Due(now),
                State::Sent(until) if until <= now => {
                    message.park(now, patience);
                    return Some(message.asked.number);
                }
                _ => {}
            }
        }
        None
    }

    /// The number of a message that is to be sent now; the oldest first.
    pub(crate) fn due(&self, now: Millis) -> Option<Number> {
        let free = self.has_place();
        let may = |m: &&Message| matches!(m.state, State::Due(at) if at <= now) && m.may_go(free);
        self.messages.iter().find(may).map(|m| m.asked.number)
    }

    fn has_place(&self) -> bool {
        self.messages.iter().filter(|m| m.is_in_flight()).count() < IN_FLIGHT
    }

    /// Whether something about this batch is not known to have arrived.
    pub(crate) fn is_about(&self, batch: u64) -> bool {
        let about = |m: &Message| m.carried.batch > 0 && u64::from(m.carried.batch) == batch;
        self.messages.iter().any(|m| about(m) && m.state != State::Confirmed)
    }

    pub(crate) fn confirmed(&self) -> Option<Number> {
        self.messages.iter().find(|m| m.state == State::Confirmed).map(|m| m.asked.number)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Millis> {
        let free = self.has_place();
        let time = |m: &Message| match m.state {
            State::Confirmed => Some(Millis(0)),
            State::Due(at) => m.may_go(free).then_some(at),
            State::Parked(at) | State::Sent(at) => Some(at),
        };
        self.messages.iter().flat_map(|m| time(m).into_iter().chain(m.until)).min()
    }
}

impl Message {
    pub(crate) fn sent(&mut self, now: Millis) {
        let pause = BACK_OFF.get(usize::from(self.attempts)).or(BACK_OFF.last()).copied().unwrap_or_default();
        self.attempts = self.attempts.saturating_add(1);
        self.first_sent.get_or_insert(now);
        self.state = match self.wants {
            Wants::Answer => State::Sent(now.plus(pause)),
            // Nothing will come back for this one.
            Wants::Nothing => State::Parked(Millis(u64::MAX)),
        };
    }

    /// From now on an answer is wanted. That stands outside of what is sealed: the sealed bytes stay as they are.
    fn ask(&mut self) {
        self.wants = Wants::Answer;
        if let Some(rule) = self.frame.first_mut() {
            *rule |= ASKS;
        }
    }

    pub(crate) fn park(&mut self, now: Millis, patience: Patience) {
        let pause = patience.park.saturating_mul(1 << self.parkings.min(16)).min(patience.longest);
        self.parkings = self.parkings.saturating_add(1);
        self.state = State::Parked(now.plus(pause));
    }

    /// Whether it takes one of the places of those that wait for their answer.
    fn is_in_flight(&self) -> bool {
        self.wants == Wants::Answer
            && self.until.is_none()
            && match self.state {
                State::Confirmed | State::Parked(_) => false,
                State::Due(_) => self.attempts > 0,
                State::Sent(_) => true,
            }
    }

    /// Whether it may go now, if there is a free place among those that wait, or not.
    fn may_go(&self, free: bool) -> bool {
        free || self.attempts > 0 || self.wants == Wants::Nothing || self.until.is_some()
    }
}
