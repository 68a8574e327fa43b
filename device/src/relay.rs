//! # Relay: frames of others, one hop further
//!
//! | | |
//! |---|---|
//! | Key held    | the network's (E1), nothing else |
//! | Forwards    | what a synced neighbour sealed, with one hop less, sealed again under its own address and counter |
//! | Drops as    | `E1-01` to `E1-11`; `E1-10` for loops and last hops, `E1-08` when there is no way on |
//! | Does not    | read or alter what is inside; forward anything before CCM* succeeded |
//! | Spec        | docs/protocol.md 4.1 |
//!
//! [`Mesh`] is what every station on the radio has; a [`Node`](crate::Node) carries one. [`Relay`] is a mesh with nothing
//! above it.

use fivefold_core::e1_link::{
    Air, Delivered, FixedNeighbours, Identity, Link, LinkKeys, LinkPolicy, Neighbours, Over, Reach, Received,
};
use fivefold_core::error::{Code, Rejected, SealError};
use fivefold_core::id::{Did, Sid};
use fivefold_core::time::Millis;
use fivefold_core::wire::ieee802154::{Ack, MAX_FRAME};
use fivefold_core::wire::mesh;
use heapless::{Deque, Vec};

use crate::boot::{self, BootRefused, Secrets, Settings};
use crate::entropy::Entropy;
use crate::storage::{Durable, Record};
use crate::tally::Tally;

/// Neighbours of a node, at most.
pub const NEIGHBOURS: usize = 16;
/// Parents of a node, at most.
pub const PARENTS: usize = 4;
/// Configured and learned ways down, at most, each.
pub const ROUTES: usize = 32;
/// Longest payload behind a mesh header, with a MIC of 32 bits.
pub const PAYLOAD: usize = 101;

/// How long a learned way down is believed, in milliseconds.
const ROUTE_LIFE: u64 = 600_000;
/// Messages without answer after which the next parent is tried.
const PARENT_TRIES: u8 = 3;
/// How long a silent parent is passed over, in milliseconds.
const PARENT_REST: u64 = 300_000;
const FORWARDS: usize = 4;

/// An 802.15.4 frame with its check sequence, or an E1S message, for the radio.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    bytes: Vec<u8, MAX_FRAME>,
    over: Over,
}

impl Frame {
    /// What `write` puts into it; it says how many bytes, and what they are written for.
    fn written<E>(write: impl FnOnce(&mut [u8]) -> Result<(usize, Over), E>) -> Result<Self, E> {
        let mut bytes = [0; MAX_FRAME];
        let (len, over) = write(&mut bytes)?;
        Ok(Self { bytes: bytes.into_iter().take(len).collect(), over })
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What they are, and to whom the radio sends them where they do not say it themselves.
    pub const fn over(&self) -> Over {
        self.over
    }
}

/// Where a frame goes on its way up and down.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    /// Next hops to a gateway, the preferred one first. 0000 is a gateway in reach.
    pub parents: Vec<Sid, PARENTS>,
    /// Next hops to devices that were not heard: (device, neighbour).
    pub children: Vec<(Sid, Sid), ROUTES>,
}

#[derive(Clone, Copy, Debug)]
struct Parent {
    sid: Sid,
    failures: u8,
    rests_until: Millis,
}

#[derive(Clone, Copy, Debug)]
struct Route {
    originator: Sid,
    neighbour: Sid,
    until: Millis,
}

impl Route {
    /// What led on until the beginning of time leads nowhere, and is the first to be replaced.
    const NONE: Self = Self { originator: Sid(0), neighbour: Sid(0), until: Millis(0) };
}

#[derive(Clone, Debug)]
struct Waiting {
    to: Sid,
    mesh: mesh::Header,
    payload: Vec<u8, PAYLOAD>,
}

/// The link of one station, its ways up and down, and the frames that wait to go on.
pub struct Mesh {
    link: Link<FixedNeighbours<NEIGHBOURS>>,
    parents: Vec<Parent, PARENTS>,
    children: Vec<(Sid, Sid), ROUTES>,
    routes: [Route; ROUTES],
    waiting: Deque<Waiting, FORWARDS>,
    gateway: Gateway,
}

