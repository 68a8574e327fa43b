//! The village: a virtual clock, what is on its way, and everybody's engines.

mod act;
mod attack;
mod evidence;
mod uplink;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::net::SocketAddr;

use fivefold_core::id::Sid;
use fivefold_core::key::Key;
use fivefold_core::profile::Profile;
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::suite::LinkSchedule;

use crate::agenda::Agenda;
use crate::cloud::{CloudStation, Stage};
use crate::dice::Dice;
use crate::family::{self, Member, gateway_sid, node_sid};
use crate::gateway::GatewayStation;
use crate::hostile::Hoard;
use crate::node::NodeStation;
use crate::plan::{Carrier, NodePlan, Parent, Plan, Weather};
use crate::watch::{Datagram, Name, Watch};
use attack::Insider;
pub use evidence::Batches;

/// Milliseconds after which a station is looked at again that says it is late.
const PATIENCE: u64 = 5;
/// Looks in a row that come to nothing: more, and an engine asks for the moon.
const IDLE: u32 = 5_000;
/// Lines of the story that are kept.
const LINES: usize = 40;
/// Datagrams and frames that attackers remember.
const RECORDED: usize = 256;

/// Codes that say that somebody who holds keys of ours does harm, or that keys are used twice.
const ALARMS: [&str; 8] = ["E2-06", "E2-08", "E3-06", "E3-08", "E4-02", "E4-03", "EV-01", "EV-04"];

/// Who can hear and send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Station {
    /// A gateway, by its place.
    Gateway(usize),
    /// A member that follows no rules.
    Insider,
    /// A node, by its place.
    Node(usize),
}

/// What happens at a moment.
#[derive(Debug)]
enum Event {
    Boot(usize),
    CloudLeaves,
    CloudReturns,
    Command,
    Cut(usize),
    /// To the gateway, from an IP device.
    Down(usize, Vec<u8>),
    Frame(Station, Vec<u8>),
    Insider,
    /// A connection broke.
    Broken(usize, u32),
    KillCloud,
    KillGateway(usize),
    Poll(usize),
    Post(usize, u32),
    Read(usize),
    Reply(usize, u32, GatewayBoot, Vec<u8>),
    StartCloud,
    StartGateway(usize),
    Step(Box<Request>),
    Stranger,
    Tick,
    Up(SocketAddr, Vec<u8>),
}

/// A batch on its way through the cloud.
#[derive(Debug)]
struct Request {
    gateway: usize,
    gateway_run: u32,
    cloud_run: u32,
    boot: GatewayBoot,
    /// What a gateway that lies about its batch deletes, whatever the cloud says.
    upto: Option<u64>,
    reply_is_lost: bool,
    stage: Stage,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Readings that nodes took.
    pub sent: usize,
    /// Messages that nodes saw acknowledged.
    pub acknowledged: usize,
    /// Rows of the ledger.
    pub stored: usize,
    /// Boots of nodes, gateways and cloud after the first.
    pub reboots: u64,
    /// Frames on the air.
    pub frames: u64,
    /// Frames that relays sent on.
    pub forwarded: u64,
    /// Commands carried out.
    pub commands: usize,
    /// Batches that nodes signed.
    pub batches: Batches,
    /// What was refused, by code: at nodes, gateways and the cloud.
    pub refused: BTreeMap<&'static str, u64>,
    /// Virtual milliseconds.
    pub lasted: u64,
    /// Digest of everything that happened, in order.
    pub digest: u64,
    /// Whether nonces were watched.
    pub seals_watched: bool,
}

/// A run that broke a promise.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Which seed.
    pub seed: u64,
    /// Which promise.
    pub what: String,
    /// When, in virtual milliseconds.
    pub at: u64,
    /// What happened last.
    pub story: Vec<String>,
    /// What it was to be.
    pub plan: Plan,
}

