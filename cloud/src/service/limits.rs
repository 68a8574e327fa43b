//! Keeps the operator's limits while the cloud runs: what is due is pruned, and batches are refused where there is no room.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fivefold_core::e4_channel::GatewayName;
use fivefold_core::error::{Code, Rejected, Severity};
use fivefold_core::time::Millis;
use fivefold_keep::files;

use super::Service;
use crate::limits::{self, Floors, Full, Part, Policy, ROWS, Space, Taken, disk};
use crate::store::{CountKey, Place, Reader, StoreError, Write};

/// Rows that are measured at a time, of each table.
const MEASURED: u32 = 10_000;
/// Steps of one round, at most: the end of the process waits for one.
const ROUND: usize = 64;
/// Files beside the store are weighed so often: there are many, and they grow slowly.
const WEIGHED: u64 = 5 * 60 * 1000;
/// While batches are refused, the log says so once in this time.
const SAID: u64 = 3600 * 1000;
/// A full disk takes bites of so many rows still, or none: each needs some room in the journal.
const LEAST_ROWS: u32 = 8;

const NO_ROOM: Rejected = Rejected::new(Code::StoreFull, "the disk budget is reached, or the disk itself is full");

/// What the cloud takes of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes: the store, its journal, the log and what else lies in the folder.
    pub used: u64,
    /// Bytes that it may take.
    pub limit: Option<u64>,
    /// Bytes that are free on the disk.
    pub free: u64,
    /// Since when batches are refused.
    pub refusing: Option<Millis>,
    /// Milliseconds that the time which ages are counted by is behind the clock.
    pub behind: u64,
}

/// What keeps the limits.
#[derive(Debug)]
pub struct Keeper {
    policy: Policy,
    folder: PathBuf,
    store: PathBuf,
    /// Values of classic frames go to a broker: they stay until it has them.
    publishes: bool,
    /// Bytes that are free on the disk of a folder.
    free: fn(&Path) -> io::Result<u64>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Bytes of files beside the store, and when they were weighed.
    beside: (u64, Option<Millis>),
    free: u64,
    full: Option<(Full, Millis)>,
    is_near: bool,
    said: Option<Millis>,
    /// Batches that were refused since that was counted.
    refused: HashMap<GatewayName, u64>,
    /// How far the time that ages are counted by is behind the clock.
    behind: u64,
}

impl State {
    fn space(&self, store: Taken) -> Space {
        Space { store, beside: self.beside.0, free: self.free }
    }
}

impl Keeper {
    /// For a cloud with this folder and store. `publishes`: values of classic frames go to a broker.
    pub fn new(policy: Policy, folder: PathBuf, store: PathBuf, publishes: bool) -> Self {
        let state = State {
            beside: (0, None),
            free: u64::MAX,
            full: None,
            is_near: false,
            said: None,
            refused: HashMap::new(),
            behind: 0,
        };
        Self { policy, folder, store, publishes, free: files::free, state: Mutex::new(state) }
    }

    /// The same on a disk that has so much free.
    #[must_use]
    pub fn with_free(self, free: fn(&Path) -> io::Result<u64>) -> Self {
        Self { free, ..self }
    }

    /// The policy.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the disk, where that is due, and whether there is room. Says whether it is nearly full since now.
    fn look(&self, store: Taken, now: Millis) -> bool {
        let is_due = self.state().beside.1.is_none_or(|at| now.0.abs_diff(at.0) >= WEIGHED);
        let beside = is_due.then(|| disk::beside(&self.folder, &self.store));
        let free = (self.free)(&self.folder);
        let mut state = self.state();
        if let Some(bytes) = beside {
            state.beside = (bytes, Some(now));
        }
        match free {
            Ok(free) => state.free = free,
            Err(error) => tracing::error!(%error, "nobody knows what is free on the disk"),
        }
        let was_near = state.is_near;
        state.is_near = self.policy.is_near(state.space(store).used(), was_near);
        let is_news = state.is_near && !was_near;
        drop(state);
        // Who is refused nothing has no other way to hear that there is room again.
        let _ = self.room(store, now);
        is_news
    }

    /// Whether there is room for a batch, where the store takes so much.
    fn room(&self, store: Taken, now: Millis) -> Result<(), Full> {
        let mut state = self.state();
        let space = state.space(store);
        let room = self.policy.room(space, state.full.is_some());
        match room {
            Ok(()) => {
                if state.full.take().is_some() {
                    tracing::info!(used = space.used(), "there is room again: batches are taken");
                }
                state.said = None;
            }
            Err(full) => {
                let since = state.full.map_or(now, |(_, since)| since);
                state.full = Some((full, since));
                if state.said.is_none_or(|at| now.since(at) >= SAID) {
                    state.said = Some(now);
                    tracing::error!(code = "E4-04", "{full}");
                }
            }
        }
        room
    }

    /// The time to count ages by, where this is the newest that gateways heard.
    fn time(&self, now: Millis, heard: Option<Millis>) -> Millis {
        let time = limits::time(now, heard);
        let behind = heard.map_or(0, |_| now.since(time));
        let before = std::mem::replace(&mut self.state().behind, behind);
        if behind > 0 && before == 0 {
            tracing::warn!(
                "by the clock the newest reading is more than a day old: what is due by its age waits until a newer one comes; is \
                 the clock right?"
            );
        }
        time
    }
}

