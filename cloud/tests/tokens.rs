//! Who may ask what of the API, until when, and what stays of it; and whether the cloud says in a word that it can work.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use fivefold_cloud::api::app;
use fivefold_cloud::clock;
use fivefold_cloud::cloud::RenewalSettings;
use fivefold_cloud::health::Ready;
use fivefold_cloud::service::Service;
use fivefold_cloud::store::Store;
use fivefold_core::time::Millis;
use fivefold_keep::ca::{Authority, Role};
use fivefold_keep::registry::{By, Registry, Scope};
use fivefold_keep::tls::{Identity, LiveIdentity};
use fivefold_keep::vault::Vault;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

/// What each scope does beyond those before it.
const ALLOWED: [(Scope, &[&str]); 4] = [
    (
        Scope::Read,
        &[
            "GET /v1/alarms",
            "GET /v1/classic/unknown",
            "GET /v1/devices",
            "GET /v1/devices/{did}",
            "GET /v1/gateways",
            "GET /v1/health",
            "GET /v1/metrics",
            "GET /v1/networks/{net}/rotation",
            "GET /v1/outbox",
            "GET /v1/readings",
            "GET /v1/readings/imported",
            "GET /v1/readings/stream",
            "GET /v1/rejections",
        ],
    ),
    (
        Scope::Audit,
        &[
            "GET /v1/audit",
            "GET /v1/evidence",
            "GET /v1/log",
            "GET /v1/outbox/{name}/dead",
            "GET /v1/quarantine",
            "GET /v1/tokens",
            "GET /v1/why",
        ],
    ),
    (
        Scope::Operate,
        &[
            "POST /v1/devices/{did}/commands",
            "POST /v1/log/checkpoint",
            "POST /v1/outbox/{name}/pause",
            "POST /v1/outbox/{name}/resend",
            "POST /v1/outbox/{name}/resume",
        ],
    ),
    (Scope::Admin, &["POST /v1/tokens/{name}/revoke"]),
];

struct Site {
    folder: TempDir,
    service: Arc<Service>,
}

fn by() -> By {
    By::new("anna", "pts/1", "token add", 1)
}

fn now() -> u64 {
    clock::now().0 / 1000
}

impl Site {
    fn new() -> Self {
        Self::with(|service| service)
    }

    fn with(more: impl FnOnce(Service) -> Service) -> Self {
        Self::on(|_| {}, more)
    }

    /// With a book that something was done to before the cloud opens it.
    fn on(before: impl FnOnce(&Path), more: impl FnOnce(Service) -> Service) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Arc::new(Vault::create(folder.path()).unwrap());
        drop(Registry::create(&folder.path().join("registry.db"), by()).unwrap());
        before(&folder.path().join("registry.db"));
        let store = Store::open(&folder.path().join("readings.db")).unwrap();
        let book = folder.path().join("registry.db");
        // It waits for its store, as no thread of a runtime may.
        let open = || Service::open(store, book, vault, RenewalSettings::default(), clock::now()).unwrap();
        let service = std::thread::scope(|s| s.spawn(open).join().unwrap());
        Self { folder, service: Arc::new(more(service)) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn book(&self) -> Registry {
        Registry::open(&self.path("registry.db"), by()).unwrap()
    }

    fn token(&self, name: &str, scope: Scope, ends: u64) -> String {
        self.book().add_token(name, scope, ends, ends.min(now()) - 1).unwrap().to_string()
    }

    /// The API as an address that never asked before finds it.
    fn app(&self) -> Router {
        app(self.service.clone(), Path::new("no such file"))
    }

    async fn ask(&self, route: &str, token: Option<&str>) -> (u16, Value) {
        ask(&self.app(), route, token).await
    }
}

fn request(route: &str, token: Option<&str>) -> Request<Body> {
    let (method, path) = route.split_once(' ').unwrap();
    let path = path.replace("{did}", "acde480000000001").replace("{net}", "00000001").replace("{name}", "nobody");
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let request = token.iter().fold(request, |r, token| r.header("authorization", format!("Bearer {token}")));
    request.body(Body::from(if method == "POST" { "{\"op\": 7}" } else { "" })).unwrap()
}

/// Status and body of an answer that ends.
async fn ask(app: &Router, route: &str, token: Option<&str>) -> (u16, Value) {
    let answer = TowerToHyperService::new(app.clone()).call(request(route, token)).await.unwrap();
    let status = answer.status().as_u16();
    let body = match status {
        // A stream does not end.
        200 => Value::Null,
        _ => {
            let bytes = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
            serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8(bytes.into()).unwrap().into())
        }
    };
    (status, body)
}

async fn word(app: &Router, path: &str) -> (u16, String) {
    let answer = TowerToHyperService::new(app.clone()).call(request(&format!("GET {path}"), None)).await.unwrap();
    let status = answer.status().as_u16();
    (status, String::from_utf8(to_bytes(answer.into_body(), 64).await.unwrap().into()).unwrap())
}

