//! The demo.

pub mod processes;
pub mod siege;
pub mod threats;
pub mod village;
