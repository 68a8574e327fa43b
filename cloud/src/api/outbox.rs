//! `/v1/outbox`: where readings go, what waits for whom, and what a sink will never take.

use std::sync::Arc;

use axum::extract::{Extension, Path, Query, State};
use axum::http::StatusCode;
use axum::{Json, body::Bytes};
use fivefold_core::time::Millis;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::gate::Asker;
use super::{Answer, LIMIT, Problem, ask};
use crate::clock;
use crate::outbox::id;
use crate::service::Service;
use crate::store::{Asked, DeadRow, OutboxRow, OutboxWrite, Write};

/// Dead letters that a request may name.
const MOST_NAMED: usize = 1000;

/// A sink of readings.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct OutboxShown {
    /// Its name in cloud.toml.
    pub name: String,
    /// What kind it is.
    pub kind: String,
    /// `sending`, `away` (what it said is in `failed`), `paused` by a person, or `gone` from cloud.toml.
    pub state: String,
    /// Readings that are behind its place.
    pub waiting: u64,
    /// When the first of them came, Unix milliseconds.
    pub oldest_ms: Option<u64>,
    /// Dead letters.
    pub dead: u64,
    /// Those of them that are sent again.
    pub again: u64,
    /// Those of them of which nothing is sent, for their reading is pruned, in quarantine, or no longer there: sent again, they go.
    pub void: u64,
    /// What it took, labels too.
    pub sent: u64,
    /// How often something had to be sent again.
    pub retried: u64,
    /// Since when it is there, Unix milliseconds.
    pub since_ms: u64,
    /// When it was tried last, Unix milliseconds.
    pub tried_ms: Option<u64>,
    /// What went wrong since it took one.
    pub failed: Option<String>,
}

impl OutboxShown {
    fn of(row: OutboxRow) -> Self {
        let state = match (row.gone, row.paused, &row.failed) {
            (Some(_), ..) => "gone",
            (_, Some(_), _) => "paused",
            (.., Some(_)) => "away",
            _ => "sending",
        };
        Self {
            name: row.name,
            kind: row.kind,
            state: state.into(),
            waiting: row.waiting,
            oldest_ms: row.oldest.map(|at| at.0),
            dead: row.dead,
            again: row.again,
            void: row.void,
            sent: row.sent,
            retried: row.retried,
            since_ms: row.since.0,
            tried_ms: row.tried.map(|at| at.0),
            failed: row.failed,
        }
    }
}

/// All sinks of readings.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct OutboxSinks {
    /// By name.
    pub sinks: Vec<OutboxShown>,
}

/// A reading that a sink will never take.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeadShown {
    /// Its number, by which it is sent again.
    pub letter: i64,
    /// The reading's id, as the sink was told.
    pub id: String,
    /// `reading`, or `label`.
    pub about: String,
    /// Network, 8 hex digits.
    pub net: String,
    /// Device, 16 hex digits.
    pub device: String,
    /// How the reading is proven.
    pub proof: String,
    /// When it came here, Unix milliseconds.
    pub ingested_ms: u64,
    /// When the sink refused it last, Unix milliseconds.
    pub at_ms: u64,
    /// How often it did.
    pub tries: u64,
    /// In its words.
    pub said: String,
    /// When a person sent it again, if it waits for that; Unix milliseconds.
    pub again_ms: Option<u64>,
}

impl DeadShown {
    fn of(row: &DeadRow) -> Self {
        let reading = &row.reading.row;
        Self {
            letter: row.id,
            id: id(&row.reading),
            about: if row.label { "label" } else { "reading" }.into(),
            net: reading.net.to_string(),
            device: reading.did.to_string(),
            proof: reading.origin.as_str().into(),
            ingested_ms: reading.ingested.0,
            at_ms: row.at.0,
            tries: row.tries,
            said: row.said.clone(),
            again_ms: row.again.map(|at| at.0),
        }
    }
}

/// Dead letters of a sink.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeadLetters {
    /// The oldest first.
    pub letters: Vec<DeadShown>,
    /// `cursor` of what is behind them, if there may be more.
    pub next: Option<i64>,
}

/// Which dead letters.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// `next` of the answer before.
    cursor: Option<i64>,
    /// Letters in one answer, 1 to 1000; 100 if not given.
    limit: Option<u32>,
}

/// What is sent again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Resend {
    /// Numbers of dead letters, 1000 at most; all of the sink's, where there are none.
    #[serde(default)]
    letters: Vec<i64>,
}

/// Where readings go, and what waits for whom.
#[utoipa::path(get, path = "/v1/outbox", responses(
    (status = 200, body = OutboxSinks), (status = 401, body = Problem)))]
