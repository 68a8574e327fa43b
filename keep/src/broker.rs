//! The way to an MQTT broker, from an operator's words: TLS 1.3 under a CA that is named, or clear text that is asked for by its
//! name.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use zeroize::Zeroizing;

use crate::files::{self, FileError};

/// What a config file says of a broker.
#[derive(Clone, Copy, Debug)]
pub struct Words<'w> {
    /// `mqtts://HOST:PORT`.
    pub broker: &'w str,
    /// CA certificates, PEM.
    pub ca_file: Option<&'w Path>,
    /// User name.
    pub username: Option<&'w str>,
    /// File with the password.
    pub password_file: Option<&'w Path>,
    /// Our certificate, PEM, with its key.
    pub certificate_file: Option<&'w Path>,
    /// The key.
    pub key_file: Option<&'w Path>,
    /// Clear text is asked for.
    pub insecure_mqtt: bool,
}

/// What these words are called in the file, for who has to mend one.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Of the broker's address.
    pub broker: &'static str,
    /// Of the CA's file.
    pub ca_file: &'static str,
    /// Of the user name.
    pub username: &'static str,
    /// Of the key of our certificate.
    pub key_file: &'static str,
    /// Of the word that allows clear text.
    pub insecure_mqtt: &'static str,
}

/// Which word is wrong, and what to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Its key in the file.
    pub key: &'static str,
    /// The reason.
    pub reason: String,
}

impl Wrong {
    /// With this reason.
    pub fn new(key: &'static str, reason: impl Into<String>) -> Self {
        Self { key, reason: reason.into() }
    }
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
    #[error("TLS to the MQTT broker cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl Unprepared {
    /// Whether it is the same at the next try, until somebody mends it.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::File(e) => e.is_lasting(),
            Self::Pem { .. } | Self::Tls(_) => true,
        }
    }
}

/// How to log in.
#[derive(Clone)]
pub struct Login {
    /// User name.
    pub username: String,
    /// Password; empty when there is none.
    pub password: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({:?}, …)", self.username)
    }
}

/// TLS to a broker: the configuration, and the name that its certificate must have.
#[derive(Clone, Debug)]
pub struct Tls {
    /// TLS 1.3 with the CAs of `ca_file`.
    pub client: Arc<rustls::ClientConfig>,
    /// The host.
    pub name: ServerName<'static>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Security {
    Clear,
    Tls { ca: PathBuf, own: Option<(PathBuf, PathBuf)> },
}

/// A broker, as checked words name it. Files are resolved, and not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its host.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    security: Security,
    username: Option<(String, Option<PathBuf>)>,
}