/// Where "any gateway" is reached by a message to one. Of E1S alone, which names no next hop.
#[derive(Clone, Copy, Debug)]
enum Gateway {
    /// This one: an answer held that it brought.
    Answered(Did),
    /// A datagram of its own came from this one; nothing is known of it yet.
    Spoke(Did),
    /// Nobody: the message goes to all.
    Unknown,
}

/// What a frame meant for the station itself.
#[derive(Debug)]
pub enum Heard<'b> {
    /// A datagram for us.
    Datagram(Delivered<'b>),
    /// Another's datagram, put in line.
    Passing,
    /// A HELLO, or a key switch of a neighbour: nothing to do here.
    Quiet,
    /// A neighbour is synced.
    Synced(Did, Sid),
}

impl Mesh {
    /// A station that has just booted.
    #[inline(always)]
    pub fn new(identity: Identity, policy: LinkPolicy, keys: LinkKeys, ways: Ways, seed: [u8; 32]) -> Self {
        let parent = |&sid: &Sid| Parent { sid, failures: 0, rests_until: Millis(0) };
        Self {
            link: Link::new(identity, policy, keys, FixedNeighbours::new(), seed),
            parents: ways.parents.iter().map(parent).collect(),
            children: ways.children,
            routes: [Route::NONE; ROUTES],
            waiting: Deque::new(),
            gateway: Gateway::Unknown,
        }
    }

    /// The link.
    pub const fn link(&self) -> &Link<FixedNeighbours<NEIGHBOURS>> {
        &self.link
    }

    /// The link, to change keys and neighbours.
    pub const fn link_mut(&mut self) -> &mut Link<FixedNeighbours<NEIGHBOURS>> {
        &mut self.link
    }

