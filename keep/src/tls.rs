//! # TLS of E4 and of the API
//!
//! | | |
//! |---|---|
//! | Key held by | each side its own; one CA of the operator signs all of them and is the only one trusted |
//! | Hides       | everything, also from those who record today and have a quantum computer later (X25519MLKEM768) |
//! | Proves      | role and name: a gateway is a client and nothing else, the cloud a server and nothing else |
//! | Drops as    | `E4-01`, `E4-07` ([`classify`]) |
//! | Does not    | know networks: whether a gateway may speak for a device is the cloud's question (`E4-02`) |
//! | Spec        | docs/protocol.md 10 |
//!
//! TLS 1.3, AES-256-GCM or ChaCha20-Poly1305, no early data. Tickets live 24 hours at most, and a resumed connection shows
//! its certificate to no verifier: so the acceptor calls [`prove_gateway`] after every handshake, resumed or not, and our
//! own clients do not resume.

mod classify;
mod enrol;
mod leaf;
mod roll;
mod verify;

pub use classify::{classify, classify_tls, refuses_us};
pub use enrol::{ENROL, Pin, certificate_hash, client_config_enrol, server_config_enrol, wants_enrolment};
pub use leaf::{LiveRevoked, Revoked, Serial};
pub use roll::{LiveRoll, May, Proven, Roll, Standing, prove_gateway};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::error::Rejected;
use fivefold_core::time::Millis;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ResolvesClientCert, Resumption, WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, SignatureScheme};

use leaf::{Leaf, ROLE};
use verify::{CloudVerifier, GatewayVerifier, refuse};

/// Sessions that a server remembers, at most; each for 24 hours at most.
const SESSIONS: usize = 4096;

/// Which key exchange is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Groups {
    /// X25519MLKEM768 and no other.
    #[default]
    HybridOnly,
    /// X25519 too, where the operator's policy says so: what is recorded now may be read later.
    DangerAllowX25519,
}

/// Why an identity or a configuration could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// There is no certificate in what was given, or it cannot be read.
    #[error("no certificate could be read: expected one or more PEM CERTIFICATE blocks")]
    NoCertificate,
    /// There is no private key in what was given, or it cannot be read.
    #[error("no private key could be read: expected one PEM PRIVATE KEY block (PKCS#8, P-256)")]
    NoKey,
    /// The private key is that of another certificate.
    #[error("the private key does not belong to the certificate: renew both together")]
    KeyMismatch,
    /// The certificate is for another role or name than it is used for.
    #[error("this certificate cannot be used here: {0}")]
    WrongRole(&'static str),
    /// The certificate is of another network or gateway than the configuration.
    #[error("the certificate is for {found}, the configuration says {expected}: use the certificate of this gateway")]
    WrongGateway {
        /// As configured.
        expected: GatewayName,
        /// As in the certificate.
        found: GatewayName,
    },
    /// The CA certificate cannot be used as a trust anchor.
    #[error("the CA certificate cannot be used")]
    Anchor(#[source] rustls::Error),
    /// rustls refused the configuration.
    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// The operator's CA: the only one whose certificates count.
#[derive(Clone, Debug)]
pub struct Anchor {
    roots: Arc<RootCertStore>,
}

impl Anchor {
    /// No CA at all: whoever uses it talks to nobody over TLS.
    pub fn none() -> Self {
        Self { roots: Arc::new(RootCertStore::empty()) }
    }

    /// From PEM with one or more CA certificates (two while a CA is being replaced).
    ///
    /// # Errors
    /// [`TlsError::NoCertificate`] or [`TlsError::Anchor`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(pem)? {
            roots.add(certificate).map_err(TlsError::Anchor)?;
        }
        Ok(Self { roots: Arc::new(roots) })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| TlsError::NoCertificate)?;
    if chain.is_empty() { Err(TlsError::NoCertificate) } else { Ok(chain) }
}

/// A certificate with its private key, ready for use. Prints nothing of the key.
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    leaf: Leaf,
}

impl Identity {
    /// From the certificate in PEM, intermediates after it if there are any, and the key in PKCS#8 (DER), as the vault
    /// opens it. The caller keeps `key` in [`zeroize::Zeroizing`] and drops it soon.
    ///
    /// # Errors
    /// [`TlsError`] when either cannot be read or they do not belong together.
    pub fn from_pkcs8(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::from_der(certificates(chain)?, &PrivateKeyDer::Pkcs8(key.into()))
    }

