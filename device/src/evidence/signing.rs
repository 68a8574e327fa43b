//! The batches of one device: what is open, what was signed and is not settled.
//!
//! A second statement under one number is made at the other side's word alone: over fewer readings, once and of the newest
//! batch, or chained to nothing, where the statement before never came. Else the leaf hashes go out, with which the first
//! statement can be verified.

use core::fmt;

use fivefold_core::id::Epoch;
use fivefold_core::proof::batch::{Claim, Members, Stated};
use fivefold_core::proof::merkle::Hash;
use fivefold_core::proof::statement::{BlindKey, Subject};
use fivefold_core::proof::{Sign, Signature};
use fivefold_core::time::Millis;
use fivefold_core::wire::control::BatchState;
use heapless::Deque;

use super::items::{Closed, Pieces};
use super::{Chain, Close, Evidence, Item, engine};
use crate::node::Event;

/// A batch is closed after so long, in milliseconds (T_batch of docs/protocol.md 17).
const LONGEST: u64 = 86_400_000;
/// After a signer failed, the next try is so much later, in milliseconds.
const RETRY: u64 = 60_000;
/// A batch waits so long, again and again, for the one before it, in milliseconds.
const HOLD: u64 = 1_000;
/// Batches that were signed and are not settled, at most.
const CLOSED: usize = 4;
/// Readings in a batch of a device without downlink, at most (docs/protocol.md 13.1).
const ONE_WAY: u32 = 8;
const EVENTS: usize = 2;

/// Whether a device hears what becomes of its batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Downlink {
    /// Item 4 comes in answers.
    #[default]
    Heard,
    /// Nothing comes: leaf hashes go first, and batches are of 8 readings at most.
    None,
}

/// Signs readings in batches with the key `S`, and keeps the leaf hashes of the last `L` readings, 16 to 64: 40 bytes each.
pub struct Signing<S, const L: usize = 64> {
    key: S,
    downlink: Downlink,
    /// K_blind of the epoch; without it nothing is signed.
    blind: Option<BlindKey>,
    most: u32,
    /// The oldest at `next`.
    leaves: [Leaf; L],
    next: usize,
    open: Option<Open>,
    closed: [Option<Closed>; CLOSED],
    /// What the last statement was chained to.
    before: Hash,
    /// The last statement, where it is a second one. Whether that one arrives nobody knows after a reboot: in the record stand
    /// zeros in its place.
    again: Option<Hash>,
    /// Nothing is signed before.
    signs_at: Millis,
    /// Nothing is said before.
    says_at: Millis,
    events: Deque<Event, EVENTS>,
}

#[derive(Clone, Copy)]
struct Leaf {
    /// Number of its batch; 0 for no leaf.
    batch: u32,
    piv: u32,
    hash: Hash,
}

impl Leaf {
    const NONE: Self = Self { batch: 0, piv: 0, hash: Hash([0; 32]) };
}

/// The batch that readings go into.
#[derive(Clone, Copy)]
struct Open {
    /// What it will have for a number.
    number: u32,
    subject: Subject,
    members: Members,
    since: Millis,
}

impl<S: Sign, const L: usize> Signing<S, L> {
    /// With a key that signs and does nothing else. Its certificate is the operator's to give.
    pub const fn new(key: S, downlink: Downlink) -> Self {
        const { assert!(L >= 16 && L <= 64) };
        Self {
            key,
            downlink,
            blind: None,
            most: 0,
            leaves: [Leaf::NONE; L],
            next: 0,
            open: None,
            closed: [None; CLOSED],
            before: Chain::NONE.statement,
            again: None,
            signs_at: Millis(0),
            says_at: Millis(0),
            events: Deque::new(),
        }
    }

    /// The key that signs.
    pub const fn key(&self) -> &S {
        &self.key
    }

