//! What the engine wants done, what it asks the store, and what the store says.

use std::net::SocketAddr;

use fivefold_core::error::Rejected;
use fivefold_core::id::{BootContext, Did, Epoch, Sid};
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::suite::{CiphertextHash, sha256};
use fivefold_core::time::Millis;
use fivefold_core::why::Refusal;
use fivefold_core::wire::state::State;
use zeroize::Zeroize as _;

use super::ClassicDone;

/// Names a C2 context in the store without telling its key: 8 bytes of a hash over group, sid, epoch, boot id and secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextName(pub [u8; 8]);

/// Names a network key in the store without telling it: 8 bytes of a hash over index and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKeyName(pub [u8; 8]);

/// Names a key of the hardened profile in the store without telling it: 8 bytes of a hash over serial, epoch and key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HardenedName(pub [u8; 8]);

pub(super) fn first8(parts: &[&[u8]]) -> [u8; 8] {
    let [a, b, c, d, e, f, g, h, ..] = sha256(parts);
    [a, b, c, d, e, f, g, h]
}

/// Something to be carried out, in order; stop at the first that fails.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// What came of a frame of a classic device.
    Classic {
        /// As it was handed in.
        ticket: u64,
        /// What came of it.
        done: ClassicDone,
    },
    /// Something was refused. It is counted already.
    Dropped {
        /// Code and reason.
        rejected: Rejected,
        /// Who sent it, as far as that is known or claimed.
        sid: Option<Sid>,
    },
    /// Why that was, to be kept for the operator for a while. Of a flood only a sample is told.
    Explained(Box<Refusal>),
    /// What a tiny frame stands for, as CoAP; only with [`Capture::On`](super::Capture::On).
    Expanded {
        /// The device.
        sid: Sid,
        /// Which way it goes.
        toward: Toward,
        /// A CoAP message.
        message: Box<[u8]>,
    },
    /// An envelope with a message of EDHOC, to be posted to the cloud by itself and not stored; what came of it is told by
    /// [`handle_exchanged`](super::Gateway::handle_exchanged).
    Exchange {
        /// To be given back.
        ticket: u64,
        /// The envelope.
        envelope: Box<[u8]>,
    },
    /// A tiny frame for a device on LoRaWAN, to be queued at its network server.
    Lorawan {
        /// The device's DevEUI.
        dev_eui: Did,
        /// FPort: the frame's RuleID.
        f_port: u8,
        /// FRMPayload: the rest of the frame.
        payload: Box<[u8]>,
    },
    /// A question to the store; it sees every `Persist` before it. To be answered by
    /// [`handle_stored`](super::Gateway::handle_stored) at once.
    Lookup(Lookup),
    /// To be written; durable when [`handle_durable`](super::Gateway::handle_durable) says so, in any group.
    Persist(Record),
    /// A CoAP message over UDP.
    Send {
        /// To whom.
        to: SocketAddr,
        /// The message.
        message: Box<[u8]>,
    },
    /// An 802.15.4 frame with its check sequence, for the air.
    Transmit(Box<[u8]>),
    /// An E1S message, for the radio whose frames carry it.
    TransmitMessage {
        /// EUI-64 of the next hop; without one it goes to everybody in reach.
        to: Option<Did>,
        /// The message.
        message: Box<[u8]>,
    },
}

/// Direction of an expanded message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toward {
    /// From a device.
    Cloud,
    /// To a device.
    Device,
}

