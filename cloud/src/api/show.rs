//! How things look in JSON.

use fivefold_core::e4_channel::Origin;
use fivefold_core::profile::KeyIndexes;
use fivefold_core::reading::{Definition, Item, Number, Payload, Record, Template, Value};
use fivefold_core::time::Millis;
use fivefold_core::wire::cbor::Writer;
use fivefold_core::wire::control;
use fivefold_keep::registry::Gateway;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::ClassicShown;
use crate::accepted::flag;
use crate::book::{Book, ContextState, Device};
use crate::cloud;
use crate::store::{CommandState, CountRow, GatewaySummary, RaisedRow, ReadingRow, UnknownRows};

/// Bytes of a command's arguments, at most: they share a radio frame with the answer.
const ARGUMENTS: usize = 32;

/// A page of readings.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Readings {
    /// The readings.
    pub readings: Vec<ReadingShown>,
    /// Give this as `cursor` to read on; null at the end.
    pub next: Option<i64>,
}

/// A reading.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReadingShown {
    /// Grows with every reading stored.
    pub id: i64,
    /// Network, 8 hex digits.
    pub net: String,
    /// Its name.
    pub network: String,
    /// Device, 16 hex digits.
    pub device: String,
    /// Its short id, 4 hex digits.
    pub sid: String,
    /// How it was proven: `node` (its own seal, E3), `gateway` (the gateway's word, E2), `plain` (nothing but the link),
    /// `legacy`; `signed` (the node's signature over a batch, verified; until it comes the reading is called what it was).
    pub proof: String,
    /// Nothing but the link protected it: whoever holds the network key can have made it up.
    pub insecure: bool,
    /// A gateway vouched for another message under the same number as well.
    pub conflict: bool,
    /// Class of E1 it came through: `mac-ccm`, `e1s`, `lorawan`, `3gpp`, `xbee-ee` or `none`.
    pub e1: String,
    /// The gateway that brought it first, 8 hex digits.
    pub gateway: String,
    /// Hops left in the mesh header when the gateway received it.
    pub hops: Option<u8>,
    /// Index of the network key.
    pub key_index: Option<u8>,
    /// Signal strength, dBm.
    pub rssi: Option<i16>,
    /// Link quality, 0 to 255.
    pub lqi: Option<u8>,
    /// Key generation.
    pub epoch: u16,
    /// Boot id, in mode R.
    pub boot: Option<String>,
    /// The device's sender number.
    pub number: u64,
    /// `fresh` or `late`.
    pub freshness: String,
    /// When the gateway says it received it, Unix milliseconds.
    pub received_ms: u64,
    /// When it came here, Unix milliseconds.
    pub ingested_ms: u64,
    /// SenML records, resolved.
    pub records: Vec<RecordShown>,
    /// Rows of templates.
    pub templates: Vec<RowShown>,
    /// What else was in it, as hex: control maps, or a classic frame.
    pub other: Vec<String>,
    /// All of it as it was sealed, hex; of a classic frame the gateway's report, with what was opened here.
    pub payload: String,
    /// What only classic frames have; nothing of it is in other readings.
    #[serde(flatten)]
    pub classic: Option<ClassicShown>,
}

/// What comes to those who follow readings: the data of one event.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Followed {
    /// `event: label`. It has a key `label`, and no reading has.
    Label(LabelShown),
    /// `event: reading`.
    Reading(Box<ReadingShown>),
}

/// The label of a reading was raised after it was stored: its signature came, or it came behind its signature.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LabelShown {
    /// How the reading is proven now: `signed`.
    pub label: String,
    /// Id of the reading.
    pub reading: i64,
    /// Network, 8 hex digits.
    pub net: String,
    /// Device, 16 hex digits.
    pub device: String,
    /// Key generation.
    pub epoch: u16,
    /// Boot id, in mode R.
    pub boot: Option<String>,
    /// The device's sender number.
    pub number: u64,
}

impl LabelShown {
    /// Of a row.
    pub fn of(row: &RaisedRow) -> Self {
        Self {
            label: Origin::Signed.as_str().into(),
            reading: row.reading,
            net: row.net.to_string(),
            device: row.did.to_string(),
            epoch: row.epoch.0,
            boot: row.bctx.map(|b| b.to_string()),
            number: row.piv,
        }
    }
}

