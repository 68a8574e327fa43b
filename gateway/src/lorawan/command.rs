//! Downlink commands to network servers, as JSON.
//!
//! ChirpStack v4: `application/APPLICATION/device/DEV_EUI/command/down`
//! (<https://www.chirpstack.io/docs/chirpstack/integrations/mqtt.html>). The Things Stack v3:
//! `v3/APPLICATION@TENANT/devices/DEVICE_ID/down/push` (<https://www.thethingsindustries.com/docs/integrations/other-integrations/mqtt/>).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fivefold_core::id::Did;
use serde_json::json;

use super::{Application, NetworkServer};

/// What is to be sent to a device after its next uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downlink {
    /// The device.
    pub dev_eui: Did,
    /// FPort: the RuleID (docs/protocol.md 6).
    pub f_port: u8,
    /// FRMPayload: the tiny frame without its RuleID.
    pub payload: Box<[u8]>,
}

/// The topic of commands for a device, by its level in topics ([`Uplink::device`](super::Uplink::device)).
pub fn topic(server: NetworkServer, application: &Application, device: &str) -> String {
    let application = application.as_str();
    match server {
        NetworkServer::ChirpStack => format!("application/{application}/device/{device}/command/down"),
        NetworkServer::TheThingsStack => format!("v3/{application}/devices/{device}/down/push"),
    }
}

/// The command. Unconfirmed: what proves that a device has an answer is its own next message, not its radio.
pub fn emit(server: NetworkServer, downlink: &Downlink) -> Vec<u8> {
    let data = STANDARD.encode(&downlink.payload);
    let command = match server {
        NetworkServer::ChirpStack => json!({
            "devEui": downlink.dev_eui.to_string(),
            "confirmed": false,
            "fPort": downlink.f_port,
            "data": data,
        }),
        NetworkServer::TheThingsStack => json!({
            "downlinks": [{ "f_port": downlink.f_port, "frm_payload": data, "priority": "NORMAL" }],
        }),
    };
    command.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_command_of_the_vectors_is_written_as_it_says() {
        let file: Value = serde_json::from_str(include_str!("../../../vectors/lorawan/commands.json")).unwrap();
        for case in file["cases"].as_array().unwrap() {
            let server: NetworkServer = case["kind"].as_str().unwrap().parse().unwrap();
            assert!(case["source"].as_str().unwrap().starts_with("https://"));
            let downlink = Downlink {
                dev_eui: case["dev_eui"].as_str().unwrap().parse().unwrap(),
                f_port: u8::try_from(case["f_port"].as_u64().unwrap()).unwrap(),
                payload: hex::decode(case["payload"].as_str().unwrap()).unwrap().into(),
            };
            let application = case["application"].as_str().unwrap().parse().unwrap();
            assert_eq!(topic(server, &application, case["device"].as_str().unwrap()), case["topic"]);
            let command: Value = serde_json::from_slice(&emit(server, &downlink)).unwrap();
            assert_eq!(command, case["command"]);
        }
    }
}
