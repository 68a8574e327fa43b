//! # Certificates of gateways, issued by the cloud
//!
//! | | |
//! |---|---|
//! | Key held by | the cloud: an issuing key that the operator's CA certified for gateways and nothing else |
//! | Hides       | nothing but the token, in TLS |
//! | Proves      | that whoever asks has a token of the operator's, or the certificate before, and the keys it asks for |
//! | Binds       | keys to the one gateway that token or certificate name |
//! | Drops as    | `E4-01`, each with its word ([`Refused`]) |
//! | Does not    | decide who may be certified: the registry does, in the transaction that enters the certificate |
//! | Spec        | docs/protocol.md 10.1 |

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::time::Millis;
use fivefold_keep::ca::Authority;
use fivefold_keep::enrol::{REQUEST_BYTES, Refused, Request, Token};
use fivefold_keep::registry::{By, IssuedTo, NotIssued, Registry, Word};
use fivefold_keep::tls::Serial;

use crate::api::Problem;
use crate::clock;
use crate::service::Service;

/// Wrong tokens that one address may show in a minute, and all addresses together.
const GUESSES: u32 = 10;
const GUESSES_OF_ALL: u32 = 100;
/// Addresses that are remembered, at most.
const ADDRESSES: usize = 4096;
const MINUTE: u64 = 60_000;

/// What issues certificates: the issuing key, if the operator gave the cloud one, and who guessed tokens.
#[derive(Debug, Default)]
pub struct Desk {
    issuing: ArcSwapOption<Authority>,
    ca: String,
    guesses: Mutex<Guesses>,
}

impl Desk {
    /// With the operator's CA (PEM), and an issuing key under it. Without one, every request is answered that the operator
    /// has to sign it.
    pub fn new(issuing: Option<Authority>, ca: String) -> Self {
        Self { issuing: ArcSwapOption::new(issuing.map(Arc::new)), ca, guesses: Mutex::default() }
    }

    /// From now on, this issuing key.
    pub fn replace_issuing(&self, issuing: Option<Authority>) {
        self.issuing.store(issuing.map(Arc::new));
    }

    /// When the issuing key's certificate ends, Unix seconds; `None` without one.
    pub fn issuing_ends(&self) -> Option<u64> {
        self.issuing.load().as_ref().map(|issuing| issuing.ends())
    }

    /// The operator's CA, PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// Enrols a gateway by its token. What is refused is counted by the caller.
    ///
    /// # Errors
    /// [`NotIssued`].
    fn enrol(
        &self,
        registry: &mut Registry,
        from: IpAddr,
        token: Option<&str>,
        body: &[u8],
        now: Millis,
    ) -> Result<String, NotIssued> {
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        if guesses.are_too_many(from, now) {
            return Err(Refused::TooMany.into());
        }
        drop(guesses);
        let enrolled = (|| {
            let token: Token = token.unwrap_or_default().parse().map_err(|_| Refused::TokenUnknown)?;
            // The token first: a stranger learns nothing of what a request must be.
            registry.may_enrol(&token, now.0 / 1000)?;
            let issuing = self.issuing()?;
            let issued = registry.enrol_gateway(&issuing, &token, &Request::parse(body)?, now.0 / 1000)?;
            Ok(registry.grant(&issued, &self.ca)?.emit())
        })();
        if let Err(NotIssued::Refused(Refused::TokenUnknown | Refused::TokenExpired | Refused::TokenUsed)) = enrolled {
            self.guesses.lock().unwrap_or_else(PoisonError::into_inner).count(from, now);
        }
        enrolled
    }

    fn renew(&self, registry: &mut Registry, serial: &Serial, body: &[u8], now: Millis) -> Result<IssuedTo, NotIssued> {
        let issuing = self.issuing()?;
        registry.renew_gateway(&issuing, serial, &Request::parse(body)?, now.0 / 1000)
    }