/// A SenML record.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RecordShown {
    /// Name within the device, or whole if the record brought a base name.
    pub name: String,
    /// Unit (RFC 8428 12.1).
    pub unit: Option<String>,
    /// A number, a text, true or false; bytes as `{"bytes": hex}`.
    pub value: serde_json::Value,
    /// Integrated sum.
    pub sum: Option<f64>,
    /// When it was measured, Unix seconds, as the device claims; relative times count from the gateway's.
    pub time: f64,
}

fn number(n: Number) -> serde_json::Value {
    match n {
        Number::Integer(i) => json!(i),
        Number::Float(f) => json!(f),
    }
}

fn value(v: Value<'_>) -> serde_json::Value {
    match v {
        Value::Bool(b) => json!(b),
        Value::Bytes(b) => json!({ "bytes": hex::encode(b) }),
        Value::Number(n) => number(n),
        Value::Text(t) => json!(t),
    }
}

impl RecordShown {
    fn of(record: &Record<'_>, received: Millis) -> Self {
        let start = if record.is_time_relative() { received.0 as f64 / 1000.0 } else { 0.0 };
        Self {
            name: format!("{}{}", record.base_name, record.name),
            unit: record.unit.map(str::to_owned),
            value: record.value.map_or(serde_json::Value::Null, value),
            sum: record.sum.map(Number::as_f64),
            time: start + record.time.as_f64(),
        }
    }
}

/// A row of a template.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RowShown {
    /// Which template.
    pub id: u64,
    /// Its values as they came, null where one is missing.
    pub values: Vec<serde_json::Value>,
    /// The same with their names and units; null where no registered template fits the row.
    pub columns: Option<Vec<ColumnShown>>,
}

/// A value of a row, with what its template says of it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ColumnShown {
    /// Name within the device.
    pub name: String,
    /// Unit.
    pub unit: Option<String>,
    /// A number, a text, true or false; bytes as `{"bytes": hex}`; null where it is missing.
    pub value: serde_json::Value,
}

impl RowShown {
    fn of(row: &Template<'_>, definition: Option<&Definition<'_>>) -> Self {
        let values: Vec<_> = row.values().map(|v| v.map_or(serde_json::Value::Null, value)).collect();
        let columns = definition.map(|d| {
            let columns = d.columns().zip(&values);
            let shown = columns.map(|(c, v)| ColumnShown {
                name: c.name.to_owned(),
                unit: c.unit.map(str::to_owned),
                value: v.clone(),
            });
            shown.collect()
        });
        Self { id: row.id(), values, columns }
    }
}

/// Bytes of payloads in one answer, at most: what is shown of one may be a hundred times as long.
const PAYLOADS: usize = 256 << 10;

/// Leaves out what is too much for one answer, and says whether something was.
pub(super) fn shorten(rows: &mut Vec<ReadingRow>) -> bool {
    let (all, mut bytes) = (rows.len(), 0);
    let fits = rows.iter().take_while(|row| {
        let is_first = bytes == 0;
        bytes += row.payload.len();
        is_first || bytes <= PAYLOADS
    });
    let fits = fits.count();
    rows.truncate(fits);
    fits < all
}

/// What is in a payload, decoded.
pub(super) struct Contents {
    pub(super) records: Vec<RecordShown>,
    pub(super) templates: Vec<RowShown>,
    pub(super) other: Vec<String>,
}

impl Contents {
    /// `definition` says what a row means, if anybody does.
    pub(super) fn of<'d>(
        payload: &[u8],
        received: Millis,
        definition: impl Fn(&Template<'_>) -> Option<Definition<'d>>,
    ) -> Self {
        let (mut records, mut templates, mut other) = (Vec::new(), Vec::new(), Vec::new());
        match Payload::parse(payload) {
            Ok(Payload::Sequence(items)) => {
                for item in items {
                    match item {
                        Item::Senml(pack) => records.extend(pack.records().map(|r| RecordShown::of(&r, received))),
                        Item::Template(row) => templates.push(RowShown::of(&row, definition(&row).as_ref())),
                        Item::Control(map) => other.push(hex::encode(map)),
                    }
                }
            }
            Ok(Payload::Classic(frame)) => other.push(hex::encode(frame)),
            Err(_) => other.push(hex::encode(payload)),
        }
        Self { records, templates, other }
    }
}

