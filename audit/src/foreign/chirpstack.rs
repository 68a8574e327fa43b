//! `chirpstack.toml` of ChirpStack 4 (ChirpStack documentation, "Configuration"), and devices and device profiles as its API
//! gives them, in JSON (AR-39 is visible there alone: they stand in its database).
//!
//! Settings are looked at by what they are, wherever they stand: URLs, secrets, keys. So plug-ins and later versions are
//! looked at as well.

use std::path::Path;

use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};

use super::host::{is_loopback, url, without_login, without_port};
use super::{Notes, Unread, is_secret_name, shown};
use crate::known;

/// Characters of a secret that signs tokens, at least: 16 random bytes in base 64.
const SHORTEST_SECRET: usize = 22;

/// What a configuration shows. Devices and device profiles (AR-39) do not stand in it.
const IN_CONFIG: &[&str] = &["AR-08", "FX-11", "FX-12", "FX-13", "FX-14", "FX-15", "FX-16"];

/// What an export had in it.
#[derive(Debug, Default)]
struct Export {
    counters: bool,
    activation: bool,
}

/// Looks at a configuration or an export.
///
/// # Errors
/// It is neither TOML nor JSON.
pub fn examine(path: &Path, text: &str, notes: &mut Notes) -> Result<(), Unread> {
    if text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        let value = serde_json::from_str(text).map_err(|e| Unread::Form("JSON".into(), e.line()))?;
        let mut export = Export::default();
        json(path, "", &value, &mut export, notes);
        // Devices say whether their counters are checked, and profiles how devices join: AR-39 is about both.
        if export.counters && export.activation {
            notes.look(&["AR-39"]);
        } else {
            notes.miss("AR-39");
        }
        return Ok(());
    }
    let lines = Lines::of(text);
    let table = DeTable::parse(text).map_err(|e| {
        let line = e.span().map_or(0, |span| lines.at(span.start));
        Unread::Form(format!("TOML: {}", shown(&e.message())), line)
    })?;
    let mut walk = Walk { path, lines: &lines, notes };
    walk.table("", table.get_ref());
    notes.look(IN_CONFIG);
    Ok(())
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect())
    }

    /// The line of a byte; the first is 1.
    fn at(&self, byte: usize) -> usize {
        self.0.partition_point(|end| *end < byte) + 1
    }
}

struct Walk<'a> {
    path: &'a Path,
    lines: &'a Lines,
    notes: &'a mut Notes,
}

impl Walk<'_> {
    /// The parser bounds how deep tables stand in each other.
    fn table(&mut self, inside: &str, table: &DeTable<'_>) {
        let text = |key: &str| match table.get(key).map(toml::Spanned::get_ref) {
            Some(DeValue::String(text)) => text.to_string(),
            _ => String::new(),
        };
        // The docs: brokers of Kafka are in a list of their own, and `tls` says how they are spoken to.
        if let Some(DeValue::Array(brokers)) = table.get("brokers").map(toml::Spanned::get_ref) {
            let has_tls = matches!(table.get("tls").map(toml::Spanned::get_ref), Some(DeValue::Boolean(true)));
            for broker in brokers.iter() {
                if let DeValue::String(host) = broker.get_ref()
                    && !has_tls
                    && !is_loopback(without_port(without_login(host)))
                {
                    let line = self.lines.at(broker.span().start);
                    let what = format!("{inside} speaks to {} without TLS", shown(&without_login(host)));
                    self.notes.say("FX-13", self.path, line, what);
                }
            }
        }
        let login = Login { user: text("username"), has_ca: !text("ca_cert").is_empty() };
        for (key, value) in table {
            let line = self.lines.at(key.span().start);
            let name =
                if inside.is_empty() { key.get_ref().to_string() } else { format!("{inside}.{}", key.get_ref()) };
            self.value(&name, key.get_ref(), value.get_ref(), line, &login);
        }
    }

    fn value(&mut self, name: &str, key: &str, value: &DeValue<'_>, line: usize, login: &Login) {
        match value {
            DeValue::Table(table) => self.table(name, table),
            DeValue::Array(all) => {
                for one in all.iter() {
                    let line = self.lines.at(one.span().start);
                    self.value(name, key, one.get_ref(), line, login);
                }
            }
            DeValue::String(text) => self.text(name, key, text, line, login),
            DeValue::Boolean(is_true) => flag(self.path, key, *is_true, line, self.notes),
            _ => {}
        }
    }

    fn text(&mut self, name: &str, key: &str, text: &str, line: usize, login: &Login) {
        let shown_name = shown(&name);
        let mut say = |rule, what: String| self.notes.say(rule, self.path, line, what);
        if name == "api.secret" || key == "jwt_secret" {
            match known::find(text.as_bytes()) {
                Some(known) => say("FX-11", format!("{shown_name} is public: {}", known.what)),
                None if text.starts_with('$') => {}
                None if text.len() < SHORTEST_SECRET => {
                    say("FX-11", format!("{shown_name} has {} characters: it can be guessed", text.len()));
                }
                None => {}
            }
            return;
        }
        if key == "bind" && !text.is_empty() && !is_loopback(without_port(text)) && name != "backend_interfaces.bind" {
            say("FX-12", format!("{shown_name} = {}: other machines reach it, in the clear", shown(&text)));
            return;
        }
        if let Some(url) = url(text) {
            if is_clear(&url, login) && !url.host.starts_with('$') && !is_loopback(url.host) {
                say("FX-13", format!("{shown_name} speaks to {} without TLS ({})", shown(&url.host), url.scheme));
            }
            if let Some(password) = url.password {
                self.password(&shown_name, password, url.user, line);
            }
        } else if is_secret_name(key) && !text.is_empty() {
            self.password(&shown_name, text, &login.user, line);
        }
    }

    /// A secret that stands in the file; one that begins with `$` is a variable of the environment.
    fn password(&mut self, name: &str, text: &str, user: &str, line: usize) {
        if text.is_empty() || text.starts_with('$') {
            return;
        }
        if name.ends_with("kek") {
            if let Some(known) = known::find_text(text) {
                self.notes.say(
                    "AR-08",
                    self.path,
                    line,
                    format!("{name} is a key that everybody knows: {}", known.what),
                );
                return;
            }
        } else if text == user || known::find_text(text).is_some() {
            let what = format!("the password in {name} is one of those that are tried first");
            self.notes.say("FX-15", self.path, line, what);
            return;
        }
        self.notes.say("FX-14", self.path, line, format!("{name} holds a secret: who reads this file has it"));
    }
}

