//! The Node and Relay engines of a Fivefold sensor. no_std, no alloc, no I/O.