/// One durable write. What waits for it waits for [`handle_durable`](super::Gateway::handle_durable).
#[derive(Debug)]
pub enum Record {
    /// A number under C2 was taken: its window bit and hash (W5). Also: no answer without a number will be made for it
    /// after the one that this acceptance allows (9.2).
    Accepted {
        /// The context.
        context: ContextName,
        /// The number.
        number: u32,
        /// Hash of its ciphertext.
        hash: CiphertextHash,
    },
    /// A context that was handed over ahead of a state, until a state of its version or a later one is written. Holds a
    /// secret: it is sealed at rest.
    Added {
        /// The device.
        sid: Sid,
        /// Its key generation.
        epoch: Epoch,
        /// The context.
        context: AddedContext,
    },
    /// A context that was agreed with this gateway alone (W6). Holds secrets: it is sealed at rest.
    Agreed(AgreedContext),
    /// Sender numbers below `bound` may be used for answers in this context (W1).
    AnswerLease {
        /// The context.
        context: ContextName,
        /// The bound.
        bound: u32,
    },
    /// A boot of a device in mode R was opened: it is kept for ever (8.1).
    BootOpened {
        /// The context without boot id.
        family: ContextName,
        /// The boot.
        boot: BootContext,
    },
    /// The cloud has everything up to this number durable: delete it (W8).
    Delivered {
        /// The run that numbered it.
        boot: GatewayBoot,
        /// Up to and with this one.
        upto: u64,
    },
    /// A context that was agreed here drains from now on: a newer one is in use.
    Drains {
        /// The device.
        sid: Sid,
        /// Its key generation.
        epoch: Epoch,
        /// Since when.
        since: Millis,
    },
    /// An envelope for the cloud, under the present boot id.
    Envelope {
        /// Its number.
        seq: u64,
        /// The envelope.
        bytes: Box<[u8]>,
    },
    /// Failed verifications of a context so far.
    Failures {
        /// The context.
        context: ContextName,
        /// How many.
        count: u32,
    },
    /// A context is gone for ever: what is known of it is of no use.
    Forgotten {
        /// The context.
        context: ContextName,
    },
    /// Numbers were taken under a key of the hardened profile of a classic device (docs/protocol.md 12.4).
    HardenedWindow {
        /// The key.
        name: HardenedName,
        /// As [`Window::to_bytes`](fivefold_waspmote::hardened::Window::to_bytes) gives it.
        window: [u8; 12],
    },
    /// Frame counters below `bound` may be sent under this network key (W1).
    LinkLease {
        /// The key.
        key: LinkKeyName,
        /// The bound.
        bound: u32,
    },
    /// The gateway state that was applied; replaces the one before. Holds secrets: it is sealed at rest.
    State(AppliedState),
    /// A context that was agreed here is over: its secrets are erased.
    Unagreed {
        /// The device.
        sid: Sid,
        /// Its key generation.
        epoch: Epoch,
    },
}

/// A gateway state as it was applied.
#[derive(Clone, Default)]
pub struct AppliedState {
    /// Its version.
    pub version: u64,
    /// When it was applied first.
    pub applied: Millis,
    /// Its parts, as they came.
    pub parts: Vec<Box<[u8]>>,
}

impl AppliedState {
    /// Serial numbers of certificates of the cloud that are revoked.
    pub fn revoked_serials(&self) -> Vec<Vec<u8>> {
        let parts = self.parts.iter().filter_map(|part| State::parse(part).ok());
        parts.flat_map(|state| state.revoked_serials.iter().map(|s| s.0.to_vec()).collect::<Vec<_>>()).collect()
    }
}

impl std::fmt::Debug for AppliedState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AppliedState(version {}, {} parts)", self.version, self.parts.len())
    }
}

/// A context as it was handed over (downlink 5).
#[derive(Clone)]
pub struct AddedContext {
    /// The version of the first state that has it.
    pub version: u64,
    /// As it came.
    pub bytes: Box<[u8]>,
}

impl std::fmt::Debug for AddedContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AddedContext(version {})", self.version)
    }
}

/// A context that was agreed with this gateway alone.
#[derive(Clone)]
pub struct AgreedContext {
    /// The device.
    pub sid: Sid,
    /// Its key generation.
    pub epoch: Epoch,
    /// When it was agreed.
    pub at: Millis,
    /// Since when a newer one is in use.
    pub drains_since: Option<Millis>,
    /// What it is made of.
    pub bytes: Box<[u8]>,
}

impl Drop for AgreedContext {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl std::fmt::Debug for AgreedContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AgreedContext({}, epoch {})", self.sid, self.epoch)
    }
}

/// A question to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Was this boot opened ever?
    Boot {
        /// To be given back.
        ticket: u64,
        /// The context without boot id.
        family: ContextName,
        /// The boot.
        boot: BootContext,
    },
    /// What is known of a context: its window, lease and failures.
    Context(ContextName),
    /// The two boots of a family that were opened last.
    Family(ContextName),
    /// The hash of an accepted number.
    Hash {
        /// To be given back.
        ticket: u64,
        /// The context.
        context: ContextName,
        /// The number.
        number: u32,
    },
}

/// The store's answer to a [`Lookup`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// To [`Lookup::Boot`].
    Boot {
        /// As asked.
        ticket: u64,
        /// Whether it was.
        opened: bool,
        /// Numbers below this may have been used in every boot of its family (W1).
        bound: u32,
    },
    /// To [`Lookup::Context`].
    Context {
        /// As asked.
        context: ContextName,
        /// Accepted numbers, the last 64 at least as far as they lie in the window; in any order.
        numbers: Vec<u32>,
        /// Bound of its answer numbers; 0 when none was written.
        bound: u32,
        /// Failures, as last written.
        failures: u32,
    },
    /// To [`Lookup::Family`].
    Family {
        /// As asked.
        family: ContextName,
        /// Up to two, the newer one last.
        boots: Vec<BootContext>,
    },
    /// To [`Lookup::Hash`].
    Hash {
        /// As asked.
        ticket: u64,
        /// The hash, if the number is there.
        hash: Option<CiphertextHash>,
    },
}