pub(super) async fn outbox(State(service): State<Arc<Service>>) -> Answer<OutboxSinks> {
    let sinks = ask(&service, |_, reader| reader.outbox()).await?;
    Ok(Json(OutboxSinks { sinks: sinks.into_iter().map(OutboxShown::of).collect() }))
}

async fn one(service: &Arc<Service>, name: &str) -> Result<OutboxRow, Problem> {
    let all = ask(service, |_, reader| reader.outbox()).await?;
    let names: Vec<_> = all.iter().filter(|row| row.gone.is_none()).map(|row| row.name.clone()).collect();
    all.into_iter().find(|row| row.name == name).ok_or_else(|| {
        let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let public = format!("no readings go to a sink of that name; cloud.toml has in [[outbox]]: {has}");
        Problem::new(StatusCode::NOT_FOUND, "unknown-sink", public)
    })
}

/// What a sink will never take, with what it said.
#[utoipa::path(get, path = "/v1/outbox/{name}/dead", params(("name" = String, Path, description = "Name of a sink"), Which),
    responses((status = 200, body = DeadLetters), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem)))]
pub(super) async fn dead(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    Query(which): Query<Which>,
) -> Answer<DeadLetters> {
    let limit = which.limit.unwrap_or(100);
    if limit == 0 || limit > LIMIT {
        let public = format!("limit {limit} is not 1 to {LIMIT}");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad-query", public));
    }
    one(&service, &name).await?;
    let after = which.cursor.unwrap_or(0);
    let rows = ask(&service, move |_, reader| reader.dead_letters(&name, after, limit)).await?;
    let next = rows.last().filter(|_| rows.len() == limit as usize).map(|row| row.id);
    Ok(Json(DeadLetters { letters: rows.iter().map(DeadShown::of).collect(), next }))
}

async fn act(
    service: &Arc<Service>,
    asker: &Asker,
    name: String,
    done: &'static str,
    asked: Asked,
) -> Answer<OutboxShown> {
    if one(service, &name).await?.gone.is_some() {
        let public = format!(
            "cloud.toml has no sink \"{name}\" in [[outbox]] any more, and nothing was done: put its table back, start the cloud \
             anew, and type this again"
        );
        return Err(Problem::new(StatusCode::CONFLICT, "sink-gone", public));
    }
    if let Asked::Resend(Some(letters)) = &asked {
        let (sink, letters) = (name.clone(), letters.clone());
        if let Some(letter) = ask(service, move |_, reader| reader.missing_letter(&sink, &letters)).await? {
            let public = format!(
                "sink \"{name}\" has no dead letter {letter}, and nothing is sent again; those that it has: fivefold outbox dead \
                 {name}"
            );
            return Err(Problem::new(StatusCode::NOT_FOUND, "unknown-letter", public));
        }
    }
    let now: Millis = clock::now();
    let about = match &asked {
        Asked::Resend(Some(letters)) => format!("outbox {name}, {} letters", letters.len()),
        Asked::Resend(None) => format!("outbox {name}, all letters"),
        Asked::Pause | Asked::Resume => format!("outbox {name}"),
    };
    service.enter_deed(asker.by(now), done, about).await.map_err(|e| {
        Problem::failed("registry", "the operator's log cannot be written now, so nothing was done", e.to_string())
    })?;
    let outbox = OutboxWrite { asked: vec![(name.clone(), asked)], ..OutboxWrite::default() };
    service.commit(Write { now, outbox, ..Write::default() }).await?;
    Ok(Json(OutboxShown::of(one(service, &name).await?)))
}

/// Sends dead letters again: under the same ids.
#[utoipa::path(post, path = "/v1/outbox/{name}/resend", request_body = Resend,
    params(("name" = String, Path, description = "Name of a sink")), responses(
    (status = 200, body = OutboxShown), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem, description = "No such sink, or no such dead letter: none is sent again"),
    (status = 409, body = Problem, description = "The sink is gone from cloud.toml")))]
pub(super) async fn resend(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    Path(name): Path<String>,
    body: Bytes,
) -> Answer<OutboxShown> {
    let bad = |public: String| Problem::new(StatusCode::BAD_REQUEST, "bad-request", public);
    let resend: Resend = match &*body {
        [] => Resend::default(),
        body => serde_json::from_slice(body).map_err(|e| bad(format!("expected {{\"letters\": [numbers]}}: {e}")))?,
    };
    if resend.letters.len() > MOST_NAMED {
        return Err(bad(format!("{MOST_NAMED} letters at most, or none for all")));
    }
    let letters = Some(resend.letters).filter(|letters| !letters.is_empty());
    act(&service, &asker, name, "readings sent again", Asked::Resend(letters)).await
}

