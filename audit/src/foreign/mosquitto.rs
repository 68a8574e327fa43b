//! `mosquitto.conf` of Eclipse Mosquitto, as mosquitto.conf(5) describes it.
//!
//! A `listener` opens a section: what follows belongs to it. Who may come in is one setting for all listeners, unless
//! `per_listener_settings true` stands there. A setting that stands twice has its last value.

use std::path::{Path, PathBuf};

use super::files::{Walk, beside};
use super::host::{is_loopback, without_login, without_port};
use super::lines::settings;
use super::{NOT_EXAMINED, Notes, Unread, shown};

/// Listeners and bridges of one broker, at most.
const MOST: usize = 1000;

/// A setting and where it stands.
#[derive(Clone, Debug)]
struct Set<T> {
    value: T,
    file: PathBuf,
    line: usize,
}

/// Who may come in, and to what.
#[derive(Clone, Debug, Default)]
struct Doors {
    anonymous: Option<Set<bool>>,
    has_accounts: bool,
    has_acl: bool,
}

/// A listener.
#[derive(Clone, Debug, Default)]
struct Listener {
    /// `None`: the one that nothing but `port` describes.
    opened: Option<Set<String>>,
    host: Option<String>,
    is_socket: bool,
    has_certificate: bool,
    has_psk: bool,
    asks_certificate: bool,
    tls: Option<Set<String>>,
    doors: Doors,
}

/// A bridge to another broker.
#[derive(Clone, Debug)]
struct Bridge {
    opened: Set<String>,
    /// The first that is another machine.
    far: Option<String>,
    has_tls: bool,
    insecure: Option<usize>,
}

#[derive(Debug, Default)]
struct Broker {
    per_listener: bool,
    all: Doors,
    persistence: Option<bool>,
    first: Listener,
    listeners: Vec<Listener>,
    bridges: Vec<Bridge>,
    is_bridge: bool,
    /// Whether any line is a setting, and whether any is none.
    lines: (bool, bool),
}

/// Looks at a broker's configuration.
///
/// # Errors
/// [`Unread::Form`]: not one of its lines is a setting.
pub fn examine(path: &Path, text: &str, walk: &mut Walk<'_>, notes: &mut Notes) -> Result<(), Unread> {
    let mut broker = Broker::default();
    broker.read(path, text, walk, notes);
    if broker.lines == (false, true) {
        return Err(Unread::Form("a mosquitto.conf: none of its lines is a setting of one".into(), 0));
    }
    broker.judge(path, notes);
    Ok(())
}

/// All settings of mosquitto.conf(5), from 1.4 to 2.1, but for those with a prefix of [`PREFIXES`].
const SETTINGS: &str = "accept_protocol_versions acl_file address addresses allow_anonymous allow_duplicate_messages \
    allow_zero_length_clientid auto_id_prefix autosave_interval autosave_on_changes bind_address bind_interface cafile capath \
    certfile check_retain_source ciphers ciphers_tls1.3 cleansession clientid clientid_prefixes connection connection_messages \
    crlfile dhparamfile disable_client_cert_date_checks enable_control_api enable_proxy_protocol http_dir idle_timeout include_dir \
    keepalive_interval keyfile listener log_dest log_facility log_timestamp log_timestamp_format log_type max_connections \
    max_inflight_bytes max_inflight_messages max_keepalive max_packet_size max_qos max_queued_bytes max_queued_messages \
    max_topic_alias max_topic_alias_broker memory_limit message_size_limit mount_point notification_topic notifications \
    notifications_local_only packet_buffer_size packet_max_auth packet_max_simple password password_file per_listener_settings \
    persistence persistence_file persistence_location persistent_client_expiration pid_file port protocol \
    proxy_protocol_v2_require_tls psk_file psk_hint queue_qos0_messages require_certificate restart_timeout retain_available \
    retain_expiry_interval retry_interval round_robin set_tcp_nodelay socket_domain start_type store_clean_interval sys_interval \
    threshold tls_engine tls_engine_kpass_sha1 tls_keyform tls_version topic trace_level try_private upgrade_outgoing_qos \
    use_identity_as_username use_subject_as_username use_username_as_clientid user username websockets_headers_size \
    websockets_log_level websockets_origin";