impl Service {
    /// What keeps the limits, if anything does.
    pub const fn keeper(&self) -> Option<&Keeper> {
        self.keeper.as_ref()
    }

    /// The same with limits.
    #[must_use]
    pub fn with_keeper(self, keeper: Keeper) -> Self {
        Self { keeper: Some(keeper), ..self }
    }

    /// What the cloud takes of its disk, if there are limits.
    pub fn usage(&self) -> Option<Usage> {
        let keeper = self.keeper.as_ref()?;
        let state = keeper.state();
        Some(Usage {
            used: state.space(self.cloud.memory().store().taken()).used(),
            limit: keeper.policy.disk,
            free: state.free,
            refusing: state.full.map(|(_, since)| since),
            behind: state.behind,
        })
    }

    /// Whether there is room for a batch of this gateway. If not, it is counted that it was refused.
    ///
    /// # Errors
    /// [`Full`]: it is to be refused.
    pub(super) fn admit(&self, gateway: GatewayName, now: Millis) -> Result<(), Full> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        keeper.room(self.cloud.memory().store().taken(), now).inspect_err(|_| {
            *keeper.state().refused.entry(gateway).or_default() += 1;
        })
    }

    /// A round: measures what came, looks at the disk, counts what was refused, and prunes what is due, in small steps between
    /// the writer's groups. Says whether that is all. Blocks.
    ///
    /// # Errors
    /// [`StoreError`]: then it goes on where it stopped, in the next round.
    pub fn keep_limits(&self, now: Millis) -> Result<bool, StoreError> {
        let Some(keeper) = &self.keeper else { return Ok(true) };
        let memory = self.cloud.memory();
        let is_near = keeper.look(memory.store().taken(), now);
        // On a full disk there is room for that once something was pruned.
        let told = self.tell_full(keeper, is_near, now);
        let is_all = self.prune(keeper, now)?;
        // What was freed may be room. What is news only now is told by the next round, which finds it as news once more.
        if keeper.look(memory.store().taken(), now) {
            keeper.state().is_near = false;
        }
        told.map(|()| is_all)
    }

    /// Measures what came, and prunes what is due. Says whether that is all.
    fn prune(&self, keeper: &Keeper, now: Millis) -> Result<bool, StoreError> {
        let memory = self.cloud.memory();
        let mut steps = 0;
        loop {
            let measured = memory.read(|r| r.measure(MEASURED))?;
            memory.store().measured(measured)?;
            if measured.is_all() {
                break;
            }
            steps += 1;
            if steps >= ROUND {
                return Ok(false);
            }
        }
        let time = keeper.time(now, memory.read(Reader::newest_heard)?);
        let floors = self.floors(keeper)?;
        let mut rows = ROWS;
        for part in Part::ALL {
            loop {
                let bytes = memory.read(|r| r.part(part))?.bytes;
                let Some(step) = keeper.policy.step(part, bytes, floors, time) else { break };
                match memory.store().prune(limits::Step { rows, ..step }) {
                    Ok(stepped) if stepped.is_done => break,
                    Ok(_) => {}
                    Err(StoreError::Full { .. }) if rows / 4 >= LEAST_ROWS => rows /= 4,
                    Err(error) => return Err(error),
                }
                steps += 1;
                if steps >= ROUND {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// What others still need of readings.
    fn floors(&self, keeper: &Keeper) -> Result<Floors, StoreError> {
        let unpublished = if keeper.publishes { self.cloud.memory().read(|r| r.first_unpublished())? } else { None };
        let unsent = self.cloud.memory().read(|r| r.floor())?;
        let undelivered = [unpublished, unsent].into_iter().flatten().min();
        Ok(Floors { undelivered, not_backed_up: None })
    }

    /// Counts what was refused for want of room, and once that it is nearly full.
    fn tell_full(&self, keeper: &Keeper, is_near: bool, now: Millis) -> Result<(), StoreError> {
        let refused = std::mem::take(&mut keeper.state().refused);
        let key = |of: Option<GatewayName>| CountKey {
            code: Code::StoreFull,
            net: of.map(|name| name.net),
            gateway: of.map(|name| name.gateway),
            sid: None,
            place: Place::Cloud,
        };
        let mut write = Write { now, ..Write::default() };
        if is_near {
            write.count(key(None));
        }
        for (name, n) in &refused {
            write.said.push((key(Some(*name)), *n, Severity::Critical));
            write.explain(crate::store::refusal(key(Some(*name)), NO_ROOM, now));
        }
        if write.is_empty() {
            return Ok(());
        }
        // Where not even that has room, it is counted when there is.
        self.cloud.memory().store().commit_now(write).inspect_err(|_| {
            let mut state = keeper.state();
            state.is_near &= !is_near;
            refused.iter().for_each(|(name, n)| *state.refused.entry(*name).or_default() += n);
        })?;
        if is_near {
            tracing::warn!("more than four fifths of limits.disk_max_mib are used: see fivefold cloud limits");
        }
        Ok(())
    }
}
