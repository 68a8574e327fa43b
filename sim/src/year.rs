//! A year of renewals: a thousand devices in five networks, with their real engines, real gateways and the real cloud over
//! real stores, under loss, repeats, reordering, reboots, clocks that jump, processes that die between any two durable
//! writes, gateways that were taken over, and network keys that are rotated meanwhile. [`accounts`] says what must hold.
//!
//! Elliptic curves are real ones: all sides use those of aws-lc-rs, devices too, to save time. The devices' own, of p256,
//! agree with them on every vector (`core/tests/curve_vectors.rs`, `keep/tests/curve_vectors.rs`).

pub mod accounts;
mod act;
mod channel;
mod office;
mod operator;
mod people;
pub mod plan;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use fivefold_core::error::Code;
use fivefold_core::id::{Net, Sid};
use fivefold_core::proof::receipt::GatewayBoot;

use crate::agenda::Agenda;
use crate::cloud::Stage;
use crate::dice::Dice;
use crate::gateway::GatewayStation;
use crate::hostile::Hoard;
use crate::node::NodeStation;
use crate::watch::{Watch, seals_are_watched};
use crate::world::folder;
use accounts::{Accounts, Fate, Outcome};
use channel::Meddler;
use office::{Office, Run};
use people::{People, Place, Resident};
use plan::{DAY, Flaw, YearPlan};

/// Milliseconds after which a station is looked at again that says it is late.
const PATIENCE: u64 = 20;
/// A gateway's sign of life has time: it goes out with the next thing that happens there, or after so long.
const DOZE: u64 = 2 * 3_600_000;
/// What a gateway waits for otherwise comes sooner.
const SOON: u64 = 30_000;
/// Lines of the story that are kept.
const LINES: usize = 60;
/// After the trouble, what is under way comes to its end in so many days: more than T_drain and the longest pause.
const CALM: u64 = 8;
/// Codes that say that somebody who holds keys of ours does harm, that keys are used twice, or that a device was reset.
const ALARMS: [&str; 8] = ["E2-06", "E2-08", "E3-06", "E3-08", "E4-02", "E4-03", "E5-06", "EV-01"];

/// Who can hear and send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Who {
    Gateway(usize),
    Node(usize),
}

#[derive(Debug)]
enum Event {
    /// What a gateway asked of the cloud is answered, or not.
    Answered(usize, u32, u64, Option<Vec<u8>>),
    Ask(Box<Asked>),
    Boot(usize),
    Broken(usize, u32),
    CloudLeaves,
    CloudReturns,
    Cut(usize),
    Down(usize, Vec<u8>),
    /// From whom, to whom.
    Frame(Who, Who, Vec<u8>),
    Hour,
    Jump,
    KillCloud,
    KillGateway(usize),
    Post(usize, u32),
    Push(usize),
    Read(usize),
    Reply(usize, u32, GatewayBoot, Vec<u8>),
    Rotate(usize, u64),
    StartCloud,
    StartGateway(usize),
    Step(Box<Batch>),
    Up(usize, Vec<u8>),
    Wake(Who),
}

/// A batch on its way through the cloud.
#[derive(Debug)]
struct Batch {
    gateway: usize,
    gateway_run: u32,
    cloud_run: u32,
    boot: GatewayBoot,
    /// What a gateway that lies about its batch deletes, whatever the cloud says.
    upto: Option<u64>,
    reply_is_lost: bool,
    stage: Stage,
}

/// A message of EDHOC on its way through the cloud.
#[derive(Debug)]
struct Asked {
    gateway: usize,
    gateway_run: u32,
    cloud_run: u32,
    ticket: u64,
    body: Vec<u8>,
    reply_is_lost: bool,
    run: Run,
}

/// What a year came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// What became of readings.
    pub readings: Outcome,
    /// Readings that devices did not take: no room, or no keys yet.
    pub not_taken: u64,
    /// Runs that devices began, by why.
    pub started: BTreeMap<String, u64>,
    /// Runs that ended in new contexts.
    pub finished: u64,
    /// Runs that failed, by why.
    pub failed: BTreeMap<String, u64>,
    /// Virtual milliseconds from the first run of a renewal to its new contexts: all together, and the longest.
    pub took: (u64, u64),
    /// Devices with a run under way at a time, at most.
    pub most_under_way: u64,
    /// Messages of EDHOC that waited at one gateway at a time, at most.
    pub most_asked: u64,
    /// Envelopes that one gateway handed on at a time, at most.
    pub most_posted: u64,
    /// Pending contexts of one device, at most.
    pub most_pending: u64,
    /// Longest time without an acknowledgement of a device that has power.
    pub longest_silence: u64,
    /// What broke, by name.
    pub broke: BTreeMap<&'static str, u64>,
    /// Rotations of network keys that were done, and devices that were revoked.
    pub rotations: (u64, u64),
    /// Frames and datagrams of stolen nodes that E1 refused after they were shut out.
    pub shut_out: u64,
    /// Frames on the air, and those that were lost.
    pub frames: (u64, u64),
    /// What was refused at nodes, gateways and the cloud, by code.
    pub refused: BTreeMap<&'static str, u64>,
    /// What hostile gateways did to messages of EDHOC and envelopes.
    pub deeds: u64,
    /// Virtual milliseconds.
    pub lasted: u64,
    /// Whether nonces were watched.
    pub seals_watched: bool,
    /// Digest of everything that happened, in order.
    pub digest: u64,
}

