//! # Node: one device, from a reading to its confirmation
//!
//! | | |
//! |---|---|
//! | Seals       | a reading for the cloud (E3), the gateway (E2), or both, as its policy record says, and E1 around it |
//! | Keeps       | each message until the innermost level confirmed it; custody of a gateway frees nothing |
//! | Takes       | answers to its own requests, once each; commands in them, at most once |
//! | Drops as    | E1, E2, E3 and T codes, each counted |
//! | Does not    | renew its keys (E5): it says when that is due; act on downlink requests |
//! | Spec        | docs/protocol.md 4.1, 5 to 9 |
//!
//! The engine has no clock, radio or flash. Call [`Node::poll`] until it gives nothing, after everything that happened:
//! a frame, a timeout, a reading. Its [`Output`]s are a script: carry them out in order, stop for good at the first that
//! fails. Asking for the next one says that the one before was carried out; numbers that were leased in a
//! [`Output::Persist`] are used only after that.

mod answers;
mod control;
mod sending;

use core::fmt;

use fivefold_core::counter::Lease;
use fivefold_core::error::{Code, Rejected, SealError};
use fivefold_core::id::{Did, Sid};
use fivefold_core::oscore::NUMBER_LIMIT;
use fivefold_core::profile::Mode;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{Message as CoapMessage, Protected};
use fivefold_core::wire::mesh::Dispatch;
use fivefold_core::wire::tiny::{Tiny, Wants};
use heapless::{Deque, Vec};

use crate::boot::{self, BootRefused, Ends, Secrets, Settings};
use crate::entropy::Entropy;
use crate::outbox::Outbox;
use crate::relay::{Frame, Heard, Mesh};
use crate::storage::{Durable, RESULTS, Record};
use crate::tally::Tally;
use control::Reports;

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

/// What the node wants done, in order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Send a CoAP message to the gateway (devices with IP).
    Datagram(Datagram),
    /// A frame or message was refused; it is counted.
    Dropped(Rejected),
    /// Something that a person or a program may want to know.
    Event(Event),
    /// Carry out a command, then say [`Node::command_done`]. Its id is durable: it never comes again.
    Execute(Command),
    /// Make the record durable. What follows depends on it: if this fails, stop.
    Persist(Record),
    /// Send a frame.
    Transmit(Frame),
}

/// What happened. Numbers are the sender numbers that [`Node::send`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A command was ignored that cannot be carried out here; its result says so.
    CommandRefused(u64),
    /// A piece of configuration came; this node takes none.
    ConfigIgnored,
    /// The gateway stored it. The node keeps it.
    Custody(u32),
    /// The level that the policy names has it: the cloud, or the gateway where E3 is not in the policy.
    Delivered {
        /// Which message.
        number: u32,
        /// Milliseconds since it was sent first.
        after: u64,
    },
    /// It can no longer be sent under the gateway's window, and no other way is safe: it is lost.
    GivenUp(u32),
    /// The cloud named another gateway group; new E2 secrets must be installed.
    GroupChanged,
    /// The network key that is sent under, or that frames are taken under, changed.
    LinkKeys,
    /// No answer after three retransmissions; it is tried again later.
    Parked(u32),
    /// The cloud refuses it for good, with this CoAP code.
    Refused {
        /// Which message.
        number: u32,
        /// CoAP code.
        code: u8,
    },
    /// Keys must be renewed. Renewal (E5) is not part of this engine: after [`Why::Refused`] and [`Why::Spent`] nothing
    /// more is sent until new secrets are installed.
    RenewalNeeded(Why),
    /// It was given to the radio.
    Sent {
        /// Which message.
        number: u32,
        /// How often so far.
        attempt: u8,
    },
    /// The other side asks for patience; nothing of our own is sent for so many milliseconds.
    SlowDown(u64),
    /// A neighbour proved itself.
    Synced(Did, Sid),
    /// The time, as the cloud claims it, within so many seconds.
    Time {
        /// Seconds since 1970.
        unix_s: u64,
        /// Accuracy in seconds.
        accuracy_s: u32,
    },
}

/// Why keys must be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// 2^14 answers failed to verify.
    Failures,
    /// The sender number passed 49152.
    Number,
    /// The operator orders it, for this reason.
    Ordered(u64),
    /// 4.01: the other side has no use for our keys any more.
    Refused,
    /// The sender number reached 2^20.
    Spent,
}

/// A command of the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Increases per device.
    pub id: u64,
    /// What to do; the device type's own numbering.
    pub op: u64,
    /// Arguments: CBOR items, one after the other.
    pub arguments: Vec<u8, ARGUMENTS>,
}

/// Why a reading was not taken. Nothing of it is kept and no number is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendRefused {
    /// The outbox is full: readings wait for the confirmation of older ones.
    Full,
    /// Keys must be renewed first.
    RenewalNeeded,
    /// It cannot be sealed: too long for this radio and combination, or a lease is due ([`Node::poll`] first).
    Seal(SealError),
}