impl ReadingShown {
    /// Of a row.
    pub fn of(row: &ReadingRow, book: &Book) -> Self {
        let Contents { records, templates, other } = match &row.classic {
            None => Contents::of(&row.payload, row.received, |r| book.templates.fits(row.net, r)),
            Some(_) => Contents { records: Vec::new(), templates: Vec::new(), other: Vec::new() },
        };
        Self {
            id: row.id,
            net: row.net.to_string(),
            network: book.network(row.net).map(|n| n.name.clone()).unwrap_or_default(),
            device: row.did.to_string(),
            sid: row.sid.to_string(),
            proof: row.origin.as_str().into(),
            insecure: row.origin == Origin::Plain || row.flags & flag::INSECURE != 0,
            conflict: row.flags & flag::CONFLICT != 0,
            e1: row.link.as_str().into(),
            gateway: row.gateway.to_string(),
            hops: row.hops,
            key_index: row.key_index,
            rssi: row.rssi,
            lqi: row.lqi,
            epoch: row.epoch.0,
            boot: row.bctx.map(|b| b.to_string()),
            number: row.piv,
            freshness: row.freshness.as_str().into(),
            received_ms: row.received.0,
            ingested_ms: row.ingested.0,
            records,
            templates,
            other,
            payload: hex::encode(&row.payload),
            classic: row.classic.as_ref().map(|c| ClassicShown::of(c, Some(row.origin))),
        }
    }
}

/// Rows that are kept as they came, for nobody registered what they mean.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct UnknownRowsShown {
    /// How many.
    pub count: u64,
    /// Template of the last one.
    pub template: u64,
    /// When that came, Unix milliseconds.
    pub at_ms: u64,
}

impl UnknownRowsShown {
    /// Of what the store has.
    pub const fn of(rows: &UnknownRows) -> Self {
        Self { count: rows.count, template: rows.template, at_ms: rows.at.0 }
    }
}

/// A context of a device.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ContextShown {
    /// Key generation.
    pub epoch: u16,
    /// `pending`, `active` or `draining`.
    pub standing: String,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// When it was agreed by EDHOC, Unix milliseconds; null if it was installed.
    pub agreed_ms: Option<u64>,
}

impl ContextShown {
    fn of(c: &ContextState) -> Self {
        Self {
            epoch: c.epoch.0,
            standing: c.standing.as_str().into(),
            since_ms: c.since.0,
            agreed_ms: c.agreed.map(|at| at.0),
        }
    }
}

/// A device.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeviceShown {
    /// EUI-64, 16 hex digits.
    pub device: String,
    /// Short id, 4 hex digits.
    pub sid: String,
    /// Network, 8 hex digits.
    pub net: String,
    /// Its name.
    pub network: String,
    /// The combination that it must use, e.g. `e1+e3+e4`.
    pub profile: String,
    /// Whether the operator lets it go without end-to-end protection, or without E1.
    pub insecure: bool,
    /// COSE algorithm of its contexts.
    pub alg: u8,
    /// `P` or `R`.
    pub mode: String,
    /// What carries its frames.
    pub radio: String,
    /// Key generation of the context in use.
    pub epoch: u16,
    /// Its contexts of mode P, the newest first.
    pub contexts: Vec<ContextShown>,
    /// Whether it can renew them by EDHOC.
    pub can_renew: bool,
    /// When the operator ordered it to renew, if it has not done so yet; Unix milliseconds.
    pub ordered_to_renew_ms: Option<u64>,
    /// When it was heard last, Unix milliseconds; in the list, since this process started.
    pub last_heard_ms: Option<u64>,
    /// Readings and other messages of it; only for a single device.
    pub readings: Option<u64>,
    /// Indexes of the network keys that it said it has: sending, and another that it takes frames under.
    pub link_keys: Option<(u8, Option<u8>)>,
    /// Rows of it that no registered template fitted when they came; only for a single device that sent such rows.
    pub unknown_rows: Option<UnknownRowsShown>,
    /// What it last said of itself; only for a single device.
    pub report: Option<serde_json::Value>,
    /// Its last commands; only for a single device.
    pub commands: Vec<CommandShown>,
}

