//! A client of the cloud's HTTPS API: the operator's CA is the only one it believes, and it brings a token.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use fivefold_keep::files;
use fivefold_keep::tls::{Anchor, Groups, client_config_api};
use serde_json::Value;
use tokio::runtime::Runtime;

/// The cloud says something at least this often; after that the line is dead.
const QUIET: Duration = Duration::from_secs(45);

/// The client. Calls block.
#[derive(Debug)]
pub struct Api {
    client: reqwest::Client,
    base: String,
    token: String,
    runtime: Runtime,
}

impl Api {
    /// A client of the API at `base` (`https://HOST:PORT`), which the CA in the PEM file `ca` certifies.
    ///
    /// # Errors
    /// The CA cannot be read.
    pub fn new(ca: &Path, base: &str, token: &str) -> anyhow::Result<Self> {
        let anchor = Anchor::from_pem(files::read_text(ca)?.as_bytes())?;
        let tls = client_config_api(&anchor, Groups::HybridOnly)?;
        let client = reqwest::Client::builder()
            .use_preconfigured_tls(tls)
            .timeout(Duration::from_secs(30))
            .build()
            .context("cannot make an HTTPS client")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), token: token.to_owned(), runtime })
    }

    /// `GET path`, which must answer with JSON and success.
    ///
    /// # Errors
    /// The cloud cannot be reached, or refuses: its own words.
    pub fn fetch(&self, path: &str) -> anyhow::Result<Value> {
        self.asked(path, |url| self.client.get(url))
    }

    /// `POST path` with JSON; the same is expected of it.
    ///
    /// # Errors
    /// The cloud cannot be reached, or refuses: its own words.
    pub fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.asked(path, |url| self.client.post(url).json(body))
    }

    fn asked(&self, path: &str, request: impl FnOnce(&str) -> reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.base);
        self.runtime.block_on(async {
            let request = request(&url).bearer_auth(&self.token);
            let answer = request.send().await.with_context(|| format!("cannot reach {}", self.base))?;
            let status = answer.status();
            let body: Value = answer.json().await.with_context(|| format!("{url} answered {status} without JSON"))?;
            anyhow::ensure!(
                status.is_success(),
                "the cloud answered {status}: {}",
                body.get("public").and_then(Value::as_str).unwrap_or("no reason")
            );
            Ok(body)
        })
    }

    /// `GET /v1/evidence`: bundles, at most so many bytes, and what has none.
    ///
    /// # Errors
    /// The cloud cannot be reached, refuses, or sends more.
    pub fn fetch_evidence(&self, query: &str, most: usize) -> anyhow::Result<Evidence> {
        let url = format!("{}/v1/evidence?{query}", self.base);
        self.runtime.block_on(async {
            let request = self.client.get(&url).bearer_auth(&self.token).timeout(Duration::from_secs(600));
            let mut answer = request.send().await.with_context(|| format!("cannot reach {}", self.base))?;
            let status = answer.status();
            if !status.is_success() {
                let body: Value = answer.json().await.unwrap_or_default();
                let reason = body.get("public").and_then(Value::as_str).unwrap_or("no reason").to_owned();
                anyhow::ensure!(status == reqwest::StatusCode::CONFLICT, "the cloud answered {status}: {reason}");
                return Ok(Evidence { bundles: Vec::new(), not_proven: Some(reason) });
            }
            let said = answer.headers().get("fivefold-not-proven").and_then(|v| v.to_str().ok()).map(str::to_owned);
            let mut bundles = Vec::new();
            while let Some(part) = answer.chunk().await.with_context(|| format!("{url} broke off"))? {
                anyhow::ensure!(bundles.len() + part.len() <= most, "{url} answers with more than {most} bytes");
                bundles.extend_from_slice(&part);
            }
            Ok(Evidence { bundles, not_proven: said })
        })
    }

    /// Follows a stream of server-sent events: `hear` gets the data of each, and says whether it wants more. A broken
    /// connection is made again, from where it broke.
    ///
    /// # Errors
    /// The first connection fails, the cloud refuses, or `hear` fails.
    pub fn follow(&self, path: &str, mut hear: impl FnMut(&str) -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let url = format!("{}{path}", self.base);
        let (mut last, mut was_connected) = (None, false);
        self.runtime.block_on(async {
            loop {
                match self.follow_once(&url, &mut last, &mut was_connected, &mut hear).await {
                    Ok(More::Yes) => {}
                    Ok(More::No) => return Ok(()),
                    Err(Broken::Final(error)) => return Err(error),
                    Err(Broken::Line(error)) if !was_connected => return Err(error),
                    Err(Broken::Line(_)) => {}
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        })
    }

    async fn follow_once(
        &self,
        url: &str,
        last: &mut Option<String>,
        was_connected: &mut bool,
        hear: &mut impl FnMut(&str) -> anyhow::Result<bool>,
    ) -> Result<More, Broken> {
        let line =
            |e: reqwest::Error| Broken::Line(anyhow::Error::new(e).context(format!("cannot reach {}", self.base)));
        let mut request = self.client.get(url).bearer_auth(&self.token).timeout(Duration::from_secs(86_400));
        if let Some(last) = last {
            request = request.header("last-event-id", last.as_str());
        }
        let mut answer = request.send().await.map_err(line)?;
        let status = answer.status();
        if !status.is_success() {
            let body: Value = answer.json().await.unwrap_or_default();
            let reason = body.get("public").and_then(Value::as_str).unwrap_or("no reason").to_owned();
            return Err(Broken::Final(anyhow::anyhow!("the cloud answered {status}: {reason}")));
        }
        *was_connected = true;
        let mut text = Vec::new();
        while let Ok(Ok(Some(part))) = tokio::time::timeout(QUIET, answer.chunk()).await {
            text.extend_from_slice(&part);
            // An event ends with an empty line (WHATWG HTML, 9.2.5).
            while let Some(end) = text.windows(2).position(|w| w == b"\n\n") {
                let event: Vec<u8> = text.drain(..end + 2).collect();
                let event = String::from_utf8_lossy(&event).into_owned();
                let field = |name: &str| event.lines().find_map(|l| l.strip_prefix(name)).map(str::to_owned);
                if let Some(data) = field("data: ") {
                    if !hear(&data).map_err(Broken::Final)? {
                        return Ok(More::No);
                    }
                    *last = field("id: ").or(last.take());
                }
            }
        }
        Ok(More::Yes)
    }
}

/// What the cloud has of evidence.
#[derive(Debug)]
pub struct Evidence {
    /// Bundles, one after the other; none if nothing is proven yet.
    pub bundles: Vec<u8>,
    /// Which readings have no evidence, and what they wait for, in one sentence.
    pub not_proven: Option<String>,
}

/// Whether the listener wants more.
enum More {
    Yes,
    No,
}

/// Why a stream ended.
enum Broken {
    /// It can be made again.
    Line(anyhow::Error),
    /// It cannot.
    Final(anyhow::Error),
}
