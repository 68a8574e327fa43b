//! Uplink events of network servers, as JSON.
//!
//! ChirpStack v4: `application/APPLICATION/device/DEV_EUI/event/up`
//! (<https://www.chirpstack.io/docs/chirpstack/integrations/events.html>). The Things Stack v3:
//! `v3/APPLICATION@TENANT/devices/DEVICE_ID/up` (<https://www.thethingsindustries.com/docs/integrations/data-formats/>).
//!
//! Topic and event must name the same device: brokers let a client write by topic, and what is inside is the client's word.
//! Keys that are not known here are passed over, as both servers add some with every release.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::Did;
use fivefold_core::time::Millis;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::uplink::{Application, NetworkServer, PAYLOAD, Uplink};

/// Bytes of an event, at most. A frame that twenty stations heard makes less than a tenth of it.
pub const LONGEST: usize = 65_536;
/// Characters of a device id of The Things Stack, at most.
const DEVICE_ID: usize = 36;

/// The topic filter to subscribe to.
pub fn filter(server: NetworkServer, application: &Application) -> String {
    let application = application.as_str();
    match server {
        NetworkServer::ChirpStack => format!("application/{application}/device/+/event/up"),
        NetworkServer::TheThingsStack => format!("v3/{application}/devices/+/up"),
    }
}