    /// Certifies gateways' keys for receipts that have no certificate yet, those of an earlier version, if there is an issuing
    /// key. Says how many.
    ///
    /// # Errors
    /// [`NotIssued`].
    pub fn certify_receipts(&self, registry: &mut Registry, now: Millis) -> Result<usize, NotIssued> {
        let Ok(issuing) = self.issuing() else { return Ok(0) };
        registry.certify_receipts(&issuing, Word { who: "cloud", at: now.0 / 1000 })
    }

    fn issuing(&self) -> Result<Arc<Authority>, NotIssued> {
        self.issuing.load_full().ok_or(NotIssued::NoIssuer)
    }
}

/// Wrong tokens of the last minutes, by address.
#[derive(Debug, Default)]
struct Guesses {
    by_address: HashMap<IpAddr, (Millis, u32)>,
    of_all: (Millis, u32),
}

impl Guesses {
    fn are_too_many(&mut self, from: IpAddr, now: Millis) -> bool {
        self.by_address.retain(|_, (since, _)| now.since(*since) < MINUTE);
        if now.since(self.of_all.0) >= MINUTE {
            self.of_all = (now, 0);
        }
        let own = self.by_address.get(&from).map_or(0, |(_, n)| *n);
        // A full table is an attack from many places: then nobody new is let in until it is over.
        let is_full = self.by_address.len() >= ADDRESSES && !self.by_address.contains_key(&from);
        own >= GUESSES || self.of_all.1 >= GUESSES_OF_ALL || is_full
    }

    fn count(&mut self, from: IpAddr, now: Millis) {
        self.by_address.entry(from).or_insert((now, 0)).1 += 1;
        self.of_all.1 += 1;
    }
}

/// Who asks for a next certificate: proven by the connection.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) name: GatewayName,
    pub(crate) serial: Serial,
}

/// The one route of a connection without a certificate.
pub(crate) fn enrolment(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/enrol", post(enrol))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES))
        .with_state(service)
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "unknown-path", "there is nothing here but POST /v1/enrol")
        })
}

/// Routes of a connection with a certificate that are about the certificate.
pub(crate) fn renewal(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/certificate", post(renew).get(hold))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES))
        .with_state(service)
}

