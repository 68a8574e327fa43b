//! The cloud's HTTPS API: JSON for people and programs, with a bearer token, and described by `/openapi.json`.
//!
//! Tokens are made by the command; the registry keeps their SHA-256. Each route needs one of a scope (`gate`). Nothing but the
//! description is readable without one, and in a word whether the cloud lives and can work (`/livez`, `/readyz`); the page that
//! checks evidence (`/evidence`) reads nothing of ours.

mod alarms;
mod audit;
mod campaign;
mod classic;
mod evidence;
mod gate;
mod imported;
mod kept;
mod log;
mod metrics;
mod outbox;
mod show;
mod tokens;
mod verify;
mod why;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Extension, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use fivefold_core::id::{Did, Net};
use fivefold_core::time::Millis;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use utoipa::openapi::OpenApi;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::clock;
use crate::cloud::NoCommand;
use crate::health::{Live, Ready};
use crate::service::{Service, stopped};
use crate::store::{self, CommandState, Page, StoreError, Write};

pub use alarms::{AlarmShown, Alarms, SinkShown};
pub use audit::AuditShown;
pub use campaign::{CampaignShown, GatewayAway, MemberShown};
pub use classic::{ClassicShown, QuarantinedShown, UnknownShown};
pub use imported::{Imported, ImportedShown};
pub use log::{LogShown, WitnessShown};
pub use outbox::{DeadLetters, DeadShown, OutboxShown, OutboxSinks};
pub use show::{
    ColumnShown, CommandShown, CountShown, DeviceShown, Followed, GatewayShown, Health, LabelShown, ReadingShown,
    Readings, RecordShown, RowShown, UnknownRowsShown,
};
pub use tokens::TokenShown;

use gate::{Asker, Gate, need_token};

/// Readings in one answer, at most.
const LIMIT: u32 = 1000;
/// Bytes of a request body, at most.
const BODY: usize = 16 * 1024;
/// Requests that one address may make at once, and how many more each second.
const BURST: f64 = 200.0;
const RATE: f64 = 50.0;
/// Connections in all.
const CONNECTIONS: usize = 1024;
/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// An error as the client sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// HTTP status.
    status: u16,
    /// One word for programs.
    code: &'static str,
    /// One sentence for people.
    public: String,
    /// What goes to the log and nowhere else.
    #[serde(skip)]
    private: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, public: impl Into<String>) -> Self {
        Self { status: status.as_u16(), code, public: public.into(), private: None }
    }

    /// Something of ours failed, and may work later.
    pub(crate) fn failed(code: &'static str, public: &str, private: String) -> Self {
        Self { status: 503, code, public: public.to_owned(), private: Some(private) }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::failed("store", "the store cannot answer now; try again later", error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if let Some(private) = &self.private {
            tracing::error!(code = self.code, private, "a request failed");
        }
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        response
    }
}

type Answer<T> = Result<Json<T>, Problem>;

/// All routes, and their description.
pub fn routes() -> (Router<Arc<Service>>, OpenApi) {
    let (router, mut api) = OpenApiRouter::new()
        .routes(routes!(readings))
        .routes(routes!(imported::imported))
        .routes(routes!(stream))
        .routes(routes!(devices))
        .routes(routes!(device))
        .routes(routes!(gateways))
        .routes(routes!(rejections))
        .routes(routes!(audit::audit))
        .routes(routes!(why::why))
        .routes(routes!(health))
        .routes(routes!(metrics))
        .routes(routes!(command))
        .routes(routes!(alarms::alarms))
        .routes(routes!(outbox::outbox))
        .routes(routes!(outbox::dead))
        .routes(routes!(outbox::resend))
        .routes(routes!(outbox::pause))
        .routes(routes!(outbox::resume))
        .routes(routes!(campaign::rotation))
        .routes(routes!(classic::quarantine))
        .routes(routes!(classic::unknown))
        .routes(routes!(evidence::evidence))
        .routes(routes!(log::log))
        .routes(routes!(log::checkpoint))
        .routes(routes!(tokens::tokens))
        .routes(routes!(tokens::revoke))
        .split_for_parts();
    api.info.title = "Fivefold cloud".into();
    api.info.version = env!("CARGO_PKG_VERSION").into();
    api.info.description = Some(
        "Readings with their proof, devices, gateways, and what was refused. Every request needs a token, of a scope."
            .into(),
    );
    let bearer = utoipa::openapi::security::HttpBuilder::new()
        .scheme(utoipa::openapi::security::HttpAuthScheme::Bearer)
        .description(Some("A token made by `fivefold token add`."))
        .build();
    let components = api.components.get_or_insert_default();
    components.add_security_scheme("token", utoipa::openapi::security::SecurityScheme::Http(bearer));
    api.security = Some(vec![utoipa::openapi::security::SecurityRequirement::new("token", Vec::<String>::new())]);
    (router, api)
}