#[tokio::test]
async fn each_route_is_answered_to_those_whom_it_is_for_and_every_other_is_told_what_to_type() {
    let site = Site::new();
    let document = fivefold_cloud::api::routes().1.to_json().unwrap();
    let described: Value = serde_json::from_str(&document).unwrap();
    let paths = described["paths"].as_object().unwrap().iter();
    let described = paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys();
        methods.map(|m| format!("{} {path}", m.to_uppercase())).collect::<Vec<_>>()
    });
    let mut all: Vec<String> = described.collect();
    let year = now() + 365 * 86_400;
    let tokens = Scope::ALL.map(|scope| (scope, site.token(scope.as_str(), scope, year)));
    let ended = site.token("ended", Scope::Admin, now());
    let gone = site.token("gone", Scope::Admin, year);
    site.book().revoke_token("gone", now()).unwrap();
    for (needed, routes) in ALLOWED {
        for route in routes {
            let at = all.iter().position(|r| r == route).unwrap_or_else(|| panic!("{route} is not described"));
            all.swap_remove(at);
            for (scope, token) in &tokens {
                let (status, said) = site.ask(route, Some(token)).await;
                if *scope >= needed {
                    assert!(!matches!(status, 401 | 403 | 405), "{route} by {scope}: {status} {said}");
                } else {
                    assert_eq!((status, said["code"].as_str()), (403, Some("token-scope")), "{route} by {scope}");
                    let public = said["public"].as_str().unwrap();
                    assert!(public.contains(&format!("fivefold token add NAME --scope {needed}")), "{public}");
                    assert!(public.contains(&format!("the token is for {scope}")), "{public}");
                }
            }
            for (token, code) in [
                (Some(&ended), "token-ended"),
                (Some(&gone), "token-refused"),
                (Some(&"x".to_owned()), "token-refused"),
                (None, "token-missing"),
            ] {
                let (status, said) = site.ask(route, token.map(String::as_str)).await;
                assert_eq!((status, said["code"].as_str()), (401, Some(code)), "{route}");
                let public = said["public"].as_str().unwrap();
                assert!(!public.contains('\n') && (code == "token-refused" || public.contains("fivefold token add")));
            }
        }
    }
    assert!(all.is_empty(), "for whom are these? {all:?}");
    // Nobody asks a path in another way than the described ones.
    let (_, admin) = &tokens[3];
    for route in ["DELETE /v1/devices/{did}", "POST /v1/readings", "PUT /v1/tokens/{name}/revoke"] {
        let (status, said) = site.ask(route, Some(admin)).await;
        assert_eq!((status, said["code"].as_str()), (405, Some("no-method")), "{route}");
    }
    assert_eq!(site.ask("HEAD /v1/readings", Some(&tokens[0].1)).await.0, 200);
    assert_eq!(site.ask("HEAD /v1/log", Some(&tokens[0].1)).await.0, 403);
}

#[tokio::test]
async fn what_is_followed_ends_when_its_token_does_or_is_revoked() {
    let site = Site::new();
    let (short, long) = (site.token("short", Scope::Read, now() + 2), site.token("long", Scope::Read, now() + 9_000));
    let app = site.app();
    let follow = |token: String| {
        let app = TowerToHyperService::new(app.clone());
        async move {
            let answer = app.call(request("GET /v1/readings/stream", Some(&token))).await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.into_body()
        }
    };
    let [ending, revoked] = [follow(short.clone()).await, follow(long.clone()).await];
    tokio::time::timeout(Duration::from_secs(4), to_bytes(ending, 1 << 20)).await.expect("it goes on").unwrap();
    assert_eq!(site.ask("GET /v1/readings", Some(&short)).await.1["code"], "token-ended");
    // The other one goes on, until somebody revokes it.
    let body = tokio::spawn(to_bytes(revoked, 1 << 20));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!body.is_finished());
    site.book().revoke_token("long", now()).unwrap();
    let service = site.service.clone();
    tokio::task::spawn_blocking(move || service.refresh(clock::now()).unwrap()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(2), body).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn when_a_token_was_used_is_written_once_a_minute_and_makes_no_version_of_the_book() {
    let site = Site::new();
    let (used, unused) = (site.token("used", Scope::Audit, now() + 99), site.token("unused", Scope::Read, now() + 99));
    let version = site.book().version().unwrap();
    let uses = || fivefold_cloud::store::token_uses(&site.path("readings.db")).unwrap();
    assert_eq!(site.ask("GET /v1/log/checkpoint", Some(&used)).await.0, 405);
    assert_eq!(site.ask("GET /v1/why", Some(&unused)).await.0, 403);
    assert!(uses().is_empty(), "who is refused uses nothing");
    let app = site.app();
    assert_eq!(ask(&app, "GET /v1/readings", Some(&used)).await.0, 200);
    let first = uses();
    assert_eq!((first.len(), first[0].at.0 / 60_000), (1, clock::now().0 / 60_000));
    assert_eq!(first[0].hash, fivefold_core::suite::sha256(&[used.as_bytes()]));
    for _ in 0..20 {
        ask(&app, "GET /v1/tokens", Some(&used)).await;
    }
    assert_eq!(uses(), first);
    assert_eq!(site.book().version().unwrap(), version);
    // What the API tells of it.
    let answer = TowerToHyperService::new(app).call(request("GET /v1/tokens", Some(&used))).await.unwrap();
    let told: Value = serde_json::from_slice(&to_bytes(answer.into_body(), 1 << 20).await.unwrap()).unwrap();
    let of = |name: &str| told.as_array().unwrap().iter().find(|t| t["name"] == name).unwrap().clone();
    assert_eq!((&of("used")["scope"], &of("used")["used"]), (&"audit".into(), &(first[0].at.0 / 1000).into()));
    assert!(
        of("unused")["used"].is_null() && !told.to_string().contains(&unused) && !told.to_string().contains("hash")
    );
}

