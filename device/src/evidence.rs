//! # Evidence: batches of readings, signed by the device
//!
//! | | |
//! |---|---|
//! | Key held    | the device's signing key, behind [`Sign`](fivefold_core::proof::Sign): in flash, or in a secure element; never the DH key (AR-26) |
//! | Signs       | a statement over the leaves of up to N_batch readings: when they are so many, after 24 hours, before an epoch is left |
//! | Keeps       | the leaf hashes of the last `L` readings, in RAM; the number and hash of the last statement, in the record |
//! | Takes       | item 4: done, sign again over what came, send the leaf hashes |
//! | Does not    | sign what a reboot lost; make another statement under one number, but for one over fewer of its readings |
//! | Spec        | docs/protocol.md 7.1 (items 1 and 6), 7.3 (item 4), 13.1 |
//!
//! A [`Node`](crate::Node) is [`Unsigned`], or [`Signing`] with a key of some kind: ECDSA on P-256, as here, or Ed25519, which signs the
//! message itself and no digest of it (the parts together are 256 bytes at most):
//!
//! ```
//! use fivefold_core::proof::{KeyName, Sign, SignAlg, SignError, Signature};
//! use fivefold_device::Node;
//! use fivefold_device::evidence::Signing;
//! use fivefold_device::renewal::NoCurve;
//!
//! /// A secure element: the key was made in it, and stays there.
//! struct Element {
//!     spki: [u8; 91],
//! }
//!
//! impl Element {
//!     fn command(&self, _digest: &[u8; 32]) -> Option<[u8; 64]> {
//!         None // The bus, and what the part calls "sign this digest".
//!     }
//! }
//!
//! impl Sign for Element {
//!     fn alg(&self) -> SignAlg {
//!         SignAlg::Esp256
//!     }
//!     fn key_name(&self) -> KeyName {
//!         KeyName::of(&self.spki)
//!     }
//!     fn sign(&self, message: &[&[u8]]) -> Result<Signature, SignError> {
//!         let digest = fivefold_core::suite::sha256(message);
//!         self.command(&digest).map(Signature).ok_or(SignError::SignerFailed)
//!     }
//! }
//!
//! type Sensor = Node<4, NoCurve, Signing<Element, 16>>;
//! assert!(size_of::<Sensor>() < size_of::<Node<4>>() + 1_700);
//! ```

mod items;
mod signing;

use fivefold_core::id::Epoch;
use fivefold_core::proof::merkle::Hash;
use fivefold_core::proof::statement::{BlindKey, Subject};
use fivefold_core::time::Millis;
use fivefold_core::wire::control::BatchState;

use crate::node::Event;

pub use items::signature_messages;
pub use signing::{Downlink, Signing};

/// Whether a node signs its readings: [`Unsigned`] or [`Signing`].
pub trait Evidence: engine::Engine {}

/// No evidence: readings are proven to the cloud, and to nobody else. Takes no memory and no flash.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unsigned;

impl Evidence for Unsigned {}
impl engine::Engine for Unsigned {}

/// The last statement: what the next one is chained to. Durable before its signature leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Number of the last batch; 0 for none.
    pub number: u32,
    /// SHA-256 of its statement; zeros for none.
    pub statement: Hash,
}

impl Chain {
    /// Of a device that never signed.
    pub const NONE: Self = Self { number: 0, statement: Hash([0; 32]) };
}

/// When the open batch is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Now: the epoch is about to be left.
    Now,
    /// When it is full, or 24 hours old.
    WhenDue,
    /// Also when this number is too far from its first.
    Before(u32),
}

/// What an item speaks of, and what is to be said next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Bytes of the control map.
    pub len: usize,
    /// Which batch.
    pub batch: u32,
    /// What is left to say of it, once this is in the outbox.
    pub then: items::Pieces,
}

/// A node that signs if it was given a key.
impl<E: Evidence> Evidence for Option<E> {}
impl<E: Evidence> engine::Engine for Option<E> {
    fn blind_with(&mut self, blind: Option<BlindKey>) {
        if let Some(this) = self {
            this.blind_with(blind);
        }
    }

    fn needs_blind(&self) -> bool {
        self.as_ref().is_some_and(E::needs_blind)
    }

    fn sign_every(&mut self, readings: u8) {
        if let Some(this) = self {
            this.sign_every(readings);
        }
    }

    fn is_full(&self) -> bool {
        self.as_ref().is_some_and(E::is_full)
    }

