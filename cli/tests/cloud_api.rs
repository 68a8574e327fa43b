//! The cloud's API and ingest as strangers meet them: nothing is readable without a token, and a gateway's certificate is
//! good for nothing but a gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fivefold_keep::share::GatewaySecrets;
use fivefold_keep::tls::{Anchor, Groups, Identity, client_config_api};
use fivefold_keep::vault::Vault;
use serde_json::Value;
use tempfile::TempDir;

/// A deployment with a running cloud.
struct Cloud {
    folder: TempDir,
    process: Child,
    ingest: SocketAddr,
    api: SocketAddr,
    token: String,
}

fn fivefold(arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fivefold"));
    let done = command.args(["-o", "json"]).args(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).unwrap()
}

impl Cloud {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let farm = folder.path().join("farm");
        let dir = farm.to_str().unwrap();
        let ports: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let [ingest, api] = [0, 1].map(|i| ports[i].local_addr().unwrap());
        drop(ports);
        fivefold(&["init", dir, "--ingest", &ingest.to_string(), "--api", &api.to_string()]);
        fivefold(&["network", "add", "--dir", dir, "one"]);
        fivefold(&["gateway", "add", "--dir", dir, "--net", "one", "north"]);
        fivefold(&["device", "add", "--dir", dir, "--net", "one"]);
        let token =
            fivefold(&["token", "add", "--dir", dir, "t", "--scope", "operate"])["token"].as_str().unwrap().to_owned();
        let mut command = Command::new(env!("CARGO_BIN_EXE_fivefold"));
        command.args(["cloud", "run", "--dir"]).arg(farm.join("cloud"));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { folder, process, ingest, api, token }
    }

    fn farm(&self) -> PathBuf {
        self.folder.path().join("farm")
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.api.port())
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn client(farm: &Path) -> reqwest::Client {
    let anchor = Anchor::from_pem(&std::fs::read(farm.join("ca.pem")).unwrap()).unwrap();
    let tls = client_config_api(&anchor, Groups::HybridOnly).unwrap();
    reqwest::Client::builder().use_preconfigured_tls(tls).build().unwrap()
}

/// Status and body; tries again until the cloud listens.
async fn ask(request: impl Fn() -> reqwest::RequestBuilder) -> (u16, Value) {
    for _ in 0..200 {
        if let Ok(answer) = request().send().await {
            let status = answer.status().as_u16();
            return (status, answer.json().await.unwrap_or_default());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the cloud does not listen");
}

#[tokio::test]
async fn nothing_is_readable_without_a_token_of_this_deployment() {
    let (mine, other) = (Cloud::new(), Cloud::new());
    let client = client(&mine.farm());
    let (status, document) = ask(|| client.get(mine.url("/openapi.json"))).await;
    assert_eq!(status, 200);
    let mut tried = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys().filter(|m| *m == "get" || *m == "post") {
            let url = mine.url(&path.replace("{did}", "acde480000000001"));
            let request = || if method == "get" { client.get(&url) } else { client.post(&url).body("{\"op\": 1}") };
            let (status, body) = ask(request).await;
            assert_eq!((status, body["code"].as_str()), (401, Some("token-missing")), "{method} {path}");
            for token in ["", "x", &other.token, &mine.token[..mine.token.len() - 1]] {
                let (status, body) = ask(|| request().bearer_auth(token)).await;
                assert_eq!((status, body["code"].as_str()), (401, Some("token-refused")), "{method} {path}");
            }
            tried += 1;
        }
    }
    assert!(tried >= 9, "{tried} routes");
    assert_eq!(ask(|| client.get(mine.url("/v1/readings")).bearer_auth(&mine.token)).await.0, 200);
    // A path that is none tells a stranger no more than one that is.
    assert_eq!(ask(|| client.get(mine.url("/nothing"))).await.0, 404);
}

#[tokio::test]
async fn a_token_works_as_soon_as_it_is_made_and_until_it_is_revoked() {
    let cloud = Cloud::new();
    let (farm, client) = (cloud.farm(), client(&cloud.farm()));
    let dir = farm.to_str().unwrap();
    assert_eq!(ask(|| client.get(cloud.url("/v1/health")).bearer_auth(&cloud.token)).await.0, 200);
    let new = fivefold(&["token", "add", "--dir", dir, "new"])["token"].as_str().unwrap().to_owned();
    assert_eq!(ask(|| client.get(cloud.url("/v1/health")).bearer_auth(&new)).await.0, 200);
    fivefold(&["token", "revoke", "--dir", dir, "new"]);
    let mut last = 200;
    for _ in 0..40 {
        last = ask(|| client.get(cloud.url("/v1/health")).bearer_auth(&new)).await.0;
        if last == 401 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(last, 401, "it works two seconds after it was revoked");
    assert_eq!(ask(|| client.get(cloud.url("/v1/health")).bearer_auth(&cloud.token)).await.0, 200);
}

#[tokio::test]
async fn questions_that_make_no_sense_get_one_sentence_and_commands_are_judged() {
    let cloud = Cloud::new();
    let client = client(&cloud.farm());
    let get = |path: &str| {
        let (client, url, token) = (client.clone(), cloud.url(path), cloud.token.clone());
        async move { ask(|| client.get(&url).bearer_auth(&token)).await }
    };
    for (query, says) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("order=up", "order"),
        ("net=xyz", "net"),
        ("device=12", "device"),
    ] {
        let (status, body) = get(&format!("/v1/readings?{query}")).await;
        assert_eq!((status, body["code"].as_str()), (400, Some("bad-query")), "{query}");
        assert!(body["public"].as_str().unwrap().contains(says), "{query}: {body}");
    }
    assert_eq!(get("/v1/readings?colour=red").await.0, 400);
    assert_eq!(get("/v1/devices/acde480000000001").await.0, 404);
    let (_, devices) = get("/v1/devices").await;
    let did = devices[0]["device"].as_str().unwrap();
    let post = |did: &str, body: &'static str| {
        let (client, url) = (client.clone(), cloud.url(&format!("/v1/devices/{did}/commands")));
        let token = cloud.token.clone();
        async move {
            let request =
                || client.post(&url).bearer_auth(&token).header("content-type", "application/json").body(body);
            ask(request).await
        }
    };
    let (status, command) = post(did, "{\"op\": 7, \"args\": [1, \"a\"]}").await;
    assert_eq!((status, command["op"].as_u64(), command["args"].as_str()), (202, Some(7), Some("016161")));
    assert_eq!(post(did, "{\"op\": 7, \"args\": [{}]}").await.0, 400);
    assert_eq!(post("acde480000000001", "{\"op\": 7}").await.0, 404);
    let (_, shown) = get(&format!("/v1/devices/{did}")).await;
    assert_eq!(
        (shown["commands"][0]["id"].as_u64(), shown["commands"].as_array().unwrap().len()),
        (command["id"].as_u64(), 1)
    );
}

