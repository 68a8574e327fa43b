//! From `[[alarm.sink]]` of `cloud.toml` to sinks.

use std::fmt;
use std::path::{Path, PathBuf};

use fivefold_alarm::mail::is_address;
use fivefold_core::error::Severity;
use fivefold_keep::broker::{Broker, Keys, Login, Words};
use fivefold_keep::files;
use fivefold_keep::share::CloudAlarmSink;
use fivefold_keep::tls::{Anchor, client_config_web};
use fivefold_keep::vault::Vault;
use fivefold_sinks::post::{NO_CA, check_url};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use zeroize::Zeroizing;

use super::{Prepared, Transport, Unprepared, mail, mqtt, webhook};

/// Sinks, at most.
const MOST_SINKS: usize = 16;
/// Receivers of a mail, at most.
const MOST_RECEIVERS: usize = 20;

/// Which words of a sink are wrong, and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sink \"{sink}\": {reason}")]
pub struct SinkWrong {
    /// Its name, as it is written.
    pub sink: String,
    /// What is wrong.
    pub reason: String,
}

/// A sink whose words were checked. Its files are not read yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Sink {
    /// Its name.
    pub name: String,
    least: Severity,
    secret: PathBuf,
    ca: Option<PathBuf>,
    way: Way,
}

#[derive(Clone, PartialEq, Eq)]
enum Way {
    // Its path may be a secret of the receiver's.
    Webhook(Box<reqwest::Url>),
    Mail { host: String, port: u16, starttls: bool, username: Option<String>, from: String, to: Vec<String> },
    Mqtt { broker: Box<Broker>, username: Option<String>, topic: String },
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = self.least.as_str();
        match &self.way {
            Way::Webhook(url) => {
                write!(f, "{}: webhook at {}, from {least}", self.name, url.origin().ascii_serialization())
            }
            Way::Mail { host, port, to, .. } => {
                write!(f, "{}: mail to {} by {host}:{port}, from {least}", self.name, to.join(", "))
            }
            Way::Mqtt { broker, topic, .. } => {
                let Broker { host, port, .. } = &**broker;
                write!(f, "{}: {topic} at {host}:{port}, {}, from {least}", self.name, broker.how())
            }
        }
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sink({self})")
    }
}

/// Checks the words of all sinks of `cloud.toml` in `folder`.
///
/// # Errors
/// The first that is wrong.
pub fn check(words: &[CloudAlarmSink], folder: &Path) -> Result<Vec<Sink>, SinkWrong> {
    let mut sinks: Vec<Sink> = Vec::new();
    for one in words {
        let wrong = |reason: String| SinkWrong { sink: one.name.clone(), reason };
        if sinks.len() == MOST_SINKS {
            return Err(wrong(format!("it is one more than the {MOST_SINKS} that there may be")));
        }
        if sinks.iter().any(|s| s.name == one.name) {
            return Err(wrong("another sink has this name".into()));
        }
        sinks.push(sink(one, folder).map_err(wrong)?);
    }
    Ok(sinks)
}

fn sink(words: &CloudAlarmSink, folder: &Path) -> Result<Sink, String> {
    if !CloudAlarmSink::is_name(&words.name) {
        return Err("name: expected 1 to 32 lower-case letters, digits and dashes".into());
    }
    let least = match words.least.as_deref() {
        None | Some("warning") => Severity::Warning,
        Some("high") => Severity::High,
        Some("critical") => Severity::Critical,
        Some(other) => return Err(format!("least = \"{other}\": expected warning, high or critical")),
    };
    let not_of = |kind: &str, there: &[(&str, bool)]| match there.iter().find(|(_, there)| *there) {
        Some((key, _)) => Err(format!("{key} is no word of a sink with {kind}; leave it out")),
        None => Ok(()),
    };
    let of_mail = [("from", words.from.is_some()), ("to", !words.to.is_empty())];
    let of_mqtt = [("topic", words.topic.is_some()), ("insecure_mqtt", words.insecure_mqtt)];
    let way = match (&words.webhook, &words.mail, &words.mqtt) {
        (Some(url), None, None) => {
            not_of("webhook", &of_mail)?;
            not_of("webhook", &of_mqtt)?;
            not_of("webhook", &[("username", words.username.is_some())])?;
            Way::Webhook(Box::new(check_url("webhook", url, words.ca_file.is_some())?))
        }
        (None, Some(server), None) => {
            not_of("mail", &of_mqtt)?;
            mail(server, words)?
        }
        (None, None, Some(broker)) => {
            not_of("mqtt", &of_mail)?;
            mqtt(broker, words, folder)?
        }
        _ => return Err("write exactly one of webhook, mail and mqtt".into()),
    };
    let secret = CloudAlarmSink::secret_file(folder, &words.name);
    Ok(Sink { name: words.name.clone(), least, secret, ca: words.ca_file.as_ref().map(|ca| folder.join(ca)), way })
}

