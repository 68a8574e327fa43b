//! How a gateway gets its first certificate: keys are made here, and what comes back is checked before it is kept.
//!
//! Three steps, each of which may be done again after a crash: [`prepare`] makes the keys durable, [`ask`] shows them to the
//! cloud with the operator's token, [`settle`] keeps what came back. Where there is no way to the cloud, a person carries
//! the request to the operator and the grant back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fivefold_core::e4_channel::GatewayName;
use fivefold_core::error::Rejected;
use fivefold_core::time::Millis;
use fivefold_keep::ca::CaError;
use fivefold_keep::enrol::{GRANT_BYTES, Grant, Keys, Token};
use fivefold_keep::files::{self, FileError, Readers};
use fivefold_keep::share::{
    self, CA_FILE, GATEWAY_FILE, GatewayCoap, GatewayLimits, GatewayLink, GatewaySettings, GatewayStore, GatewayUplink,
    ShareError,
};
use fivefold_keep::successor::{Journal, Next};
use fivefold_keep::tls::{Anchor, Groups, Identity, Pin, TlsError, classify, client_config_enrol};
use fivefold_keep::vault::{VAULT_FILE, Vault, VaultError};
use serde::Deserialize;

use crate::config::{ConfigError, check_clock};

/// How long the cloud may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// First lines of every `gateway.toml`.
pub const HEADING: &str = "A Fivefold gateway. Paths are relative to this file; secrets are in secrets.sealed.\n\
                           Run it with: fivefold gateway run --dir THIS_FOLDER";

/// Why a gateway did not join. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The keys could not be made.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The clock is wrong, or a config is.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// What was granted cannot be used.
    #[error("what the operator granted cannot be used: {0}")]
    Grant(String),
    /// The HTTP client cannot be made.
    #[error("no connection can be made: {0}")]
    Http(#[from] reqwest::Error),
    /// Nothing was prepared in this folder.
    #[error("{folder} waits for no grant; make its request first: fivefold gateway join --dir {folder} --csr-file FILE --name URN", folder = folder.display())]
    NothingAsked {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder is another gateway's.
    #[error("{folder} is the folder of {found}, and this is for {asked}: name another folder", folder = folder.display())]
    OtherGateway {
        /// The folder.
        folder: PathBuf,
        /// Whose it is.
        found: GatewayName,
        /// What was asked for.
        asked: GatewayName,
    },
    /// The cloud refuses.
    #[error("the cloud refuses ({code}): {reason}")]
    Refused {
        /// One word.
        code: String,
        /// One sentence.
        reason: String,
    },
    /// A share cannot be read or written.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What answers is not the operator's cloud.
    #[error(
        "{cloud} is not the operator's cloud: {rejected}; check --cloud, and --ca-file or --ca-hash with the operator"
    )]
    Untrusted {
        /// Where it was tried.
        cloud: String,
        /// Why.
        rejected: Rejected,
    },
    /// The cloud cannot be reached.
    #[error("{cloud} cannot be reached: {reason}; the keys are kept, type the same command again")]
    Unreachable {
        /// Where it was tried.
        cloud: String,
        /// Why.
        reason: String,
    },
    /// The vault did not open.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// What the gateway's own site decides.
#[derive(Clone, Debug)]
pub struct Site {
    /// Where the cloud is.
    pub cloud: String,
    /// UDP address of its radio (ZEP).
    pub radio: SocketAddr,
    /// Radios that hear it.
    pub air: Vec<SocketAddr>,
    /// UDP address for CoAP.
    pub coap: Option<SocketAddr>,
}

/// Makes folder, vault and keys, if they are not there, and returns the request (PEM). The keys are durable by then.
///
/// # Errors
/// [`JoinError`]; the folder is another gateway's.
pub fn prepare(folder: &Path, name: GatewayName, now: Millis) -> Result<String, JoinError> {
    check_clock(now)?;
    let path = folder.join(GATEWAY_FILE);
    if path.exists() {
        let settings: GatewaySettings = share::read_config(&path)?;
        let (gateway, net, _) = share::gateway_identity(&path, &settings)?;
        let found = GatewayName { net, gateway };
        if found != name {
            return Err(JoinError::OtherGateway { folder: folder.to_owned(), found, asked: name });
        }
    }
    files::create_folder(folder)?;
    let vault = match folder.join(VAULT_FILE).exists() {
        true => open(folder)?,
        false => Vault::create(folder)?,
    };
    let journal = Journal::of_enrolment(folder, &vault);
    let keys = match journal.read()? {
        Some(Next::Asked(keys) | Next::Issued(keys, _) | Next::Proven(keys, _)) => keys,
        None => {
            let keys = Keys::draw()?;
            journal.write(&Next::Asked(keys.clone()))?;
            keys
        }
    };
    Ok(keys.request(name)?)
}

fn open(folder: &Path) -> Result<Vault, VaultError> {
    Vault::open_folder(folder)
}

