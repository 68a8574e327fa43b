//! # E4 at the cloud
//!
//! | | |
//! |---|---|
//! | Key held by | the cloud's certificate key; gateways hold theirs |
//! | Hides       | batches and downlinks, from everybody between gateway and cloud |
//! | Proves      | which gateway speaks: every request belongs to a connection that was proven |
//! | Binds       | a connection to one gateway of one network, until its certificate ends or is revoked |
//! | Drops as    | `E4-01`, `E4-07` at the handshake; `E4-02` and on inside |
//! | Does not    | believe what a gateway says of devices: the engine judges that |
//! | Spec        | docs/protocol.md 10 |
//!
//! The one connection that comes without a certificate says so in its first message (application protocol), gets the one
//! route of [`enrol`], and little time.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use fivefold_core::e4_channel::ProvenGateway;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::wire::envelope::{BYTES, Downlink, DownlinkKind, emit_downlinks};
use fivefold_keep::tls::{May, Proven, classify, prove_gateway, wants_enrolment};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use zeroize::Zeroizing;

use crate::clock;
use crate::enrol::{self, Holder};
use crate::push::{Due, Pushed};
use crate::service::{ExchangeError, HANDSHAKE, IngestError, Service, stopped};

/// How long a long poll waits.
pub const POLL: Duration = Duration::from_secs(25);
/// How long a handshake may take, from the connection on.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// How long a connection lives: after that the gateway proves itself again.
const CONNECTION_LIFE: Duration = Duration::from_secs(3600);
/// How long a connection without a certificate lives.
const ENROLMENT_LIFE: Duration = Duration::from_secs(15);
/// Handshakes at a time, connections in all, and connections without a certificate.
const HANDSHAKES: usize = 64;
const CONNECTIONS: usize = 4096;
const ENROLMENTS: usize = 8;

/// A connection whose certificate was revoked.
const CUT: Rejected = Rejected::new(Code::ChannelRefused, "the gateway or its certificate is revoked: connection cut");

/// How the cloud shakes hands.
#[derive(Clone, Debug)]
pub struct Doors {
    /// With gateways.
    pub gateways: Arc<ServerConfig>,
    /// With whoever is to become one.
    pub enrolment: Arc<ServerConfig>,
}

/// One proven connection.
#[derive(Debug)]
struct Connection {
    gateway: ProvenGateway,
    pushed: Mutex<Pushed>,
    parts: Mutex<VecDeque<Zeroizing<Vec<u8>>>>,
}

impl Connection {
    fn pushed(&self) -> MutexGuard<'_, Pushed> {
        self.pushed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all connections share.
struct Rim {
    doors: Doors,
    service: Arc<Service>,
    /// What a gateway may do; what one may do whose certificate has ended; what anybody may do.
    gateway: Router,
    renewal: Router,
    enrolment: Router,
    handshakes: Semaphore,
    enrolments: Semaphore,
}

/// Takes connections of gateways until `stop` says so. Open requests are finished first, for a few seconds.
pub async fn serve(listener: TcpListener, doors: Doors, service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    let renewal = enrol::renewal(service.clone());
    let gateway = Router::new()
        .route("/v1/ingest", post(ingest))
        .route("/v1/downlink", get(downlink))
        .route("/v1/edhoc", post(edhoc))
        .layer(DefaultBodyLimit::max(BYTES))
        .with_state(service.clone())
        .merge(renewal.clone());
    let rim = Arc::new(Rim {
        doors,
        gateway,
        renewal,
        enrolment: enrol::enrolment(service.clone()),
        service,
        handshakes: Semaphore::new(HANDSHAKES),
        enrolments: Semaphore::new(ENROLMENTS),
    });
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = connections.clone().acquire_owned().await else { return };
        let (socket, from) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, mostly: others must end first.
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = stopped(&mut stop) => return,
        };
        let (rim, stop) = (rim.clone(), stop.clone());
        tokio::spawn(async move {
            rim.connection(socket, from, stop).await;
            drop(place);
        });
    }
}

/// Whether whoever shook hands has a certificate to show.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Enrolment,
    Gateways,
}

