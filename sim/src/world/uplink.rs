//! Between gateways and the cloud: exchanges that break, batches that a hostile gateway made up, a cloud that dies between
//! any two steps.

use anyhow::anyhow;
use fivefold_core::id::Sid;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::envelope::{Envelope, Reply};
use fivefold_gateway::gateway::Cloud;

use super::{Event, Request, World};
use crate::cloud::Stage;
use crate::family::{gateway_id, wall};
use crate::hostile::forged;

/// Pause between two looks at whether the cloud is there.
const POLL: u64 = 10_000;

impl World {
    fn cloud_is_there(&self) -> bool {
        !self.away && self.cloud.is_on()
    }

    pub(super) fn exchange(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Poll(g) => self.poll(g),
            Event::Post(g, run) => self.post(g, run),
            Event::Step(request) => self.step(*request),
            Event::Broken(g, run) => self.broken_off(g, run),
            Event::Reply(g, run, boot, bytes) => {
                let now = self.now;
                let Some(gateway) = self.gateways.get_mut(g).filter(|g| g.is_on() && g.run == run) else {
                    return Ok(());
                };
                gateway.posting = true;
                let said = gateway.cloud(now, Cloud::Reachable)?;
                self.gateway_said(g, said)?;
                let Some(gateway) = self.gateways.get_mut(g) else { return Ok(()) };
                let said = gateway.reply(now, boot, &bytes)?;
                self.gateway_said(g, said)?;
                let pause = self.dice.between(1, 30);
                self.after(pause, Event::Post(g, run));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The long poll: whether the cloud is there, and the state that it pushes.
    fn poll(&mut self, g: usize) -> anyhow::Result<()> {
        let now = self.now;
        let there = self.cloud_is_there();
        let Some(gateway) = self.gateways.get_mut(g).filter(|g| g.is_on()) else { return Ok(()) };
        let said = gateway.cloud(now, if there { Cloud::Reachable } else { Cloud::Away })?;
        self.gateway_said(g, said)?;
        if there && self.gateways.get(g).is_some_and(|g| g.is_on() && !g.has_state()) {
            self.cloud.push(now, gateway_id(g))?;
            let state = self.states.get(g).cloned().unwrap_or_default();
            if let Some(gateway) = self.gateways.get_mut(g) {
                let said = gateway.tell(now, |e| {
                    // A refusal is counted there.
                    let _ = e.handle_state(wall(now), &state);
                })?;
                self.gateway_said(g, said)?;
            }
        }
        // One poll per process: the next process begins with one of its own.
        if self.gateways.get(g).is_some_and(super::GatewayStation::is_on) {
            self.after(POLL, Event::Poll(g));
        }
        Ok(())
    }

    /// A gateway hands on what lies in its store.
    fn post(&mut self, g: usize, run: u32) -> anyhow::Result<()> {
        let now = self.now;
        let Some(gateway) = self.gateways.get_mut(g).filter(|g| g.is_on() && g.run == run) else { return Ok(()) };
        gateway.posting = false;
        let Some((boot, mut envelopes)) = gateway.stored()? else { return Ok(()) };
        gateway.posting = true;
        if !self.cloud_is_there() {
            let pause = self.dice.between(500, 2_000);
            self.after(pause, Event::Broken(g, run));
            return Ok(());
        }
        let manners = self.plan.hostility;
        let mut upto = None;
        if g == 0 && manners.is_hostile() {
            upto = envelopes.last().and_then(|b| Envelope::parse(b).ok()).map(|e| e.seq);
            if self.storming {
                let names: Vec<Sid> = self.members.iter().map(|m| m.sid).collect();
                envelopes = self.hoard.turn(&mut self.dice, manners, envelopes, &names);
            }
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
        let lossy = if self.storming { self.plan.uplink_loss } else { 0 };
        let lost = self.dice.permille(lossy);
        if lost && self.dice.permille(500) {
            self.after(2_000, Event::Broken(g, run));
            return Ok(());
        }
        self.tell(|| format!("gateway {g} posts {} envelopes", envelopes.len()));
        let request = Request {
            gateway: g,
            gateway_run: run,
            cloud_run: self.cloud.run,
            boot,
            upto,
            reply_is_lost: lost,
            stage: Stage::Received(body),
        };
        let pause = self.dice.between(2, 80);
        self.at(now + pause, Event::Step(Box::new(request)));
        Ok(())
    }

    fn step(&mut self, mut request: Request) -> anyhow::Result<()> {
        let now = self.now;
        let (g, run) = (request.gateway, request.gateway_run);
        if !self.cloud.is_on() || self.cloud.run != request.cloud_run {
            self.after(1_000, Event::Broken(g, run));
            return Ok(());
        }
        let proven = self.gateways.get(g).map(|g| g.proven.clone()).ok_or_else(|| anyhow!("no such gateway"))?;
        let (stage, durable) = self.cloud.step(now, &proven, request.stage)?;
        for (id, epoch, bctx) in durable.contexts {
            self.watch.context(id, epoch, bctx);
        }
        for (did, number) in durable.leaves {
            if let Some(member) = self.members.iter().find(|m| m.did() == did) {
                self.watch.leaves(member.sid, number);
            }
        }
        for taken in &durable.rows {
            self.watch.took_row(taken);
            self.tell(|| format!("the ledger says {:?} of {} {}", taken.verdict, taken.row.way.sid, taken.row.piv));
        }
        match stage {
            Stage::Replied(bytes) if request.reply_is_lost => {
                let _ = bytes;
                self.after(2_000, Event::Broken(g, run));
            }
            Stage::Replied(bytes) => {
                let reply = Reply::parse(&bytes).map_err(|m| anyhow!("reply: {}", m.reason))?;
                for refusal in reply.refused.iter() {
                    self.tell(|| format!("the cloud refuses {}: {}", refusal.seq, refusal.code));
                }
                let bytes = match request.upto {
                    Some(upto) => forged(&Reply { durable_upto: upto, ..reply })?,
                    None => bytes,
                };
                let pause = self.dice.between(2, 80);
                self.after(pause, Event::Reply(g, run, request.boot, bytes));
            }
            Stage::Refused(code) => {
                if !self.plan.hostility.is_hostile() {
                    self.watch.fail(format!("an honest gateway's batch was refused: {code}"));
                }
                self.after(1_000, Event::Broken(g, run));
            }
            stage => {
                request.stage = stage;
                let pause = self.dice.between(0, 40);
                self.after(pause, Event::Step(Box::new(request)));
            }
        }
        Ok(())
    }

    fn broken_off(&mut self, g: usize, run: u32) -> anyhow::Result<()> {
        let now = self.now;
        let Some(gateway) = self.gateways.get_mut(g).filter(|g| g.is_on() && g.run == run) else { return Ok(()) };
        let said = gateway.cloud(now, Cloud::Away)?;
        self.gateway_said(g, said)?;
        let pause = self.dice.between(1_000, 20_000);
        self.after(pause, Event::Post(g, run));
        Ok(())
    }
}