    /// Leaf hashes of a batch, in the order of their numbers.
    fn leaves_of(&self, batch: u32, members: Members) -> impl Iterator<Item = Hash> + '_ {
        let (newer, older) = self.leaves.split_at(self.next.min(L));
        let all = older.iter().chain(newer);
        all.filter(move |l| l.batch == batch && members.covers(l.piv.into())).map(|l| l.hash)
    }

    fn has_leaves(&self, batch: &Closed) -> bool {
        self.leaves_of(batch.number, batch.members).count() == batch.members.count() as usize
    }

    fn forget(&mut self, batch: u32) {
        self.leaves.iter_mut().filter(|l| l.batch == batch).for_each(|l| *l = Leaf::NONE);
    }

    fn tell(&mut self, event: Event) {
        if self.events.is_full() {
            self.events.pop_front();
        }
        let _ = self.events.push_back(event);
    }

    /// Where the next signed batch goes: an empty place, or that of the oldest with nothing left to say.
    fn place(&self) -> Option<usize> {
        let said =
            |c: &Option<Closed>| c.as_ref().map_or(Some(0), |c| (c.pieces == Pieces::Nothing).then_some(c.number));
        let places = self.closed.iter().enumerate().filter_map(|(at, c)| said(c).map(|number| (number, at)));
        places.min().map(|(_, at)| at)
    }

    fn is_due(&self, now: Millis, close: Close) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let full = open.members.count() >= self.most || now >= open.since.plus(LONGEST);
            let far = matches!(close, Close::Before(piv) if open.members.with(piv.into()).is_none());
            close == Close::Now || full || far
        })
    }

    /// Signs a statement over these members of a batch.
    fn sign(&mut self, now: Millis, claim: &Claim) -> Option<(Stated, Signature)> {
        let stated = claim.over(self.leaves_of(claim.number as u32, claim.members))?;
        match stated.sign(&self.key) {
            Ok(signature) => Some((stated, signature)),
            Err(_) => {
                self.signs_at = now.plus(RETRY);
                self.tell(Event::SignerFailed);
                None
            }
        }
    }

    /// Signs the open batch.
    fn close(&mut self, now: Millis, chain: Chain) -> Option<Chain> {
        let (open, at) = (self.open?, self.place()?);
        let Open { number, subject, members, .. } = open;
        let previous = self.again.unwrap_or(chain.statement);
        let claim = Claim { subject, number: number.into(), members, previous };
        let (stated, signature) = self.sign(now, &claim)?;
        let first = match self.downlink {
            Downlink::Heard => Pieces::SIGNATURE,
            Downlink::None => Pieces::Leaves { next: 0, signature: true },
        };
        let place = self.closed.get_mut(at)?;
        *place = Some(Closed {
            number,
            subject,
            members,
            signature,
            pieces: first,
            have: 0,
            fewer: false,
            unchained: false,
            late: false,
        });
        (self.open, self.before, self.again) = (None, previous, None);
        self.tell(Event::BatchSigned { number, readings: members.count() as u8 });
        Some(Chain { number, statement: stated.hash() })
    }

    /// Answers what the other side has of a batch, once nothing that it lacks is on its way any more.
    fn settle(
        &mut self,
        now: Millis,
        chain: Chain,
        (is_waiting, is_about): (&impl Fn(Epoch, u64) -> bool, &impl Fn(u32) -> bool),
    ) -> Option<Chain> {
        for at in 0..CLOSED {
            let Some(batch) = self.closed.get(at).copied().flatten() else { continue };
            let Some(have) = batch.have() else { continue };
            if batch.members.numbers().any(|piv| !have.covers(piv) && is_waiting(batch.subject.epoch, piv)) {
                continue;
            }
            if batch.members.are_within(&have) {
                // The batch before may be on its way yet: then this one is said once more when that is there.
                let before = batch.number.saturating_sub(1);
                let part = |b: &Closed| {
                    let lacks = b.members.numbers().any(|piv| is_waiting(b.subject.epoch, piv));
                    b.number == before && (b.pieces != Pieces::Nothing || lacks)
                };
                if is_about(before) || self.closed.iter().flatten().any(part) {
                    self.change(at, |b| b.late = true);
                    continue;
                }
                if batch.late {
                    self.change(at, |b| (b.have, b.late, b.pieces) = (0, false, Pieces::SIGNATURE));
                    continue;
                }
                // It lacks nothing but the statement before, which may have been lost with a message or a reboot.
                let again = Closed { have: 0, pieces: Pieces::SIGNATURE, unchained: true, ..batch };
                if batch.unchained || !self.has_leaves(&batch) {
                    self.change(at, |b| (b.have, b.pieces) = (0, Pieces::SIGNATURE));
                    continue;
                }
                return self.sign_again(now, chain, (at, again));
            }
            // Over fewer readings the newest batch alone: the next one is chained to it already.
            let fewer = batch.members.common(&have).filter(|_| batch.number == chain.number && !batch.fewer);
            if let Some(members) = fewer {
                let again = Closed { members, have: 0, pieces: Pieces::SIGNATURE, fewer: true, ..batch };
                if self.has_leaves(&again) {
                    return self.sign_again(now, chain, (at, again));
                }
            }
            self.send_leaves(at);
        }
        None
    }

    /// Puts another statement under the number of a batch. What must be durable comes back.
    fn sign_again(&mut self, now: Millis, chain: Chain, (at, again): (usize, Closed)) -> Option<Chain> {
        let Closed { number, subject, members, unchained, .. } = again;
        let previous = if unchained { Chain::NONE.statement } else { self.before };
        let claim = Claim { subject, number: number.into(), members, previous };
        let (stated, signature) = self.sign(now, &claim)?;
        self.change(at, |b| *b = Closed { signature, ..again });
        self.tell(Event::BatchSigned { number, readings: members.count() as u8 });
        if number != chain.number {
            return Some(chain);
        }
        (self.before, self.again) = (previous, Some(stated.hash()));
        Some(Chain { number, ..Chain::NONE })
    }

    fn change(&mut self, at: usize, change: impl FnOnce(&mut Closed)) {
        if let Some(batch) = self.closed.get_mut(at).and_then(Option::as_mut) {
            change(batch);
        }
    }

    /// Leaf hashes are wanted; a reboot or later readings may have taken them.
    fn send_leaves(&mut self, at: usize) {
        let Some(batch) = self.closed.get(at).copied().flatten() else { return };
        if self.has_leaves(&batch) {
            let pieces = Pieces::Leaves { next: 0, signature: false };
            self.change(at, |b| (b.have, b.pieces) = (0, pieces));
        } else {
            self.lose(at, batch.number);
        }
    }

    fn lose(&mut self, at: usize, number: u32) {
        if let Some(place) = self.closed.get_mut(at) {
            *place = None;
        }
        self.tell(Event::BatchLost(number));
    }

    /// The oldest batch of which something is left to say.
    fn to_say(&self) -> Option<usize> {
        let left = self.closed.iter().enumerate().filter_map(|(at, c)| c.as_ref().map(|c| (c, at)));
        left.filter(|(c, _)| c.pieces != Pieces::Nothing).min_by_key(|(c, _)| c.number).map(|(_, at)| at)
    }

    fn find(&self, number: u64) -> Option<usize> {
        self.closed.iter().position(|c| c.as_ref().is_some_and(|c| u64::from(c.number) == number))
    }
}

