//! From a row of the store to what leaves.

use fivefold_core::e4_channel::Origin;
use fivefold_core::reading::{Definition, Item, Number, Payload, Record, Value};
use fivefold_core::time::Millis;
use fivefold_sinks::{About, Outbound, Quantity, Scalar};

use crate::accepted::flag;
use crate::book::Book;
use crate::store::{ClassicRow, OutboxReading};

/// What names a reading for ever: nothing of it is a row's number, which after a restore may be another reading's.
pub(crate) fn id(reading: &OutboxReading) -> String {
    let OutboxReading { row, hash } = reading;
    let boot = row.bctx.map_or_else(|| "p".to_owned(), |b| b.to_string());
    let hash = hash.0.first_chunk::<8>().map(hex::encode).unwrap_or_default();
    format!("{}-{}-{}-{}-{boot}-{}-{hash}", row.net, row.did, row.level, row.epoch.0, row.piv)
}

/// A reading as it leaves.
pub fn outbound(reading: &OutboxReading, about: About, book: &Book) -> Outbound {
    let row = &reading.row;
    let values = match &row.classic {
        Some(classic) => of_classic(classic, row.received),
        None => of_payload(&row.payload, row.received, |r| book.templates.fits(row.net, r)),
    };
    Outbound {
        id: id(reading),
        about,
        net: row.net,
        network: book.network(row.net).map(|n| n.name.clone()).unwrap_or_default(),
        did: row.did,
        sid: row.sid,
        proof: row.origin,
        e1: row.link,
        insecure: row.origin == Origin::Plain || row.flags & flag::INSECURE != 0,
        conflict: row.flags & flag::CONFLICT != 0,
        freshness: row.freshness.as_str(),
        gateway: row.gateway,
        hops: row.hops,
        rssi: row.rssi,
        lqi: row.lqi,
        epoch: row.epoch,
        bctx: row.bctx,
        number: row.piv,
        received: row.received,
        ingested: row.ingested,
        values,
        payload: row.payload.clone(),
    }
}

fn number(n: Number) -> Option<Scalar> {
    match n {
        Number::Integer(i) => Some(Scalar::Integer(i)),
        Number::Float(f) => f.is_finite().then_some(Scalar::Float(f)),
    }
}

fn scalar(value: Value<'_>) -> Option<Scalar> {
    match value {
        Value::Bool(b) => Some(Scalar::Bool(b)),
        Value::Bytes(b) => Some(Scalar::Bytes(b.to_vec())),
        Value::Number(n) => number(n),
        Value::Text(t) => Some(Scalar::Text(t.to_owned())),
    }
}

fn seconds(at: Millis) -> f64 {
    at.0 as f64 / 1000.0
}

fn of_record(record: &Record<'_>, received: Millis) -> Quantity {
    let start = if record.is_time_relative() { seconds(received) } else { 0.0 };
    Quantity {
        name: format!("{}{}", record.base_name, record.name),
        unit: record.unit.map(str::to_owned),
        value: record.value.and_then(scalar),
        sum: record.sum.map(Number::as_f64).filter(|s| s.is_finite()),
        time: start + record.time.as_f64(),
    }
}

/// `definition` says what a row of a template means, if anybody does; what nobody knows is in the payload alone.
fn of_payload<'d>(
    payload: &[u8],
    received: Millis,
    definition: impl Fn(&fivefold_core::reading::Template<'_>) -> Option<Definition<'d>>,
) -> Vec<Quantity> {
    let mut values = Vec::new();
    let Ok(Payload::Sequence(items)) = Payload::parse(payload) else { return values };
    for item in items {
        match item {
            Item::Senml(pack) => values.extend(pack.records().map(|r| of_record(&r, received))),
            Item::Template(row) => {
                let Some(definition) = definition(&row) else { continue };
                values.extend(definition.columns().zip(row.values()).filter_map(|(column, value)| {
                    Some(Quantity {
                        name: column.name.to_owned(),
                        unit: column.unit.map(str::to_owned),
                        value: Some(scalar(value?)?),
                        sum: None,
                        time: seconds(received),
                    })
                }));
            }
            Item::Control(_) => {}
        }
    }
    values
}

/// Fields of a classic frame: by tag, and by place where one has several values.
fn of_classic(classic: &ClassicRow, received: Millis) -> Vec<Quantity> {
    let content: serde_json::Value = serde_json::from_str(&classic.content).unwrap_or_default();
    let fields = content.get("fields").and_then(serde_json::Value::as_array);
    let mut all = Vec::new();
    for field in fields.into_iter().flatten() {
        let Some(tag) = field.get("tag").and_then(serde_json::Value::as_str) else { continue };
        let values = field.get("values").and_then(serde_json::Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for (n, value) in values.iter().enumerate() {
            let value = match value {
                serde_json::Value::Bool(b) => Scalar::Bool(*b),
                serde_json::Value::Number(n) => match (n.as_i64(), n.as_f64()) {
                    (Some(i), _) => Scalar::Integer(i),
                    (None, Some(f)) if f.is_finite() => Scalar::Float(f),
                    _ => continue,
                },
                serde_json::Value::String(text) => Scalar::Text(text.clone()),
                _ => continue,
            };
            let name = if values.len() == 1 { tag.to_owned() } else { format!("{tag}/{n}") };
            all.push(Quantity { name, unit: None, value: Some(value), sum: None, time: seconds(received) });
        }
    }
    all
}
