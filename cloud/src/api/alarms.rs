//! `/v1/alarms`: what was raised, and what waits for whom.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use fivefold_core::error::Severity;
use fivefold_core::time::Millis;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Answer, LIMIT, Problem, ask};
use crate::service::Service;
use crate::store::{AlarmRow, SinkRow};

/// Which alarms.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// At least so severe: `warning` (the default), `high` or `critical`.
    least: Option<String>,
    /// Raised at or after this time, Unix milliseconds.
    since: Option<u64>,
    /// `next` of the answer before: older ones.
    cursor: Option<i64>,
    /// Alarms in one answer, 1 to 1000; 100 if not given.
    limit: Option<u32>,
}

/// An alarm.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AlarmShown {
    /// What names it, at every sink.
    pub id: String,
    /// When it was raised, Unix milliseconds.
    pub at_ms: u64,
    /// A code of docs/protocol.md 14, or `dropped`.
    pub code: String,
    /// `warning`, `high` or `critical`.
    pub severity: String,
    /// Network, where it is known.
    pub net: Option<String>,
    /// Gateway, where it is known.
    pub gateway: Option<String>,
    /// Short id of the device, known or claimed.
    pub sid: Option<String>,
    /// Occurrences that raised it.
    pub times: u64,
    /// When it was over, Unix milliseconds.
    pub over_ms: Option<u64>,
    /// All of it in one sentence.
    pub text: String,
}

impl AlarmShown {
    fn of(row: &AlarmRow) -> Self {
        let alarm = &row.alarm;
        Self {
            id: row.id().to_string(),
            at_ms: alarm.at.0,
            code: alarm.cause.as_str().into(),
            severity: alarm.severity.as_str().into(),
            net: alarm.of.net.map(|n| n.to_string()),
            gateway: alarm.of.gateway.map(|g| g.to_string()),
            sid: alarm.of.sid.map(|s| s.to_string()),
            times: alarm.times,
            over_ms: row.over.map(|at| at.0),
            text: alarm.sentence(),
        }
    }
}

/// Who is told of alarms.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SinkShown {
    /// Its name in cloud.toml.
    pub name: String,
    /// Alarms that wait for it.
    pub waiting: u64,
    /// When the oldest of them was raised, Unix milliseconds.
    pub oldest_ms: Option<u64>,
    /// When it was tried last, Unix milliseconds.
    pub tried_ms: Option<u64>,
    /// What went wrong since it took one.
    pub failed: Option<String>,
}

impl SinkShown {
    fn of(row: SinkRow) -> Self {
        Self {
            name: row.name,
            waiting: row.waiting,
            oldest_ms: row.oldest.map(|at| at.0),
            tried_ms: row.tried.map(|at| at.0),
            failed: row.failed,
        }
    }
}

/// Alarms, and who is told of them.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Alarms {
    /// The newest first.
    pub alarms: Vec<AlarmShown>,
    /// `cursor` of what is older, if there may be more.
    pub next: Option<i64>,
    /// All sinks.
    pub sinks: Vec<SinkShown>,
}

/// Alarms, the newest first, and what waits for which sink.
#[utoipa::path(get, path = "/v1/alarms", params(Which), responses(
    (status = 200, body = Alarms), (status = 400, body = Problem), (status = 401, body = Problem)))]
pub(super) async fn alarms(State(service): State<Arc<Service>>, Query(which): Query<Which>) -> Answer<Alarms> {
    let bad = |public: String| Problem::new(StatusCode::BAD_REQUEST, "bad-query", public);
    let limit = which.limit.unwrap_or(100);
    if limit == 0 || limit > LIMIT {
        return Err(bad(format!("limit {limit} is not 1 to {LIMIT}")));
    }
    let least = match which.least.as_deref() {
        None | Some("warning") => Severity::Warning,
        Some("high") => Severity::High,
        Some("critical") => Severity::Critical,
        Some(other) => return Err(bad(format!("least `{other}` is none of warning, high and critical"))),
    };
    ask(&service, move |_, reader| {
        let rows = reader.alarms(least, Millis(which.since.unwrap_or(0)), which.cursor, limit)?;
        let next = rows.last().filter(|_| rows.len() == limit as usize).map(|row| row.n);
        Ok(Json(Alarms {
            alarms: rows.iter().map(AlarmShown::of).collect(),
            next,
            sinks: reader.alarm_sinks()?.into_iter().map(SinkShown::of).collect(),
        }))
    })
    .await
}
