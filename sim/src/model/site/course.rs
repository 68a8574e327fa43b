//! How a move of [`Site`] goes on: who hands what to whom, and what must hold after it.

use std::collections::VecDeque;

use fivefold_cloud::store::Standing;
use fivefold_core::error::Code;
use fivefold_core::id::Epoch;
use fivefold_core::wire::coap::{Message, number};
use fivefold_device::Event;
use fivefold_device::renewal::Stage;

use super::{Letter, Move, Site};
use crate::family::{self, address};
use crate::model::explore::State as _;
use crate::model::gateway::Said;
use crate::model::{Flaw, History, Inside, RESTLESS, device, seals};

/// Moves of a fair course, at most.
const PATIENCE: usize = 400;
/// Codes that mean a stranger, a clone, or a number used twice: nobody of that kind is here.
const ALARMS: [Code; 6] = [
    Code::RenewalUnknownCredential,
    Code::RenewalSuite,
    Code::RenewalEpochNotGreater,
    Code::CloudNonceReuse,
    Code::GatewayNonceReuse,
    Code::CloudLevelMissing,
];

impl Site {
    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.telling {
            let line = format!("{:>9.3} s  {}", self.now as f64 / 1000.0, what());
            self.story.push(line);
        }
    }

    pub(super) fn fail(&mut self, what: impl Into<String>) {
        if self.broken.is_none() {
            let what = what.into();
            self.tell(|| format!("broken: {what}"));
            self.broken = Some(what);
        }
    }

    /// Gives the device power.
    pub(super) fn power(&mut self, fuse: Option<u8>) -> anyhow::Result<()> {
        self.device.boot(self.now)?;
        let said = self.device.timeout(self.now, fuse)?;
        self.after_device(said)
    }

    pub(super) fn read(&mut self, fuse: Option<u8>) -> anyhow::Result<()> {
        let reading = [0x82, 1, 0x18, 0x20 + self.readings];
        let said = self.device.send(self.now, &reading, fuse)?;
        self.after_device(said)
    }

    pub(super) fn tick(&mut self, fuse: Option<u8>, inside: &Inside) -> anyhow::Result<()> {
        let Some(wake) = self.device.wake() else { return Ok(()) };
        self.now = wake.max(self.now + 1);
        self.tell(|| format!("time passes{inside}"));
        if self.gateway.wake().is_some_and(|at| at <= self.now) {
            let said = self.gateway.timeout(self.now)?;
            self.after_gateway(said, Inside::Nothing)?;
        }
        let said = self.device.timeout(self.now, fuse)?;
        self.after_device(said)
    }

    /// Whoever died starts again.
    pub(super) fn revive(&mut self) -> anyhow::Result<()> {
        if !self.cloud.is_on() {
            self.cloud.start(self.now)?;
        }
        if !self.gateway.is_on() {
            let said = self.gateway.start(self.now)?;
            self.after_gateway(said, Inside::Nothing)?;
        }
        for _ in 0..2 {
            if !self.device.is_on() {
                self.power(None)?;
            }
        }
        Ok(())
    }

    pub(super) fn after_device(&mut self, said: Vec<device::Said>) -> anyhow::Result<()> {
        for said in said {
            match said {
                device::Said::Datagram(bytes) => {
                    let what = match self.device.stage() {
                        Stage::WaitMessage2(epoch) if is_run(&bytes) => {
                            let offer = History::of(&[payload(&bytes)]);
                            let known = *self.offered.entry(epoch).or_insert(offer);
                            if known != offer && self.bounds.resets == 0 {
                                self.fail(format!("epoch {epoch} is offered twice"));
                            }
                            format!("message_1 of epoch {epoch}")
                        }
                        Stage::WaitMessage4(epoch) if is_run(&bytes) => format!("message_3 of epoch {epoch}"),
                        _ => format!("a reading under epoch {}", self.device.epoch().unwrap_or(Epoch(0))),
                    };
                    self.tell(|| format!("    the device sends {what}"));
                    push(&mut self.up, self.bounds.flying, Letter { bytes, what });
                }
                device::Said::Event(event) => {
                    if let Event::Delivered { number, .. } = event {
                        self.delivered += usize::from(Some(number.epoch) == self.device.epoch());
                    }
                    self.tell(|| format!("    the device says: {event:?}"));
                }
                device::Said::Frame(_) => {}
            }
        }
        Ok(())
    }

    /// A message reaches the gateway, and what follows from it upward.
    pub(super) fn at_gateway(&mut self, letter: &Letter, inside: Inside) -> anyhow::Result<()> {
        if let Inside::Gateway(after) = inside {
            self.gateway.fuse = Some(after);
        }
        if let Inside::Cloud(after) = inside {
            self.cloud.fuse = Some(after);
        }
        let said = self.gateway.datagram(self.now, address(0), &letter.bytes)?;
        self.after_gateway_about(said, inside, &letter.what)?;
        (self.gateway.fuse, self.cloud.fuse) = (None, None);
        Ok(())
    }

    pub(super) fn after_gateway(&mut self, said: Vec<Said>, inside: Inside) -> anyhow::Result<()> {
        self.after_gateway_about(said, inside, "an earlier message")
    }

    /// Carries messages to the cloud and back, until the gateway has nothing more to hand on.
    pub(super) fn after_gateway_about(
        &mut self,
        mut said: Vec<Said>,
        inside: Inside,
        about: &str,
    ) -> anyhow::Result<()> {
        let mut stopped = false;
        for _ in 0..RESTLESS {
            let mut more = Vec::new();
            for said in said {
                match said {
                    Said::Datagram(bytes) => {
                        let what = format!("the answer to {about}");
                        if payload(&bytes).is_empty() {
                            continue;
                        }
                        push(&mut self.down, self.bounds.flying, Letter { bytes, what });
                    }
                    Said::Exchange(ticket, envelope) => {
                        let reply = self.cloud.exchange(self.now, &self.gateway.proven, &envelope)?;
                        let reply = reply.filter(|_| inside != Inside::Reply);
                        more.extend(self.gateway.exchanged(self.now, ticket, reply.as_deref())?);
                    }
                    Said::Frame(_) => {}
                }
            }
            if more.is_empty() {
                let posts = !stopped && self.gateway.is_on() && self.cloud.is_on();
                let batch = if posts { self.gateway.batch(&self.common.signing)? } else { None };
                let Some((boot, body)) = batch else { return Ok(()) };
                let reply = self.cloud.batch(self.now, &self.gateway.proven, &body)?;
                match reply.filter(|_| inside != Inside::Reply) {
                    Some(reply) => more.extend(self.gateway.replied(self.now, boot, &reply)?),
                    None => stopped = true,
                }
            }
            said = more;
        }
        anyhow::bail!("gateway and cloud never come to rest")
    }

    /// The second gateway takes the place of the first.
    pub(super) fn succeed(&mut self) -> anyhow::Result<()> {
        let Some(mut second) = self.second.take() else { return Ok(()) };
        self.tell(|| "another gateway becomes the primary one".into());
        let primary = self.flaw == Some(Flaw::SuccessorAnswers);
        let members = [self.device.member.clone()];
        let state = family::state(&members, &[0; 16], primary)?;
        second.began_at = self.device.epoch().unwrap_or(Epoch(1));
        second.start(self.now)?;
        second.state(self.now, &state)?;
        self.gateway = second;
        self.cloud.succeed(self.now, 1)?;
        // What the first one held is renewed (K2).
        self.cloud.order(self.now, self.did)?;
        Ok(())
    }

    /// The promises.
    pub(super) fn look(&mut self) {
        if seals::repeated() && self.bounds.resets == 0 {
            self.fail("a key sealed twice under one nonce");
        }
        let mut wrong = None;
        {
            let rows = self.cloud.ledger.rows();
            let held = rows.of(self.did);
            let holds = |epoch| held.iter().any(|c| c.epoch == epoch && c.standing != Standing::Draining);
            let durable = self.device.record.as_ref().map(|r| r.epoch);
            let epochs = durable.into_iter().chain(self.device.epoch());
            for epoch in epochs.filter(|_| self.bounds.resets == 0) {
                if !holds(epoch) {
                    wrong = Some(format!("the device seals under epoch {epoch}, and the cloud does not hold that key"));
                } else if !self.gateway.holds(self.device.member.sid, epoch) {
                    wrong = Some(format!("the device seals under epoch {epoch}, and the gateway has no share of it"));
                }
            }
            if held.iter().filter(|c| c.standing == Standing::Pending).count() > 8 {
                wrong = Some("more than eight contexts wait".into());
            }
            for context in &held {
                if *self.agreed.entry(context.epoch).or_insert(context.id.0) != context.id.0 {
                    wrong = Some(format!("epoch {} was agreed twice", context.epoch));
                }
            }
            let counted = ALARMS.iter().find(|code| rows.counts.get(code).is_some_and(|n| *n > 0));
            if let Some(code) = counted.filter(|_| self.bounds.resets == 0) {
                wrong = Some(format!("{} was counted, and everybody is who they are", code.as_str()));
            }
        }
        if let Some(what) = wrong {
            self.fail(what);
        }
    }

    /// Whether everything under the present epoch is confirmed. What is older may wait until T_drain.
    pub(super) fn waits_for_none(&self) -> bool {
        self.device.waiting().iter().all(|number| Some(number.epoch) != self.device.epoch())
    }

    pub(super) fn is_settled(&self) -> bool {
        self.device.record.as_ref().is_some_and(|r| r.confirmed)
            && self.waits_for_none()
            && self.device.stage() == Stage::Idle
            && self.up.is_empty()
            && self.down.is_empty()
    }

    /// Nothing is left to be done, and the last reading went through.
    pub(super) fn is_done(&self) -> bool {
        let rows = self.cloud.ledger.rows();
        let active = rows.of(self.did).iter().find(|c| c.standing == Standing::Active).map(|c| c.epoch);
        let agree = active.is_some() && active == self.device.epoch();
        drop(rows);
        self.is_settled() && agree && self.delivered > 0 && !self.cloud.is_ordered(self.did)
    }

    /// Delivers what is on its way, the oldest first, and lets time pass, until something holds.
    pub(super) fn until(&mut self, holds: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        for _ in 0..PATIENCE {
            if holds(self) || self.broken.is_some() {
                return Ok(());
            }
            let next = if !self.up.is_empty() {
                Move::Up { at: 0, again: false, inside: Inside::Nothing }
            } else if !self.down.is_empty() {
                Move::Down { at: 0, again: false, inside: Inside::Nothing }
            } else if self.fair && self.rested && self.waits_for_none() {
                self.rested = false;
                Move::Read(Inside::Nothing)
            } else {
                self.rested = true;
                Move::Tick(Inside::Nothing)
            };
            self.step(next)?;
            self.readings = self.readings.min(self.bounds.readings);
        }
        self.fail("nothing breaks any more, and it does not come to an end");
        Ok(())
    }
}

fn push(to: &mut VecDeque<Letter>, flying: usize, letter: Letter) {
    to.push_back(letter);
    while to.len() > flying {
        to.pop_front();
    }
}

/// What stands behind the header and options of a CoAP message.
fn payload(datagram: &[u8]) -> &[u8] {
    Message::parse(datagram).map_or(&[], |m| m.payload)
}

fn is_run(datagram: &[u8]) -> bool {
    Message::parse(datagram).is_ok_and(|m| m.options().any(|(n, value)| n == number::URI_PATH && value == b"edhoc"))
}