impl<S: Sign, const L: usize> Evidence for Signing<S, L> {}

impl<S: Sign, const L: usize> engine::Engine for Signing<S, L> {
    fn blind_with(&mut self, blind: Option<BlindKey>) {
        // What could not be signed before the epoch was left will not be.
        if let Some(open) = self.open.take() {
            self.forget(open.number);
        }
        self.blind = blind;
    }

    fn needs_blind(&self) -> bool {
        true
    }

    fn sign_every(&mut self, readings: u8) {
        let most = match self.downlink {
            Downlink::Heard => L as u32,
            Downlink::None => ONE_WAY,
        };
        self.most = u32::from(readings).min(most);
    }

    fn is_full(&self) -> bool {
        self.place().is_none()
    }

    fn sealed(&mut self, now: Millis, subject: &Subject, next: u32, piv: u32, payload: &[u8]) {
        let Some(blind) = self.blind.as_ref().filter(|_| self.most > 0) else { return };
        let hash = subject.leaf(&blind.salt(piv.into()), piv.into(), payload);
        let grown = self.open.and_then(|o| {
            let members = o.members.with(piv.into()).filter(|m| m.count() as usize <= L)?;
            Some(Open { members, ..o })
        });
        if grown.is_none() && self.open.is_some() {
            // No signer for so long: what waited for it is not signed.
            self.forget(next);
        }
        let open =
            grown.unwrap_or(Open { number: next, subject: *subject, members: Members::one(piv.into()), since: now });
        self.open = Some(open);
        if let Some(place) = self.leaves.get_mut(self.next) {
            *place = Leaf { batch: open.number, piv, hash };
        }
        self.next = (self.next + 1) % L;
    }

    fn tend(
        &mut self,
        now: Millis,
        close: Close,
        chain: Chain,
        (is_waiting, is_about): (impl Fn(Epoch, u64) -> bool, impl Fn(u32) -> bool),
    ) -> Option<Chain> {
        if now < self.signs_at && close != Close::Now {
            return None;
        }
        let closed = if self.is_due(now, close) { self.close(now, chain) } else { None };
        closed.or_else(|| self.settle(now, chain, (&is_waiting, &is_about)))
    }

