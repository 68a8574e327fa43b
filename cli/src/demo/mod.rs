//! The demo.

pub mod processes;
pub mod threats;
pub mod village;
