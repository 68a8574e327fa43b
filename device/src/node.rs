//! # Node: one device, from a reading to its confirmation
//!
//! | | |
//! |---|---|
//! | Seals       | a reading for the cloud (E3), the gateway (E2), or both, as its policy record says, and E1 around it |
//! | Keeps       | each message until the innermost level confirmed it; custody of a gateway frees nothing |
//! | Takes       | answers to its own requests, once each; commands in them, at most once |
//! | Drops as    | E1, E2, E3 and T codes, each counted |
//! | Renews      | its contexts with the cloud, or its gateway alone (E5), if it was given a key for that; else it says when that is due |
//! | Signs       | its readings in batches, if it was given a key for that ([`evidence`](crate::evidence)) |
//! | Does not    | act on downlink requests |
//! | Spec        | docs/protocol.md 4.1, 5 to 9, 11 |
//!
//! The engine has no clock, radio or flash. Call [`Node::poll`] until it gives nothing, after everything that happened:
//! a frame, a timeout, a reading. Its [`Output`]s are a script: carry them out in order, stop for good at the first that
//! fails. Asking for the next one says that the one before was carried out; numbers that were leased in a
//! [`Output::Persist`] are used only after that.

mod answers;
mod control;
mod event;
mod proving;
mod renewing;
mod sending;

use core::fmt;

use fivefold_core::counter::Lease;
use fivefold_core::e1_link::Reach;
use fivefold_core::e5_renewal::Draw;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{Did, Epoch};
use fivefold_core::oscore::NUMBER_LIMIT;
use fivefold_core::profile::Mode;
use fivefold_core::suite::agreement::Agree;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{Message as CoapMessage, Protected};
use fivefold_core::wire::mesh::Dispatch;
use fivefold_core::wire::tiny::{EdhocRule, Tiny, Wants};
use heapless::{Deque, Vec};

use crate::boot::{self, BootRefused, Ends, Secrets, Settings};
use crate::entropy::Entropy;
use crate::evidence::{Close, Evidence, Unsigned};
use crate::outbox::{Number, Outbox};
use crate::relay::{Heard, Mesh};
use crate::renewal::{Keys, NoCurve, Renewal, Why};
use crate::storage::{Durable, RESULTS, Record};
use crate::tally::Tally;
use control::Reports;
pub use event::{Command, Event, Output, SendRefused};
use renewing::{Before, Silence};

/// Bytes of a command's arguments, at most. A longer command is refused.
pub const ARGUMENTS: usize = 32;
/// Bytes of a CoAP message to a gateway on IP, at most.
pub const DATAGRAM: usize = 160;

/// The statuses of command results (docs/protocol.md 7.1, item 2).
pub mod status {
    /// Carried out.
    pub const DONE: u8 = 0;
    /// Tried, and not successful.
    pub const FAILED: u8 = 1;
    /// Not tried: this device does not do that.
    pub const REFUSED: u8 = 2;
    /// Begun before the power went; whether it was carried out is not known. It is not tried again.
    pub const INTERRUPTED: u8 = 3;
}

/// How long the first messages wait for a neighbour to prove itself, in milliseconds.
const GREETING: u64 = 8_000;
/// After the first neighbour is synced, the time that its own HELLO-FIN takes at most, in milliseconds.
const SETTLE: u64 = 1_100;
const TOLD: usize = 8;

/// A CoAP message for a gateway on IP.
pub type Datagram = Vec<u8, DATAGRAM>;

#[derive(Clone, Copy, Debug)]
enum Told {
    Dropped(Rejected),
    Event(Event),
}

/// One device. `N` messages wait in its outbox at a time; `A` is the curve that it renews its keys with, `E` says whether it
/// signs its readings.
pub struct Node<const N: usize = 8, A = NoCurve, E = Unsigned> {
    settings: Settings,
    durable: Durable,
    mesh: Option<Mesh>,
    /// The contexts of the record's epoch.
    ends: Ends,
    /// Those before, for answers only.
    before: Option<Before>,
    piv: Lease,
    outbox: Outbox<N>,
    tally: Tally,
    told: Deque<Told, TOLD>,
    commands: Deque<Command, RESULTS>,
    running: Vec<u64, RESULTS>,
    reports: Reports,
    renewal: Option<Renewal<A>>,
    evidence: E,
    silence: Silence,
    /// Since when these contexts are in use, or since the boot.
    since: Millis,
    /// Answers that did not verify.
    failures: u32,
    /// Messages sealed since boot.
    sealed: u32,
    /// Whether an answer verified since boot, under these contexts.
    verified: bool,
    halted: bool,
    warned: bool,
    held_until: Millis,
    hold: u64,
    booted: Millis,
    ready: Option<Millis>,
    now: Millis,
}