/// What stands beside a setting.
struct Login {
    user: String,
    has_ca: bool,
}

fn is_clear(url: &super::host::Url<'_>, login: &Login) -> bool {
    match url.scheme.as_str() {
        "tcp" | "mqtt" | "ws" | "amqp" | "http" | "redis" => true,
        "nats" => !login.has_ca,
        // libpq's word for it, which its Rust counterpart takes too; without it TLS is tried and not asked for.
        "postgres" | "postgresql" => {
            let mode = url.query.split('&').find_map(|pair| pair.strip_prefix("sslmode="));
            !matches!(mode, Some("require" | "verify-ca" | "verify-full"))
        }
        _ => false,
    }
}

fn flag(path: &Path, key: &str, is_true: bool, line: usize, notes: &mut Notes) {
    match (key, is_true) {
        ("skip_fcnt_check" | "skipFcntCheck", true) => {
            notes.say("AR-39", path, line, "the frame counter of this device is not checked: old frames come in again");
        }
        ("supports_otaa" | "supportsOtaa", false) => {
            notes.say("AR-39", path, line, "devices of this profile have their session keys for ever (ABP)");
        }
        ("allow_unknown_gateways", true) => {
            notes.say("FX-16", path, line, "frames of gateways that nobody entered are taken");
        }
        _ => {}
    }
}

