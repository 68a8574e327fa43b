//! The door of the API: which token may ask what, until when, and when each was used last.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_keep::registry::{By, Scope, Token};

use super::Problem;
use crate::clock;
use crate::service::Service;
use crate::store::{Ledger as _, TokenUse, Write};

/// Every route of the API, and what a token must be for to ask it. There is no default: what does not stand here is answered to
/// nobody. What is asked by POST changes something, leaves a line in the operator's log, and is for nobody below `operate`; a head
/// of the log, which the log itself tells of, is the one that leaves none.
pub(super) const ROUTES: &[(Method, &str, Scope)] = &[
    (Method::GET, "/v1/alarms", Scope::Read),
    (Method::GET, "/v1/classic/unknown", Scope::Read),
    (Method::GET, "/v1/devices", Scope::Read),
    (Method::GET, "/v1/devices/{did}", Scope::Read),
    (Method::GET, "/v1/gateways", Scope::Read),
    (Method::GET, "/v1/health", Scope::Read),
    (Method::GET, "/v1/metrics", Scope::Read),
    (Method::GET, "/v1/networks/{net}/rotation", Scope::Read),
    (Method::GET, "/v1/outbox", Scope::Read),
    (Method::GET, "/v1/readings", Scope::Read),
    (Method::GET, "/v1/readings/imported", Scope::Read),
    (Method::GET, "/v1/readings/stream", Scope::Read),
    (Method::GET, "/v1/rejections", Scope::Read),
    (Method::GET, "/v1/audit", Scope::Audit),
    (Method::GET, "/v1/evidence", Scope::Audit),
    (Method::GET, "/v1/log", Scope::Audit),
    (Method::GET, "/v1/outbox/{name}/dead", Scope::Audit),
    (Method::GET, "/v1/quarantine", Scope::Audit),
    (Method::GET, "/v1/tokens", Scope::Audit),
    (Method::GET, "/v1/why", Scope::Audit),
    (Method::POST, "/v1/devices/{did}/commands", Scope::Operate),
    (Method::POST, "/v1/log/checkpoint", Scope::Operate),
    (Method::POST, "/v1/outbox/{name}/pause", Scope::Operate),
    (Method::POST, "/v1/outbox/{name}/resend", Scope::Operate),
    (Method::POST, "/v1/outbox/{name}/resume", Scope::Operate),
    (Method::POST, "/v1/tokens/{name}/revoke", Scope::Admin),
];

/// What a token must be for. Who may read a page may ask for its head.
fn needed(method: &Method, path: &str) -> Option<Scope> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    ROUTES.iter().find(|(m, p, _)| m == method && *p == path).map(|(_, _, scope)| *scope)
}

/// How often it is written that a token is used, in milliseconds.
const WRITTEN: u64 = 60_000;
/// How often at least a stream looks whether its token is still good.
const LOOK: Duration = Duration::from_secs(15);

/// What a request says before it is let in.
struct Asked {
    // SHA-256 of the token that it shows.
    token: Option<[u8; 32]>,
    needs: Option<Scope>,
    from: Option<IpAddr>,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let shown = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let bearer = shown.and_then(|v| v.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        Self {
            token: bearer.map(|(_, token)| sha256(&[token.trim().as_bytes()])),
            needs: needed(request.method(), path),
            from: request.extensions().get::<SocketAddr>().map(SocketAddr::ip),
        }
    }
}

/// The door.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    service: Arc<Service>,
    // When it was written last that a token is used, by its hash. Only tokens of the book come in.
    written: Arc<Mutex<HashMap<[u8; 32], Millis>>>,
}

impl Gate {
    pub(super) fn new(service: Arc<Service>) -> Self {
        Self { service, written: Arc::default() }
    }

    async fn let_in(&self, asked: Asked) -> Result<Asker, Problem> {
        let refused = |code, public: String| Problem::new(StatusCode::UNAUTHORIZED, code, public);
        let Some(hash) = asked.token else {
            let public = "a token is needed: Authorization: Bearer TOKEN (made by: fivefold token add NAME)";
            return Err(refused("token-missing", public.into()));
        };
        let mut known = known(&self.service, &hash);
        if known.is_none() {
            // It may be so new that the registry was not looked at since.
            let at = self.service.clone();
            let refreshed = tokio::task::spawn_blocking(move || at.refresh(clock::now())).await;
            known = if matches!(refreshed, Ok(Ok(()))) { self::known(&self.service, &hash) } else { None };
        }
        let token = known.ok_or_else(|| refused("token-refused", "this token is not known here, or revoked".into()))?;
        let now = clock::now();
        if token.has_ended(now.0 / 1000) {
            let day = day(token.ends_at.unwrap_or_default());
            let public = format!("this token ended on {day}; make another: fivefold token add NAME");
            return Err(refused("token-ended", public));
        }
        let Some(needed) = asked.needs else {
            const NONE: &str = "this path is not asked by this method; see /openapi.json";
            return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no-method", NONE));
        };
        let is = token.scope;
        if !is.allows(needed) {
            let add = format!("fivefold token add NAME --scope {needed}");
            let public = format!("this needs {needed}, and the token is for {is}; make another: {add}");
            return Err(Problem::new(StatusCode::FORBIDDEN, "token-scope", public));
        }
        let asker = Asker { name: token.name, hash, from: asked.from };
        self.used(&asker, now).await;
        Ok(asker)
    }

