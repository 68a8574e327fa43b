//! Evidence for strangers.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use fivefold_core::id::Did;
use fivefold_core::time::Millis;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Problem, ask};
use crate::evidence::{ExportError, export};
use crate::service::Service;

/// Says in one sentence which readings have no evidence yet.
const NOT_PROVEN: &str = "fivefold-not-proven";

/// Which readings.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Of {
    /// The device: its EUI-64, 16 hex digits.
    device: String,
    /// Stored at or after this time, Unix milliseconds.
    from: u64,
    /// Stored before this time, Unix milliseconds.
    to: u64,
}

/// Bundles (`.evb`) of readings that are signed, logged and witnessed, one after the other. The header
/// `fivefold-not-proven` says which others there are, and what they wait for.
#[utoipa::path(get, path = "/v1/evidence", params(Of), responses(
    (status = 200, body = Vec<u8>, content_type = "application/cbor-seq"),
    (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 409, body = Problem, description = "Nothing is proven yet; the sentence says why."),
    (status = 503, body = Problem)))]
pub(super) async fn evidence(State(service): State<Arc<Service>>, Query(of): Query<Of>) -> Result<Response, Problem> {
    let bad = |public: String| Problem::new(StatusCode::BAD_REQUEST, "bad-query", public);
    let device: Did = of.device.parse().map_err(|e| bad(format!("device: {e}")))?;
    if of.from >= of.to {
        return Err(bad(format!("from {} is not before to {}", of.from, of.to)));
    }
    let exported = ask(&service, move |service, reader| {
        let Ok(logging) = super::log::logging(service) else { return Ok(None) };
        Ok(Some(export(reader, &service.cloud.book(), logging, device, Millis(of.from), Millis(of.to))))
    })
    .await?;
    let exported = match exported {
        None => return Err(super::log::logging(&service).err().unwrap_or_else(|| bad("nothing is logged".into()))),
        Some(Err(error @ ExportError::TooMany)) => return Err(bad(error.to_string())),
        Some(Err(error)) => return Err(super::log::failed(&error)),
        Some(Ok(exported)) => exported,
    };
    let missing = exported.missing;
    if exported.proven == 0 {
        let why = match missing.count() {
            0 => "this device has no readings in that time; what is long pruned is not even counted (fivefold cloud limits)".to_owned(),
            _ => missing.to_string(),
        };
        return Err(Problem::new(StatusCode::CONFLICT, "not-proven", why));
    }
    let mut response = ([(header::CONTENT_TYPE, "application/cbor-seq")], exported.bundles).into_response();
    if missing.count() > 0
        && let Ok(said) = missing.to_string().parse()
    {
        response.headers_mut().insert(NOT_PROVEN, said);
    }
    Ok(response)
}