    fn sealed(&mut self, now: Millis, subject: &Subject, next: u32, piv: u32, payload: &[u8]) {
        if let Some(this) = self {
            this.sealed(now, subject, next, piv, payload);
        }
    }

    fn tend(
        &mut self,
        now: Millis,
        close: Close,
        chain: Chain,
        on_its_way: (impl Fn(Epoch, u64) -> bool, impl Fn(u32) -> bool),
    ) -> Option<Chain> {
        self.as_mut()?.tend(now, close, chain, on_its_way)
    }

    fn item(&mut self, now: Millis, room: usize, is_about: impl Fn(u32) -> bool, out: &mut [u8]) -> Option<Item> {
        self.as_mut()?.item(now, room, is_about, out)
    }

    fn item_sealed(&mut self, item: Item) {
        if let Some(this) = self {
            this.item_sealed(item);
        }
    }

    fn item_postponed(&mut self, at: Millis) {
        if let Some(this) = self {
            this.item_postponed(at);
        }
    }

    fn item_lost(&mut self, batch: u32) {
        if let Some(this) = self {
            this.item_lost(batch);
        }
    }

    fn told(&mut self, state: &BatchState<'_>) {
        if let Some(this) = self {
            this.told(state);
        }
    }

    fn delivered(&mut self, epoch: Epoch, piv: u32) {
        if let Some(this) = self {
            this.delivered(epoch, piv);
        }
    }

    fn event(&mut self) -> Option<Event> {
        self.as_mut()?.event()
    }

    fn closes_at(&self) -> Option<Millis> {
        self.as_ref()?.closes_at()
    }

    fn items_at(&self) -> Option<Millis> {
        self.as_ref()?.items_at()
    }
}

/// The engine's half of [`Evidence`]: nobody else implements it.
pub mod engine {
    use super::{BatchState, BlindKey, Chain, Close, Epoch, Event, Item, Millis, Subject};

    /// What a node asks of its evidence. Each does nothing where nothing is signed.
    pub trait Engine {
        /// Readings are sealed under this K_blind from now on; `None` where they cannot be signed.
        fn blind_with(&mut self, blind: Option<BlindKey>) {
            let _ = blind;
        }

        /// Whether there is a signer, and what it needs of the node.
        fn needs_blind(&self) -> bool {
            false
        }

        /// N_batch of the policy record.
        fn sign_every(&mut self, readings: u8) {
            let _ = readings;
        }

        /// Whether readings have to wait until batches before them are in the outbox.
        fn is_full(&self) -> bool {
            false
        }

        /// A reading was sealed; `next` is the number of the batch after the last that was signed.
        fn sealed(&mut self, now: Millis, subject: &Subject, next: u32, piv: u32, payload: &[u8]) {
            let _ = (now, subject, next, piv, payload);
        }

        /// Signs what is due. The pair says whether a message, and whether something about a batch, is still on its way.
        /// Returns what must be durable before anything else leaves.
        fn tend(
            &mut self,
            now: Millis,
            close: Close,
            chain: Chain,
            on_its_way: (impl Fn(Epoch, u64) -> bool, impl Fn(u32) -> bool),
        ) -> Option<Chain> {
            let _ = (now, close, chain, on_its_way);
            None
        }

        /// The next item, in a control map of its own of at most `room` bytes. `is_about` says whether a message about a batch
        /// is still on its way.
        fn item(&mut self, now: Millis, room: usize, is_about: impl Fn(u32) -> bool, out: &mut [u8]) -> Option<Item> {
            let _ = (now, room, is_about, out);
            None
        }

        /// That item is in the outbox.
        fn item_sealed(&mut self, item: Item) {
            let _ = item;
        }

        /// That item could not be sealed: again later.
        fn item_postponed(&mut self, at: Millis) {
            let _ = at;
        }

        /// A message about a batch is lost: what it said is said again, where it still can be.
        fn item_lost(&mut self, batch: u32) {
            let _ = batch;
        }

        /// Item 4.
        fn told(&mut self, state: &BatchState<'_>) {
            let _ = state;
        }

        /// The other side has this message now.
        fn delivered(&mut self, epoch: Epoch, piv: u32) {
            let _ = (epoch, piv);
        }

        /// What happened.
        fn event(&mut self) -> Option<Event> {
            None
        }

        /// When the open batch is to be closed.
        fn closes_at(&self) -> Option<Millis> {
            None
        }

        /// When there is an item.
        fn items_at(&self) -> Option<Millis> {
            None
        }
    }
}
