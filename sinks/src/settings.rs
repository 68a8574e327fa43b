//! From `[[outbox]]` of `cloud.toml` to sinks.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fivefold_keep::files;
use fivefold_keep::share::CloudOutbox;
use fivefold_keep::tls::{Anchor, client_config_web};
use fivefold_keep::vault::Vault;
use rustls::ClientConfig;
use zeroize::Zeroizing;

use crate::Sink;
use crate::{influx, mqtt, nats, parquet, webhook};

/// Sinks, at most.
const MOST_SINKS: usize = 16;

/// What is wrong with a sink, and what to write. One sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("outbox \"{sink}\": {reason}")]
pub struct Wrong {
    /// Its name, as it is written.
    pub sink: String,
    /// What is wrong.
    pub reason: String,
    /// Whether it is the same at the next try, until somebody mends it.
    pub lasts: bool,
}

/// A sink whose words were checked. Its files are not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub name: String,
    /// Whether a new one begins with all readings that are stored.
    pub from_start: bool,
    secret: PathBuf,
    ca: Option<PathBuf>,
    way: Way,
}

/// What a kind of sink does with its words.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    Influx(influx::Settings),
    Mqtt(mqtt::Settings),
    Nats(nats::Settings),
    Parquet(parquet::Settings),
    Webhook(webhook::Settings),
}

/// Files of a sink, read.
pub(crate) struct Files {
    /// Its name.
    pub(crate) name: String,
    /// Its secret; empty where it needs none.
    pub(crate) secret: Zeroizing<Vec<u8>>,
    /// TLS under the CA that it names; under none where it names none.
    pub(crate) tls: ClientConfig,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        match &self.way {
            Way::Influx(s) => s.fmt(f),
            Way::Mqtt(s) => s.fmt(f),
            Way::Nats(s) => s.fmt(f),
            Way::Parquet(s) => s.fmt(f),
            Way::Webhook(s) => s.fmt(f),
        }
    }
}