/// Reads an event that came under `topic`.
///
/// # Errors
/// `T-01` with what is wrong: a topic that is none of the filter's, JSON that is none or not of the event's form, a DevEUI or
/// payload that is none, an event that its topic does not fit, one that nobody sent by radio, a payload that is still sealed.
pub fn read(server: NetworkServer, application: &Application, topic: &str, event: &[u8]) -> Result<Uplink, Rejected> {
    if event.len() > LONGEST {
        return Err(refused("LoRaWAN event: longer than 65,536 bytes"));
    }
    match server {
        NetworkServer::ChirpStack => chirpstack(application, topic, event),
        NetworkServer::TheThingsStack => things_stack(application, topic, event),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChirpStackUp {
    time: Option<String>,
    device_info: ChirpStackDevice,
    f_cnt: Option<u32>,
    f_port: Option<u8>,
    data: Option<String>,
    rx_info: Option<Vec<Reception>>,
    join_server_context: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChirpStackDevice {
    dev_eui: String,
}

/// How one station heard it; both servers name these two alike.
#[derive(Deserialize)]
struct Reception {
    rssi: Option<f64>,
    snr: Option<f64>,
}

fn chirpstack(application: &Application, topic: &str, event: &[u8]) -> Result<Uplink, Rejected> {
    let device = device_of(topic, &["application", application.as_str(), "device"], &["event", "up"])?;
    let up: ChirpStackUp = serde_json::from_slice(event).map_err(|_| NO_EVENT)?;
    let dev_eui = dev_eui(&up.device_info.dev_eui)?;
    if device.parse() != Ok(dev_eui) {
        return Err(OTHER_DEVICE);
    }
    if up.join_server_context.is_some() {
        return Err(refused("LoRaWAN event: the network server has no AppSKey, the payload is still sealed"));
    }
    let (rssi, snr) = best(up.rx_info.unwrap_or_default());
    Ok(Uplink {
        dev_eui,
        f_port: up.f_port.unwrap_or(0),
        f_cnt: up.f_cnt.unwrap_or(0),
        bytes: payload(up.data.as_deref())?,
        rssi,
        snr,
        received_at: time(up.time.as_deref()),
        device: device.into(),
    })
}

#[derive(Deserialize)]
struct ThingsUp {
    end_device_ids: ThingsDevice,
    received_at: Option<String>,
    uplink_message: ThingsMessage,
    #[serde(default)]
    simulated: bool,
}

#[derive(Deserialize)]
struct ThingsDevice {
    device_id: String,
    dev_eui: String,
}

#[derive(Deserialize)]
struct ThingsMessage {
    f_cnt: Option<u32>,
    f_port: Option<u8>,
    frm_payload: Option<String>,
    rx_metadata: Option<Vec<Reception>>,
    received_at: Option<String>,
    app_s_key: Option<IgnoredAny>,
}

fn things_stack(application: &Application, topic: &str, event: &[u8]) -> Result<Uplink, Rejected> {
    let device = device_of(topic, &["v3", application.as_str(), "devices"], &["up"])?;
    let up: ThingsUp = serde_json::from_slice(event).map_err(|_| NO_EVENT)?;
    let dev_eui = dev_eui(&up.end_device_ids.dev_eui)?;
    if device != up.end_device_ids.device_id {
        return Err(OTHER_DEVICE);
    }
    if up.simulated {
        return Err(refused("LoRaWAN event: simulated at the console, no radio heard it"));
    }
    let message = up.uplink_message;
    if message.app_s_key.is_some() {
        return Err(refused("LoRaWAN event: the network server skips payload crypto, the payload is still sealed"));
    }
    let (rssi, snr) = best(message.rx_metadata.unwrap_or_default());
    Ok(Uplink {
        dev_eui,
        f_port: message.f_port.unwrap_or(0),
        f_cnt: message.f_cnt.unwrap_or(0),
        bytes: payload(message.frm_payload.as_deref())?,
        rssi,
        snr,
        received_at: time(message.received_at.as_deref().or(up.received_at.as_deref())),
        device: device.into(),
    })
}

/// The level of a topic between those that are known.
fn device_of<'t>(topic: &'t str, before: &[&str], after: &[&str]) -> Result<&'t str, Rejected> {
    const OTHER_TOPIC: Rejected = refused("LoRaWAN event: under a topic that was not asked for");
    let mut levels = topic.split('/');
    if !before.iter().all(|level| levels.next() == Some(level)) {
        return Err(OTHER_TOPIC);
    }
    let device = levels.next().filter(|d| !d.is_empty() && d.len() <= DEVICE_ID).ok_or(OTHER_TOPIC)?;
    if !after.iter().all(|level| levels.next() == Some(level)) || levels.next().is_some() {
        return Err(OTHER_TOPIC);
    }
    // It becomes a level of another topic.
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if device.bytes().all(fits) { Ok(device) } else { Err(OTHER_TOPIC) }
}

fn dev_eui(text: &str) -> Result<Did, Rejected> {
    text.parse().map_err(|_| refused("LoRaWAN event: a DevEUI has 16 hex digits"))
}

fn payload(text: Option<&str>) -> Result<Box<[u8]>, Rejected> {
    let text = text.unwrap_or_default();
    // Four characters for three bytes.
    if text.len() > PAYLOAD.div_ceil(3) * 4 {
        return Err(TOO_LONG);
    }
    let bytes = STANDARD.decode(text).map_err(|_| refused("LoRaWAN event: the payload is no base64"))?;
    if bytes.len() > PAYLOAD { Err(TOO_LONG) } else { Ok(bytes.into()) }
}

/// The station that heard it best.
fn best(receptions: Vec<Reception>) -> (Option<i16>, Option<f32>) {
    let louder = |a: &Reception, b: &Reception| {
        let of = |r: &Reception| r.rssi.unwrap_or(f64::NEG_INFINITY);
        of(a).total_cmp(&of(b))
    };
    let best = receptions.into_iter().max_by(louder);
    // Conversions from floating point saturate.
    best.map_or((None, None), |r| (r.rssi.map(|x| x.round() as i16), r.snr.map(|x| x as f32)))
}

/// An ornament: what is no time is left out.
fn time(text: Option<&str>) -> Option<Millis> {
    let at = text?.parse::<jiff::Timestamp>().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(Millis)
}

const fn refused(reason: &'static str) -> Rejected {
    Rejected::new(Code::TinyMalformed, reason)
}

const NO_EVENT: Rejected = refused("LoRaWAN event: no JSON of an uplink");
const OTHER_DEVICE: Rejected = refused("LoRaWAN event: another device than its topic's");
const TOO_LONG: Rejected = refused("LoRaWAN event: the payload is longer than 242 bytes");

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const CHIRPSTACK: &str = include_str!("../../../vectors/lorawan/chirpstack-up.json");
    const THINGS: &str = include_str!("../../../vectors/lorawan/things-stack-up.json");

    fn vector(file: &str) -> Value {
        serde_json::from_str(file).unwrap()
    }

    #[test]
    fn every_case_of_the_vectors_reads_as_it_says() {
        let mut cases = 0;
        for (server, file) in [(NetworkServer::ChirpStack, CHIRPSTACK), (NetworkServer::TheThingsStack, THINGS)] {
            let file = vector(file);
            assert!(file["meta"]["source"].as_str().unwrap().starts_with("https://"));
            let application: Application = file["application"].as_str().unwrap().parse().unwrap();
            for case in file["cases"].as_array().unwrap() {
                cases += 1;
                let name = case["name"].as_str().unwrap();
                let event = match &case["raw"] {
                    Value::String(raw) => raw.clone().into_bytes(),
                    _ => serde_json::to_vec(&case["event"]).unwrap(),
                };
                let read = read(server, &application, case["topic"].as_str().unwrap(), &event);
                let expect = &case["expect"];
                if let Some(reason) = expect["refused"].as_str() {
                    let rejected = read.expect_err(name);
                    assert_eq!((rejected.code, rejected.reason), (Code::TinyMalformed, reason), "{name}");
                    continue;
                }
                let up = read.unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!(up.dev_eui.to_string(), expect["dev_eui"], "{name}");
                assert_eq!(u64::from(up.f_port), expect["f_port"], "{name}");
                assert_eq!(u64::from(up.f_cnt), expect["f_cnt"], "{name}");
                assert_eq!(hex::encode(&up.bytes), expect["payload"], "{name}");
                assert_eq!(serde_json::json!(up.rssi), expect["rssi"], "{name}");
                assert_eq!(serde_json::json!(up.snr), expect["snr"], "{name}");
                assert_eq!(serde_json::json!(up.received_at.map(|at| at.0)), expect["received_ms"], "{name}");
                assert_eq!(*up.device, *expect["device"].as_str().unwrap(), "{name}");
            }
        }
        assert!(cases >= 20, "{cases}");
    }

    #[test]
    fn an_event_that_is_cut_anywhere_is_refused() {
        for (server, file) in [(NetworkServer::ChirpStack, CHIRPSTACK), (NetworkServer::TheThingsStack, THINGS)] {
            let file = vector(file);
            let application: Application = file["application"].as_str().unwrap().parse().unwrap();
            let case = &file["cases"][0];
            let event = serde_json::to_vec(&case["event"]).unwrap();
            let topic = case["topic"].as_str().unwrap();
            assert!(read(server, &application, topic, &event).is_ok());
            for cut in 0..event.len() {
                assert!(read(server, &application, topic, &event[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_nested_without_end_or_longer_than_any_event_is_refused() {
        let application: Application = "a".parse().unwrap();
        let topic = "application/a/device/0101010101010101/event/up";
        for event in [vec![b'['; LONGEST], [br#"{"x":"#.repeat(4_000), vec![b'1']].concat(), vec![b' '; LONGEST + 1]] {
            let refused = read(NetworkServer::ChirpStack, &application, topic, &event).unwrap_err();
            assert_eq!(refused.code, Code::TinyMalformed);
        }
    }

    #[test]
    fn an_application_is_one_level_of_a_topic() {
        for wrong in ["", "+", "#", "a/b", "a b", "app\n", &"a".repeat(129)] {
            assert_eq!(wrong.parse::<Application>(), Err(super::super::uplink::NoApplication), "{wrong:?}");
        }
        let things: Application = "app1@tenant1".parse().unwrap();
        assert_eq!(filter(NetworkServer::TheThingsStack, &things), "v3/app1@tenant1/devices/+/up");
    }
}
