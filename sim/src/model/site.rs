//! The models of renewal (docs/protocol.md 11) and of nonces (8.2, 9.2, K2): a device on IP, so that no frame counter of E1
//! puts its messages in order, its gateway, another one, and the cloud.
//!
//! What must hold after every move:
//!
//! 1. The cloud holds the keys that the device seals under, in use or waiting, on disk; and so does its gateway.
//! 2. No epoch is offered twice.
//! 3. No epoch has two contexts, and at most eight wait.
//! 4. No key seals twice under one nonce.
//! 5. No code is counted that means a stranger, a clone, or a number used twice.
//!
//! From each state, once nothing breaks any more: readings arrive; an order to renew is carried out; device and cloud
//! agree on the epoch, and the device knows it. After T_drain nothing is taken under an older key.

mod course;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use fivefold_core::id::{Did, Epoch};
use fivefold_core::profile::Profile;
use fivefold_core::suite::sha256;
use fivefold_device::renewal::Stage;

use super::cloud::{CloudPart, Common};
use super::device::{Device, Flash};
use super::explore::State;
use super::gateway::GatewayPart;
use super::{Flaw, History, Inside, Plan, seals};
use crate::dice::Dice;
use crate::family::{self, Member};
use crate::plan::{Carrier, NodePlan};

const HOUR: u64 = 3_600_000;
/// T_drain and an hour.
const DRAINED: u64 = 97 * HOUR;
/// What a world begins with, and how much may break.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Messages on their way in one direction; one more, and the oldest is lost.
    pub flying: usize,
    /// What breaks: power, processes, replies; messages that come twice.
    pub faults: u8,
    /// Readings that the application wants sent.
    pub readings: u8,
    /// Orders of the operator beside the first.
    pub orders: u8,
    /// Resets of the device to its state of before the renewal.
    pub resets: u8,
    /// Whether another gateway may become the primary one.
    pub succession: bool,
    /// Whether the operator has ordered the device to renew when it begins.
    pub ordered: bool,
}

impl Bounds {
    /// With no more going on than it takes to find a flaw.
    #[must_use]
    pub fn narrow(self, flaw: Flaw, faults: u8) -> Self {
        let (readings, succession) = (self.readings.min(1), flaw == Flaw::SuccessorAnswers);
        Self { flying: 2, faults, readings, orders: 0, succession, ..self }
    }
}

/// What may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// A message reaches the device; with `again`, a copy of it stays on its way.
    Down {
        /// Which.
        at: u8,
        /// Whether it will come once more.
        again: bool,
        /// What breaks.
        inside: Inside,
    },
    /// The cloud's process dies and starts again.
    KillCloud,
    /// The gateway's.
    KillGateway,
    /// The operator orders the device to renew.
    Order,
    /// The power goes and comes back.
    PowerCycle(Inside),
    /// The application wants a reading sent.
    Read(Inside),
    /// The device's flash is as it was before the renewal.
    Reset,
    /// Another gateway becomes the primary one; this one is gone.
    Succeed,
    /// Time passes until the device wants to be looked at.
    Tick(Inside),
    /// A message reaches the gateway.
    Up {
        /// Which.
        at: u8,
        /// Whether it will come once more.
        again: bool,
        /// What breaks.
        inside: Inside,
    },
}

#[derive(Clone)]
struct Letter {
    bytes: Vec<u8>,
    what: String,
}

/// The world.
pub struct Site {
    bounds: Bounds,
    flaw: Option<Flaw>,
    common: Arc<Common>,
    now: u64,
    did: Did,
    device: Device,
    gateway: GatewayPart,
    second: Option<GatewayPart>,
    cloud: CloudPart,
    up: VecDeque<Letter>,
    down: VecDeque<Letter>,
    faults: u8,
    readings: u8,
    orders: u8,
    resets: u8,
    /// What a reset brings back.
    early: Option<Flash>,
    /// message_1 by epoch.
    offered: HashMap<Epoch, History>,
    /// Contexts by epoch.
    agreed: HashMap<Epoch, i64>,
    delivered: usize,
    broken: Option<String>,
    fair: bool,
    /// Time passed since the last reading of a fair course.
    rested: bool,
    telling: bool,
    story: Vec<String>,
}

impl State for Site {
    type Plan = Plan<Bounds>;
    type Move = Move;

