//! What the cloud pushes: the allow-list, C2 contexts, network keys, revocations. Never something older.

use std::collections::{HashMap, HashSet};

use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{BootContext, Did, GatewayGroup, Sid};
use fivefold_core::time::Millis;
use fivefold_core::wire::state::{Admission, Known, NetworkKey, PartHash, State, admit};

use super::devices::{Device, boot_name};
use super::neighbours::Member;
use super::output::AppliedState;
use super::{ContextName, Gateway, Lookup, Output, Record};

/// A state whose parts are coming in.
pub(super) struct Collecting {
    version: u64,
    parts: Vec<Option<Box<[u8]>>>,
    hashes: Vec<Option<PartHash>>,
}

impl Gateway {
    /// One part of a state that the cloud pushed. When it is the last one missing, the state is applied and written.
    ///
    /// # Errors
    /// `E4-03` for an older version, or the same with other content; `E4-02` for another network's. It is counted.
    pub fn handle_state(&mut self, now: Millis, part: &[u8]) -> Result<(), Rejected> {
        let taken = self.take_state(now, part);
        if let Err(rejected) = taken {
            self.count(rejected, None);
        }
        taken
    }

    fn take_state(&mut self, now: Millis, part: &[u8]) -> Result<(), Rejected> {
        let state = State::parse(part).map_err(|m| Rejected::new(Code::ChannelSequence, m.reason))?;
        if state.net != self.net {
            return Err(Rejected::new(Code::ChannelWrongNet, "state: it is another network's"));
        }
        let hash = PartHash::of(part);
        let known = self.applied.as_ref().map(|(version, parts)| Known { version: *version, parts });
        let collecting = self.collecting.as_ref().map(|c| Known { version: c.version, parts: &c.hashes });
        match admit(known, collecting, state.version, state.part, hash)? {
            Admission::Repeat => return Ok(()),
            Admission::Start => {
                let count = usize::from(state.part.count);
                self.collecting =
                    Some(Collecting { version: state.version, parts: vec![None; count], hashes: vec![None; count] });
            }
            Admission::Continue => {}
        }
        let Some(collecting) = &mut self.collecting else { return Ok(()) };
        let at = usize::from(state.part.index);
        if let (Some(place), Some(h)) = (collecting.parts.get_mut(at), collecting.hashes.get_mut(at)) {
            (*place, *h) = (Some(part.into()), Some(hash));
        }
        if collecting.parts.iter().any(Option::is_none) {
            return Ok(());
        }
        let Some(whole) = self.collecting.take() else { return Ok(()) };
        let applied =
            AppliedState { version: whole.version, applied: now, parts: whole.parts.into_iter().flatten().collect() };
        self.apply(now, &applied)?;
        self.persist(Record::State(applied));
        // Behind it: a key that is not durable here must not be in use anywhere.
        self.release_key_answers();
        Ok(())
    }

    /// Takes up what was applied before a restart.
    pub(super) fn resume_state(&mut self, now: Millis, state: &AppliedState) {
        if let Err(rejected) = self.apply(now, state) {
            self.count(rejected, None);
        }
    }