    fn item(&mut self, now: Millis, room: usize, is_about: impl Fn(u32) -> bool, out: &mut [u8]) -> Option<Item> {
        if now < self.says_at {
            return None;
        }
        while let Some(at) = self.to_say() {
            let batch = self.closed.get(at).copied().flatten()?;
            // What it is chained to was signed again: that comes first.
            let again = |c: &Closed| c.number.saturating_add(1) == batch.number && (c.fewer || c.unchained);
            if self.closed.iter().flatten().any(|c| again(c) && is_about(c.number)) {
                self.says_at = now.plus(HOLD);
                return None;
            }
            let item = match batch.pieces {
                Pieces::Nothing => None,
                Pieces::Signature { next, bytes } => batch.signature(next, bytes, room, out),
                Pieces::Leaves { next, signature } if self.has_leaves(&batch) => {
                    let hashes = self.leaves_of(batch.number, batch.members).map(|h| h.0);
                    batch.leaves((next, signature), hashes, room, out)
                }
                Pieces::Leaves { .. } => None,
            };
            match (item, batch.pieces) {
                (Some(item), _) => return Some(item),
                // Where no hash fits, the signature may.
                (None, Pieces::Leaves { signature: true, .. }) => self.change(at, |b| b.pieces = Pieces::SIGNATURE),
                (None, _) => self.lose(at, batch.number),
            }
        }
        None
    }

    fn item_sealed(&mut self, item: Item) {
        if let Some(at) = self.find(item.batch.into()) {
            self.change(at, |b| b.pieces = item.then);
        }
    }

    fn item_postponed(&mut self, at: Millis) {
        self.says_at = at;
    }

    fn item_lost(&mut self, batch: u32) {
        if let Some(at) = self.find(batch.into()) {
            self.change(at, |b| b.pieces = Pieces::SIGNATURE);
        }
    }

    fn told(&mut self, state: &BatchState<'_>) {
        let (BatchState::Complete { number }
        | BatchState::SignAgain { number, .. }
        | BatchState::SendLeaves { number }) = *state;
        let Some(at) = self.find(number) else {
            // Of before the boot, or settled; a number that is none of ours is nobody's.
            if let (Ok(number), false) = (u32::try_from(number), matches!(state, BatchState::Complete { .. })) {
                self.tell(Event::BatchLost(number));
            }
            return;
        };
        let Some(batch) = self.closed.get(at).copied().flatten() else { return };
        match state {
            BatchState::Complete { .. } => {
                if let Some(place) = self.closed.get_mut(at) {
                    *place = None;
                }
                self.tell(Event::BatchComplete(batch.number));
            }
            BatchState::SignAgain { .. } if batch.pieces != Pieces::Nothing => {}
            BatchState::SignAgain { bitmap, .. } => {
                match Members::parse(batch.members.first(), bitmap).filter(|h| batch.members.common(h).is_some()) {
                    Some(have) => self.change(at, |b| b.have = have.bits()),
                    None => self.send_leaves(at),
                }
            }
            BatchState::SendLeaves { .. } => self.send_leaves(at),
        }
    }

    fn delivered(&mut self, epoch: Epoch, piv: u32) {
        let piv = u64::from(piv);
        let about = |b: &&mut Closed| b.subject.epoch == epoch && b.members.covers(piv);
        for batch in self.closed.iter_mut().flatten().filter(about) {
            // It was said to be missing, and came. With all of them there the other side goes on by itself.
            if let Some(have) = batch.have().filter(|have| !have.covers(piv)) {
                let more = have.with(piv).filter(|have| !batch.members.are_within(have));
                batch.have = more.map_or(0, |have| have.bits());
            }
        }
    }

    fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn closes_at(&self) -> Option<Millis> {
        let open = self.open.as_ref().filter(|_| self.place().is_some())?;
        let due = if open.members.count() >= self.most { Millis(0) } else { open.since.plus(LONGEST) };
        Some(due.max(self.signs_at))
    }

    fn items_at(&self) -> Option<Millis> {
        self.to_say().map(|_| self.says_at)
    }
}

impl<S, const L: usize> fmt::Debug for Signing<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signing({} open)", self.open.map_or(0, |o| o.members.count()))
    }
}

#[cfg(test)]
mod tests;
