//! Signatures of devices, and the log.

use crate::rule::Rule;

pub(super) static RULES: &[Rule] = &[];