/// The village.
pub struct World {
    /// What was planned.
    pub plan: Plan,
    /// Virtual milliseconds since the beginning.
    pub now: u64,
    /// Sees everything.
    pub watch: Watch,
    /// The nodes.
    pub nodes: Vec<NodeStation>,
    /// The gateways; the first one is the primary.
    pub gateways: Vec<GatewayStation>,
    /// The cloud.
    pub cloud: CloudStation,
    /// What the first gateway has put aside while it was hostile.
    pub hoard: Hoard,
    /// Datagrams that went over the air, as a member of the network sees them; who sent them and to whom.
    pub recorded: VecDeque<(Sid, Sid, Datagram)>,
    /// Frames that went over the air, as everybody sees them.
    pub frames: VecDeque<Vec<u8>>,
    /// HELLO frames among them.
    pub hellos: VecDeque<Vec<u8>>,
    /// What was refused, by code, at nodes and gateways.
    pub refused: BTreeMap<&'static str, u64>,
    /// Who hears nothing of the radio.
    pub deaf: BTreeSet<Station>,
    dice: Dice,
    agenda: Agenda<Event>,
    weather: Weather,
    reach: Vec<(Station, Station)>,
    schedule: LinkSchedule,
    insider: Option<Insider>,
    members: Vec<Member>,
    states: Vec<Vec<u8>>,
    away: bool,
    storming: bool,
    readings: u32,
    reboots: u64,
    on_air: u64,
    digest: u64,
    story: VecDeque<String>,
    _folder: tempfile::TempDir,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("plan", &self.plan).field("now", &self.now).finish_non_exhaustive()
    }
}

/// Runs a plan to its end.
///
/// # Errors
/// When this machine cannot run it. A broken promise is a value.
pub fn run(plan: &Plan) -> anyhow::Result<Result<Summary, Box<Broken>>> {
    let mut world = World::new(plan.clone())?;
    world.storm(world.plan.storm)?;
    world.heal()?;
    world.finish()
}

impl World {
    /// A village in which everybody has just been switched on.
    ///
    /// # Errors
    /// When this machine cannot run it.
    pub fn new(plan: Plan) -> anyhow::Result<Self> {
        let folder = folder()?;
        let mut dice = Dice::of(plan.seed);
        let key: [u8; 16] = dice.bytes();
        let mut members = Vec::new();
        for (place, node) in plan.nodes.iter().enumerate() {
            members.push(Member::draw(&mut dice, place, node)?);
        }
        let rules = members.clone();
        // The insider is a member like any other, until he was bought.
        let insider = Insider::new(&mut dice, node_sid(members.len()), &key);
        let place = members.len();
        members.push(Member::draw(&mut dice, place, &NodePlan::new(Profile::ToCloud))?);
        let mut gateways = Vec::new();
        for place in 0..plan.gateways.clamp(1, 2) {
            gateways.push(GatewayStation::new(folder.path(), place, key)?);
        }
        let registered = gateways.iter().map(GatewayStation::registered).collect();
        let cloud = CloudStation::new(folder.path(), members.clone(), registered);
        let states =
            (0..gateways.len()).map(|g| family::state(&members, &key, g == 0)).collect::<anyhow::Result<_>>()?;
        let at_mercy = |m: &&Member| {
            m.policy.profile == Profile::DangerLinkOnly
                || m.policy.profile == Profile::ToGateway && plan.hostility.is_hostile()
        };
        let at_mercy: HashSet<Sid> = rules.iter().filter(at_mercy).map(|m| m.sid).chain([node_sid(place)]).collect();
        let nodes = rules.into_iter().map(|m| NodeStation::new(m, key)).collect::<anyhow::Result<Vec<_>>>()?;
        let reach = reach(&plan, &mut dice);
        let mut world = Self {
            now: 0,
            watch: Watch::begin(at_mercy),
            nodes,
            gateways,
            cloud,
            hoard: Hoard::default(),
            recorded: VecDeque::new(),
            frames: VecDeque::new(),
            hellos: VecDeque::new(),
            refused: BTreeMap::new(),
            deaf: BTreeSet::new(),
            dice,
            agenda: Agenda::new(),
            weather: plan.weather,
            reach,
            schedule: LinkSchedule::new(Key::<fivefold_core::e1_link::E1, 16>::new(key).danger_bytes()),
            insider: Some(insider),
            members,
            states,
            away: false,
            storming: true,
            // CBOR wants the shortest head: from here on it is always the same.
            readings: 0x0100_0000,
            reboots: 0,
            on_air: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            story: VecDeque::new(),
            _folder: folder,
            plan,
        };
        world.begin()?;
        Ok(world)
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        self.cloud.start(self.now)?;
        for g in 0..self.gateways.len() {
            self.at(0, Event::StartGateway(g));
        }
        for n in 0..self.nodes.len() {
            let at = self.dice.below(3_000);
            self.at(at, Event::Boot(n));
            let every = self.plan.nodes.get(n).map_or(0, |p| p.every);
            if every > 0 {
                let first = 5_000 + self.dice.below(every);
                self.at(first, Event::Read(n));
            }
        }
        self.at(10_000, Event::Tick);
        let b = self.plan.breakage;
        for n in 0..self.nodes.len() {
            self.sometime(b.node, Event::Cut(n));
        }
        for g in 0..self.gateways.len() {
            self.sometime(b.gateway, Event::KillGateway(g));
        }
        self.sometime(b.cloud, Event::KillCloud);
        self.sometime(b.away, Event::CloudLeaves);
        self.sometime(b.stranger, Event::Stranger);
        self.sometime(b.insider, Event::Insider);
        self.sometime(b.command, Event::Command);
        if b.insider == 0 {
            self.insider = None;
        }
        Ok(())
    }

