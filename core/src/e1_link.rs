//! # E1: neighbour to neighbour
//!
//! | | |
//! |---|---|
//! | Key held by | every node and gateway of the network |
//! | Hides       | payload and mesh addresses, from everybody outside the network |
//! | Proves      | that a member of the network sent the frame, from this EUI-64, and that it is new |
//! | Binds       | the whole MAC header, EUI-64, frame counter, level, key index |
//! | Drops as    | `E1-01` to `E1-11`; `T-01` for RuleIDs that no datagram may start with |
//! | Does not    | tell one member from another who lies about its EUI-64; hide who talks to whom; sign |
//! | Spec        | docs/protocol.md 4 |
//!
//! [`Link`] is one station's side: its keys with their sender counters, its neighbours with theirs, and the HELLO
//! exchange between. It does no I/O: frames and time come in, frames and judgements go out.

mod air;
mod hello;
mod keys;
mod neighbour;
mod open;
mod recovery;
mod repeat;
pub mod rotation;

pub use air::{Air, Over, Reach};
pub use hello::{ANSWERS_A_MINUTE, Control, LONGEST as LONGEST_CONTROL, NONCE_LIFE, RULE as CONTROL_RULE};
pub use keys::{BLOCK, KeyRefused, KeyState, LIMIT, LeaseWrite, LinkKeys, ROTATE_AT};
pub use neighbour::{FixedNeighbours, MAX_JUMP, Neighbour, Neighbours, PROBE_EVERY, Registration, TableFull};
pub use open::{E1S_HEADER, E1S_RULE, open_e1s, open_frame};

use core::fmt;

use crate::error::{Code, Rejected, SealError};
use crate::id::{Did, Sid};
use crate::level::{Level, sealed};
use crate::time::Millis;
use crate::wire::ieee802154::{self, Ack, Address, Frame, MAX_FRAME, Pan, Security, SecurityLevel};
use crate::wire::mesh;
use hello::{Due, Greetings};
use keys::{Generation, Under};
use neighbour::{Step, may_bind};
use repeat::Repeats;

/// The level between neighbours.
#[derive(Clone, Copy, Debug)]
pub enum E1 {}

impl sealed::Sealed for E1 {}

impl Level for E1 {
    const LABEL: &'static [u8; 4] = b"e1\0\0";
}

/// What kind of station this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Station {
    /// Takes what is for "any gateway" (0000); switches its sending key by order only.
    Gateway,
    /// A device or relay; follows to the newer key when a neighbour sends under it.
    Node,
}

/// Who we are on the radio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// EUI-64.
    pub did: Did,
    /// Short address.
    pub sid: Sid,
    /// The network's one PAN id.
    pub pan: Pan,
    /// Node or gateway.
    pub station: Station,
}

/// Security levels of the network's policy, and what carries its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkPolicy {
    /// Weakest level that is accepted.
    pub minimum: SecurityLevel,
    /// Level that is sent.
    pub sending: SecurityLevel,
    /// What carries the frames.
    pub air: Air,
}

impl Default for LinkPolicy {
    /// ENC-MIC-64 and nothing else, in 802.15.4 frames.
    fn default() -> Self {
        Self { minimum: SecurityLevel::EncMic64, sending: SecurityLevel::EncMic64, air: Air::Ieee802154 }
    }
}

/// A datagram for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered<'b> {
    /// Neighbour that sent the frame.
    pub neighbour: Did,
    /// Its short address: the way back to the originator.
    pub from: Sid,
    /// Who sent the datagram first; the neighbour itself without a mesh header. The kid of a tiny frame with K=0.
    pub originator: Sid,
    /// Mesh header, if there was one.
    pub mesh: Option<mesh::Header>,
    /// What the payload is.
    pub dispatch: mesh::Dispatch,
    /// Tiny frame, LOWPAN_IPHC or fragment. Never empty.
    pub payload: &'b [u8],
    /// Level, counter and key index of the frame.
    pub security: Security,
    /// Whether the key is on its way out: then the payload is an EDHOC message (RuleID 10).
    pub key: KeyState,
}

