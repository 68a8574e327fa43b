//! What happens, and what stations say.

use fivefold_core::id::Sid;
use fivefold_core::profile::Profile;
use fivefold_core::wire::ieee802154::{FCS, Frame};
use fivefold_device::{Event as Told, SendRefused};

use super::accounts::Fate;
use super::plan::{DAY, Flaw};
use super::{CALM, Event, Who, Year};
use crate::family::{address, place_of};
use crate::node::Fuse;
use crate::{gateway, node};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// A clock jumps so far at most, and is never further from the truth than three times that.
const JUMP: u64 = 2 * HOUR;

/// A template's values: which reading it is, and of whom. CBOR wants the shortest head: it is always the same here.
pub(super) fn reading(n: usize, serial: u32) -> Vec<u8> {
    let [a, b, c, d] = (0x0100_0000 + serial).to_be_bytes();
    let [e, f] = (0x1000 + n as u16).to_be_bytes();
    vec![0x83, 0x01, 0x1A, a, b, c, d, 0x19, e, f]
}

impl Year {
    pub(super) fn happen(&mut self, event: Event) -> anyhow::Result<()> {
        let now = self.now;
        let trouble = self.plan.trouble;
        match event {
            Event::Boot(n) => self.boot(n)?,
            Event::Cut(n) => {
                self.sometime(trouble.node, Event::Cut(n));
                if self.storming {
                    let torn = self.dice.place(fivefold_device::storage::RECORD + 1);
                    let fuse = Fuse { outputs: self.dice.below(12), torn };
                    if let Some(node) = self.nodes.get_mut(n).filter(|node| node.is_on()) {
                        node.arm(fuse);
                    }
                }
            }
            Event::Read(n) => {
                let every = self.plan.every;
                let pause = self.dice.between(every / 2, every + every / 2);
                // The last ones have time to arrive.
                if now + pause < (self.plan.days + CALM - 3) * DAY {
                    self.after(pause, Event::Read(n));
                }
                self.read(n)?;
            }
            Event::Frame(from, to, frame) => self.hear(from, to, &frame)?,
            Event::Up(n, datagram) => {
                let Some(&g) = self.place_of_node(n).and_then(|p| p.gateways.first()) else { return Ok(()) };
                if let Some(gateway) = self.gateways.get_mut(g).filter(|g| g.is_on()) {
                    let at = gateway.clock(now);
                    let said = gateway.tell(now, |engine| engine.handle_coap(at, address(n), &datagram))?;
                    self.gateway_said(g, said, Some(n))?;
                    self.plan_wake(Who::Gateway(g));
                }
            }
            Event::Down(n, datagram) => {
                if let Some(node) = self.nodes.get_mut(n) {
                    let said = node.datagram(now, &datagram)?;
                    self.node_said(n, said)?;
                    self.plan_wake(Who::Node(n));
                }
            }
            Event::Wake(who) => self.wake(who)?,
            Event::StartGateway(g) => {
                if let Some(gateway) = self.gateways.get_mut(g).filter(|g| !g.is_on()) {
                    let said = gateway.start(now, &mut self.dice)?;
                    let run = gateway.run;
                    self.tell(|| format!("gateway {g} starts"));
                    if let Some(asked) = self.asked.get_mut(g) {
                        *asked = 0;
                    }
                    self.gateway_said(g, said, None)?;
                    self.plan_wake(Who::Gateway(g));
                    self.plan_push(g);
                    // What was there before goes up.
                    self.after(100, Event::Post(g, run));
                }
            }
            Event::KillGateway(g) => {
                self.sometime(trouble.gateway, Event::KillGateway(g));
                if self.storming {
                    let fuse = gateway::Fuse { outputs: self.dice.below(30), alone: self.dice.permille(500) };
                    if let Some(gateway) = self.gateways.get_mut(g).filter(|g| g.is_on()) {
                        gateway.arm(fuse);
                    }
                }
            }
            Event::KillCloud => {
                self.sometime(trouble.cloud, Event::KillCloud);
                if self.storming && self.office.is_on() {
                    self.office.fuse = Some(self.dice.below(12));
                }
            }
            Event::StartCloud => {
                if !self.office.is_on() {
                    self.office.start(now)?;
                    self.tell(|| "the cloud starts".into());
                    for g in 0..self.gateways.len() {
                        self.plan_push(g);
                    }
                }
            }
            Event::CloudLeaves => {
                if self.storming {
                    self.away = true;
                    self.broke("cloud out of reach");
                    let longest = if self.dice.permille(50) { 60 * HOUR } else { 2 * HOUR };
                    let ms = self.dice.between(10 * MINUTE, longest);
                    self.tell(|| format!("the cloud is away for {} min", ms / MINUTE));
                    self.after(ms, Event::CloudReturns);
                }
            }
            Event::CloudReturns => {
                self.away = false;
                self.sometime(trouble.away, Event::CloudLeaves);
            }
            Event::Jump => {
                self.sometime(trouble.clock, Event::Jump);
                if self.storming {
                    self.jump();
                }
            }
            Event::Hour => self.hour()?,
            Event::Rotate(place, round) => self.rotate(place, round)?,
            Event::Answered(..)
            | Event::Ask(_)
            | Event::Broken(..)
            | Event::Post(..)
            | Event::Push(_)
            | Event::Reply(..)
            | Event::Step(_) => self.exchange(event)?,
        }
        Ok(())
    }

