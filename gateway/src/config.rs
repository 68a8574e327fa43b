//! From a gateway's folder to a [`Config`] that is checked and ready.
//!
//! `gateway.toml` is [`GatewaySettings`], exactly the file; secrets are in one sealed file beside it, the passphrase in
//! another, which others must not be able to read. Everything that is wrong is one sentence with the next step.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use fivefold_core::e1_link::rotation::is_older;
use fivefold_core::e1_link::{Air, E1, Identity as LinkIdentity, LinkPolicy, Station};
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::{Did, GatewayGroup, Sid};
use fivefold_core::key::Key;
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::time::Millis;
use fivefold_core::wire::ieee802154::{Pan, SecurityLevel};
use fivefold_core::wire::state::Phase;
use fivefold_keep::files::{self, FileError};
use fivefold_keep::share::{
    self, CA_FILE, CERTIFICATE_FILE, GATEWAY_FILE, GatewayHttp, GatewaySecrets, GatewaySettings, GatewayXbee,
    ShareError,
};
use fivefold_keep::sign::{AgreementKey, SigningKey};
use fivefold_keep::site::LOCAL_KEY_FILE;
use fivefold_keep::tls::{Anchor, Groups, Identity, TlsError};
use fivefold_keep::vault::{Vault, VaultError};

use crate::gateway::Limits;
use crate::lorawan;
use crate::xbee::kind::Kind;
use crate::xbee::{LinkKeyError, Time, Xbee};

/// 2025-01-01 in Unix milliseconds: nothing of ours is older, so an earlier clock is wrong.
const EARLIEST: u64 = 1_735_689_600_000;

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The clock cannot be right.
    #[error(
        "the clock of this machine says a time before 2025: set it (by NTP, for one), since certificates and receipts depend on it"
    )]
    Clock,
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no key for the XBee module.
    #[error(transparent)]
    LinkKey(#[from] LinkKeyError),
    /// A value is out of range.
    #[error("{path}: {key}: {reason}", path = path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The key in it.
        key: &'static str,
        /// What is wrong, and what to write instead.
        reason: String,
    },
    /// The share is not of its form.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// The certificate cannot be used.
    #[error("{path}: {source}", path = path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why.
        source: TlsError,
    },
    /// The vault did not open.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl ConfigError {
    /// Whether it is the same at the next try, until somebody mends it.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Clock => false,
            Self::Invalid { .. } | Self::Tls { .. } => true,
            Self::File(e) | Self::LinkKey(LinkKeyError::File(e)) => e.is_lasting(),
            Self::LinkKey(LinkKeyError::Form(_)) => true,
            Self::Share(e) => e.is_lasting(),
            Self::Vault(e) => e.is_lasting(),
        }
    }
}

/// A neighbour whose last frame counter is believed without proof.
#[derive(Clone, Copy, Debug)]
pub struct Synced {
    /// EUI-64.
    pub did: Did,
    /// Short address.
    pub sid: Sid,
    /// Index of the network key.
    pub key_index: u8,
    /// Last frame counter.
    pub counter: u32,
}

/// Where a gateway's readings go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To the cloud.
    Cloud {
        /// Where it is.
        cloud: String,
        /// Which key exchange is taken.
        groups: Groups,
    },
    /// Nowhere: the site has no cloud, and keys are agreed here.
    None {
        /// The file by which the operator tells it its devices.
        state: PathBuf,
    },
}

/// A gateway's configuration, checked.
#[derive(Debug)]
pub struct Config {
    /// Its folder.
    pub folder: PathBuf,
    /// Its name, for people.
    pub name: String,
    /// Network and id, as in its certificate.
    pub identity: GatewayName,
    /// Its group.
    pub group: GatewayGroup,
    /// Who it is on the radio.
    pub radio: LinkIdentity,
    /// Levels of the network.
    pub policy: LinkPolicy,
    /// UDP address of its radio.
    pub bind: SocketAddr,
    /// Who hears it.
    pub air: Vec<SocketAddr>,
    /// UDP address for CoAP.
    pub coap: Option<SocketAddr>,
    /// Devices that do not say who they are when they renew.
    pub coap_devices: HashMap<IpAddr, Sid>,
    /// Where readings go.
    pub uplink: Destination,
    /// The store's file.
    pub store: PathBuf,
    /// Bounds.
    pub limits: Limits,
    /// TCP address of the counters.
    pub metrics: Option<SocketAddr>,
    /// Classic frames by HTTP in clear text.
    pub insecure_http: Option<GatewayHttp>,
    /// An XBee module.
    pub xbee: Option<Xbee>,
    /// Frames by LoRaWAN.
    pub lorawan: Option<lorawan::Config>,
    /// For replaying captures.
    pub danger_synced: Vec<Synced>,
}

