//! Between gateways and the cloud: exchanges that break, gateways that were taken over, a cloud that dies between any two
//! durable writes.

use anyhow::anyhow;
use fivefold_core::id::Sid;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::envelope::{Envelope, Originator, Reply};
use fivefold_gateway::gateway::Cloud;

use super::office::Run;
use super::plan::{HOSTILE, MEDDLES};
use super::{Asked, Batch, Event, Who, Year};
use crate::cloud::Stage;
use crate::dice::Dice;
use crate::hostile::forged;

/// Messages of EDHOC that a gateway remembers.
const HOARD: usize = 32;

/// A gateway that was taken over, as far as EDHOC goes.
#[derive(Debug, Default)]
pub(super) struct Meddler {
    asked: Vec<Vec<u8>>,
    answers: Vec<Vec<u8>>,
    /// What it did, for showing.
    pub(super) deeds: u64,
}

impl Meddler {
    /// What it posts in place of a message, if anything.
    fn ask(&mut self, dice: &mut Dice, body: Vec<u8>, names: &[Sid]) -> Option<Vec<u8>> {
        keep(&mut self.asked, dice, &body);
        let turned = match dice.below(1000 / MEDDLES.max(1)) {
            0 => None,
            1 => flipped(dice, body),
            2 => dice_of(dice, &self.asked).cloned(),
            3 => Envelope::parse(&body).ok().and_then(|envelope| match envelope.originator {
                Originator::Node { net, .. } => {
                    let originator = Originator::Node { net, sid: dice.one_of(names)? };
                    emitted(&Envelope { originator, ..envelope })
                }
                Originator::Classic(_) => None,
            }),
            _ => return Some(body),
        };
        self.deeds += 1;
        turned
    }

    /// What it makes its engine believe that the cloud answered.
    fn answer(&mut self, dice: &mut Dice, body: Vec<u8>) -> Option<Vec<u8>> {
        keep(&mut self.answers, dice, &body);
        let turned = match dice.below(1000 / MEDDLES.max(1)) {
            0 => None,
            1 => flipped(dice, body),
            2 => dice_of(dice, &self.answers).cloned(),
            _ => return Some(body),
        };
        self.deeds += 1;
        turned
    }
}

fn dice_of<'a>(dice: &mut Dice, kept: &'a [Vec<u8>]) -> Option<&'a Vec<u8>> {
    kept.get(dice.place(kept.len()))
}

/// Of what it saw, in the long run, any.
fn keep(kept: &mut Vec<Vec<u8>>, dice: &mut Dice, bytes: &[u8]) {
    if kept.len() < HOARD {
        kept.push(bytes.to_vec());
    } else if let Some(place) = kept.get_mut(dice.place(HOARD * 4)) {
        *place = bytes.to_vec();
    }
}

fn flipped(dice: &mut Dice, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let at = dice.place(bytes.len());
    *bytes.get_mut(at)? ^= 1 << dice.below(8);
    Some(bytes)
}

fn emitted(envelope: &Envelope<'_>) -> Option<Vec<u8>> {
    let mut out = vec![0; envelope.bytes.len() + 128];
    let len = envelope.emit(&mut out).ok()?;
    out.truncate(len);
    Some(out)
}

impl Year {
    fn cloud_is_there(&self) -> bool {
        !self.away && self.office.is_on()
    }

    fn is_hostile(&self, g: usize) -> bool {
        self.storming && self.network_of.get(g).is_some_and(|&place| !self.is_honest(place))
    }

    /// Short ids of a gateway's network.
    fn names(&self, g: usize) -> Vec<Sid> {
        let place = self.network_of.get(g).and_then(|&place| self.places.get(place));
        let devices = place.into_iter().flat_map(|p| &p.devices);
        devices.filter_map(|&n| self.nodes.get(n)).map(|node| node.member.device.sid).collect()
    }