/// A datagram for somebody else: to be sealed again and sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded<'b> {
    /// Neighbour that sent the frame.
    pub neighbour: Did,
    /// Its short address: the way back to the originator.
    pub from: Sid,
    /// Mesh header with one hop less.
    pub mesh: mesh::Header,
    /// What follows the mesh header.
    pub payload: &'b [u8],
    /// Level, counter and key index of the frame.
    pub security: Security,
}

/// What became of a frame that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received<'b> {
    /// For us.
    Deliver(Delivered<'b>),
    /// For somebody else.
    Forward(Forwarded<'b>),
    /// A HELLO; an answer is in line ([`Link::poll_control`]).
    Hello {
        /// Who asks.
        from: Did,
    },
    /// A neighbour sends under another key index from now on.
    KeySwitch {
        /// Neighbour.
        from: Did,
        /// The key index that it announces.
        key_index: u8,
    },
    /// A neighbour echoed a fresh nonce of ours: its frames are accepted from now on.
    Synced {
        /// Neighbour.
        from: Did,
        /// Its short address.
        sid: Sid,
    },
}

/// A control frame that [`Link`] wants to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlFrame {
    /// Bytes written.
    pub len: usize,
    /// To whom, by EUI-64 and short address; `None` is a broadcast.
    pub to: Option<(Did, Sid)>,
    /// What it is written for.
    pub over: Over,
}

/// One station's E1: `T` holds its neighbours, `N` HELLO exchanges run at a time (8 for a node, hundreds at a gateway).
pub struct Link<T: Neighbours, const N: usize = 8> {
    identity: Identity,
    policy: LinkPolicy,
    keys: LinkKeys,
    neighbours: T,
    greetings: Greetings<N>,
    repeats: Repeats,
    sequence: u8,
}

impl<T: Neighbours, const N: usize> Link<T, N> {
    /// A station that has just booted: no neighbour is synced, a HELLO is due.
    ///
    /// `seed` is 32 random bytes, drawn at each boot; nonces and jitter come from it.
    // Inlined, like all that builds an engine: each call in between puts one more copy of it on a small stack.
    #[inline(always)]
    pub fn new(identity: Identity, policy: LinkPolicy, keys: LinkKeys, neighbours: T, seed: [u8; 32]) -> Self {
        let mut greetings = Greetings::new(seed);
        let sequence = greetings.first_sequence();
        Self { identity, policy, keys, neighbours, greetings, repeats: Repeats::new(), sequence }
    }

    /// Who we are.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The network's levels.
    pub const fn policy(&self) -> &LinkPolicy {
        &self.policy
    }

    /// Network keys and their leases.
    pub const fn keys(&self) -> &LinkKeys {
        &self.keys
    }

    /// To install, retire and switch keys, and to extend leases.
    pub const fn keys_mut(&mut self) -> &mut LinkKeys {
        &mut self.keys
    }

    /// The neighbour table.
    pub const fn neighbours(&self) -> &T {
        &self.neighbours
    }

    /// The neighbour table, to add registered devices or to remove revoked ones.
    pub const fn neighbours_mut(&mut self) -> &mut T {
        &mut self.neighbours
    }

    /// The last frame counter of a neighbour under this key, if one is known.
    pub fn last_counter(&mut self, sid: Sid, key_index: u8) -> Option<u32> {
        let key = self.keys.find(Millis(0), key_index).ok()?.generation;
        self.neighbours.by_sid(sid)?.last(key)
    }

    /// Believes that the last frame counter of a neighbour is `counter`, without any proof: whoever recorded later frames
    /// can replay them. For tests, and for stations that keep their neighbours' counters in trusted storage.
    ///
    /// # Errors
    /// `E1-04` for an unknown key index, `E1-08` when the short address is taken or the table is full.
    pub fn danger_assume_synced(&mut self, did: Did, sid: Sid, key_index: u8, counter: u32) -> Result<(), Rejected> {
        let key = self.keys.find(Millis(0), key_index)?.generation;
        may_bind(&mut self.neighbours, did, sid)?;
        self.sync(did, sid, key, counter)
    }