/// What a gateway holds that others must not. Prints nothing of it.
pub struct Secrets {
    /// Opens and seals.
    pub vault: Vault,
    /// Certificate and key for E4.
    pub identity: Identity,
    /// The operator's CA.
    pub anchor: Anchor,
    /// Signs receipts.
    pub signing: SigningKey,
    /// Network keys as of enrolment, the one to send under first.
    pub keys: Vec<(u8, Key<E1, 16>)>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// The table of an XBee module.
fn xbee(folder: &Path, words: &GatewayXbee) -> Result<Xbee, String> {
    let known = || Kind::ALL.map(Kind::as_str).join(", ");
    Ok(Xbee {
        port: folder.join(&words.port),
        baud: words.baud,
        kind: Kind::from_word(&words.kind).ok_or_else(|| format!("write one of {}", known()))?,
        link_key_file: words.link_key_file.as_ref().map(|file| folder.join(file)),
        time: if words.answer_time { Time::Answered } else { Time::Ignored },
    })
}

/// Whether the clock of this machine can be right.
///
/// # Errors
/// [`ConfigError::Clock`] before 2025.
pub const fn check_clock(now: Millis) -> Result<(), ConfigError> {
    if now.0 < EARLIEST { Err(ConfigError::Clock) } else { Ok(()) }
}

impl Config {
    /// Reads and checks `gateway.toml` of a folder.
    ///
    /// # Errors
    /// One sentence about the first thing that is wrong: an unknown key, an id that is none, a clock before 2025.
    pub fn read(folder: &Path, now: Millis) -> Result<Self, ConfigError> {
        check_clock(now)?;
        let path = folder.join(GATEWAY_FILE);
        let settings: GatewaySettings = share::read_config(&path)?;
        let invalid = |key, reason: &str| ConfigError::Invalid { path: path.clone(), key, reason: reason.to_owned() };
        let (gateway, net, group) = share::gateway_identity(&path, &settings)?;
        let minimum = match settings.link.minimum_level {
            6 => SecurityLevel::EncMic64,
            5 => SecurityLevel::EncMic32,
            _ => return Err(invalid("link.minimum_level", "write 6 (MIC-64) or 5 (MIC-32)")),
        };
        if settings.store.max_mib == 0 {
            return Err(invalid("store.max_mib", "a store of no size takes nothing; 256 is a good start"));
        }
        let uplink = match (&settings.uplink, &settings.local) {
            (Some(uplink), None) if !uplink.cloud.starts_with("https://") => {
                return Err(invalid(
                    "uplink.cloud",
                    "write https://HOST:PORT, with a host that is in the cloud's certificate",
                ));
            }
            (Some(uplink), None) => {
                let cloud = uplink.cloud.trim_end_matches('/').to_owned();
                let groups = if uplink.insecure_allow_x25519 { Groups::DangerAllowX25519 } else { Groups::HybridOnly };
                Destination::Cloud { cloud, groups }
            }
            (None, Some(local)) => Destination::None { state: folder.join(&local.state) },
            (None, None) => {
                return Err(invalid(
                    "uplink",
                    "say where the cloud is; at a site without one type: fivefold gateway local",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "local",
                    "a gateway that agrees keys alone has no cloud: leave out [uplink], or [local]",
                ));
            }
        };
        if let Some(http) = &settings.insecure_http {
            let bounds = [
                ("insecure_http.connections", http.connections as u64),
                ("insecure_http.connections_per_address", http.connections_per_address as u64),
                ("insecure_http.requests_a_minute", http.requests_a_minute.into()),
                ("insecure_http.request_seconds", http.request_seconds.into()),
            ];
            if let Some((key, _)) = bounds.iter().find(|(_, bound)| *bound == 0) {
                return Err(invalid(key, "0 lets nobody in; leave the line out, or leave [insecure_http] out"));
            }
        }
        if let Some(metrics) = &settings.metrics
            && !metrics.bind.ip().is_loopback()
        {
            return Err(invalid("metrics.bind", "counters are offered on loopback only, e.g. 127.0.0.1:9754"));
        }
        let did: Did = share::parse(&path, "link.did", &settings.link.did)?;
        let sid: Sid = share::parse(&path, "link.sid", &settings.link.sid)?;
        if !sid.is_assignable() {
            return Err(invalid("link.sid", "this short address is reserved"));
        }
        let mut danger_synced = Vec::new();
        for s in &settings.link.danger_synced {
            danger_synced.push(Synced {
                did: share::parse(&path, "link.danger_synced.did", &s.did)?,
                sid: share::parse(&path, "link.danger_synced.sid", &s.sid)?,
                key_index: s.key_index,
                counter: s.counter,
            });
        }
        let mut coap_devices = HashMap::new();
        for d in settings.coap.iter().flat_map(|c| &c.devices) {
            let sid = share::parse(&path, "coap.devices.sid", &d.sid)?;
            if coap_devices.insert(d.address, sid).is_some() {
                let reason = format!("{} is listed twice; leave one", d.address);
                return Err(ConfigError::Invalid { path, key: "coap.devices", reason });
            }
        }
        let lorawan = match &settings.lorawan {
            Some(words) => Some(
                lorawan::Config::check(words, folder, GatewayName { net, gateway })
                    .map_err(|wrong| invalid(wrong.key, &wrong.reason))?,
            ),
            None => None,
        };
        let xbee = settings.xbee.map(|words| xbee(folder, &words).map_err(|reason| invalid("xbee.kind", &reason)));
        let xbee = xbee.transpose()?;
        // Neighbours are reached by 802.15.4 frames, or by E1S messages through the module, as the book says of each.
        let air =
            xbee.as_ref().map_or(Air::Ieee802154, |x| Air::Both { longest: x.kind.longest_message(x.encryption()) });
        let pan = Pan(share::pan(&path, &settings.link.pan)?);
        Ok(Self {
            folder: folder.to_owned(),
            name: settings.name,
            identity: GatewayName { net, gateway },
            group,
            radio: LinkIdentity { did, sid, pan, station: Station::Gateway },
            policy: LinkPolicy { minimum, sending: SecurityLevel::EncMic64, air },
            bind: settings.link.bind,
            air: settings.link.air,
            coap: settings.coap.map(|c| c.bind),
            coap_devices,
            uplink,
            store: folder.join(settings.store.path),
            limits: Limits {
                messages_a_minute: settings.limits.messages_a_minute,
                spool_bytes: u64::from(settings.store.max_mib) << 20,
                custody_after: settings.limits.custody_after_ms,
            },
            metrics: settings.metrics.map(|m| m.bind),
            insecure_http: settings.insecure_http,
            xbee,
            lorawan,
            danger_synced,
        })
    }