impl Rim {
    async fn connection(&self, socket: TcpStream, from: SocketAddr, stop: watch::Receiver<bool>) {
        let _ = socket.set_nodelay(true);
        // Before the handshake looks at the roll: what changes from here on is heard of.
        let rolls = self.service.rolls();
        let (door, stream) = match tokio::time::timeout(HANDSHAKE_TIME, self.shake(socket)).await {
            Ok(Ok(shaken)) => shaken,
            Ok(Err(error)) => {
                // What is no TLS error is a network that failed, or somebody who only looked.
                if let Some(rejected) = classify(&error) {
                    tracing::warn!(%from, %rejected, %error, "a handshake failed");
                    self.service.count_channel(rejected, None, clock::now()).await;
                }
                return;
            }
            Err(_) => {
                tracing::warn!(%from, "a handshake took too long");
                return self.service.count_channel(HANDSHAKE, None, clock::now()).await;
            }
        };
        if door == Door::Enrolment {
            let Ok(_place) = self.enrolments.try_acquire() else {
                tracing::warn!(%from, "too many ask for enrolment at a time");
                return;
            };
            let app = TowerToHyperService::new(self.enrolment.clone().layer(Extension(from.ip())));
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIME);
            let serving = builder.serve_connection(TokioIo::new(stream), app);
            let _ = tokio::time::timeout(ENROLMENT_LIFE, serving).await;
            return;
        }
        match prove_gateway(stream.get_ref().1, &self.service.roll.load(), clock::now()) {
            Ok(proven) => self.serve(stream, from, proven, rolls, stop).await,
            Err(rejected) => {
                tracing::warn!(%from, %rejected, "a gateway was refused");
                self.service.count_channel(rejected, None, clock::now()).await;
            }
        }
    }

    async fn shake(&self, socket: TcpStream) -> io::Result<(Door, TlsStream<TcpStream>)> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
        // What costs something. Who says nothing takes nobody's place, and who waits for one waits within the same time.
        let _turn = self.handshakes.acquire().await.map_err(io::Error::other)?;
        let (door, config) = match wants_enrolment(&start.client_hello()) {
            true => (Door::Enrolment, &self.doors.enrolment),
            false => (Door::Gateways, &self.doors.gateways),
        };
        Ok((door, start.into_stream(config.clone()).await?))
    }

    async fn serve(
        &self,
        stream: TlsStream<TcpStream>,
        from: SocketAddr,
        proven: Proven,
        mut rolls: watch::Receiver<u64>,
        mut stop: watch::Receiver<bool>,
    ) {
        let Proven { name, serial, not_after, may } = proven;
        let left = Duration::from_millis(not_after.0.saturating_sub(clock::now().0));
        let holder = Extension(Holder { name, serial: serial.clone() });
        let (app, life) = match may {
            May::Everything(gateway) => {
                tracing::info!(gateway = %name, %from, "connected");
                let known = Connection { gateway, pushed: Mutex::default(), parts: Mutex::default() };
                (self.gateway.clone().layer(Extension(Arc::new(known))), left.min(CONNECTION_LIFE))
            }
            May::Renew => {
                tracing::warn!(gateway = %name, %from, "connected to renew a certificate that has ended");
                (self.renewal.clone(), ENROLMENT_LIFE)
            }
        };
        let app = TowerToHyperService::new(app.layer(holder));
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIME);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(16).keep_alive_interval(Some(POLL));
        let serving = builder.serve_connection(TokioIo::new(stream), app);
        tokio::pin!(serving);
        let end_of_life = tokio::time::sleep(life);
        tokio::pin!(end_of_life);
        let mut ending = false;
        loop {
            // Nothing graceful: who is revoked is not heard to the end of the sentence.
            if !self.service.may_speak(&serial) {
                tracing::warn!(gateway = %name, "revoked: connection cut");
                return self.service.count_channel(CUT, Some(name), clock::now()).await;
            }
            tokio::select! {
                done = serving.as_mut() => {
                    if let Err(error) = done {
                        tracing::debug!(gateway = %name, error, "connection ended");
                    }
                    return;
                }
                changed = rolls.changed() => if changed.is_err() { return },
                () = &mut end_of_life, if !ending => {
                    ending = true;
                    serving.as_mut().graceful_shutdown();
                }
                () = stopped(&mut stop), if !ending => {
                    ending = true;
                    serving.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

async fn ingest(
    State(service): State<Arc<Service>>,
    Extension(connection): Extension<Arc<Connection>>,
    body: Bytes,
) -> Response {
    match service.ingest(&connection.gateway, &body, clock::now()).await {
        Ok(reply) => ([(header::CONTENT_TYPE, "application/cbor")], reply).into_response(),
        Err(IngestError::Refused(refused)) => {
            tracing::warn!(gateway = %connection.gateway.name(), rejected = %refused.rejected, "a batch was refused");
            (StatusCode::BAD_REQUEST, refused.rejected.to_string()).into_response()
        }
        // The log says so by itself, now and then.
        Err(IngestError::Full(_)) => {
            let why = "E4-04: there is no room; keep it and send it again";
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "60")], why).into_response()
        }
        Err(error @ (IngestError::Store(_) | IngestError::Unanswered)) => {
            tracing::error!(%error, "a batch could not be stored");
            (StatusCode::SERVICE_UNAVAILABLE, "not stored; send it again").into_response()
        }
    }
}

