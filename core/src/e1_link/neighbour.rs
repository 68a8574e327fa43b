//! Who is heard directly, and how far each has counted.

use super::air::Air;
use super::keys::{BLOCK, Generation, KeyState, LinkKeys, Under};
use crate::error::{Code, Rejected};
use crate::id::{Did, Sid};

/// Largest step of a frame counter between two frames of a neighbour.
pub const MAX_JUMP: u32 = 65_536;

/// One of so many frames goes out under our own key to a neighbour that was not heard under it yet.
pub const PROBE_EVERY: u8 = 4;

const KEYS: usize = 3;
const NO_KEY: u16 = 0;
/// No frame counter is greater: nothing is accepted under this key.
const CLOSED: u32 = u32::MAX;

/// One neighbour: its two addresses and its last frame counter under each key. At most 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    did: Did,
    last: [u32; KEYS],
    generations: [u16; KEYS],
    /// Number of our own HELLO whose echo synced it last.
    greeting: u16,
    /// Generation of the newest key that it was heard under since it was synced.
    shown: u16,
    /// Frames to it that could not go under our own key for certain.
    probes: u8,
    rate: Rate,
    sid: Sid,
    synced: bool,
}

/// How often a neighbour's HELLO was answered in the present minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rate {
    /// Minutes of the caller's clock.
    pub(super) minute: u32,
    pub(super) answers: u8,
    /// Beside those, to HELLOs that may be recordings.
    pub(super) recorded: u8,
}

/// What a frame counter says about a frame of a known neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Fresh,
    Jump,
    Replay,
}

impl Neighbour {
    /// A neighbour of which nothing but a HELLO is accepted yet.
    pub const fn unsynced(did: Did, sid: Sid) -> Self {
        Self {
            did,
            last: [0; KEYS],
            generations: [NO_KEY; KEYS],
            greeting: 0,
            shown: NO_KEY,
            probes: 0,
            rate: Rate { minute: 0, answers: 0, recorded: 0 },
            sid,
            synced: false,
        }
    }

    /// EUI-64.
    pub const fn did(&self) -> Did {
        self.did
    }

    /// Short address.
    pub const fn sid(&self) -> Sid {
        self.sid
    }

    /// Whether frames other than HELLO are accepted.
    pub const fn is_synced(&self) -> bool {
        self.synced
    }

    pub(super) const fn greeting(&self) -> u16 {
        self.greeting
    }

    pub(super) fn rate_mut(&mut self) -> &mut Rate {
        &mut self.rate
    }

    pub(super) fn step(&self, key: Generation, counter: u32) -> Step {
        match self.last(key) {
            None => Step::Fresh,
            Some(last) if counter <= last => Step::Replay,
            Some(last) if counter - last > MAX_JUMP => Step::Jump,
            Some(_) => Step::Fresh,
        }
    }

    pub(super) fn last(&self, key: Generation) -> Option<u32> {
        self.generations.iter().zip(self.last).find(|(g, _)| **g == key.0).map(|(_, last)| last)
    }

    /// Whether nothing is accepted under this key, because it was synced under a newer one.
    pub(super) fn is_closed(&self, key: Generation) -> bool {
        self.last(key) == Some(CLOSED)
    }

    /// The newest key that it was heard under since it was synced.
    pub(super) const fn shown(&self) -> Generation {
        Generation(self.shown)
    }

    /// Under which key it is spoken to (docs/protocol.md 4.3): our own once it was heard under that or a newer one. Before,
    /// it may not have that key yet, so it is spoken to under the newest one it was heard under; but every so often under
    /// our own, for one that has it follows.
    pub(super) fn under(&self, keys: &LinkKeys) -> Under {
        match keys.index_of(self.shown()) {
            Some((index, KeyState::Usable)) if self.is_behind(keys) && self.probes > 0 => Under::Index(index),
            _ => Under::Sending,
        }
    }

