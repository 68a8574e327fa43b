//! Speaking TLS as somebody else: as the cloud to gateways that were led astray, as a gateway to the cloud.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, ServerConnection, SignatureScheme, Stream,
};

use super::Report;
use super::door::Door;
use super::plan::Plan;

/// A certificate chain and its key.
#[derive(Debug)]
pub struct Identity {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS #8 key of the leaf.
    pub key: PrivateKeyDer<'static>,
}

/// Whose part is played with a certificate of one's own making.
#[derive(Clone, Debug)]
pub enum Part {
    /// The cloud, at these names.
    Cloud(Vec<String>),
    /// The gateway with this SAN URI.
    Gateway(String),
}

impl Identity {
    /// A certificate that looks right in everything but its issuer, which is an authority that the attacker made.
    ///
    /// # Errors
    /// A name is no name.
    pub fn homemade(part: &Part) -> anyhow::Result<Self> {
        let authority_key = KeyPair::generate()?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_certificate = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        let mut leaf = match part {
            Part::Cloud(names) => {
                let mut leaf = CertificateParams::new(names.clone())?;
                leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                leaf
            }
            Part::Gateway(uri) => {
                let mut leaf = CertificateParams::new(Vec::new())?;
                leaf.subject_alt_names = vec![SanType::URI(uri.as_str().try_into()?)];
                leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                leaf
            }
        };
        leaf.is_ca = IsCa::NoCa;
        let certificate = leaf.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Self { chain: vec![certificate.der().clone(), authority_certificate.der().clone()], key })
    }
}

/// Listens as the cloud until `until`, or until so many came as are enough, and counts who came and who believed it. A believer's
/// request is read, and answered with an empty 200.
///
/// # Errors
/// The address is taken, or the identity is not usable.
pub fn as_cloud(bind: SocketAddr, who: Identity, until: Duration) -> anyhow::Result<Report> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(who.chain, who.key)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind(bind).with_context(|| format!("cannot listen on {bind}"))?;
    listener.set_nonblocking(true)?;
    let started = now();
    let mut report = Report::default();
    while started.elapsed() < until && report.attempts < ENOUGH {
        let Ok((socket, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        report.attempts += 1;
        report.read += u64::from(was_believed(socket, &config).unwrap_or(false));
    }
    report.note = format!("{} connections came, {} believed the certificate", report.attempts, report.read);
    Ok(report)
}

fn was_believed(mut socket: TcpStream, config: &Arc<ServerConfig>) -> anyhow::Result<bool> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut tls = ServerConnection::new(Arc::clone(config))?;
    let mut stream = Stream::new(&mut tls, &mut socket);
    let mut request = [0u8; 4096];
    // Only data under the finished handshake counts: a client that refuses sends an alert instead.
    let len = stream.read(&mut request)?;
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    Ok(len > 0)
}

/// Calls the cloud as a gateway and tries to hand in `body`. Whether the cloud took it is in `read`.
///
/// # Errors
/// The identity is not usable or the cloud cannot be reached.
pub fn as_gateway(
    door: &Door,
    cloud: SocketAddr,
    name: &str,
    who: Option<Identity>,
    body: &[u8],
) -> anyhow::Result<Report> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(provider)));
    let config = match who {
        Some(who) => builder.with_client_auth_cert(who.chain, who.key)?,
        None => builder.with_no_client_auth(),
    };
    let mut tls = ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned())?)?;
    let mut socket = door.connect(cloud)?;
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    let mut stream = Stream::new(&mut tls, &mut socket);
    let head = format!(
        "POST /v1/ingest HTTP/1.1\r\nhost: {name}\r\ncontent-type: application/cbor-seq\r\nbatch-id: 00000000-0000-4000-8000-000000000000\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = [0u8; 512];
    let len = if sent.is_ok() { stream.read(&mut answer).unwrap_or(0) } else { 0 };
    let answer = String::from_utf8_lossy(answer.get(..len).unwrap_or_default());
    let taken = answer.starts_with("HTTP/1.1 200");
    let note = answer.lines().next().unwrap_or("the cloud ended the connection").to_owned();
    Ok(Report { attempts: 1, read: u64::from(taken), note, ..Report::default() })
}

/// A gateway that came so often has looked at the certificate often enough.
const ENOUGH: u64 = 4;
/// How long an impostor plays the cloud.
pub(super) const PLAY: Duration = Duration::from_secs(3);

/// Where he listens.
pub(super) fn bind_of(plan: &Plan) -> anyhow::Result<SocketAddr> {
    plan.stations.first().map(|s| s.addr).context("the plan names no place to listen at")
}

#[expect(clippy::disallowed_methods, reason = "an attacker's own clock decides nothing of ours")]
fn now() -> Instant {
    Instant::now()
}

/// Believes any server: the attacker does not care whom it talks to.
#[derive(Debug)]
struct Gullible(Arc<CryptoProvider>);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_who_believes_anything_is_counted_as_a_believer() {
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        let bind = probe.local_addr().unwrap();
        drop(probe);
        let cloud = Identity::homemade(&Part::Cloud(vec!["localhost".into()])).unwrap();
        let server = std::thread::spawn(move || as_cloud(bind, cloud, Duration::from_secs(1)).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        let gateway = Identity::homemade(&Part::Gateway("urn:gw:00000001:00000001".into())).unwrap();
        let taken = as_gateway(&Door::Loopback, bind, "localhost", Some(gateway), b"x").unwrap();
        assert_eq!(taken.read, 1);
        assert_eq!(server.join().unwrap().read, 1);
    }
}