impl DeviceShown {
    /// Of a device in the book.
    pub fn of(d: &Device, book: &Book) -> Self {
        let contexts: Vec<_> = d.contexts().iter().map(ContextShown::of).collect();
        Self {
            device: d.did.to_string(),
            sid: d.sid.to_string(),
            net: d.net.to_string(),
            network: book.network(d.net).map(|n| n.name.clone()).unwrap_or_default(),
            profile: d.policy.profile.as_str().into(),
            insecure: d.overrides.danger_link_only || d.overrides.danger_no_link,
            alg: d.policy.alg.cose(),
            mode: d.policy.mode.as_str().into(),
            radio: d.policy.radio.as_str().into(),
            epoch: contexts.iter().find(|c| c.standing == "active").map_or(d.epoch.0, |c| c.epoch),
            contexts,
            can_renew: d.can_renew(),
            ordered_to_renew_ms: d.ordered_to_renew().map(|at| at.0),
            last_heard_ms: d.heard().map(|at| at.0),
            readings: None,
            unknown_rows: None,
            link_keys: d.link_keys().map(|l| (l.keys.sending, l.keys.receiving)),
            report: None,
            commands: Vec::new(),
        }
    }
}

/// A control map in which a device said how it is, in words.
pub(super) fn report(at: Millis, control: &[u8]) -> Option<serde_json::Value> {
    let map = control::Uplink::parse(control).ok()?;
    let mut shown = json!({ "at_ms": at.0 });
    let fields = shown.as_object_mut()?;
    if let Some(s) = map.status {
        let status = json!({ "boots": s.boots, "uptime_s": s.uptime_s, "reset_cause": s.reset_cause,
            "millivolts": s.millivolts, "flags": s.flags });
        fields.insert("status".into(), status);
    }
    if let Some(digest) = map.digest {
        fields.insert("policy_digest".into(), json!(hex::encode(digest)));
    }
    if let Some(KeyIndexes { sending, receiving }) = map.key_indexes {
        fields.insert("key_indexes".into(), json!([sending, receiving]));
    }
    if let Some(version) = map.config_version {
        fields.insert("config_version".into(), json!(version));
    }
    Some(shown)
}

/// A command.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CommandShown {
    /// Grows per device.
    pub id: u64,
    /// What to do.
    pub op: u64,
    /// Its arguments, CBOR as hex.
    pub args: String,
    /// When it was given, Unix milliseconds.
    pub at_ms: u64,
    /// When its result came.
    pub done_ms: Option<u64>,
    /// The result; 0: done.
    pub status: Option<u64>,
}

impl CommandShown {
    /// Of a command and its result.
    pub fn of(CommandState { command, done }: &CommandState) -> Self {
        Self {
            id: command.id,
            op: command.op,
            args: hex::encode(&command.args),
            at_ms: command.at.0,
            done_ms: done.map(|(at, _)| at.0),
            status: done.map(|(_, status)| status),
        }
    }
}

/// A gateway.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct GatewayShown {
    /// Its id, 8 hex digits.
    pub gateway: String,
    /// Its name.
    pub name: String,
    /// The network it serves, 8 hex digits.
    pub net: String,
    /// Whether it answers under C2.
    pub primary: bool,
    /// When it was revoked, Unix seconds.
    pub revoked_at: Option<u64>,
    /// Receipts of it that were verified and stored.
    pub receipts: u64,
    /// Envelopes in them.
    pub envelopes: u64,
    /// When it was heard last, Unix milliseconds.
    pub last_heard_ms: Option<u64>,
    /// Version of the state that it was pushed last.
    pub pushed_version: Option<u64>,
    /// Seconds since it started, as it says.
    pub uptime_s: Option<u64>,
    /// Bytes in its spool, as it says.
    pub spool_used: Option<u64>,
    /// Bytes that its spool takes, as it says.
    pub spool_max: Option<u64>,
}