/// A year that broke a promise.
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
}

/// What is known of a device beside its station.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Its first run since its last new contexts.
    wanted_at: Option<u64>,
    under_way: bool,
    /// When it was acknowledged something last, or got power.
    heard_at: u64,
    /// It is switched off until this moment at the latest.
    asleep: Option<u64>,
    revoked: bool,
    /// Since when E1 alone must refuse it.
    shut_out: Option<u64>,
    last: Option<fivefold_device::Number>,
    serial: u32,
}

/// The year.
pub struct Year {
    plan: YearPlan,
    now: u64,
    accounts: Accounts,
    /// Sees every nonce, where it is told of them.
    watch: Watch,
    summary: Summary,
    nodes: Vec<NodeStation<Resident>>,
    known: Vec<Known>,
    gateways: Vec<GatewayStation>,
    places: Vec<Place>,
    /// Place of each gateway's network.
    network_of: Vec<usize>,
    sids: HashMap<(usize, Sid), Who>,
    nets: HashMap<Net, usize>,
    /// Index of the key that each network's last rotation ended with.
    rotated: Vec<Option<u8>>,
    office: Office,
    meddlers: Vec<Meddler>,
    hoards: Vec<Hoard>,
    /// When each station is looked at next.
    wakes: HashMap<Who, u64>,
    /// Messages of EDHOC that each gateway has sent up, and has no answer to.
    asked: Vec<u64>,
    /// Whether each gateway will be pushed its state soon.
    push_planned: Vec<bool>,
    dice: Dice,
    agenda: Agenda<Event>,
    storming: bool,
    away: bool,
    under_way: u64,
    story: VecDeque<String>,
    _folder: tempfile::TempDir,
}

impl std::fmt::Debug for Year {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Year").field("plan", &self.plan).field("now", &self.now).finish_non_exhaustive()
    }
}

/// Runs a year to its end; `progress` is told after each day.
///
/// # Errors
/// When this machine cannot run it. A broken promise is a value.
pub fn run(plan: &YearPlan, mut progress: impl FnMut(u64, &Summary)) -> anyhow::Result<Result<Summary, Box<Broken>>> {
    let mut year = Year::new(plan.clone())?;
    for day in 1..=plan.days {
        year.run_until(day * DAY)?;
        year.look_at_seals();
        progress(day, &year.summary);
        if year.accounts.failure.is_some() {
            break;
        }
    }
    year.heal()?;
    for day in 1..=CALM {
        year.run_until((plan.days + day) * DAY)?;
        year.look_at_seals();
    }
    year.finish()
}