impl<const N: usize> Node<N> {
    /// A device that has just booted, and keeps the contexts that were installed. `record` is the newest that was stored,
    /// `None` on a new device.
    ///
    /// # Errors
    /// [`BootRefused`]: nothing may be sent.
    #[inline(always)]
    pub fn boot(
        now: Millis,
        settings: Settings,
        secrets: &Secrets,
        record: Option<Record>,
        entropy: &Entropy,
    ) -> Result<Self, BootRefused> {
        Self::start(now, settings, secrets, (None, Unsigned), record, entropy)
    }
}

impl<const N: usize, A: Agree> Node<N, A> {
    /// A device that has just booted, and renews its contexts with the cloud. `secrets` may hold none yet: then it agrees on
    /// the first ones, and takes no reading before. Without keys it is as [`Node::boot`] makes it.
    ///
    /// # Errors
    /// [`BootRefused`]: nothing may be sent.
    #[inline(always)]
    pub fn boot_renewing(
        now: Millis,
        settings: Settings,
        secrets: &Secrets,
        keys: Option<Keys<A>>,
        record: Option<Record>,
        entropy: &Entropy,
    ) -> Result<Self, BootRefused> {
        Self::start(now, settings, secrets, (keys, Unsigned), record, entropy)
    }
}

impl<const N: usize, A: Agree, E: Evidence> Node<N, A, E> {
    /// A device that has just booted, and signs its readings where its policy record says so. Otherwise as
    /// [`Node::boot_renewing`].
    ///
    /// # Errors
    /// [`BootRefused`]: nothing may be sent.
    #[inline(always)]
    pub fn boot_signing(
        now: Millis,
        settings: Settings,
        secrets: &Secrets,
        (keys, evidence): (Option<Keys<A>>, E),
        record: Option<Record>,
        entropy: &Entropy,
    ) -> Result<Self, BootRefused> {
        Self::start(now, settings, secrets, (keys, evidence), record, entropy)
    }

    #[inline(always)]
    fn start(
        now: Millis,
        settings: Settings,
        secrets: &Secrets,
        (keys, mut evidence): (Option<Keys<A>>, E),
        record: Option<Record>,
        entropy: &Entropy,
    ) -> Result<Self, BootRefused> {
        let boot::Started { record, mesh, ends } = boot::start(&settings, secrets, keys.as_ref(), record, entropy)?;
        proving::begin(&mut evidence, &settings, secrets, &record, &ends)?;
        let mut piv = Lease::resume(record.piv_bound, NUMBER_LIMIT);
        let persistent = settings.policy.mode == Mode::Persistent;
        if !persistent {
            // Every boot has a context of its own: its numbers start at 0 and need no lease.
            piv = Lease::resume(0, NUMBER_LIMIT);
            piv.extend(NUMBER_LIMIT);
        }
        let profile = settings.policy.profile;
        let keys = keys.filter(|_| persistent && (profile.has_e2() || profile.has_e3()));
        Ok(Self {
            outbox: Outbox::new(settings.patience),
            reports: Reports::at_boot(now),
            renewal: keys.map(|keys| Renewal::new(keys, settings.timers, Draw::new(entropy.renewal_seed()))),
            evidence,
            silence: Silence::at_boot(now, &record),
            durable: Durable::new(record),
            settings,
            mesh,
            ends,
            before: None,
            piv,
            tally: Tally::new(),
            told: Deque::new(),
            commands: Deque::new(),
            running: Vec::new(),
            since: now,
            failures: 0,
            sealed: 0,
            verified: false,
            halted: false,
            warned: false,
            held_until: Millis(0),
            hold: 0,
            booted: now,
            ready: None,
            now,
        })
    }

    /// A frame of the radio, with its check sequence. It is decrypted in place.
    pub fn handle_frame(&mut self, now: Millis, frame: &mut [u8]) {
        self.now = now;
        if let Err(refused) = self.frame(now, frame) {
            self.refuse(refused);
        }
    }

    /// Counts what the rim refused before it became a frame: a datagram that is no ZEP, for one.
    pub fn count_refused(&mut self, now: Millis, rejected: Rejected) {
        self.now = now;
        self.refuse(rejected);
    }

    /// An E1S message, with the EUI-64 that the radio says it came from, and to whom. It is decrypted in place.
    pub fn handle_message(&mut self, now: Millis, source: (Did, Reach), message: &mut [u8]) {
        self.now = now;
        let heard = self.mesh.as_mut().ok_or(NO_RADIO).and_then(|m| m.receive_message(now, source, message));
        if let Err(refused) = heard.and_then(|heard| self.hear(heard)) {
            self.refuse(refused);
        }
    }

