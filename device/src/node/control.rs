//! Control items, both ways (docs/protocol.md 7.1, 7.3): what the node reports, and what it is told.

use fivefold_core::error::{Code, Rejected};
use fivefold_core::profile::{KeyIndexes, Mode};
use fivefold_core::suite::agreement::Agree;
use fivefold_core::time::Millis;
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::control::{Command as Order, CommandResult, Downlink, LinkKey, Status, Uplink};
use fivefold_core::wire::state::Phase;
use heapless::Vec;

use super::{Command, Event, Node, status};
use crate::boot::first_bound;
use crate::evidence::Evidence;
use crate::link_keys;
use crate::outbox::{Carried, Number};
use crate::relay::PAYLOAD;
use crate::renewal::Why;
use crate::storage::StoredResult;

/// The boot report waits so long for a reading to go along with, in milliseconds.
const AT_BOOT: u64 = 3_000;
/// Results and key reports wait so long for a reading, in milliseconds.
const SOON: u64 = 2_000;
const POSTPONED: u64 = 60_000;
const DAY: u64 = 86_400_000;
/// The old network key is given up so long after the switch, by uptime, in milliseconds (docs/protocol.md 4.3).
const RETIRE_AFTER: u64 = 7 * DAY;

/// What is to be reported, and when at the latest.
#[derive(Debug)]
pub(super) struct Reports {
    at: Option<Millis>,
    whole: bool,
    keys: bool,
    next_whole: Millis,
    poll_at: Option<Millis>,
    /// The index that frames were sent under before the last switch, and when it goes.
    retiring: Option<(u8, Millis)>,
    sending: u8,
    /// E1-09 was counted.
    alarmed: bool,
    pub(super) cause: u8,
    pub(super) millivolts: u16,
}

impl Reports {
    pub(super) fn at_boot(now: Millis) -> Self {
        Self {
            at: Some(now.plus(AT_BOOT)),
            whole: true,
            keys: true,
            next_whole: now.plus(DAY),
            poll_at: None,
            retiring: None,
            sending: 0,
            alarmed: false,
            cause: 0,
            millivolts: 0,
        }
    }

    pub(super) fn next(&self) -> Option<Millis> {
        self.at.into_iter().chain(self.poll_at).chain([self.next_whole]).min()
    }

    pub(super) fn is_due(&self, now: Millis) -> bool {
        self.next().is_some_and(|at| at <= now)
    }

    /// There is no room for a message of their own now.
    pub(super) fn postpone(&mut self, now: Millis) {
        if self.next_whole <= now {
            (self.whole, self.next_whole) = (true, now.plus(DAY));
        }
        (self.at, self.poll_at) = (Some(now.plus(POSTPONED)), None);
    }

    /// How the device is, and what it runs, is said soon.
    pub(super) fn status_soon(&mut self, now: Millis) {
        self.whole = true;
        self.soon(now);
    }

    fn soon(&mut self, now: Millis) {
        self.at = Some(self.at.map_or(now.plus(SOON), |at| at.min(now.plus(SOON))));
    }
}

impl<const N: usize, A: Agree, E: Evidence> Node<N, A, E> {
    /// What item 3 of the reports says about the supply and the last reset.
    pub const fn note_supply(&mut self, millivolts: u16, reset_cause: u8) {
        (self.reports.millivolts, self.reports.cause) = (millivolts, reset_cause);
    }

    /// Says how a command of [`Output::Execute`](super::Output::Execute) ended; one of [`status`].
    pub fn command_done(&mut self, now: Millis, id: u64, status: u8) {
        self.now = now;
        self.running.retain(|&running| running != id);
        if let Some(result) = self.durable.change().results.iter_mut().find(|r| r.id == id) {
            result.status = status;
        }
        self.reports.soon(now);
    }

