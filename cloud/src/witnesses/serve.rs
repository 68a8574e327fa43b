//! A witness as a server: C2SP `tlog-witness` over HTTP, for logs of others. The rules are the engine's
//! ([`fivefold_evidence::witness`]); here are its clock, its disk and its socket.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use fivefold_evidence::witness::{Answer, LONGEST_REQUEST, Store, Witness};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::clock;
use crate::service::stopped;

/// Connections in all, and how long one may last: a log asks every few minutes.
const CONNECTIONS: usize = 256;
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// How long a handshake, and the head of a request, may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// An engine with its disk. One question at a time: between the check and the record nobody else may come.
#[derive(Debug)]
pub struct Served {
    engine: Mutex<Witness>,
    store: Store,
}

impl Served {
    /// An engine that watches its logs already, with what the store remembers of them.
    pub const fn new(engine: Witness, store: Store) -> Self {
        Self { engine: Mutex::new(engine), store }
    }

    /// Answers the body of `add-checkpoint` at `now` (unix time, seconds).
    pub fn answer(&self, now: u64, body: &[u8]) -> Answer {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = match engine.add_checkpoint(now, body) {
            Ok(pending) => pending,
            Err(refused) => {
                if let Some(fork) = &refused.fork {
                    self.alarm(fork);
                }
                return refused;
            }
        };
        let (origin, size) = (pending.origin().to_owned(), pending.record().head.unverified().size);
        if let Err(error) = self.store.write(&pending) {
            tracing::error!(%error, "a record could not be made durable: nothing is cosigned");
            let body = "this witness cannot remember anything now\n".into();
            return Answer { status: 503, content_type: "text/plain; charset=utf-8", body, fork: None };
        }
        let answer = engine.cosign(pending).unwrap_or_else(|refused| refused);
        tracing::info!(origin, size, status = answer.status, "asked to cosign");
        answer
    }

    fn alarm(&self, fork: &fivefold_evidence::witness::Fork) {
        let origin = &fork.ours.unverified().origin;
        match self.store.keep(fork) {
            Ok(Some(path)) => {
                let kept = path.display();
                tracing::error!(code = "EV-05", origin, %kept, "the log has signed two trees of one size: kept as proof");
            }
            Ok(None) => tracing::error!(code = "EV-05", origin, "the log has signed two trees of one size"),
            Err(error) => tracing::error!(code = "EV-05", origin, %error, "the proof of a fork could not be kept"),
        }
    }
}

/// Its paths.
pub fn app(served: Arc<Served>) -> Router {
    let vkeys: String = {
        let engine = served.engine.lock().unwrap_or_else(PoisonError::into_inner);
        engine.vkeys().map(|vkey| format!("{vkey}\n")).collect()
    };
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/vkeys", get(move || async move { vkeys }))
        .layer(DefaultBodyLimit::max(LONGEST_REQUEST))
        .with_state(served)
}

async fn add_checkpoint(State(served): State<Arc<Served>>, body: Bytes) -> Response {
    let answered = tokio::task::spawn_blocking(move || served.answer(clock::now().0 / 1000, &body)).await;
    let Ok(answer) = answered else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, answer.content_type)], answer.body).into_response()
}

/// Serves it until `stop` says so; without `tls` in plain HTTP.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    served: Arc<Served>,
    mut stop: watch::Receiver<bool>,
) {
    let app = app(served);
    let acceptor = tls.map(TlsAcceptor::from);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = connections.clone().acquire_owned().await else { return };
        let socket = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
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
            let serving = async move {
                match acceptor {
                    None => connection(socket, app).await,
                    Some(acceptor) => {
                        if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(socket)).await {
                            connection(stream, app).await;
                        }
                    }
                }
            };
            tokio::select! {
                _ = tokio::time::timeout(CONNECTION_TIME, serving) => {}
                () = stopped(&mut stop) => {}
            }
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, app: Router) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIME);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(8);
    let _ = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).await;
}
