//! # E4 at the gateway: batches up, downlinks down
//!
//! | | |
//! |---|---|
//! | Key held by | this gateway: its TLS key and the key for receipts ([`Credentials`]) |
//! | Hides       | batches and downlinks, from everybody between gateway and cloud |
//! | Proves      | to the cloud which gateway speaks, and what it sent in which order (receipt) |
//! | Binds       | the gateway's name and network; each batch by a signed Merkle root |
//! | Drops as    | `E4-01`, `E4-07` what is not the operator's cloud; `E4-05` while it is away |
//! | Does not    | delete anything before the cloud has it durable (W8) |
//! | Spec        | docs/protocol.md 10 |

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fivefold_core::error::Rejected;
use fivefold_core::id::GatewayId;
use fivefold_core::proof::receipt::{GatewayBoot, Receipt, Tally};
use fivefold_core::wire::envelope::{BYTES, Envelope};
use fivefold_keep::tls::{
    Anchor, Groups, Identity, LiveIdentity, LiveRevoked, Revoked, TlsError, classify, client_config_e4, refuses_us,
};
use rustls::ClientConfig;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::certificate::{Answer, Desk};
use crate::credentials::Credentials;
use crate::join::Problem;
use crate::spool::{SpoolReader, StoredBatch};

/// Room for the receipt in a batch.
const RECEIPT_ROOM: usize = 512;
/// Pauses between attempts while the cloud is away.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a batch, and a long poll, may take.
const BATCH_TIME: Duration = Duration::from_secs(30);
const POLL_TIME: Duration = Duration::from_secs(60);
/// Messages of EDHOC that are with the cloud at a time, and for how long.
const EXCHANGES: usize = 16;
const EXCHANGE_TIME: Duration = Duration::from_secs(20);
/// Largest reply that is read.
const REPLY: usize = 16 << 20;

/// What the uplink tells the engine.
#[derive(Debug)]
pub enum FromCloud {
    /// The last exchange failed; with the code of a refused handshake, if it was one.
    Away(Option<Rejected>, String),
    /// An array of downlinks.
    Downlinks(Vec<u8>),
    /// What became of a message of EDHOC: the reply, if there was one.
    Exchanged(u64, Option<Vec<u8>>),
    /// The last exchange worked.
    Reachable,
    /// The reply to a batch of one run.
    Reply(GatewayBoot, Vec<u8>),
}

/// How the cloud is reached.
#[derive(Debug)]
pub struct Way {
    /// Where it is.
    pub cloud: String,
    /// The operator's CA.
    pub anchor: Anchor,
    /// Which key exchange is taken.
    pub groups: Groups,
    /// Certificates of the cloud that are not trusted any more.
    pub revoked: Arc<LiveRevoked>,
}

impl Way {
    fn tls(&self, identity: &LiveIdentity) -> Result<ClientConfig, TlsError> {
        client_config_e4(identity, &self.anchor, self.revoked.clone(), self.groups)
    }

    fn client(&self, identity: &LiveIdentity) -> Result<reqwest::Client, WayError> {
        Ok(reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls(identity)?)
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(Duration::from_secs(90))
            .tcp_nodelay(true)
            .build()?)
    }
}

/// Why no way to the cloud can be set up.
#[derive(Debug, thiserror::Error)]
pub enum WayError {
    /// TLS cannot.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP client cannot.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
}

/// Where the cloud is and who we are.
pub struct Uplink {
    client: ArcSwap<reqwest::Client>,
    way: Way,
    gateway: GatewayId,
    credentials: Arc<Credentials>,
    events: mpsc::Sender<FromCloud>,
    /// The long poll works again: what waits in a pause tries at once.
    back: Notify,
    /// Counts the times that everything open was cut.
    cuts: watch::Sender<u64>,
}

/// What one exchange came to.
enum Exchange {
    Done(Vec<u8>),
    /// The cloud does not take it as it is: sending it again changes nothing, and is all there is to do.
    Refused(String),
    Away(Option<Rejected>, String),
}