    /// The control map that goes with the next message; empty when nothing is to be said.
    pub(super) fn due_control(&self) -> (Vec<u8, PAYLOAD>, Carried) {
        let known = |r: &&StoredResult| !self.running.contains(&r.id) && !self.commands.iter().any(|c| c.id == r.id);
        let results: Vec<CommandResult<'_>, 4> = self
            .durable
            .record()
            .results
            .iter()
            .filter(known)
            .map(|r| CommandResult { id: r.id, status: r.status.into(), value: None })
            .collect();
        let carried = Carried { results: results.iter().map(|r| r.id).max().unwrap_or_default(), batch: 0 };
        let whole = self.reports.whole || self.reports.next_whole <= self.now;
        let indexes = self.key_indexes();
        let uplink = Uplink {
            results: List::of(&results),
            status: (whole || self.reports.poll_at.is_some_and(|at| at <= self.now)).then(|| Status {
                boots: self.durable.record().boots,
                uptime_s: u32::try_from(self.now.since(self.booted) / 1000).unwrap_or(u32::MAX),
                reset_cause: self.reports.cause,
                millivolts: self.reports.millivolts,
                flags: u32::from(self.renewal_fails()),
            }),
            key_indexes: indexes.filter(|_| self.reports.keys || whole),
            digest: whole.then(|| {
                let none = KeyIndexes { sending: 0, receiving: None };
                self.settings.policy.digest8(indexes.unwrap_or(none))
            }),
            ..Uplink::default()
        };
        let mut out = [0; PAYLOAD];
        let len = uplink.emit(&mut out).unwrap_or_default();
        // An empty map says nothing.
        let said = if len > 1 { out.get(..len).unwrap_or_default() } else { &[] };
        (Vec::from_slice(said).unwrap_or_default(), carried)
    }

    /// What was due is in the outbox now.
    pub(super) fn control_sealed(&mut self, now: Millis) {
        let reports = &mut self.reports;
        (reports.at, reports.whole, reports.keys) = (None, false, false);
        if reports.poll_at.is_some_and(|at| at <= now) {
            reports.poll_at = None;
        }
        if reports.next_whole <= now {
            reports.next_whole = now.plus(DAY);
        }
    }

    /// The cloud has the results up to this id.
    pub(super) fn results_known(&mut self, up_to: u64) {
        if up_to > 0 && self.durable.record().results.iter().any(|r| r.id <= up_to) {
            let (running, commands) = (&self.running, &self.commands);
            let open = |id: u64| running.contains(&id) || commands.iter().any(|c| c.id == id);
            self.durable.change().results.retain(|r| r.id > up_to || open(r.id));
        }
    }

    fn key_indexes(&self) -> Option<KeyIndexes> {
        let keys = self.mesh.as_ref()?.link().keys();
        let sending = keys.sending()?;
        Some(KeyIndexes { sending, receiving: keys.indexes().find(|&i| i != sending) })
    }

    /// Takes the control map of a confirming answer to message `number`. What is none counts as `malformed`.
    pub(super) fn told_by(&mut self, number: Number, payload: &[u8], malformed: Code) -> Result<(), Rejected> {
        let now = self.now;
        let map = Downlink::parse(payload).map_err(|m| m.counted(malformed))?;
        if let Some(received) = map.received {
            self.outbox.received(now, number, |piv| received.covers(piv));
        }
        if let Some(earlier) = map.earlier {
            self.outbox.received_earlier(|epoch, piv| earlier.covers(epoch, piv));
        }
        for order in &map.commands {
            self.order(now, &order);
        }
        if map.config.is_some() {
            self.tell(Event::ConfigIgnored);
        }
        if let Some(state) = &map.batch {
            self.told_of_batch(state);
        }
        if let Some(time) = map.time {
            self.tell(Event::Time { unix_s: time.unix_s, accuracy_s: time.accuracy_s });
        }
        // Under contexts that are renewed already it came late.
        if let Some(reason) = map.renew.filter(|_| number.epoch == self.epoch()) {
            self.want_renewal(Why::Ordered(reason));
        }
        if let Some(key) = map.link_key {
            self.link_key(now, &key);
        }
        if let Some(s) = map.poll_again_s {
            self.reports.poll_at = Some(now.plus(u64::from(s) * 1000));
        }
        if map.group.is_some() {
            self.tell(Event::GroupChanged);
        }
        Ok(())
    }