impl GatewayShown {
    /// Of a gateway and what was heard of it.
    pub fn of(
        g: &Gateway,
        heard: Option<&GatewaySummary>,
        (health, last): (Option<cloud::Health>, Option<Millis>),
        pushed: Option<u64>,
    ) -> Self {
        Self {
            gateway: g.gateway.to_string(),
            name: g.name.clone(),
            net: g.net.to_string(),
            primary: g.primary,
            revoked_at: g.revoked_at,
            receipts: heard.map_or(0, |h| h.receipts),
            envelopes: heard.map_or(0, |h| h.envelopes),
            last_heard_ms: last.or(heard.map(|h| h.last)).map(|at| at.0),
            pushed_version: pushed,
            uptime_s: health.map(|h| h.uptime_s),
            spool_used: health.map(|h| h.spool_used),
            spool_max: health.map(|h| h.spool_max),
        }
    }
}

/// A counter of what was refused.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CountShown {
    /// The code, e.g. `E3-03` (docs/protocol.md 14).
    pub code: String,
    /// What it means.
    pub condition: String,
    /// `info`, `warning`, `high` or `critical`.
    pub severity: String,
    /// Who counted: `cloud`, or `gateway` as it reported.
    pub place: String,
    /// Network, where it is known.
    pub net: Option<String>,
    /// Gateway, where it is known.
    pub gateway: Option<String>,
    /// Device's short id, where it is known or claimed.
    pub sid: Option<String>,
    /// How many.
    pub count: u64,
    /// The first, Unix milliseconds.
    pub first_ms: u64,
    /// The last, Unix milliseconds.
    pub last_ms: u64,
}

impl CountShown {
    /// Of a counter.
    pub fn of(row: &CountRow) -> Self {
        let k = row.key;
        Self {
            code: k.code.as_str().into(),
            condition: k.code.condition().into(),
            severity: k.code.severity().as_str().into(),
            place: k.place.as_str().into(),
            net: k.net.map(|n| n.to_string()),
            gateway: k.gateway.map(|g| g.to_string()),
            sid: k.sid.map(|s| s.to_string()),
            count: row.count,
            first_ms: row.first.0,
            last_ms: row.last.0,
        }
    }
}

/// Whether the cloud works.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: &'static str,
    /// Version of the program.
    pub version: &'static str,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Version of the registry in use.
    pub registry_version: u64,
    /// Devices that are served.
    pub devices: usize,
    /// Id of the newest reading.
    pub last_reading_id: i64,
    /// When the last backup was begun that was written and read back, Unix seconds; none before the first.
    pub backup_at: Option<u64>,
    /// How its audit of itself came out; none before it has looked.
    pub audit: Option<super::AuditShown>,
}

/// JSON values as CBOR items, one after the other. `None` for what a command cannot carry.
pub(super) fn arguments(values: &[serde_json::Value]) -> Option<Vec<u8>> {
    let mut out = [0; ARGUMENTS];
    let mut w = Writer::new(&mut out);
    for v in values {
        argument(&mut w, v, 0)?;
    }
    let len = w.len();
    out.get(..len).map(<[u8]>::to_vec)
}

fn argument(w: &mut Writer<'_>, v: &serde_json::Value, depth: u8) -> Option<()> {
    use serde_json::Value as V;
    match v {
        V::Null => w.null().ok(),
        V::Bool(b) => w.bool(*b).ok(),
        V::String(s) => w.text(s).ok(),
        V::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), _, _) => w.int(i).ok(),
            (_, Some(u), _) => w.unsigned(u).ok(),
            (_, _, Some(f)) => w.number(Number::Float(f)).ok(),
            _ => None,
        },
        V::Array(items) if depth < 4 => {
            w.array(items.len()).ok()?;
            items.iter().try_for_each(|i| argument(w, i, depth + 1))
        }
        V::Array(_) | V::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_cbor_and_objects_or_long_ones_are_refused() {
        let values = [json!(5), json!(-1), json!("a"), json!(true), json!(null), json!([1, [2]]), json!(21.5)];
        assert_eq!(arguments(&values).unwrap(), b"\x05\x20\x61a\xF5\xF6\x82\x01\x81\x02\xF9\x4D\x60");
        assert!(arguments(&[json!({})]).is_none());
        assert!(arguments(&[json!("a text that is much longer than any radio frame")]).is_none());
    }
}
