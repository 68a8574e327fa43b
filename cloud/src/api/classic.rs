//! How classic frames look in JSON, what was kept apart, and who speaks that is in no book.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use fivefold_core::e4_channel::Origin;
use fivefold_waspmote::{EncryptedType, FrameType};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{Answer, LIMIT, Problem, ask};
use crate::book::Book;
use crate::service::Service;
use crate::store::{ClassicRow, QuarantinedRow, UnknownRow};

/// A classic frame (Waspmote, Plug & Sense!), as far as it could be read. Everything in it is what the frame claims.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ClassicShown {
    /// `legacy`: encrypted as the operator says, which proves little. `plain`: anybody can have made it up. `nobody`: it is no
    /// reading.
    pub proven: String,
    /// `classic` or `classic-hardened`.
    pub suite: String,
    /// Hardware: `v12` or `v15`.
    pub generation: String,
    /// Serial: 16 lower-case hex digits, or a decimal number (v12).
    pub serial: String,
    /// Node id.
    pub node_id: String,
    /// Type of the frame: `information`, `alarm`, `tiny`, `encrypted-cloud` and so on.
    pub r#type: String,
    /// `ascii` or `binary`; null where nothing opened.
    pub encoding: Option<String>,
    /// 8-bit counter of the node, which every boot starts again at 0; null where nothing opened.
    pub sequence: Option<u8>,
    /// Whether what is inside could be read.
    pub opened: bool,
    /// `[{"id": .., "tag": .., "values": [..]}]`, in the order on the wire. `id` is null for a tag that no table has.
    pub fields: Vec<Value>,
    /// What follows the first unknown sensor of a binary frame: `{"at": .., "reason": .., "raw": hex}`.
    pub rest: Option<Value>,
    /// Fields of an ASCII frame that could not be read: `[{"at": .., "text": .., "reason": ..}]`.
    #[serde(default)]
    pub refused_fields: Vec<Value>,
    /// Codes of docs/protocol.md 14 that are against it, or to be known of it.
    pub flags: Vec<String>,
    /// Blocks of its ciphertext that an earlier frame of it has too: so much is visible without a key.
    pub equal_blocks: u8,
}

impl ClassicShown {
    /// Of a row; `origin` is none where it is no reading.
    pub fn of(row: &ClassicRow, origin: Option<Origin>) -> Self {
        let mut content: Value = serde_json::from_str(&row.content).unwrap_or_default();
        let mut list = |name: &str| match content.get_mut(name).map(Value::take) {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        };
        let (fields, refused_fields) = (list("fields"), list("refused"));
        let rest = content.get_mut("rest").map(Value::take);
        let kind = FrameType::from_number(row.kind & 0x7F);
        let opened = row.sequence.is_some();
        let r#type = match (row.outer, EncryptedType::from_number(row.kind), kind) {
            (None, ..) => "tiny",
            (_, Some(encrypted), _) => encrypted.as_str(),
            (_, _, Some(kind)) => kind.as_str(),
            _ => "unknown",
        };
        let encoding = opened.then(|| if row.kind & 0x80 == 0 { "binary" } else { "ascii" }.to_owned());
        Self {
            proven: origin.map_or("nobody", Origin::as_str).into(),
            suite: row.suite.clone(),
            generation: if row.serial.len() == 16 { "v15" } else { "v12" }.into(),
            serial: row.serial.clone(),
            node_id: row.node_id.clone(),
            r#type: r#type.into(),
            encoding,
            sequence: row.sequence,
            opened,
            fields,
            rest,
            refused_fields,
            flags: row.codes.split(' ').filter(|c| !c.is_empty()).map(str::to_owned).collect(),
            equal_blocks: row.equal,
        }
    }
}

