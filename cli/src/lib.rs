//! The one command of Fivefold.

pub mod attack;
pub mod demo;
pub mod output;