    fn apply(&mut self, now: Millis, applied: &AppliedState) -> Result<(), Rejected> {
        let mut parts = Vec::with_capacity(applied.parts.len());
        for part in &applied.parts {
            parts.push(State::parse(part).map_err(|m| Rejected::new(Code::ChannelSequence, m.reason))?);
        }
        let revoked: HashSet<Did> = parts.iter().flat_map(|p| p.revoked.iter()).collect();
        let mut old: HashMap<(Did, Sid), Device> =
            self.devices.take_all().into_iter().map(|d| ((d.did, d.sid), d)).collect();
        let count = parts.iter().map(|p| p.devices.len()).sum();
        self.devices.reserve(count);
        let mut members = HashMap::with_capacity(count);
        for d in parts.iter().flat_map(|p| p.devices.iter()).filter(|d| !revoked.contains(&d.did)) {
            let device = match old.remove(&(d.did, d.sid)) {
                Some(mut device) => {
                    (device.policy, device.overrides) = (d.policy, d.overrides);
                    device
                }
                None => Device::new(d.did, d.sid, d.policy, d.overrides),
            };
            self.devices.put(device);
            members.insert(d.did, Member { sid: d.sid, radio: d.policy.radio });
        }
        drop(old);
        let mut named = HashSet::new();
        for part in &parts {
            for c in part.contexts.iter() {
                if let Some(device) = self.devices.find_mut(c.sid)
                    && let Some(name) = device.install(part.group, &c)
                {
                    named.insert(name);
                }
            }
        }
        self.keep_added(applied.version, &mut named);
        self.apply_local(&parts, &mut named);
        self.classic.apply(&parts);
        self.recall_contexts(&named);
        if self.link.neighbours_mut().register(members) {
            self.link.greet(now);
        }
        let keys: Vec<NetworkKey<'_>> = parts.iter().flat_map(|p| p.keys.iter()).collect();
        self.apply_keys(applied.applied, &keys);
        let hashes = applied.parts.iter().map(|p| Some(PartHash::of(p))).collect();
        self.applied = Some((applied.version, hashes));
        self.groups = parts.iter().map(|p| p.group).collect();
        self.groups.dedup();
        if self.recalling.is_empty() {
            self.retry_orphans(now);
        }
        Ok(())
    }

    /// Drops contexts that are not in the state any more, and asks the store about those that are new here.
    fn recall_contexts(&mut self, named: &HashSet<ContextName>) {
        let mut gone = Vec::new();
        for device in self.devices.iter_mut() {
            device.retain(&|name| named.contains(&name), &mut gone);
            for family in device.families.iter().filter(|f| !f.ready) {
                self.recalling.insert(family.name, device.sid);
                self.outputs.push_back(Output::Lookup(Lookup::Family(family.name)));
            }
            for slot in device.slots.iter().filter(|s| !s.ready) {
                self.recalling.insert(slot.name, device.sid);
                self.outputs.push_back(Output::Lookup(Lookup::Context(slot.name)));
            }
        }
        for context in gone {
            self.persist(Record::Forgotten { context });
        }
    }

    /// The store has said what it knows of a context.
    pub(super) fn recalled(&mut self, now: Millis, context: ContextName, numbers: &[u32], bound: u32, failures: u32) {
        let Some(sid) = self.recalling.remove(&context) else { return };
        if let Some(slot) = self.devices.slot(sid, context).filter(|s| !s.ready) {
            slot.recall(numbers, bound, failures);
            // Somebody spoke under it before the restart.
            if !numbers.is_empty()
                && let Some(device) = self.devices.find_mut(sid)
            {
                // What that ended of contexts that were agreed here was written before the number was.
                device.in_use(context);
            }
        }
        self.all_recalled(now);
    }

    /// The store has said which boots of a family were opened last.
    pub(super) fn family_recalled(&mut self, now: Millis, family: ContextName, boots: &[BootContext]) {
        let Some(sid) = self.recalling.remove(&family) else { return };
        if let Some(device) = self.devices.find_mut(sid)
            && let Some(f) = device.families.iter_mut().find(|f| f.name == family && !f.ready)
        {
            f.ready = true;
            for boot in boots {
                if device.add_boot(family, *boot).is_some() {
                    let name = boot_name(family, *boot);
                    self.recalling.insert(name, sid);
                    self.outputs.push_back(Output::Lookup(Lookup::Context(name)));
                }
            }
        }
        self.all_recalled(now);
    }

    /// When the store has said everything, what waited for a context is tried again.
    fn all_recalled(&mut self, now: Millis) {
        if self.recalling.is_empty() {
            self.recalling.shrink_to_fit();
            self.outputs.shrink_to_fit();
            self.retry_orphans(now);
        }
    }

    /// The gateway group of the state, for showing.
    pub fn group_of(state: &AppliedState) -> Option<GatewayGroup> {
        state.parts.first().and_then(|p| State::parse(p).ok()).map(|s| s.group)
    }
}
