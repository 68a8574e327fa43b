//! A client of the cloud's HTTPS API: the operator's CA is the only one it believes, and it brings a token.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use fivefold_keep::files;
use fivefold_keep::tls::{Anchor, Groups, client_config_api};
use serde_json::Value;
use tokio::runtime::Runtime;

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
        let url = format!("{}{path}", self.base);
        self.runtime.block_on(async {
            let request = self.client.get(&url).bearer_auth(&self.token);
            let answer = request.send().await.with_context(|| format!("cannot reach {}", self.base))?;
            let status = answer.status();
            let body: Value = answer.json().await.with_context(|| format!("{url} answered {status} without JSON"))?;
            anyhow::ensure!(
                status.is_success(),
                "the cloud answered {status}: {}",
                body["public"].as_str().unwrap_or("no reason")
            );
            Ok(body)
        })
    }
}
