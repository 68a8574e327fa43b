//! `[meshlium_mqtt]` of `cloud.toml`: what Meshlium's MQTT connector did.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[meshlium_mqtt]`: each value of a classic frame is published as a message. Files are relative to `cloud.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudMeshliumMqtt {
    /// The broker: `mqtts://HOST:PORT`.
    pub broker: String,
    /// Our name at the broker.
    #[serde(default = "client_id")]
    pub client_id: String,
    /// What takes the place of `#MESHLIUM#`.
    #[serde(default = "name")]
    pub name: String,
    /// Template of the topic.
    #[serde(default = "topic")]
    pub topic: String,
    /// Template of the message.
    #[serde(default = "message")]
    pub message: String,
    /// CA certificates that the broker's is signed by, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// User name at the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// File with the password, which only its owner can read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Talks to the broker in clear text: `broker` is `mqtt://HOST:PORT` then.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub insecure_mqtt: bool,
}

impl CloudMeshliumMqtt {
    /// The defaults, for this broker.
    pub fn at(broker: &str) -> Self {
        Self {
            broker: broker.to_owned(),
            client_id: client_id(),
            name: name(),
            topic: topic(),
            message: message(),
            ca_file: None,
            username: None,
            password_file: None,
            insecure_mqtt: false,
        }
    }
}

fn client_id() -> String {
    "fivefold-cloud".into()
}

fn name() -> String {
    "meshlium".into()
}

fn topic() -> String {
    "#MESHLIUM#/#SENSOR#".into()
}

fn message() -> String {
    concat!(
        r##"{"id":"#ID#","id_wasp":"#ID_WASP#","id_secret":"#ID_SECRET#","sensor":"#SENSOR#","value":"#VALUE#","##,
        r##""datetime":"#TS("c")#","proven":"#PROVEN#"}"##
    )
    .into()
}