/// Stops sending to a sink: what comes waits.
#[utoipa::path(post, path = "/v1/outbox/{name}/pause", params(("name" = String, Path, description = "Name of a sink")),
    responses((status = 200, body = OutboxShown), (status = 401, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem, description = "The sink is gone from cloud.toml")))]
pub(super) async fn pause(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    Path(name): Path<String>,
) -> Answer<OutboxShown> {
    act(&service, &asker, name, "outbox paused", Asked::Pause).await
}

/// Goes on sending to a sink, or tries one now that is away.
#[utoipa::path(post, path = "/v1/outbox/{name}/resume", params(("name" = String, Path, description = "Name of a sink")),
    responses((status = 200, body = OutboxShown), (status = 401, body = Problem), (status = 404, body = Problem),
    (status = 409, body = Problem, description = "The sink is gone from cloud.toml")))]
pub(super) async fn resume(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    Path(name): Path<String>,
) -> Answer<OutboxShown> {
    act(&service, &asker, name, "outbox resumed", Asked::Resume).await
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use fivefold_keep::registry::{By, Registry, Scope};
    use fivefold_keep::vault::Vault;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    use serde_json::{Value, json};

    use super::*;
    use crate::api;
    use crate::cloud::RenewalSettings;
    use crate::store::{Dead, OutboxMove, OutboxSink, Store};

    fn sinks(names: &[&str]) -> Write {
        let of = |name: &&str| OutboxSink { name: (*name).into(), kind: "webhook", from_start: true };
        let outbox = OutboxWrite { sinks: Some(names.iter().map(of).collect()), ..OutboxWrite::default() };
        Write { now: clock::now(), outbox, ..Write::default() }
    }

    #[tokio::test]
    async fn what_nobody_can_send_is_refused_in_a_sentence_and_not_entered_as_done() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Arc::new(Vault::create(folder.path()).unwrap());
        let book = folder.path().join("registry.db");
        let by = || By::new("anna", "pts/1", "token add", 1);
        let mut registry = Registry::create(&book, by()).unwrap();
        let now = clock::now().0 / 1000;
        let token = registry.add_token("t", Scope::Operate, now + 3600, now).unwrap();
        let store = Store::open(&folder.path().join("readings.db")).unwrap();
        // It waits for its store, as no thread of a runtime may.
        let open = || Service::open(store, book, vault, RenewalSettings::default(), clock::now()).unwrap();
        let service = Arc::new(std::thread::scope(|s| s.spawn(open).join().unwrap()));
        service.commit(sinks(&["here", "old"])).await.unwrap();
        let dead = |name: &str| {
            let dead = vec![Dead { reading: 1, label: false, said: "no".into() }];
            OutboxMove { name: name.into(), dead, ..OutboxMove::default() }
        };
        let outbox = OutboxWrite { moves: vec![dead("here"), dead("old")], ..OutboxWrite::default() };
        service.commit(Write { now: clock::now(), outbox, ..Write::default() }).await.unwrap();
        service.commit(sinks(&["here"])).await.unwrap();
        let app = TowerToHyperService::new(api::app(service.clone(), std::path::Path::new("no such file")));
        let post = async |path: &str, body: Value| {
            let request =
                Request::post(format!("/v1/outbox/{path}")).header("authorization", format!("Bearer {}", *token));
            let answer = app.call(request.body(Body::from(body.to_string())).unwrap()).await.unwrap();
            let status = answer.status().as_u16();
            let body: Value = serde_json::from_slice(&to_bytes(answer.into_body(), 1 << 16).await.unwrap()).unwrap();
            (status, body["public"].as_str().unwrap_or_default().to_owned())
        };
        let deeds = registry.deeds(0, 1000).unwrap().len();
        for path in ["old/resend", "old/pause", "old/resume"] {
            let (status, said) = post(path, json!({})).await;
            assert_eq!(status, 409, "{path}: {said}");
            assert!(said.contains("\"old\"") && said.contains("put its table back"), "{said}");
        }
        let (status, said) = post("new/resume", json!({})).await;
        assert!(status == 404 && said.ends_with("[[outbox]]: here"), "{status} {said}");
        // The second letter is that of the other sink.
        for letters in [json!([2]), json!([1, 7])] {
            let (status, said) = post("here/resend", json!({ "letters": letters })).await;
            assert!(status == 404 && said.contains("fivefold outbox dead here"), "{status} {said}");
        }
        assert_eq!(registry.deeds(0, 1000).unwrap().len(), deeds, "nothing was done");
        let again = || service.cloud.memory().read(|r| r.outbox()).unwrap().iter().map(|row| row.again).sum::<u64>();
        assert_eq!(again(), 0);
        assert_eq!(post("here/resend", json!({ "letters": [1] })).await.0, 200);
        assert_eq!((again(), registry.deeds(0, 1000).unwrap().len()), (1, deeds + 1));
    }
}