    /// Judges a frame as a radio gives it, with its check sequence, in the order of docs/protocol.md 4.1. The frame is
    /// decrypted in place.
    ///
    /// # Errors
    /// `E1-01` to `E1-08`, `E1-10`, `E1-11`, `T-01`: the first step that fails.
    pub fn receive<'b>(&mut self, now: Millis, frame: &'b mut [u8]) -> Result<Received<'b>, Rejected> {
        let len = ieee802154::check_fcs(frame)?.len();
        self.receive_checked(now, frame.get_mut(..len).unwrap_or_default())
    }

    /// As [`Self::receive`], for radios that check the sequence in hardware and hand the frame over without it.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn receive_checked<'b>(&mut self, now: Millis, frame: &'b mut [u8]) -> Result<Received<'b>, Rejected> {
        let view = Frame::parse(frame)?;
        self.check_destination(view.pan, view.destination)?;
        let security = view.security(self.policy.minimum)?;
        let (source, header) = (view.source, view.header_len());
        let key = self.keys.find(now, security.key_index)?;
        let sid = match source {
            Address::Extended(did) => {
                let (generation, state) = (key.generation, key.state);
                if let KeyState::Retired { .. } = state {
                    self.check_straggler(Address::Extended(did))?;
                }
                let key = self.keys.find(now, security.key_index)?;
                let plaintext = open::open_in_place(&key.schedule, did, &security, frame, header)?;
                return self.control(now, did, (generation, state), &security, plaintext);
            }
            Address::Short(sid) => sid,
        };
        if let KeyState::Retired { .. } = key.state {
            return self.receive_in_recovery(now, sid, &security, frame, header);
        }
        // Somebody who counts us among its neighbours may be missing here: ask, but rarely, for anyone can send this.
        let Some(neighbour) = self.neighbours.by_sid(sid) else {
            self.greetings.want(now);
            return Err(UNKNOWN);
        };
        if !neighbour.is_synced() {
            self.greetings.want(now);
            return Err(UNSYNCED);
        }
        let did = neighbour.did();
        let step = neighbour.step(key.generation, security.frame_counter);
        if step == Step::Replay {
            // It answered our HELLO under a newer key, and may not have heard our HELLO-FIN: then it sends under the older
            // one still, and believes that we hear it. Ask, so that it hears us under the newer one.
            if neighbour.is_closed(key.generation) {
                self.greetings.want(now);
            }
            return Err(REPLAYED);
        }
        let plaintext = match open::open_in_place(&key.schedule, did, &security, frame, header) {
            Ok(plaintext) => plaintext,
            // The code of the first step that failed; but only a true frame may unsync a neighbour.
            Err(_) if step == Step::Jump => return Err(JUMP),
            Err(forged) => return Err(forged),
        };
        if step == Step::Jump {
            neighbour.unsync();
            self.greetings.want(now);
            return Err(JUMP);
        }
        neighbour.store(key.generation, security.frame_counter);
        self.accepted_under(security.key_index);
        self.pass_on(now, did, sid, security, KeyState::Usable, plaintext)
    }

    /// Judges an E1S message (docs/protocol.md 4.2) that a radio received from `source`. It is decrypted in place.
    ///
    /// # Errors
    /// As [`Self::receive`]; `E1-02` also for what was said to everybody and is for gateways.
    pub fn e1s_open<'b>(
        &mut self,
        now: Millis,
        (source, reach): (Did, Reach),
        message: &'b mut [u8],
    ) -> Result<Received<'b>, Rejected> {
        let security = open::parse_e1s(message, self.policy.minimum)?;
        let key = self.keys.find(now, security.key_index)?;
        let (generation, state) = (key.generation, key.state);
        if let KeyState::Retired { .. } = state {
            self.check_straggler(Address::Extended(source))?;
        }
        let key = self.keys.find(now, security.key_index)?;
        // The head does not say whether it is a HELLO, which is judged without last counter: the reason to refuse it as
        // anything else waits until it is open.
        let (sid, judged) = match self.neighbours.by_did(source) {
            None => (None, Err(UNKNOWN)),
            Some(n) if !n.is_synced() => (None, Err(UNSYNCED)),
            Some(n) => {
                if n.is_closed(generation) {
                    self.greetings.want(now);
                }
                (Some(n.sid()), Ok(n.step(generation, security.frame_counter)))
            }
        };
        let opened = open::open_in_place(&key.schedule, source, &security, message, E1S_HEADER);
        let plaintext = match (opened, judged) {
            (Ok(plaintext), _) => plaintext,
            (Err(_), Err(stranger)) => return Err(stranger),
            (Err(_), Ok(Step::Replay)) => return Err(REPLAYED),
            (Err(_), Ok(Step::Jump)) => return Err(JUMP),
            (Err(forged), Ok(Step::Fresh)) => return Err(forged),
        };
        if plaintext.first() == Some(&hello::RULE) {
            return self.control(now, source, (generation, state), &security, plaintext);
        }
        if state != KeyState::Usable && plaintext.first() != Some(&EDHOC_RULE) {
            return Err(RETIRED);
        }
        let step = judged.inspect_err(|_| self.greetings.want(now))?;
        let neighbour = self.neighbours.by_did(source).ok_or(UNKNOWN)?;
        match step {
            Step::Replay => return Err(REPLAYED),
            Step::Jump if state != KeyState::Usable => return Err(JUMP),
            Step::Jump => {
                neighbour.unsync();
                self.greetings.want(now);
                return Err(JUMP);
            }
            Step::Fresh => neighbour.store(generation, security.frame_counter),
        }
        self.accepted_under(security.key_index);
        if reach == Reach::Everybody {
            self.check_broadcast(plaintext)?;
        }
        self.pass_on(now, source, sid.ok_or(UNKNOWN)?, security, state, plaintext)
    }

    /// A message names no next hop. One that every station in reach was given is for the gateways among them, unless its
    /// mesh header says that it is for us: relays do not all forward the same.
    fn check_broadcast(&self, plaintext: &[u8]) -> Result<(), Rejected> {
        let wanted = match mesh::parse(plaintext)?.mesh {
            Some(header) => header.destination == Sid::BROADCAST || self.is_ours(header.destination),
            None => self.identity.station == Station::Gateway,
        };
        if wanted { Ok(()) } else { Err(Rejected::new(Code::LinkNotOurs, "said to everybody, for a gateway")) }
    }

    fn check_destination(&self, pan: Pan, destination: Sid) -> Result<(), Rejected> {
        const fn not_ours(reason: &'static str) -> Rejected {
            Rejected::new(Code::LinkNotOurs, reason)
        }
        if pan != self.identity.pan && pan != Pan::BROADCAST {
            return Err(not_ours("another PAN"));
        }
        if destination != Sid::BROADCAST && !self.is_ours(destination) {
            return Err(not_ours("another destination"));
        }
        Ok(())
    }

    fn is_ours(&self, destination: Sid) -> bool {
        destination == self.identity.sid
            || (destination == Sid::ANY_GATEWAY && self.identity.station == Station::Gateway)
    }

    /// An opened datagram of a synced neighbour: for us, or for somebody else.
    fn pass_on<'b>(
        &mut self,
        now: Millis,
        neighbour: Did,
        from: Sid,
        security: Security,
        key: KeyState,
        plaintext: &'b mut [u8],
    ) -> Result<Received<'b>, Rejected> {
        let mesh::Plaintext { mesh, dispatch, .. } = mesh::parse(plaintext)?;
        if key != KeyState::Usable && dispatch != mesh::Dispatch::Tiny(EDHOC_RULE) {
            return Err(RETIRED);
        }
        if dispatch == mesh::Dispatch::Tiny(hello::RULE) {
            return Err(Rejected::new(Code::TinyMalformed, "a control message under a short source address"));
        }
        let plaintext: &'b [u8] = plaintext;
        let payload = if mesh.is_some() { plaintext.get(mesh::HEADER..).unwrap_or_default() } else { plaintext };
        let Some(header) = mesh else {
            return Ok(Received::Deliver(Delivered {
                neighbour,
                from,
                originator: from,
                mesh,
                dispatch,
                payload,
                security,
                key,
            }));
        };
        if header.originator == self.identity.sid {
            return Err(Rejected::new(Code::LinkHopLimit, "our own datagram came back"));
        }
        if self.is_ours(header.destination) || header.destination == Sid::BROADCAST {
            let originator = header.originator;
            return Ok(Received::Deliver(Delivered {
                neighbour,
                from,
                originator,
                mesh,
                dispatch,
                payload,
                security,
                key,
            }));
        }
        let Some(hops) = header.hops.checked_sub(1).filter(|&h| h > 0) else {
            return Err(Rejected::new(Code::LinkHopLimit, "this was the last hop"));
        };
        if self.repeats.is_repeat(now, from, &header, payload) {
            return Err(Rejected::new(Code::LinkHopLimit, "heard another way less than ten seconds ago"));
        }
        let mesh = mesh::Header { hops, ..header };
        Ok(Received::Forward(Forwarded { neighbour, from, mesh, payload, security }))
    }

    /// An opened message under a 64-bit source.
    fn control(
        &mut self,
        now: Millis,
        did: Did,
        (key, state): (Generation, KeyState),
        security: &Security,
        plaintext: &[u8],
    ) -> Result<Received<'static>, Rejected> {
        let message = Control::parse(plaintext)?;
        if did == self.identity.did {
            return Err(Rejected::new(Code::LinkNeighbourUnknown, "our own frame came back"));
        }
        if state != KeyState::Usable && !matches!(message, Control::Hello { .. } | Control::Fin { .. }) {
            return Err(RETIRED);
        }
        match message {
            Control::Hello { nonce_a, sid, .. } => {
                let registration = self.check_bearer(did, sid)?;
                if state != KeyState::Usable && registration != Registration::Registered {
                    return Err(RETIRED);
                }
                let heard = (key, security.frame_counter);
                self.greetings.asked_by(now, &mut self.neighbours, did, sid, nonce_a, heard)?;
                Ok(Received::Hello { from: did })
            }
            Control::Ack { nonce_a, nonce_b, sid, .. } => {
                self.check_bearer(did, sid)?;
                let number = self.greetings.number();
                if let Some(n) = self.neighbours.by_did(did)
                    && n.is_synced()
                    && n.greeting() == number
                    && n.last(key).is_some_and(|last| security.frame_counter <= last)
                {
                    return Err(REPLAYED);
                }
                self.greetings.acked_by(now, did, sid, (&nonce_a, nonce_b), key)?;
                self.sync(did, sid, key, security.frame_counter)?;
                self.accepted_under(security.key_index);
                Ok(Received::Synced { from: did, sid })
            }
            Control::Fin { nonce_b } => {
                let sid = self.greetings.finished_by(now, did, &nonce_b)?;
                self.check_bearer(did, sid)?;
                self.sync(did, sid, key, security.frame_counter)?;
                self.accepted_under(security.key_index);
                Ok(Received::Synced { from: did, sid })
            }
            Control::KeySwitch { key_index } => {
                let neighbour = self.neighbours.by_did(did).filter(|n| n.is_synced()).ok_or(UNSYNCED)?;
                match neighbour.step(key, security.frame_counter) {
                    Step::Replay => return Err(REPLAYED),
                    Step::Jump => {
                        neighbour.unsync();
                        self.greetings.want(now);
                        return Err(JUMP);
                    }
                    Step::Fresh => neighbour.store(key, security.frame_counter),
                }
                self.accepted_under(security.key_index);
                Ok(Received::KeySwitch { from: did, key_index })
            }
        }
    }

    fn accepted_under(&mut self, key_index: u8) {
        if self.identity.station == Station::Node {
            self.keys.follow(key_index);
        }
    }

    fn check_bearer(&mut self, did: Did, sid: Sid) -> Result<Registration, Rejected> {
        if sid == self.identity.sid {
            return Err(Rejected::new(Code::LinkNeighbourUnknown, "the short address is ours"));
        }
        may_bind(&mut self.neighbours, did, sid)
    }

    fn sync(&mut self, did: Did, sid: Sid, key: Generation, counter: u32) -> Result<(), Rejected> {
        let mut neighbour = self.neighbours.by_did(did).copied().unwrap_or(Neighbour::unsynced(did, sid));
        neighbour.sync(sid, key, counter, self.keys.older(key), self.greetings.number());
        let full = |TableFull| Rejected::new(Code::LinkNeighbourUnknown, "the neighbour table is full");
        self.neighbours.put(neighbour).map_err(full)
    }

    /// Seals a frame for a neighbour into `out`, with its check sequence, and returns its size; an E1S message where the
    /// neighbour is reached by one ([`Self::over`]). No acknowledgement is
    /// asked of "any gateway" or of everybody. A neighbour that was not heard under our sending key yet is mostly spoken
    /// to under the newest key that it was heard under ([`PROBE_EVERY`]).
    ///
    /// # Errors
    /// [`SealError::TooLong`] when it does not fit the frame (127 bytes) or message, [`SealError::BufferTooSmall`], [`SealError::LeaseSpent`]:
    /// nothing is sealed and no number is used.
    pub fn seal(
        &mut self,
        destination: Sid,
        ack: Ack,
        mesh: Option<mesh::Header>,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let under = match self.neighbours.by_sid(destination) {
            Some(neighbour) => neighbour.under(&self.keys),
            None => Under::Sending,
        };
        let len = self.seal_over(under, (destination, ack), mesh, payload, out)?;
        if let Some(neighbour) = self.neighbours.by_sid(destination) {
            neighbour.spoken_to(&self.keys);
        }
        Ok(len)
    }

    fn seal_from(
        &mut self,
        source: Address,
        under: Under,
        (destination, ack): (Sid, Ack),
        mesh: Option<mesh::Header>,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let level = self.policy.sending;
        let head = match source {
            Address::Extended(_) => ieee802154::EXTENDED_HEADER,
            Address::Short(_) => ieee802154::SHORT_HEADER,
        };
        let body_end = head + mesh.map_or(0, |_| mesh::HEADER) + payload.len();
        let total = body_end + level.mic_len() + ieee802154::FCS;
        check_room(payload, total, MAX_FRAME, out)?;
        let ack = if matches!(destination, Sid::ANY_GATEWAY | Sid::BROADCAST) { Ack::None } else { ack };
        let (key_index, schedule, counter) = self.keys.take(under)?;
        let security = Security { level, frame_counter: counter.value(), key_index };
        let frame = Frame {
            ack,
            sequence: self.sequence,
            pan: self.identity.pan,
            destination,
            source,
            security: security.to_bytes(),
            sealed: &[],
        };
        frame.emit(out)?;
        open::write_body(out, head, mesh, payload)?;
        let len = open::seal_in_place(schedule, self.identity.did, &security, out, head, body_end)?;
        self.sequence = self.sequence.wrapping_add(1);
        ieee802154::append_fcs(out, len)
    }

    /// By which air a neighbour is reached, and with which address on it.
    pub fn over(&mut self, destination: Sid) -> Over {
        let did = self.neighbours.by_sid(destination).map(|n| n.did());
        self.over_to(did)
    }

    fn over_to(&self, did: Option<Did>) -> Over {
        match self.policy.air.for_one(did.and_then(|did| self.neighbours.air(did))) {
            None => Over::Ieee802154,
            Some(_) => Over::E1s { to: did },
        }
    }

    /// A datagram for a neighbour, by the air that reaches it.
    fn seal_over(
        &mut self,
        under: Under,
        to: (Sid, Ack),
        mesh: Option<mesh::Header>,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        match self.over(to.0) {
            Over::E1s { .. } => self.e1s_seal_under(under, mesh, payload, out),
            Over::Ieee802154 => self.seal_from(Address::Short(self.identity.sid), under, to, mesh, payload, out),
        }
    }

    /// Seals an E1S message (docs/protocol.md 4.2) into `out` and returns its size. How much the radio carries is for the
    /// caller to check first (docs/protocol.md 6.4), where [`Air`] does not say it.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn e1s_seal(&mut self, mesh: Option<mesh::Header>, payload: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        self.e1s_seal_under(Under::Sending, mesh, payload, out)
    }

    fn e1s_seal_under(
        &mut self,
        under: Under,
        mesh: Option<mesh::Header>,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        seal_message(&mut self.keys, (under, &self.policy, self.identity.did), mesh, payload, out)
    }

    /// Wants a HELLO of ours to be sent soon: counters must be synced again.
    pub fn want_hello(&mut self, now: Millis) {
        self.greetings.want(now);
    }

    /// Wants one HELLO of ours: nobody answers us any more, and perhaps somebody did not hear our HELLO-FIN, so that we are a
    /// stranger to him. It goes under the key that we send under, which his own HELLO may not.
    pub fn want_one_hello(&mut self, now: Millis) {
        self.greetings.want_one(now);
    }

    /// Says HELLO soon, whatever was said before: somebody was registered, and may have said it while he was a stranger
    /// here. For the word of the registry alone; what anybody may send on the air is for [`Self::want_hello`].
    pub fn greet(&mut self, now: Millis) {
        self.greetings.greet(now);
    }

    /// When [`Self::poll_control`] has something to send.
    pub fn poll_timeout(&self) -> Option<Millis> {
        self.greetings.next()
    }

    /// Writes the next control frame that is due (HELLO, HELLO-ACK, HELLO-FIN), as an 802.15.4 frame with its check
    /// sequence or as an E1S message: by the air that reaches whom it is for. `None` also while a lease is spent
    /// ([`LinkKeys::lease_due`]).
    pub fn poll_control(&mut self, now: Millis, out: &mut [u8]) -> Option<ControlFrame> {
        let mut body = [0; hello::LONGEST];
        let due = self.take_due(now, out)?;
        let over = self.over_to(due.to.map(|(did, _)| did));
        let under = self.answering(&due);
        let len = self.seal_control(under, over, due.to, due.message.emit(&mut body), out).ok()?;
        Some(ControlFrame { len, to: due.to, over })
    }

    /// The HELLO that went out just now, once more as an E1S message, for a station that has both airs.
    pub fn repeat_hello(&mut self, now: Millis, out: &mut [u8]) -> Option<ControlFrame> {
        let hello = self.greetings.asked_now(now, self.identity.sid, self.sending_key(out)?)?;
        let mut body = [0; hello::LONGEST];
        let len = self.e1s_seal(None, hello.emit(&mut body), out).ok()?;
        Some(ControlFrame { len, to: None, over: Over::E1s { to: None } })
    }

    /// As [`Self::poll_control`], as an E1S message whatever the station has.
    pub fn poll_e1s_control(&mut self, now: Millis, out: &mut [u8]) -> Option<ControlFrame> {
        let due = self.take_due(now, out)?;
        let mut body = [0; hello::LONGEST];
        let over = Over::E1s { to: due.to.map(|(did, _)| did) };
        let under = self.answering(&due);
        let len = self.seal_control(under, over, due.to, due.message.emit(&mut body), out).ok()?;
        Some(ControlFrame { len, to: due.to, over })
    }

    fn seal_control(
        &mut self,
        under: Under,
        over: Over,
        to: Option<(Did, Sid)>,
        body: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        if let Over::E1s { .. } = over {
            return self.e1s_seal_under(under, None, body, out);
        }
        let destination = to.map_or(Sid::BROADCAST, |(_, sid)| sid);
        self.seal_from(Address::Extended(self.identity.did), under, (destination, Ack::None), None, body, out)
    }

    /// An answer goes under the key of what it answers: that one the other side has.
    fn answering(&self, due: &Due) -> Under {
        match due.answers.and_then(|key| self.keys.index_of(key)) {
            Some((index, KeyState::Usable)) => Under::Index(index),
            Some((index, KeyState::Retired { .. })) => Under::Recovery(index),
            None => Under::Sending,
        }
    }

    fn take_due(&mut self, now: Millis, out: &[u8]) -> Option<Due> {
        let key_index = self.sending_key(out)?;
        self.greetings.take_due(now, self.identity.sid, key_index)
    }

    /// The index that control frames go under, if one can be sealed now.
    fn sending_key(&self, out: &[u8]) -> Option<u8> {
        self.keys.sending().filter(|_| self.keys.is_ready() && out.len() >= MAX_FRAME)
    }

    /// Writes a KEY-SWITCH notice for everybody: we send under our present key index.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn announce_key(&mut self, out: &mut [u8]) -> Result<usize, SealError> {
        let key_index = self.keys.sending().ok_or(SealError::LeaseSpent)?;
        let mut body = [0; hello::LONGEST];
        let body = Control::KeySwitch { key_index }.emit(&mut body);
        self.seal_control(Under::Sending, self.over_to(None), None, body, out)
    }
}

