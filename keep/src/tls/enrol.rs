//! TLS of enrolment: a gateway without a certificate, and the cloud that may give it one, on the port of E4. The client
//! asks for it by its application protocol (RFC 7301), so that no other connection comes without a certificate.

use std::sync::Arc;

use fivefold_core::suite::sha256;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use super::{Anchor, Groups, LiveIdentity, TlsError, client_builder, cloud_verifier, finish, provider, refuse, server};
use super::{ROLE, Rejected, certificates};

/// The application protocol of enrolment.
pub const ENROL: &[u8] = b"fivefold-enrol/1";

/// Whether a client asks for enrolment, and for nothing else.
pub fn wants_enrolment(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(ENROL) && offered.next().is_none())
}

/// How a gateway knows the operator's CA before it has anything else of it.
#[derive(Clone, Debug)]
pub enum Pin {
    /// The certificate itself.
    Anchor(Anchor),
    /// SHA-256 of the certificate (DER); the cloud shows it.
    Hash([u8; 32]),
}

/// SHA-256 of the first certificate in PEM: what [`Pin::Hash`] compares.
///
/// # Errors
/// [`TlsError::NoCertificate`].
pub fn certificate_hash(pem: &[u8]) -> Result<[u8; 32], TlsError> {
    let chain = certificates(pem)?;
    Ok(sha256(&[chain.first().ok_or(TlsError::NoCertificate)?]))
}

impl Pin {
    /// Whether this is the CA that was meant.
    pub fn fits(&self, ca: &[u8]) -> bool {
        match self {
            Self::Anchor(anchor) => Anchor::from_pem(ca).is_ok_and(|other| other.roots.roots == anchor.roots.roots),
            Self::Hash(hash) => certificate_hash(ca).is_ok_and(|other| other == *hash),
        }
    }
}

/// The cloud's side of enrolment: no client certificate, and the CA's own certificate behind the cloud's.
///
/// # Errors
/// [`TlsError`] when `identity` is no cloud's, the CA cannot be read, or rustls refuses.
pub fn server_config_enrol(identity: &LiveIdentity, ca: &[u8], groups: Groups) -> Result<ServerConfig, TlsError> {
    identity.current().require_cloud()?;
    let builder = ServerConfig::builder_with_provider(provider(groups))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Setup)?
        .with_no_client_auth();
    let resolver = WithCa { identity: identity.clone(), ca: certificates(ca)? };
    let mut config = server(builder.with_cert_resolver(Arc::new(resolver)));
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![ENROL.to_vec()];
    Ok(config)
}

/// The gateway's side of enrolment: it takes only a cloud's certificate for the name that it dialled, of the CA that it was
/// told.
///
/// # Errors
/// [`TlsError`] when rustls refuses.
pub fn client_config_enrol(pin: &Pin, groups: Groups) -> Result<ClientConfig, TlsError> {
    let verifier: Arc<dyn ServerCertVerifier> = match pin {
        Pin::Anchor(anchor) => cloud_verifier(anchor, Arc::default(), groups)?,
        Pin::Hash(hash) => Arc::new(PinnedCa { hash: *hash, groups }),
    };
    let mut config = finish(client_builder(verifier, groups)?.with_no_client_auth());
    config.alpn_protocols = vec![ENROL.to_vec()];
    Ok(config)
}

/// The cloud's identity as it is at each handshake, with the CA's certificate behind it.
#[derive(Debug)]
struct WithCa {
    identity: LiveIdentity,
    ca: Vec<CertificateDer<'static>>,
}

impl ResolvesServerCert for WithCa {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.identity.current();
        let mut certified = CertifiedKey::clone(&current.certified);
        certified.cert.extend(self.ca.iter().cloned());
        Some(Arc::new(certified))
    }
}

/// Takes the CA out of what the server shows, if its hash is the one that was told, and trusts it alone.
#[derive(Debug)]
struct PinnedCa {
    hash: [u8; 32],
    groups: Groups,
}

impl PinnedCa {
    fn signatures(&self) -> rustls::crypto::WebPkiSupportedAlgorithms {
        provider(self.groups).signature_verification_algorithms
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        const OTHER: Rejected = Rejected::new(ROLE, "the cloud shows no CA with the hash that was given");
        let ca = intermediates.iter().find(|c| sha256(&[c]) == self.hash).ok_or_else(|| refuse(OTHER))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let anchor = Anchor { roots: Arc::new(roots) };
        let verifier =
            cloud_verifier(&anchor, Arc::default(), self.groups).map_err(|e| rustls::Error::General(e.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.signatures())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.signatures())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures().supported_schemes()
    }
}