    /// Judges a frame; another's datagram is put in line.
    ///
    /// # Errors
    /// As [`Link::receive`]; `E1-08` when there is no way on, `E1-10` when the line is full.
    pub fn receive<'b>(&mut self, now: Millis, frame: &'b mut [u8]) -> Result<Heard<'b>, Rejected> {
        let received = self.link.receive(now, frame)?;
        self.heard(now, received)
    }

    /// Judges an E1S message that the radio received from `source`; as [`Self::receive`].
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn receive_message<'b>(
        &mut self,
        now: Millis,
        source: (Did, Reach),
        message: &'b mut [u8],
    ) -> Result<Heard<'b>, Rejected> {
        let received = self.link.e1s_open(now, source, message)?;
        if let Received::Deliver(datagram) = &received {
            self.gateway = match self.gateway {
                Gateway::Answered(did) if datagram.originator != datagram.from || did == datagram.neighbour => {
                    Gateway::Answered(did)
                }
                _ if datagram.originator == datagram.from => Gateway::Spoke(datagram.neighbour),
                _ => Gateway::Unknown,
            };
        }
        self.heard(now, received)
    }

    fn heard<'b>(&mut self, now: Millis, received: Received<'b>) -> Result<Heard<'b>, Rejected> {
        match received {
            Received::Deliver(datagram) => {
                self.learn(now, datagram.originator, datagram.from);
                Ok(Heard::Datagram(datagram))
            }
            Received::Forward(f) => {
                self.learn(now, f.mesh.originator, f.from);
                let to = self.way_to(now, f.mesh.destination).filter(|&to| to != f.from);
                let to = to.ok_or(Rejected::new(Code::LinkNeighbourUnknown, "no way to the destination"))?;
                let payload = Vec::from_slice(f.payload)
                    .map_err(|_| Rejected::new(Code::LinkMalformed, "longer than a frame of ours carries"))?;
                self.waiting
                    .push_back(Waiting { to, mesh: f.mesh, payload })
                    .map_err(|_| Rejected::new(Code::LinkHopLimit, "more to forward than there is room for"))?;
                Ok(Heard::Passing)
            }
            Received::Synced { from, sid } => {
                self.answered_by(sid);
                Ok(Heard::Synced(from, sid))
            }
            Received::Hello { .. } | Received::KeySwitch { .. } => Ok(Heard::Quiet),
        }
    }

    /// The parent that takes the next message up: the first that is synced and not silent.
    pub fn parent(&mut self, now: Millis) -> Option<Sid> {
        let (link, parents) = (&mut self.link, &self.parents);
        let synced = |sid: Sid, table: &mut FixedNeighbours<NEIGHBOURS>| {
            sid == Sid::ANY_GATEWAY || table.by_sid(sid).is_some_and(|n| n.is_synced())
        };
        let best = parents.iter().find(|p| p.rests_until <= now && synced(p.sid, link.neighbours_mut()));
        best.or(parents.first()).map(|p| p.sid)
    }

    /// Whether a first message has somebody to go to: a parent of ours, or any gateway, was heard and is synced.
    pub fn has_neighbour(&mut self) -> bool {
        let any = self.parents.iter().any(|p| p.sid == Sid::ANY_GATEWAY);
        let table = self.link.neighbours_mut();
        if any {
            return table.iter().any(|n| n.is_synced());
        }
        self.parents.iter().any(|p| table.by_sid(p.sid).is_some_and(|n| n.is_synced()))
    }

    /// A message that went up by `parent` was not answered.
    pub fn unanswered_by(&mut self, now: Millis, parent: Sid) {
        self.link.want_one_hello(now);
        if parent == Sid::ANY_GATEWAY {
            self.gateway = Gateway::Unknown;
        }
        if let Some(p) = self.parents.iter_mut().find(|p| p.sid == parent) {
            p.failures = p.failures.saturating_add(1);
            if p.failures >= PARENT_TRIES {
                (p.failures, p.rests_until) = (0, now.plus(PARENT_REST));
            }
        }
    }

    /// A message that went up by `parent` was answered.
    pub fn answered_by(&mut self, parent: Sid) {
        if let (Sid::ANY_GATEWAY, Gateway::Spoke(did)) = (parent, self.gateway) {
            self.gateway = Gateway::Answered(did);
        }
        if let Some(p) = self.parents.iter_mut().find(|p| p.sid == parent) {
            (p.failures, p.rests_until) = (0, Millis(0));
        }
    }

    /// Seals a datagram of our own for the next hop.
    ///
    /// # Errors
    /// As [`Link::seal`].
    pub fn seal(&mut self, to: Sid, mesh: mesh::Header, payload: &[u8]) -> Result<Frame, SealError> {
        let over = match self.link.over(to) {
            Over::E1s { to: None } if to == Sid::ANY_GATEWAY => match self.gateway {
                Gateway::Answered(did) => Over::E1s { to: Some(did) },
                Gateway::Spoke(_) | Gateway::Unknown => Over::E1s { to: None },
            },
            over => over,
        };
        let direct = to == Sid::ANY_GATEWAY && mesh.originator == self.link.identity().sid && self.is_direct();
        let mesh = (!direct).then_some(mesh);
        Frame::written(|out| Ok((self.link.seal(to, Ack::Request, mesh, payload, out)?, over)))
    }

    /// Whether messages of our own take no mesh header: the module finds the gateway itself, or has it in reach.
    pub fn is_direct(&self) -> bool {
        !matches!(self.link.policy().air, Air::Ieee802154) && self.parents.iter().all(|p| p.sid == Sid::ANY_GATEWAY)
    }

    /// The next frame that waits: HELLO and its answers first, then what goes on for others. `None` also while the lease
    /// of the link is spent.
    pub fn poll(&mut self, now: Millis) -> Option<Frame> {
        if !self.link.keys().is_ready() {
            return None;
        }
        if let Ok(control) = Frame::written(|out| self.link.poll_control(now, out).map(|c| (c.len, c.over)).ok_or(())) {
            return Some(control);
        }
        while let Some(next) = self.waiting.pop_front() {
            // What does not fit under our longer MIC cannot go on.
            if let Ok(frame) = self.seal(next.to, next.mesh, &next.payload) {
                return Some(frame);
            }
        }
        None
    }

    /// When [`Self::poll`] has something.
    pub fn poll_timeout(&self) -> Option<Millis> {
        if self.waiting.is_empty() { self.link.poll_timeout() } else { Some(Millis(0)) }
    }

    fn learn(&mut self, now: Millis, originator: Sid, neighbour: Sid) {
        let at = self.routes.iter().position(|r| r.originator == originator);
        let oldest = || self.routes.iter().enumerate().min_by_key(|(_, r)| r.until).map(|(at, _)| at);
        if let Some(route) = at.or_else(oldest).and_then(|at| self.routes.get_mut(at)) {
            *route = Route { originator, neighbour, until: now.plus(ROUTE_LIFE) };
        }
    }

    /// Up to a parent; down along the way that the originator's last frame came, else as configured, else to a neighbour.
    fn way_to(&mut self, now: Millis, destination: Sid) -> Option<Sid> {
        if destination == Sid::ANY_GATEWAY {
            return self.parent(now);
        }
        let learned = self.routes.iter().find(|r| r.originator == destination && now < r.until);
        let configured = || self.children.iter().find(|(to, _)| *to == destination).map(|(_, by)| *by);
        if let Some(way) = learned.map(|r| r.neighbour).or_else(configured) {
            return Some(way);
        }
        self.link.neighbours_mut().by_sid(destination).filter(|n| n.is_synced()).map(|n| n.sid())
    }
}

