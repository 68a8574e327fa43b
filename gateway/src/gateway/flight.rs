//! C3 messages on their way: what was passed on in the last ten minutes, how its answer goes back, and what it was.
//!
//! In memory only. After a restart a repeat is passed on once more, and the cloud's ledger says what it is.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;

use fivefold_core::e2_gateway::E2;
use fivefold_core::id::Sid;
use fivefold_core::oscore::{OscoreOption, RequestId, UnnumberedAnswer};
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_core::why::FrameId;
use fivefold_core::wire::coap::{Token, Type};
use fivefold_core::wire::tiny::Layers;

use super::ContextName;

/// Milliseconds for which a message is remembered.
const LIFE: u64 = 600_000;
/// Messages that are remembered, at most: the oldest go first. A forgotten one costs a repeat, not safety.
const REMEMBERED: usize = 1 << 15;

/// What brought a tiny frame, and takes the answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// The LoRaWAN network server, which knows the device by its DevEUI.
    Lorawan,
    /// The air: a neighbour.
    Neighbour(Sid),
}

/// How an answer goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// CoAP over UDP.
    Coap {
        peer: SocketAddr,
        token: Token,
        message_id: u16,
        kind: Type,
        at: Millis,
        /// An empty acknowledgement was sent for it.
        acknowledged: bool,
    },
    /// As a tiny frame.
    Radio {
        /// The originator.
        to: Sid,
        /// What brought its frame.
        via: Via,
        token: u8,
        layers: Layers,
    },
}

/// What is needed to answer.
pub(super) struct Reply {
    pub(super) way: Way,
    /// Where C2 is around it.
    pub(super) c2: Option<UnderC2>,
}

/// The C2 request around a C3 message.
pub(super) struct UnderC2 {
    pub(super) context: ContextName,
    pub(super) request: RequestId,
    /// The right to one answer without a number, until it is used.
    pub(super) right: Option<UnnumberedAnswer<E2>>,
}

/// Hash over code, OSCORE option and payload: what a repeat has in common with the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sameness(u128);

impl Sameness {
    pub(super) fn of(code: u8, option: &OscoreOption<'_>, ciphertext: &[u8]) -> Self {
        let mut value = [0; 300];
        let n = option.emit(&mut value).unwrap_or(0);
        let head = [code, n as u8, (n >> 8) as u8];
        let hash = sha256(&[&head, value.get(..n).unwrap_or_default(), ciphertext]);
        let (first, _) = hash.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        Self(u128::from_be_bytes(*first))
    }
}

/// A message on its way.
pub(super) struct Flight {
    pub(super) sid: Sid,
    pub(super) seq: u64,
    pub(super) wants: bool,
    /// Its envelope is written.
    pub(super) durable: bool,
    /// The cloud has it.
    pub(super) delivered: bool,
    /// The cloud refused it.
    pub(super) refused: bool,
    pub(super) reply: Reply,
    /// The cloud's answer, as a CoAP message.
    pub(super) answer: Option<Box<[u8]>>,
    same: Sameness,
    /// The frame that brought it, and the message, as an explanation names them.
    pub(super) names: Option<(FrameId, FrameId)>,
}

/// When something is to be done, and for which message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Acknowledge a CON to which no answer has come.
    Acknowledge(u64),
    /// Confirm custody.
    Custody(u64),
    /// Send a confirmable answer again.
    Resend(u16),
}

/// All of them.
#[derive(Default)]
pub(super) struct Flights {
    by_id: HashMap<u64, Flight>,
    by_hash: HashMap<Sameness, u64>,
    by_seq: HashMap<u64, u64>,
    /// Those that the cloud does not have, by sequence number.
    undelivered: BTreeMap<u64, u64>,
    order: VecDeque<(Millis, u64)>,
    last: u64,
}

impl Flights {
    #[expect(clippy::too_many_arguments, reason = "private: what a flight is, said once")]
    pub(super) fn add(
        &mut self,
        now: Millis,
        sid: Sid,
        seq: u64,
        same: Sameness,
        wants: bool,
        reply: Reply,
        names: Option<(FrameId, FrameId)>,
    ) -> u64 {
        if self.by_id.len() >= REMEMBERED
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.forget(oldest);
        }
        self.last += 1;
        let id = self.last;
        let flight = Flight {
            sid,
            seq,
            wants,
            durable: false,
            delivered: false,
            refused: false,
            reply,
            answer: None,
            same,
            names,
        };
        self.by_id.insert(id, flight);
        self.by_hash.insert(same, id);
        self.by_seq.insert(seq, id);
        self.undelivered.insert(seq, id);
        self.order.push_back((now, id));
        id
    }

    pub(super) fn same(&self, same: Sameness) -> Option<u64> {
        self.by_hash.get(&same).copied()
    }

    pub(super) fn with_seq(&self, seq: u64) -> Option<u64> {
        self.by_seq.get(&seq).copied()
    }

    pub(super) fn find(&mut self, id: u64) -> Option<&mut Flight> {
        self.by_id.get_mut(&id)
    }

    /// It goes once more, under another sequence number.
    pub(super) fn renumber(&mut self, id: u64, seq: u64) {
        if let Some(flight) = self.by_id.get_mut(&id) {
            self.by_seq.remove(&flight.seq);
            self.undelivered.remove(&flight.seq);
            (flight.seq, flight.durable, flight.delivered) = (seq, false, false);
            self.by_seq.insert(seq, id);
            self.undelivered.insert(seq, id);
        }
    }

    pub(super) fn delivered(&mut self, upto: u64) {
        while let Some((&seq, &id)) = self.undelivered.first_key_value()
            && seq <= upto
        {
            self.undelivered.remove(&seq);
            if let Some(flight) = self.by_id.get_mut(&id) {
                flight.delivered = true;
            }
        }
    }

    pub(super) fn expiry(&self) -> Option<Millis> {
        self.order.front().map(|(at, _)| at.plus(LIFE))
    }

    pub(super) fn expire(&mut self, now: Millis) {
        while let Some(&(at, id)) = self.order.front()
            && now.since(at) >= LIFE
        {
            self.order.pop_front();
            self.forget(id);
        }
    }

    fn forget(&mut self, id: u64) {
        if let Some(flight) = self.by_id.remove(&id) {
            self.by_hash.remove(&flight.same);
            self.by_seq.remove(&flight.seq);
            self.undelivered.remove(&flight.seq);
        }
    }
}
