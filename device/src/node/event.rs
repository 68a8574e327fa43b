//! What a node wants done, and what it tells.

use core::fmt;

use fivefold_core::error::{Rejected, SealError};
use fivefold_core::id::{Did, Epoch, Sid};
use heapless::Vec;

use super::{ARGUMENTS, Datagram};
use crate::outbox::Number;
use crate::relay::Frame;
use crate::renewal::{Failed, Why};
use crate::storage::Record;

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
    /// Carry out a command, then say [`Node::command_done`](super::Node::command_done). Its id is durable: it never comes
    /// again.
    Execute(Command),
    /// Make the record durable. What follows depends on it: if this fails, stop.
    Persist(Record),
    /// Send a tiny frame by a radio whose link is E1 by itself (feature `lorawan`): on LoRaWAN its first byte is the FPort,
    /// the rest the FRMPayload.
    Tiny(Datagram),
    /// Send a frame.
    Transmit(Frame),
}

/// What happened. Numbers are those that [`Node::send`](super::Node::send) gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The other side has all of this batch, and its signature holds.
    BatchComplete(u32),
    /// What the other side lacks of this batch is not known here any more, or fits no message: its readings stay unsigned.
    BatchLost(u32),
    /// A batch of readings was signed, or signed again over fewer of them.
    BatchSigned {
        /// Its number.
        number: u32,
        /// How many readings.
        readings: u8,
    },
    /// A command was ignored that cannot be carried out here; its result says so.
    CommandRefused(u64),
    /// A piece of configuration came; this node takes none.
    ConfigIgnored,
    /// The gateway stored it. The node keeps it.
    Custody(Number),
    /// The level that the policy names has it: the cloud, or the gateway where E3 is not in the policy.
    Delivered {
        /// Which message.
        number: Number,
        /// Milliseconds since it was sent first.
        after: u64,
    },
    /// It is lost: too old for the gateway's window, or of an epoch that is over. Sealing it again would not be safe.
    GivenUp(Number),
    /// The cloud named another gateway group; new E2 secrets must be installed.
    GroupChanged,
    /// The network key that is sent under, or that frames are taken under, changed.
    LinkKeys,
    /// No answer after three retransmissions; it is tried again later.
    Parked(Number),
    /// The cloud refuses it for good, with this CoAP code.
    Refused {
        /// Which message.
        number: Number,
        /// CoAP code.
        code: u8,
    },
    /// New contexts are agreed on and durable: what is sent from now on is sealed under them.
    RenewalAgreed(Epoch),
    /// The other side answered under the new contexts: those before are wiped.
    RenewalConfirmed(Epoch),
    /// A run came to nothing. The contexts in use stay.
    RenewalFailed {
        /// Which epoch it was for; it is never used again.
        epoch: Epoch,
        /// Why.
        failed: Failed,
        /// Milliseconds before the next one, at the earliest.
        pause: u64,
    },
    /// Keys must be renewed, and this node has nothing to do it with: after [`Why::Refused`] and [`Why::Spent`] nothing more
    /// is sent until new secrets are installed.
    RenewalNeeded(Why),
    /// A run of EDHOC begins.
    RenewalStarted {
        /// For this epoch.
        epoch: Epoch,
        /// Why.
        why: Why,
    },
    /// It was given to the radio.
    Sent {
        /// Which message.
        number: Number,
        /// How often so far.
        attempt: u8,
    },
    /// The signer gave no signature; it is asked again.
    SignerFailed,
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
    /// The device is enrolled by EDHOC, and has not agreed on its first keys yet.
    NotAgreed,
    /// Keys must be renewed first: the other side refuses them, or they are used up.
    RenewalNeeded,
    /// It cannot be sealed: too long for this radio and combination, or a lease is due
    /// ([`Node::poll`](super::Node::poll) first).
    Seal(SealError),
}

impl fmt::Display for SendRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the outbox is full of readings that nobody confirmed yet"),
            Self::NotAgreed => f.write_str("no keys are agreed on yet"),
            Self::RenewalNeeded => f.write_str("the keys must be renewed first"),
            Self::Seal(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for SendRefused {}
