//! Models: every course of events up to a depth, over the engines themselves.
//!
//! | Model | Parties | What may happen |
//! |---|---|---|
//! | [`renewal`](site) | device on IP, gateway, cloud | messages lost, doubled, late, in any order; deaths between any two writes; orders; a reset |
//! | [`nonces`](site) | the same with a second gateway | the same with readings, and another primary gateway (K2) |
//! | [`rotation`] | two nodes on 802.15.4, gateway, cloud | frames lost; restarts; steps of a rotation, states pushed late; weeks |
//!
//! [`explore`] looks at every sequence of moves, the shortest first. After each move the promises are checked, and from each
//! state a fair course is run, in which what must come to pass does. A model stands beside broken variants
//! ([`Flaw`]): a store that forgets what it was given, or an order of steps that is wrong, put between an engine and its
//! surroundings. The same check must find each of them.
//!
//! The engines are the real ones, with the device's two-slot storage. The stores of gateway and cloud are stand-ins in memory
//! that keep what they are given: the simulator and the kill test run over SQLite. Everything random comes from counters.

pub mod cases;
mod cloud;
mod curve;
mod device;
pub mod explore;
mod gateway;
mod ledger;
pub mod rotation;
pub mod seals;
pub mod site;

use std::fmt;
use std::sync::Arc;

use fivefold_core::suite::sha256;

/// What no engine wants done at one moment.
const RESTLESS: u32 = 10_000;

/// What a broken variant does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// A gateway's store forgets numbers that it accepted under C2 (W5).
    AcceptedNotKept,
    /// The cloud sends message_4, and stores its context after that (W6).
    AgreedTooLate,
    /// The cloud gives up the old context when a new one is agreed, not when it is used.
    BrokenBeforeMade,
    /// The cloud's store forgets numbers that it leased for answers (W1).
    CloudNumbersNotLeased,
    /// The device's flash forgets a new context (W3).
    ContextNotKept,
    /// The device's flash forgets that an epoch was offered (W2).
    EpochNotUsedUp,
    /// The device's flash forgets frame counters that it leased (W1).
    FramesNotLeased,
    /// A gateway's store forgets numbers that it leased for answers (W1).
    GatewayNumbersNotLeased,
    /// The device says that it has a network key, and its flash forgets it (4.3).
    KeyNotKept,
    /// The cloud's ledger forgets rows (W7).
    LedgerNotKept,
    /// The device's flash forgets sender numbers that it leased (W1).
    NumbersNotLeased,
    /// The cloud starts over a copy of its store of before, without the procedure for that (8.4).
    OldCopyRestored,
    /// The key before is retired together with the switch, whoever has the new one (4.3).
    RetiredTooSoon,
    /// A gateway's store forgets its share of a new context (W6).
    ShareNotKept,
    /// Another primary gateway is given the same secret of the same group (K2).
    SuccessorAnswers,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AcceptedNotKept => "the gateway forgets numbers that it accepted (W5)",
            Self::AgreedTooLate => "message_4 goes out before its context is stored (W6)",
            Self::BrokenBeforeMade => "the cloud gives up the old context when it agrees on a new one",
            Self::CloudNumbersNotLeased => "the cloud forgets numbers that it leased for answers (W1)",
            Self::ContextNotKept => "the device forgets a new context (W3)",
            Self::EpochNotUsedUp => "the device forgets that it offered an epoch (W2)",
            Self::FramesNotLeased => "the device forgets frame counters that it leased (W1)",
            Self::GatewayNumbersNotLeased => "the gateway forgets numbers that it leased for answers (W1)",
            Self::KeyNotKept => "a node says that it has the new network key, and forgets it (4.3)",
            Self::LedgerNotKept => "the cloud forgets messages that it took (W7)",
            Self::NumbersNotLeased => "the device forgets sender numbers that it leased (W1)",
            Self::OldCopyRestored => "the cloud starts over an old copy of its store (8.4)",
            Self::RetiredTooSoon => "the old network key is retired before nodes have the new one (4.3)",
            Self::ShareNotKept => "the gateway forgets its share of a new context (W6)",
            Self::SuccessorAnswers => "another primary gateway gets the secret of the one before (K2)",
        })
    }
}

/// A model: its bounds, and what is wrong with it.
pub struct Plan<B> {
    bounds: B,
    flaw: Option<Flaw>,
    common: Arc<cloud::Common>,
}

impl<B> Plan<B> {
    /// A model.
    ///
    /// # Errors
    /// Without randomness or a folder.
    pub fn new(bounds: B, flaw: Option<Flaw>) -> anyhow::Result<Self> {
        Ok(Self { bounds, flaw, common: Arc::new(cloud::Common::new()?) })
    }
}

/// What a party went through: a hash over its inputs since its last start, and over what it started from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct History([u8; 32]);

impl History {
    fn of(parts: &[&[u8]]) -> Self {
        let mut history = Self::default();
        history.add(parts);
        history
    }

    fn add(&mut self, parts: &[&[u8]]) {
        let mut all = Vec::from(self.0);
        for part in parts {
            all.extend_from_slice(&(part.len() as u64).to_be_bytes());
            all.extend_from_slice(part);
        }
        self.0 = sha256(&[&all]);
    }

    const fn short(&self) -> u128 {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = self.0;
        u128::from_be_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }
}

/// Where something breaks in the middle of a move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inside {
    /// Nowhere.
    #[default]
    Nothing,
    /// The cloud's process dies after so many writes.
    Cloud(u8),
    /// The device's power goes after so many writes and messages; half of the next write reaches the flash.
    Device(u8),
    /// The gateway's process dies after so many writes and messages.
    Gateway(u8),
    /// The cloud has done its part, and its reply is lost.
    Reply,
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Cloud(n) => write!(f, "; the cloud dies after write {n} of it, and starts again"),
            Self::Device(n) => write!(f, "; the power of the device goes after step {n} of it, and comes back"),
            Self::Gateway(n) => write!(f, "; the gateway dies after step {n} of it, and starts again"),
            Self::Reply => f.write_str("; the cloud's reply is lost"),
        }
    }
}