/// The whole API, ready to be served. `trust` is the trust file of this deployment, which need not be there.
pub fn app(service: Arc<Service>, trust: &std::path::Path) -> Router {
    let (router, api) = routes();
    let document = Bytes::from(api.to_json().unwrap_or_default());
    let open = Router::new().route(
        "/openapi.json",
        axum::routing::get(move || async move { ([(header::CONTENT_TYPE, "application/json")], document) }),
    );
    let files = Router::new().route("/log/{*path}", axum::routing::get(log::file)).with_state(service.clone());
    let health = Router::new()
        .route("/livez", axum::routing::get(live))
        .route("/readyz", axum::routing::get(ready))
        .with_state(service.clone());
    let limits = Arc::new(Limits::default());
    router
        .layer(middleware::from_fn_with_state(Gate::new(service.clone()), need_token))
        .with_state(service)
        .merge(open)
        .merge(files)
        .merge(health)
        .merge(verify::routes(trust))
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "unknown-path", "there is nothing here; see /openapi.json")
        })
        .layer(middleware::from_fn_with_state(limits, limit_rate))
        .layer(DefaultBodyLimit::max(BODY))
}

/// Serves the API until `stop` says so.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    service: Arc<Service>,
    trust: &std::path::Path,
    mut stop: watch::Receiver<bool>,
) {
    let app = app(service, trust);
    let acceptor = TlsAcceptor::from(tls);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = connections.clone().acquire_owned().await else { return };
        let (socket, from) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = stopped(&mut stop) => return,
        };
        let (acceptor, app, mut stop) = (acceptor.clone(), app.clone(), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            let _ = socket.set_nodelay(true);
            let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(socket)).await else { return };
            let app = TowerToHyperService::new(app.layer(Extension(from)));
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIME);
            builder.http2().timer(TokioTimer::new()).max_concurrent_streams(32);
            let serving = builder.serve_connection(TokioIo::new(stream), app);
            tokio::select! {
                _ = serving => {}
                // Streams would hold us for ever.
                () = stopped(&mut stop) => {}
            }
        });
    }
}

/// Whether what it cannot be without is there: a word, and 503 where only a restart brings it back.
async fn live(State(service): State<Arc<Service>>) -> (StatusCode, &'static str) {
    match service.lives() {
        Live::Yes => (StatusCode::OK, "live"),
        Live::Stuck => (StatusCode::SERVICE_UNAVAILABLE, "stuck"),
    }
}

/// Whether the cloud can do its work: a word, and 503 where it cannot.
async fn ready(State(service): State<Arc<Service>>) -> (StatusCode, &'static str) {
    let ready = service.ready(clock::now()).await;
    let status = if ready == Ready::Yes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, ready.as_str())
}

/// How much of its share each address has left.
#[derive(Debug, Default)]
struct Limits {
    left: Mutex<HashMap<IpAddr, (f64, Millis)>>,
}