    /// Lets the storm blow for so many milliseconds, or until a promise is broken.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn storm(&mut self, ms: u64) -> anyhow::Result<()> {
        let end = self.now + ms;
        self.run_until(end)
    }

    /// Cuts the power of a node and gives it back at once.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn reboot(&mut self, n: usize) -> anyhow::Result<()> {
        if let Some(node) = self.nodes.get_mut(n) {
            node.cut();
        }
        self.happen(Event::Boot(n))
    }

    /// Kills a gateway's process and starts another.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn restart_gateway(&mut self, g: usize) -> anyhow::Result<()> {
        if let Some(gateway) = self.gateways.get_mut(g) {
            gateway.kill();
        }
        self.happen(Event::StartGateway(g))
    }

    /// Kills the cloud's process and starts another.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn restart_cloud(&mut self) -> anyhow::Result<()> {
        self.cloud.kill();
        self.happen(Event::StartCloud)
    }

    /// The cloud cannot be reached for so many milliseconds.
    pub fn cloud_leaves(&mut self, ms: u64) {
        self.away = true;
        self.after(ms, Event::CloudReturns);
    }

    /// From now on nothing breaks any more and everybody is honest.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        if self.watch.failure.is_some() {
            return Ok(());
        }
        self.tell(|| "the world heals".into());
        self.storming = false;
        self.weather = Weather::default();
        self.insider = None;
        if self.away {
            self.away = false;
        }
        for n in 0..self.nodes.len() {
            if let Some(node) = self.nodes.get_mut(n) {
                node.spare();
            }
        }
        for g in 0..self.gateways.len() {
            if let Some(gateway) = self.gateways.get_mut(g) {
                gateway.spare();
            }
        }
        Ok(())
    }

    /// Waits until everything that is held has arrived, has every node say one thing more, and looks at what is stored.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn finish(&mut self) -> anyhow::Result<Result<Summary, Box<Broken>>> {
        self.settle()?;
        let mut last = Vec::new();
        for n in 0..self.nodes.len() {
            if self.watch.failure.is_none()
                && let Some(number) = self.read(n)?
                && let Some(node) = self.nodes.get(n)
                && node.member.policy.profile != Profile::DangerLinkOnly
            {
                last.push(node.name(number));
            }
        }
        self.settle()?;
        // What gateways hold on to arrives with them.
        let end = self.now + 120_000;
        self.run_until(end)?;
        self.end_batches()?;
        if let Some(what) = self.watch.failure.take() {
            return Ok(Err(Box::new(self.broken(what))));
        }
        self.watch.look_at_seals();
        let ledger = self.cloud.ledger()?;
        self.watch.look_at_ledger(&ledger);
        let counted = self.summary(ledger.len())?.refused;
        if !self.plan.hostility.is_hostile()
            && let Some(code) = ALARMS.iter().find(|code| counted.get(*code).is_some_and(|n| *n > 0))
        {
            self.watch.fail(format!("8: everybody was honest, and {code} was counted"));
        }
        self.live(&last);
        let batches = self.look_at_evidence(&ledger)?;
        if let Some(what) = self.watch.failure.take() {
            return Ok(Err(Box::new(self.broken(what))));
        }
        Ok(Ok(Summary { batches, ..self.summary(ledger.len())? }))
    }

    /// Lets time pass until nobody holds any more what they hold now, at most as long as the plan says. Messages that ask
    /// for no answer are confirmed by the answer to a later one: who waits for that is given more to send.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        let end = self.now + self.plan.calm;
        let mut owed = self.owed(None);
        while self.now < end && self.watch.failure.is_none() {
            let next = self.now + 20_000;
            self.run_until(next)?;
            owed = self.owed(Some(&owed));
            let everybody =
                self.nodes.iter().all(NodeStation::is_on) && self.gateways.iter().all(GatewayStation::is_on);
            if everybody && self.cloud.is_on() && owed.is_empty() {
                return Ok(());
            }
            for n in 0..self.nodes.len() {
                let waits = |m: &NodeStation| m.member.policy.ack_every > 1 && owed.iter().any(|o| o.0 == m.member.sid);
                if self.nodes.get(n).is_some_and(waits) {
                    self.read(n)?;
                }
            }
        }
        if self.watch.failure.is_none() && !owed.is_empty() {
            self.watch.fail(format!("5: the world is well, and still nodes hold {owed:?}"));
        }
        Ok(())
    }

    /// What nodes hold; of `before`, if that is given.
    fn owed(&self, before: Option<&BTreeSet<Name>>) -> BTreeSet<Name> {
        let held = self.nodes.iter().flat_map(|n| n.waiting().into_iter().map(|number| n.name(number)));
        held.filter(|name| before.is_none_or(|b| b.contains(name))).collect()
    }

    /// What each node was given first after the world had healed was acknowledged, and nothing that it took was forgotten.
    fn live(&mut self, last: &[Name]) {
        for name in last.iter().filter(|n| !self.watch.at_mercy.contains(&n.0)) {
            if !self.watch.acknowledged.contains(name) {
                self.watch.fail(format!("5: the last reading of {} was never acknowledged: {name:?}", name.0));
                return;
            }
        }
        for node in self.nodes.iter().filter(|n| n.member.policy.profile != Profile::DangerLinkOnly) {
            let waiting = node.waiting();
            let known = |name: &Name| self.watch.acknowledged.contains(name) || self.watch.lost.contains(name);
            if let Some(number) = node.taken.iter().find(|n| !waiting.contains(n) && !known(&node.name(**n))) {
                self.watch.fail(format!("5: {} forgot {number}, which nobody acknowledged", node.member.sid));
                return;
            }
        }
    }

    fn summary(&self, stored: usize) -> anyhow::Result<Summary> {
        let mut refused = self.refused.clone();
        for row in self.cloud.counts()? {
            if row.key.place == fivefold_cloud::store::Place::Cloud {
                *refused.entry(row.key.code.as_str()).or_default() += row.count;
            }
        }
        Ok(Summary {
            sent: self.watch.sent.len(),
            acknowledged: self.watch.acknowledged.len(),
            stored,
            reboots: self.reboots,
            frames: self.on_air,
            forwarded: self.watch.forwarded,
            commands: self.watch.commands(),
            batches: Batches::default(),
            refused,
            lasted: self.now,
            digest: self.digest,
            seals_watched: crate::watch::seals_are_watched(),
        })
    }

    fn broken(&self, what: String) -> Broken {
        Broken {
            seed: self.plan.seed,
            what,
            at: self.now,
            story: self.story.iter().cloned().collect(),
            plan: self.plan.clone(),
        }
    }

    /// What happened last.
    pub fn story(&self) -> impl Iterator<Item = &String> {
        self.story.iter()
    }

    /// How often a code was counted at nodes, gateways and the cloud.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn count(&self, code: &str) -> anyhow::Result<u64> {
        Ok(self.summary(0)?.refused.get(code).copied().unwrap_or(0))
    }

    fn at(&mut self, at: u64, event: Event) {
        self.agenda.plan(at, event);
    }

    fn after(&mut self, ms: u64, event: Event) {
        self.at(self.now + ms, event);
    }

    /// Once in `mean` milliseconds on average; never for 0.
    fn sometime(&mut self, mean: u64, event: Event) {
        if mean > 0 && self.storming {
            let ms = self.dice.between(1, 2 * mean);
            self.after(ms, event);
        }
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        let line = format!("{:>9.3} {}", self.now as f64 / 1000.0, line());
        for byte in line.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.story.len() >= LINES {
            self.story.pop_front();
        }
        self.story.push_back(line);
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn run_until(&mut self, end: u64) -> anyhow::Result<()> {
        while self.watch.failure.is_none() {
            let next = self.agenda.next_at();
            let wakes = self.nodes.iter().filter_map(NodeStation::wake);
            let wakes = wakes.chain(self.gateways.iter().filter_map(GatewayStation::wake));
            let insider = self.insider.as_ref().and_then(Insider::wake);
            let Some(at) = wakes.chain(insider).chain(next).min() else { break };
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            if next.is_some_and(|n| n <= self.now) {
                if let Some((_, event)) = self.agenda.pop() {
                    self.happen(event)?;
                }
            } else {
                self.wake()?;
            }
        }
        if self.watch.failure.is_none() {
            self.now = self.now.max(end);
        }
        Ok(())
    }

    fn wake(&mut self) -> anyhow::Result<()> {
        let now = self.now;
        for n in 0..self.nodes.len() {
            let Some(node) = self.nodes.get_mut(n).filter(|x| x.wake().is_some_and(|at| at <= now)) else { continue };
            let said = node.timeout(now)?;
            node.rests_until = now + PATIENCE;
            node.idle = if said.is_empty() { node.idle + 1 } else { 0 };
            if node.idle > IDLE {
                self.watch.fail(format!("node {n} asks to be called again and again, and does nothing"));
            }
            self.node_said(n, said)?;
        }
        for g in 0..self.gateways.len() {
            let Some(gateway) = self.gateways.get_mut(g).filter(|x| x.wake().is_some_and(|at| at <= now)) else {
                continue;
            };
            let said = gateway.tell(now, |e| e.handle_timeout(family::wall(now)))?;
            gateway.rests_until = now + PATIENCE;
            gateway.idle = if said.is_empty() { gateway.idle + 1 } else { 0 };
            if gateway.idle > IDLE {
                self.watch.fail(format!("gateway {g} asks to be called again and again, and does nothing"));
            }
            self.gateway_said(g, said)?;
        }
        self.insider_speaks();
        Ok(())
    }
}