const PREFIXES: [&str; 7] = ["auth_", "bridge_", "global_", "listener_", "local_", "plugin", "remote_"];

fn is_setting(key: &str) -> bool {
    SETTINGS.split(' ').any(|known| known == key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix))
}

/// Key and value of a line; the value is all that stands behind the key.
fn split(line: &str) -> (&str, &str) {
    line.split_once([' ', '\t']).map_or((line, ""), |(key, value)| (key, value.trim()))
}

impl Broker {
    fn read(&mut self, path: &Path, text: &str, walk: &mut Walk<'_>, notes: &mut Notes) {
        for (line, setting) in settings(text) {
            let (key, value) = split(setting);
            if !is_setting(key) {
                self.lines.1 = true;
                // Nobody knows what it is, so no word of it is repeated.
                notes.say(NOT_EXAMINED, path, line, "this line is no setting of mosquitto.conf");
                continue;
            }
            self.lines.0 = true;
            if key == "include_dir" {
                // The broker takes a relative folder from where it was started: a copy is looked at with what lies beside it.
                self.include(path, line, &beside(path, value), walk, notes);
            } else {
                self.set(path, line, key, value, notes);
            }
        }
    }

    fn include(&mut self, path: &Path, line: usize, folder: &Path, walk: &mut Walk<'_>, notes: &mut Notes) {
        let files = match walk.ending(folder, ".conf") {
            Ok(files) => files,
            Err(why) => return notes.unread(path, line, folder, &why),
        };
        for file in files {
            match walk.enter(&file) {
                Ok(text) => {
                    self.read(&file, &text, walk, notes);
                    walk.leave();
                }
                Err(why) => notes.unread(path, line, &file, &why),
            }
        }
    }

    /// The section that a setting of a listener belongs to.
    fn listener(&mut self) -> &mut Listener {
        self.listeners.last_mut().unwrap_or(&mut self.first)
    }

    fn doors(&mut self) -> &mut Doors {
        if self.per_listener { &mut self.listener().doors } else { &mut self.all }
    }

    fn set(&mut self, file: &Path, line: usize, key: &str, value: &str, notes: &mut Notes) {
        let at = |value: &str| Set { value: value.to_owned(), file: file.to_owned(), line };
        let is_true = value.eq_ignore_ascii_case("true") || value == "1";
        match key {
            "per_listener_settings" => self.per_listener = is_true,
            "listener" if self.listeners.len() == MOST => notes.leave("listeners"),
            "listener" => {
                self.is_bridge = false;
                let (port, host) = split(value);
                self.listeners.push(Listener {
                    opened: Some(at(value)),
                    host: Some(host).filter(|h| !h.is_empty()).map(str::to_owned),
                    is_socket: port == "0",
                    ..Listener::default()
                });
            }
            "port" => self.first.opened = Some(at(value)),
            // Of the default listener alone, wherever it stands.
            "bind_address" => self.first.host = Some(value.to_owned()),
            "certfile" => self.listener().has_certificate = true,
            "psk_hint" => self.listener().has_psk = true,
            "psk_file" => self.doors().has_accounts = true,
            "require_certificate" => self.listener().asks_certificate = is_true,
            "tls_version" => self.listener().tls = Some(at(value)),
            "allow_anonymous" => {
                self.doors().anonymous = Some(Set { value: is_true, file: file.to_owned(), line });
            }
            "password_file" => self.doors().has_accounts = true,
            "acl_file" => self.doors().has_acl = true,
            // Whether a plug-in decides who comes in or what he may do, only its own settings say: it may do both.
            "plugin" | "auth_plugin" | "global_plugin" | "plugin_load" | "plugin_use" => {
                let doors = if key == "global_plugin" { &mut self.all } else { self.doors() };
                (doors.has_accounts, doors.has_acl) = (true, true);
            }
            "persistence" => self.persistence = Some(is_true),
            "connection" if self.bridges.len() == MOST => notes.leave("connections"),
            "connection" => {
                self.is_bridge = true;
                self.bridges.push(Bridge { opened: at(value), far: None, has_tls: false, insecure: None });
            }
            _ => self.set_bridge(line, key, value, is_true),
        }
    }