    /// Whether the cloud's process gets as far as the next step.
    fn cloud_goes_on(&mut self, run: u32) -> bool {
        if let Some(fuse) = &mut self.office.fuse {
            if *fuse == 0 {
                self.office.kill();
                self.broke("process of the cloud");
                self.tell(|| "the cloud dies".into());
                let down = self.dice.between(1_000, 600_000);
                self.after(down, Event::StartCloud);
            } else {
                *fuse -= 1;
            }
        }
        self.office.is_on() && self.office.run == run
    }

    pub(super) fn exchange(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Post(g, run) => self.post(g, run),
            Event::Step(batch) => self.step(*batch),
            Event::Broken(g, run) => self.broken_off(g, run),
            Event::Ask(asked) => self.asked(*asked),
            Event::Push(g) => self.push(g),
            Event::Answered(g, run, ticket, reply) => {
                let now = self.now;
                let Some(gateway) = self.gateways.get_mut(g).filter(|g| g.is_on() && g.run == run) else {
                    return Ok(());
                };
                if let Some(asked) = self.asked.get_mut(g) {
                    *asked = asked.saturating_sub(1);
                }
                let said = gateway.tell(now, |engine| engine.handle_exchanged(ticket, reply.as_deref()))?;
                self.gateway_said(g, said, None)?;
                self.plan_wake(Who::Gateway(g));
                Ok(())
            }
            Event::Reply(g, run, boot, bytes) => {
                let now = self.now;
                let Some(gateway) = self.gateways.get_mut(g).filter(|g| g.is_on() && g.run == run) else {
                    return Ok(());
                };
                gateway.posting = true;
                let said = gateway.cloud(now, Cloud::Reachable)?;
                self.gateway_said(g, said, None)?;
                let Some(gateway) = self.gateways.get_mut(g) else { return Ok(()) };
                let said = gateway.reply(now, boot, &bytes)?;
                self.gateway_said(g, said, None)?;
                self.plan_wake(Who::Gateway(g));
                let pause = self.dice.between(1, 30);
                self.after(pause, Event::Post(g, run));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A gateway hands on what lies in its store.
    fn post(&mut self, g: usize, run: u32) -> anyhow::Result<()> {
        let now = self.now;
        let hostile = self.is_hostile(g);
        let names = if hostile { self.names(g) } else { Vec::new() };
        let Some(gateway) = self.gateways.get_mut(g).filter(|g| g.is_on() && g.run == run) else { return Ok(()) };
        gateway.posting = false;
        let Some((boot, mut envelopes)) = gateway.stored()? else { return Ok(()) };
        gateway.posting = true;
        self.summary.most_posted = self.summary.most_posted.max(envelopes.len() as u64);
        if !self.cloud_is_there() {
            let pause = self.dice.between(500, 2_000);
            self.after(pause, Event::Broken(g, run));
            return Ok(());
        }
        let mut upto = None;
        if hostile && let Some(hoard) = self.hoards.get_mut(g) {
            upto = envelopes.last().and_then(|b| Envelope::parse(b).ok()).map(|e| e.seq);
            envelopes = hoard.turn(&mut self.dice, HOSTILE, envelopes, &names);
            if envelopes.is_empty() {
                // It keeps everything to itself, and makes its own engine believe that all is well.
                let bytes = forged(&Reply {
                    durable_upto: upto.unwrap_or(0),
                    refused: List::default(),
                    downlinks: List::default(),
                })?;
                self.after(20, Event::Reply(g, run, boot, bytes));
                return Ok(());
            }
        }
        let Some(gateway) = self.gateways.get(g) else { return Ok(()) };
        let body = gateway.body(boot, &envelopes)?;
        let lost = self.storming && self.dice.permille(self.plan.uplink_loss);
        if lost && self.dice.permille(500) {
            self.after(2_000, Event::Broken(g, run));
            return Ok(());
        }
        let stage = Stage::Received(body);
        let cloud_run = self.office.run;
        let batch = Batch { gateway: g, gateway_run: run, cloud_run, boot, upto, reply_is_lost: lost, stage };
        let pause = self.dice.between(2, 80);
        self.at(now + pause, Event::Step(Box::new(batch)));
        Ok(())
    }

    fn step(&mut self, mut batch: Batch) -> anyhow::Result<()> {
        let (g, run) = (batch.gateway, batch.gateway_run);
        if !self.cloud_goes_on(batch.cloud_run) {
            self.after(1_000, Event::Broken(g, run));
            return Ok(());
        }
        let proven = self.gateways.get(g).map(|g| g.proven.clone()).ok_or_else(|| anyhow!("no such gateway"))?;
        let (stage, durable) = self.office.step(self.now, &proven, batch.stage)?;
        if durable.new_generation {
            self.push_near(g);
        }
        match stage {
            Stage::Replied(_) if batch.reply_is_lost => self.after(2_000, Event::Broken(g, run)),
            Stage::Replied(bytes) => {
                let bytes = match batch.upto {
                    Some(upto) => {
                        let reply = Reply::parse(&bytes).map_err(|m| anyhow!("reply: {}", m.reason))?;
                        forged(&Reply { durable_upto: upto, ..reply })?
                    }
                    None => bytes,
                };
                let pause = self.dice.between(2, 80);
                self.after(pause, Event::Reply(g, run, batch.boot, bytes));
            }
            Stage::Refused(code) => {
                if batch.upto.is_none() && !self.is_hostile(g) {
                    self.accounts.fail(format!("6: the batch of gateway {g}, which is honest, was refused: {code}"));
                }
                self.after(1_000, Event::Broken(g, run));
            }
            stage => {
                if let Stage::Judged(judged) = &stage {
                    for accepted in &judged.write.accepted {
                        let way = &accepted.row().way;
                        let who = self.nets.get(&way.net).and_then(|place| self.sids.get(&(*place, way.sid)));
                        if let Some(Who::Node(n)) = who
                            && self.known.get(*n).is_some_and(|k| k.revoked)
                        {
                            self.accounts.fail(format!("5: device {n} is revoked, and its message was taken"));
                        }
                    }
                }
                batch.stage = stage;
                let pause = self.dice.between(0, 40);
                self.after(pause, Event::Step(Box::new(batch)));
            }
        }
        Ok(())
    }

    fn broken_off(&mut self, g: usize, run: u32) -> anyhow::Result<()> {
        let now = self.now;
        let away = self.away;
        let Some(gateway) = self.gateways.get_mut(g).filter(|g| g.is_on() && g.run == run) else { return Ok(()) };
        let said = gateway.cloud(now, Cloud::Away)?;
        self.gateway_said(g, said, None)?;
        // The longer it is away, the rarer it is asked for.
        let pause = if away { self.dice.between(60_000, 600_000) } else { self.dice.between(1_000, 20_000) };
        self.after(pause, Event::Post(g, run));
        Ok(())
    }

    /// A gateway posts a message of EDHOC.
    pub(super) fn ask(&mut self, g: usize, ticket: u64, envelope: Vec<u8>) {
        let Some(gateway_run) = self.gateways.get(g).map(|g| g.run) else { return };
        if let Some(asked) = self.asked.get_mut(g) {
            *asked += 1;
            self.summary.most_asked = self.summary.most_asked.max(*asked);
        }
        let names = if self.is_hostile(g) { self.names(g) } else { Vec::new() };
        let mut body = Some(envelope);
        if !names.is_empty()
            && let Some(meddler) = self.meddlers.get_mut(g)
        {
            body = body.and_then(|body| meddler.ask(&mut self.dice, body, &names));
        }
        let lost = self.storming && self.dice.permille(self.plan.uplink_loss);
        let before = lost && self.dice.permille(500);
        match body.filter(|_| self.cloud_is_there() && !before) {
            None => self.after(2_000, Event::Answered(g, gateway_run, ticket, None)),
            Some(body) => {
                let cloud_run = self.office.run;
                let run = Run::Received;
                let asked = Asked { gateway: g, gateway_run, cloud_run, ticket, body, reply_is_lost: lost, run };
                let pause = self.dice.between(2, 80);
                self.after(pause, Event::Ask(Box::new(asked)));
            }
        }
    }

    fn asked(&mut self, mut asked: Asked) -> anyhow::Result<()> {
        let (g, gateway_run, ticket) = (asked.gateway, asked.gateway_run, asked.ticket);
        let nothing = Event::Answered(g, gateway_run, ticket, None);
        if !self.cloud_goes_on(asked.cloud_run) {
            self.after(1_000, nothing);
            return Ok(());
        }
        let proven = self.gateways.get(g).map(|g| g.proven.clone()).ok_or_else(|| anyhow!("no such gateway"))?;
        let run = self.office.run(self.now, &proven, &asked.body, asked.run, &mut self.dice)?;
        match run {
            Run::Refused => {
                if !self.is_hostile(g) {
                    self.accounts.fail(format!("6: gateway {g} is honest, and what it asked was refused as a whole"));
                }
                self.after(1_000, nothing);
            }
            Run::Replied(_) if asked.reply_is_lost => self.after(2_000, nothing),
            Run::Replied(bytes) => {
                let hostile = self.is_hostile(g);
                let reply = match self.meddlers.get_mut(g).filter(|_| hostile) {
                    Some(meddler) => meddler.answer(&mut self.dice, bytes),
                    None => Some(bytes),
                };
                let pause = self.dice.between(2, 80);
                self.after(pause, Event::Answered(g, gateway_run, ticket, reply));
            }
            run => {
                if matches!(run, Run::Kept(_, Some(_))) {
                    self.push_near(g);
                }
                if let Run::Agreed(agreement) = &run {
                    let did = agreement.noted().0;
                    let revoked = |(n, known): (usize, &super::Known)| {
                        known.revoked && self.nodes.get(n).is_some_and(|node| node.member.device.did == did)
                    };
                    if self.known.iter().enumerate().any(revoked) {
                        self.accounts.fail(format!("5: {did} is revoked, and a context was agreed with it"));
                    }
                }
                asked.run = run;
                let pause = self.dice.between(0, 40);
                self.after(pause, Event::Ask(Box::new(asked)));
            }
        }
        Ok(())
    }

    /// Gateways of the same network are pushed what there is now, soon.
    fn push_near(&mut self, g: usize) {
        let place = self.network_of.get(g).and_then(|&place| self.places.get(place));
        for g in place.map(|p| p.gateways.clone()).unwrap_or_default() {
            self.plan_push(g);
        }
    }

    /// All gateways are pushed what there is now, soon.
    pub(super) fn push_all(&mut self) {
        for g in 0..self.gateways.len() {
            self.plan_push(g);
        }
    }

    pub(super) fn plan_push(&mut self, g: usize) {
        if let Some(planned) = self.push_planned.get_mut(g)
            && !std::mem::replace(planned, true)
        {
            let pause = self.dice.between(5_000, 30_000);
            self.after(pause, Event::Push(g));
        }
    }

    fn push(&mut self, g: usize) -> anyhow::Result<()> {
        let now = self.now;
        if let Some(planned) = self.push_planned.get_mut(g) {
            *planned = false;
        }
        // Whoever starts is pushed what there is.
        if !self.office.is_on() || self.gateways.get(g).is_none_or(|g| !g.is_on()) {
            return Ok(());
        }
        if self.away || self.storming && self.dice.permille(self.plan.uplink_loss) {
            if let Some(planned) = self.push_planned.get_mut(g) {
                *planned = true;
            }
            let pause = self.dice.between(30_000, 600_000);
            self.after(pause, Event::Push(g));
            return Ok(());
        }
        let Some(proven) = self.gateways.get(g).map(|g| g.proven.clone()) else { return Ok(()) };
        let push = self.office.push(&proven)?;
        for part in &push.parts {
            let Some(gateway) = self.gateways.get_mut(g).filter(|g| g.is_on()) else { return Ok(()) };
            if gateway.state_version() >= push.version {
                return Ok(());
            }
            let at = gateway.clock(now);
            let said = gateway.tell(now, |engine| {
                // A refusal is counted there.
                let _ = engine.handle_state(at, part);
            })?;
            self.gateway_said(g, said, None)?;
        }
        self.plan_wake(Who::Gateway(g));
        Ok(())
    }
}
