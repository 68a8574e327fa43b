//! What must hold in every run, whatever happens.
//!
//! 1. What a node saw acknowledged is stored, and nothing is stored twice.
//! 2. No key seals two messages under one nonce.
//! 3. Nothing is stored that no node sent.
//! 4. Frame counters and sender numbers never repeat.
//! 5. Once the world has healed, everything that nodes hold arrives.
//! 6. No relay sends on what no member of the network sent.
//! 7. No command is carried out twice.
//! 8. Where no gateway is hostile, none is accused: codes that mean harm or keys used twice are not counted.
//! 9. What is called signed was sent by that device, in these bytes, and is in a batch whose signature holds.
//! 10. Every batch that the cloud heard of ends verified, or given up with its readings still there: each counted as EV-03
//!     once, as is each gap in a chain, and nothing else. One it never heard of was lost with a node's power.
//! 11. No device that seals for the cloud is accused of what a gateway did: neither EV-01 nor EV-04 is counted of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};

use fivefold_cloud::accepted::flag;
use fivefold_cloud::store::{ReadingRow, Verdict};
use fivefold_core::e1_link::open_frame;
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::profile::Profile;
use fivefold_core::suite::LinkSchedule;
use fivefold_core::wire::ieee802154::{Address, FCS, Frame, SecurityLevel};
use fivefold_core::wire::mesh::{self, Header};

use crate::cloud::Taken;
use crate::family::did;

/// Names one message: device, key generation, boot in mode R, sender number.
pub type Name = (Sid, Epoch, Option<[u8; 8]>, u64);

thread_local! {
    static SEALS: RefCell<Seals> = RefCell::default();
}

#[derive(Default)]
struct Seals {
    on: bool,
    seen: HashSet<[u8; 32]>,
    repeated: u64,
}

/// To be given to `fivefold_core::suite::set_seal_witness` (feature `witness` of core), once in a process: from then on
/// every run sees whether a nonce comes twice.
pub fn sealed(key_and_nonce: &[u8; 32], _plaintext: &[u8; 32]) {
    SEALS.with_borrow_mut(|seals| {
        if seals.on && !seals.seen.insert(*key_and_nonce) {
            seals.repeated += 1;
        }
    });
}

/// Whether [`sealed`] was told of anything in this run: false when nobody installed it.
pub fn seals_are_watched() -> bool {
    SEALS.with_borrow(|seals| !seals.seen.is_empty())
}

/// What attackers seal is not ours to watch.
pub fn unwatched<T>(act: impl FnOnce() -> T) -> T {
    let before = SEALS.with_borrow_mut(|seals| std::mem::replace(&mut seals.on, false));
    let done = act();
    SEALS.with_borrow_mut(|seals| seals.on = before);
    done
}

/// A datagram as it was seen inside a frame on the air.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Its mesh header.
    pub mesh: Header,
    /// What follows.
    pub rest: Vec<u8>,
}

/// What is known of a batch that a node signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signed {
    /// Statements under its number.
    pub statements: u32,
    /// Its leaf hashes came.
    pub leaves: bool,
    /// The power of its node went since: what was not said of it never will be.
    pub dark: bool,
}

/// Sees everything.
#[derive(Debug, Default)]
pub struct Watch {
    /// The first thing that went wrong.
    pub failure: Option<String>,
    /// What nodes were given to send, by what they named it.
    pub sent: HashMap<Name, Vec<u8>>,
    /// Messages of their own accord.
    reports: HashSet<Name>,
    /// What nodes saw acknowledged.
    pub acknowledged: HashSet<Name>,
    /// What nodes told to be lost or refused.
    pub lost: HashSet<Name>,
    /// Custody that nodes were told of.
    pub custody: HashSet<Name>,
    /// What the ledger took.
    pub stored: HashSet<Name>,
    contexts: HashMap<i64, (Epoch, Option<[u8; 8]>)>,
    executed: HashSet<(Sid, u64)>,
    frames: HashSet<(Sid, u8, u32)>,
    from_members: HashSet<(Sid, [u8; 16])>,
    given: HashMap<(Sid, Sid, [u8; 16]), u32>,
    passed: HashMap<(Sid, Sid, [u8; 16]), u32>,
    /// Frames that relays sent on.
    pub forwarded: u64,
    /// Batches that nodes signed: how often, and whether the power went since.
    pub signed: BTreeMap<(Sid, u64), Signed>,
    /// Devices whose fate is in the hands of a gateway that cannot be trusted.
    pub at_mercy: HashSet<Sid>,
}