    fn boot(&mut self, n: usize) -> anyhow::Result<()> {
        let now = self.now;
        let asleep = self.known.get(n).is_some_and(|k| k.asleep.is_some());
        let Some(node) = self.nodes.get_mut(n).filter(|node| !node.is_on() && !asleep) else { return Ok(()) };
        if node.boots > 0 {
            *self.summary.broke.entry("power of a node").or_default() += 1;
        }
        if node.boots == 2 && self.plan.flaw == Some(Flaw::LyingFlash) {
            node.break_flash();
        }
        if let Err(refused) = node.boot(now, &mut self.dice) {
            self.accounts.fail(format!("1: {refused}"));
            return Ok(());
        }
        if let Some(known) = self.known.get_mut(n) {
            known.heard_at = now;
        }
        let said = node.run(now)?;
        self.node_said(n, said)?;
        self.plan_wake(Who::Node(n));
        Ok(())
    }

    /// A node that was switched off is switched on again.
    pub(super) fn wake_up(&mut self, n: usize) -> anyhow::Result<()> {
        if let Some(known) = self.known.get_mut(n) {
            known.asleep = None;
        }
        self.tell(|| format!("node {n} wakes up"));
        self.boot(n)
    }

    /// Somebody's clock jumps.
    fn jump(&mut self) {
        let far = self.dice.between(1, JUMP);
        let mut step = i64::try_from(far).unwrap_or(0);
        if self.dice.permille(500) {
            step = -step;
        }
        let set = self.dice.permille(300);
        let limit = 3 * JUMP as i64;
        let jumped = |ahead: i64| if set { 0 } else { (ahead + step).clamp(-limit, limit) };
        match self.dice.below(10) {
            0 => {
                self.office.ahead = jumped(self.office.ahead);
                self.broke("clock of the cloud");
            }
            1 | 2 => {
                let g = self.dice.place(self.gateways.len());
                if let Some(gateway) = self.gateways.get_mut(g) {
                    gateway.ahead = jumped(gateway.ahead);
                }
                self.broke("clock of a gateway");
                self.plan_wake(Who::Gateway(g));
            }
            _ => {
                // Time without a clock only goes on.
                let n = self.dice.place(self.nodes.len());
                if let Some(node) = self.nodes.get_mut(n) {
                    node.jump(far);
                }
                self.broke("clock of a node");
                self.plan_wake(Who::Node(n));
            }
        }
    }

    /// A node is given a reading like no other.
    fn read(&mut self, n: usize) -> anyhow::Result<()> {
        let now = self.now;
        let (Some(node), Some(known)) = (self.nodes.get_mut(n), self.known.get_mut(n)) else { return Ok(()) };
        match node.send(now, &reading(n, known.serial)) {
            Some(Ok(number)) => {
                self.accounts.took(n, number, known.serial);
                known.serial += 1;
                known.last = Some(number);
            }
            Some(Err(
                SendRefused::Full | SendRefused::NotAgreed | SendRefused::RenewalNeeded | SendRefused::Seal(_),
            )) => {
                self.summary.not_taken += 1;
            }
            None => {}
        }
        let said = node.run(now)?;
        self.node_said(n, said)?;
        self.plan_wake(Who::Node(n));
        Ok(())
    }

    pub(super) fn node_said(&mut self, n: usize, said: Vec<node::Said>) -> anyhow::Result<()> {
        for one in said {
            self.follow(n, || format!("node {n} says {one:02x?}"));
            match one {
                node::Said::Datagram(message) => self.weathered(|m| Event::Up(n, m), &message),
                node::Said::Dropped(rejected) => {
                    *self.summary.refused.entry(rejected.code.as_str()).or_default() += 1;
                }
                node::Said::Event(event) => self.node_told(n, event),
                node::Said::Executed(_) => {}
                node::Said::Frame(frame) => self.transmit(Who::Node(n), &frame),
                node::Said::WentDark => {
                    self.went_dark(n);
                    let dark = match self.dice.below(40) {
                        0 => self.dice.between(DAY, 5 * DAY),
                        1 | 2 => self.dice.between(HOUR, DAY),
                        _ => self.dice.between(100, 30_000),
                    };
                    self.after(dark, Event::Boot(n));
                }
            }
        }
        Ok(())
    }