    /// A command: its id is durable, with a result that says "interrupted", before it is handed out (W4).
    fn order(&mut self, now: Millis, order: &Order<'_>) {
        let record = self.durable.record();
        // Without room for its result it is left for the cloud to send again.
        if order.id <= record.last_command || record.results.is_full() {
            return;
        }
        let arguments = Vec::from_slice(order.arguments);
        // A node in mode R cannot make the id durable.
        let refused = self.settings.policy.mode == Mode::Random || arguments.is_err();
        let status = if refused { status::REFUSED } else { status::INTERRUPTED };
        let record = self.durable.change();
        record.last_command = order.id;
        let _ = record.results.push(StoredResult { id: order.id, status });
        match arguments {
            Ok(arguments) if !refused => {
                let _ = self.running.push(order.id);
                let _ = self.commands.push_back(Command { id: order.id, op: order.op, arguments });
            }
            _ => {
                self.tell(Event::CommandRefused(order.id));
                self.reports.soon(now);
            }
        }
    }

    /// A network key, or what to do with one (docs/protocol.md 4.3). Changes are durable before anything else is sent.
    fn link_key(&mut self, now: Millis, told: &LinkKey<'_>) {
        let first = first_bound(self.settings.epoch);
        let Some(keys) = self.mesh.as_mut().map(|m| m.link_mut().keys_mut()) else { return };
        if let Some(places) = link_keys::take(keys, &self.durable.record().keys, told, first) {
            self.durable.change().keys = places;
            self.tell(Event::LinkKeys);
        }
        self.report_keys(now);
    }

    /// The network key of message_4: the node slept through a rotation (docs/protocol.md 4.3).
    pub(super) fn take_handed(&mut self, now: Millis, handed: &LinkKey<'_>) {
        let first = first_bound(self.settings.epoch);
        let Some(keys) = self.mesh.as_mut().map(|m| m.link_mut().keys_mut()) else { return };
        if let Some(places) = link_keys::take_handed(keys, &self.durable.record().keys, handed, first) {
            self.durable.change().keys = places;
        }
        self.report_keys(now);
    }

    fn report_keys(&mut self, now: Millis) {
        self.reports.keys = true;
        self.reports.soon(now);
    }

    /// Sees that the sending key changed, and gives the old one up after its time.
    pub(super) fn tend_keys(&mut self, now: Millis) {
        let Some(sending) = self.mesh.as_ref().and_then(|m| m.link().keys().sending()) else { return };
        if let Some(alarm) = self.mesh.as_ref().and_then(|m| m.link().keys().alarm())
            && !core::mem::replace(&mut self.reports.alarmed, true)
        {
            self.refuse(alarm);
        }
        let before = core::mem::replace(&mut self.reports.sending, sending);
        if before != sending {
            // At a start nobody knows how much of its time was over.
            let previous = self.mesh.as_ref().and_then(|m| m.link().keys().previous());
            self.reports.retiring = Some(before).filter(|b| *b != 0).or(previous).map(|i| (i, now.plus(RETIRE_AFTER)));
        }
        if before != 0 && before != sending {
            self.tell(Event::LinkKeys);
            self.report_keys(now);
        }
        if let Some((index, at)) = self.reports.retiring
            && at <= now
        {
            self.reports.retiring = None;
            if index != sending {
                self.link_key(now, &LinkKey { index, key: None, phase: Phase::Retire });
            }
        }
    }

    pub(super) fn keys_timeout(&self) -> Option<Millis> {
        self.reports.retiring.map(|(_, at)| at)
    }
}
