//! Classic radios of `gateway.toml`: where frames of Waspmote and Plug & Sense! nodes come in. All are off unless they stand
//! there.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[insecure_http]` of `gateway.toml`: frames by HTTP in clear text, as nodes of that age send them (W13).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayHttp {
    /// TCP address.
    pub bind: SocketAddr,
    /// Connections at a time.
    #[serde(default = "connections")]
    pub connections: usize,
    /// Connections at a time of one address; of IPv6, of one /64. Behind a TLS front end, all have the front end's.
    #[serde(default = "connections_per_address")]
    pub connections_per_address: usize,
    /// Requests a minute of one address.
    #[serde(default = "requests_a_minute")]
    pub requests_a_minute: u32,
    /// Seconds that a client has for its whole request.
    #[serde(default = "request_seconds")]
    pub request_seconds: u16,
}

const fn connections() -> usize {
    256
}

const fn connections_per_address() -> usize {
    32
}

const fn requests_a_minute() -> u32 {
    600
}

/// A modem on 2G needs seconds for the 700 bytes of a request.
const fn request_seconds() -> u16 {
    30
}

/// `[xbee]` of `gateway.toml`: an XBee module in API mode on a serial line (W10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayXbee {
    /// The line, e.g. `/dev/ttyUSB0`.
    pub port: PathBuf,
    /// Its speed, in bits a second.
    #[serde(default = "usual_baud")]
    pub baud: u32,
    /// What the module speaks: `802.15.4`, `868`, `868lp`, `900`, `900hp`, `digimesh` or `zigbee`.
    pub kind: String,
    /// File with the key that modules encrypt with among themselves (KY): 16 characters or 32 hex digits. Absent: what the
    /// module has set stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_key_file: Option<PathBuf>,
    /// Whether nodes that ask for the time are told it (W11).
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub answer_time: bool,
}

const fn usual_baud() -> u32 {
    115_200
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_yes(b: &bool) -> bool {
    *b
}

/// `[lorawan]` of `gateway.toml`: what a LoRaWAN network server hears, by its MQTT broker. Devices of the modern suite come in
/// this way as well. Files are relative to `gateway.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayLorawan {
    /// The network server: `chirpstack` or `things-stack`.
    pub kind: String,
    /// Its broker: `mqtts://HOST:PORT`.
    pub broker: String,
    /// The application whose devices are heard: ChirpStack's id of it, `APPLICATION@TENANT` of The Things Stack.
    pub application: String,
    /// How its devices came into their LoRaWAN network, by the operator's word: `otaa` or `abp`. Under ABP there is no E1.
    pub activation: String,
    /// Devices under ABP in spite of `otaa`: DevEUIs, 16 hex digits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub abp: Vec<String>,
    /// CA certificates that the broker's is signed by, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// User name at the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// File with the password, which only its owner can read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Our certificate for the broker, PEM; with `key_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// File with its key, PEM, which only its owner can read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Talks to the broker in clear text: `broker` is `mqtt://HOST:PORT` then.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub insecure_mqtt: bool,
}