async fn enrol(
    State(service): State<Arc<Service>>,
    Extension(from): Extension<IpAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let token = bearer.and_then(|v| v.strip_prefix("Bearer ")).map(|t| zeroize::Zeroizing::new(t.to_owned()));
    let named = token.as_ref().and_then(|t| t.parse::<Token>().ok()).map(|t| t.name());
    let now = clock::now();
    let asked = service.clone();
    let issued = tokio::task::spawn_blocking(move || {
        let mut registry = asked.open_registry(By::new("a gateway with its token", from, "cloud run", now.0 / 1000))?;
        asked.desk.enrol(&mut registry, from, token.as_ref().map(|t| t.as_str()), &body, now)
    });
    let grant = conclude(&service, issued.await, None, now).await;
    match grant {
        Ok(grant) => {
            tracing::info!(gateway = ?named.map(|n| n.to_string()), %from, "a gateway was enrolled");
            ([(header::CONTENT_TYPE, "application/toml")], grant).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

async fn renew(State(service): State<Arc<Service>>, Extension(holder): Extension<Holder>, body: Bytes) -> Response {
    let now = clock::now();
    let (asked, serial, gateway) = (service.clone(), holder.serial.clone(), holder.name);
    let issued = tokio::task::spawn_blocking(move || {
        let who = format_args!("gateway {gateway}").to_string();
        let by = By::new(who, format_args!("certificate {serial}"), "cloud run", now.0 / 1000);
        let mut registry = asked.open_registry(by)?;
        Ok(asked.desk.renew(&mut registry, &serial, &body, now)?.chain)
    });
    match conclude(&service, issued.await, Some(holder.name), now).await {
        Ok(chain) => {
            tracing::info!(gateway = %holder.name, "a gateway's certificate was renewed");
            ([(header::CONTENT_TYPE, "application/pem-certificate-chain")], chain).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

/// The connection stands: that is all there is to know.
async fn hold() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Counts what was refused, and lets everybody know of what was issued before it is handed out.
async fn conclude(
    service: &Arc<Service>,
    issued: Result<Result<String, NotIssued>, tokio::task::JoinError>,
    gateway: Option<GatewayName>,
    now: Millis,
) -> Result<String, Problem> {
    let failed = |private: String| Problem::failed("registry", "the registry cannot answer now; try again", private);
    match issued.map_err(|e| failed(e.to_string()))? {
        Ok(text) => {
            // The new certificate must count, and its key for receipts, before its owner has it.
            let refreshed = service.clone();
            match tokio::task::spawn_blocking(move || refreshed.refresh(now)).await {
                Ok(Ok(())) => Ok(text),
                Ok(Err(e)) => Err(failed(e.to_string())),
                Err(e) => Err(failed(e.to_string())),
            }
        }
        Err(NotIssued::Refused(refused)) => {
            tracing::warn!(gateway = ?gateway.map(|g| g.to_string()), %refused, "no certificate");
            service.count_channel(refused.rejected(), gateway, now).await;
            Err(Problem::new(status(refused), refused.word(), refused.reason()))
        }
        Err(NotIssued::NoIssuer) => Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no-issuer",
            "this cloud issues no certificates: the operator signs them (fivefold gateway sign)",
        )),
        Err(other) => Err(failed(other.to_string())),
    }
}

const fn status(refused: Refused) -> StatusCode {
    match refused {
        Refused::KeyKind | Refused::Malformed | Refused::Signature => StatusCode::BAD_REQUEST,
        Refused::TokenUnknown => StatusCode::UNAUTHORIZED,
        Refused::Gateway | Refused::Name | Refused::TokenExpired | Refused::TokenUsed => StatusCode::FORBIDDEN,
        Refused::KeyUsed => StatusCode::CONFLICT,
        Refused::TooMany => StatusCode::TOO_MANY_REQUESTS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const NOW: Millis = Millis(1_790_000_000_000);

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from(n))
    }

    #[test]
    fn ten_wrong_tokens_a_minute_are_all_that_an_address_has() {
        let mut guesses = Guesses::default();
        for n in 0..u64::from(GUESSES) {
            assert!(!guesses.are_too_many(address(1), NOW.plus(n)), "{n}");
            guesses.count(address(1), NOW.plus(n));
        }
        assert!(guesses.are_too_many(address(1), NOW.plus(100)));
        assert!(!guesses.are_too_many(address(2), NOW.plus(100)), "others are not held up");
        assert!(!guesses.are_too_many(address(1), NOW.plus(MINUTE)), "a minute later");
    }

    #[test]
    fn guessing_from_many_addresses_is_stopped_as_a_whole_and_its_memory_is_bounded() {
        let mut guesses = Guesses::default();
        for n in 0..GUESSES_OF_ALL {
            assert!(!guesses.are_too_many(address(n), NOW));
            guesses.count(address(n), NOW);
        }
        assert!(guesses.are_too_many(address(9999), NOW));
        assert!(!guesses.are_too_many(address(9999), NOW.plus(MINUTE)));
        assert!(guesses.by_address.is_empty(), "old ones are forgotten");
        for n in 0..ADDRESSES as u32 {
            guesses.by_address.insert(address(n), (NOW, 1));
        }
        assert!(guesses.are_too_many(address(100_000), NOW.plus(1)));
        assert!(!guesses.are_too_many(address(1), NOW.plus(1)));
    }

    #[test]
    fn every_refusal_is_the_askers_fault() {
        assert!(Refused::ALL.iter().all(|r| status(*r).is_client_error()));
    }
}