fn mail(server: &str, words: &CloudAlarmSink) -> Result<Way, String> {
    let (scheme, rest) = server.split_once("://").unwrap_or_default();
    let place = rest.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = place
        .filter(|(host, _): &(&str, u16)| ServerName::try_from((*host).to_owned()).is_ok())
        .ok_or("mail: write smtps://HOST:465, or smtp://HOST:587 for STARTTLS")?;
    let starttls = match scheme {
        "smtps" => false,
        "smtp" => true,
        _ => return Err("mail: write smtps://HOST:465, or smtp://HOST:587 for STARTTLS".into()),
    };
    if words.ca_file.is_none() {
        return Err(NO_CA.into());
    }
    let from = words.from.clone().filter(|from| is_address(from)).ok_or("from: write the sender's address")?;
    if words.to.is_empty() || words.to.len() > MOST_RECEIVERS {
        return Err(format!("to: write 1 to {MOST_RECEIVERS} addresses"));
    }
    if let Some(wrong) = words.to.iter().find(|to| !is_address(to)) {
        return Err(format!("to: {wrong:?} is no address"));
    }
    let username = words.username.clone();
    if username.as_ref().is_some_and(|name| name.is_empty() || name.contains('\0')) {
        return Err("username: it is empty, or holds what no name does".into());
    }
    Ok(Way::Mail { host: host.to_owned(), port, starttls, username, from, to: words.to.clone() })
}

fn mqtt(broker: &str, words: &CloudAlarmSink, folder: &Path) -> Result<Way, String> {
    const KEYS: Keys = Keys {
        broker: "mqtt",
        ca_file: "ca_file",
        username: "username",
        key_file: "mqtt",
        insecure_mqtt: "insecure_mqtt",
    };
    let of_broker = Words {
        broker,
        ca_file: words.ca_file.as_deref(),
        username: words.username.as_deref(),
        password_file: None,
        certificate_file: None,
        key_file: None,
        insecure_mqtt: words.insecure_mqtt,
    };
    let broker =
        Broker::check(&of_broker, &KEYS, folder).map_err(|wrong| format!("{}: {}", wrong.key, wrong.reason))?;
    let topic = words.topic.clone().unwrap_or_else(|| "fivefold/alarms".into());
    if topic.is_empty() || topic.len() > 200 || topic.contains(['#', '+', '\0']) {
        return Err(format!("topic: {topic:?}: expected a topic without # and +"));
    }
    Ok(Way::Mqtt { broker: Box::new(broker), username: words.username.clone(), topic })
}

