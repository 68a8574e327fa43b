//! What was imported: shown apart from readings, because nobody here received it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Answer, Problem, Which, ask};
use crate::book::Book;
use crate::service::Service;
use crate::store::ImportedRow;

/// A page of what was imported.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Imported {
    /// In the order in which it was imported, or the other way round.
    pub readings: Vec<ImportedShown>,
    /// Give this as `cursor` for what comes after; nothing if this is the end.
    pub next: Option<i64>,
}

/// A reading that a Meshlium stored. Who sent it, and whether it came so, nobody can say any more.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ImportedShown {
    /// Grows with every row imported.
    pub id: i64,
    /// Always true.
    pub imported: bool,
    /// Always `plain`: a Meshlium does not put down what was sealed (W14).
    pub proof: String,
    /// Always true.
    pub insecure: bool,
    /// The operator's name of that Meshlium.
    pub source: String,
    /// Its id there.
    pub row: i64,
    /// Network, 8 hex digits.
    pub net: String,
    /// Its name.
    pub network: String,
    /// Device, 16 hex digits.
    pub device: String,
    /// Its serial: 16 hex digits, or decimal on v12.
    pub serial: String,
    /// Its node id then.
    pub node_id: String,
    /// Type byte of the frame, if it is known.
    #[serde(rename = "type")]
    pub kind: Option<u8>,
    /// Sequence of the frame, if it is known.
    pub sequence: Option<u8>,
    /// Tag of the sensor.
    pub sensor: String,
    /// The value, as text: whatever was in it.
    pub value: String,
    /// When that Meshlium received it, by its clock, Unix milliseconds.
    pub received_ms: u64,
}

impl ImportedShown {
    fn of(row: ImportedRow, book: &Book) -> Self {
        let ImportedRow { id, source, net, value, at } = row;
        Self {
            id,
            imported: true,
            proof: "plain".into(),
            insecure: true,
            source,
            row: value.row,
            net: net.to_string(),
            network: book.network(net).map(|n| n.name.clone()).unwrap_or_default(),
            device: value.did.to_string(),
            serial: value.serial,
            node_id: value.node_id,
            kind: value.kind,
            sequence: value.sequence,
            sensor: value.tag,
            value: value.value,
            received_ms: at.0,
        }
    }
}

/// Readings that were imported from a Meshlium. `since` and `until` are about when it received them.
#[utoipa::path(get, path = "/v1/readings/imported", params(Which), responses(
    (status = 200, body = Imported), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn imported(State(service): State<Arc<Service>>, Query(which): Query<Which>) -> Answer<Imported> {
    let query = which.check()?;
    let limit = query.limit;
    ask(&service, move |service, reader| {
        let rows = reader.imported(&query)?;
        let next = if rows.len() == limit as usize { rows.last().map(|r| r.id) } else { None };
        let book = service.cloud.book();
        Ok(Json(Imported { readings: rows.into_iter().map(|r| ImportedShown::of(r, &book)).collect(), next }))
    })
    .await
}