    /// Writes that a token is used, at most once a minute, before what it asked is answered.
    async fn used(&self, asker: &Asker, now: Millis) {
        {
            let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
            if written.get(&asker.hash).is_some_and(|at| at.0.abs_diff(now.0) < WRITTEN) {
                return;
            }
            written.insert(asker.hash, now);
        }
        let token_use = TokenUse { hash: asker.hash, at: now, place: asker.place() };
        let write = Write { now, token_uses: vec![token_use], ..Write::default() };
        // A store that takes nothing can still be read.
        if let Err(error) = self.service.cloud.memory().commit(Arc::new(write)).await {
            tracing::error!(%error, token = asker.name, "the use of a token could not be written");
        }
    }
}

/// Lets through whose token is good for what is asked.
pub(super) async fn need_token(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    match gate.let_in(Asked::of(&request)).await {
        Ok(asker) => {
            request.extensions_mut().insert(asker);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// Who asks: the name of a token, and the address that it came from.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    name: String,
    hash: [u8; 32],
    from: Option<IpAddr>,
}

impl Asker {
    fn place(&self) -> String {
        self.from.map_or_else(|| "an unknown address".to_owned(), |from| from.to_string())
    }

    /// For the operator's log.
    pub(super) fn by(&self, now: Millis) -> By {
        By::new(format_args!("token {}", self.name), self.place(), "cloud run", now.0 / 1000)
    }

    /// Waits until the token is good no more: at its end, or when it is revoked.
    pub(super) async fn is_gone(&self, service: &Service) {
        let mut versions = service.versions();
        loop {
            let now = clock::now();
            let Some(token) = known(service, &self.hash).filter(|t| !t.has_ended(now.0 / 1000)) else { return };
            let left = |end: u64| Duration::from_millis(Millis(end.saturating_mul(1000)).since(now));
            let wait = token.ends_at.map_or(LOOK, |end| left(end).min(LOOK));
            if let Ok(Err(_)) = tokio::time::timeout(wait, versions.changed()).await {
                return;
            }
        }
    }
}

/// The token with this hash, if the operator made one. All are compared, so that time says nothing about which.
fn known(service: &Service, hash: &[u8; 32]) -> Option<Token> {
    let book = service.cloud.book();
    let is_it = |t: &&Token| verify_slices_are_equal(&t.hash, hash).is_ok();
    book.tokens.iter().fold(None, |known, t| if is_it(&t) { Some(t) } else { known }).cloned()
}

/// A day in UTC, as people write it.
fn day(unix_s: u64) -> String {
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days; days since 0000-03-01.
    let days = unix_s / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::routes;

    #[test]
    fn every_route_that_is_described_has_one_scope_and_every_scope_a_route() {
        let (_, api) = routes();
        let json: serde_json::Value = serde_json::from_str(&api.to_json().unwrap()).unwrap();
        let described = json["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(|method| format!("{} {path}", method.to_uppercase())).collect::<Vec<_>>()
        });
        let mut described: Vec<String> = described.collect();
        let mut table: Vec<String> = ROUTES.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
        described.sort();
        table.sort();
        assert_eq!(described, table);
        table.dedup();
        assert_eq!(table.len(), ROUTES.len(), "two scopes for one route");
        for scope in Scope::ALL {
            assert!(ROUTES.iter().any(|(.., s)| *s == scope), "{scope}");
        }
        for (method, path, scope) in ROUTES {
            assert!(*method == Method::GET || *scope >= Scope::Operate, "{method} {path}");
        }
    }

    #[test]
    fn what_does_not_stand_in_the_table_needs_what_nobody_has() {
        assert_eq!(needed(&Method::HEAD, "/v1/log"), Some(Scope::Audit));
        for (method, path) in [(Method::POST, "/v1/readings"), (Method::GET, ""), (Method::DELETE, "/v1/devices/{did}")]
        {
            assert_eq!(needed(&method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn a_day_is_written_as_people_do() {
        for (unix_s, text) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_798_761_599, "2026-12-31"),
            (1_798_761_600, "2027-01-01"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(day(unix_s), text);
        }
    }
}