impl Uplink {
    /// On this way, under these credentials.
    ///
    /// # Errors
    /// When TLS or the HTTP client cannot be set up.
    pub fn new(
        way: Way,
        gateway: GatewayId,
        credentials: Arc<Credentials>,
        events: mpsc::Sender<FromCloud>,
    ) -> Result<Self, WayError> {
        let client = ArcSwap::from_pointee(way.client(credentials.identity())?);
        let (back, cuts) = (Notify::new(), watch::Sender::new(0));
        Ok(Self { client, way, gateway, credentials, events, back, cuts })
    }

    /// Certificates of the cloud that count for nothing from now on. What is open is cut, since it may be with one of them.
    pub fn revoke(&self, revoked: Revoked) {
        if **self.way.revoked.load() == revoked {
            return;
        }
        tracing::warn!(certificates = revoked.len(), "the cloud revoked certificates of its own: connecting anew");
        self.way.revoked.store(Arc::new(revoked));
        match self.way.client(self.credentials.identity()) {
            Ok(client) => self.client.store(Arc::new(client)),
            Err(error) => tracing::error!(%error, "no new connection can be set up"),
        }
        self.cuts.send_modify(|n| *n += 1);
    }

    /// One exchange, unless everything open is cut before it ends.
    async fn carry(&self, request: impl FnOnce(&reqwest::Client) -> reqwest::RequestBuilder) -> Exchange {
        let mut cuts = self.cuts.subscribe();
        let request = request(&self.client.load());
        tokio::select! {
            done = exchange(request) => done,
            _ = cuts.changed() => Exchange::Away(None, "the cloud's certificate was revoked: connection cut".into()),
        }
    }