impl Limits {
    fn take(&self, from: IpAddr, now: Millis) -> Result<(), Problem> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.len() > 10_000 {
            left.retain(|_, (_, at)| now.since(*at) < 60_000);
        }
        let (tokens, at) = left.entry(from).or_insert((BURST, now));
        *tokens = (*tokens + now.since(*at) as f64 / 1000.0 * RATE).min(BURST);
        *at = now;
        if *tokens < 1.0 {
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "slow-down", "too many requests; wait a second"));
        }
        *tokens -= 1.0;
        Ok(())
    }
}

async fn limit_rate(State(limits): State<Arc<Limits>>, request: Request, next: Next) -> Response {
    let from = request.extensions().get::<SocketAddr>().map_or(IpAddr::from([0, 0, 0, 0]), SocketAddr::ip);
    match limits.take(from, clock::now()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Which readings.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Which {
    /// Of one network: 8 hex digits.
    net: Option<String>,
    /// Of one device: its EUI-64, 16 hex digits.
    device: Option<String>,
    /// Stored at or after this time, Unix milliseconds.
    since: Option<u64>,
    /// Stored before this time, Unix milliseconds.
    until: Option<u64>,
    /// Readings in one answer, 1 to 1000; 100 if not given. Where payloads are long there are fewer.
    limit: Option<u32>,
    /// `next` of the answer before.
    cursor: Option<i64>,
    /// `asc` (the default) or `desc`, by the order in which they were stored.
    order: Option<String>,
}

impl Which {
    fn check(&self) -> Result<store::Query, Problem> {
        let bad = |public: String| Problem::new(StatusCode::BAD_REQUEST, "bad-query", public);
        let limit = self.limit.unwrap_or(100);
        if limit == 0 || limit > LIMIT {
            return Err(bad(format!("limit {limit} is not 1 to {LIMIT}")));
        }
        Ok(store::Query {
            net: self.net.as_ref().map(|n| n.parse::<Net>()).transpose().map_err(|e| bad(format!("net: {e}")))?,
            device: self
                .device
                .as_ref()
                .map(|d| d.parse::<Did>())
                .transpose()
                .map_err(|e| bad(format!("device: {e}")))?,
            since: self.since.map(Millis),
            until: self.until.map(Millis),
            cursor: self.cursor,
            limit,
            order: match self.order.as_deref() {
                None | Some("asc") => Page::Oldest,
                Some("desc") => Page::Newest,
                Some(other) => return Err(bad(format!("order `{other}` is neither asc nor desc"))),
            },
        })
    }
}

/// Asks the store on a thread that may block.
async fn ask<T: Send + 'static>(
    service: &Arc<Service>,
    question: impl FnOnce(&Arc<Service>, &store::Reader) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Problem> {
    let service = service.clone();
    let asked = tokio::task::spawn_blocking(move || service.cloud.memory().read(|r| question(&service, r))).await;
    match asked {
        Ok(answer) => Ok(answer?),
        Err(error) => Err(Problem {
            private: Some(error.to_string()),
            ..Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", "this is our fault; it is in the log")
        }),
    }
}

/// Readings, with how each was proven.
#[utoipa::path(get, path = "/v1/readings", params(Which), responses(
    (status = 200, body = Readings), (status = 400, body = Problem), (status = 401, body = Problem)))]
async fn readings(State(service): State<Arc<Service>>, Query(which): Query<Which>) -> Answer<Readings> {
    let query = which.check()?;
    let limit = query.limit;
    ask(&service, move |service, reader| {
        let mut rows = reader.readings(&query)?;
        let is_full = rows.len() == limit as usize;
        let are_more = show::shorten(&mut rows) || is_full;
        let next = rows.last().filter(|_| are_more).map(|r| r.id);
        let book = service.cloud.book();
        Ok(Json(Readings { readings: rows.iter().map(|r| ReadingShown::of(r, &book)).collect(), next }))
    })
    .await
}