    /// A frame was sealed for it.
    pub(super) fn spoken_to(&mut self, keys: &LinkKeys) {
        self.probes = if self.is_behind(keys) { (self.probes + 1) % PROBE_EVERY } else { 0 };
    }

    fn is_behind(&self, keys: &LinkKeys) -> bool {
        keys.sending_generation().is_some_and(|sending| self.shown() < sending)
    }

    /// Stores the counter of a frame that passed CCM*.
    pub(super) fn store(&mut self, key: Generation, counter: u32) {
        self.shown = self.shown.max(key.0);
        let at = self.generations.iter().position(|&g| g == key.0);
        // Generations grow and the empty mark is 0, so the least is an empty place or the oldest key.
        let oldest = || self.generations.iter().enumerate().min_by_key(|(_, g)| **g).map(|(at, _)| at);
        if let Some(at) = at.or_else(oldest)
            && let (Some(g), Some(last)) = (self.generations.get_mut(at), self.last.get_mut(at))
        {
            (*g, *last) = (key.0, counter);
        }
    }

    /// Its counter under `key` is proven fresh. Frames under keys installed earlier may be recordings: they are refused
    /// from now on. A key installed later starts without a last counter, unless one is known.
    ///
    /// Frames overtake each other: what was accepted from a synced neighbour behind this one stays accepted once.
    pub(super) fn sync(
        &mut self,
        sid: Sid,
        key: Generation,
        counter: u32,
        older: impl Iterator<Item = Generation>,
        greeting: u16,
    ) {
        let before = if self.synced { *self } else { Self::unsynced(self.did, sid) };
        let overtaken = before.last(key).filter(|last| last.checked_sub(counter).is_some_and(|by| by <= BLOCK));
        self.generations = [NO_KEY; KEYS];
        for key in older {
            self.store(key, CLOSED);
        }
        self.store(key, overtaken.unwrap_or(counter));
        for (generation, last) in before.generations.into_iter().zip(before.last).filter(|(g, _)| *g > key.0) {
            self.store(Generation(generation), last);
        }
        (self.shown, self.probes) = (key.0, 0);
        (self.sid, self.synced, self.greeting) = (sid, true, greeting);
    }

    /// Accepts nothing but HELLO until it is synced again.
    pub fn unsync(&mut self) {
        self.synced = false;
    }
}

/// What the operator's registry says about an EUI-64 that claims a short address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// The short address is another's, or this EUI-64 has another, or is revoked.
    Refused,
    /// They belong together.
    Registered,
    /// The registry does not know, or there is none: the neighbour table decides.
    Unknown,
}

/// The neighbour table has no room left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull;

/// Where neighbours are kept: an array on a node ([`FixedNeighbours`]), a map at a gateway.
///
/// An entry is added when its EUI-64 echoed a fresh nonce of ours, so strangers cannot fill a table. A gateway may add
/// unsynced entries for all registered devices ahead: each then has a HELLO budget of its own.
pub trait Neighbours {
    /// The neighbour with a short address.
    fn by_sid(&mut self, sid: Sid) -> Option<&mut Neighbour>;

    /// The neighbour with an EUI-64.
    fn by_did(&mut self, did: Did) -> Option<&mut Neighbour>;

    /// Adds a neighbour, or replaces the one with the same EUI-64. Its short address is free or its own.
    ///
    /// # Errors
    /// [`TableFull`].
    fn put(&mut self, neighbour: Neighbour) -> Result<(), TableFull>;

    /// What the registry says about a claimed short address.
    fn registration(&self, did: Did, sid: Sid) -> Registration {
        let _ = (did, sid);
        Registration::Unknown
    }

    /// By which air the registry says that an EUI-64 is reached, at a station that has both.
    fn air(&self, did: Did) -> Option<Air> {
        let _ = did;
        None
    }
}