/// Checks the words of all sinks of `cloud.toml` in `folder`.
///
/// # Errors
/// The first that is wrong.
pub fn check(words: &[CloudOutbox], folder: &Path) -> Result<Vec<Settings>, Wrong> {
    let mut sinks: Vec<Settings> = Vec::new();
    for one in words {
        let wrong = |reason: String| Wrong { sink: one.name.clone(), reason, lasts: true };
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

/// Words that only some kinds have: what stands there, and which kinds may have it.
fn misplaced(words: &CloudOutbox, kind: &str) -> Option<&'static str> {
    let rules: [(&'static str, bool, &[&str]); 14] = [
        ("ca_file", words.ca_file.is_some(), &["influx", "mqtt", "nats", "webhook"]),
        ("username", words.username.is_some(), &["influx", "mqtt", "nats"]),
        ("database", words.database.is_some(), &["influx"]),
        ("organisation", words.organisation.is_some(), &["influx"]),
        ("bucket", words.bucket.is_some(), &["influx"]),
        ("measurement", words.measurement.is_some(), &["influx"]),
        ("stream", words.stream.is_some(), &["nats"]),
        ("subject", words.subject.is_some(), &["nats"]),
        ("readings", words.readings.is_some(), &["parquet"]),
        ("every_s", words.every_s.is_some(), &["parquet"]),
        ("shape", !words.shape.is_empty(), &["mqtt"]),
        ("topic", words.topic.is_some(), &["mqtt"]),
        ("application", words.application.is_some(), &["mqtt"]),
        ("insecure_mqtt", words.insecure_mqtt, &["mqtt"]),
    ];
    rules.into_iter().find(|(_, is_there, kinds)| *is_there && !kinds.contains(&kind)).map(|(key, ..)| key)
}

fn sink(words: &CloudOutbox, folder: &Path) -> Result<Settings, String> {
    if !CloudOutbox::is_name(&words.name) {
        return Err("name: expected 1 to 32 lower-case letters, digits and dashes".into());
    }
    let from_start = match words.from.as_deref() {
        None | Some("now") => false,
        Some("start") => true,
        Some(other) => return Err(format!("from = \"{other}\": expected now or start")),
    };
    let kinds = [
        ("influx", &words.influx),
        ("mqtt", &words.mqtt),
        ("nats", &words.nats),
        ("parquet", &words.parquet),
        ("webhook", &words.webhook),
    ];
    let mut named = kinds.into_iter().filter_map(|(kind, at)| Some((kind, at.as_deref()?)));
    let (Some((kind, at)), None) = (named.next(), named.next()) else {
        let all = kinds.map(|(kind, _)| kind).join(", ");
        return Err(format!("write exactly one of {all}"));
    };
    if let Some(key) = misplaced(words, kind) {
        return Err(format!("{key} is no word of a sink with {kind}; leave it out"));
    }
    let way = match kind {
        "influx" => Way::Influx(influx::Settings::check(at, words)?),
        "mqtt" => Way::Mqtt(mqtt::Settings::check(at, words, folder)?),
        "nats" => Way::Nats(nats::Settings::check(at, words)?),
        "parquet" => Way::Parquet(parquet::Settings::check(at, words, folder)?),
        _ => Way::Webhook(webhook::Settings::check(at, words)?),
    };
    Ok(Settings {
        name: words.name.clone(),
        from_start,
        secret: CloudOutbox::secret_file(folder, &words.name),
        ca: words.ca_file.as_ref().map(|ca| folder.join(ca)),
        way,
    })
}

impl Settings {
    /// What kind of sink it is. A name stays with its kind.
    pub const fn kind(&self) -> &'static str {
        match &self.way {
            Way::Influx(_) => "influx",
            Way::Mqtt(_) => "mqtt",
            Way::Nats(_) => "nats",
            Way::Parquet(_) => "parquet",
            Way::Webhook(_) => "webhook",
        }
    }

    /// What its secret is for; `None` where it needs none.
    pub const fn secret_use(&self) -> Option<&'static str> {
        match &self.way {
            Way::Influx(s) => s.secret_use(),
            Way::Mqtt(s) => s.secret_use(),
            Way::Nats(s) => s.secret_use(),
            Way::Parquet(_) => None,
            Way::Webhook(_) => Some("it signs what is sent, and the receiver has it too"),
        }
    }

    /// The folder that it writes files to, if it does.
    pub fn folder(&self) -> Option<&Path> {
        match &self.way {
            Way::Parquet(s) => Some(&s.folder),
            _ => None,
        }
    }

    /// How long a reading may wait on purpose, for a batch to fill: [`Sink::gathers`].
    pub const fn gathers(&self) -> Duration {
        match &self.way {
            Way::Parquet(s) => s.every,
            _ => Duration::ZERO,
        }
    }

    /// The same, leaving so many bytes free on the disk of that folder.
    #[must_use]
    pub fn leaving(mut self, keep_free: u64) -> Self {
        if let Way::Parquet(s) = &mut self.way {
            s.keep_free = keep_free;
        }
        self
    }

    /// Reads its secret and its files.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn prepare(&self, vault: &Vault) -> Result<Box<dyn Sink>, Wrong> {
        let wrong = |reason: String| Wrong { sink: self.name.clone(), reason, lasts: true };
        let failed = |error: &dyn fmt::Display| wrong(error.to_string());
        let unread = |error: &dyn fmt::Display, lasts| Wrong { lasts, ..failed(error) };
        let secret = match self.secret_use() {
            None => Zeroizing::default(),
            Some(_) if self.secret.exists() => vault.open_file(&self.secret).map_err(|e| unread(&e, e.is_lasting()))?,
            Some(what) => {
                let name = &self.name;
                return Err(wrong(format!("it has no secret ({what}); type: fivefold outbox add-secret {name}")));
            }
        };
        let anchor = match &self.ca {
            Some(ca) => {
                let pem = files::read_text(ca).map_err(|e| unread(&e, e.is_lasting()))?;
                Anchor::from_pem(pem.as_bytes()).map_err(|e| failed(&e))?
            }
            None => Anchor::none(),
        };
        let tls = client_config_web(&anchor).map_err(|e| failed(&e))?;
        let files = Files { name: self.name.clone(), secret, tls };
        Ok(match &self.way {
            Way::Influx(s) => Box::new(s.prepare(files).map_err(wrong)?),
            Way::Mqtt(s) => Box::new(s.prepare(files).map_err(wrong)?),
            Way::Nats(s) => Box::new(s.prepare(files).map_err(wrong)?),
            Way::Parquet(s) => Box::new(s.prepare()),
            Way::Webhook(s) => Box::new(s.prepare(files).map_err(wrong)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<Settings>, String> {
        #[derive(serde::Deserialize)]
        struct File {
            outbox: Vec<CloudOutbox>,
        }
        let file: File = toml::from_str(text).unwrap();
        check(&file.outbox, Path::new("farm")).map_err(|wrong| wrong.to_string())
    }

    const WEBHOOK: &str =
        "[[outbox]]\nname = \"w\"\nca_file = \"ca.pem\"\nwebhook = \"https://plant.example/T0/secret\"\n";
    const MQTT: &str = "[[outbox]]\nname = \"q\"\nca_file = \"ca.pem\"\nmqtt = \"mqtts://broker.example:8883\"\n\
                        shape = [\"fivefold\", \"chirpstack\"]\napplication = \"8d3c4b60\"\n";

    const INFLUX: &str = "[[outbox]]\nname = \"i\"\nca_file = \"ca.pem\"\ninflux = \"https://influx.example:8086\"\n\
                          database = \"farm\"\n";
    const NATS: &str = "[[outbox]]\nname = \"n\"\nca_file = \"ca.pem\"\nnats = \"tls://nats.example:4222\"\n\
                        stream = \"FARM\"\n";
    const PARQUET: &str = "[[outbox]]\nname = \"p\"\nparquet = \"lake\"\nevery_s = 60\n";

    #[test]
    fn databases_streams_and_folders_are_what_is_written() {
        let sinks = of(&[INFLUX, NATS, PARQUET].concat()).unwrap();
        let shown: Vec<String> = sinks.iter().map(Settings::to_string).collect();
        assert_eq!(shown[0], "i: InfluxDB at https://influx.example:8086, measurement fivefold");
        assert_eq!(shown[1], "n: JetStream FARM at nats.example:4222, subjects fivefold.NET.DEVICE");
        assert_eq!(shown[2], "p: Parquet in farm/lake, a file each 60 s or 5000 readings");
        assert!(sinks.iter().all(|s| s.secret_use().is_none()));
        let bucket = INFLUX.replace("database = \"farm\"", "organisation = \"o\"\nbucket = \"b\"");
        assert_eq!(of(&bucket).unwrap()[0].secret_use(), Some("the token of InfluxDB"));
        for text in [INFLUX, NATS] {
            let named = text.replace("ca_file", "username = \"u\"\nca_file");
            assert!(of(&named).unwrap()[0].secret_use().unwrap().starts_with("the password"));
        }
    }

    #[test]
    fn sinks_are_what_is_written_and_show_no_secret() {
        let sinks = of(&[WEBHOOK, MQTT].concat()).unwrap();
        let shown: Vec<String> = sinks.iter().map(Settings::to_string).collect();
        assert_eq!(shown[0], "w: webhook at https://plant.example");
        assert_eq!(shown[1], "q: MQTT 5 at broker.example:8883, TLS, fivefold/… and application/8d3c4b60/…");
        assert!(!format!("{sinks:?}").contains("/secret"), "{sinks:?}");
        assert_eq!(sinks.iter().map(Settings::kind).collect::<Vec<_>>(), ["webhook", "mqtt"]);
        assert_eq!(sinks.iter().map(|s| s.secret_use().is_some()).collect::<Vec<_>>(), [true, false]);
        let named = MQTT.replace("shape", "username = \"u\"\nfrom = \"start\"\nshape");
        assert!(of(&named).unwrap().iter().all(|s| s.from_start && s.secret_use().is_some()));
    }

    #[test]
    fn every_mistake_is_named_with_its_sink() {
        for (text, from, to, says) in [
            (WEBHOOK, "\"w\"", "\"W w\"", "name"),
            (WEBHOOK, "\"w\"", "\"../x\"", "name"),
            (WEBHOOK, "https://plant", "http://plant", "clear text"),
            (WEBHOOK, "ca_file = \"ca.pem\"\n", "", "ca_file"),
            (WEBHOOK, "ca_file", "username = \"u\"\nca_file", "username is no word"),
            (WEBHOOK, "ca_file", "topic = \"t\"\nca_file", "topic is no word"),
            (WEBHOOK, "ca_file", "mqtt = \"mqtts://a:1\"\nca_file", "exactly one"),
            (WEBHOOK, "ca_file", "from = \"yesterday\"\nca_file", "from"),
            (MQTT, "mqtts://", "mqtt://", "insecure_mqtt"),
            (MQTT, "mqtts://broker.example:8883", "broker", "mqtts://HOST"),
            (MQTT, "application = \"8d3c4b60\"\n", "", "application"),
            (MQTT, "8d3c4b60", "a/#", "application"),
            (MQTT, "\"chirpstack\"", "\"json\"", "shape"),
            (MQTT, "shape", "topic = \"a/+\"\nshape", "topic"),
            (MQTT, ", \"chirpstack\"", "", "application"),
            (INFLUX, "https://influx", "http://influx", "clear text"),
            (INFLUX, ":8086", ":8086/write?db=x", "its address alone"),
            (INFLUX, "database = \"farm\"\n", "", "organisation and bucket"),
            (INFLUX, "database", "bucket = \"b\"\ndatabase", "organisation and bucket"),
            (INFLUX, "database", "measurement = \"a b\"\ndatabase", "measurement"),
            (INFLUX, "database", "username = \"a:b\"\ndatabase", "username"),
            (INFLUX, "database", "stream = \"S\"\ndatabase", "stream is no word"),
            (NATS, "tls://", "nats://", "clear text"),
            (NATS, "tls://", "mqtts://", "tls://HOST"),
            (NATS, ":4222", "", "tls://HOST"),
            (NATS, "ca_file = \"ca.pem\"\n", "", "ca_file"),
            (NATS, "FARM", "a.>", "stream"),
            (NATS, "stream = \"FARM\"\n", "", "stream"),
            (NATS, "stream", "subject = \"a.*\"\nstream", "subject"),
            (PARQUET, "every_s = 60", "every_s = 100000", "every_s"),
            (PARQUET, "every_s", "readings = 0\nevery_s", "readings"),
            (PARQUET, "every_s", "ca_file = \"ca.pem\"\nevery_s", "ca_file is no word"),
            (PARQUET, "every_s", "username = \"u\"\nevery_s", "username is no word"),
        ] {
            assert!(text.contains(from), "{from}");
            let said = of(&text.replace(from, to)).unwrap_err();
            assert!(said.starts_with("outbox \"") && said.contains(says), "{to}: {said}");
        }
        assert!(of(&[WEBHOOK, WEBHOOK].concat()).unwrap_err().contains("another sink"));
        assert!(of("[[outbox]]\nname = \"x\"\n").unwrap_err().contains("exactly one"));
        let many: String = (0..17).map(|i| WEBHOOK.replace("\"w\"", &format!("\"w{i}\""))).collect();
        assert!(of(&many).unwrap_err().contains("16"));
    }
}
