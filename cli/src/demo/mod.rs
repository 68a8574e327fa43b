//! The demo.

pub mod threats;
