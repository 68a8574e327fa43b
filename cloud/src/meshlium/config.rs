//! From `[meshlium_mqtt]` of `cloud.toml` to what the publisher needs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fivefold_keep::files::{self, FileError};
use fivefold_keep::share::CloudMeshliumMqtt;
use rumqttc::MqttOptions;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::template::Template;

/// Seconds between two signs of life.
const KEEP_ALIVE: u16 = 30;
/// Bytes of a packet, at most.
const LONGEST: usize = 1 << 20;

/// `[meshlium_mqtt]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshliumMqtt {
    host: String,
    port: u16,
    client_id: String,
    // None: clear text.
    ca: Option<PathBuf>,
    username: Option<(String, Option<PathBuf>)>,
    /// What stands for `#MESHLIUM#`.
    pub(super) name: String,
    pub(super) topic: Template,
    pub(super) message: Template,
}

/// Which word of `[meshlium_mqtt]` is wrong, and what to write.
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
    /// The CA is none.
    #[error("{path}: no CA certificate could be read: expected PEM CERTIFICATE blocks", path = path.display())]
    Ca {
        /// The file.
        path: PathBuf,
    },
    /// TLS refuses it.
    #[error("TLS to the MQTT broker cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl MeshliumMqtt {
    /// Checks the words of `[meshlium_mqtt]` in `folder`.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn check(words: &CloudMeshliumMqtt, folder: &Path) -> Result<Self, Wrong> {
        let wrong = |key, reason: &str| Wrong { key, reason: reason.to_owned() };
        let (scheme, rest) = words.broker.split_once("://").unwrap_or_default();
        let (host, port) = rest
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)))
            .filter(|(host, _)| !host.is_empty())
            .ok_or_else(|| {
                wrong("meshlium_mqtt.broker", "write mqtts://HOST:PORT, e.g. mqtts://broker.example:8883")
            })?;
        let ca = match (scheme, words.insecure_mqtt, &words.ca_file) {
            ("mqtts", false, Some(_)) if ServerName::try_from(host.to_owned()).is_err() => {
                return Err(wrong("meshlium_mqtt.broker", "a certificate cannot be for this host; write its DNS name"));
            }
            ("mqtts", false, Some(ca)) => Some(folder.join(ca)),
            ("mqtts", false, None) => {
                return Err(wrong(
                    "meshlium_mqtt.ca_file",
                    "name the CA of the broker; for one of the public CAs /etc/ssl/certs/ca-certificates.crt",
                ));
            }
            ("mqtts", true, _) => {
                return Err(wrong(
                    "meshlium_mqtt.insecure_mqtt",
                    "mqtts:// is not clear text: leave out insecure_mqtt",
                ));
            }
            ("mqtt", true, _) => None,
            ("mqtt", false, _) => {
                return Err(wrong(
                    "meshlium_mqtt.broker",
                    "mqtt:// is clear text, anybody on the way can read and write: write mqtts://, or insecure_mqtt = true",
                ));
            }
            _ => return Err(wrong("meshlium_mqtt.broker", "write mqtts://HOST:PORT")),
        };
        let username = match (&words.username, &words.password_file) {
            (Some(name), file) if !name.is_empty() => Some((name.clone(), file.as_ref().map(|f| folder.join(f)))),
            (None, None) => None,
            _ => return Err(wrong("meshlium_mqtt.username", "a password needs a user name")),
        };
        let template =
            |key, text: &str| text.parse::<Template>().map_err(|refused| Wrong { key, reason: refused.to_string() });
        let topic = template("meshlium_mqtt.topic", &words.topic)?
            .topic()
            .map_err(|refused| Wrong { key: "meshlium_mqtt.topic", reason: refused.to_string() })?;
        let message = template("meshlium_mqtt.message", &words.message)?;
        let (host, client_id, name) = (host.to_owned(), words.client_id.clone(), words.name.clone());
        Ok(Self { host, port, client_id, ca, username, name, topic, message })
    }

    /// Reads the files that it names.
    ///
    /// # Errors
    /// [`Unprepared`].
    pub fn prepare(&self) -> Result<MqttOptions, Unprepared> {
        let mut options = MqttOptions::new(self.client_id.clone(), (self.host.clone(), self.port));
        options.set_keep_alive(KEEP_ALIVE);
        // What was not acknowledged is sent again by us, from the store: the broker has nothing to keep.
        options.set_clean_session(true);
        options.set_max_packet_size(LONGEST, LONGEST);
        if let Some((username, file)) = &self.username {
            let mut password = match file {
                Some(file) => files::read_private(file)?,
                None => zeroize::Zeroizing::default(),
            };
            while password.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                password.pop();
            }
            options.set_credentials(username.clone(), password.to_vec());
        }
        let (host, port) = (self.host.clone(), self.port);
        let Some(ca) = &self.ca else {
            options.set_socket_connector(move |_, _| {
                let host = host.clone();
                async move { TcpStream::connect((host, port)).await }
            });
            return Ok(options);
        };
        let unreadable = || Unprepared::Ca { path: ca.clone() };
        let name = ServerName::try_from(host.clone()).map_err(|_| unreadable())?;
        let mut roots = RootCertStore::empty();
        let text = files::read_text(ca)?;
        let anchors = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>();
        if roots.add_parsable_certificates(anchors.unwrap_or_default()).0 == 0 {
            return Err(unreadable());
        }
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(tls));
        options.set_socket_connector(move |_, _| {
            let (host, name, connector) = (host.clone(), name.clone(), connector.clone());
            async move { connector.connect(name, TcpStream::connect((host, port)).await?).await }
        });
        Ok(options)
    }
}

