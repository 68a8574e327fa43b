//! A village in one process: seeded clock, lossy radio, attacker. Not published.
//!
//! The engines are the real ones, over their real stores: [`fivefold_device::Node`] with its relay, the gateway's, the
//! cloud's. Everything else is made of one seed: the weather on the air, the moments at which power goes and processes
//! die, and what the hostile do. [`watch`] says what must hold whatever happens.
//!
//! `cargo run --release -p fivefold-sim -- --seeds 1000` runs a thousand villages. One that breaks a promise prints its
//! seed; `SIM_SEED=n cargo test -p fivefold-sim` runs it again.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod agenda;
pub mod cloud;
pub mod deployment;
pub mod dice;
pub mod family;
pub mod gateway;
pub mod hostile;
pub mod model;
pub mod node;
pub mod plan;
pub mod watch;
pub mod world;
pub mod year;

pub use plan::Plan;
pub use world::{Broken, Summary, World, run};
