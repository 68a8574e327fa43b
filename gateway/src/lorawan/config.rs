//! From `[lorawan]` of `gateway.toml` to what a session needs.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::Did;
use fivefold_keep::files::{self, FileError};
use fivefold_keep::share::GatewayLorawan;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use zeroize::Zeroizing;

use super::{Application, NetworkServer};
use crate::gateway::Activation;

/// `[lorawan]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which network server speaks.
    pub server: NetworkServer,
    /// Whose devices are heard.
    pub application: Application,
    /// Host of the broker.
    pub host: String,
    /// TCP port of the broker.
    pub port: u16,
    /// Under which name the broker keeps what it could not deliver.
    pub client_id: String,
    security: Security,
    username: Option<(String, Option<PathBuf>)>,
    activation: Activation,
    abp: HashSet<Did>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Security {
    Clear,
    Tls { ca: PathBuf, own: Option<(PathBuf, PathBuf)> },
}

/// Which word of `[lorawan]` is wrong, and what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Its key in the file.
    pub key: &'static str,
    /// The reason.
    pub reason: String,
}

/// Why a connection cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum Unprepared {
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate or key is none.
    #[error("{path}: {what}", path = path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// TLS refuses them.
    #[error("TLS to the LoRaWAN broker cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// How to log in.
#[derive(Clone)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Password; empty when there is none.
    pub password: Zeroizing<Vec<u8>>,
}

/// TLS to a broker: the configuration, and the name that its certificate must have.
#[derive(Clone, Debug)]
pub struct Tls {
    /// TLS 1.3 with the CAs of `ca_file`.
    pub client: Arc<rustls::ClientConfig>,
    /// The host.
    pub name: ServerName<'static>,
}

