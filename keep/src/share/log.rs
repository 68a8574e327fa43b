//! `[log]` of `cloud.toml`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The log of what devices signed (docs/protocol.md 13.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudLog {
    /// Whether the API serves its files below `/log/`, to everybody and without a token.
    pub serve: bool,
    /// Who is asked to cosign each head.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub witnesses: Vec<CloudWitness>,
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