/// Exports have no lines that are worth to be named: what stands where is said by names.
fn json(path: &Path, whose: &str, value: &Json, export: &mut Export, notes: &mut Notes) {
    match value {
        Json::Array(all) => all.iter().for_each(|one| json(path, whose, one, export, notes)),
        Json::Object(all) => {
            let named = ["devEui", "dev_eui", "name"].iter().find_map(|key| all.get(*key)?.as_str());
            let whose = named.unwrap_or(whose);
            let before = notes.seen.len();
            for (key, value) in all {
                match value {
                    Json::Bool(is_true) => {
                        export.counters |= matches!(key.as_str(), "skip_fcnt_check" | "skipFcntCheck");
                        export.activation |= matches!(key.as_str(), "supports_otaa" | "supportsOtaa");
                        flag(path, key, *is_true, 0, notes);
                    }
                    Json::String(text)
                        if matches!(
                            key.to_ascii_lowercase().replace('_', "").as_str(),
                            "appkey" | "nwkkey" | "genappkey" | "appskey" | "nwksenckey"
                        ) =>
                    {
                        notes.look(&["AR-08"]);
                        // What its API answers where there is no such key.
                        let is_none = text.bytes().all(|b| b == b'0');
                        if let Some(known) = known::find_text(text).filter(|_| !is_none) {
                            notes.say("AR-08", path, 0, format!("{key} is a key that everybody knows: {}", known.what));
                        }
                    }
                    _ => {}
                }
            }
            for one in notes.seen.iter_mut().skip(before).filter(|_| !whose.is_empty()) {
                one.what = format!("{}: {}", shown(&whose), one.what);
            }
            all.values().filter(|v| v.is_array() || v.is_object()).for_each(|v| json(path, whose, v, export, notes));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::Made;
    use super::super::{Seen, System, Unread, examine};
    use std::path::Path;

    fn seen(text: &str) -> Vec<Seen> {
        let mut files = Made::default().with("/c.toml", text);
        examine(System::Chirpstack, Path::new("/c.toml"), &mut files).unwrap().into_vec()
    }

    fn of(text: &str) -> Vec<(&'static str, usize)> {
        seen(text).into_iter().map(|s| (s.rule, s.line)).collect()
    }

    #[test]
    fn what_its_guides_write_is_found_line_by_line() {
        let text = "[postgresql]\n  dsn=\"postgres://chirpstack:chirpstack@postgres/chirpstack?sslmode=disable\"\n\
                    [redis]\n  servers=[\n    \"redis://redis/\",\n  ]\n[api]\n  bind=\"0.0.0.0:8080\"\n\
                    secret=\"you-must-replace-this\"\n[gateway]\nallow_unknown_gateways=true\n";
        let expected = [("FX-11", 9), ("FX-12", 8), ("FX-13", 2), ("FX-13", 5), ("FX-15", 2), ("FX-16", 11)];
        let mut found = of(text);
        found.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_stays_on_the_machine_or_is_sealed_is_well() {
        let text = "[postgresql]\ndsn=\"postgres://c:$PASSWORD@db.example/c?sslmode=verify-full\"\n[redis]\n\
                    servers=[\"rediss://cache.example/\"]\n[api]\nbind=\"127.0.0.1:8080\"\nsecret=\"$SECRET\"\n\
                    [integration.mqtt]\nserver=\"tcp://[::1]:1883/\"\nusername=\"a\"\npassword=\"\"\n\
                    [integration.kafka]\nbrokers=[\"k.example:9093\"]\ntls=true\n\
                    [[regions]]\n[regions.gateway.backend.mqtt]\nserver=\"ssl://m.example:8883\"";
        assert_eq!(of(text), []);
    }

    #[test]
    fn keys_and_passwords_are_found_and_never_repeated() {
        let text = "[integration.mqtt]\nserver=\"mqtt://m.example:1883\"\nusername=\"ann\"\npassword=\"s3cr3t-enough\"\n\
                    [[keks]]\nlabel=\"a\"\nkek=\"00112233445566778899aabbccddeeff\"\n[integration.kafka]\n\
                    brokers=[\"k.example:9092\"]\n[integration.amqp]\nurl=\"amqp://guest:guest@localhost:5672\"\n[api]\nsecret=\"short-one\"";
        let found = seen(text);
        let mut rules: Vec<_> = found.iter().map(|s| (s.rule, s.line)).collect();
        rules.sort_unstable();
        let expected = [("AR-08", 7), ("FX-11", 13), ("FX-13", 2), ("FX-13", 9), ("FX-14", 4), ("FX-15", 11)];
        assert_eq!(rules, expected);
        let text = "[postgresql]\ndsn=\"postgres://ann:h1dden/w3ll@db.example/c\"\n[integration.kafka]\nbrokers=[\"ann:h1dden@k:9092\"]";
        let more = seen(text);
        assert_eq!(more.iter().filter(|s| s.what.contains("db.example")).count(), 1, "{more:?}");
        let found = [found, more].concat();
        for secret in ["s3cr3t", "guest", "001122", "short-one", "h1dden", "w3ll"] {
            assert!(found.iter().all(|s| !s.what.contains(secret)), "{secret}: {found:?}");
        }
    }

    #[test]
    fn devices_that_its_api_gives_are_looked_at_by_name() {
        let text = r#"{"result":[{"devEui":"0102030405060708","skipFcntCheck":true,"deviceProfile":{"supportsOtaa":false,"name":"p"},
            "keys":{"nwkKey":"2b7e151628aed2a6abf7158809cf4f3c","appKey":"00000000000000000000000000000000"}},
            {"devEui":"0102030405060709","skipFcntCheck":false}]}"#;
        let found = seen(text);
        assert_eq!(found.iter().map(|s| s.rule).collect::<Vec<_>>(), ["AR-39", "AR-39", "AR-08"]);
        assert!(found[0].what.starts_with("0102030405060708: ") && found[1].what.starts_with("p: "), "{found:?}");
    }

    #[test]
    fn what_is_no_configuration_is_refused_with_its_line() {
        for (text, line) in [("a=1\nb=", 2), ("\u{0}", 1), ("[a\n", 1)] {
            let mut files = Made::default().with("/c.toml", text);
            let refused = examine(System::Chirpstack, Path::new("/c.toml"), &mut files);
            assert!(matches!(&refused, Err(Unread::Form(_, at)) if *at == line), "{text:?}: {refused:?}");
        }
        let mut deep = Made::default().with("/c.toml", &format!("a={}", "[".repeat(100_000)));
        assert!(examine(System::Chirpstack, Path::new("/c.toml"), &mut deep).is_err());
    }
}