/// Shows token and request to the cloud, which is known by the operator's CA, and returns what is granted.
///
/// # Errors
/// [`JoinError::Refused`], [`JoinError::Untrusted`], [`JoinError::Unreachable`].
pub async fn ask(cloud: &str, pin: &Pin, token: &Token, request: String) -> Result<Grant, JoinError> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(client_config_enrol(pin, Groups::HybridOnly)?)
        .https_only(true)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(PATIENCE)
        .build()?;
    let unreachable = |reason: String| JoinError::Unreachable { cloud: cloud.to_owned(), reason };
    let request = client
        .post(format!("{}/v1/enrol", cloud.trim_end_matches('/')))
        .bearer_auth(token.danger_text())
        .header("Content-Type", "application/x-pem-file")
        .body(request);
    let mut response = request.send().await.map_err(|e| match classify(&e) {
        Some(rejected) => JoinError::Untrusted { cloud: cloud.to_owned(), rejected },
        None => unreachable(crate::uplink::chain(&e)),
    })?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| unreachable(crate::uplink::chain(&e)))? {
        if body.len() + chunk.len() > GRANT_BYTES {
            return Err(JoinError::Grant(format!("it is longer than {GRANT_BYTES} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    if response.status().as_u16() != 200 {
        let problem = Problem::of(&body);
        let code = problem.as_ref().map_or_else(|| response.status().to_string(), |p| p.code.clone());
        let reason = problem.map_or_else(|| "it does not say why".to_owned(), |p| p.public);
        return Err(JoinError::Refused { code, reason });
    }
    let text = String::from_utf8(body).map_err(|_| JoinError::Grant("it is no text".into()))?;
    Grant::parse(&text).map_err(JoinError::Grant)
}

/// An error of the cloud's, as it says it.
#[derive(Debug, Deserialize)]
pub(crate) struct Problem {
    pub(crate) code: String,
    pub(crate) public: String,
}

impl Problem {
    pub(crate) fn of(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }
}

/// Checks what was granted and keeps it: CA, config, certificate, and the keys under the gateway's own vault. A config that
/// is there already stays as it is. Returns the gateway's name and its certificate.
///
/// # Errors
/// [`JoinError::Grant`] when it is not for these keys, of another CA, or not valid now.
pub fn settle(
    folder: &Path,
    grant: &Grant,
    pin: &Pin,
    site: &Site,
    now: Millis,
) -> Result<(String, Identity), JoinError> {
    check_clock(now)?;
    let nothing = || JoinError::NothingAsked { folder: folder.to_owned() };
    if !folder.join(VAULT_FILE).exists() {
        return Err(nothing());
    }
    let vault = open(folder)?;
    let journal = Journal::of_enrolment(folder, &vault);
    let Some(Next::Asked(keys) | Next::Issued(keys, _) | Next::Proven(keys, _)) = journal.read()? else {
        return Err(nothing());
    };
    let bad = |why: String| JoinError::Grant(why);
    if !pin.fits(grant.ca.as_bytes()) {
        return Err(bad("it is of another CA than the one that was named".into()));
    }
    let anchor = Anchor::from_pem(grant.ca.as_bytes())?;
    let identity = Identity::from_pkcs8(grant.certificate.as_bytes(), &keys.tls).map_err(|e| bad(e.to_string()))?;
    identity.check_chain(&anchor, now).map_err(|e| bad(e.to_string()))?;
    let name = identity.gateway().map_err(|e| bad(e.to_string()))?;
    let path = folder.join(GATEWAY_FILE);
    let settings = settings(&path, grant, site)?;
    let (gateway, net, _) = share::gateway_identity(&path, &settings).map_err(|e| bad(e.to_string()))?;
    if name != (GatewayName { net, gateway }) {
        return Err(bad("its certificate is another gateway's".into()));
    }
    if path.exists() {
        let had: GatewaySettings = share::read_config(&path)?;
        if (&had.id, &had.net) != (&settings.id, &settings.net) {
            let (gateway, net, _) = share::gateway_identity(&path, &had)?;
            let found = GatewayName { net, gateway };
            return Err(JoinError::OtherGateway { folder: folder.to_owned(), found, asked: name });
        }
    } else {
        share::write_config(&path, HEADING, &settings)?;
    }
    files::write(&folder.join(CA_FILE), Readers::Everybody, grant.ca.as_bytes())?;
    // A renewal that was under way is of a pair that counts for nothing any more.
    Journal::of_renewal(folder, &vault).clear()?;
    journal.write(&Next::Proven(keys, grant.certificate.clone()))?;
    journal.settle()?;
    Ok((grant.name.clone(), identity))
}

fn settings(path: &Path, grant: &Grant, site: &Site) -> Result<GatewaySettings, JoinError> {
    let bad = |e: ShareError| JoinError::Grant(e.to_string());
    share::pan(path, &grant.pan).map_err(bad)?;
    share::parse::<fivefold_core::id::Did>(path, "did", &grant.did).map_err(bad)?;
    share::parse::<fivefold_core::id::Sid>(path, "sid", &grant.sid).map_err(bad)?;
    Ok(GatewaySettings {
        name: grant.name.clone(),
        id: grant.id.clone(),
        net: grant.net.clone(),
        group: grant.group.clone(),
        link: GatewayLink {
            did: grant.did.clone(),
            sid: grant.sid.clone(),
            pan: grant.pan.clone(),
            bind: site.radio,
            air: site.air.clone(),
            minimum_level: 6,
            danger_synced: Vec::new(),
        },
        coap: site.coap.map(|bind| GatewayCoap { bind, devices: Vec::new() }),
        uplink: Some(GatewayUplink { cloud: site.cloud.clone(), insecure_allow_x25519: false }),
        local: None,
        store: GatewayStore::default(),
        limits: GatewayLimits::default(),
        metrics: None,
        insecure_http: None,
        xbee: None,
        lorawan: None,
    })
}