    /// What a node held is gone with its power.
    pub(super) fn went_dark(&mut self, n: usize) {
        self.tell(|| format!("node {n} loses power"));
        self.run_ended(n);
        let Some(node) = self.nodes.get(n) else { return };
        for &number in &node.forgot {
            self.accounts.learned(n, number, Fate::PowerLost);
        }
    }

    fn run_ended(&mut self, n: usize) {
        if let Some(known) = self.known.get_mut(n)
            && std::mem::take(&mut known.under_way)
        {
            self.under_way -= 1;
        }
    }

    fn node_told(&mut self, n: usize, event: Told) {
        let now = self.now;
        let (Some(node), Some(known)) = (self.nodes.get(n), self.known.get_mut(n)) else { return };
        let device = &node.member.device;
        match event {
            Told::Delivered { number, .. } => {
                self.accounts.learned(n, number, Fate::Delivered);
                if !known.revoked {
                    self.summary.longest_silence = self.summary.longest_silence.max(now - known.heard_at);
                }
                known.heard_at = now;
            }
            Told::GivenUp(number) => {
                let is_old = node.engine().is_some_and(|e| number.epoch < e.epoch());
                let may_pass = device.policy.profile == Profile::ToGateway;
                if !is_old && !may_pass && !known.revoked {
                    self.accounts.fail(format!("3: device {n} gave up {number:?}, of its present epoch"));
                }
                self.accounts.learned(n, number, if is_old { Fate::EpochOver } else { Fate::WindowPassed });
            }
            Told::Refused { number, .. } => self.accounts.learned(n, number, Fate::Refused),
            Told::RenewalStarted { epoch, why } => {
                *self.summary.started.entry(format!("{why:?}")).or_default() += 1;
                known.wanted_at.get_or_insert(now);
                if !std::mem::replace(&mut known.under_way, true) {
                    self.under_way += 1;
                    self.summary.most_under_way = self.summary.most_under_way.max(self.under_way);
                }
                self.tell(|| format!("node {n} begins a run for epoch {}: {why:?}", epoch.0));
            }
            Told::RenewalAgreed(epoch) => {
                let since = known.wanted_at.take().unwrap_or(now);
                let took = now - since;
                let revoked = known.revoked;
                self.summary.finished += 1;
                self.summary.took = (self.summary.took.0 + took, self.summary.took.1.max(took));
                let named = (device.did, epoch);
                self.run_ended(n);
                self.tell(|| format!("node {n} uses epoch {}", epoch.0));
                if !self.office.kept.contains(&named) {
                    self.accounts
                        .fail(format!("1: device {n} uses epoch {}, which the cloud has not durable", epoch.0));
                }
                if revoked && !self.storming {
                    self.accounts.fail(format!("5: device {n} is revoked, and agreed on epoch {}", epoch.0));
                }
            }
            Told::RenewalFailed { failed, epoch, .. } => {
                *self.summary.failed.entry(format!("{failed:?}")).or_default() += 1;
                self.run_ended(n);
                self.tell(|| format!("the run of node {n} for epoch {} fails: {failed:?}", epoch.0));
            }
            _ => {}
        }
    }

    /// A node or a gateway hears a frame.
    fn hear(&mut self, from: Who, to: Who, frame: &[u8]) -> anyhow::Result<()> {
        let now = self.now;
        match to {
            Who::Node(n) => {
                self.follow(n, || format!("node {n} hears {from:?}"));
                if let Some(node) = self.nodes.get_mut(n) {
                    let said = node.frame(now, frame)?;
                    self.node_said(n, said)?;
                }
            }
            Who::Gateway(g) => {
                let sender = if let Who::Node(n) = from { Some(n) } else { None };
                if let Some(n) = sender {
                    self.follow(n, || format!("gateway {g} hears it"));
                }
                if let Some(gateway) = self.gateways.get_mut(g).filter(|g| g.is_on()) {
                    let said = gateway.frame(now, frame)?;
                    self.gateway_said(g, said, sender)?;
                }
            }
        }
        self.plan_wake(to);
        Ok(())
    }