impl Config {
    /// Checks the words of `[lorawan]` in `folder`, for the gateway of this name.
    ///
    /// # Errors
    /// The first that is wrong, with what to write instead.
    pub fn check(words: &GatewayLorawan, folder: &Path, name: GatewayName) -> Result<Self, Wrong> {
        let wrong = |key, reason: &str| Wrong { key, reason: reason.to_owned() };
        let server = words.kind.parse().map_err(|e: super::NoNetworkServer| wrong("lorawan.kind", &e.to_string()))?;
        let application = words
            .application
            .parse()
            .map_err(|e: super::NoApplication| wrong("lorawan.application", &e.to_string()))?;
        let (scheme, rest) = words.broker.split_once("://").unwrap_or_default();
        let (host, port) = rest
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)))
            .filter(|(host, _)| !host.is_empty())
            .ok_or_else(|| wrong("lorawan.broker", "write mqtts://HOST:PORT, e.g. mqtts://lns.example:8883"))?;
        let at = |path: &PathBuf| folder.join(path);
        let security = match (scheme, words.insecure_mqtt, &words.ca_file) {
            ("mqtts", false, Some(ca)) => {
                let own = match (&words.certificate_file, &words.key_file) {
                    (Some(certificate), Some(key)) => Some((at(certificate), at(key))),
                    (None, None) => None,
                    _ => return Err(wrong("lorawan.key_file", "certificate_file and key_file come together")),
                };
                if ServerName::try_from(host.to_owned()).is_err() {
                    return Err(wrong("lorawan.broker", "a certificate cannot be for this host; write its DNS name"));
                }
                Security::Tls { ca: at(ca), own }
            }
            ("mqtts", false, None) => {
                return Err(wrong(
                    "lorawan.ca_file",
                    "name the CA of the broker; for one of the public CAs /etc/ssl/certs/ca-certificates.crt",
                ));
            }
            ("mqtts", true, _) => {
                return Err(wrong("lorawan.insecure_mqtt", "mqtts:// is not clear text: leave out insecure_mqtt"));
            }
            ("mqtt", true, _) => Security::Clear,
            ("mqtt", false, _) => {
                return Err(wrong(
                    "lorawan.broker",
                    "mqtt:// is clear text, anybody on the way can read and write: write mqtts://, or insecure_mqtt = true",
                ));
            }
            _ => return Err(wrong("lorawan.broker", "write mqtts://HOST:PORT")),
        };
        let username = match (&words.username, &words.password_file) {
            (Some(name), file) if !name.is_empty() => Some((name.clone(), file.as_ref().map(at))),
            (None, None) => None,
            _ => return Err(wrong("lorawan.username", "a password needs a user name")),
        };
        let activation = match words.activation.as_str() {
            "otaa" => Activation::OverTheAir,
            "abp" => Activation::Personalisation,
            _ => return Err(wrong("lorawan.activation", "write otaa, or abp for devices without a join")),
        };
        let mut abp = HashSet::new();
        for dev_eui in &words.abp {
            abp.insert(dev_eui.parse().map_err(|_| wrong("lorawan.abp", "a DevEUI has 16 hex digits"))?);
        }
        // Every broker of MQTT 3.1.1 takes 23 letters and digits; another gateway under the same name would cut this one off.
        let client_id = format!("ff{}{}", name.net, name.gateway);
        let host = host.to_owned();
        Ok(Self { server, application, host, port, client_id, security, username, activation, abp })
    }

    /// How a device came into its network.
    pub fn activation(&self, dev_eui: Did) -> Activation {
        if self.abp.contains(&dev_eui) { Activation::Personalisation } else { self.activation }
    }

    /// Reads what opens the way to the broker; `None` where it is in clear text.
    ///
    /// # Errors
    /// [`Unprepared`].
    pub fn tls(&self) -> Result<Option<Tls>, Unprepared> {
        let Security::Tls { ca, own } = &self.security else { return Ok(None) };
        let pem = |path: &Path, what| Unprepared::Pem { path: path.to_owned(), what };
        let no_name = pem(ca, "the broker's host is no name that a certificate can have");
        let name = ServerName::try_from(self.host.clone()).map_err(|_| no_name)?;
        let mut roots = RootCertStore::empty();
        let certificates = |text: &str| CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
        let anchors = certificates(&files::read_text(ca)?).unwrap_or_default();
        if roots.add_parsable_certificates(anchors).0 == 0 {
            return Err(pem(ca, "no CA certificate could be read: expected PEM CERTIFICATE blocks"));
        }
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let client = match own {
            Some((certificate, key)) => {
                let chain = certificates(&files::read_text(certificate)?).unwrap_or_default();
                let bytes = files::read_private(key)?;
                let key = PrivateKeyDer::from_pem_slice(&bytes)
                    .map_err(|_| pem(key, "no private key could be read: expected one PEM PRIVATE KEY block"))?;
                builder.with_client_auth_cert(chain, key)?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Some(Tls { client: Arc::new(client), name }))
    }

    /// Reads the password.
    ///
    /// # Errors
    /// [`FileError`]: it is missing, or others can read it.
    pub fn login(&self) -> Result<Option<Login>, FileError> {
        let Some((username, file)) = &self.username else { return Ok(None) };
        let mut password = match file {
            Some(file) => files::read_private(file)?,
            None => Zeroizing::default(),
        };
        while password.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            password.pop();
        }
        Ok(Some(Login { username: username.clone(), password }))
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}:{}, application {}", self.server, self.host, self.port, self.application.as_str())?;
        match &self.security {
            Security::Clear => write!(f, ", MQTT in clear text (INSECURE)")?,
            Security::Tls { own: None, .. } => write!(f, ", TLS")?,
            Security::Tls { own: Some(_), .. } => write!(f, ", TLS with a certificate of ours")?,
        }
        match (self.activation, self.abp.len()) {
            (Activation::OverTheAir, 0) => Ok(()),
            (Activation::OverTheAir, n) => write!(f, "; {n} under ABP, which is no E1"),
            (Activation::Personalisation, _) => write!(f, "; all under ABP, which is no E1"),
        }
    }
}

