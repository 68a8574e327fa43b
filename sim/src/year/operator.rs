//! What the operator does in a year: he rotates network keys, because they are old or because a node was stolen. And what
//! the cloud does by itself every hour.

use fivefold_keep::registry::Why;
use fivefold_keep::rotation::Stage;

use super::plan::{DAY, Flaw};
use super::{Event, Year};

const HOUR: u64 = 3_600_000;
/// Who was revoked is refused by E1 at the latest so long after the old key was retired, in seconds: gateways may be cut
/// off for 60 hours.
const SHUT: u64 = 4 * 86_400;
/// So long a thief tries what a stolen node can do still.
const TRIES: u64 = 2 * DAY;
/// Longest sleep.
const SLEEP: u64 = 9 * DAY;

impl Year {
    /// The `round`th rotation of a network's key.
    pub(super) fn rotate(&mut self, place: usize, round: u64) -> anyhow::Result<()> {
        if !self.storming {
            return Ok(());
        }
        let Some(net) = self.places.get(place).map(|p| p.net) else { return Ok(()) };
        if !self.office.is_on() || self.office.rotation(net).is_some_and(|r| r.is_under_way()) {
            self.after(HOUR, Event::Rotate(place, round));
            return Ok(());
        }
        self.after(self.plan.rotation * DAY, Event::Rotate(place, round + 1));
        // One sleeps through the switch.
        if let Some(sleeper) = self.anybody(place) {
            if let Some(node) = self.nodes.get_mut(sleeper) {
                node.cut();
            }
            self.went_dark(sleeper);
            if let Some(known) = self.known.get_mut(sleeper) {
                known.asleep = Some(self.now + SLEEP);
            }
            self.broke("sleep through a switch");
            self.tell(|| format!("node {sleeper} falls asleep"));
        }
        let stolen = if round % 2 == 1 { self.anybody(place) } else { None };
        match stolen {
            Some(n) => {
                let Some(did) = self.nodes.get(n).map(|node| node.member.device.did) else { return Ok(()) };
                if self.plan.flaw != Some(Flaw::ForgottenThief) {
                    self.office.operate(self.now, |book, vault, at| {
                        book.revoke_device(did, at)?;
                        Ok(book.shut_out(vault, did, at)?)
                    })?;
                }
                if let Some(known) = self.known.get_mut(n) {
                    known.revoked = true;
                }
                self.summary.rotations.1 += 1;
                self.tell(|| format!("node {n} is stolen, and revoked"));
            }
            None => {
                self.office.operate(self.now, |book, vault, at| {
                    Ok(book.rotate_network_key(vault, net, Why::Planned, at)?)
                })?;
            }
        }
        self.tell(|| format!("the key of network {place} is rotated"));
        self.push_all();
        Ok(())
    }

    /// Somebody of a network who passes nobody's frames on, and is neither asleep nor revoked.
    fn anybody(&mut self, place: usize) -> Option<usize> {
        let of = self.places.get(place)?;
        let is_parent = |n: usize| self.nodes.iter().any(|m| m.member.parent.is_some_and(|(up, _)| up == n));
        let may = |n: &usize| {
            let known = self.known.get(*n).is_some_and(|k| !k.revoked && k.asleep.is_none());
            known && self.nodes.get(*n).is_some_and(|node| node.is_on() && !node.member.is_ip()) && !is_parent(*n)
        };
        let may: Vec<usize> = of.devices.iter().copied().filter(may).collect();
        self.dice.one_of(&may)
    }

    /// What is done every hour.
    pub(super) fn hour(&mut self) -> anyhow::Result<()> {
        self.after(HOUR, Event::Hour);
        let now = self.now;
        if self.office.is_on() {
            let before = self.office.version()?;
            self.office.hour(now)?;
            if self.office.version()? != before {
                self.push_all();
            }
        }
        for place in 0..self.places.len() {
            let Some(net) = self.places.get(place).map(|p| p.net) else { continue };
            let Some(rotation) = self.office.rotation(net) else { continue };
            let at = self.office.clock(now).0 / 1000;
            let (stage, since) = (rotation.stage(), rotation.since());
            if let Some(done) = self.rotated.get_mut(place)
                && stage == Stage::Done
                && done.replace(rotation.index) != Some(rotation.index)
            {
                self.summary.rotations.0 += 1;
                self.tell(|| format!("network {place} has key {} alone", rotation.index));
            }
            let devices = self.places.get(place).map(|p| p.devices.clone()).unwrap_or_default();
            for n in devices {
                let Some(known) = self.known.get_mut(n) else { continue };
                let is_up = known.asleep.is_some_and(|until| {
                    until <= now
                        || until < u64::MAX
                            && (stage == Stage::Done || stage == Stage::Draining && at >= since + 36 * 3_600)
                });
                if known.revoked && stage == Stage::Done && at >= since + SHUT && known.shut_out.is_none() {
                    known.shut_out = Some(now);
                }
                // The thief gives up.
                if known.shut_out.is_some_and(|since| now >= since + TRIES) && known.asleep.is_none() {
                    known.asleep = Some(u64::MAX);
                    if let Some(node) = self.nodes.get_mut(n) {
                        node.cut();
                    }
                    self.went_dark(n);
                    continue;
                }
                if is_up {
                    self.wake_up(n)?;
                }
            }
        }
        Ok(())
    }
}
