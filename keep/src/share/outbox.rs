//! `[[outbox]]` of `cloud.toml`: where readings go.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::CloudAlarmSink;

/// One sink of readings: exactly one of `influx`, `mqtt`, `nats`, `parquet`, `webhook` says where it
/// is. Files are relative to `cloud.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudOutbox {
    /// Its name, by which its place in the readings is kept, its secret is filed and the command speaks of it.
    pub name: String,
    /// Where a new sink begins: `now` (the default) or `start`, with all readings that are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// An InfluxDB: `https://HOST:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub influx: Option<String>,
    /// A broker of MQTT 5: `mqtts://HOST:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<String>,
    /// A NATS server with JetStream: `tls://HOST:PORT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats: Option<String>,
    /// A folder, which must be there, for Parquet files by day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parquet: Option<String>,
    /// A receiver of POST requests: `https://HOST/PATH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// CA certificates that the sink's is signed by, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// User name at the sink; the password is the sink's secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Forms of a message at a broker: `fivefold` (the default), `chirpstack`, or both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shape: Vec<String>,
    /// What our own topics begin with: `fivefold` if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// Id of the application in ChirpStack's topics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// Database of an InfluxDB of version 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Organisation of an InfluxDB of version 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    /// Bucket of an InfluxDB of version 2; the token is the sink's secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    /// Name of the points in InfluxDB: `fivefold` if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measurement: Option<String>,
    /// Stream of JetStream that takes the readings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// What subjects at a NATS server begin with: `fivefold` if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Readings of a Parquet file, at most: 5,000 if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readings: Option<usize>,
    /// Seconds that a reading waits for others before a Parquet file is written: 300 if it is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every_s: Option<u64>,
    /// Talks to the broker in clear text: `mqtt` is `mqtt://HOST:PORT` then.
    #[serde(skip_serializing_if = "super::is_false")]
    pub insecure_mqtt: bool,
}

impl CloudOutbox {
    /// Whether a sink may have this name: it is part of a file's.
    pub fn is_name(name: &str) -> bool {
        CloudAlarmSink::is_name(name)
    }

    /// The file with the sealed secret of the sink with this name, in the cloud's folder.
    pub fn secret_file(folder: &Path, name: &str) -> PathBuf {
        folder.join(format!("outbox-{name}.sealed"))
    }
}