/// At most `N` neighbours, in place.
#[derive(Clone, Debug)]
pub struct FixedNeighbours<const N: usize> {
    entries: [Option<Neighbour>; N],
}

impl<const N: usize> FixedNeighbours<N> {
    /// Nobody yet.
    pub const fn new() -> Self {
        Self { entries: [None; N] }
    }

    /// Forgets a neighbour.
    pub fn remove(&mut self, did: Did) {
        for entry in &mut self.entries {
            entry.take_if(|n| n.did == did);
        }
    }

    /// All neighbours.
    pub fn iter(&self) -> impl Iterator<Item = &Neighbour> {
        self.entries.iter().flatten()
    }
}

impl<const N: usize> Default for FixedNeighbours<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Neighbours for FixedNeighbours<N> {
    fn by_sid(&mut self, sid: Sid) -> Option<&mut Neighbour> {
        self.entries.iter_mut().flatten().find(|n| n.sid == sid)
    }

    fn by_did(&mut self, did: Did) -> Option<&mut Neighbour> {
        self.entries.iter_mut().flatten().find(|n| n.did == did)
    }

    fn put(&mut self, neighbour: Neighbour) -> Result<(), TableFull> {
        if let Some(same) = self.by_did(neighbour.did) {
            *same = neighbour;
            return Ok(());
        }
        // A new neighbour that proved itself is worth more than one that has to prove itself again.
        let free = self.entries.iter().position(Option::is_none);
        let free = free.or_else(|| self.entries.iter().position(|e| e.as_ref().is_some_and(|n| !n.synced)));
        *free.and_then(|at| self.entries.get_mut(at)).ok_or(TableFull)? = Some(neighbour);
        Ok(())
    }
}

