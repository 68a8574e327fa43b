//! The model of key rotation (docs/protocol.md 4.3): two nodes on 802.15.4, one behind the other, their gateway and the
//! cloud. A move is a reading with all that follows from it for some seconds, a step of the rotation, or a state that reaches
//! the gateway; a frame in it may be lost, whichever.
//!
//! What must hold after every move:
//!
//! 1. Each node has a key that the gateway takes.
//! 2. Nothing is taken under a key that was retired.
//! 3. No key seals twice under one nonce: frame counters do not repeat.
//!
//! From each state, once nothing breaks any more: the rotation ends, every node has the new key alone, and readings arrive.

use std::collections::VecDeque;
use std::sync::Arc;

use fivefold_cloud::campaign;
use fivefold_core::profile::Profile;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::state::{self, NetworkKey, PART_BYTES, Part, Phase};
use fivefold_device::Event;
use fivefold_keep::rotation::{Rotation, Stage};

use super::cloud::{CloudPart, Common, network_key};
use super::device::{self, Device};
use super::explore::State;
use super::gateway::{GatewayPart, Said};
use super::{Flaw, History, Plan, RESTLESS, seals};
use crate::dice::Dice;
use crate::family::{GROUP, Member, NET, wall};
use crate::plan::{NodePlan, Parent};

/// What follows from a move within so many milliseconds belongs to it.
const WHILE: u64 = 12_000;
/// Rounds of a fair course, at most.
const PATIENCE: usize = 60;
const WEEK: u64 = 7 * 24 * 3_600_000;
/// Frames of a move of which one may be lost: the first ones.
const FRAMES: u8 = 6;

/// Where it begins, and how much may happen.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The stage of the rotation, which no gateway was told of yet.
    pub from: Stage,
    /// Restarts and frames that are lost.
    pub faults: u8,
    /// Weeks that pass.
    pub weeks: u8,
}

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The cloud takes the step that is due.
    Due,
    /// The cloud's process dies and starts again.
    KillCloud,
    /// The gateway's.
    KillGateway,
    /// The power of a node goes and comes back.
    PowerCycle(usize),
    /// The gateway is pushed the state of now; of what follows this frame is lost.
    Push(Option<u8>),
    /// A node has a reading; of what follows this frame is lost.
    Read(usize, Option<u8>),
    /// A week passes in which nobody speaks.
    Week,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Gateway,
    Node(usize),
}

/// The world.
pub struct Village {
    bounds: Bounds,
    flaw: Option<Flaw>,
    common: Arc<Common>,
    now: u64,
    members: Vec<Member>,
    nodes: Vec<Device>,
    gateway: GatewayPart,
    cloud: CloudPart,
    air: VecDeque<(Place, Vec<u8>)>,
    /// Frames of this move, and which of them is lost.
    frames: u8,
    lost: Option<u8>,
    faults: u8,
    weeks: u8,
    /// Version of the book that the gateway was pushed last, and what it said of keys.
    pushed: u64,
    phases: Vec<(u8, Phase)>,
    delivered: [usize; 2],
    readings: u8,
    broken: Option<String>,
    telling: bool,
    story: Vec<String>,
}

impl State for Village {
    type Plan = Plan<Bounds>;
    type Move = Move;