/// Readings as they are stored, as server-sent events (`event: reading`, `data:` the reading), and labels that are raised
/// later (`event: label`, `data:` which reading, and what it is called now). Starts after `cursor`, else with what comes next.
/// The `id:` of an event, given back in the header Last-Event-ID, goes on with both behind that event. A reading that comes is
/// called what it is by then; a label that says the same again may follow.
#[utoipa::path(get, path = "/v1/readings/stream", params(Which), responses(
    (status = 200, body = Followed, content_type = "text/event-stream"),
    (status = 400, body = Problem), (status = 401, body = Problem)))]
async fn stream(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    Query(which): Query<Which>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut query = store::Query { limit: LIMIT, order: Page::Oldest, ..which.check()? };
    let (last, raised) = headers.get("last-event-id").and_then(|v| v.to_str().ok()).map_or((None, None), event_id);
    let (last_id, last_raised) = ask(&service, |_, r| Ok((r.last_id()?, r.last_raised()?))).await?;
    query.cursor = query.cursor.or(last).or(query.since.is_none().then_some(last_id));
    let mut raised = raised.unwrap_or(last_raised);
    let (sender, receiver) = mpsc::channel::<Bytes>(16);
    let mut stored = service.stored();
    let at = service.clone();
    let told = async move {
        loop {
            stored.borrow_and_update();
            let mut asked = query.clone();
            let answer = ask(&service, move |service, reader| {
                let mut rows = reader.readings(&asked)?;
                let is_full = rows.len() >= LIMIT as usize;
                let are_more = show::shorten(&mut rows) || is_full;
                let book = service.cloud.book();
                let mut text = String::new();
                for row in &rows {
                    let json = serde_json::to_string(&ReadingShown::of(row, &book)).unwrap_or_default();
                    text.push_str(&format!("event: reading\nid: {}-{raised}\ndata: {json}\n\n", row.id));
                }
                asked.cursor = rows.last().map(|r| r.id).or(asked.cursor);
                let labels = reader.raised(raised, &asked)?;
                let passed = asked.cursor.unwrap_or(0);
                for row in &labels.rows {
                    let json = serde_json::to_string(&LabelShown::of(row)).unwrap_or_default();
                    text.push_str(&format!("event: label\nid: {passed}-{}\ndata: {json}\n\n", row.id));
                }
                let is_cut = are_more || labels.rows.len() >= LIMIT as usize;
                Ok((text, asked.cursor, labels.next, is_cut))
            })
            .await;
            let Ok((text, passed, looked_at, is_cut)) = answer else { return };
            (query.cursor, raised) = (passed, looked_at);
            if !text.is_empty() && sender.send(text.into()).await.is_err() {
                return;
            }
            if is_cut {
                continue;
            }
            match tokio::time::timeout(Duration::from_secs(15), stored.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                // A comment keeps the connection, and finds out whether there still is one.
                Err(_) if sender.send(Bytes::from_static(b": here\n\n")).await.is_err() => return,
                Err(_) => {}
            }
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = told => {}
            () = asker.is_gone(&at) => {}
        }
    });
    let mut response = Response::new(Body::new(Events(receiver)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The last reading and the last label that a follower has, as in `id:`; the second is missing where a reading alone is named.
fn event_id(text: &str) -> (Option<i64>, Option<i64>) {
    let (reading, label) = text.split_once('-').unwrap_or((text, ""));
    (reading.parse().ok(), label.parse().ok())
}

/// A body that grows.
struct Events(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|b| Ok(hyper::body::Frame::data(b))))
    }
}

/// All devices that are served.
#[utoipa::path(get, path = "/v1/devices", responses(
    (status = 200, body = [DeviceShown]), (status = 401, body = Problem)))]
async fn devices(State(service): State<Arc<Service>>) -> Answer<Vec<DeviceShown>> {
    let book = service.cloud.book();
    let mut shown: Vec<_> = book.by_did.values().map(|d| DeviceShown::of(d, &book)).collect();
    shown.sort_by(|a, b| (&a.net, &a.sid).cmp(&(&b.net, &b.sid)));
    Ok(Json(shown))
}