    /// `from` is the node whose frame or datagram it was that made the gateway say so.
    pub(super) fn gateway_said(
        &mut self,
        g: usize,
        said: Vec<gateway::Said>,
        from: Option<usize>,
    ) -> anyhow::Result<()> {
        if let Some(n) = from.filter(|n| self.known.get(*n).is_some_and(|k| k.shut_out.is_some())) {
            let is_e1 = |one: &gateway::Said| match one {
                gateway::Said::Dropped(rejected, _) => rejected.code.as_str().starts_with("E1-"),
                gateway::Said::WentDark => true,
                _ => false,
            };
            if !said.iter().all(is_e1) {
                self.accounts.fail(format!("5: device {n} was shut out, and gateway {g} said {said:?}"));
            }
            self.summary.shut_out += 1;
        }
        if let Some(n) = from {
            self.follow(n, || format!("gateway {g} says of it {said:02x?}"));
        }
        let honest = self.network_of.get(g).is_some_and(|&place| self.is_honest(place));
        for one in said {
            match one {
                gateway::Said::Datagram(to, message) => {
                    if let Some(n) = place_of(to) {
                        self.weathered(|m| Event::Down(n, m), &message);
                    }
                }
                gateway::Said::Dropped(rejected, _) => {
                    *self.summary.refused.entry(rejected.code.as_str()).or_default() += 1;
                    if honest {
                        self.alarmed(rejected.code, "a gateway");
                    }
                }
                gateway::Said::Exchange(ticket, envelope) => self.ask(g, ticket, envelope),
                gateway::Said::Frame(frame) => self.transmit(Who::Gateway(g), &frame),
                gateway::Said::Stored => {
                    if let Some(gateway) = self.gateways.get_mut(g).filter(|g| !g.posting) {
                        gateway.posting = true;
                        let run = gateway.run;
                        let pause = self.dice.between(5, 1_500);
                        self.after(pause, Event::Post(g, run));
                    }
                }
                gateway::Said::WentDark => {
                    self.broke("process of a gateway");
                    self.tell(|| format!("gateway {g} dies"));
                    let dark = self.dice.between(100, 10 * MINUTE);
                    self.after(dark, Event::StartGateway(g));
                }
            }
        }
        Ok(())
    }

    /// A member of a network sends a frame, to whom it names or to all in reach.
    fn transmit(&mut self, from: Who, frame: &[u8]) {
        let Ok(view) = Frame::parse(frame.get(..frame.len().saturating_sub(FCS)).unwrap_or_default()) else { return };
        let place = match from {
            Who::Gateway(g) => self.network_of.get(g).copied(),
            Who::Node(n) => self.nodes.get(n).map(|node| node.member.network),
        };
        let Some(place) = place else { return };
        if let Who::Node(n) = from {
            let [_, a, b, c, d, index] = view.security;
            self.accounts.sent_frame(n, index, u32::from_le_bytes([a, b, c, d]));
        }
        let destination = view.destination;
        let reach: Vec<Who> = match destination {
            Sid::BROADCAST => self.in_reach(from, place),
            Sid::ANY_GATEWAY => {
                let mut reach = self.in_reach(from, place);
                reach.retain(|who| matches!(who, Who::Gateway(_)));
                reach
            }
            sid => self.sids.get(&(place, sid)).into_iter().copied().filter(|who| self.reaches(from, *who)).collect(),
        };
        for to in reach {
            self.weathered(|frame| Event::Frame(from, to, frame), frame);
        }
    }

    /// Nodes hear all gateways of their network, but for every third, which does not hear the second one; and nodes whose
    /// frames they pass on, or that pass on theirs.
    fn reaches(&self, a: Who, b: Who) -> bool {
        match (a, b) {
            (Who::Gateway(_), Who::Gateway(_)) => false,
            (Who::Gateway(g), Who::Node(n)) | (Who::Node(n), Who::Gateway(g)) => {
                let second = self.gateways.get(g).is_some_and(|g| !g.site.primary);
                !(second && n % 3 == 0) && self.nodes.get(n).is_some_and(|node| !node.member.is_ip())
            }
            (Who::Node(a), Who::Node(b)) => {
                let up = |n: usize| self.nodes.get(n).and_then(|node| node.member.parent).map(|(up, _)| up);
                up(a) == Some(b) || up(b) == Some(a)
            }
        }
    }

    fn in_reach(&self, from: Who, place: usize) -> Vec<Who> {
        let Some(place) = self.places.get(place) else { return Vec::new() };
        let gateways = place.gateways.iter().map(|&g| Who::Gateway(g));
        let nodes = place.devices.iter().map(|&n| Who::Node(n));
        gateways.chain(nodes).filter(|to| self.reaches(from, *to)).collect()
    }

    /// Lost, doubled, late.
    fn weathered(&mut self, make: impl Fn(Vec<u8>) -> Event, bytes: &[u8]) {
        self.summary.frames.0 += 1;
        if !self.storming {
            self.after(5, make(bytes.to_vec()));
            return;
        }
        let weather = self.plan.weather;
        let copies = 1 + u32::from(self.dice.permille(weather.double));
        for _ in 0..copies {
            if self.dice.permille(weather.loss) {
                self.summary.frames.1 += 1;
            } else {
                let late = 2 + self.dice.below(weather.delay);
                self.after(late, make(bytes.to_vec()));
            }
        }
    }

    pub(super) fn place_of_node(&self, n: usize) -> Option<&super::Place> {
        self.places.get(self.nodes.get(n)?.member.network)
    }
}