/// In memory where the machine has a place for that: nothing here must outlive the process, and syncing to a real disk
/// is what most of the time would go to.
pub(crate) fn folder() -> std::io::Result<tempfile::TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir()
        && let Ok(folder) = tempfile::Builder::new().prefix("fivefold-sim").tempdir_in(memory)
    {
        return Ok(folder);
    }
    tempfile::tempdir()
}

/// Who hears whom: along the ways that are planned, and some by chance.
fn reach(plan: &Plan, dice: &mut Dice) -> Vec<(Station, Station)> {
    let mut pairs = Vec::new();
    for (n, node) in plan.nodes.iter().enumerate().filter(|(_, node)| node.carrier == Carrier::Air) {
        for parent in &node.parents {
            match parent {
                Parent::Gateway => {
                    pairs.push((Station::Node(n), Station::Gateway(0)));
                    if plan.gateways > 1 && dice.permille(700) {
                        pairs.push((Station::Node(n), Station::Gateway(1)));
                    }
                }
                Parent::Node(up) => pairs.push((Station::Node(n), Station::Node(*up))),
            }
        }
        if n > 0 && dice.permille(200) {
            pairs.push((Station::Node(n), Station::Node(dice.place(n))));
        }
        if plan.breakage.insider > 0 && dice.permille(600) {
            pairs.push((Station::Insider, Station::Node(n)));
        }
    }
    if plan.breakage.insider > 0 {
        pairs.push((Station::Insider, Station::Gateway(0)));
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

impl Station {
    fn sid(self, nodes: usize) -> Sid {
        match self {
            Self::Gateway(place) => gateway_sid(place),
            Self::Insider => node_sid(nodes),
            Self::Node(place) => node_sid(place),
        }
    }
}