/// One device, with what it said of itself and its commands.
#[utoipa::path(get, path = "/v1/devices/{did}", params(("did" = String, Path, description = "EUI-64, 16 hex digits")),
    responses((status = 200, body = DeviceShown), (status = 401, body = Problem), (status = 404, body = Problem)))]
async fn device(State(service): State<Arc<Service>>, Path(did): Path<String>) -> Answer<DeviceShown> {
    let did = parse_did(&did)?;
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "unknown-device", "no such device");
    let book = service.cloud.book();
    let mut shown = book.by_did.get(&did).map(|d| DeviceShown::of(d, &book)).ok_or_else(unknown)?;
    ask(&service, move |_, reader| {
        if let Some((last, count)) = reader.last_of(did)? {
            shown.last_heard_ms = Some(last.0);
            shown.readings = Some(count);
        }
        shown.unknown_rows = reader.unknown_rows(did)?.as_ref().map(UnknownRowsShown::of);
        shown.report = reader.report(did)?.and_then(|(at, control)| show::report(at, &control));
        shown.commands = reader.commands_of(did)?.iter().map(CommandShown::of).collect();
        Ok(Json(shown))
    })
    .await
}

fn parse_did(text: &str) -> Result<Did, Problem> {
    text.parse().map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "bad-device", format!("`{text}`: {e}")))
}

/// All gateways, with what was heard of them.
#[utoipa::path(get, path = "/v1/gateways", responses(
    (status = 200, body = [GatewayShown]), (status = 401, body = Problem)))]
async fn gateways(State(service): State<Arc<Service>>) -> Answer<Vec<GatewayShown>> {
    ask(&service, |service, reader| {
        let heard = reader.gateways()?;
        let book = service.cloud.book();
        let shown = book.all_gateways.iter().map(|g| {
            let heard = heard.iter().find(|h| h.gateway == g.gateway);
            GatewayShown::of(g, heard, service.cloud.health(g.gateway), service.cloud.pushed_version(g.gateway))
        });
        Ok(Json(shown.collect()))
    })
    .await
}

/// What was refused, by code, network, gateway and device, here and at gateways.
#[utoipa::path(get, path = "/v1/rejections", responses(
    (status = 200, body = [CountShown]), (status = 401, body = Problem)))]
async fn rejections(State(service): State<Arc<Service>>) -> Answer<Vec<CountShown>> {
    ask(&service, |_, reader| Ok(Json(reader.counts()?.iter().map(CountShown::of).collect()))).await
}

/// Whether the cloud works.
#[utoipa::path(get, path = "/v1/health", responses(
    (status = 200, body = Health), (status = 401, body = Problem), (status = 503, body = Problem)))]
async fn health(State(service): State<Arc<Service>>) -> Answer<Health> {
    ask(&service, |service, reader| {
        let readings = reader.last_id()?;
        let book = service.cloud.book();
        Ok(Json(Health {
            status: "ok",
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: clock::now().since(service.started) / 1000,
            registry_version: book.version,
            devices: book.devices.len(),
            last_reading_id: readings,
            backup_at: service.last_backup(),
            audit: service.selfcheck().and_then(audit::AuditShown::of),
        }))
    })
    .await
}

/// For Prometheus: what was refused, by code and of no device in particular, and how old keys and gateways' words are.
#[utoipa::path(get, path = "/v1/metrics", responses(
    (status = 200, body = String, content_type = "text/plain"), (status = 401, body = Problem)))]
async fn metrics(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    let text = ask(&service, |service, reader| metrics::page(service, reader, clock::now())).await?;
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// A command to be queued.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewCommand {
    /// What to do; the device type's own numbering.
    op: u64,
    /// Arguments: numbers, texts, true, false, null, and arrays of them.
    #[serde(default)]
    args: Vec<serde_json::Value>,
}