    /// The certificate and its key, as they are on disk now.
    ///
    /// # Errors
    /// A file is missing, readable by others or of another vault; the certificate is another gateway's or
    /// another network's.
    pub fn identity(&self, vault: &Vault) -> Result<(Identity, GatewaySecrets), ConfigError> {
        let secrets = GatewaySecrets::read(vault, &self.folder)?;
        let path = self.folder.join(CERTIFICATE_FILE);
        let tls = |source| ConfigError::Tls { path: path.clone(), source };
        let identity = Identity::from_pkcs8(files::read_text(&path)?.as_bytes(), &secrets.tls_key).map_err(tls)?;
        identity.require_gateway(self.identity).map_err(tls)?;
        Ok((identity, secrets))
    }

    /// The key for receipts.
    ///
    /// # Errors
    /// It is none.
    pub fn signing(&self, secrets: &GatewaySecrets) -> Result<SigningKey, ConfigError> {
        SigningKey::from_pkcs8(&secrets.signing_key).map_err(|e| ConfigError::Invalid {
            path: self.folder.join(share::SECRETS_FILE),
            key: "signing key",
            reason: e.to_string(),
        })
    }

    /// Opens the vault.
    ///
    /// # Errors
    /// A wrong passphrase, or one that others can read.
    pub fn open_vault(&self) -> Result<Vault, ConfigError> {
        Ok(Vault::open_folder(&self.folder)?)
    }