    fn start(plan: &Plan<Bounds>, telling: bool) -> anyhow::Result<Self> {
        seals::begin();
        let mut dice = Dice::of(3);
        let key = dice.bytes();
        let place = NodePlan { carrier: Carrier::Ip, ..NodePlan::new(Profile::ToBoth) };
        let member = Member::draw(&mut dice, 0, &place)?;
        let members = vec![member.clone()];
        let first = family::state(&members, &key, true)?;
        let mut site = Self {
            bounds: plan.bounds,
            flaw: plan.flaw,
            common: plan.common.clone(),
            now: 1_000,
            did: member.did(),
            device: Device::new(member, key, CloudPart::credential()?, plan.flaw),
            gateway: GatewayPart::new(0, key, plan.flaw),
            second: plan.bounds.succession.then(|| GatewayPart::new(1, key, plan.flaw)),
            cloud: CloudPart::new(members, plan.common.clone(), plan.flaw),
            up: VecDeque::new(),
            down: VecDeque::new(),
            faults: 0,
            readings: 0,
            orders: 0,
            resets: 0,
            early: None,
            offered: HashMap::new(),
            agreed: HashMap::new(),
            delivered: 0,
            broken: None,
            fair: false,
            rested: true,
            telling,
            story: Vec::new(),
        };
        site.cloud.start(site.now)?;
        site.gateway.start(site.now)?;
        site.gateway.state(site.now, &first)?;
        site.power(None)?;
        site.until(|s| s.is_settled())?;
        if plan.bounds.ordered {
            site.now += 1_000;
            site.early = Some(site.device.flash().clone());
            site.cloud.order(site.now, site.did)?;
            site.read(None)?;
            site.until(|s| s.device.stage() != Stage::Idle)?;
        }
        site.delivered = 0;
        anyhow::ensure!(seals::are_watched(), "nobody watches seals: give seals::sealed to set_seal_witness first");
        Ok(site)
    }

    fn moves(&self) -> Vec<Move> {
        let none = Inside::Nothing;
        let mut moves = Vec::new();
        for (at, _) in (0..).zip(&self.up) {
            moves.push(Move::Up { at, again: false, inside: none });
        }
        for (at, _) in (0..).zip(&self.down) {
            moves.push(Move::Down { at, again: false, inside: none });
        }
        moves.push(Move::Tick(none));
        if self.readings < self.bounds.readings {
            moves.push(Move::Read(none));
        }
        if self.orders < self.bounds.orders {
            moves.push(Move::Order);
        }
        if self.resets < self.bounds.resets {
            moves.push(Move::Reset);
        }
        if self.second.is_some() {
            moves.push(Move::Succeed);
        }
        if self.faults < self.bounds.faults {
            moves.extend([Move::PowerCycle(none), Move::KillGateway, Move::KillCloud]);
            for (at, _) in (0..).zip(&self.up) {
                moves.push(Move::Up { at, again: true, inside: none });
            }
            for (at, _) in (0..).zip(&self.down) {
                moves.push(Move::Down { at, again: true, inside: none });
            }
        }
        moves
    }

    fn step(&mut self, to: Move) -> anyhow::Result<()> {
        (self.device.steps, self.gateway.steps, self.cloud.steps) = (0, 0, 0);
        if to != Move::KillCloud {
            self.cloud.catch_up();
        }
        match to {
            Move::Up { at, again, inside } => {
                let Some(letter) = take(&mut self.up, at, again) else { return Ok(()) };
                self.faults += u8::from(again) + u8::from(inside != Inside::Nothing);
                let twice = if again { ", and will come once more" } else { "" };
                self.tell(|| format!("{} reaches the gateway{twice}{inside}", letter.what));
                self.at_gateway(&letter, inside)?;
            }
            Move::Down { at, again, inside } => {
                let Some(letter) = take(&mut self.down, at, again) else { return Ok(()) };
                self.faults += u8::from(again) + u8::from(inside != Inside::Nothing);
                let twice = if again { ", and will come once more" } else { "" };
                self.tell(|| format!("{} reaches the device{twice}{inside}", letter.what));
                let said = self.device.datagram(self.now, &letter.bytes, fuse(inside))?;
                self.after_device(said)?;
            }
            Move::Tick(inside) => {
                self.faults += u8::from(inside != Inside::Nothing);
                self.tick(fuse(inside), &inside)?;
            }
            Move::Read(inside) => {
                self.faults += u8::from(inside != Inside::Nothing);
                self.readings += 1;
                self.tell(|| format!("the application has a reading{inside}"));
                self.read(fuse(inside))?;
            }
            Move::Order => {
                self.orders += 1;
                self.tell(|| "the operator orders the device to renew".into());
                self.cloud.order(self.now, self.did)?;
            }
            Move::PowerCycle(inside) => {
                self.faults += 1 + u8::from(inside != Inside::Nothing);
                self.tell(|| format!("the power of the device goes, and comes back{inside}"));
                self.device.cut();
                self.power(fuse(inside))?;
            }
            Move::KillGateway => {
                self.faults += 1;
                self.tell(|| "the gateway dies and starts again".into());
                self.gateway.kill();
            }
            Move::KillCloud => {
                self.faults += 1;
                self.tell(|| "the cloud dies and starts again".into());
                self.cloud.kill();
            }
            Move::Reset => {
                self.resets += 1;
                self.tell(|| "the device is reset to what it was before the renewal".into());
                if let Some(early) = self.early.clone() {
                    self.device.cut();
                    *self.device.flash() = early;
                    self.power(None)?;
                }
            }
            Move::Succeed => self.succeed()?,
        }
        self.revive()?;
        self.look();
        Ok(())
    }

