//! What happens, and what stations say.

use fivefold_device::{Event as Told, Number, SendRefused};

use super::{Event, RECORDED, Station, World};
use crate::family::{address, place_of};
use crate::node::Fuse;
use crate::{gateway, node};

impl World {
    pub(super) fn happen(&mut self, event: Event) -> anyhow::Result<()> {
        let now = self.now;
        let b = self.plan.breakage;
        match event {
            Event::Boot(n) => {
                if let Some(node) = self.nodes.get_mut(n).filter(|node| !node.is_on()) {
                    self.reboots += u64::from(node.boots > 0);
                    self.watch.went_dark(node.member.sid);
                    node.boot(now, &mut self.dice)?;
                    let said = node.run(now)?;
                    self.tell(|| format!("node {n} boots"));
                    self.node_said(n, said)?;
                }
            }
            Event::Cut(n) => {
                self.sometime(b.node, Event::Cut(n));
                if self.storming {
                    let fuse = Fuse {
                        outputs: self.dice.below(12),
                        torn: self.dice.place(fivefold_device::storage::RECORD + 1),
                    };
                    if let Some(node) = self.nodes.get_mut(n).filter(|node| node.is_on()) {
                        node.arm(fuse);
                    }
                }
            }
            Event::Read(n) => {
                if self.storming {
                    self.read(n)?;
                    let every = self.plan.nodes.get(n).map_or(0, |p| p.every);
                    let pause = self.dice.between(every / 2, every + every / 2);
                    self.after(pause.max(100), Event::Read(n));
                }
            }
            Event::Frame(Station::Node(n), frame) => {
                if let Some(node) = self.nodes.get_mut(n) {
                    let said = node.frame(now, &frame)?;
                    self.node_said(n, said)?;
                }
            }
            Event::Frame(Station::Gateway(g), frame) => {
                if let Some(gateway) = self.gateways.get_mut(g).filter(|g| g.is_on()) {
                    let said = gateway.frame(now, &frame)?;
                    self.gateway_said(g, said)?;
                }
            }
            Event::Frame(Station::Insider, frame) => {
                if let Some(insider) = &mut self.insider {
                    insider.hear(now, &frame);
                }
                self.insider_speaks();
            }
            Event::Up(from, datagram) => {
                if let Some(gateway) = self.gateways.first_mut().filter(|g| g.is_on()) {
                    let said = gateway.tell(now, |g| g.handle_coap(crate::family::wall(now), from, &datagram))?;
                    self.gateway_said(0, said)?;
                }
            }
            Event::Down(n, datagram) => {
                if let Some(node) = self.nodes.get_mut(n) {
                    let said = node.datagram(now, &datagram)?;
                    self.node_said(n, said)?;
                }
            }
            Event::StartGateway(g) => {
                if let Some(gateway) = self.gateways.get_mut(g).filter(|g| !g.is_on()) {
                    self.reboots += u64::from(gateway.run > 0);
                    let said = gateway.start(now, &mut self.dice)?;
                    let run = gateway.run;
                    self.tell(|| format!("gateway {g} starts"));
                    self.gateway_said(g, said)?;
                    self.after(50, Event::Poll(g));
                    // What was there before goes up.
                    self.after(100, Event::Post(g, run));
                }
            }
            Event::KillGateway(g) => {
                self.sometime(b.gateway, Event::KillGateway(g));
                if self.storming {
                    let fuse = gateway::Fuse { outputs: self.dice.below(30), alone: self.dice.permille(500) };
                    if let Some(gateway) = self.gateways.get_mut(g).filter(|g| g.is_on()) {
                        gateway.arm(fuse);
                    }
                }
            }
            Event::KillCloud => {
                self.sometime(b.cloud, Event::KillCloud);
                if self.storming && self.cloud.is_on() {
                    self.cloud.kill();
                    self.tell(|| "the cloud dies".into());
                    let down = self.dice.between(1_000, 60_000);
                    self.after(down, Event::StartCloud);
                }
            }
            Event::StartCloud => {
                if !self.cloud.is_on() {
                    self.reboots += 1;
                    self.cloud.start(now)?;
                    self.tell(|| "the cloud starts".into());
                }
            }
            Event::CloudLeaves => {
                if self.storming {
                    self.away = true;
                    let ms = self.dice.between(10_000, b.away_for.max(20_000));
                    self.tell(|| format!("the cloud is away for {} s", ms / 1000));
                    self.after(ms, Event::CloudReturns);
                }
            }
            Event::CloudReturns => {
                self.away = false;
                self.sometime(b.away, Event::CloudLeaves);
            }
            Event::Command => {
                self.sometime(b.command, Event::Command);
                let n = self.dice.place(self.nodes.len());
                if self.storming
                    && let Some(node) = self.nodes.get(n)
                {
                    self.cloud.command(now, node.member.did())?;
                }
            }
            Event::Tick => {
                self.cloud.timeout(now)?;
                self.watch.look_at_seals();
                self.after(10_000, Event::Tick);
            }
            Event::Stranger => {
                self.sometime(b.stranger, Event::Stranger);
                if self.storming {
                    self.stranger();
                }
            }
            Event::Insider => {
                self.sometime(b.insider, Event::Insider);
                if self.storming {
                    self.insider_acts();
                }
            }
            Event::Broken(..) | Event::Poll(_) | Event::Post(..) | Event::Reply(..) | Event::Step(_) => {
                self.exchange(event)?;
            }
        }
        Ok(())
    }