    /// The key with which this gateway agrees keys alone, where its site has no cloud.
    ///
    /// # Errors
    /// It is missing, or of another vault.
    pub fn local_key(&self, vault: &Vault) -> Result<Option<AgreementKey>, ConfigError> {
        if let Destination::Cloud { .. } = self.uplink {
            return Ok(None);
        }
        let path = self.folder.join(LOCAL_KEY_FILE);
        let scalar = vault.open_file(&path)?;
        let key = scalar.as_slice().try_into().ok().and_then(AgreementKey::from_random);
        let reason = "it is no key; make one with: fivefold gateway local".to_owned();
        key.map(Some).ok_or(ConfigError::Invalid { path, key: "local key", reason })
    }

    /// Takes what is in the vault.
    ///
    /// # Errors
    /// As [`Config::identity`]; an unreadable CA.
    pub fn secrets(&self, vault: Vault) -> Result<Secrets, ConfigError> {
        let (identity, secrets) = self.identity(&vault)?;
        let path = self.folder.join(CA_FILE);
        let anchor = Anchor::from_pem(files::read_text(&path)?.as_bytes())
            .map_err(|source| ConfigError::Tls { path, source })?;
        let signing = self.signing(&secrets)?;
        let mut keys: Vec<_> = secrets.network_keys.iter().filter(|k| k.phase != Phase::Retire).collect();
        let sending = keys.iter().find(|k| k.phase == Phase::Switch).map_or(0, |k| k.index);
        keys.sort_by_key(|k| (!is_older(k.index, sending), k.phase != Phase::Switch));
        let keys = keys.into_iter().map(|k| (k.index, Key::new(*k.key))).collect();
        Ok(Secrets { vault, identity, anchor, signing, keys })
    }
}

impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |a: &[SocketAddr]| a.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        writeln!(f, "gateway      {} ({})", self.name, self.identity)?;
        writeln!(f, "group        {}", self.group)?;
        writeln!(
            f,
            "radio        {} as {} in PAN {:04x}, security level {} or more",
            self.radio.did,
            self.radio.sid,
            self.radio.pan.0,
            match self.policy.minimum {
                SecurityLevel::EncMic64 => 6,
                SecurityLevel::EncMic32 => 5,
            }
        )?;
        writeln!(f, "  listens on {}, is heard by {}", self.bind, list(&self.air))?;
        match self.coap {
            Some(coap) => writeln!(f, "coap         {coap}")?,
            None => writeln!(f, "coap         not offered")?,
        }
        if let Some(lorawan) = &self.lorawan {
            writeln!(f, "lorawan      {lorawan}")?;
        }
        match &self.uplink {
            Destination::Cloud { cloud, groups } => {
                let groups = match groups {
                    Groups::HybridOnly => "X25519MLKEM768",
                    Groups::DangerAllowX25519 => {
                        "X25519MLKEM768 or X25519 (INSECURE against a future quantum computer)"
                    }
                };
                writeln!(f, "cloud        {cloud} by {groups}")?;
            }
            Destination::None { state } => {
                writeln!(f, "cloud        none: keys are agreed here, readings stay in the store")?;
                writeln!(f, "devices      as {} says", state.display())?;
            }
        }
        writeln!(f, "store        {}, at most {} MiB", self.store.display(), self.limits.spool_bytes >> 20)?;
        writeln!(f, "limits       {} messages a minute and device", self.limits.messages_a_minute)?;
        if let Some(http) = &self.insecure_http {
            writeln!(
                f,
                "INSECURE     classic frames by HTTP in clear text at {}: whoever reaches it is heard",
                http.bind
            )?;
        }
        if let Some(xbee) = &self.xbee {
            writeln!(f, "xbee         {} at {} baud, {} module", xbee.port.display(), xbee.baud, xbee.kind)?;
            match &xbee.link_key_file {
                Some(file) => {
                    writeln!(f, "  link key   {} (encryption among modules, no proof of anything)", file.display())?
                }
                None => writeln!(f, "  link key   as the module has it")?,
            }
            let time = if xbee.time == Time::Answered { "answered by this clock" } else { "not answered" };
            writeln!(f, "  time       {time}")?;
        }
        match self.metrics {
            Some(metrics) => write!(f, "metrics      http://{metrics}/metrics")?,
            None => write!(f, "metrics      not offered")?,
        }
        for s in &self.danger_synced {
            write!(
                f,
                "\nDANGER       {} = {} is believed to be at counter {} of key {}",
                s.sid, s.did, s.counter, s.key_index
            )?;
        }
        Ok(())
    }
}