    fn inside(&self, last: Move) -> Vec<Move> {
        if self.faults >= self.bounds.faults {
            return Vec::new();
        }
        let device = || (1..self.device.steps).map(Inside::Device);
        match last {
            Move::Up { at, again: false, .. } => {
                let gateway = (1..self.gateway.steps).map(Inside::Gateway);
                let cloud = (1..=self.cloud.steps).map(Inside::Cloud);
                let reply = (self.cloud.steps > 0 || self.gateway.steps > 0).then_some(Inside::Reply);
                gateway.chain(cloud).chain(reply).map(|inside| Move::Up { at, again: false, inside }).collect()
            }
            Move::Down { at, again: false, .. } => {
                device().map(|inside| Move::Down { at, again: false, inside }).collect()
            }
            Move::Tick(_) => device().map(Move::Tick).collect(),
            Move::Read(_) => device().map(Move::Read).collect(),
            Move::PowerCycle(_) => device().map(Move::PowerCycle).collect(),
            _ => Vec::new(),
        }
    }

    fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    fn fingerprint(&self) -> u128 {
        let mut all = History::of(&[&self.now.to_be_bytes()]);
        let parts = [self.device.history, self.gateway.history, self.cloud.history];
        let second = self.second.as_ref().map_or_else(History::default, |g| g.history);
        parts.iter().chain([&second]).for_each(|h| all.add(&[&h.short().to_be_bytes()]));
        let letters = |of: &VecDeque<Letter>| {
            // In any order: each may come next.
            let mut hashes: Vec<_> = of.iter().map(|l| sha256(&[&l.bytes])).collect();
            hashes.sort_unstable();
            hashes.concat()
        };
        all.add(&[&letters(&self.up), &letters(&self.down)]);
        all.add(&[&[self.faults, self.readings, self.orders, self.resets]]);
        all.short()
    }

    fn fair(&mut self) -> anyhow::Result<()> {
        self.tell(|| "from here on nothing breaks any more; what was on its way is late".into());
        self.fair = true;
        let late: Vec<_> = self.up.drain(..).collect();
        self.down.clear();
        self.delivered = 0;
        self.until(Self::is_done)?;
        if self.broken.is_some() || self.bounds.resets > 0 {
            return Ok(());
        }
        self.now += DRAINED;
        self.tell(|| "T_drain passes".into());
        let Some(epoch) = self.device.epoch() else { return Ok(()) };
        let before = self.cloud.ledger.rows().taken_below(self.did, epoch);
        for letter in late {
            self.tell(|| format!("{} reaches the gateway, late", letter.what));
            self.at_gateway(&letter, Inside::Nothing)?;
            self.down.clear();
        }
        if self.cloud.ledger.rows().taken_below(self.did, epoch) > before {
            self.fail("a message under an old key was taken after its time");
        }
        Ok(())
    }

    fn story(&self) -> &[String] {
        &self.story
    }
}

fn take(from: &mut VecDeque<Letter>, at: u8, again: bool) -> Option<Letter> {
    if again { from.get(usize::from(at)).cloned() } else { from.remove(at.into()) }
}

const fn fuse(inside: Inside) -> Option<u8> {
    if let Inside::Device(after) = inside { Some(after) } else { None }
}