/// Something that was kept, and is no reading.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct QuarantinedShown {
    /// Why: the code, e.g. `CL-02` (docs/protocol.md 14).
    pub code: String,
    /// What it means.
    pub condition: String,
    /// `info`, `warning`, `high` or `critical`.
    pub severity: String,
    /// Network, 8 hex digits.
    pub net: String,
    /// Its name.
    pub network: String,
    /// Device that it claims to be of, 16 hex digits.
    pub device: String,
    /// The gateway that brought it, 8 hex digits.
    pub gateway: String,
    /// Sender number; of classic frames the gateway's own.
    pub number: u64,
    /// When it came here, Unix milliseconds.
    pub ingested_ms: u64,
    /// What was inside, hex; of a classic frame the gateway's report.
    pub payload: String,
    /// What could be read of it, if it is a classic frame.
    #[serde(flatten)]
    pub classic: Option<ClassicShown>,
}

impl QuarantinedShown {
    fn of(row: &QuarantinedRow, book: &Book) -> Self {
        Self {
            code: row.code.as_str().into(),
            condition: row.code.condition().into(),
            severity: row.code.severity().as_str().into(),
            net: row.net.to_string(),
            network: book.network(row.net).map(|n| n.name.clone()).unwrap_or_default(),
            device: row.did.to_string(),
            gateway: row.gateway.to_string(),
            number: row.number,
            ingested_ms: row.at.0,
            payload: hex::encode(&row.payload),
            classic: row.classic.as_ref().map(|c| ClassicShown::of(c, None)),
        }
    }
}

/// A classic device that speaks and is not in the book.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct UnknownShown {
    /// Network of the gateway that heard it, 8 hex digits.
    pub net: String,
    /// Its name.
    pub network: String,
    /// Serial, or the DevEUI of a tiny frame.
    pub serial: String,
    /// The gateway that heard it last, 8 hex digits.
    pub gateway: String,
    /// How: `http`, `bridge`, `xbee` or `lorawan`.
    pub carrier: String,
    /// The first time, Unix milliseconds.
    pub first_ms: u64,
    /// The last time, Unix milliseconds.
    pub last_ms: u64,
    /// How often it was reported: one time in ten minutes, at most.
    pub reports: u64,
    /// Its last frame, hex.
    pub frame: String,
}

impl UnknownShown {
    fn of(row: &UnknownRow, book: &Book) -> Self {
        Self {
            net: row.net.to_string(),
            network: book.network(row.net).map(|n| n.name.clone()).unwrap_or_default(),
            serial: row.serial.clone(),
            gateway: row.gateway.to_string(),
            carrier: row.carrier.clone(),
            first_ms: row.first.0,
            last_ms: row.last.0,
            reports: row.reports,
            frame: hex::encode(&row.frame),
        }
    }
}

/// How many.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Limit {
    /// 1 to 1000; 100 if not given.
    limit: Option<u32>,
}

/// What was kept and is no reading, the latest first: classic frames with what is against them, and messages of other
/// devices.
#[utoipa::path(get, path = "/v1/quarantine", params(Limit), responses(
    (status = 200, body = [QuarantinedShown]), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn quarantine(
    State(service): State<Arc<Service>>,
    Query(limit): Query<Limit>,
) -> Answer<Vec<QuarantinedShown>> {
    let limit = limit.limit.unwrap_or(100);
    if limit == 0 || limit > LIMIT {
        let public = format!("limit {limit} is not 1 to {LIMIT}");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad-query", public));
    }
    ask(&service, move |service, reader| {
        let (rows, book) = (reader.kept_aside(limit)?, service.cloud.book());
        Ok(Json(rows.iter().map(|q| QuarantinedShown::of(q, &book)).collect()))
    })
    .await
}

/// Classic devices that speak and are not in the book, the latest first.
#[utoipa::path(get, path = "/v1/classic/unknown", responses(
    (status = 200, body = [UnknownShown]), (status = 401, body = Problem)))]
pub(super) async fn unknown(State(service): State<Arc<Service>>) -> Answer<Vec<UnknownShown>> {
    ask(&service, |service, reader| {
        let (rows, book) = (reader.unknown()?, service.cloud.book());
        Ok(Json(rows.iter().map(|u| UnknownShown::of(u, &book)).collect()))
    })
    .await
}