#[tokio::test]
async fn a_gateways_certificate_is_no_cloud_and_a_stranger_is_no_gateway() {
    let (cloud, other) = (Cloud::new(), Cloud::new());
    let clients = [client(&cloud.farm()), client(&other.farm())];
    assert_eq!(ask(|| clients[0].get(cloud.url("/v1/health")).bearer_auth(&cloud.token)).await.0, 200);
    // The share of a gateway, by whoever stole it: served as if it were the cloud, it is believed by nobody.
    let folder = cloud.farm().join("gateways/north");
    let vault = Vault::open_folder(&folder).unwrap();
    let secrets = GatewaySecrets::read(&vault, &folder).unwrap();
    let chain = std::fs::read(folder.join("certificate.pem")).unwrap();
    let stolen = Identity::from_pkcs8(&chain, &secrets.tls_key).unwrap();
    assert!(stolen.require_cloud().is_err(), "not even our own code serves with it");
    // Another deployment's CA is no CA here.
    let answer = clients[1].get(cloud.url("/openapi.json")).send().await;
    assert!(answer.is_err(), "a client of another deployment believes this cloud");
    // Ingest wants a certificate: without one no request is answered, and the attempt is counted.
    let anchor = Anchor::from_pem(&std::fs::read(cloud.farm().join("ca.pem")).unwrap()).unwrap();
    let tls = Arc::new(client_config_api(&anchor, Groups::HybridOnly).unwrap());
    let bare = reqwest::Client::builder().use_preconfigured_tls((*tls).clone()).build().unwrap();
    let refused = bare.post(format!("https://localhost:{}/v1/ingest", cloud.ingest.port())).body("x").send().await;
    assert!(refused.is_err(), "{refused:?}");
    let mut counted = 0;
    for _ in 0..40 {
        let (_, rejections) = ask(|| clients[0].get(cloud.url("/v1/rejections")).bearer_auth(&cloud.token)).await;
        let row = rejections.as_array().unwrap().iter().find(|r| r["code"] == "E4-01").cloned();
        counted = row.map_or(0, |r| r["count"].as_u64().unwrap());
        if counted > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(counted, 1);
}