#[tokio::test]
async fn a_token_that_is_revoked_by_the_api_leaves_a_line_under_the_name_of_the_other() {
    let site = Site::new();
    let (boss, shop) = (site.token("boss", Scope::Admin, now() + 99), site.token("shop", Scope::Read, now() + 99));
    let app = site.app();
    assert_eq!(ask(&app, "GET /v1/readings", Some(&shop)).await.0, 200);
    assert_eq!(ask(&app, "POST /v1/tokens/shop/revoke", Some(&boss)).await.0, 204);
    assert_eq!(ask(&app, "GET /v1/readings", Some(&shop)).await.1["code"], "token-refused");
    let line = site.book().deeds(0, 99).unwrap().pop().unwrap();
    assert_eq!(
        (line.who.as_str(), line.done.as_str(), line.about.as_str()),
        ("token boss", "token revoked", "token shop")
    );
    let (status, said) = ask(&app, "POST /v1/tokens/nobody/revoke", Some(&boss)).await;
    assert_eq!((status, said["code"].as_str()), (404, Some("unknown-token")));
}

#[tokio::test]
async fn a_token_of_a_book_of_before_goes_on() {
    let mut secret = String::new();
    let older = |book: &Path| {
        secret = Registry::open(book, by()).unwrap().add_token("old", Scope::Read, 99, 1).unwrap().to_string();
        let sql =
            "ALTER TABLE tokens DROP COLUMN scope; ALTER TABLE tokens DROP COLUMN ends_at; PRAGMA user_version = 2;";
        Connection::open(book).unwrap().execute_batch(sql).unwrap();
    };
    let site = Site::on(older, |service| service);
    assert_eq!(site.ask("GET /v1/quarantine", Some(&secret)).await.0, 200);
    assert_eq!(site.ask("POST /v1/tokens/{name}/revoke", Some(&secret)).await.0, 403);
}

#[tokio::test]
async fn whether_it_lives_and_can_work_anybody_is_told_in_a_word() {
    let mut validity = (Millis(0), Millis(0));
    let site = Site::with(|service| {
        let authority = Authority::create("CA").unwrap().0;
        let issued = authority.issue(&Role::Cloud(vec!["localhost".into()]), now(), 30).unwrap();
        let identity = Identity::from_pkcs8(issued.certified.chain.as_bytes(), &issued.key).unwrap();
        validity = identity.validity();
        service.with_identity(LiveIdentity::new(identity))
    });
    let app = site.app();
    assert_eq!(word(&app, "/livez").await, (200, "live".into()));
    assert_eq!(word(&app, "/readyz").await, (200, "ready".into()));
    let at = clock::now();
    let later = |seconds: u64| site.service.ready(at.plus(seconds * 1000));
    // What was found is told for a moment, however many ask.
    let book = site.path("registry.db");
    std::fs::rename(&book, site.path("away")).unwrap();
    assert_eq!(word(&app, "/readyz").await, (200, "ready".into()));
    assert_eq!(later(10).await, Ready::Book);
    std::fs::rename(site.path("away"), &book).unwrap();
    assert_eq!(later(20).await, Ready::Yes);
    let store = Connection::open(site.path("readings.db")).unwrap();
    store.execute_batch("CREATE TRIGGER no BEFORE INSERT ON probe BEGIN SELECT RAISE(ABORT, 'no'); END").unwrap();
    assert_eq!(later(30).await, Ready::Store);
    assert_eq!(word(&app, "/livez").await, (200, "live".into()));
    store.execute_batch("DROP TRIGGER no").unwrap();
    assert_eq!(later(40).await, Ready::Yes);
    assert_eq!(site.service.ready(validity.1).await, Ready::Certificate);
    assert_eq!(site.service.ready(Millis(validity.0.0 - 1)).await, Ready::Certificate);
    assert_eq!(word(&app, "/readyz").await.0, 200, "of now it is still valid");
}