impl Year {
    fn new(plan: YearPlan) -> anyhow::Result<Self> {
        let folder = folder()?;
        let mut dice = Dice::of(plan.seed ^ 0x0079_6561_7200);
        let people = People::enrol(folder.path(), &plan, &mut dice)?;
        let office = Office::new(folder.path(), people.registry, people.vault, plan.flaw);
        let mut sids = HashMap::new();
        let mut gateways = people.gateways;
        let mut network_of = vec![0; gateways.len()];
        for (at, place) in people.places.iter().enumerate() {
            for &g in &place.gateways {
                if let (Some(of), Some(gateway)) = (network_of.get_mut(g), gateways.get_mut(g)) {
                    *of = at;
                    gateway.is_hostile = place.hostile;
                    sids.insert((at, gateway.site.sid), Who::Gateway(g));
                }
            }
        }
        let mut nodes = Vec::new();
        for (n, (resident, key)) in people.residents.into_iter().enumerate() {
            sids.insert((resident.network, resident.device.sid), Who::Node(n));
            nodes.push(NodeStation::new(resident, key)?);
        }
        let mut year = Self {
            now: 0,
            accounts: Accounts::default(),
            watch: Watch::begin(HashSet::new()),
            summary: Summary { digest: 0xcbf2_9ce4_8422_2325, ..Summary::default() },
            known: vec![Known::default(); nodes.len()],
            nets: people.places.iter().enumerate().map(|(at, place)| (place.net, at)).collect(),
            meddlers: gateways.iter().map(|_| Meddler::default()).collect(),
            hoards: gateways.iter().map(|_| Hoard::default()).collect(),
            asked: vec![0; gateways.len()],
            push_planned: vec![false; gateways.len()],
            rotated: vec![None; people.places.len()],
            places: people.places,
            gateways,
            nodes,
            network_of,
            sids,
            office,
            wakes: HashMap::new(),
            dice,
            agenda: Agenda::new(),
            storming: true,
            away: false,
            under_way: 0,
            story: VecDeque::new(),
            _folder: folder,
            plan,
        };
        year.begin()?;
        Ok(year)
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        self.office.start(self.now)?;
        for g in 0..self.gateways.len() {
            self.at(0, Event::StartGateway(g));
        }
        let trouble = self.plan.trouble;
        for n in 0..self.nodes.len() {
            // They are installed one after the other, in three days.
            let boot = self.dice.below(3 * DAY);
            self.at(boot, Event::Boot(n));
            let first = boot + self.dice.below(self.plan.every);
            self.at(first, Event::Read(n));
            self.sometime(trouble.node, Event::Cut(n));
        }
        for g in 0..self.gateways.len() {
            self.sometime(trouble.gateway, Event::KillGateway(g));
        }
        self.sometime(trouble.cloud, Event::KillCloud);
        self.sometime(trouble.away, Event::CloudLeaves);
        self.sometime(trouble.clock, Event::Jump);
        self.at(3_600_000, Event::Hour);
        for place in 0..self.places.len() {
            let first = self.dice.between(12, 20) * DAY;
            // A theft that nobody minds is to be found soon.
            let round = u64::from(self.plan.flaw == Some(Flaw::ForgottenThief));
            self.at(first, Event::Rotate(place, round));
        }
        Ok(())
    }

    /// From now on nothing breaks any more and everybody is honest.
    fn heal(&mut self) -> anyhow::Result<()> {
        self.tell(|| "the world heals".into());
        (self.storming, self.away) = (false, false);
        self.office.ahead = 0;
        self.office.fuse = None;
        for node in &mut self.nodes {
            node.spare();
        }
        for gateway in &mut self.gateways {
            gateway.spare();
            (gateway.ahead, gateway.is_hostile) = (0, false);
        }
        for n in 0..self.nodes.len() {
            if self.known.get(n).is_some_and(|k| k.asleep.is_some_and(|until| until < u64::MAX)) {
                self.wake_up(n)?;
            }
        }
        Ok(())
    }

    /// No key sealed two messages under one nonce.
    fn look_at_seals(&mut self) {
        self.watch.look_at_seals();
        if let Some(what) = self.watch.failure.take() {
            self.accounts.fail(what.replacen("2:", "4:", 1));
        }
    }

    fn finish(mut self) -> anyhow::Result<Result<Summary, Box<Broken>>> {
        if self.accounts.failure.is_none() {
            self.close()?;
        }
        let counts = if self.office.is_on() { self.office.counts()? } else { Vec::new() };
        for row in counts.iter().filter(|row| row.key.place == fivefold_cloud::store::Place::Cloud) {
            *self.summary.refused.entry(row.key.code.as_str()).or_default() += row.count;
            let honest = row.key.net.and_then(|net| self.nets.get(&net)).is_none_or(|&place| self.is_honest(place));
            if honest {
                self.alarmed(row.key.code, "the cloud");
            }
        }
        self.summary.lasted = self.now;
        self.summary.seals_watched = seals_are_watched();
        self.summary.most_pending = self.office.most_pending as u64;
        self.summary.deeds = self.meddlers.iter().map(|m| m.deeds).sum::<u64>()
            + self
                .hoards
                .iter()
                .map(|h| h.deeds.dropped + h.deeds.withheld + h.deeds.replayed + h.deeds.altered + h.deeds.spliced)
                .sum::<u64>();
        Ok(match self.accounts.failure.take() {
            None => Ok(self.summary),
            Some(what) => {
                let story = self.story.into_iter().collect();
                Err(Box::new(Broken { seed: self.plan.seed, what, at: self.now, story }))
            }
        })
    }