impl core::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Mesh").field("link", &self.link).field("parents", &self.parents).finish_non_exhaustive()
    }
}

/// What a [`Relay`] wants done, in order. Asking for the next one says that the one before was carried out.
#[derive(Debug)]
#[non_exhaustive]
pub enum RelayOutput {
    /// A frame was refused; it is counted.
    Dropped(Rejected),
    /// Make the record durable. What follows depends on it: if this fails, stop.
    Persist(Record),
    /// A neighbour is synced.
    Synced(Did, Sid),
    /// Send a frame.
    Transmit(Frame),
}

/// What is told when there is time for it: small, for a record is not.
#[derive(Debug)]
enum Told {
    Dropped(Rejected),
    Synced(Did, Sid),
}

/// A mesh with nothing above it: it forwards, and has no messages of its own.
#[derive(Debug)]
pub struct Relay {
    mesh: Mesh,
    durable: Durable,
    tally: Tally,
    told: Deque<Told, 2>,
    now: Millis,
}

impl Relay {
    /// A relay that has just booted. Of the policy only the radio counts, of the secrets only the network keys.
    ///
    /// # Errors
    /// [`BootRefused`]: nothing may be sent.
    #[inline(always)]
    pub fn boot(
        now: Millis,
        settings: &Settings,
        secrets: &Secrets,
        record: Option<Record>,
        entropy: &Entropy,
    ) -> Result<Self, BootRefused> {
        let (record, mesh) = boot::relay(settings, secrets, record, entropy)?;
        Ok(Self { mesh, durable: Durable::new(record), tally: Tally::new(), told: Deque::new(), now })
    }

    /// A frame of the radio, with its check sequence. It is decrypted in place.
    pub fn handle_frame(&mut self, now: Millis, frame: &mut [u8]) {
        self.now = now;
        let heard = self.mesh.receive(now, frame);
        take(&mut self.tally, &mut self.told, heard);
    }

    /// An E1S message, with the EUI-64 that the radio says it came from. It is decrypted in place.
    pub fn handle_message(&mut self, now: Millis, source: (Did, Reach), message: &mut [u8]) {
        self.now = now;
        let heard = self.mesh.receive_message(now, source, message);
        take(&mut self.tally, &mut self.told, heard);
    }

    /// Counts what the rim refused before it became a frame.
    pub fn count_refused(&mut self, now: Millis, refused: Rejected) {
        self.now = now;
        take(&mut self.tally, &mut self.told, Err(refused));
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Millis) {
        self.now = now;
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<RelayOutput> {
        if let Some(record) = self.durable.due(Some(self.mesh.link.keys_mut()), None) {
            return Some(RelayOutput::Persist(record));
        }
        match self.told.pop_front() {
            Some(Told::Dropped(refused)) => Some(RelayOutput::Dropped(refused)),
            Some(Told::Synced(did, sid)) => Some(RelayOutput::Synced(did, sid)),
            None => self.mesh.poll(self.now).map(RelayOutput::Transmit),
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Millis> {
        self.mesh.poll_timeout()
    }

    /// What was refused so far.
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }
}

/// What a relay makes of a frame.
fn take(tally: &mut Tally, told: &mut Deque<Told, 2>, heard: Result<Heard<'_>, Rejected>) {
    let refused = match heard {
        Ok(Heard::Datagram(_)) => Rejected::new(Code::LinkNotOurs, "a relay takes no datagrams"),
        Ok(Heard::Passing | Heard::Quiet) => return,
        Ok(Heard::Synced(did, sid)) => {
            let _ = told.push_back(Told::Synced(did, sid));
            return;
        }
        Err(refused) => refused,
    };
    tally.count(refused);
    // What does not fit the line is counted all the same.
    let _ = told.push_back(Told::Dropped(refused));
}
