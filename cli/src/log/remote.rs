//! Static files of a log from a folder or a web server. Nothing that comes is believed: signatures and hashes are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use fivefold_evidence::note::Malformed;
use fivefold_evidence::tile::{Directory, Fetch, FetchError};
use fivefold_keep::files;
use fivefold_keep::tls::{Anchor, client_config_web};
use tokio::runtime::Runtime;

/// Bytes of a file, at most: 256 entries of the greatest length.
const LONGEST: usize = 256 * 65_537;
/// How long a file may take.
const TIME: Duration = Duration::from_secs(30);

/// Where the files are.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Source {
    /// The log: a folder, or an address that begins with http:// or https://.
    #[arg(value_name = "URL-or-DIR")]
    from: String,
    /// CA of the server's certificate (PEM), for https://.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// The files, ready to be read.
pub(super) enum Files {
    Folder(Directory),
    Web { client: reqwest::Client, base: String, runtime: Runtime },
}

impl Source {
    pub(super) fn open(&self) -> anyhow::Result<Files> {
        let is_https = self.from.starts_with("https://");
        if !is_https && !self.from.starts_with("http://") {
            let folder = Path::new(&self.from);
            anyhow::ensure!(folder.is_dir(), "{} is no folder; name the folder of a log, or its address", self.from);
            return Ok(Files::Folder(Directory(folder.into())));
        }
        let anchor = match &self.ca {
            Some(ca) => Anchor::from_pem(files::read_text(ca)?.as_bytes())?,
            None if is_https => anyhow::bail!("for https:// name the CA of the server's certificate: --ca FILE"),
            None => Anchor::none(),
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(client_config_web(&anchor)?)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIME)
            .build()
            .context("cannot make an HTTP client")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Files::Web { client, base: self.from.trim_end_matches('/').into(), runtime })
    }
}

impl Fetch for Files {
    fn fetch(&self, path: &str) -> Result<Vec<u8>, FetchError> {
        match self {
            Self::Folder(folder) => folder.fetch(path),
            Self::Web { client, base, runtime } => runtime.block_on(get(client, base, path)),
        }
    }
}

async fn get(client: &reqwest::Client, base: &str, path: &str) -> Result<Vec<u8>, FetchError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| FetchError::Failed { path: path.into(), source };
    let mut answer = client.get(format!("{base}/{path}")).send().await.map_err(|e| failed(e.into()))?;
    match answer.status().as_u16() {
        200 => {}
        404 | 410 => return Err(FetchError::Missing(path.into())),
        status => return Err(failed(format!("the server answered {status}").into())),
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|e| failed(e.into()))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > LONGEST {
            let reason = Malformed("it is longer than any can be");
            return Err(FetchError::Malformed { path: path.into(), reason });
        }
    }
    Ok(bytes)
}
