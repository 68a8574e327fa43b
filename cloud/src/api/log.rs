//! The deployment's log: how it stands, a head on demand, and its files for everybody where the operator says so.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Answer, Problem, ask};
use crate::clock;
use crate::log::Logging;
use crate::service::Service;

/// How the log stands.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LogShown {
    /// Its name.
    pub origin: String,
    /// Its key, to be pinned.
    pub vkey: String,
    /// Entries that are durable.
    pub entries: u64,
    /// Events that wait to become entries.
    pub waiting: u64,
    /// Entries of the head that is shown.
    pub shown: u64,
    /// Who cosigns its heads.
    pub witnesses: Vec<WitnessShown>,
}

/// A witness.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WitnessShown {
    /// Where it is asked.
    pub url: String,
    /// Its keys.
    pub vkeys: Vec<String>,
    /// Entries of the head that it cosigned last, since this process started.
    pub entries: u64,
    /// When that was, by its own word; Unix seconds.
    pub at_s: Option<u64>,
    /// What went wrong since.
    pub error: Option<String>,
}

pub(super) fn logging(service: &Service) -> Result<&Arc<Logging>, Problem> {
    const NONE: &str = "nothing is logged: the log cannot be used, and the cloud's own messages say why";
    service.logging().ok_or_else(|| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-log", NONE))
}

pub(super) fn failed(error: &dyn std::fmt::Display) -> Problem {
    Problem::failed("log", "the log cannot be written now; try again later", error.to_string())
}

async fn show(service: &Arc<Service>) -> Answer<LogShown> {
    ask(service, |service, reader| {
        let (waiting, _) = reader.log_standing()?;
        Ok(logging(service).and_then(|logging| {
            let log = logging.log();
            let shown = log.shown().map_err(|e| failed(&e))?;
            let witnesses = logging.witnesses().iter().map(|w| {
                let standing = w.standing();
                WitnessShown {
                    url: w.url().to_owned(),
                    vkeys: w.keys().iter().map(ToString::to_string).collect(),
                    entries: standing.size,
                    at_s: standing.at,
                    error: standing.error,
                }
            });
            Ok(Json(LogShown {
                origin: log.vkey().name().to_owned(),
                vkey: log.vkey().to_string(),
                entries: log.durable(),
                waiting,
                shown: shown.map_or(0, |s| s.unverified().size),
                witnesses: witnesses.collect(),
            }))
        }))
    })
    .await?
}

/// How the log stands, and its key.
#[utoipa::path(get, path = "/v1/log", responses(
    (status = 200, body = LogShown), (status = 401, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn log(State(service): State<Arc<Service>>) -> Answer<LogShown> {
    show(&service).await
}

/// Puts all that waits into the log, signs a head, asks the witnesses and shows it.
#[utoipa::path(post, path = "/v1/log/checkpoint", responses(
    (status = 200, body = LogShown), (status = 401, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn checkpoint(State(service): State<Arc<Service>>) -> Answer<LogShown> {
    let at = service.clone();
    let written = tokio::task::spawn_blocking(move || at.write_log()).await.map_err(|e| failed(&e))?;
    written.map_err(|e| failed(&e))?;
    logging(&service)?;
    if let Some(done) = service.publish_head(clock::now()).await {
        done.map_err(|e| failed(&e))?;
    }
    show(&service).await
}

/// A file of the log, without a token. Nothing but what C2SP names is there: what the log keeps for itself is not served.
pub(super) async fn file(State(service): State<Arc<Service>>, Path(path): Path<String>) -> Response {
    let nothing = || Problem::new(StatusCode::NOT_FOUND, "unknown-path", "the log has no such file").into_response();
    let Some(file) = service.served_log().and_then(|folder| public(&path).then(|| folder.join(&path))) else {
        return nothing();
    };
    let Ok(Ok(bytes)) = tokio::task::spawn_blocking(move || std::fs::read(file)).await else { return nothing() };
    let (kind, cache) = if path == "checkpoint" {
        ("text/plain; charset=utf-8", "no-cache")
    } else {
        ("application/octet-stream", "public, max-age=31536000, immutable")
    };
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, cache)], bytes).into_response()
}

/// `checkpoint`, and what stands below `tile/`: names of digits, `x`, `p` and `entries`, and nothing that leads elsewhere.
fn public(path: &str) -> bool {
    let is_number = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    let is_name = |name: &str| {
        let number = name.strip_prefix('x').unwrap_or(name);
        name == "entries" || is_number(number.strip_suffix(".p").unwrap_or(number))
    };
    path == "checkpoint" || path.strip_prefix("tile/").is_some_and(|rest| rest.split('/').all(is_name))
}

impl Service {
    /// Where the log's files lie, if everybody may read them.
    fn served_log(&self) -> Option<PathBuf> {
        let logging = self.logging()?;
        logging.is_served().then(|| logging.log().directory().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::public;

    #[test]
    fn only_what_c2sp_names_is_served() {
        for path in ["checkpoint", "tile/0/000", "tile/entries/x001/234.p/5", "tile/3/x123/x456/789"] {
            assert!(public(path), "{path}");
        }
        for path in [
            "own/journal",
            "own/signed",
            "tile/../own/signed",
            "tile",
            "tile/",
            "/etc/passwd",
            "tile//0",
            "checkpoint/",
            "tile/0/00a",
            "tile/0/.p",
            "tile/0/x",
            "own/lock",
            "tile/0/..",
        ] {
            assert!(!public(path), "{path}");
        }
    }
}
