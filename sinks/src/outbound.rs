//! A reading as it leaves: neutral, so that every sink says the same in its own form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fivefold_core::e4_channel::Origin;
use fivefold_core::id::{BootContext, Did, Epoch, GatewayId, Net, Sid};
use fivefold_core::profile::LinkClass;
use fivefold_core::time::Millis;
use serde_json::{Map, Value, json};

/// What this is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum About {
    /// A reading.
    Reading,
    /// A reading that was sent before: its label was raised since. All of it is sent again, under the same id.
    Label,
}

impl About {
    /// `reading` or `label`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Label => "label",
        }
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// True or false.
    Bool(bool),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A whole number.
    Integer(i64),
    /// Another number; it is finite.
    Float(f64),
    /// A text.
    Text(String),
}

impl Scalar {
    /// As JSON; bytes as `{"bytes": hex}`.
    pub fn json(&self) -> Value {
        match self {
            Self::Bool(b) => json!(b),
            Self::Bytes(b) => json!({ "bytes": hex::encode(b) }),
            Self::Integer(n) => json!(n),
            Self::Float(n) => json!(n),
            Self::Text(t) => json!(t),
        }
    }
}

/// Something that was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    /// Its name within the device, or whole if its record brought a base name. Any text that the device chose.
    pub name: String,
    /// Unit (RFC 8428 12.1), as the device or its template says. Any text.
    pub unit: Option<String>,
    /// The value; none where a record has only a sum.
    pub value: Option<Scalar>,
    /// Integrated sum.
    pub sum: Option<f64>,
    /// When it was measured, Unix seconds, as the device claims.
    pub time: f64,
}

/// A reading as it leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Outbound {
    /// Names the reading for ever, after a restore too: `NET-DEVICE-LEVEL-EPOCH-BOOT-NUMBER-HASH`, of letters, digits and `-`
    /// alone, 120 at most. What comes twice comes under the same id.
    pub id: String,
    /// Whether this is the reading, or its new label.
    pub about: About,
    /// Network.
    pub net: Net,
    /// Its name.
    pub network: String,
    /// Device.
    pub did: Did,
    /// Its short id.
    pub sid: Sid,
    /// How it was proven (D9).
    pub proof: Origin,
    /// Class of E1 it came through.
    pub e1: LinkClass,
    /// Nothing but the link protected it.
    pub insecure: bool,
    /// A gateway vouched for another message under the same number as well.
    pub conflict: bool,
    /// `fresh` or `late`.
    pub freshness: &'static str,
    /// The gateway that brought it first.
    pub gateway: GatewayId,
    /// Hops left in the mesh header.
    pub hops: Option<u8>,
    /// Signal strength, dBm.
    pub rssi: Option<i16>,
    /// Link quality.
    pub lqi: Option<u8>,
    /// Key generation.
    pub epoch: Epoch,
    /// Boot, in mode R.
    pub bctx: Option<BootContext>,
    /// The device's sender number.
    pub number: u64,
    /// When the gateway says it received it.
    pub received: Millis,
    /// When it came to the cloud.
    pub ingested: Millis,
    /// What was measured: SenML records, rows of templates that are registered, fields of classic frames.
    pub values: Vec<Quantity>,
    /// All of it as it was sealed.
    pub payload: Vec<u8>,
}

impl Outbound {
    /// The device as a URN (RFC 9039): the base name of its SenML records.
    pub fn device_urn(&self) -> String {
        format!("urn:dev:mac:{}", self.did)
    }

    /// What names this as an event: the reading's id, and for a label another. Who takes each event once by this loses no label;
    /// which reading it is about, [`Self::id`] says.
    pub fn event_id(&self) -> String {
        match self.about {
            About::Reading => self.id.clone(),
            About::Label => format!("{}-{}", self.id, self.proof.as_str()),
        }
    }

    /// When it came to the cloud (RFC 3339, UTC).
    pub fn time(&self) -> String {
        let time = i64::try_from(self.ingested.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        time.unwrap_or(jiff::Timestamp::MAX).to_string()
    }

    /// What was measured as a SenML pack (RFC 8428).
    pub fn senml(&self) -> Value {
        let record = |q: &Quantity| {
            let mut record = Map::new();
            // A name of its own base comes whole; that of another device must not be put behind ours.
            if !q.name.starts_with("urn:") {
                record.insert("bn".into(), json!(format!("{}:", self.device_urn())));
            }
            record.insert("n".into(), json!(q.name));
            if let Some(unit) = &q.unit {
                record.insert("u".into(), json!(unit));
            }
            match &q.value {
                None => {}
                Some(Scalar::Bool(b)) => drop(record.insert("vb".into(), json!(b))),
                Some(Scalar::Bytes(b)) => drop(record.insert("vd".into(), json!(STANDARD.encode(b)))),
                Some(Scalar::Integer(n)) => drop(record.insert("v".into(), json!(n))),
                Some(Scalar::Float(n)) => drop(record.insert("v".into(), json!(n))),
                Some(Scalar::Text(t)) => drop(record.insert("vs".into(), json!(t))),
            }
            if let Some(sum) = q.sum {
                record.insert("s".into(), json!(sum));
            }
            record.insert("t".into(), json!(q.time));
            Value::Object(record)
        };
        Value::Array(self.values.iter().map(record).collect())
    }

    /// All of it as JSON: our own form.
    pub fn json(&self) -> Value {
        let values: Vec<Value> = self
            .values
            .iter()
            .map(|q| {
                json!({ "name": q.name, "unit": q.unit, "value": q.value.as_ref().map(Scalar::json), "sum": q.sum,
                    "time": q.time })
            })
            .collect();
        json!({
            "id": self.id,
            "about": self.about.as_str(),
            "net": self.net.to_string(),
            "network": self.network,
            "device": self.did.to_string(),
            "sid": self.sid.to_string(),
            "proof": self.proof.as_str(),
            "e1": self.e1.as_str(),
            "insecure": self.insecure,
            "conflict": self.conflict,
            "freshness": self.freshness,
            "gateway": self.gateway.to_string(),
            "hops": self.hops,
            "rssi": self.rssi,
            "lqi": self.lqi,
            "epoch": self.epoch.0,
            "boot": self.bctx.map(|b| b.to_string()),
            "number": self.number,
            "received_ms": self.received.0,
            "ingested_ms": self.ingested.0,
            "values": values,
            "senml": self.senml(),
            "payload": hex::encode(&self.payload),
        })
    }

    /// Bytes that it takes in memory, about: for bounds.
    pub fn weight(&self) -> usize {
        let texts: usize = self.values.iter().map(|q| q.name.len() + q.unit.as_ref().map_or(0, String::len) + 96).sum();
        let values: usize = self
            .values
            .iter()
            .map(|q| match &q.value {
                Some(Scalar::Text(t)) => t.len(),
                Some(Scalar::Bytes(b)) => b.len(),
                _ => 0,
            })
            .sum();
        512 + texts + values + self.payload.len()
    }
}