impl Sink {
    /// What its secret is for; `None` where it needs none.
    pub const fn secret_use(&self) -> Option<&'static str> {
        match &self.way {
            Way::Webhook(_) => Some("it signs what is sent, and the receiver has it too"),
            Way::Mail { username: Some(_), .. } => Some("the password at the mail server"),
            Way::Mqtt { username: Some(_), .. } => Some("the password at the broker"),
            Way::Mail { .. } | Way::Mqtt { .. } => None,
        }
    }

    /// Reads its secret and its files.
    ///
    /// # Errors
    /// [`Unprepared`].
    pub fn prepare(&self, vault: &Vault) -> Result<Prepared, Unprepared> {
        let name = &self.name;
        let secret = match self.secret_use() {
            None => Zeroizing::default(),
            Some(_) if self.secret.exists() => vault.open_file(&self.secret)?,
            Some(what) => return Err(Unprepared::NoSecret { name: name.clone(), what }),
        };
        let transport = match &self.way {
            Way::Webhook(url) => {
                let made = webhook::Webhook::new(url.as_ref().clone(), self.tls()?, secret);
                Transport::Webhook(made.map_err(|e| Unprepared::Client { name: name.clone(), reason: e.to_string() })?)
            }
            Way::Mail { host, port, starttls, username, from, to } => Transport::Mail(mail::Mail {
                host: host.clone(),
                port: *port,
                starttls: *starttls,
                login: username.clone().map(|username| Login { username, password: secret }),
                from: from.clone(),
                to: to.clone(),
                tls: self.tls()?,
            }),
            Way::Mqtt { broker, username, topic } => {
                let login = username.clone().map(|username| Login { username, password: secret });
                let options = crate::mqtt::options(broker, &format!("fivefold-alarm-{name}"), login)?;
                Transport::Mqtt(mqtt::Mqtt { options, topic: topic.clone() })
            }
        };
        Ok(Prepared { name: name.clone(), least: self.least, transport })
    }

    fn tls(&self) -> Result<ClientConfig, Unprepared> {
        let failed = |source| Unprepared::Tls { name: self.name.clone(), source };
        let anchor = match &self.ca {
            Some(ca) => Anchor::from_pem(files::read_text(ca)?.as_bytes()).map_err(failed)?,
            None => Anchor::none(),
        };
        client_config_web(&anchor).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<Sink>, String> {
        let words: fivefold_keep::share::CloudAlarm = toml::from_str(text).unwrap();
        check(&words.sink, Path::new("farm")).map_err(|wrong| wrong.to_string())
    }

    const WEBHOOK: &str =
        "[[sink]]\nname = \"w\"\nca_file = \"ca.pem\"\nwebhook = \"https://hooks.example/T0/secret\"\n";
    const MAIL: &str = "[[sink]]\nname = \"m\"\nca_file = \"ca.pem\"\nmail = \"smtp://mail.example:587\"\n\
                        from = \"cloud@farm.example\"\nto = [\"ops@farm.example\"]\n";
    const MQTT: &str =
        "[[sink]]\nname = \"q\"\nca_file = \"ca.pem\"\nmqtt = \"mqtts://broker.example:8883\"\nleast = \"high\"\n";

    #[test]
    fn sinks_are_what_is_written_and_show_no_secret() {
        let sinks = of(&[WEBHOOK, MAIL, MQTT].concat()).unwrap();
        let shown: Vec<String> = sinks.iter().map(Sink::to_string).collect();
        assert_eq!(shown[0], "w: webhook at https://hooks.example, from warning");
        assert_eq!(shown[1], "m: mail to ops@farm.example by mail.example:587, from warning");
        assert_eq!(shown[2], "q: fivefold/alarms at broker.example:8883, TLS, from high");
        assert!(!format!("{sinks:?}").contains("secret"));
        assert_eq!(sinks.iter().map(|s| s.secret_use().is_some()).collect::<Vec<_>>(), [true, false, false]);
        assert!(of("[[sink]]\nname = \"w\"\nwebhook = \"http://127.0.0.1:9000/\"\n").is_ok());
        assert!(of("[[sink]]\nname = \"w\"\nwebhook = \"http://[::1]:9000/\"\n").is_ok());
    }

    #[test]
    fn every_mistake_is_named_with_its_sink() {
        let replaced = |text: &str, from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            of(&text.replace(from, to)).unwrap_err()
        };
        for (text, from, to, says) in [
            (WEBHOOK, "\"w\"", "\"W w\"", "name"),
            (WEBHOOK, "\"w\"", "\"../x\"", "name"),
            (WEBHOOK, "https://hooks.example", "http://hooks.example", "clear text"),
            (WEBHOOK, "https://hooks.example", "http://127.0.0.1.example", "clear text"),
            (WEBHOOK, "https://", "ftp://", "https://HOST"),
            (WEBHOOK, "https://", "https://u:p@", "name or password"),
            (WEBHOOK, "ca_file = \"ca.pem\"\n", "", "ca_file"),
            (WEBHOOK, "ca_file", "username = \"u\"\nca_file", "username is no word"),
            (WEBHOOK, "ca_file", "topic = \"t\"\nca_file", "topic is no word"),
            (WEBHOOK, "ca_file", "mqtt = \"mqtts://a:1\"\nca_file", "exactly one"),
            (WEBHOOK, "ca_file", "least = \"info\"\nca_file", "least"),
            (MAIL, "smtp://mail.example:587", "mail.example", "smtps://HOST"),
            (MAIL, "smtp://", "pop://", "smtps://HOST"),
            (MAIL, "ca_file = \"ca.pem\"\n", "", "ca_file"),
            (MAIL, "cloud@farm.example", "cloud", "from"),
            (MAIL, "ops@farm.example", "ops@farm.example>\\r\\nDATA", "no address"),
            (MAIL, "[\"ops@farm.example\"]", "[]", "1 to 20"),
            (MAIL, "from =", "insecure_mqtt = true\nfrom =", "insecure_mqtt is no word"),
            (MQTT, "mqtts://", "mqtt://", "insecure_mqtt"),
            (MQTT, "least", "topic = \"a/#\"\nleast", "topic"),
            (MQTT, "least", "from = \"a@b\"\nleast", "from is no word"),
        ] {
            let said = replaced(text, from, to);
            assert!(said.starts_with("sink \"") && said.contains(says), "{to}: {said}");
        }
        assert!(of(&[WEBHOOK, WEBHOOK].concat()).unwrap_err().contains("another sink"));
        assert!(of("[[sink]]\nname = \"x\"\n").unwrap_err().contains("exactly one"));
        let many: String = (0..17).map(|i| WEBHOOK.replace("\"w\"", &format!("\"w{i}\""))).collect();
        assert!(of(&many).unwrap_err().contains("16"));
    }
}
