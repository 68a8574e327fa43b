//! The RSA key message (docs/protocol.md 12): Wycheproof, the vectors of the second implementation, every field altered,
//! and the rules of the server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod book;
mod fields;
mod rules;
mod vectors;
mod work;
mod wycheproof;