impl fmt::Display for SendRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the outbox is full of readings that nobody confirmed yet"),
            Self::RenewalNeeded => f.write_str("the keys must be renewed first; enrol the device again"),
            Self::Seal(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for SendRefused {}

#[derive(Clone, Copy, Debug)]
enum Told {
    Dropped(Rejected),
    Event(Event),
}

/// One device. `N` messages wait in its outbox at a time.
pub struct Node<const N: usize = 8> {
    settings: Settings,
    durable: Durable,
    mesh: Option<Mesh>,
    ends: Ends,
    piv: Lease,
    outbox: Outbox<N>,
    tally: Tally,
    told: Deque<Told, TOLD>,
    commands: Deque<Command, RESULTS>,
    running: Vec<u64, RESULTS>,
    reports: Reports,
    /// Answers that did not verify.
    failures: u32,
    /// Messages sealed since boot.
    sealed: u32,
    /// Whether an answer verified since boot.
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
    /// A device that has just booted. `record` is the newest that was stored, `None` on a new device.
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
        let boot::Started { record, mesh, ends } = boot::start(&settings, secrets, record, entropy)?;
        let mut piv = Lease::resume(record.piv_bound, NUMBER_LIMIT);
        if settings.policy.mode == Mode::Random {
            // Every boot has a context of its own: its numbers start at 0 and need no lease.
            piv = Lease::resume(0, NUMBER_LIMIT);
            piv.extend(NUMBER_LIMIT);
        }
        Ok(Self {
            outbox: Outbox::new(settings.patience),
            reports: Reports::at_boot(now),
            durable: Durable::new(record),
            settings,
            mesh,
            ends,
            piv,
            tally: Tally::new(),
            told: Deque::new(),
            commands: Deque::new(),
            running: Vec::new(),
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

    fn frame(&mut self, now: Millis, frame: &mut [u8]) -> Result<(), Rejected> {
        let mesh = self.mesh.as_mut().ok_or(Rejected::new(Code::LinkNotOurs, "no radio of ours"))?;
        match mesh.receive(now, frame)? {
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

    /// A datagram of the gateway, for devices with IP.
    pub fn handle_datagram(&mut self, now: Millis, datagram: &[u8]) {
        self.now = now;
        if let Err(refused) = self.coap(datagram) {
            self.refuse(refused);
        }
    }

    fn coap(&mut self, datagram: &[u8]) -> Result<(), Rejected> {
        if self.mesh.is_some() {
            return Err(Rejected::new(Code::TinyMalformed, "this device has no IP link"));
        }
        // An empty ACK is no answer: it only says that the gateway has the message.
        if CoapMessage::parse(datagram)?.code == 0 {
            return Ok(());
        }
        let answer = Protected::parse_answer(datagram)?;
        let &[token] = answer.token.as_bytes() else {
            return Err(Rejected::new(Code::TinyMalformed, "a token that is none of ours"));
        };
        self.answer(self.layers().ok_or(NO_ANSWERS)?, token, answer.option.piv, answer.ciphertext)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Millis) {
        self.now = now;
    }

    /// The next thing to do. `None` until something happens, or [`Self::poll_timeout`] has come.
    pub fn poll(&mut self) -> Option<Output> {
        let now = self.now;
        self.tend_keys(now);
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
        if !self.may_send(now) {
            return None;
        }
        self.report(now);
        self.transmit(now)
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Millis> {
        let link = self.mesh.as_ref().and_then(|m| m.poll_timeout().filter(|_| m.link().keys().is_ready()));
        let own =
            if self.halted { None } else { self.outbox.poll_timeout().into_iter().chain(self.reports.next()).min() };
        let ready = self.ready.unwrap_or(self.booted.plus(GREETING));
        let own = own.map(|at| at.max(self.held_until).max(ready));
        link.into_iter().chain(own).chain(self.keys_timeout()).min()
    }

    /// What confirmed messages and overdue ones lead to.
    fn settle(&mut self, now: Millis) -> Option<Event> {
        if let Some(number) = self.outbox.confirmed() {
            let message = self.outbox.take(number)?;
            self.results_known(message.carried.results);
            let after = message.first_sent.map_or(0, |sent| now.since(sent));
            return Some(Event::Delivered { number, after });
        }
        let number = self.outbox.tick(now)?;
        if let Some(mesh) = &mut self.mesh
            && let Some(parent) = mesh.parent(now)
        {
            mesh.unanswered_by(now, parent);
        }
        Some(Event::Parked(number))
    }

    fn may_send(&mut self, now: Millis) -> bool {
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
        !self.halted && self.ready.is_some_and(|at| at <= now) && self.held_until <= now
    }

    /// What was refused so far.
    pub const fn tally(&self) -> &Tally {
        &self.tally
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
    pub fn waiting(&self) -> impl Iterator<Item = u32> + '_ {
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

    fn halt(&mut self, why: Why) {
        if !core::mem::replace(&mut self.halted, true) {
            self.tell(Event::RenewalNeeded(why));
        }
    }
}

impl<const N: usize> fmt::Debug for Node<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("did", &self.settings.did)
            .field("waiting", &self.outbox.len())
            .finish_non_exhaustive()
    }
}

const NO_ANSWERS: Rejected = Rejected::new(Code::TinyMalformed, "a device with E1 alone has no answers");

/// A = 1 or 0.
const fn wanted(answer: bool) -> Wants {
    if answer { Wants::Answer } else { Wants::Nothing }
}