async fn downlink(State(service): State<Arc<Service>>, Extension(connection): Extension<Arc<Connection>>) -> Response {
    let (mut versions, mut generations) = (service.versions(), service.generations());
    let until = tokio::time::Instant::now() + POLL;
    loop {
        let (version, generation) = (*versions.borrow_and_update(), *generations.borrow_and_update());
        let next = connection.parts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(part) = next {
            let downlink =
                Downlink { kind: DownlinkKind::State, originator: None, bytes: &part, seq: None, expires: None };
            let mut out = vec![0; part.len() + 32];
            return match emit_downlinks(&[downlink], &mut out) {
                Ok(len) => {
                    out.truncate(len);
                    cbor(out)
                }
                Err(error) => {
                    tracing::error!(%error, "a downlink could not be written");
                    StatusCode::INTERNAL_SERVER_ERROR.into_response()
                }
            };
        }
        let due = connection.pushed().due(version, generation, tokio::time::Instant::now());
        if due == Due::Now {
            let began = tokio::time::Instant::now();
            let (service, name) = (service.clone(), connection.gateway.name());
            match tokio::task::spawn_blocking(move || service.push(name)).await {
                Ok(Ok(push)) => {
                    connection.pushed().took(version, generation, began, tokio::time::Instant::now());
                    let mut parts = connection.parts.lock().unwrap_or_else(PoisonError::into_inner);
                    // A newer state makes the rest of an older one useless.
                    *parts = push.parts.into();
                    continue;
                }
                Ok(Err(error)) => {
                    tracing::error!(gateway = %name, %error, "its state could not be built");
                    return (StatusCode::SERVICE_UNAVAILABLE, "try again later").into_response();
                }
                Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
        let wake = match due {
            Due::At(at) => at.min(until),
            Due::Now | Due::Unchanged => until,
        };
        let changed = async {
            tokio::select! {
                changed = versions.changed() => changed,
                // What changed already only waits for its time.
                changed = generations.changed(), if due == Due::Unchanged => changed,
            }
        };
        match tokio::time::timeout_at(wake, changed).await {
            Ok(Ok(())) => {}
            Err(_) if wake < until => {}
            Ok(Err(_)) | Err(_) => return cbor(vec![0x80]),
        }
    }
}

/// One message of a run of EDHOC. It is carried to its end also when the gateway hangs up.
async fn edhoc(
    State(service): State<Arc<Service>>,
    Extension(connection): Extension<Arc<Connection>>,
    body: Bytes,
) -> Response {
    let name = connection.gateway.name();
    let run = tokio::spawn(async move { service.exchange(&connection.gateway, &body, clock::now()).await });
    match run.await {
        Ok(Ok(reply)) => cbor(reply),
        Ok(Err(ExchangeError::Refused(refused))) => {
            tracing::warn!(gateway = %name, rejected = %refused.rejected, "a message of EDHOC was refused");
            (StatusCode::BAD_REQUEST, refused.rejected.to_string()).into_response()
        }
        Ok(Err(ExchangeError::Busy)) => (StatusCode::TOO_MANY_REQUESTS, "ask again").into_response(),
        Ok(Err(error)) => {
            tracing::error!(%error, "a run of EDHOC could not go on");
            (StatusCode::SERVICE_UNAVAILABLE, "nothing was agreed; ask again").into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn cbor(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/cbor")], body).into_response()
}