impl Watch {
    /// Begins a run on this thread.
    pub fn begin(at_mercy: HashSet<Sid>) -> Self {
        SEALS.with_borrow_mut(|seals| *seals = Seals { on: true, ..Seals::default() });
        Self { at_mercy, ..Self::default() }
    }

    /// Something is wrong. The first one counts.
    pub fn fail(&mut self, what: impl Into<String>) {
        self.failure.get_or_insert(what.into());
    }

    /// Looks for nonces that came twice.
    pub fn look_at_seals(&mut self) {
        if SEALS.with_borrow(|seals| seals.repeated) > 0 {
            self.fail("2: a key sealed two messages under one nonce");
        }
    }

    /// A node took a reading.
    pub fn took(&mut self, name: Name, reading: &[u8]) {
        if self.reports.contains(&name) || self.sent.insert(name, reading.to_vec()).is_some() {
            self.fail(format!("4: the sender number of {name:?} was given before"));
        }
    }

    /// Whether this is what a node was given to send under that name; it may have put something of its own behind it.
    ///
    /// # Errors
    /// What it is instead.
    pub fn was_sent(&self, name: &Name, payload: &[u8]) -> Result<(), &'static str> {
        match self.sent.get(name) {
            None => Err("is no reading that was sent"),
            Some(sent) if !payload.starts_with(sent) => Err("is not what was sent"),
            Some(_) => Ok(()),
        }
    }

    /// A node gave a message to the radio.
    pub fn went_out(&mut self, name: Name) {
        if !self.sent.contains_key(&name) {
            self.reports.insert(name);
        }
    }

    /// A node signed a batch.
    pub fn signed(&mut self, sid: Sid, number: u32) {
        self.signed.entry((sid, number.into())).or_default().statements += 1;
    }

    /// Leaf hashes of a batch became durable.
    pub fn leaves(&mut self, sid: Sid, number: u64) {
        self.signed.entry((sid, number)).or_default().leaves = true;
    }

    /// The power of a node went.
    pub fn went_dark(&mut self, sid: Sid) {
        self.signed.range_mut((sid, 0)..=(sid, u64::MAX)).for_each(|(_, batch)| batch.dark = true);
    }

    /// A node saw a message acknowledged.
    pub fn acknowledged(&mut self, name: Name, profile: Profile) {
        self.acknowledged.insert(name);
        if profile.has_e3() && !self.stored.contains(&name) {
            self.fail(format!("1: {name:?} was acknowledged and is not stored"));
        }
    }

    /// A node carried out a command.
    pub fn executed(&mut self, sid: Sid, id: u64) {
        if !self.executed.insert((sid, id)) {
            self.fail(format!("7: {sid} carried out command {id} twice"));
        }
    }

    /// How many commands were carried out.
    pub fn commands(&self) -> usize {
        self.executed.len()
    }

    /// A context of the cloud's store.
    pub fn context(&mut self, id: i64, epoch: Epoch, bctx: Option<[u8; 8]>) {
        self.contexts.insert(id, (epoch, bctx));
    }

    /// The ledger took a row.
    pub fn took_row(&mut self, taken: &Taken) {
        let row = &taken.row;
        // What the store had before the first message is installed, and of epoch 1.
        let (epoch, bctx) = self.contexts.get(&row.context.0).copied().unwrap_or((Epoch(1), None));
        let name = (row.way.sid, epoch, bctx, row.piv);
        let trusted = !self.at_mercy.contains(&row.way.sid);
        match taken.verdict {
            Verdict::New => {
                if !self.stored.insert(name) && trusted {
                    self.fail(format!("1: {name:?} was stored twice"));
                }
            }
            Verdict::Dup { .. } => {}
            Verdict::NonceReuse if trusted => {
                self.fail(format!("4: two messages under the number of {name:?} (E3-06)"));
            }
            Verdict::NonceReuse => {}
        }
    }

    /// Looks at all that is stored.
    pub fn look_at_ledger(&mut self, ledger: &[ReadingRow]) {
        let mut seen = HashSet::new();
        let mut payloads: HashMap<Vec<u8>, Name> = HashMap::new();
        for row in ledger {
            let name = (row.sid, row.epoch, row.bctx.map(|b| b.0), row.piv);
            let trusted = !self.at_mercy.contains(&row.sid);
            if !trusted {
                seen.insert(name);
                continue;
            }
            if !seen.insert(name) {
                self.fail(format!("1: {name:?} is stored twice"));
            }
            if row.flags & (flag::HIDDEN | flag::CONFLICT) != 0 {
                self.fail(format!("3: {name:?} is stored with flags {}", row.flags));
            }
            match self.sent.get(&name) {
                Some(reading) if row.payload.starts_with(reading) => {
                    if let Some(other) = payloads.insert(reading.clone(), name) {
                        self.fail(format!("1: the reading of {name:?} is stored as {other:?} as well"));
                    }
                }
                Some(_) => self.fail(format!("3: {name:?} is stored, and is not what was sent")),
                // Control maps go out without being asked for.
                None if row.payload.first().is_some_and(|b| b >> 5 == 5) => {}
                None => self.fail(format!("3: {name:?} is stored, and no node sent it: {:?}", row.payload)),
            }
        }
        let missing = self.acknowledged.iter().find(|n| !seen.contains(*n) && !self.at_mercy.contains(&n.0)).copied();
        if let Some(name) = missing {
            self.fail(format!("1: {name:?} was acknowledged and is not in the ledger"));
        }
        self.stored = seen;
    }

    /// A member of the network sent a frame. What is inside comes back, if it is a datagram. `insider` for a member that
    /// follows no rules.
    pub fn on_air(&mut self, sender: Sid, key: &LinkSchedule, frame: &[u8], insider: bool) -> Option<Datagram> {
        let mut bytes = frame.get(..frame.len().checked_sub(FCS)?)?.to_vec();
        let view = Frame::parse(&bytes).ok()?;
        let (to, source) = (view.destination, view.source);
        let Ok((security, plaintext)) = open_frame(key, did(sender), SecurityLevel::EncMic32, &mut bytes) else {
            self.fail(format!("6: {sender} sent a frame that is not under the network's key"));
            return None;
        };
        if !self.frames.insert((sender, security.key_index, security.frame_counter)) && !insider {
            self.fail(format!("4: {sender} sent frame counter {} twice", security.frame_counter));
        }
        if matches!(source, Address::Extended(_)) {
            return None;
        }
        let parsed = mesh::parse(plaintext).ok()?;
        let (mesh, rest) = (parsed.mesh?, parsed.rest.to_vec());
        let hash = fivefold_core::suite::CiphertextHash::of(&rest).0;
        if mesh.originator == sender || insider {
            self.from_members.insert((mesh.originator, hash));
        } else {
            self.forwarded += 1;
            if !self.from_members.contains(&(mesh.originator, hash)) {
                self.fail(format!("6: {sender} sent on what {} never sent", mesh.originator));
            }
            let passed = self.passed.entry((sender, mesh.originator, hash)).or_default();
            *passed += 1;
            let passed = *passed;
            let given = self.given.get(&(sender, mesh.originator, hash)).copied().unwrap_or(0);
            if passed > given {
                self.fail(format!("6: {sender} sent on {passed} times what it was given {given} times"));
            }
        }
        *self.given.entry((to, mesh.originator, hash)).or_default() += 1;
        Some(Datagram { mesh, rest })
    }
}