    /// Looks at everybody, and at everything that is stored.
    fn close(&mut self) -> anyhow::Result<()> {
        for n in 0..self.nodes.len() {
            let (Some(node), Some(known)) = (self.nodes.get(n), self.known.get(n)) else { continue };
            if known.revoked {
                continue;
            }
            let resident = &node.member;
            let Some(place) = self.places.get(resident.network) else { continue };
            let epoch = node.engine().map(fivefold_device::Node::epoch);
            let active = self.office.active(place.net, resident.device.sid);
            let delivered = known.last.and_then(|last| self.accounts.fate(n, last)) == Some(Fate::Delivered);
            if epoch.is_none() || epoch != active || !delivered {
                let keys = node.engine().and_then(|e| e.mesh()).map(|m| m.link().keys().sending());
                let what = format!(
                    "1: device {n} of network {} has epoch {epoch:?}, and the cloud uses {active:?}; its last reading \
                     {:?} was delivered: {delivered}; it sends under network key {keys:?}",
                    resident.network, known.last
                );
                self.accounts.fail(what);
            }
        }
        let ledger = self.office.ledger()?;
        let (nets, sids, nodes, places) = (&self.nets, &self.sids, &self.nodes, &self.places);
        let place = |row: &fivefold_cloud::store::ReadingRow| match sids.get(&(*nets.get(&row.net)?, row.sid))? {
            Who::Node(n) => Some(*n),
            Who::Gateway(_) => None,
        };
        let known = &self.known;
        let is_honest = |n: usize| {
            let honest = nodes.get(n).and_then(|node| places.get(node.member.network)).is_some_and(|p| !p.hostile);
            // Of a stolen one everything is refused from one moment on.
            honest && known.get(n).is_some_and(|k| !k.revoked)
        };
        self.summary.readings = self.accounts.close(&ledger, place, is_honest, act::reading);
        Ok(())
    }

    fn is_honest(&self, place: usize) -> bool {
        self.places.get(place).is_some_and(|p| !p.hostile)
    }

    fn alarmed(&mut self, code: Code, by: &str) {
        if ALARMS.contains(&code.as_str()) {
            self.accounts.fail(format!("6: everybody was honest, and {} was counted by {by}", code.as_str()));
        }
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

    fn broke(&mut self, what: &'static str) {
        *self.summary.broke.entry(what).or_default() += 1;
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        let line = format!("{:>14.3} {}", self.now as f64 / 1000.0, line());
        for byte in line.bytes() {
            self.summary.digest = (self.summary.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.story.len() >= LINES {
            self.story.pop_front();
        }
        self.story.push_back(line);
    }

    /// Tells of the device that is followed.
    fn follow(&self, n: usize, line: impl FnOnce() -> String) {
        if self.plan.follow == Some(n) {
            eprintln!("{:>14.3} {}", self.now as f64 / 1000.0, line());
        }
    }

    fn run_until(&mut self, end: u64) -> anyhow::Result<()> {
        while self.accounts.failure.is_none() {
            if self.agenda.next_at().is_none_or(|at| at > end) {
                break;
            }
            let Some((at, event)) = self.agenda.pop() else { break };
            self.now = self.now.max(at);
            self.happen(event)?;
        }
        if self.accounts.failure.is_none() {
            self.now = self.now.max(end);
        }
        Ok(())
    }

    /// Plans when a station is looked at next, after something happened there.
    fn plan_wake(&mut self, who: Who) {
        let wanted = match who {
            Who::Node(n) => self.nodes.get(n).and_then(NodeStation::wake),
            Who::Gateway(g) => self
                .gateways
                .get(g)
                .and_then(GatewayStation::wake)
                .map(|at| if at > self.now + SOON { self.now + DOZE } else { at }),
        };
        let Some(at) = wanted.map(|at| at.max(self.now + PATIENCE)) else { return };
        let planned = self.wakes.get(&who).copied().unwrap_or(u64::MAX);
        if at < planned {
            self.wakes.insert(who, at);
            self.at(at, Event::Wake(who));
        }
    }

    fn wake(&mut self, who: Who) -> anyhow::Result<()> {
        let now = self.now;
        if self.wakes.get(&who).is_none_or(|at| *at > now) {
            return Ok(());
        }
        self.wakes.remove(&who);
        match who {
            Who::Node(n) => {
                if let Some(node) = self.nodes.get_mut(n).filter(|x| x.wake().is_some_and(|at| at <= now)) {
                    let said = node.timeout(now)?;
                    self.node_said(n, said)?;
                }
            }
            Who::Gateway(g) => {
                if let Some(gateway) = self.gateways.get_mut(g).filter(|x| x.is_on()) {
                    let at = gateway.clock(now);
                    let said = gateway.tell(now, |engine| engine.handle_timeout(at))?;
                    self.gateway_said(g, said, None)?;
                }
            }
        }
        self.plan_wake(who);
        Ok(())
    }
}