    fn set_bridge(&mut self, line: usize, key: &str, value: &str, is_true: bool) {
        let Some(bridge) = self.bridges.last_mut().filter(|_| self.is_bridge) else { return };
        match key {
            "address" | "addresses" => {
                let mut hosts = value.split_whitespace().map(|address| without_port(without_login(address)));
                let far = hosts.find(|host| !is_loopback(host));
                bridge.far = bridge.far.take().or_else(|| far.map(str::to_owned));
            }
            "bridge_cafile" | "bridge_capath" | "bridge_psk" => bridge.has_tls = true,
            "bridge_tls_use_os_certs" => bridge.has_tls |= is_true,
            "bridge_insecure" => bridge.insecure = is_true.then_some(line),
            _ => {}
        }
    }

    fn judge(&self, path: &Path, notes: &mut Notes) {
        if self.persistence != Some(true) {
            notes.say(
                "FX-07",
                path,
                0,
                "persistence is off: what waits for a subscriber is lost when the broker stops",
            );
        }
        if !self.per_listener {
            say_anonymous(&self.all, notes);
        }
        let own = self.first.opened.is_some() || self.first.host.is_some();
        let mut is_open = false;
        for listener in self.listeners.iter().chain(own.then_some(&self.first)) {
            is_open |= self.judge_listener(path, listener, notes);
        }
        if is_open && !self.per_listener && !self.all.has_acl {
            notes.say("FX-06", path, 0, "no acl_file: whoever comes in reads and writes every topic");
        }
        self.bridges.iter().for_each(|bridge| judge_bridge(bridge, notes));
    }

    /// Returns whether others than this machine reach it.
    fn judge_listener(&self, path: &Path, listener: &Listener, notes: &mut Notes) -> bool {
        let (file, line, name) = match &listener.opened {
            Some(set) => (set.file.as_path(), set.line, set.value.as_str()),
            None => (path, 0, "1883"),
        };
        let name = shown(&name);
        let doors = if self.per_listener { &listener.doors } else { &self.all };
        if self.per_listener {
            say_anonymous(doors, notes);
        }
        if let Some(tls) = &listener.tls
            && matches!(tls.value.as_str(), "tlsv1" | "tlsv1.0" | "tlsv1.1")
        {
            notes.say("FX-08", &tls.file, tls.line, format!("listener {name} takes {}", tls.value));
        }
        if listener.is_socket || listener.host.as_deref().is_some_and(is_loopback) {
            return false;
        }
        if !listener.has_certificate && !listener.has_psk {
            notes.say("FX-03", file, line, format!("listener {name} is reached from other machines, in the clear"));
        } else if listener.has_certificate && !listener.asks_certificate && !listener.has_psk {
            notes.say("FX-04", file, line, format!("listener {name} asks its clients for no certificate"));
        }
        let is_known = doors.has_accounts
            || self.all.has_accounts
            || listener.asks_certificate && listener.has_certificate
            || listener.has_psk;
        if !is_known && doors.anonymous.as_ref().is_none_or(|a| !a.value) {
            notes.say(
                "FX-05",
                file,
                line,
                format!("listener {name} has no password_file, plug-in, PSK or client certificates"),
            );
        }
        if self.per_listener && !doors.has_acl && !self.all.has_acl {
            notes.say(
                "FX-06",
                file,
                line,
                format!("listener {name} has no acl_file: whoever comes in reads and writes every topic"),
            );
        }
        true
    }
}

fn say_anonymous(doors: &Doors, notes: &mut Notes) {
    if let Some(set) = doors.anonymous.as_ref().filter(|set| set.value) {
        notes.say("FX-02", &set.file, set.line, "allow_anonymous true: clients come in without a name");
    }
}

