//! `[log]` of `cloud.toml`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The log of what devices signed (docs/protocol.md 13.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudLog {
    /// Seconds between two heads that are signed and shown to the witnesses: 1 to 600. What came after the last one has no
    /// evidence yet.
    #[serde(skip_serializing_if = "is_usual")]
    pub head_every_s: u16,
    /// Whether the API serves its files below `/log/`, to everybody and without a token.
    pub serve: bool,
    /// Who is asked to cosign each head.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<CloudWitness>,
}

/// The longest time between two heads (docs/protocol.md 13.2), in seconds.
pub const HEAD_EVERY_S: u16 = 600;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_usual(seconds: &u16) -> bool {
    *seconds == HEAD_EVERY_S
}

impl Default for CloudLog {
    fn default() -> Self {
        Self { head_every_s: HEAD_EVERY_S, serve: false, witnesses: Vec::new() }
    }
}

/// `[[log.witnesses]]` of `cloud.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudWitness {
    /// Where it is asked: the prefix before `/add-checkpoint`.
    pub url: String,
    /// Its key, as it prints it: one, or a list with its key of ML-DSA-44 too.
    pub vkey: OneOrMore,
    /// CA (PEM file, relative to this file) of its certificate, for `https://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// A text, or a list of texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// `"..."`.
    One(String),
    /// `["...", "..."]`.
    More(Vec<String>),
}

impl OneOrMore {
    /// All of them.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(all) => all,
        }
    }
}