    /// The same with the key in PEM.
    ///
    /// # Errors
    /// [`TlsError`] when either cannot be read or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
        Self::from_der(certificates(chain)?, &key)
    }

    /// From DER: the certificate first, and the key.
    ///
    /// # Errors
    /// [`TlsError`] when either cannot be read or they do not belong together.
    pub fn from_der(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'_>) -> Result<Self, TlsError> {
        let leaf = Leaf::read(chain.first().ok_or(TlsError::NoCertificate)?).map_err(|_| TlsError::NoCertificate)?;
        let key = aws_lc_rs::sign::any_ecdsa_type(key).map_err(|_| TlsError::NoKey)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|_| TlsError::KeyMismatch)?;
        Ok(Self { certified: Arc::new(certified), leaf })
    }

    /// Which gateway the certificate is for.
    ///
    /// # Errors
    /// [`TlsError::WrongRole`] when it is no gateway's certificate.
    pub fn gateway(&self) -> Result<GatewayName, TlsError> {
        self.leaf.gateway().map_err(|e| TlsError::WrongRole(e.reason))
    }

    /// The gateway's own check before it starts E4: its certificate must be for what it is configured as.
    ///
    /// # Errors
    /// [`TlsError::WrongGateway`] or [`TlsError::WrongRole`].
    pub fn require_gateway(&self, expected: GatewayName) -> Result<(), TlsError> {
        let found = self.gateway()?;
        if found == expected { Ok(()) } else { Err(TlsError::WrongGateway { expected, found }) }
    }

    /// The cloud's own check before it starts: its certificate must be a cloud's.
    ///
    /// # Errors
    /// [`TlsError::WrongRole`].
    pub fn require_cloud(&self) -> Result<(), TlsError> {
        self.leaf.cloud().map_err(|e| TlsError::WrongRole(e.reason))
    }

    /// When it begins and ends to be valid: to renew it at 2/3 of its life, and for AR-20.
    pub fn validity(&self) -> (Millis, Millis) {
        (self.leaf.not_before, self.leaf.not_after)
    }

    /// Serial number of the certificate.
    pub fn serial(&self) -> &Serial {
        &self.leaf.serial
    }

    /// Checks its chain as the cloud would: of this CA, for a gateway, valid at `now`. A gateway asks before it keeps what
    /// it was given.
    ///
    /// # Errors
    /// E4-01 with what is wrong.
    pub fn check_chain(&self, ca: &Anchor, now: Millis) -> Result<(), Rejected> {
        let verifier = WebPkiClientVerifier::builder_with_provider(ca.roots.clone(), provider(Groups::HybridOnly))
            .build()
            .map_err(|_| Rejected::new(ROLE, "the CA cannot be used"))?;
        let (leaf, rest) = self.certified.cert.split_first().ok_or(Rejected::new(ROLE, "there is no certificate"))?;
        let at = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
        verifier.verify_client_cert(leaf, rest, at).map_err(|e| classify_tls(&e))?;
        self.leaf.gateway().map(drop)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.leaf.serial)
    }
}

/// An identity that can be replaced while configurations that use it are running: new connections take the new one.
#[derive(Clone, Debug)]
pub struct LiveIdentity {
    current: Arc<ArcSwap<Identity>>,
}

impl LiveIdentity {
    /// Starts with `identity`.
    pub fn new(identity: Identity) -> Self {
        Self { current: Arc::new(ArcSwap::from_pointee(identity)) }
    }

    /// From the next handshake on, `identity`. Open connections go on under the old one.
    pub fn replace(&self, identity: Identity) {
        self.current.store(Arc::new(identity));
    }

    /// The one in use.
    pub fn current(&self) -> Arc<Identity> {
        self.current.load_full()
    }
}

impl ResolvesServerCert for LiveIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().certified.clone())
    }
}

impl ResolvesClientCert for LiveIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn provider(groups: Groups) -> Arc<CryptoProvider> {
    use aws_lc_rs::{cipher_suite, kx_group};
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_CHACHA20_POLY1305_SHA256],
        kx_groups: match groups {
            Groups::HybridOnly => vec![kx_group::X25519MLKEM768],
            Groups::DangerAllowX25519 => vec![kx_group::X25519MLKEM768, kx_group::X25519],
        },
        ..aws_lc_rs::default_provider()
    })
}

