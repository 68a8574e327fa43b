//! The cloud's audit of itself, of its book and of what it hears.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use fivefold_audit::report;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Answer, Problem};
use crate::clock;
use crate::selfcheck::SelfCheck;
use crate::service::Service;

/// How the last audit came out.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditShown {
    /// `A` to `F`; none while nobody knows.
    grade: Option<String>,
    /// What is open.
    findings: usize,
    /// What is lived with.
    waived: usize,
    /// When, Unix seconds.
    at: u64,
}

impl AuditShown {
    /// Of what was found last; `None` before the first look.
    pub(super) fn of(selfcheck: &SelfCheck) -> Option<Self> {
        let last = selfcheck.standing().last()?;
        let grade = last.grades.whole.map(|grade| grade.to_string());
        Some(Self { grade, findings: last.open().count(), waived: last.waived.len(), at: last.at })
    }
}

/// What is weak in this deployment, as `fivefold audit -o json` writes it: of the cloud's folder, of the book, and of what only a running
/// cloud knows.
#[utoipa::path(get, path = "/v1/audit", responses(
    (status = 200, body = serde_json::Value), (status = 401, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn audit(State(service): State<Arc<Service>>) -> Answer<serde_json::Value> {
    let failed = |why: String| Problem::failed("no-audit", "the cloud cannot look at itself now", why);
    let looked = tokio::task::spawn_blocking(move || {
        service.selfcheck().map(|selfcheck| report::json(&selfcheck.looked(&service, clock::now())))
    });
    let report = looked.await.map_err(|e| failed(e.to_string()))?;
    const NONE: &str = "this cloud runs without an audit of itself";
    report.map(Json).ok_or_else(|| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-audit", NONE))
}