    /// A node is given a reading like no other.
    ///
    /// # Errors
    /// When this machine cannot go on.
    pub fn read(&mut self, n: usize) -> anyhow::Result<Option<Number>> {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(n) else { return Ok(None) };
        self.readings += 1;
        // A template's values: which reading it is, and of whom.
        let [a, b, c, d] = self.readings.to_be_bytes();
        let reading = [0x83, 0x01, 0x1A, a, b, c, d, 0x18, 0x80 | n as u8];
        let mut taken = None;
        match node.send(now, &reading) {
            Some(Ok(number)) => {
                let name = node.name(number);
                self.watch.took(name, &reading);
                self.tell(|| format!("node {n} takes reading {number}"));
                taken = Some(number);
            }
            Some(Err(SendRefused::RenewalNeeded)) => self.watch.fail(format!("5: node {n} wants new keys")),
            // No room, or a lease that is not durable yet: the application tries again with its next reading.
            Some(Err(SendRefused::Full | SendRefused::NotAgreed | SendRefused::Seal(_))) | None => {}
        }
        if let Some(node) = self.nodes.get_mut(n) {
            let said = node.run(now)?;
            self.node_said(n, said)?;
        }
        Ok(taken)
    }

    pub(super) fn node_said(&mut self, n: usize, said: Vec<node::Said>) -> anyhow::Result<()> {
        let Some(node) = self.nodes.get(n) else { return Ok(()) };
        let (sid, bctx, profile) = (node.member.sid, node.bctx, node.member.policy.profile);
        let name = |number: Number| (sid, number.epoch, bctx, u64::from(number.value));
        for one in said {
            match one {
                node::Said::Datagram(message) => self.udp(Event::Up(address(n), message)),
                node::Said::Dropped(rejected) => {
                    *self.refused.entry(rejected.code.as_str()).or_default() += 1;
                    self.tell(|| format!("node {n} drops: {rejected}"));
                }
                node::Said::Event(event) => {
                    match event {
                        Told::Custody(number) => {
                            self.watch.custody.insert(name(number));
                        }
                        Told::Delivered { number, .. } => self.watch.acknowledged(name(number), profile),
                        Told::GivenUp(number) => {
                            self.watch.lost.insert(name(number));
                        }
                        Told::Refused { number, code } => {
                            self.watch.lost.insert(name(number));
                            if !self.watch.at_mercy.contains(&sid) {
                                self.watch.fail(format!("5: {sid} was refused {number} with {code:#x}"));
                            }
                        }
                        Told::BatchSigned { number, .. } => self.watch.signed(sid, number),
                        Told::Sent { number, .. } => self.watch.went_out(name(number)),
                        _ => {}
                    }
                    self.tell(|| format!("node {n}: {event:?}"));
                }
                node::Said::Executed(id) => {
                    self.watch.executed(sid, id);
                    self.tell(|| format!("node {n} carries out command {id}"));
                }
                node::Said::Frame(frame) => self.transmit(Station::Node(n), frame),
                node::Said::WentDark => {
                    self.tell(|| format!("node {n} loses power"));
                    let dark = self.dice.between(100, 30_000);
                    self.after(dark, Event::Boot(n));
                }
            }
        }
        Ok(())
    }