    fn frame(&mut self, now: Millis, frame: &mut [u8]) -> Result<(), Rejected> {
        let heard = self.mesh.as_mut().ok_or(NO_RADIO)?.receive(now, frame)?;
        self.hear(heard)
    }

    fn hear(&mut self, heard: Heard<'_>) -> Result<(), Rejected> {
        match heard {
            Heard::Datagram(datagram) => match datagram.dispatch {
                Dispatch::Tiny(_) => self.tiny(datagram.payload),
                _ => Err(Rejected::new(Code::TinyMalformed, "this node takes tiny frames only")),
            },
            Heard::Passing | Heard::Quiet => Ok(()),
            Heard::Synced(did, sid) => {
                self.tell(Event::Synced(did, sid));
                Ok(())
            }
        }
    }

    fn tiny(&mut self, frame: &[u8]) -> Result<(), Rejected> {
        match Tiny::parse(frame, self.settings.policy.kid_length)? {
            Tiny::Answer { layers, token, piv, ciphertext } => self.answer(layers, token, piv, ciphertext),
            Tiny::Edhoc { rule: EdhocRule::ToClient, payload } => self.edhoc(payload),
            Tiny::Edhoc { rule: EdhocRule::Error, .. } => Err(renewing::SAID_BY_ANYBODY),
            // The answer to a downlink request has no room for a number (docs/protocol.md 6.2): challenged by Echo under
            // the request's own nonce, a device that rebooted would use that nonce twice. So it acts on none.
            Tiny::Downlink { .. } => {
                let code =
                    if self.settings.policy.profile.has_e3() { Code::CloudReplayed } else { Code::GatewayReplayed };
                Err(Rejected::new(code, "a downlink request cannot be proven fresh: commands come in answers"))
            }
            _ => Err(Rejected::new(Code::TinyMalformed, "no message for a device")),
        }
    }

    /// A tiny frame that came by a link which is E1 by itself (feature `lorawan`): on LoRaWAN FPort, then FRMPayload.
    pub fn handle_tiny(&mut self, now: Millis, frame: &[u8]) {
        self.now = now;
        let none = Rejected::new(Code::LinkNotOurs, "no radio whose link is E1 by itself");
        let taken = if boot::is_bare(self.settings.policy.radio) { self.tiny(frame) } else { Err(none) };
        if let Err(refused) = taken {
            self.refuse(refused);
        }
    }

    /// A datagram of the gateway, for devices with IP.
    pub fn handle_datagram(&mut self, now: Millis, datagram: &[u8]) {
        self.now = now;
        if let Err(refused) = self.coap(datagram) {
            self.refuse(refused);
        }
    }

    fn coap(&mut self, datagram: &[u8]) -> Result<(), Rejected> {
        if !self.is_on_ip() {
            return Err(Rejected::new(Code::TinyMalformed, "this device has no IP link"));
        }
        let message = CoapMessage::parse(datagram)?;
        // An empty ACK is no answer: it only says that the gateway has the message.
        if message.code == 0 {
            return Ok(());
        }
        if self.is_about_renewal(&message) {
            return self.edhoc_coap(&message);
        }
        let answer = Protected::parse_answer(datagram)?;
        let &[token] = answer.token.as_bytes() else {
            return Err(Rejected::new(Code::TinyMalformed, "a token that is none of ours"));
        };
        self.answer(self.layers().ok_or(NO_ANSWERS)?, token, answer.option.piv, answer.ciphertext)
    }

    /// Whether messages go as CoAP, and not as tiny frames.
    const fn is_on_ip(&self) -> bool {
        self.mesh.is_none() && !boot::is_bare(self.settings.policy.radio)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Millis) {
        self.now = now;
    }