    fn start(plan: &Plan<Bounds>, telling: bool) -> anyhow::Result<Self> {
        seals::begin();
        let mut dice = Dice::of(4);
        let key = network_key(1);
        let near = NodePlan::new(Profile::ToCloud);
        let far = NodePlan { parents: vec![Parent::Node(0)], ..near.clone() };
        let members = vec![Member::draw(&mut dice, 0, &near)?, Member::draw(&mut dice, 1, &far)?];
        let credential = CloudPart::credential()?;
        let node = |m: &Member| Device::new(m.clone(), key, credential.clone(), plan.flaw);
        let mut village = Self {
            bounds: plan.bounds,
            flaw: plan.flaw,
            common: plan.common.clone(),
            now: 1_000,
            nodes: members.iter().map(node).collect(),
            gateway: GatewayPart::new(0, key, plan.flaw),
            cloud: CloudPart::new(members.clone(), plan.common.clone(), plan.flaw),
            members,
            air: VecDeque::new(),
            frames: 0,
            lost: None,
            faults: 0,
            weeks: 0,
            pushed: 0,
            phases: vec![(1, Phase::Switch)],
            delivered: [0; 2],
            readings: 0,
            broken: None,
            telling,
            story: Vec::new(),
        };
        village.cloud.start(village.now)?;
        let said = village.gateway.start(village.now)?;
        village.after_gateway(said)?;
        village.push()?;
        for n in 0..village.nodes.len() {
            village.power(n)?;
            village.settle()?;
        }
        for n in 0..village.nodes.len() {
            village.read(n)?;
            village.settle()?;
        }
        anyhow::ensure!(village.delivered.iter().all(|n| *n > 0), "no reading arrives: {:?}", village.story);
        let mut rotation = Rotation::begin(NET, 1, 2, wall(village.now).0 / 1000);
        rotation.is_urgent = true;
        village.turn(rotation)?;
        for _ in 0..PATIENCE {
            if village.rotation().is_some_and(|r| r.stage() == plan.bounds.from) {
                break;
            }
            for to in [Move::Push(None), Move::Read(0, None), Move::Read(1, None), Move::Due] {
                village.step(to)?;
            }
        }
        village.gateway.taken.clear();
        anyhow::ensure!(seals::are_watched(), "nobody watches seals: give seals::sealed to set_seal_witness first");
        Ok(village)
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves: Vec<_> = (0..self.nodes.len()).map(|n| Move::Read(n, None)).collect();
        if self.due().is_some() {
            moves.push(Move::Due);
        }
        if self.pushed < self.cloud.ledger.rows().book_version {
            moves.push(Move::Push(None));
        }
        if self.weeks < self.bounds.weeks {
            moves.push(Move::Week);
        }
        if self.faults < self.bounds.faults {
            moves.extend((0..self.nodes.len()).map(Move::PowerCycle));
            moves.extend([Move::KillGateway, Move::KillCloud]);
        }
        moves
    }

    fn step(&mut self, to: Move) -> anyhow::Result<()> {
        self.frames = 0;
        match to {
            Move::Read(n, lost) => {
                self.lose(lost, format!("node {n} has a reading"));
                self.read(n)?;
            }
            Move::Push(lost) => {
                self.lose(lost, "the gateway is pushed its state".into());
                self.push()?;
            }
            Move::Due => {
                if let Some(next) = self.due() {
                    self.turn(next)?;
                }
            }
            Move::Week => {
                self.weeks += 1;
                self.now += WEEK;
                self.tell(|| "a week passes".into());
            }
            Move::PowerCycle(n) => {
                self.faults += 1;
                self.tell(|| format!("the power of node {n} goes, and comes back"));
                self.power(n)?;
            }
            Move::KillGateway => {
                self.faults += 1;
                self.tell(|| "the gateway dies and starts again".into());
                self.gateway.kill();
                let said = self.gateway.start(self.now)?;
                self.after_gateway(said)?;
            }
            Move::KillCloud => {
                self.faults += 1;
                self.tell(|| "the cloud dies and starts again".into());
                self.cloud.kill();
                self.cloud.start(self.now)?;
            }
        }
        self.settle()?;
        self.lost = None;
        self.look();
        Ok(())
    }

    fn inside(&self, last: Move) -> Vec<Move> {
        if self.faults >= self.bounds.faults {
            return Vec::new();
        }
        let each = (0..self.frames.min(FRAMES)).map(Some);
        match last {
            Move::Read(n, None) => each.map(|lost| Move::Read(n, lost)).collect(),
            Move::Push(None) => each.map(Move::Push).collect(),
            _ => Vec::new(),
        }
    }

    fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    fn fingerprint(&self) -> u128 {
        let mut all = History::of(&[&self.now.to_be_bytes(), &self.pushed.to_be_bytes()]);
        let nodes = self.nodes.iter().map(|n| n.history);
        nodes.chain([self.gateway.history, self.cloud.history]).for_each(|h| all.add(&[&h.short().to_be_bytes()]));
        all.add(&[&[self.faults, self.weeks, self.readings]]);
        all.short()
    }

    fn fair(&mut self) -> anyhow::Result<()> {
        self.tell(|| "from here on nothing breaks any more".into());
        for round in 0..PATIENCE {
            if self.broken.is_some() || round > 0 && self.is_done() {
                return Ok(());
            }
            self.delivered = [0; 2];
            let moves = [Some(Move::Push(None)), self.due().map(|_| Move::Due), Some(Move::Read(0, None))];
            for to in moves.into_iter().flatten().chain([Move::Read(1, None)]) {
                self.step(to)?;
            }
            // The longer it takes, the longer they wait.
            self.now += 60_000 << round.min(8);
        }
        self.fail("nothing breaks any more, and the rotation does not come to an end");
        Ok(())
    }

