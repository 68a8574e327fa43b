//! A reading as ChirpStack v4 tells of an uplink (vectors/lorawan/chirpstack-up.json has the form).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fivefold_core::suite::sha256;
use serde_json::{Map, Value, json};
use uuid::Builder;

use crate::Outbound;

/// The port that says what `data` is: our own payload (docs/protocol.md 7).
const PORT: u8 = 1;
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

/// The topic of a device's uplinks.
pub(crate) fn topic(application: &str, reading: &Outbound) -> String {
    format!("application/{application}/device/{}/event/up", reading.did)
}

/// One id for one reading, as a UUID (version 8: what is in it is ours).
fn deduplication_id(reading: &Outbound) -> String {
    let digest = sha256(&[reading.id.as_bytes()]);
    let bytes = digest.first_chunk::<16>().copied().unwrap_or_default();
    Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// The event. What only we know stands in `object.fivefold`; of two quantities with one name the last counts.
pub(crate) fn event(application: &str, reading: &Outbound) -> Value {
    let mut object: Map<String, Value> = reading
        .values
        .iter()
        .filter_map(|q| Some((q.name.clone(), q.value.as_ref().map(|v| v.json()).or_else(|| q.sum.map(|s| json!(s)))?)))
        .collect();
    let ours = json!({
        "id": reading.id, "about": reading.about.as_str(), "proof": reading.proof.as_str(), "e1": reading.e1.as_str(),
        "insecure": reading.insecure, "conflict": reading.conflict, "net": reading.net.to_string(),
        "epoch": reading.epoch.0, "number": reading.number,
    });
    object.insert("fivefold".into(), ours);
    json!({
        "deduplicationId": deduplication_id(reading),
        "time": reading.time(),
        "deviceInfo": {
            "tenantId": NOBODY,
            "tenantName": "",
            "applicationId": application,
            "applicationName": reading.network,
            "deviceProfileId": NOBODY,
            "deviceProfileName": "fivefold",
            "deviceName": reading.did.to_string(),
            "devEui": reading.did.to_string(),
            "tags": { "proof": reading.proof.as_str(), "e1": reading.e1.as_str() },
        },
        "devAddr": format!("0000{}", reading.sid),
        "adr": false,
        "dr": 0,
        // 32 bits of it, as LoRaWAN has it; whole in object.fivefold.
        "fCnt": reading.number & u64::from(u32::MAX),
        "fPort": PORT,
        "confirmed": false,
        "data": STANDARD.encode(&reading.payload),
        "object": object,
        "rxInfo": [{
            "gatewayId": format!("00000000{}", reading.gateway),
            "uplinkId": 0,
            "rssi": reading.rssi.unwrap_or(0),
            "snr": 0.0,
        }],
    })
}