impl fmt::Display for MeshliumMqtt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.ca.is_some() { "TLS" } else { "MQTT in clear text (INSECURE)" };
        write!(f, "{}:{}, {how}, as {}", self.host, self.port, self.client_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> CloudMeshliumMqtt {
        CloudMeshliumMqtt { ca_file: Some("ca.pem".into()), ..CloudMeshliumMqtt::at("mqtts://broker.example:8883") }
    }

    fn check(words: &CloudMeshliumMqtt) -> Result<MeshliumMqtt, &'static str> {
        MeshliumMqtt::check(words, Path::new("/cloud")).map_err(|wrong| wrong.key)
    }

    #[test]
    fn the_operators_words_become_a_connection_and_every_mistake_is_named_by_its_key() {
        assert_eq!(check(&words()).unwrap().to_string(), "broker.example:8883, TLS, as fivefold-cloud");
        let clear = CloudMeshliumMqtt { insecure_mqtt: true, ..CloudMeshliumMqtt::at("mqtt://[::1]:1883") };
        assert_eq!(check(&clear).unwrap().to_string(), "::1:1883, MQTT in clear text (INSECURE), as fivefold-cloud");
        let of = |words: CloudMeshliumMqtt| check(&words).unwrap_err();
        for broker in ["", "broker.example", "mqtts://broker.example", "mqtts://:8883", "tcp://a:1", "mqtt://a:1883"] {
            assert_eq!(of(CloudMeshliumMqtt { broker: broker.into(), ..words() }), "meshlium_mqtt.broker", "{broker}");
        }
        assert_eq!(of(CloudMeshliumMqtt { insecure_mqtt: true, ..words() }), "meshlium_mqtt.insecure_mqtt");
        assert_eq!(of(CloudMeshliumMqtt { ca_file: None, ..words() }), "meshlium_mqtt.ca_file");
        let password = CloudMeshliumMqtt { password_file: Some("p".into()), ..words() };
        assert_eq!(of(password), "meshlium_mqtt.username");
        assert_eq!(of(CloudMeshliumMqtt { topic: "a/#".into(), ..words() }), "meshlium_mqtt.topic");
        assert_eq!(of(CloudMeshliumMqtt { message: "#WHAT#".into(), ..words() }), "meshlium_mqtt.message");
    }
}