/// Queues a command. It goes out inside the next protected answers of the device, until its result comes.
#[utoipa::path(post, path = "/v1/devices/{did}/commands", request_body = NewCommand,
    params(("did" = String, Path, description = "EUI-64, 16 hex digits")), responses(
    (status = 202, body = CommandShown), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn command(
    State(service): State<Arc<Service>>,
    Extension(asker): Extension<Asker>,
    Path(did): Path<String>,
    Json(new): Json<NewCommand>,
) -> Result<(StatusCode, Json<CommandShown>), Problem> {
    let did = parse_did(&did)?;
    let args = show::arguments(&new.args).ok_or(Problem::new(
        StatusCode::BAD_REQUEST,
        "bad-command",
        "the arguments cannot be sent, or take more than 32 bytes",
    ))?;
    let now = clock::now();
    let command = service.cloud.command(did, new.op, args, now).map_err(|e| match e {
        NoCommand::UnknownDevice => Problem::new(StatusCode::NOT_FOUND, "unknown-device", e.to_string()),
        NoCommand::NoE3 | NoCommand::TooMany => Problem::new(StatusCode::CONFLICT, "no-command", e.to_string()),
    })?;
    // Before it is done: a command that nobody asked for must not be there. What it carries is nobody's but the device's.
    let about = format!("device {did}, command {}, op {}", command.id, command.op);
    service.enter_deed(asker.by(now), "command queued", about).await.map_err(|e| {
        Problem::failed("registry", "the operator's log cannot be written now, so nothing was queued", e.to_string())
    })?;
    let write = Write { now, commands: vec![command.clone()], ..Write::default() };
    store::Ledger::commit(service.cloud.memory(), Arc::new(write)).await?;
    let shown = CommandShown::of(&CommandState { command: command.clone(), done: None });
    service.cloud.commanded(command);
    Ok((StatusCode::ACCEPTED, Json(shown)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_asks_too_often_is_told_to_wait_and_others_are_not() {
        let limits = Limits::default();
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let now = Millis(1_000_000);
        let taken = (0..1000).filter(|_| limits.take(a, now).is_ok()).count();
        assert_eq!(taken, BURST as usize);
        assert!(limits.take(b, now).is_ok());
        assert!(limits.take(a, now.plus(1000)).is_ok());
    }

    #[test]
    fn an_event_id_names_the_last_reading_and_the_last_label_or_the_reading_alone() {
        assert_eq!(event_id("12-7"), (Some(12), Some(7)));
        assert_eq!(event_id("12"), (Some(12), None));
        assert_eq!(event_id("0-0"), (Some(0), Some(0)));
        for none in ["", "-", "x", "x-y"] {
            assert_eq!(event_id(none), (None, None), "{none}");
        }
    }

    #[test]
    fn the_description_covers_every_route_and_asks_for_a_token() {
        let (_, api) = routes();
        let json: serde_json::Value = serde_json::from_str(&api.to_json().unwrap()).unwrap();
        let paths: Vec<_> = json["paths"].as_object().unwrap().keys().cloned().collect();
        for path in [
            "/v1/readings",
            "/v1/readings/stream",
            "/v1/readings/imported",
            "/v1/devices",
            "/v1/devices/{did}",
            "/v1/devices/{did}/commands",
            "/v1/gateways",
            "/v1/rejections",
            "/v1/why",
            "/v1/health",
            "/v1/metrics",
            "/v1/alarms",
            "/v1/outbox",
            "/v1/outbox/{name}/dead",
            "/v1/outbox/{name}/resend",
            "/v1/outbox/{name}/pause",
            "/v1/outbox/{name}/resume",
            "/v1/networks/{net}/rotation",
            "/v1/quarantine",
            "/v1/classic/unknown",
            "/v1/evidence",
            "/v1/log",
            "/v1/log/checkpoint",
            "/v1/audit",
            "/v1/tokens",
            "/v1/tokens/{name}/revoke",
        ] {
            assert!(paths.iter().any(|p| p == path), "{path}");
        }
        assert_eq!(paths.len(), 26);
        assert_eq!(json["components"]["securitySchemes"]["token"]["scheme"], "bearer");
        assert_eq!(json["security"][0]["token"], serde_json::json!([]));
    }
}
