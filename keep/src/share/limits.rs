//! `[limits]` of `cloud.toml`: how long the cloud keeps what, and how much of it.

use serde::{Deserialize, Serialize};

/// `[limits]` of `cloud.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudLimits {
    /// What the cloud may take of its disk, in MiB; 0 (the default): all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_max_mib: Option<u64>,
    /// What must stay free on that disk, in MiB: 64 if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_free_mib: Option<u64>,
    /// What readings say.
    #[serde(skip_serializing_if = "super::is_default")]
    pub readings: CloudLimit,
    /// Rows by which a repeat is known.
    #[serde(skip_serializing_if = "super::is_default")]
    pub ledger: CloudLimit,
    /// What was refused: why, and what was kept apart. 400 days and 256 MiB if they are not given.
    #[serde(skip_serializing_if = "super::is_default")]
    pub refusals: CloudLimit,
    /// Alarms that are over.
    #[serde(skip_serializing_if = "super::is_default")]
    pub alarms: CloudLimit,
    /// What proves readings to strangers.
    #[serde(skip_serializing_if = "super::is_default")]
    pub evidence: CloudLimit,
}

/// How long something is kept, and how much of it: whichever is reached first. 0: no such limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudLimit {
    /// Days since it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
    /// In MiB; the oldest go first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_mib: Option<u64>,
}
