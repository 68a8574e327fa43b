//! A page where a person drops a bundle and reads what it proves, and the verifier behind it.
//!
//! No token is needed: whoever asks brings all bytes that are looked at, nothing of the store is read, and nothing is kept.
//! What it costs is bounded: size, time (each bundle takes about a millisecond), how many are checked at once, and the rate of
//! each address that holds for the whole API.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fivefold_evidence::trust::{NotTrust, Trust};
use fivefold_evidence::verify::{Report, verify_file};
use fivefold_evidence::words;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::Problem;

/// Bytes of a request, at most: 2 MiB of bundles in base64, and a trust file.
const BODY: usize = 4 << 20;
/// Requests that are checked at the same time.
const AT_ONCE: usize = 2;
/// Requests that are read at the same time, and how long one may take to come: nobody has shown a token.
const READ_AT_ONCE: usize = 8;
const READ_TIME: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// The bytes of a file `.evb`, base64.
    bundle: String,
    /// A trust file (TOML); without it, this deployment's own.
    trust: Option<String>,
}

/// What is said.
#[derive(Debug, Serialize)]
struct Answer {
    /// Whom the answer believes: `trust-file` or `this-deployment`.
    believed: &'static str,
    /// One for each reading in the file.
    readings: Vec<Said>,
}

#[derive(Debug, Serialize)]
struct Said {
    /// For programs: as `fivefold evidence verify -o json` says it.
    report: Report,
    /// For people.
    text: String,
}

/// What the verifier needs: where it stands whom this deployment believes, and places for those who ask.
#[derive(Clone)]
struct Verifier {
    own: Arc<Path>,
    doors: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// The page and its verifier. `own` is the trust file of this deployment, which need not be there.
pub(super) fn routes(own: &Path) -> Router {
    let of = |count| Arc::new(Semaphore::new(count));
    let verifier = Verifier { own: own.into(), doors: of(READ_AT_ONCE), places: of(AT_ONCE) };
    let file = |kind: &'static str, text: &'static str| get(move || async move { page(kind, text) });
    Router::new()
        .route("/evidence", file("text/html; charset=utf-8", include_str!("../../web/evidence.html")))
        .route("/evidence.js", file("text/javascript; charset=utf-8", include_str!("../../web/evidence.js")))
        .route("/evidence.css", file("text/css; charset=utf-8", include_str!("../../web/evidence.css")))
        .route("/v1/evidence/verify", post(verify))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(verifier)
}

fn page(kind: &'static str, text: &'static str) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                          form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

async fn verify(State(verifier): State<Verifier>, request: Request) -> Result<Json<Answer>, Response> {
    let busy =
        || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "others are being answered; try again in a second");
    let slow = || Problem::new(StatusCode::REQUEST_TIMEOUT, "slow", "the request took too long to come; send it again");
    let _door = verifier.doors.clone().try_acquire_owned().map_err(|_| busy().into_response())?;
    let read = tokio::time::timeout(READ_TIME, Json::<Question>::from_request(request, &())).await;
    let Json(question) = read.map_err(|_| slow().into_response())?.map_err(IntoResponse::into_response)?;
    let place = verifier.places.clone().try_acquire_owned().map_err(|_| busy().into_response())?;
    let answer = tokio::task::spawn_blocking(move || {
        let _place = place;
        question.answer(&verifier.own)
    });
    let failed = |e: tokio::task::JoinError| Problem::failed("verifier", "it could not be checked", e.to_string());
    let answer = answer.await.map_err(failed).and_then(|answer| answer);
    answer.map(Json).map_err(IntoResponse::into_response)
}

impl Question {
    /// Blocks for as long as it computes.
    fn answer(self, own_trust: &Path) -> Result<Answer, Problem> {
        let bad = |code, public: String| Problem::new(StatusCode::BAD_REQUEST, code, public);
        let file = STANDARD.decode(self.bundle).map_err(|_| bad("bad-bundle", "the bundle is not base64".into()))?;
        let (believed, trust) = match self.trust {
            Some(text) => ("trust-file", text.parse::<Trust>().map_err(|e| bad("bad-trust", e.to_string()))?),
            None => ("this-deployment", own(own_trust)?),
        };
        let reports = verify_file(&file, &trust);
        let of = reports.len();
        let readings = reports
            .into_iter()
            .enumerate()
            .map(|(at, report)| Said { text: words::report(&report, at + 1, of), report })
            .collect();
        Ok(Answer { believed, readings })
    }
}

/// Whom this deployment believes.
fn own(file: &Path) -> Result<Trust, Problem> {
    let public = "this deployment does not say whom it believes: give a trust file";
    let missing = || Problem::new(StatusCode::BAD_REQUEST, "no-trust", public);
    let text = std::fs::read_to_string(file).map_err(|_| missing())?;
    text.parse().map_err(|e: NotTrust| Problem::failed("no-trust", public, format!("{}: {e}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    use serde_json::{Value, json};

    /// One of the vectors: a bundle and the trust file that belongs to it.
    fn vector(id: &str) -> (String, String) {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/evidence/bundles.json");
        let vectors: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let case = vectors["cases"].as_array().unwrap().iter().find(|c| c["id"] == id).unwrap();
        let trust = &vectors["trust"][case["trust"].as_str().unwrap()];
        (case["bundle"].as_str().unwrap().into(), trust.as_str().unwrap().into())
    }

    async fn ask(body: String) -> (u16, Value) {
        ask_of(Path::new("no such file"), body).await
    }

    async fn ask_of(own: &Path, body: String) -> (u16, Value) {
        let app = TowerToHyperService::new(routes(own));
        let request = Request::post("/v1/evidence/verify").header("content-type", "application/json");
        let answer = app.call(request.body(Body::from(body)).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    #[tokio::test]
    async fn who_brings_a_bundle_and_whom_to_believe_is_answered_without_a_token() {
        let (bundle, trust) = vector("plain");
        let (status, said) = ask(json!({ "bundle": bundle, "trust": trust }).to_string()).await;
        assert_eq!((status, said["believed"].as_str()), (200, Some("trust-file")));
        assert_eq!(said["readings"][0]["report"]["verdict"], "proven");
        assert!(said["readings"][0]["text"].as_str().unwrap().starts_with("PROVEN"));
        let (refused, other) = vector("another payload");
        let (_, said) = ask(json!({ "bundle": refused, "trust": other }).to_string()).await;
        assert_eq!(said["readings"][0]["report"]["step"], "path");
        // Or whom this deployment believes, and then that is said.
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("trust.toml"), trust).unwrap();
        let (_, said) = ask_of(&folder.path().join("trust.toml"), json!({ "bundle": bundle }).to_string()).await;
        assert_eq!(
            (said["believed"].as_str(), &said["readings"][0]["report"]["verdict"]),
            (Some("this-deployment"), &json!("proven"))
        );
    }

    #[tokio::test]
    async fn what_cannot_be_checked_is_said_in_a_sentence() {
        let (bundle, trust) = vector("plain");
        for (body, status, code) in [
            (json!({ "bundle": "*", "trust": trust }), 400, "bad-bundle"),
            (json!({ "bundle": bundle, "trust": "nothing" }), 400, "bad-trust"),
            (json!({ "bundle": bundle }), 400, "no-trust"),
        ] {
            let (got, said) = ask(body.to_string()).await;
            assert_eq!((got, said["code"].as_str()), (status, Some(code)), "{said}");
        }
        assert_eq!(ask("{".into()).await.0, 400);
        assert_eq!(ask("x".repeat(BODY + 1)).await.0, 413);
    }
}