    fn story(&self) -> &[String] {
        &self.story
    }
}

impl Village {
    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.telling {
            let line = format!("{:>9.3} s  {}", self.now as f64 / 1000.0, what());
            self.story.push(line);
        }
    }

    fn fail(&mut self, what: impl Into<String>) {
        if self.broken.is_none() {
            let what = what.into();
            self.tell(|| format!("broken: {what}"));
            self.broken = Some(what);
        }
    }

    fn lose(&mut self, lost: Option<u8>, what: String) {
        self.lost = lost;
        self.faults += u8::from(lost.is_some());
        let and = lost.map_or(String::new(), |n| format!("; frame {} of what follows is lost", n + 1));
        self.tell(|| format!("{what}{and}"));
    }

    fn rotation(&self) -> Option<Rotation> {
        self.cloud.ledger.rows().rotation.clone()
    }

    /// What the rotation becomes now, if anything.
    fn due(&self) -> Option<Rotation> {
        let (rotation, now) = (self.rotation()?, wall(self.now).0 / 1000);
        if self.flaw == Some(Flaw::RetiredTooSoon) {
            return rotation.switched(now).and_then(|r| r.retired(now)).ok();
        }
        let book = self.cloud.book()?;
        let link = book.rotations.get(&NET)?;
        rotation.due(&campaign::count(&book, link), now)
    }

    fn turn(&mut self, next: Rotation) -> anyhow::Result<()> {
        self.tell(|| format!("the rotation: {}", next.stage()));
        self.cloud.change(self.now, next.stage().as_str().as_bytes(), |rows| rows.rotation = Some(next))
    }

    fn power(&mut self, n: usize) -> anyhow::Result<()> {
        let Some(node) = self.nodes.get_mut(n) else { return Ok(()) };
        node.cut();
        node.boot(self.now)?;
        let said = node.timeout(self.now, None)?;
        self.after_node(n, said);
        Ok(())
    }

    fn read(&mut self, n: usize) -> anyhow::Result<()> {
        self.readings = self.readings.wrapping_add(1);
        let reading = [0x82, 1, 0x18, 0x20 | self.readings];
        let Some(node) = self.nodes.get_mut(n) else { return Ok(()) };
        let said = node.send(self.now, &reading, None)?;
        self.after_node(n, said);
        Ok(())
    }

    /// What the cloud pushes to the gateway.
    fn push(&mut self) -> anyhow::Result<()> {
        let version = self.cloud.ledger.rows().book_version;
        let phases = self.rotation().map_or(vec![(1, Phase::Switch)], |r| r.phases().to_vec());
        let bytes: Vec<_> = phases.iter().map(|(index, phase)| (*index, network_key(*index), *phase)).collect();
        let keys: Vec<_> =
            bytes.iter().map(|(index, key, phase)| NetworkKey { index: *index, key, phase: *phase }).collect();
        let devices: Vec<_> = self
            .members
            .iter()
            .map(|m| state::Device { sid: m.sid, did: m.did(), policy: m.policy, overrides: m.overrides })
            .collect();
        let whole = state::State {
            version: version + 1,
            net: NET,
            group: GROUP,
            part: Part::WHOLE,
            devices: List::of(&devices),
            contexts: List::default(),
            keys: List::of(&keys),
            revoked: List::default(),
            revoked_serials: List::default(),
            local: List::default(),
            classic: List::default(),
        };
        let mut out = vec![0; PART_BYTES];
        let len = whole.emit(&mut out).map_err(|e| anyhow::anyhow!("state: {e}"))?;
        let said = self.gateway.state(self.now, out.get(..len).unwrap_or_default())?;
        (self.pushed, self.phases) = (version, phases);
        self.after_gateway(said)
    }

    fn after_node(&mut self, n: usize, said: Vec<device::Said>) {
        for said in said {
            match said {
                device::Said::Frame(bytes) => self.transmit(Place::Node(n), bytes),
                device::Said::Event(event) => {
                    if matches!(event, Event::Delivered { .. })
                        && let Some(count) = self.delivered.get_mut(n)
                    {
                        *count += 1;
                    }
                    if !matches!(event, Event::Sent { .. }) {
                        self.tell(|| format!("    node {n} says: {event:?}"));
                    }
                }
                device::Said::Datagram(_) => {}
            }
        }
    }

    fn transmit(&mut self, from: Place, bytes: Vec<u8>) {
        if self.lost == Some(self.frames) {
            self.tell(|| format!("    a frame of {from:?} is lost"));
        } else {
            self.air.push_back((from, bytes));
        }
        self.frames = self.frames.saturating_add(1);
    }

    fn after_gateway(&mut self, said: Vec<Said>) -> anyhow::Result<()> {
        for said in said {
            match said {
                Said::Frame(bytes) => self.transmit(Place::Gateway, bytes),
                Said::Exchange(ticket, envelope) => {
                    let reply = self.cloud.exchange(self.now, &self.gateway.proven, &envelope)?;
                    let said = self.gateway.exchanged(self.now, ticket, reply.as_deref())?;
                    self.after_gateway(said)?;
                }
                Said::Datagram(_) => {}
            }
        }
        Ok(())
    }

    /// Carries frames and batches until nobody wants anything for a while.
    fn settle(&mut self) -> anyhow::Result<()> {
        let end = self.now + WHILE;
        for _ in 0..RESTLESS {
            while let Some((from, bytes)) = self.air.pop_front() {
                self.hear(from, &bytes)?;
            }
            if let Some((boot, body)) = self.gateway.batch(&self.common.signing)? {
                if let Some(reply) = self.cloud.batch(self.now, &self.gateway.proven, &body)? {
                    let said = self.gateway.replied(self.now, boot, &reply)?;
                    self.after_gateway(said)?;
                }
                continue;
            }
            if !self.air.is_empty() {
                continue;
            }
            let wakes = self.nodes.iter().filter_map(Device::wake).chain(self.gateway.wake());
            let Some(next) = wakes.min().filter(|at| *at <= end) else {
                self.now = end;
                return Ok(());
            };
            self.now = next.max(self.now + 1);
            for n in 0..self.nodes.len() {
                if let Some(node) = self.nodes.get_mut(n).filter(|m| m.wake().is_some_and(|at| at <= next)) {
                    let said = node.timeout(self.now, None)?;
                    self.after_node(n, said);
                }
            }
            if self.gateway.wake().is_some_and(|at| at <= next) {
                let said = self.gateway.timeout(self.now)?;
                self.after_gateway(said)?;
            }
        }
        anyhow::bail!("the village never comes to rest")
    }

    /// The gateway and node 1 hear node 0, and it hears both.
    fn hear(&mut self, from: Place, bytes: &[u8]) -> anyhow::Result<()> {
        let near = from == Place::Node(0);
        for n in 0..self.nodes.len() {
            if (n == 0) != near
                && let Some(node) = self.nodes.get_mut(n)
            {
                let said = node.frame(self.now, bytes, None)?;
                self.after_node(n, said);
            }
        }
        if near {
            let said = self.gateway.frame(self.now, bytes)?;
            self.after_gateway(said)?;
        }
        Ok(())
    }

    /// The promises.
    fn look(&mut self) {
        if seals::repeated() {
            self.fail("a key sealed twice under one nonce");
        }
        let retired: Vec<_> = self.phases.iter().filter(|(_, phase)| *phase == Phase::Retire).map(|k| k.0).collect();
        for index in std::mem::take(&mut self.gateway.taken).into_iter().flatten() {
            if retired.contains(&index) {
                self.fail(format!("a message was taken under network key {index}, which is retired"));
            }
        }
        let taken: Vec<_> = self.gateway.link_keys();
        let held = |n: &Device| n.record.iter().flat_map(|r| r.keys).flatten().any(|k| taken.contains(&k.index));
        if let Some(n) = self.nodes.iter().position(|n| !held(n)) {
            self.fail(format!("node {n} has no key that the gateway takes"));
        }
    }

    fn is_done(&self) -> bool {
        let over = self.rotation().is_some_and(|r| r.stage() == Stage::Done);
        let alone = |n: &Device| {
            let indexes = n.record.iter().flat_map(|r| r.keys).flatten().map(|k| k.index);
            indexes.eq([2])
        };
        over && self.nodes.iter().all(alone) && self.delivered.iter().all(|n| *n > 0)
    }
}
