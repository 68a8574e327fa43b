//! The Fivefold cloud: it opens what devices sealed for it, takes a proven gateway's word for the rest and says so, keeps
//! every reading once, and answers.
//!
//! [`cloud`] is the engine, [`book`] what it knows of devices and gateways, [`store`] the exact ledger; [`ingest`],
//! [`enrol`], [`api`], [`witnesses`] and [`daemon`] are the rim.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod accepted;
pub mod book;
pub mod campaign;
pub mod classic;
pub mod cloud;
pub mod context;
pub mod embedded;
pub mod key_desk;
pub mod limits;
mod pulse;
pub mod push;
mod renewal;
mod restored;
pub mod store;

#[cfg(feature = "server")]
pub mod alarm;
#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod daemon;
#[cfg(feature = "server")]
pub mod enrol;
#[cfg(feature = "server")]
pub mod evidence;
#[cfg(feature = "server")]
pub mod health;
#[cfg(feature = "server")]
pub mod ingest;
#[cfg(feature = "server")]
pub mod log;
#[cfg(feature = "server")]
pub mod log_key;
#[cfg(feature = "server")]
pub mod meshlium;
#[cfg(feature = "server")]
mod mqtt;
#[cfg(feature = "server")]
pub mod notes;
#[cfg(feature = "server")]
pub mod outbox;
#[cfg(feature = "server")]
pub mod selfcheck;
#[cfg(feature = "server")]
pub mod service;
#[cfg(feature = "server")]
pub mod witnesses;
