//! The one command of Fivefold.
fn main() {}
