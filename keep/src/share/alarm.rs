//! `[[alarm.sink]]` of `cloud.toml`: who is told of alarms.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// `[alarm]` of `cloud.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudAlarm {
    /// Who is told.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sink: Vec<CloudAlarmSink>,
}

/// One sink: exactly one of `webhook`, `mail` and `mqtt` says where it is. Files are relative to `cloud.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudAlarmSink {
    /// Its name, by which its secret is filed and the command speaks of it.
    pub name: String,
    /// Only alarms that are at least so severe: `warning` (the default), `high` or `critical`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least: Option<String>,
    /// A receiver of POST requests: `https://HOST/PATH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// A mail server for submission: `smtps://HOST:465` (TLS), or `smtp://HOST:587` (STARTTLS, required).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<String>,
    /// A broker: `mqtts://HOST:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<String>,
    /// CA certificates that the sink's is signed by, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// User name at a mail server or broker; the password is the sink's secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Sender of mails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Receivers of mails.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// Topic at a broker: `fivefold/alarms` if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Talks to the broker in clear text: `mqtt` is `mqtt://HOST:PORT` then.
    #[serde(skip_serializing_if = "super::is_false")]
    pub insecure_mqtt: bool,
}

impl CloudAlarmSink {
    /// Whether a sink may have this name: it is part of a file's.
    pub fn is_name(name: &str) -> bool {
        (1..=32).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    }

    /// The file with the sealed secret of the sink with this name, in the cloud's folder.
    pub fn secret_file(folder: &Path, name: &str) -> PathBuf {
        folder.join(format!("alarm-{name}.sealed"))
    }
}