    /// The next thing to do. `None` until something happens, or [`Self::poll_timeout`] has come.
    pub fn poll(&mut self) -> Option<Output> {
        let now = self.now;
        self.tend_keys(now);
        self.tend_renewal(now);
        self.tend_evidence(now, Close::WhenDue);
        let keys = self.mesh.as_mut().map(|m| m.link_mut().keys_mut());
        let piv = (self.settings.policy.mode == Mode::Persistent).then_some(&mut self.piv);
        if let Some(record) = self.durable.due(keys, piv) {
            return Some(Output::Persist(record));
        }
        if let Some(command) = self.commands.pop_front() {
            return Some(Output::Execute(command));
        }
        if let Some(told) = self.told.pop_front() {
            return Some(match told {
                Told::Dropped(rejected) => Output::Dropped(rejected),
                Told::Event(event) => Output::Event(event),
            });
        }
        if let Some(event) = self.settle(now) {
            return Some(Output::Event(event));
        }
        if let Some(frame) = self.mesh.as_mut().and_then(|m| m.poll(now)) {
            return Some(Output::Transmit(frame));
        }
        if !self.is_ready(now) {
            return None;
        }
        if let Some(output) = self.transmit_renewal(now) {
            return Some(output);
        }
        if self.halted || self.ends_missing() {
            return None;
        }
        self.report(now);
        self.say_evidence(now);
        self.transmit(now)
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Millis> {
        let link = self.mesh.as_ref().and_then(|m| m.poll_timeout().filter(|_| m.link().keys().is_ready()));
        let items = self.evidence.items_at().filter(|_| !self.outbox.is_full());
        let outbox = self.outbox.poll_timeout().into_iter().chain(self.reports.next()).chain(items);
        let outbox = outbox.min().filter(|_| !self.halted && !self.ends_missing());
        let ready = self.ready.unwrap_or(self.booted.plus(GREETING));
        let own = outbox.into_iter().chain(self.renewal_timeout()).map(|at| at.max(self.held_until).max(ready));
        link.into_iter()
            .chain(own)
            .chain(self.keys_timeout())
            .chain(self.silence_timeout())
            .chain(self.evidence.closes_at())
            .min()
    }

    /// What confirmed messages and overdue ones lead to.
    fn settle(&mut self, now: Millis) -> Option<Event> {
        if let Some(number) = self.outbox.confirmed() {
            let message = self.outbox.take(number)?;
            self.results_known(message.carried.results);
            self.evidence.delivered(number.epoch, number.value);
            let after = message.first_sent.map_or(0, |sent| now.since(sent));
            return Some(Event::Delivered { number, after });
        }
        if let Some(number) = self.outbox.over(now) {
            return Some(self.give_up(number));
        }
        let number = self.outbox.tick(now)?;
        if let Some(mesh) = &mut self.mesh
            && let Some(parent) = mesh.parent(now)
        {
            mesh.unanswered_by(now, parent);
        }
        Some(Event::Parked(number))
    }

    /// Whether the radio has somebody to talk to, and may.
    fn is_ready(&mut self, now: Millis) -> bool {
        if self.ready.is_none() {
            let late = now >= self.booted.plus(GREETING);
            self.ready = match &mut self.mesh {
                None => Some(now),
                Some(mesh) => {
                    if mesh.has_neighbour() {
                        Some(now.plus(SETTLE))
                    } else {
                        late.then_some(now)
                    }
                }
            };
        }
        self.ready.is_some_and(|at| at <= now) && self.held_until <= now
    }

    /// What was refused so far.
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Key generation of what is sealed now. Where nothing can be sealed yet: the first one to agree on.
    pub const fn epoch(&self) -> Epoch {
        self.durable.record().epoch
    }

    /// Who the node is and what it does.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The link, on radios with E1 of ours.
    pub const fn mesh(&self) -> Option<&Mesh> {
        self.mesh.as_ref()
    }

    /// Messages that are not confirmed: their numbers, the oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = Number> + '_ {
        self.outbox.numbers()
    }

    /// Whether nothing more is sent until keys are renewed.
    pub const fn is_halted(&self) -> bool {
        self.halted
    }

    fn tell(&mut self, event: Event) {
        self.push(Told::Event(event));
    }

    fn refuse(&mut self, rejected: Rejected) {
        self.tally.count(rejected);
        self.push(Told::Dropped(rejected));
    }

    /// The oldest goes when nobody asks: counters and the outbox keep what matters.
    fn push(&mut self, told: Told) {
        if self.told.is_full() {
            self.told.pop_front();
        }
        let _ = self.told.push_back(told);
    }

    /// These contexts are of no use any more.
    fn halt(&mut self, why: Why) {
        if !core::mem::replace(&mut self.halted, true) {
            self.want_renewal(why);
        }
    }
}

impl<const N: usize, A, E> fmt::Debug for Node<N, A, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("did", &self.settings.did)
            .field("waiting", &self.outbox.len())
            .finish_non_exhaustive()
    }
}

const NO_RADIO: Rejected = Rejected::new(Code::LinkNotOurs, "no radio of ours");
const NO_ANSWERS: Rejected = Rejected::new(Code::TinyMalformed, "a device with E1 alone has no answers");

/// A = 1 or 0.
const fn wanted(answer: bool) -> Wants {
    if answer { Wants::Answer } else { Wants::Nothing }
}