fn application_protocols() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

/// The cloud's side of E4: client certificates are required, and must be those of gateways that the roll has.
///
/// # Errors
/// [`TlsError`] when `identity` is no cloud's, or rustls refuses.
pub fn server_config_e4(
    identity: &LiveIdentity,
    ca: &Anchor,
    roll: Arc<LiveRoll>,
    groups: Groups,
) -> Result<ServerConfig, TlsError> {
    identity.current().require_cloud()?;
    let provider = provider(groups);
    let chain = WebPkiClientVerifier::builder_with_provider(ca.roots.clone(), provider.clone())
        .build()
        .map_err(|e| TlsError::Setup(rustls::Error::General(e.to_string())))?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Setup)?
        .with_client_cert_verifier(Arc::new(GatewayVerifier { chain, roll }));
    Ok(server(builder.with_cert_resolver(Arc::new(identity.clone()))))
}

/// The cloud's API: no client certificates, since tokens tell who asks. X25519 is taken beside the hybrid group, for
/// clients that know no better.
///
/// # Errors
/// [`TlsError`] when `identity` is no cloud's, or rustls refuses.
pub fn server_config_api(identity: &LiveIdentity) -> Result<ServerConfig, TlsError> {
    identity.current().require_cloud()?;
    let builder = ServerConfig::builder_with_provider(provider(Groups::DangerAllowX25519))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Setup)?
        .with_no_client_auth();
    Ok(server(builder.with_cert_resolver(Arc::new(identity.clone()))))
}

/// A server for the world, e.g. a witness: no client certificates, and whatever certificate its operator got for it.
///
/// # Errors
/// [`TlsError`] when rustls refuses.
pub fn server_config_web(identity: &LiveIdentity) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider(Groups::DangerAllowX25519))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Setup)?
        .with_no_client_auth();
    Ok(server(builder.with_cert_resolver(Arc::new(identity.clone()))))
}

fn server(mut config: ServerConfig) -> ServerConfig {
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS);
    config.max_early_data_size = 0;
    config.alpn_protocols = application_protocols();
    config
}

/// The gateway's side of E4: it shows its own certificate, and takes only a cloud's for the name that it dialled.
///
/// # Errors
/// [`TlsError`] when `identity` is no gateway's, or rustls refuses.
pub fn client_config_e4(
    identity: &LiveIdentity,
    ca: &Anchor,
    revoked: Arc<LiveRevoked>,
    groups: Groups,
) -> Result<ClientConfig, TlsError> {
    identity.current().gateway()?;
    let builder = client(ca, revoked, groups)?;
    Ok(finish(builder.with_client_cert_resolver(Arc::new(identity.clone()))))
}

/// A client of the cloud's API: it takes only a cloud's certificate for the name that it dialled.
///
/// # Errors
/// [`TlsError`] when rustls refuses.
pub fn client_config_api(ca: &Anchor, groups: Groups) -> Result<ClientConfig, TlsError> {
    Ok(finish(client(ca, Arc::default(), groups)?.with_no_client_auth()))
}

/// A client of somebody else's server, e.g. a witness: it takes any certificate for the name that it dialled that `ca` stands
/// behind, by TLS 1.3.
///
/// # Errors
/// [`TlsError`] when rustls refuses.
pub fn client_config_web(ca: &Anchor) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider(Groups::DangerAllowX25519))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Setup)?
        .with_root_certificates(ca.roots.clone());
    Ok(finish(builder.with_no_client_auth()))
}

fn client(
    ca: &Anchor,
    revoked: Arc<LiveRevoked>,
    groups: Groups,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    client_builder(cloud_verifier(ca, revoked, groups)?, groups)
}

fn cloud_verifier(
    ca: &Anchor,
    revoked: Arc<LiveRevoked>,
    groups: Groups,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let chain = WebPkiServerVerifier::builder_with_provider(ca.roots.clone(), provider(groups))
        .build()
        .map_err(|e| TlsError::Setup(rustls::Error::General(e.to_string())))?;
    Ok(Arc::new(CloudVerifier { chain, revoked }))
}

fn client_builder(
    verifier: Arc<dyn ServerCertVerifier>,
    groups: Groups,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider(groups))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(verifier))
}

fn finish(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = application_protocols();
    config
}