fn judge_bridge(bridge: &Bridge, notes: &mut Notes) {
    let Set { value, file, line } = &bridge.opened;
    if !bridge.has_tls
        && let Some(host) = &bridge.far
    {
        let what = format!("bridge {} speaks to {} without TLS", shown(value), shown(host));
        notes.say("FX-09", file, *line, what);
    }
    if let Some(line) = bridge.insecure {
        let what = format!("bridge {} does not check whose certificate it is given (bridge_insecure)", shown(value));
        notes.say("FX-09", file, line, what);
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::Made;
    use super::super::{System, examine};
    use std::path::Path;

    fn rules(files: Made) -> Vec<(&'static str, usize)> {
        let mut files = files;
        let seen = examine(System::Mosquitto, Path::new("/m.conf"), &mut files).unwrap();
        seen.into_vec().into_iter().map(|s| (s.rule, s.line)).collect()
    }

    fn of(text: &str) -> Vec<(&'static str, usize)> {
        rules(Made::default().with("/m.conf", text))
    }

    #[test]
    fn a_broker_for_this_machine_alone_lacks_nothing_but_persistence() {
        assert_eq!(of(""), [("FX-07", 0)]);
        assert_eq!(of("persistence true\nlistener 1883 127.0.0.1\nallow_anonymous false"), []);
        assert_eq!(of("persistence true\nlistener 0 /run/mosquitto.sock"), []);
    }

    #[test]
    fn settings_of_listeners_are_their_own_where_the_file_says_so() {
        let text = "per_listener_settings true\npersistence true\nlistener 1883 ::1\nallow_anonymous true\n\
                    listener 8883\ncertfile a\nkeyfile b\npassword_file c\nacl_file d\nrequire_certificate true";
        assert_eq!(of(text), [("FX-02", 4)]);
        let shared = text.replace("per_listener_settings true", "");
        assert_eq!(of(&shared), [("FX-02", 4)], "the setting is for all, wherever it stands");
    }

    #[test]
    fn an_address_to_bind_is_that_of_the_default_listener_alone() {
        let text = "persistence true\npassword_file p\nacl_file a\nlistener 1883\nbind_address 127.0.0.1";
        assert_eq!(of(text), [("FX-03", 4)]);
        let both =
            "persistence true\npassword_file p\nacl_file a\nlistener 1883 127.0.0.1\nport 1884\nbind_address 10.0.0.1";
        assert_eq!(of(both), [("FX-03", 5)]);
    }

    #[test]
    fn a_line_that_is_no_setting_is_said_and_a_file_of_none_but_those_is_refused() {
        assert_eq!(of("persistence true\nallow_anonymos false\nplugin_opt_x y\nlog_dest stdout"), [("FX-01", 2)]);
        let mut files = Made::default().with("/m.conf", "host all all\nnonsense");
        let none = examine(System::Mosquitto, Path::new("/m.conf"), &mut files).unwrap_err().to_string();
        assert_eq!(none, "it is not a mosquitto.conf: none of its lines is a setting of one");
    }

    #[test]
    fn the_last_value_counts() {
        assert_eq!(of("allow_anonymous true\nallow_anonymous false\npersistence false\npersistence true"), []);
    }

    #[test]
    fn a_folder_that_includes_itself_ends_and_is_said() {
        let files = Made::default()
            .with("/m.conf", "persistence true\ninclude_dir /d")
            .with("/d/a.conf", "include_dir /d")
            .with("/d/b.conf", "listener 1883");
        let found = rules(files);
        assert!(found.contains(&("FX-01", 1)), "{found:?}");
        assert!(found.contains(&("FX-03", 1)), "{found:?}");
        assert_eq!(rules(Made::default().with("/m.conf", "persistence 1\ninclude_dir /d")), []);
    }

    #[test]
    fn a_bridge_is_looked_at_too() {
        let text = "persistence true\nconnection b\naddress far.example:1883 127.0.0.1\nconnection c\naddress far.example\n\
                    bridge_capath /etc/ssl/certs\nbridge_insecure true\nconnection d\naddress localhost:1883";
        assert_eq!(of(text), [("FX-09", 2), ("FX-09", 7)]);
    }
}