    pub(super) fn gateway_said(&mut self, g: usize, said: Vec<gateway::Said>) -> anyhow::Result<()> {
        for one in said {
            match one {
                gateway::Said::Datagram(to, message) => {
                    if let Some(n) = place_of(to) {
                        self.udp(Event::Down(n, message));
                    }
                }
                gateway::Said::Dropped(rejected, sid) => {
                    *self.refused.entry(rejected.code.as_str()).or_default() += 1;
                    self.tell(|| format!("gateway {g} drops of {sid:?}: {rejected}"));
                }
                // No device of the village renews: nobody asks for it.
                gateway::Said::Exchange(ticket, _) => {
                    if let Some(gateway) = self.gateways.get_mut(g) {
                        gateway.tell(self.now, |engine| engine.handle_exchanged(ticket, None))?;
                    }
                }
                gateway::Said::Frame(frame) => self.transmit(Station::Gateway(g), frame),
                gateway::Said::Stored => {
                    if let Some(gateway) = self.gateways.get_mut(g).filter(|g| !g.posting) {
                        gateway.posting = true;
                        let run = gateway.run;
                        let pause = self.dice.between(1, 60);
                        self.after(pause, Event::Post(g, run));
                    }
                }
                gateway::Said::WentDark => {
                    self.tell(|| format!("gateway {g} dies"));
                    let dark = self.dice.between(100, 60_000);
                    self.after(dark, Event::StartGateway(g));
                }
            }
        }
        Ok(())
    }

    /// A member of the network sends a frame.
    pub(super) fn transmit(&mut self, from: Station, frame: Vec<u8>) {
        self.on_air += 1;
        let sid = from.sid(self.plan.nodes.len());
        let to = frame.get(5..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b));
        let seen = self.watch.on_air(sid, &self.schedule, &frame, from == Station::Insider);
        self.tell(|| match &seen {
            Some(d) => format!(
                "{from:?} sends {} bytes to {to:04x}: {} for {} with {} hops, {:02x}..",
                frame.len(),
                d.mesh.originator,
                d.mesh.destination,
                d.mesh.hops,
                d.rest.first().copied().unwrap_or(0)
            ),
            None => format!("{from:?} sends {} bytes of control", frame.len()),
        });
        match seen {
            Some(datagram) => {
                if self.recorded.len() >= RECORDED {
                    self.recorded.pop_front();
                }
                self.recorded.push_back((sid, fivefold_core::id::Sid(to), datagram));
            }
            None => {
                if self.hellos.len() >= RECORDED {
                    self.hellos.pop_front();
                }
                self.hellos.push_back(frame.clone());
            }
        }
        if self.frames.len() >= RECORDED {
            self.frames.pop_front();
        }
        self.frames.push_back(frame.clone());
        let deaf = &self.deaf;
        let hearers: Vec<Station> = self
            .reach
            .iter()
            .filter_map(|&(a, b)| {
                if a == from {
                    Some(b)
                } else if b == from {
                    Some(a)
                } else {
                    None
                }
            })
            .filter(|to| !deaf.contains(to))
            .collect();
        for to in hearers {
            self.weathered(|frame| Event::Frame(to, frame), &frame);
        }
    }

    fn udp(&mut self, event: Event) {
        match event {
            Event::Up(from, message) => self.weathered(|m| Event::Up(from, m), &message),
            Event::Down(n, message) => self.weathered(|m| Event::Down(n, m), &message),
            _ => {}
        }
    }

    /// Lost, doubled, late.
    pub(super) fn weathered(&mut self, make: impl Fn(Vec<u8>) -> Event, bytes: &[u8]) {
        let copies = 1 + u32::from(self.dice.permille(self.weather.double));
        for _ in 0..copies {
            if !self.dice.permille(self.weather.loss) {
                let late = 2 + self.dice.below(self.weather.delay);
                self.after(late, make(bytes.to_vec()));
            }
        }
    }
}