impl Broker {
    /// Checks the words of a file in `folder`.
    ///
    /// # Errors
    /// The first that is wrong, with what to write instead.
    pub fn check(words: &Words<'_>, keys: &Keys, folder: &Path) -> Result<Self, Wrong> {
        let (scheme, rest) = words.broker.split_once("://").unwrap_or_default();
        let (host, port) = rest
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)))
            .filter(|(host, _)| !host.is_empty())
            .ok_or_else(|| Wrong::new(keys.broker, "write mqtts://HOST:PORT, e.g. mqtts://broker.example:8883"))?;
        let at = |path: &Path| folder.join(path);
        let security = match (scheme, words.insecure_mqtt, words.ca_file) {
            ("mqtts", false, Some(ca)) => {
                let own = match (words.certificate_file, words.key_file) {
                    (Some(certificate), Some(key)) => Some((at(certificate), at(key))),
                    (None, None) => None,
                    _ => return Err(Wrong::new(keys.key_file, "certificate_file and key_file come together")),
                };
                if ServerName::try_from(host.to_owned()).is_err() {
                    return Err(Wrong::new(keys.broker, "a certificate cannot be for this host; write its DNS name"));
                }
                Security::Tls { ca: at(ca), own }
            }
            ("mqtts", false, None) => {
                return Err(Wrong::new(
                    keys.ca_file,
                    "name the CA of the broker; for one of the public CAs /etc/ssl/certs/ca-certificates.crt",
                ));
            }
            ("mqtts", true, _) => {
                return Err(Wrong::new(keys.insecure_mqtt, "mqtts:// is not clear text: leave out insecure_mqtt"));
            }
            ("mqtt", true, _) => Security::Clear,
            ("mqtt", false, _) => {
                return Err(Wrong::new(
                    keys.broker,
                    "mqtt:// is clear text, anybody on the way can read and write: write mqtts://, or insecure_mqtt = true",
                ));
            }
            _ => return Err(Wrong::new(keys.broker, "write mqtts://HOST:PORT")),
        };
        let username = match (words.username, words.password_file) {
            (Some(name), file) if !name.is_empty() => Some((name.to_owned(), file.map(at))),
            (None, None) => None,
            _ => return Err(Wrong::new(keys.username, "a password needs a user name")),
        };
        Ok(Self { host: host.to_owned(), port, security, username })
    }

    /// Reads what opens the way to it; `None` where that is in clear text.
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

    /// Reads the password. A line end behind it is none of it.
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

    /// How it is reached, in words.
    pub const fn how(&self) -> &'static str {
        match &self.security {
            Security::Clear => "MQTT in clear text (INSECURE)",
            Security::Tls { own: None, .. } => "TLS",
            Security::Tls { own: Some(_), .. } => "TLS with a certificate of ours",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: Keys = Keys {
        broker: "broker",
        ca_file: "ca_file",
        username: "username",
        key_file: "key_file",
        insecure_mqtt: "insecure_mqtt",
    };

    fn words() -> Words<'static> {
        Words {
            broker: "mqtts://broker.example:8883",
            ca_file: Some(Path::new("ca.pem")),
            username: Some("fivefold"),
            password_file: Some(Path::new("password")),
            certificate_file: None,
            key_file: None,
            insecure_mqtt: false,
        }
    }

    fn check(words: &Words<'_>) -> Result<Broker, Wrong> {
        Broker::check(words, &KEYS, Path::new("/farm"))
    }

    #[test]
    fn the_operators_words_become_a_way_to_a_broker() {
        let broker = check(&words()).unwrap();
        assert_eq!((&*broker.host, broker.port, broker.how()), ("broker.example", 8883, "TLS"));
        let clear = Words { broker: "mqtt://[::1]:1883", insecure_mqtt: true, ..words() };
        let clear = check(&clear).unwrap();
        assert_eq!((&*clear.host, clear.tls().unwrap().is_none()), ("::1", true));
        assert!(clear.how().contains("INSECURE"));
    }

    #[test]
    fn every_mistake_is_named_by_its_key() {
        let of = |words: Words<'_>| check(&words).unwrap_err().key;
        for broker in [
            "",
            "broker.example",
            "mqtts://broker.example",
            "mqtts://:8883",
            "mqtts://broker.example:port",
            "tcp://a:1",
        ] {
            assert_eq!(of(Words { broker, ..words() }), "broker", "{broker}");
        }
        let clear = Words { broker: "mqtt://broker.example:1883", ..words() };
        assert_eq!(of(clear), "broker", "clear text by nothing but its name");
        assert_eq!(of(Words { insecure_mqtt: true, ..words() }), "insecure_mqtt");
        assert_eq!(of(Words { ca_file: None, ..words() }), "ca_file");
        assert_eq!(of(Words { key_file: Some(Path::new("k")), ..words() }), "key_file");
        assert_eq!(of(Words { username: None, ..words() }), "username");
        assert_eq!(of(Words { username: Some(""), ..words() }), "username");
    }

    #[test]
    fn a_password_file_that_others_can_read_is_an_error_and_a_line_end_is_none_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::check(&words(), &KEYS, folder.path()).unwrap();
        let file = folder.path().join("password");
        files::write(&file, files::Readers::Everybody, b"secret\n").unwrap();
        assert!(matches!(broker.login(), Err(FileError::Exposed { .. })));
        files::write(&file, files::Readers::Owner, b"secret\n").unwrap();
        let login = broker.login().unwrap().unwrap();
        assert_eq!(*login.password, b"secret");
        assert!(!format!("{login:?}").contains("secret"));
        files::write(&folder.path().join("ca.pem"), files::Readers::Everybody, b"nothing").unwrap();
        assert!(matches!(broker.tls(), Err(Unprepared::Pem { .. })));
    }
}
