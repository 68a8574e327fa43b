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
}

/// `[xbee]` of `gateway.toml`: an XBee module in API mode on a serial line (W10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayXbee {
    /// The line, e.g. `/dev/ttyUSB0`.
    pub port: PathBuf,
}

/// `[mqtt]` of `gateway.toml`: a LoRaWAN network server's events by MQTT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayMqtt {
    /// Host and port of the broker.
    pub broker: String,
}