    /// Sends what is in the store, the oldest first, one batch at a time, until told to stop. `stored` tells that
    /// something was written or deleted.
    pub async fn drain(&self, reader: SpoolReader, mut stored: watch::Receiver<u64>) {
        let reader = std::sync::Arc::new(std::sync::Mutex::new(reader));
        let mut pause = FIRST_PAUSE;
        loop {
            stored.borrow_and_update();
            let from = reader.clone();
            let batch = tokio::task::spawn_blocking(move || {
                let reader = from.lock().map_err(|_| "the store's reader is gone".to_owned())?;
                reader
                    .batch(0, fivefold_core::wire::envelope::ENVELOPES, BYTES - RECEIPT_ROOM)
                    .map_err(|e| e.to_string())
            });
            let batch = match batch.await {
                Ok(Ok(batch)) => batch,
                Ok(Err(why)) => {
                    tracing::error!("{why}");
                    tokio::time::sleep(pause).await;
                    continue;
                }
                Err(_) => return,
            };
            let Some(batch) = batch else {
                if stored.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let boot = batch.boot;
            let upto = batch.envelopes.last().map_or(0, |(seq, _)| *seq);
            let body = match self.body(&batch) {
                Ok(body) => body,
                Err(why) => {
                    tracing::error!("no receipt can be signed: {why}");
                    tokio::time::sleep(LONGEST_PAUSE).await;
                    continue;
                }
            };
            match self.post(body).await {
                Exchange::Done(reply) => {
                    pause = FIRST_PAUSE;
                    if self.events.send(FromCloud::Reachable).await.is_err()
                        || self.events.send(FromCloud::Reply(boot, reply)).await.is_err()
                    {
                        return;
                    }
                    // The engine deletes; what is read before that would be sent twice.
                    while reader_has(&reader, upto).await {
                        if tokio::time::timeout(Duration::from_secs(1), stored.changed())
                            .await
                            .is_ok_and(|c| c.is_err())
                        {
                            return;
                        }
                    }
                }
                Exchange::Refused(why) | Exchange::Away(_, why) if self.events.is_closed() => {
                    tracing::debug!("{why}");
                    return;
                }
                Exchange::Refused(why) => {
                    tracing::error!("the cloud does not take a batch: {why}");
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Exchange::Away(code, why) => {
                    let _ = self.events.send(FromCloud::Away(code, why)).await;
                    let _ = tokio::time::timeout(jittered(pause), self.back.notified()).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Posts messages of EDHOC, a few at a time, until nobody has any more. What fails is not tried again: the device does.
    pub async fn exchange(self: &Arc<Self>, mut asked: mpsc::Receiver<(u64, Box<[u8]>)>) {
        let places = Arc::new(Semaphore::new(EXCHANGES));
        while let Some((ticket, envelope)) = asked.recv().await {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let uplink = self.clone();
            tokio::spawn(async move {
                let url = format!("{}/v1/edhoc", uplink.way.cloud);
                let post = |client: &reqwest::Client| {
                    client
                        .post(url)
                        .header("Content-Type", "application/cbor")
                        .timeout(EXCHANGE_TIME)
                        .body(envelope.into_vec())
                };
                let reply = match uplink.carry(post).await {
                    Exchange::Done(reply) => Some(reply),
                    Exchange::Refused(why) | Exchange::Away(_, why) => {
                        tracing::debug!("a message of EDHOC has no answer: {why}");
                        None
                    }
                };
                drop(place);
                let _ = uplink.events.send(FromCloud::Exchanged(ticket, reply)).await;
            });
        }
    }

    /// Waits for downlinks, for ever.
    pub async fn listen(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let url = format!("{}/v1/downlink", self.way.cloud);
            match self.carry(|client| client.get(url).timeout(POLL_TIME)).await {
                Exchange::Done(downlinks) => {
                    pause = FIRST_PAUSE;
                    self.back.notify_waiters();
                    if self.events.send(FromCloud::Reachable).await.is_err() {
                        return;
                    }
                    if !downlinks.is_empty() && self.events.send(FromCloud::Downlinks(downlinks)).await.is_err() {
                        return;
                    }
                }
                Exchange::Refused(why) => {
                    tracing::warn!("no downlinks: {why}");
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Exchange::Away(code, why) => {
                    if self.events.send(FromCloud::Away(code, why)).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// A batch: its envelopes, and the receipt over them.
    fn body(&self, batch: &StoredBatch) -> Result<Vec<u8>, String> {
        let mut tally = Tally::new(self.gateway, batch.boot);
        let size: usize = batch.envelopes.iter().map(|(_, e)| e.len()).sum();
        let mut body = Vec::with_capacity(size + RECEIPT_ROOM);
        for (seq, bytes) in &batch.envelopes {
            let envelope = Envelope::parse(bytes).map_err(|m| format!("envelope {seq} in the store: {}", m.reason))?;
            tally.add(bytes, &envelope);
            body.extend_from_slice(bytes);
        }
        let mut receipt = [0; Receipt::LONGEST];
        let len = tally.receipt().seal(&*self.credentials.signing(), &mut receipt).map_err(|e| e.to_string())?;
        body.extend_from_slice(receipt.get(..len).unwrap_or_default());
        Ok(body)
    }

    async fn post(&self, body: Vec<u8>) -> Exchange {
        let url = format!("{}/v1/ingest", self.way.cloud);
        let post = |client: &reqwest::Client| {
            client
                .post(url)
                .header("Batch-Id", uuid())
                .header("Content-Type", "application/cbor-seq")
                .timeout(BATCH_TIME)
                .body(body)
        };
        self.carry(post).await
    }
}

/// Certificates are asked for over connections of their own, so that it is certain which one was shown.
impl Desk for &Uplink {
    async fn ask(&self, identity: &Identity, request: String) -> Answer<String> {
        let url = format!("{}/v1/certificate", self.way.cloud);
        let post =
            |client: reqwest::Client| client.post(url).header("Content-Type", "application/x-pem-file").body(request);
        match self.about_certificate(identity, post).await {
            Answer::Done(chain) => match String::from_utf8(chain) {
                Ok(chain) => Answer::Done(chain),
                Err(_) => Answer::Away(None, "its certificate is no text".into()),
            },
            Answer::Refused(word, rejected, why) => Answer::Refused(word, rejected, why),
            Answer::Away(rejected, why) => Answer::Away(rejected, why),
        }
    }

    async fn greet(&self, identity: &Identity) -> Answer<()> {
        let url = format!("{}/v1/certificate", self.way.cloud);
        match self.about_certificate(identity, |client| client.get(url)).await {
            Answer::Done(_) => Answer::Done(()),
            Answer::Refused(word, rejected, why) => Answer::Refused(word, rejected, why),
            Answer::Away(rejected, why) => Answer::Away(rejected, why),
        }
    }
}

impl Uplink {
    async fn about_certificate(
        &self,
        identity: &Identity,
        request: impl FnOnce(reqwest::Client) -> reqwest::RequestBuilder,
    ) -> Answer<Vec<u8>> {
        let client = match self.way.client(&LiveIdentity::new(identity.clone())) {
            Ok(client) => client,
            Err(error) => return Answer::Away(None, error.to_string()),
        };
        let sent = request(client).timeout(BATCH_TIME).send().await;
        let response = match sent {
            Ok(response) => response,
            Err(e) => {
                return match classify(&e) {
                    Some(rejected) if refuses_us(&rejected) => Answer::Refused(None, Some(rejected), chain(&e)),
                    rejected => Answer::Away(rejected, chain(&e)),
                };
            }
        };
        let status = response.status().as_u16();
        let body = match read(response).await {
            Ok(body) => body,
            Err(why) => return Answer::Away(None, why),
        };
        match status {
            200 | 204 => Answer::Done(body),
            400..=499 => match Problem::of(&body) {
                Some(problem) => Answer::Refused(Some(problem.code), None, problem.public),
                None => Answer::Away(None, format!("it says {status}")),
            },
            _ => Answer::Away(None, Problem::of(&body).map_or_else(|| format!("it says {status}"), |p| p.public)),
        }
    }
}

impl std::fmt::Debug for Uplink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uplink").field("cloud", &self.way.cloud).finish_non_exhaustive()
    }
}

async fn reader_has(reader: &std::sync::Arc<std::sync::Mutex<SpoolReader>>, upto: u64) -> bool {
    let reader = reader.clone();
    let first = tokio::task::spawn_blocking(move || {
        let reader = reader.lock().ok()?;
        let batch = reader.batch(0, 1, 1).ok()??;
        batch.envelopes.first().map(|(seq, _)| *seq)
    });
    matches!(first.await, Ok(Some(first)) if first <= upto)
}

async fn exchange(request: reqwest::RequestBuilder) -> Exchange {
    let response = match request.send().await {
        Ok(response) => response,
        Err(e) => return Exchange::Away(classify(&e), chain(&e)),
    };
    let status = response.status();
    let body = match read(response).await {
        Ok(body) => body,
        Err(why) => return Exchange::Away(None, why),
    };
    match status.as_u16() {
        200 => Exchange::Done(body),
        204 => Exchange::Done(Vec::new()),
        429 | 500..=599 => Exchange::Away(None, format!("it says {status}")),
        _ => Exchange::Refused(format!(
            "it says {status}: {}",
            String::from_utf8_lossy(&body).chars().take(200).collect::<String>()
        )),
    }
}

/// The body of a response, if it is no longer than a gateway reads.
async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| chain(&e))? {
        if body.len() + chunk.len() > REPLY {
            return Err("its reply is longer than this gateway reads".into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Between half of a pause and all of it, so that gateways do not come back all at once.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    pause / 2 + pause / 2 * u32::from(byte[0]) / 255
}

/// A random UUID (version 4) in text.
fn uuid() -> String {
    let mut bytes = [0; 16];
    let _ = getrandom::fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}
