//! The life of a gateway's certificate with real daemons: a token, a renewal, a long absence, a theft.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod deployment;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deployment::{Daemon, Deployment, command, fivefold, free_udp, mistake, now, tick};
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::error::Code;
use fivefold_core::id::{GatewayId, Net};
use fivefold_keep::enrol::{Keys, Token};
use fivefold_keep::registry::Word;
use fivefold_keep::tls::{
    Groups, Identity, LiveIdentity, Pin, classify, client_config_e4, client_config_enrol, server_config_api,
};
use fivefold_keep::vault::Vault;
use rcgen::{CertificateParams, KeyPair, SanType, SignatureAlgorithm};
use rustls::ClientConfig;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Every file below a folder, with what is in it.
fn files_in(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_in(&path));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

#[test]
fn a_gateway_joins_with_keys_of_its_own_and_readings_travel_through_it() {
    let d = Deployment::new();
    let (farm, token, north) = (d.farm(), d.at("north.token"), d.at("site/north"));
    let [radio, node] = free_udp();
    let invited = fivefold(&["gateway", "invite", "--dir", &farm, "--net", "field-7", "north", "--token-file", &token]);
    assert_eq!((invited["token"].as_str(), invited["certified_as"].as_str()), (None, Some("urn:gw:00000001:00000001")));
    let text = std::fs::read_to_string(&token).unwrap().trim().to_owned();
    let hash = invited["ca_sha256"].as_str().unwrap();
    assert_eq!(d.show("north")["state"], "invited");
    let (_, node_folder) = d.device(&node, &radio);
    let url = d.url();
    let join = |ca: &[&str]| {
        let mut words = vec!["gateway", "join", "--dir", &north, "--cloud", &url, "--token-file", &token];
        words.extend_from_slice(ca);
        words.extend_from_slice(&["--radio", &radio, "--air", &node]);
        words.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let wrong = "00".repeat(32);
    let untrusted = join(&["--ca-hash", &wrong]);
    let said = mistake(&untrusted.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(said.contains("not the operator's cloud") && said.contains("E4-01"), "{said}");
    let good = join(&["--ca-hash", hash]);
    let joined = fivefold(&good.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(joined["name"], "north");

    // Keys were made there, and nothing of them or of the token is here.
    let folder = d.path("site/north");
    let vault = Vault::open_folder(&folder).unwrap();
    let secrets = fivefold_keep::share::GatewaySecrets::read(&vault, &folder).unwrap();
    let needles: [&[u8]; 3] = [&secrets.tls_key[36..68], &secrets.signing_key[36..68], &text.as_bytes()[22..]];
    for (file, bytes) in files_in(&d.path("farm")) {
        for needle in needles {
            assert!(!bytes.windows(needle.len()).any(|w| w == needle), "{file}");
        }
    }
    assert!(!d.path("farm/gateways").exists());

    let _gateway = Daemon::start(&["gateway", "run", "--dir", &north], &d.path("north.log"));
    d.readings(&node_folder, 3, &_gateway);
    let shown = d.show("north");
    assert_eq!((shown["state"].as_str(), shown["serial"].as_str()), (Some("active"), joined["serial"].as_str()));
    let line = |e: &Value| (e["who"].as_str().unwrap()[..5].to_owned(), e["what"].as_str().unwrap().to_owned());
    let history: Vec<_> = shown["history"].as_array().unwrap().iter().map(line).collect();
    assert_eq!(history, [("opera".into(), "invited".into()), ("token".into(), "issued".into())]);
    let issued = &shown["history"][1];
    assert_eq!(
        (&issued["serial"], &issued["spki_sha256"]),
        (&joined["serial"], &shown["certificates"][0]["spki_sha256"])
    );
    assert!(issued["at"].as_u64().unwrap().abs_diff(now()) < 60);
    let listed = fivefold(&["gateway", "list", "--dir", &farm]);
    assert_eq!(listed[0]["history"], shown["history"]);
    // The token is used up, and the same command says so.
    let again = mistake(&good.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(again.contains("token-used") && again.contains("fivefold gateway invite"), "{again}");
}

#[test]
fn a_request_and_a_grant_are_carried_where_no_wire_goes() {
    let d = Deployment::new();
    let (farm, south) = (d.farm(), d.at("site/south"));
    let (csr, grant, ca, url) = (d.at("south.csr"), d.at("south.grant"), d.ca(), d.url());
    let invited = fivefold(&["gateway", "invite", "--dir", &farm, "--net", "field-7", "south"]);
    let urn = invited["certified_as"].as_str().unwrap();
    assert!(invited["token"].as_str().unwrap().parse::<Token>().is_ok());
    fivefold(&["gateway", "join", "--dir", &south, "--csr-file", &csr, "--name", urn]);
    let signed = fivefold(&["gateway", "sign", "--dir", &farm, &csr, "--grant-file", &grant]);
    assert_eq!(signed["history"][1]["what"], "issued");
    let [radio] = free_udp();
    let join = ["gateway", "join", "--dir", &south, "--cloud", &url, "--ca-file", &ca, "--grant-file", &grant];
    let joined = fivefold(&[&join[..], &["--radio", &radio]].concat());
    assert_eq!(joined["serial"], signed["serial"]);
    let _gateway = Daemon::start(&["gateway", "run", "--dir", &south], &d.path("south.log"));
    let heard = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(d.ask("/v1/gateways"))[0]["pushed_version"].as_u64()
    };
    for _ in 0..200 {
        if heard().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(heard().is_some(), "{}", _gateway.said());
    // What is no request, and what is no grant, is said in one sentence.
    let said = mistake(&["gateway", "sign", "--dir", &farm, &ca, "--grant-file", &grant]);
    assert!(said.contains("two PKCS #10 requests"), "{said}");
    let said = mistake(&["gateway", "join", "--dir", &south, "--cloud", &url, "--ca-file", &ca, "--grant-file", &csr]);
    assert!(said.contains("south.csr"), "{said}");
    let said = mistake(&["gateway", "join", "--dir", &south, "--cloud", &url, "--ca-file", &ca]);
    assert!(said.contains("--token-file"), "{said}");
}

/// One answer of the route of enrolment: status and word.
async fn enrol(d: &Deployment, token: &str, body: &str) -> (u16, String) {
    let tls = client_config_enrol(&Pin::Anchor(d.anchor()), Groups::HybridOnly).unwrap();
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
    let post = client.post(format!("{}/v1/enrol", d.url())).bearer_auth(token).body(body.to_owned());
    let answer = post.send().await.unwrap();
    let status = answer.status().as_u16();
    let problem: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default();
    (status, problem["code"].as_str().unwrap_or_default().to_owned())
}

fn csr(kind: &'static SignatureAlgorithm, name: GatewayName) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = vec![SanType::URI(name.to_string().try_into().unwrap())];
    params.serialize_request(&KeyPair::generate_for(kind).unwrap()).unwrap().pem().unwrap()
}

#[tokio::test]
async fn what_must_not_be_certified_is_refused_by_name_and_counted() {
    let d = Deployment::new();
    d.ask("/v1/health").await;
    let mut operator = d.operator();
    fivefold(&["gateway", "invite", "--dir", &d.farm(), "--net", "field-7", "north"]);
    fivefold(&["gateway", "invite", "--dir", &d.farm(), "--net", "field-7", "south", "--secondary"]);
    let gateways = operator.registry.gateways().unwrap();
    let (north, south) = (gateways[0].certified_as(), gateways[1].certified_as());
    let word = Word { who: "operator", at: now() };
    let until = now() + 3600;
    let token = operator.registry.invite_gateway(&gateways[0], until, word).unwrap();
    let old = operator.registry.invite_gateway(&gateways[1], now() - 1, word).unwrap();
    let (token, old) = (token.danger_text(), old.danger_text());
    let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
    let good = csr(p256, north) + &csr(p256, north);
    let elsewhere = GatewayName { net: Net(99), ..north };
    let rsa = csr(&rcgen::PKCS_RSA_SHA256, north) + &csr(p256, north);
    let p384 = csr(p256, north) + &csr(&rcgen::PKCS_ECDSA_P384_SHA384, north);
    let mut der = pem_of(&csr(p256, north));
    let last = der.len() - 1;
    der[last] ^= 1;
    let unsigned = pem_from(&der) + &csr(p256, north);
    let foreign = Token::draw(north).unwrap();
    let tries = [
        (foreign.danger_text(), good.clone(), 401, "token-unknown"),
        ("", good.clone(), 401, "token-unknown"),
        (old, csr(p256, south) + &csr(p256, south), 403, "token-expired"),
        (token, csr(p256, south) + &csr(p256, south), 403, "request-name"),
        (token, csr(p256, elsewhere) + &csr(p256, elsewhere), 403, "request-name"),
        (token, rsa, 400, "request-key-kind"),
        (token, p384, 400, "request-key-kind"),
        (token, unsigned, 400, "request-signature"),
        (token, csr(p256, north), 400, "request-malformed"),
        (token, "x".repeat(8192), 400, "request-malformed"),
    ];
    let mut counted = d.refusals(None).await;
    for (token, body, status, word) in &tries {
        assert_eq!(enrol(&d, token, body).await, (*status, (*word).to_owned()), "{token} {body:.80}");
        counted += 1;
        d.refused(None, counted).await;
    }
    assert_eq!(enrol(&d, token, &"x".repeat(8193)).await.0, 413, "no more is read");
    // None of it used the token up.
    assert_eq!(enrol(&d, token, &good).await.0, 200);
    assert_eq!(enrol(&d, token, &good).await.0, 200, "the same request again: the same answer");
    let other = csr(p256, north) + &csr(p256, north);
    assert_eq!(enrol(&d, token, &other).await, (403, "token-used".into()));
    // There is nothing else behind that door.
    let tls = client_config_enrol(&Pin::Anchor(d.anchor()), Groups::HybridOnly).unwrap();
    let client = reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap();
    for path in ["/v1/ingest", "/v1/downlink", "/v1/certificate", "/v1/readings"] {
        assert_eq!(client.get(format!("{}{path}", d.url())).send().await.unwrap().status().as_u16(), 404, "{path}");
    }
    // Who guesses is soon heard no more, even if he guesses right.
    let mut answers = Vec::new();
    for _ in 0..12 {
        answers.push(enrol(&d, Token::draw(north).unwrap().danger_text(), &good).await.0);
    }
    assert!(answers.contains(&401) && answers.ends_with(&[429, 429]), "{answers:?}");
    assert_eq!(enrol(&d, token, &good).await, (429, "too-many".into()));
    assert_eq!(operator.registry.certificates().unwrap().iter().filter(|c| c.gateway.is_some()).count(), 1);
}

fn pem_of(pem: &str) -> Vec<u8> {
    use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
    CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

fn pem_from(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|c| std::str::from_utf8(c).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n", lines.join("\n"))
}

/// TLS of E4 as a gateway does it, with its certificate.
fn e4(d: &Deployment, identity: &Identity) -> ClientConfig {
    let live = LiveIdentity::new(identity.clone());
    let mut config = client_config_e4(&live, &d.anchor(), Arc::default(), Groups::HybridOnly).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

async fn connect(d: &Deployment, identity: &Identity) -> TlsStream<TcpStream> {
    let socket = TcpStream::connect(d.ingest).await.unwrap();
    let connector = TlsConnector::from(Arc::new(e4(d, identity)));
    connector.connect("localhost".try_into().unwrap(), socket).await.unwrap()
}

/// A gateway whose keys were made at the operator, for tests that play it; the running cloud knows it.
async fn added(d: &Deployment, name: &str) -> (String, Identity) {
    let role: &[&str] = if name == "north" { &[] } else { &["--secondary"] };
    let (farm, [radio]) = (d.farm(), free_udp());
    let words = [&["gateway", "add", "--dir", &farm, "--net", "field-7", name, "--radio", &radio], role].concat();
    let shown = fivefold(&words);
    let id = shown["gateway"].as_str().unwrap().to_owned();
    for _ in 0..400 {
        let known = d.ask("/v1/gateways").await;
        if known.as_array().unwrap().iter().any(|g| g["name"] == name) {
            return (id, d.identity(&d.path(&format!("farm/gateways/{name}"))));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the cloud never heard of gateway {id}")
}

#[tokio::test]
async fn a_renewal_that_must_not_be_is_refused_and_the_old_certificate_stays_good() {
    let d = Deployment::new();
    d.ask("/v1/health").await;
    let (id, north) = added(&d, "north").await;
    let name = north.gateway().unwrap();
    let client = reqwest::Client::builder().tls_backend_preconfigured(e4(&d, &north)).build().unwrap();
    let url = format!("{}/v1/certificate", d.url());
    let post = |body: String| {
        let sent = client.post(&url).body(body).send();
        async move {
            let answer = sent.await.unwrap();
            let status = answer.status().as_u16();
            let problem: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default();
            (status, problem["code"].as_str().unwrap_or_default().to_owned())
        }
    };
    let folder = d.path("farm/gateways/north");
    let vault = Vault::open_folder(&folder).unwrap();
    let secrets = fivefold_keep::share::GatewaySecrets::read(&vault, &folder).unwrap();
    let same = Keys { tls: secrets.tls_key.clone(), receipts: secrets.signing_key.clone() };
    let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
    let other = GatewayName { gateway: GatewayId(2), ..name };
    let tries = [
        (same.request(name).unwrap(), 409, "request-key-used"),
        (csr(p256, other) + &csr(p256, other), 403, "request-name"),
        (csr(&rcgen::PKCS_RSA_SHA256, name) + &csr(p256, name), 400, "request-key-kind"),
        ("nothing".into(), 400, "request-malformed"),
    ];
    for (n, (body, status, word)) in (1..).zip(tries) {
        assert_eq!(post(body).await, (status, word.to_owned()));
        d.refused(Some(&id), n).await;
        assert_eq!(client.get(&url).send().await.unwrap().status().as_u16(), 204, "{word}: the old one stays good");
    }
    assert_eq!(post(Keys::draw().unwrap().request(name).unwrap()).await.0, 200);
    assert_eq!(client.get(&url).send().await.unwrap().status().as_u16(), 204, "old and new are valid together");
}

#[test]
fn the_daemon_renews_without_a_stop_and_after_months_by_the_operators_word() {
    let d = Deployment::new();
    let [radio, node] = free_udp();
    let add = ["gateway", "add", "--dir", &d.farm(), "--net", "field-7", "north", "--radio", &radio, "--air", &node];
    fivefold(&add);
    let (_, node_folder) = d.device(&node, &radio);
    let folder = d.path("farm/gateways/north");
    d.age("north", &folder, 61);
    let old = d.identity(&folder);
    let start = || Daemon::start(&["gateway", "run", "--dir", folder.to_str().unwrap()], &d.path("north.log"));
    let gateway = start();
    let shown = d.done("north", "renewed", 1, &gateway);
    let settled = |old: &Identity, gateway: &Daemon| {
        for _ in 0..100 {
            if !folder.join("renewal.sealed").exists() && d.identity(&folder).serial() != old.serial() {
                return d.identity(&folder);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the new certificate is not taken up: {}", gateway.said());
    };
    let new = settled(&old, &gateway);
    assert_eq!(shown["serial"], new.serial().to_string());
    let renewed = shown["history"].as_array().unwrap().iter().rfind(|e| e["what"] == "renewed").unwrap().clone();
    assert_eq!(renewed["who"], format!("certificate {}", old.serial()));
    d.readings(&node_folder, 2, &gateway);
    // Power goes; what is in the folder is enough.
    drop(gateway);
    let gateway = start();
    d.readings(&node_folder, 2, &gateway);
    drop(gateway);

    // Months later.
    d.age("north", &folder, 150);
    let ended = d.identity(&folder);
    assert_eq!(d.show("north")["state"], "certificate ended");
    let gateway = start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { d.refused(None, 2).await });
    assert_eq!(d.identity(&folder).serial(), ended.serial());
    fivefold(&["gateway", "allow-late-renewal", "--dir", &d.farm(), "north"]);
    d.done("north", "renewed", 2, &gateway);
    settled(&ended, &gateway);
    d.readings(&node_folder, 2, &gateway);
    assert_eq!(d.show("north")["state"], "active");
}

/// Waits until the other side ends the connection, for five seconds.
async fn end(mut stream: TlsStream<TcpStream>) -> std::time::Instant {
    let mut bytes = [0; 4096];
    let read = async { while stream.read(&mut bytes).await.is_ok_and(|n| n > 0) {} };
    let _ = tokio::time::timeout(Duration::from_secs(5), read).await;
    tick()
}

#[tokio::test]
async fn a_revoked_gateway_is_cut_within_a_second_and_comes_back_to_nobody() {
    let d = Deployment::new();
    d.ask("/v1/health").await;
    let (id, north) = added(&d, "north").await;
    let (_, south) = added(&d, "south").await;
    // A long poll that waits, and a batch of which half has come.
    let mut poll = connect(&d, &north).await;
    let get = b"GET /v1/downlink HTTP/1.1\r\nHost: cloud\r\n\r\n";
    poll.write_all(get).await.unwrap();
    let mut first = [0; 4096];
    let read = poll.read(&mut first).await.unwrap();
    assert!(first[..read].starts_with(b"HTTP/1.1 200"), "its state comes at once");
    poll.write_all(get).await.unwrap();
    let mut batch = connect(&d, &north).await;
    batch.write_all(b"POST /v1/ingest HTTP/1.1\r\nHost: cloud\r\nContent-Length: 1000\r\n\r\nhalf").await.unwrap();
    let mut other = connect(&d, &south).await;
    other.write_all(get).await.unwrap();
    assert!(other.read(&mut first).await.unwrap() > 0);
    tokio::time::sleep(Duration::from_millis(400)).await;
    let before = d.refusals(Some(&id)).await;

    let ends = (tokio::spawn(end(poll)), tokio::spawn(end(batch)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!ends.0.is_finished() && !ends.1.is_finished(), "both are open");
    let farm = d.farm();
    let revoke = move || fivefold(&["gateway", "revoke", "--dir", &farm, "north"]);
    let revoked = tokio::task::spawn_blocking(revoke).await.unwrap();
    let since = tick();
    assert_eq!(revoked["history"].as_array().unwrap().last().unwrap()["what"], "revoked");
    let ended = [ends.0.await.unwrap(), ends.1.await.unwrap()].map(|at| at.saturating_duration_since(since));
    println!("cut after {ended:?}");
    assert!(ended.iter().all(|took| *took < Duration::from_secs(1)), "{ended:?}");
    d.refused(Some(&id), before + 2).await;
    assert_eq!(d.refusals(Some(&id)).await, before + 2, "each cut is counted once");

    // A new connection is refused, whoever asks, and the other gateway's lives on.
    let mut again = connect(&d, &north).await;
    let error = match again.write_all(get).await {
        Ok(()) => again.read(&mut first).await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(classify(&error).map(|r| r.code), Some(Code::ChannelRefused), "{error}");
    other.write_all(get).await.unwrap();
    assert!(other.read(&mut first).await.unwrap() > 0, "the other gateway is not cut");
    // The daemon that was switched off all the time learns it when it comes back.
    let nobody = d.refusals(None).await;
    let folder = d.at("farm/gateways/north");
    let gateway = Daemon::start(&["gateway", "run", "--dir", &folder], &d.path("north.log"));
    d.refused(None, nobody + 1).await;
    gateway.says("the cloud is away").await;
}

#[tokio::test]
async fn a_stolen_certificate_of_the_cloud_is_good_for_nothing_once_gateways_know() {
    let d = Deployment::new();
    d.ask("/v1/health").await;
    added(&d, "north").await;
    let folder = d.path("farm/gateways/north");
    let vault = Vault::open_folder(&d.path("farm")).unwrap();
    let chain = std::fs::read(d.path("farm/cloud/certificate.pem")).unwrap();
    let key = vault.open_file(&d.path("farm/cloud/key.sealed")).unwrap();
    let stolen = Identity::from_pkcs8(&chain, &key).unwrap();
    let imposter = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = imposter.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server_config_api(&LiveIdentity::new(stolen.clone())).unwrap()));
    // The gateway's own process, told to find the cloud where the thief is.
    let dial = |to: SocketAddr| {
        let path = folder.join("gateway.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let line = text.lines().find(|l| l.starts_with("cloud = ")).unwrap();
        std::fs::write(&path, text.replace(line, &format!("cloud = \"https://localhost:{}\"", to.port()))).unwrap();
        Daemon::start(&["gateway", "run", "--dir", folder.to_str().unwrap()], &d.path("north.log"))
    };
    let believed = || async {
        let (socket, _) = imposter.accept().await.unwrap();
        let mut stream = acceptor.accept(socket).await?;
        let mut request = [0; 1];
        stream.read_exact(&mut request).await
    };
    let gateway = dial(at);
    assert!(believed().await.is_ok(), "before it is revoked, the thief is the cloud");
    drop(gateway);

    let gateway = dial(d.ingest);
    let pushed = |d: &Value| d[0]["pushed_version"].as_u64();
    while pushed(&d.ask("/v1/gateways").await).is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let renewed = fivefold(&["cloud", "renew-certificate", "--dir", &d.farm(), "--revoke-old"]);
    assert_eq!(renewed["revoked"][0], stolen.serial().to_string());
    let list = fivefold(&["cloud", "certificates", "--dir", &d.farm()]);
    assert!(list[0]["revoked_at"].is_u64() && list[1]["revoked_at"].is_null());
    // It hears of it over its open connection, and comes back to the new certificate.
    gateway.says("connecting anew").await;
    drop(gateway);
    let gateway = dial(at);
    assert!(believed().await.is_err(), "after a restart too");
    drop(gateway);
    // The cloud itself is found again.
    let before = pushed(&d.ask("/v1/gateways").await);
    fivefold(&["network", "add", "--dir", &d.farm(), "field-8"]);
    let gateway = dial(d.ingest);
    for _ in 0..200 {
        if pushed(&d.ask("/v1/gateways").await) > before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(pushed(&d.ask("/v1/gateways").await) > before, "{}", gateway.said());
}

#[test]
fn the_cloud_issues_nothing_without_an_issuing_key_and_the_operator_needs_the_cas() {
    let d = Deployment::new();
    let (farm, token) = (d.farm(), d.at("token"));
    std::fs::rename(d.path("farm/cloud/issuer.pem"), d.path("issuer.pem")).unwrap();
    let check = || fivefold(&["cloud", "run", "--check", "--dir", &d.at("farm/cloud")])["issuer"].clone();
    assert_eq!(check(), "none: the operator signs");
    std::thread::sleep(Duration::from_secs(3));
    fivefold(&["gateway", "invite", "--dir", &farm, "--net", "field-7", "north", "--token-file", &token]);
    let (north, url, ca) = (d.at("north"), d.url(), d.ca());
    let join = ["gateway", "join", "--dir", &north, "--cloud", &url, "--ca-file", &ca, "--token-file", &token];
    let said = mistake(&join);
    assert!(said.contains("no-issuer") && said.contains("fivefold gateway sign"), "{said}");
    // A new one is taken by the running cloud, and the token is still good.
    fivefold(&["cloud", "renew-issuer", "--dir", &farm]);
    let mut joined = false;
    for _ in 0..50 {
        joined = command(&join).output().unwrap().status.success();
        if joined {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(joined, "{}", mistake(&join));
    // The CA's key may lie elsewhere: who needs it says so.
    std::fs::rename(d.path("farm/ca-key.sealed"), d.path("ca-key.sealed")).unwrap();
    let said = mistake(&["cloud", "renew-certificate", "--dir", &farm]);
    assert!(said.contains("put ca-key.sealed back"), "{said}");
    fivefold(&["gateway", "invite", "--dir", &farm, "north"]);
}
