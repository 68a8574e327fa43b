//! The attackers of docs/threats.md, each a process of its own (`fivefold attack NAME --plan FILE`), so that what they
//! try goes through live sockets and what they hold is what the plan gives them.
//!
//! An attacker reports what it tried and what it could read. What it could forge is judged by the demo, which knows what
//! the nodes really sent and asks the cloud what it stored.

pub mod air;
pub mod backhaul;
pub mod impersonate;
pub mod insider;
pub mod plan;
pub mod radio;

use serde::{Deserialize, Serialize};

/// What an attacker says when it is done; one line of JSON on standard output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How many things it tried: frames or messages sent, keys or places tried.
    pub attempts: u64,
    /// How many real readings it holds in the clear now.
    pub read: u64,
    /// One sentence on what was seen.
    pub note: String,
}

impl Report {
    /// A report of attempts alone.
    pub fn tried(attempts: usize, note: impl Into<String>) -> Self {
        Self { attempts: attempts as u64, read: 0, note: note.into() }
    }
}
