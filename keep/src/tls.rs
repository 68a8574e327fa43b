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

pub use classify::{classify, classify_tls};

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use fivefold_core::e4_channel::{GatewayName, ProvenGateway};
use fivefold_core::error::{Code, Rejected};
use fivefold_core::time::Millis;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

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

/// Serial number of a certificate, as the big-endian bytes that stand in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(pub Vec<u8>);

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

/// What is not trusted any more, although the CA signed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Gateways, whatever certificate they show.
    pub gateways: HashSet<GatewayName>,
    /// Single certificates of any role.
    pub serials: HashSet<Serial>,
}

/// The revocations that every handshake consults: whoever learns of a new one stores a new set.
pub type LiveRevoked = ArcSwap<Revoked>;

/// What counts of a certificate beside its chain.
#[derive(Clone)]
struct Leaf {
    serial: Serial,
    // The only name, if it is one URI.
    uri: Option<String>,
    names: usize,
    has_uri: bool,
    client: bool,
    server: bool,
    other_purpose: bool,
    is_ca: bool,
    not_before: Millis,
    not_after: Millis,
}

const ROLE: Code = Code::ChannelRefused;

impl Leaf {
    fn read(certificate: &CertificateDer<'_>) -> Result<Self, Rejected> {
        const UNREADABLE: Rejected = Rejected::new(ROLE, "the certificate cannot be read");
        let (rest, x509) = X509Certificate::from_der(certificate).map_err(|_| UNREADABLE)?;
        if !rest.is_empty() {
            return Err(UNREADABLE);
        }
        let san = x509.subject_alternative_name().map_err(|_| UNREADABLE)?;
        let names = san.map_or(&[][..], |san| &san.value.general_names);
        let uri = match names {
            [GeneralName::URI(uri)] => Some((*uri).to_owned()),
            _ => None,
        };
        let purpose = x509.extended_key_usage().map_err(|_| UNREADABLE)?.map(|eku| eku.value);
        let millis = |seconds: i64| Millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
        Ok(Self {
            serial: Serial(x509.raw_serial().to_vec()),
            uri,
            names: names.len(),
            has_uri: names.iter().any(|name| matches!(name, GeneralName::URI(_))),
            client: purpose.is_some_and(|p| p.client_auth),
            server: purpose.is_some_and(|p| p.server_auth),
            other_purpose: purpose.is_some_and(|p| {
                p.any
                    || p.code_signing
                    || p.email_protection
                    || p.time_stamping
                    || p.ocsp_signing
                    || !p.other.is_empty()
            }),
            is_ca: x509.is_ca(),
            not_before: millis(x509.validity().not_before.timestamp()),
            not_after: millis(x509.validity().not_after.timestamp()),
        })
    }

    /// A gateway: EKU clientAuth and nothing else, one SAN `urn:gw:<net>:<gw>` and nothing else.
    fn gateway(&self) -> Result<GatewayName, Rejected> {
        if self.is_ca || !self.client || self.server || self.other_purpose {
            return Err(Rejected::new(ROLE, "no gateway's certificate: its purpose must be clientAuth alone"));
        }
        let uri = self.uri.as_deref().filter(|_| self.names == 1);
        uri.and_then(|uri| uri.parse().ok())
            .ok_or(Rejected::new(ROLE, "no gateway's certificate: its only name must be urn:gw:<net>:<gw>"))
    }

    /// A cloud: EKU serverAuth and nothing else, no name that is a gateway's.
    fn cloud(&self) -> Result<(), Rejected> {
        if self.is_ca || !self.server || self.client || self.other_purpose {
            return Err(Rejected::new(ROLE, "no cloud's certificate: its purpose must be serverAuth alone"));
        }
        if self.has_uri || self.names == 0 {
            return Err(Rejected::new(ROLE, "no cloud's certificate: its names must be DNS names or addresses"));
        }
        Ok(())
    }

    fn check_gateway(&self, revoked: &Revoked) -> Result<GatewayName, Rejected> {
        let name = self.gateway()?;
        if revoked.gateways.contains(&name) || revoked.serials.contains(&self.serial) {
            return Err(Rejected::new(ROLE, "the gateway or its certificate is revoked"));
        }
        Ok(name)
    }

    fn check_cloud(&self, revoked: &Revoked) -> Result<(), Rejected> {
        self.cloud()?;
        if revoked.serials.contains(&self.serial) {
            return Err(Rejected::new(ROLE, "the cloud's certificate is revoked"));
        }
        Ok(())
    }
}

/// What the acceptor does after every handshake, resumed or not: role, name, validity and revocation of the gateway that
/// the connection belongs to.
///
/// # Errors
/// E4-01 with what is wrong.
pub fn prove_gateway(connection: &ServerConnection, revoked: &Revoked, now: Millis) -> Result<ProvenGateway, Rejected> {
    if connection.is_handshaking() {
        return Err(Rejected::new(ROLE, "the handshake is not over"));
    }
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    let leaf = Leaf::read(certificate.ok_or(Rejected::new(ROLE, "no client certificate"))?)?;
    let name = leaf.check_gateway(revoked)?;
    if now < leaf.not_before || now >= leaf.not_after {
        return Err(Rejected::new(ROLE, "the certificate is expired, or not valid yet"));
    }
    Ok(ProvenGateway::assertion(name))
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

/// The cloud's side of E4: client certificates are required, and must be those of gateways.
///
/// # Errors
/// [`TlsError`] when `identity` is no cloud's, or rustls refuses.
pub fn server_config_e4(
    identity: &LiveIdentity,
    ca: &Anchor,
    revoked: Arc<LiveRevoked>,
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
        .with_client_cert_verifier(Arc::new(GatewayVerifier { chain, revoked }));
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

fn client(
    ca: &Anchor,
    revoked: Arc<LiveRevoked>,
    groups: Groups,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, TlsError> {
    let provider = provider(groups);
    let chain = WebPkiServerVerifier::builder_with_provider(ca.roots.clone(), provider.clone())
        .build()
        .map_err(|e| TlsError::Setup(rustls::Error::General(e.to_string())))?;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Setup)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(CloudVerifier { chain, revoked })))
}

fn finish(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.alpn_protocols = application_protocols();
    config
}

fn refuse(rejected: Rejected) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(rejected))))
}

#[derive(Debug)]
struct GatewayVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    revoked: Arc<LiveRevoked>,
}

impl ClientCertVerifier for GatewayVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        Leaf::read(end_entity).and_then(|leaf| leaf.check_gateway(&self.revoked.load())).map_err(refuse)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct CloudVerifier {
    chain: Arc<WebPkiServerVerifier>,
    revoked: Arc<LiveRevoked>,
}

impl ServerCertVerifier for CloudVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // Role first: a gateway's certificate has no name that could fit, and the code should say what it is.
        Leaf::read(end_entity).and_then(|leaf| leaf.check_cloud(&self.revoked.load())).map_err(refuse)?;
        self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