#[cfg(test)]
mod tests {
    use fivefold_core::id::{GatewayId, Net};

    use super::*;

    const NAME: GatewayName = GatewayName { net: Net(7), gateway: GatewayId(0x11) };

    fn words() -> GatewayLorawan {
        GatewayLorawan {
            kind: "chirpstack".into(),
            broker: "mqtts://lns.example:8883".into(),
            application: "8d3c4b60-5f2e-4f0b-9d5a-3b1f6f0c7a11".into(),
            activation: "otaa".into(),
            abp: vec!["70b3d57ed0052a9c".into()],
            ca_file: Some("broker-ca.pem".into()),
            username: Some("fivefold".into()),
            password_file: Some("broker-password".into()),
            certificate_file: None,
            key_file: None,
            insecure_mqtt: false,
        }
    }

    fn check(words: &GatewayLorawan) -> Result<Config, Wrong> {
        Config::check(words, Path::new("/farm"), NAME)
    }

    #[test]
    fn the_operators_words_become_a_connection() {
        let config = check(&words()).unwrap();
        assert_eq!((&*config.host, config.port, &*config.client_id), ("lns.example", 8883, "ff0000000700000011"));
        assert_eq!(config.activation(Did([1; 8])), Activation::OverTheAir);
        assert_eq!(config.activation("70b3d57ed0052a9c".parse().unwrap()), Activation::Personalisation);
        assert!(config.to_string().contains("TLS; 1 under ABP"), "{config}");
        let clear = GatewayLorawan { broker: "mqtt://[::1]:1883".into(), insecure_mqtt: true, ..words() };
        let clear = check(&clear).unwrap();
        assert_eq!((&*clear.host, clear.tls().unwrap().is_none()), ("::1", true));
        assert!(clear.to_string().contains("INSECURE"), "{clear}");
    }

    #[test]
    fn every_mistake_is_named_by_its_key() {
        let of = |words: GatewayLorawan| check(&words).unwrap_err().key;
        assert_eq!(of(GatewayLorawan { kind: "ttn".into(), ..words() }), "lorawan.kind");
        assert_eq!(of(GatewayLorawan { application: "+".into(), ..words() }), "lorawan.application");
        for broker in
            ["", "lns.example", "mqtts://lns.example", "mqtts://:8883", "mqtts://lns.example:port", "tcp://a:1"]
        {
            assert_eq!(of(GatewayLorawan { broker: broker.into(), ..words() }), "lorawan.broker", "{broker}");
        }
        let clear = GatewayLorawan { broker: "mqtt://lns.example:1883".into(), ..words() };
        assert_eq!(of(clear), "lorawan.broker", "clear text by nothing but its name");
        assert_eq!(of(GatewayLorawan { insecure_mqtt: true, ..words() }), "lorawan.insecure_mqtt");
        assert_eq!(of(GatewayLorawan { ca_file: None, ..words() }), "lorawan.ca_file");
        assert_eq!(of(GatewayLorawan { key_file: Some("k".into()), ..words() }), "lorawan.key_file");
        assert_eq!(of(GatewayLorawan { username: None, ..words() }), "lorawan.username");
        assert_eq!(of(GatewayLorawan { activation: "yes".into(), ..words() }), "lorawan.activation");
        assert_eq!(of(GatewayLorawan { abp: vec!["70b3".into()], ..words() }), "lorawan.abp");
    }

    #[test]
    fn a_password_file_that_others_can_read_is_an_error_and_a_line_end_is_none_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::check(&words(), folder.path(), NAME).unwrap();
        let file = folder.path().join("broker-password");
        files::write(&file, files::Readers::Everybody, b"secret\n").unwrap();
        assert!(matches!(config.login(), Err(FileError::Exposed { .. })));
        files::write(&file, files::Readers::Owner, b"secret\n").unwrap();
        assert_eq!(*config.login().unwrap().unwrap().password, b"secret");
    }
}