/// Whether `did` may bear `sid` here: free, or its own, and not another's in the registry.
pub(super) fn may_bind<T: Neighbours>(table: &mut T, did: Did, sid: Sid) -> Result<Registration, Rejected> {
    const TAKEN: Rejected = Rejected::new(Code::LinkNeighbourUnknown, "the short address is bound to another EUI-64");
    if matches!(sid, Sid::ANY_GATEWAY | Sid::BROADCAST | Sid(0xFFFE)) {
        return Err(Rejected::new(Code::LinkNeighbourUnknown, "the short address is reserved"));
    }
    if table.by_sid(sid).is_some_and(|n| n.did() != did) {
        return Err(TAKEN);
    }
    match table.registration(did, sid) {
        Registration::Refused => Err(TAKEN),
        known => Ok(known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    const OLD: Generation = Generation(1);
    const NEW: Generation = Generation(2);

    #[test]
    fn an_entry_takes_at_most_64_bytes() {
        assert!(size_of::<Neighbour>() <= 48, "{}", size_of::<Neighbour>());
    }

    #[test]
    fn a_neighbour_is_probed_under_our_key_until_it_was_heard_under_it() {
        let mut keys = LinkKeys::new();
        keys.install(7, &Key::new([1; 16]), 0).unwrap();
        let mut n = Neighbour::unsynced(Did([1; 8]), Sid(1));
        n.sync(Sid(1), OLD, 10, [].into_iter(), 1);
        let spoken = |n: &mut Neighbour, keys: &LinkKeys| {
            n.spoken_to(keys);
            n.under(keys)
        };
        assert_eq!([n.under(&keys), spoken(&mut n, &keys)], [Under::Sending; 2]);
        keys.install(8, &Key::new([2; 16]), 0).unwrap();
        keys.send_under(8).unwrap();
        assert_eq!([n.under(&keys), n.under(&keys)], [Under::Sending; 2], "until one was sealed");
        let told: [Under; 4] = core::array::from_fn(|_| spoken(&mut n, &keys));
        let (probe, late) = (Under::Sending, Under::Index(7));
        assert_eq!(told, [late, late, late, probe]);
        n.store(NEW, 1);
        assert_eq!(core::array::from_fn(|_| spoken(&mut n, &keys)), [Under::Sending; 5]);
        // Whoever sends under a newer key than ours has ours, too.
        keys.send_under(7).unwrap();
        assert_eq!(n.under(&keys), Under::Sending);
    }

    #[test]
    fn what_a_neighbour_was_heard_under_is_gone_here() {
        let mut keys = LinkKeys::new();
        for index in [7, 8] {
            keys.install(index, &Key::new([index; 16]), 0).unwrap();
        }
        keys.send_under(8).unwrap();
        let mut n = Neighbour::unsynced(Did([1; 8]), Sid(1));
        n.sync(Sid(1), OLD, 10, [].into_iter(), 1);
        n.spoken_to(&keys);
        assert_eq!(n.under(&keys), Under::Index(7));
        keys.forget(7);
        assert_eq!(n.under(&keys), Under::Sending);
    }

    #[test]
    fn a_sync_closes_older_keys_and_leaves_newer_ones_open() {
        let mut n = Neighbour::unsynced(Did([1; 8]), Sid(1));
        n.sync(Sid(1), NEW, 10, [OLD].into_iter(), 1);
        assert_eq!(n.step(OLD, u32::MAX), Step::Replay);
        assert_eq!(n.step(NEW, 11), Step::Fresh);
        // Of a neighbour that is believed, what was counted under the newer key stays counted.
        n.sync(Sid(1), OLD, 10, [].into_iter(), 1);
        assert_eq!((n.step(NEW, 10), n.step(NEW, 11)), (Step::Replay, Step::Fresh));
        n.unsync();
        n.sync(Sid(1), OLD, 10, [].into_iter(), 1);
        assert_eq!(n.step(NEW, 900_000), Step::Fresh);
        assert_eq!(n.step(OLD, 10), Step::Replay);
    }

    #[test]
    fn a_sync_that_was_overtaken_takes_nothing_back_and_one_from_far_behind_does() {
        let mut n = Neighbour::unsynced(Did([1; 8]), Sid(1));
        n.sync(Sid(1), OLD, 5_000, [].into_iter(), 1);
        n.sync(Sid(1), OLD, 5_000 - BLOCK, [].into_iter(), 2);
        assert_eq!((n.step(OLD, 5_000), n.step(OLD, 5_001)), (Step::Replay, Step::Fresh));
        // No frame is overtaken by so many: somebody else had counted on under its address.
        n.sync(Sid(1), OLD, 5_000 - BLOCK - 1, [].into_iter(), 3);
        assert_eq!(n.step(OLD, 5_000), Step::Fresh);
    }

    #[test]
    fn the_fourth_key_takes_the_place_of_the_oldest() {
        let mut n = Neighbour::unsynced(Did([1; 8]), Sid(1));
        for g in 1..=4 {
            n.store(Generation(g), 100);
        }
        assert_eq!(n.last(OLD), None);
        assert_eq!(n.last(Generation(4)), Some(100));
    }

    #[test]
    fn a_full_table_says_so_and_keeps_what_it_has() {
        let mut table = FixedNeighbours::<1>::new();
        let mut synced = Neighbour::unsynced(Did([1; 8]), Sid(1));
        synced.sync(Sid(1), OLD, 0, [].into_iter(), 1);
        table.put(synced).unwrap();
        assert_eq!(table.put(Neighbour::unsynced(Did([2; 8]), Sid(2))), Err(TableFull));
        table.put(Neighbour::unsynced(Did([1; 8]), Sid(3))).unwrap();
        assert_eq!(table.by_sid(Sid(3)).unwrap().did(), Did([1; 8]));
        assert_eq!(table.by_sid(Sid(1)), None);
        // The only one is unsynced now: it makes room.
        assert_eq!(table.put(Neighbour::unsynced(Did([2; 8]), Sid(2))), Ok(()));
        table.remove(Did([2; 8]));
        assert_eq!(table.iter().count(), 0);
    }
}