/// An E1S message. The same for every kind of table, so that a node has it once.
fn seal_message(
    keys: &mut LinkKeys,
    (under, policy, source): (Under, &LinkPolicy, Did),
    mesh: Option<mesh::Header>,
    payload: &[u8],
    out: &mut [u8],
) -> Result<usize, SealError> {
    let level = policy.sending;
    let body_end = E1S_HEADER + mesh.map_or(0, |_| mesh::HEADER) + payload.len();
    check_room(payload, body_end + level.mic_len(), policy.air.longest_message(), out)?;
    let (key_index, schedule, counter) = keys.take(under)?;
    let security = Security { level, frame_counter: counter.value(), key_index };
    open::write_e1s_header(out, &security)?;
    open::write_body(out, E1S_HEADER, mesh, payload)?;
    open::seal_in_place(schedule, source, &security, out, E1S_HEADER, body_end)
}

impl<T: Neighbours, const N: usize> fmt::Debug for Link<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("identity", &self.identity).field("policy", &self.policy).finish_non_exhaustive()
    }
}

fn check_room(payload: &[u8], total: usize, limit: usize, out: &[u8]) -> Result<(), SealError> {
    if total > limit || payload.is_empty() {
        return Err(SealError::TooLong);
    }
    if out.len() < total {
        return Err(SealError::BufferTooSmall);
    }
    Ok(())
}

/// RuleID of an EDHOC message from client to server: all that recovery mode takes.
const EDHOC_RULE: u8 = 0x10;

const UNKNOWN: Rejected = Rejected::new(Code::LinkNeighbourUnknown, "no neighbour of ours");
const UNSYNCED: Rejected = Rejected::new(Code::LinkNeighbourUnknown, "the neighbour's counter is not synced");
const REPLAYED: Rejected = Rejected::new(Code::LinkReplayed, "the frame counter is not greater than the last");
const JUMP: Rejected = Rejected::new(Code::LinkCounterJump, "the frame counter jumped by more than 65536");
const RETIRED: Rejected =
    Rejected::new(Code::LinkKeyUnknown, "the index is retired: nothing but EDHOC of stragglers is taken under it");
