//! What each party is handed of the operator's folder: a config file that people edit, and one sealed file with its own
//! secrets and nobody else's. A gateway's share has no field for MS3, K_e2root, K_blind or root_psk (K1).

mod alarm;
mod classic;
mod limits;
mod log;
mod meshlium;
mod outbox;
mod signing;
pub mod template;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use fivefold_core::e5_renewal::PeerKid;
use fivefold_core::id::{Did, Epoch, GatewayGroup, GatewayId, Net, Sid};
use fivefold_core::profile::{LinkClass, Mode, Overrides, Policy, Profile, Radio, Sign};
use fivefold_core::suite::Alg;
use fivefold_core::suite::agreement::PublicX;
use fivefold_core::wire::state::Phase;
use fivefold_core::wire::tiny::KidLength;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use alarm::{CloudAlarm, CloudAlarmSink};
pub use classic::{GatewayHttp, GatewayLorawan, GatewayXbee};
pub use limits::{CloudLimit, CloudLimits};
pub use log::{CloudLog, CloudWitness, HEAD_EVERY_S, OneOrMore};
pub use meshlium::CloudMeshliumMqtt;
pub use outbox::CloudOutbox;
pub use signing::{SIGNING_KEY_FILE, make_signing_key, signing_key, vault_of_share};

use crate::files::{self, FileError, Readers};
use crate::format::{self, Newer, Unread};
use crate::registry::NetworkKey;
use crate::vault::{Vault, VaultError};

/// Certificate of the operator's CA, PEM, in every share that speaks TLS.
pub const CA_FILE: &str = "ca.pem";
/// Certificate of the share's owner, PEM.
pub const CERTIFICATE_FILE: &str = "certificate.pem";
/// The sealed secrets of a share.
pub const SECRETS_FILE: &str = "secrets.sealed";

/// Why a share could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// A config file is not of its form; the reason names key and line.
    #[error("{path}: {reason}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to write instead.
        reason: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file has a later format.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// A secret did not open.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl ShareError {
    /// Whether it is the same at the next try, until somebody mends it.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Config { .. } | Self::Newer(_) => true,
            Self::File(e) => e.is_lasting(),
            Self::Vault(e) => e.is_lasting(),
        }
    }
}

pub(crate) fn malformed(path: &Path, reason: impl Into<String>) -> ShareError {
    ShareError::Config { path: path.to_owned(), reason: reason.into() }
}

/// Reads a config file; unknown keys are errors that name key and line. The key `format` may stand in each.
///
/// # Errors
/// [`ShareError::Config`], [`ShareError::File`].
pub fn read_config<T: DeserializeOwned>(path: &Path) -> Result<T, ShareError> {
    parse_config(path, &files::read_text(path)?)
}

/// The same from the text of the file.
///
/// # Errors
/// [`ShareError::Config`].
pub fn parse_config<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ShareError> {
    format::from_toml(path.display(), text).map_err(|e| {
        let line = e.span().map(|s| text.get(..s.start).unwrap_or_default().matches('\n').count() + 1);
        let place = line.map(|l| format!("line {l}: ")).unwrap_or_default();
        let reason = format!("{place}{}", e.message());
        match e {
            Unread::Newer(newer) => newer.into(),
            Unread::Form(_) => malformed(path, reason),
        }
    })
}

/// Writes a config file, with `heading` as its first comment lines.
///
/// # Errors
/// [`ShareError::Config`], [`ShareError::File`].
pub fn write_config<T: Serialize>(path: &Path, heading: &str, settings: &T) -> Result<(), ShareError> {
    let body = toml::to_string_pretty(settings).map_err(|e| malformed(path, e.to_string()))?;
    let comment: String = heading.lines().map(|l| format!("# {l}\n")).collect();
    Ok(files::write(path, Readers::Everybody, format!("{comment}\n{body}").as_bytes())?)
}

// The node.

/// `node.toml`, as it stands on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSettings {
    /// EUI-64, 16 hex digits.
    pub did: String,
    /// Short id, 4 hex digits.
    pub sid: String,
    /// Network id, 8 hex digits.
    pub net: String,
    /// PAN id on the air, 4 hex digits.
    pub pan: String,
    /// Gateway group of its C2 context, 8 hex digits.
    pub group: String,
    /// Epoch of its contexts; without contexts, the first that it offers.
    pub epoch: u16,
    /// Its policy record, as the cloud has it.
    pub policy: PolicySettings,
    /// Its link.
    pub link: NodeLink,
    /// The cloud's public key, where it renews with the cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud: Option<NodePeer>,
    /// Its gateway's public key, where it agrees its keys with that one alone. Neither: this node does not renew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<NodePeer>,
}

/// `[cloud]` or `[gateway]` of `node.toml`: with whom it renews.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePeer {
    /// What names the key, 2 hex digits from 00 to 17.
    pub kid: String,
    /// The key: the x coordinate of a P-256 point, 64 hex digits.
    pub x: String,
}

/// The public key for EDHOC of the cloud, or of a gateway alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerKey {
    /// What names it.
    pub kid: PeerKid,
    /// The key.
    pub x: PublicX,
}

impl PeerKey {
    fn words(self) -> NodePeer {
        NodePeer { kid: format!("{:02x}", self.kid.value()), x: self.x.to_string() }
    }

    fn check(path: &Path, of: &str, words: &NodePeer) -> Result<Self, ShareError> {
        let kid = u8::from_str_radix(&words.kid, 16).ok().filter(|_| words.kid.len() == 2).and_then(PeerKid::new);
        let kid = kid.ok_or_else(|| {
            malformed(path, format!("[{of}]: kid = \"{}\": expected 2 hex digits from 00 to 17", words.kid))
        })?;
        Ok(Self { kid, x: parse(path, &format!("[{of}]: x"), &words.x)? })
    }
}

/// A policy record in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySettings {
    /// `e1+e2+e4`, `e1+e3+e4`, `e1+e2+e3+e4` or `e1`.
    pub profile: String,
    /// COSE algorithm, 11 or 10.
    pub alg: u8,
    /// `P` or `R`.
    pub mode: String,
    /// K, 0 or 2.
    pub kid_length: u8,
    /// An answer is wanted every so many messages.
    pub ack_every: u8,
    /// What carries its frames, e.g. `802.15.4`.
    pub radio: String,
    /// T_renew, in days.
    pub renew_days: u8,
    /// N_batch: it signs its readings, so many in a batch. Absent: it does not sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_batch: Option<u8>,
    /// E1 alone is allowed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub danger_link_only: bool,
    /// No E1 is allowed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub danger_no_link: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(b: &bool) -> bool {
    !*b
}

impl PolicySettings {
    /// In words.
    pub fn of(policy: &Policy, overrides: Overrides) -> Self {
        Self {
            profile: policy.profile.as_str().into(),
            alg: policy.alg.cose(),
            mode: policy.mode.as_str().into(),
            kid_length: if policy.kid_length == KidLength::Two { 2 } else { 0 },
            ack_every: policy.ack_every,
            radio: policy.radio.as_str().into(),
            renew_days: policy.renew_days,
            sign_batch: (policy.sign == Sign::Batch).then_some(policy.batch),
            danger_link_only: overrides.danger_link_only,
            danger_no_link: overrides.danger_no_link,
        }
    }

    /// The record, if the words make sense together.
    ///
    /// # Errors
    /// One sentence about the first that does not.
    pub fn check(&self) -> Result<(Policy, Overrides), String> {
        let profile = Profile::ALL.into_iter().find(|p| p.as_str() == self.profile);
        let mut policy = Policy::new(profile.ok_or_else(|| format!("profile `{}` is no combination", self.profile))?);
        policy.alg = Alg::from_cose(self.alg).ok_or_else(|| format!("alg {} is neither 11 nor 10", self.alg))?;
        let mode = Mode::ALL.into_iter().find(|m| m.as_str() == self.mode);
        policy.mode = mode.ok_or_else(|| format!("mode `{}` is neither P nor R", self.mode))?;
        policy.kid_length = match self.kid_length {
            0 => KidLength::None,
            2 => KidLength::Two,
            other => return Err(format!("kid_length {other} is neither 0 nor 2")),
        };
        policy.ack_every = self.ack_every;
        let radio = Radio::ALL.into_iter().find(|r| r.as_str() == self.radio);
        policy.radio = radio.ok_or_else(|| format!("radio `{}` is not known", self.radio))?;
        policy.renew_days = self.renew_days;
        if let Some(batch) = self.sign_batch {
            (policy.sign, policy.batch) = (Sign::Batch, batch);
        }
        let overrides = Overrides { danger_link_only: self.danger_link_only, danger_no_link: self.danger_no_link };
        policy.validate(overrides).map_err(|e| e.reason.to_owned())?;
        Ok((policy, overrides))
    }
}

/// `[link]` of `node.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeLink {
    /// UDP address of its radio (ZEP), or of its CoAP socket where the radio is `ip`.
    pub bind: SocketAddr,
    /// The air: UDP addresses of the radios that hear it. Of an `ip` device: the gateway's CoAP address.
    pub air: Vec<SocketAddr>,
    /// Short addresses to send uplink to, in order; `0000` is any gateway in reach.
    #[serde(default)]
    pub parents: Vec<String>,
}

/// A node's secrets. Wiped when dropped, never printed.
pub struct NodeSecrets {
    /// Index of the network key.
    pub key_index: u8,
    /// The network key.
    pub network_key: Zeroizing<[u8; 16]>,
    /// MS3 and salt3, where E3 is declared; neither this nor the next where its first contexts are agreed.
    pub e3: Option<(Zeroizing<Vec<u8>>, [u8; 8])>,
    /// K_e2root, where E2 is declared.
    pub e2_root: Option<Zeroizing<[u8; 32]>>,
    /// root_psk: bootstrap of mode R, and renewal.
    pub root_psk: Zeroizing<[u8; 32]>,
    /// The scalar of its DH key, where it renews by EDHOC.
    pub dh_key: Option<Zeroizing<[u8; 32]>>,
    /// K_blind of the same contexts, where it signs its readings.
    pub blind: Option<Zeroizing<[u8; 32]>>,
}

impl std::fmt::Debug for NodeSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeSecrets(..)")
    }
}

impl NodeSecrets {
    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(256));
        out.push(self.key_index);
        out.extend_from_slice(self.network_key.as_slice());
        out.extend_from_slice(self.root_psk.as_slice());
        if let Some((ms3, salt3)) = &self.e3 {
            field(&mut out, ms3);
            out.extend_from_slice(salt3);
        } else {
            field(&mut out, &[]);
        }
        field(&mut out, self.e2_root.as_ref().map_or(&[], |r| r.as_slice()));
        field(&mut out, self.dh_key.as_ref().map_or(&[], |k| k.as_slice()));
        if let Some(blind) = &self.blind {
            field(&mut out, blind.as_slice());
        }
        out
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (key_index, rest) = bytes.split_first()?;
        let (network_key, rest) = rest.split_first_chunk::<16>()?;
        let (root_psk, rest) = rest.split_first_chunk::<32>()?;
        let (ms3, rest) = take_field(rest)?;
        let (e3, rest) = if ms3.is_empty() {
            (None, rest)
        } else {
            let (salt3, rest) = rest.split_first_chunk::<8>()?;
            (Some((Zeroizing::new(ms3.to_vec()), *salt3)), rest)
        };
        let optional = |bytes: &[u8]| -> Option<Option<Zeroizing<[u8; 32]>>> {
            if bytes.is_empty() { Some(None) } else { Some(Some(Zeroizing::new(bytes.try_into().ok()?))) }
        };
        let (e2_root, rest) = take_field(rest)?;
        let e2_root = optional(e2_root)?;
        // Shares from before renewal end here.
        let (dh_key, rest) = if rest.is_empty() { (&[][..], rest) } else { take_field(rest)? };
        let dh_key = optional(dh_key)?;
        let (blind, rest) = if rest.is_empty() { (&[][..], rest) } else { take_field(rest)? };
        let blind = optional(blind)?;
        rest.is_empty().then_some(Self {
            key_index: *key_index,
            network_key: Zeroizing::new(*network_key),
            e3,
            e2_root,
            root_psk: Zeroizing::new(*root_psk),
            dh_key,
            blind,
        })
    }
}

/// Everything a node is handed.
#[derive(Debug)]
pub struct NodeShare {
    /// EUI-64.
    pub did: Did,
    /// Short id.
    pub sid: Sid,
    /// Network id.
    pub net: Net,
    /// PAN id.
    pub pan: u16,
    /// Gateway group.
    pub group: GatewayGroup,
    /// Epoch of its contexts; without contexts, the first that it offers.
    pub epoch: Epoch,
    /// Its policy record.
    pub policy: Policy,
    /// What it may do that is not safe.
    pub overrides: Overrides,
    /// Its link.
    pub link: NodeLink,
    /// The cloud's public key, where it renews with the cloud.
    pub cloud: Option<PeerKey>,
    /// Its gateway's, where it agrees its keys with that one alone.
    pub gateway: Option<PeerKey>,
    /// Its secrets.
    pub secrets: NodeSecrets,
}

/// File name of a node's config.
pub const NODE_FILE: &str = "node.toml";

impl NodeShare {
    /// Class of its link (docs/protocol.md 4.4).
    pub fn link_class(&self) -> LinkClass {
        self.policy.radio.link_class()
    }

    /// Writes the share into `folder`, with a vault of its own; under the one that is there, where a signing key lies in it.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), ShareError> {
        files::create_folder(folder)?;
        self.write_under(&vault_of_share(folder)?, folder)
    }

    /// Writes the share into `folder`, whose vault is there already.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_under(&self, vault: &Vault, folder: &Path) -> Result<(), ShareError> {
        let settings = NodeSettings {
            did: self.did.to_string(),
            sid: self.sid.to_string(),
            net: self.net.to_string(),
            pan: format!("{:04x}", self.pan),
            group: self.group.to_string(),
            epoch: self.epoch.0,
            policy: PolicySettings::of(&self.policy, self.overrides),
            link: self.link.clone(),
            cloud: self.cloud.map(PeerKey::words),
            gateway: self.gateway.map(PeerKey::words),
        };
        let heading = "A Fivefold node. Its secrets are in secrets.sealed, under the vault beside it.\n\
                       [policy] must be what the cloud has; change it there first (fivefold device show).";
        write_config(&folder.join(NODE_FILE), heading, &settings)?;
        Ok(vault.seal_file(&folder.join(SECRETS_FILE), &self.secrets.to_bytes())?)
    }

    /// The secrets without contexts, sealed under the vault in `folder`: for when the device agreed on others and uses them.
    /// `None` when there are none among them.
    ///
    /// # Errors
    /// The vault does not open, or has no randomness.
    pub fn without_contexts(&self, folder: &Path) -> Result<Option<Vec<u8>>, ShareError> {
        let own = &self.secrets;
        if own.e3.is_none() && own.e2_root.is_none() {
            return Ok(None);
        }
        let rest = NodeSecrets {
            key_index: own.key_index,
            network_key: own.network_key.clone(),
            e3: None,
            e2_root: None,
            root_psk: own.root_psk.clone(),
            dh_key: own.dh_key.clone(),
            blind: None,
        };
        Ok(Some(Vault::open_folder(folder)?.seal(SECRETS_FILE, &rest.to_bytes())?))
    }

    /// Reads a share.
    ///
    /// # Errors
    /// One sentence about the file and the key in it that is wrong.
    pub fn read(folder: &Path) -> Result<Self, ShareError> {
        let path = folder.join(NODE_FILE);
        let settings: NodeSettings = read_config(&path)?;
        let bad = |reason: String| malformed(&path, reason);
        let (mut policy, overrides) = settings.policy.check().map_err(|e| bad(format!("[policy]: {e}")))?;
        for parent in &settings.link.parents {
            parse::<Sid>(&path, "parents", parent)?;
        }
        let vault = Vault::open_folder(folder)?;
        let sealed = folder.join(SECRETS_FILE);
        let secrets = vault.open_file(&sealed)?;
        let secrets = NodeSecrets::from_bytes(&secrets)
            .ok_or_else(|| malformed(&sealed, "is not the secrets of a node of this version"))?;
        let peer = |of, words: &Option<NodePeer>| words.as_ref().map(|w| PeerKey::check(&path, of, w)).transpose();
        let (cloud, gateway) = (peer("cloud", &settings.cloud)?, peer("gateway", &settings.gateway)?);
        let renews = cloud.is_some() || gateway.is_some();
        if renews != secrets.dh_key.is_some() || (cloud.is_some() && gateway.is_some()) {
            return Err(bad(
                "[cloud], or [gateway] in its place, and the node's own key for renewal come together; enrol the device again"
                    .into(),
            ));
        }
        // A gateway has no root_psk to mix in.
        policy.pq_mix &= gateway.is_none();
        let has = (secrets.e3.is_some(), secrets.e2_root.is_some());
        if gateway.is_some() && (has != (false, false) || !policy.can_agree_locally()) {
            return Err(bad(
                "[gateway]: keys are agreed with a gateway alone under e1+e2+e4 in mode P; enrol the device again"
                    .into(),
            ));
        }
        let agrees_first = renews && has == (false, false);
        if has != (policy.profile.has_e3(), policy.profile.has_e2()) && !agrees_first {
            return Err(bad("[policy] profile is not what the secrets were made for; enrol the device again".into()));
        }
        Ok(Self {
            did: parse(&path, "did", &settings.did)?,
            sid: parse(&path, "sid", &settings.sid)?,
            net: parse(&path, "net", &settings.net)?,
            pan: pan(&path, &settings.pan)?,
            group: parse(&path, "group", &settings.group)?,
            epoch: Epoch(settings.epoch),
            policy,
            overrides,
            link: settings.link,
            cloud,
            gateway,
            secrets,
        })
    }
}

// The gateway.

/// `gateway.toml`, as it stands on disk. Paths are relative to the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewaySettings {
    /// Its name, for people.
    pub name: String,
    /// Gateway id, 8 hex digits.
    pub id: String,
    /// Network id, 8 hex digits: must be that of the certificate.
    pub net: String,
    /// Gateway group, 8 hex digits.
    pub group: String,
    /// Its radio.
    pub link: GatewayLink,
    /// CoAP over UDP for devices with IP; absent: not offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coap: Option<GatewayCoap>,
    /// The way to the cloud; absent at a site without one, which says `[local]` then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<GatewayUplink>,
    /// The site has no cloud: this gateway agrees keys with its devices alone, and keeps their readings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<GatewayLocal>,
    /// What it keeps.
    #[serde(default)]
    pub store: GatewayStore,
    /// What bounds it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: GatewayLimits,
    /// Counters for Prometheus; absent: not offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<GatewayMetrics>,
    /// Classic frames by HTTP in clear text; absent: not offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub insecure_http: Option<GatewayHttp>,
    /// Classic frames, and ours, by an XBee module; absent: there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xbee: Option<GatewayXbee>,
    /// Frames by LoRaWAN; absent: not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lorawan: Option<GatewayLorawan>,
}

/// `[limits]` of `gateway.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayLimits {
    /// Messages a minute and device that are passed on where only the cloud can open them (docs/protocol.md 5).
    pub messages_a_minute: u16,
    /// Milliseconds to wait for the cloud's answer before the gateway confirms that it stored a message.
    pub custody_after_ms: u64,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        Self { messages_a_minute: 60, custody_after_ms: 400 }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `[metrics]` of `gateway.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayMetrics {
    /// TCP address on loopback.
    pub bind: SocketAddr,
}

/// `[link]` of `gateway.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayLink {
    /// EUI-64 of its radio, 16 hex digits.
    pub did: String,
    /// Short address, 4 hex digits.
    pub sid: String,
    /// PAN id, 4 hex digits.
    pub pan: String,
    /// UDP address of its radio (ZEP).
    pub bind: SocketAddr,
    /// The air: UDP addresses of the radios that hear it.
    pub air: Vec<SocketAddr>,
    /// Weakest 802.15.4 security level that is accepted, 6 (MIC-64) or 5 (MIC-32, only with E2 or E3).
    #[serde(default = "level_six", skip_serializing_if = "is_level_six")]
    pub minimum_level: u8,
    /// Neighbours whose last frame counter is believed without proof: for replaying captures, never in the field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub danger_synced: Vec<DangerSynced>,
}

fn level_six() -> u8 {
    6
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_level_six(level: &u8) -> bool {
    *level == 6
}

/// `[[link.danger_synced]]` of `gateway.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DangerSynced {
    /// EUI-64, 16 hex digits.
    pub did: String,
    /// Short address, 4 hex digits.
    pub sid: String,
    /// Index of the network key.
    pub key_index: u8,
    /// Its last frame counter under that key.
    pub counter: u32,
}

/// `[coap]` of `gateway.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayCoap {
    /// UDP address.
    pub bind: SocketAddr,
    /// Devices that do not say who they are when they renew (EAD_1), by their address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<CoapDevice>,
}

/// `[[coap.devices]]` of `gateway.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoapDevice {
    /// IP address.
    pub address: IpAddr,
    /// Short id, 4 hex digits.
    pub sid: String,
}

/// `[uplink]` of `gateway.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayUplink {
    /// Where the cloud is, e.g. `https://cloud.example:8443`. The host must be in the cloud's certificate.
    pub cloud: String,
    /// Accepts a key exchange that a future quantum computer can open.
    #[serde(default, skip_serializing_if = "is_false")]
    pub insecure_allow_x25519: bool,
}

/// `[local]` of `gateway.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayLocal {
    /// The file by which the operator tells it its devices; looked at once a second.
    #[serde(default = "state_file")]
    pub state: PathBuf,
}

impl Default for GatewayLocal {
    fn default() -> Self {
        Self { state: state_file() }
    }
}

fn state_file() -> PathBuf {
    crate::site::STATE_FILE.into()
}

/// `[store]` of `gateway.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayStore {
    /// Its file.
    pub path: PathBuf,
    /// Most that it holds, in MiB. When it is full, new messages are refused; nothing that is stored is dropped.
    pub max_mib: u32,
}

impl Default for GatewayStore {
    fn default() -> Self {
        Self { path: "store.db".into(), max_mib: 256 }
    }
}

/// A gateway's secrets. Wiped when dropped, never printed.
pub struct GatewaySecrets {
    /// Key of its TLS certificate, PKCS #8 DER.
    pub tls_key: Zeroizing<Vec<u8>>,
    /// Key for receipts, PKCS #8 DER.
    pub signing_key: Zeroizing<Vec<u8>>,
    /// Network keys as of enrolment; later ones are pushed by the cloud.
    pub network_keys: Vec<NetworkKey>,
}

impl std::fmt::Debug for GatewaySecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GatewaySecrets(..)")
    }
}

impl GatewaySecrets {
    /// Seals them into [`SECRETS_FILE`] of `folder`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, vault: &Vault, folder: &Path) -> Result<(), ShareError> {
        let mut out = Zeroizing::new(Vec::with_capacity(512));
        field(&mut out, &self.tls_key);
        field(&mut out, &self.signing_key);
        for key in &self.network_keys {
            out.extend_from_slice(&[key.index, key.phase.wire()]);
            out.extend_from_slice(key.key.as_slice());
        }
        Ok(vault.seal_file(&folder.join(SECRETS_FILE), &out)?)
    }

    /// Opens them.
    ///
    /// # Errors
    /// [`ShareError::Vault`], [`ShareError::Config`].
    pub fn read(vault: &Vault, folder: &Path) -> Result<Self, ShareError> {
        let path = folder.join(SECRETS_FILE);
        let bytes = vault.open_file(&path)?;
        let parsed = take_field(&bytes).and_then(|(tls, rest)| {
            let (signing, mut rest) = take_field(rest)?;
            let mut network_keys = Vec::new();
            while let Some(([index, phase], after)) = rest.split_first_chunk::<2>() {
                let (key, after) = after.split_first_chunk::<16>()?;
                let phase = Phase::from_wire(u64::from(*phase))?;
                network_keys.push(NetworkKey { index: *index, phase, key: Zeroizing::new(*key) });
                rest = after;
            }
            let owned = |b: &[u8]| Zeroizing::new(b.to_vec());
            rest.is_empty().then(|| Self { tls_key: owned(tls), signing_key: owned(signing), network_keys })
        });
        parsed.ok_or_else(|| malformed(&path, "is not the secrets of a gateway of this version"))
    }
}

/// File name of a gateway's config.
pub const GATEWAY_FILE: &str = "gateway.toml";

// The cloud.

/// `cloud.toml`, as it stands on disk. Paths are relative to the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudSettings {
    /// The operator's book.
    pub registry: PathBuf,
    /// Folder of the vault that its secrets are sealed under.
    pub vault: PathBuf,
    /// The passphrase of that vault, where it does not lie where the vault says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passphrase_file: Option<PathBuf>,
    /// Where readings are stored.
    pub store: PathBuf,
    /// Where gateways connect (E4).
    pub ingest: CloudIngest,
    /// Where people and programs read (HTTPS).
    pub api: CloudApi,
    /// When devices are told to renew.
    #[serde(default, skip_serializing_if = "is_default")]
    pub renewal: CloudRenewal,
    /// Where values of classic frames are published, by MQTT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meshlium_mqtt: Option<CloudMeshliumMqtt>,
    /// The log of what devices signed, and who witnesses it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub log: CloudLog,
    /// Who is told of alarms.
    #[serde(default, skip_serializing_if = "is_default")]
    pub alarm: CloudAlarm,
    /// How long what is kept, and how much of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: CloudLimits,
    /// Where readings go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outbox: Vec<CloudOutbox>,
}

/// `[renewal]` of `cloud.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CloudRenewal {
    /// Seconds after which an installed context is to be renewed the first time; T_renew of the device if that is shorter.
    pub installed_after_s: u64,
}

impl Default for CloudRenewal {
    fn default() -> Self {
        Self { installed_after_s: 7 * 86_400 }
    }
}

/// `[ingest]` of `cloud.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudIngest {
    /// TCP address.
    pub bind: SocketAddr,
    /// Accepts a key exchange that a future quantum computer can open.
    #[serde(default, skip_serializing_if = "is_false")]
    pub insecure_allow_x25519: bool,
}

/// `[api]` of `cloud.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudApi {
    /// TCP address.
    pub bind: SocketAddr,
}

/// File name of the cloud's config.
pub const CLOUD_FILE: &str = "cloud.toml";

// Helpers of the forms above.

pub(crate) fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes.get(..usize::from(len)).unwrap_or(bytes));
}

pub(crate) fn take_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

/// An identifier in a config file.
///
/// # Errors
/// [`ShareError::Config`] with the key and what was expected.
pub fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    path: &Path,
    key: &str,
    text: &str,
) -> Result<T, ShareError> {
    text.parse().map_err(|e| malformed(path, format!("{key} = \"{text}\": {e}")))
}

/// A PAN id in a config file.
///
/// # Errors
/// As [`parse`].
pub fn pan(path: &Path, text: &str) -> Result<u16, ShareError> {
    let pan = u16::from_str_radix(text, 16).ok().filter(|_| text.len() == 4);
    pan.ok_or_else(|| malformed(path, format!("pan = \"{text}\": expected 4 hex digits")))
}

/// A gateway's identity out of its config.
///
/// # Errors
/// As [`parse`].
pub fn gateway_identity(path: &Path, settings: &GatewaySettings) -> Result<(GatewayId, Net, GatewayGroup), ShareError> {
    Ok((parse(path, "id", &settings.id)?, parse(path, "net", &settings.net)?, parse(path, "group", &settings.group)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeShare {
        NodeShare {
            did: Did([2; 8]),
            sid: Sid(0x0a17),
            net: Net(7),
            pan: 0x4321,
            group: GatewayGroup(7),
            epoch: Epoch(1),
            policy: Policy::new(Profile::ToBoth),
            overrides: Overrides::NONE,
            link: NodeLink {
                bind: "127.0.0.1:0".parse().unwrap(),
                air: vec!["127.0.0.1:17754".parse().unwrap()],
                parents: vec!["0000".into()],
            },
            cloud: Some(PeerKey { kid: PeerKid::new(0x17).unwrap(), x: PublicX([7; 32]) }),
            gateway: None,
            secrets: NodeSecrets {
                key_index: 1,
                network_key: Zeroizing::new([1; 16]),
                e3: Some((Zeroizing::new(vec![3; 32]), [4; 8])),
                e2_root: Some(Zeroizing::new([5; 32])),
                root_psk: Zeroizing::new([6; 32]),
                dh_key: Some(Zeroizing::new([8; 32])),
                blind: Some(Zeroizing::new([10; 32])),
            },
        }
    }

    #[test]
    fn a_node_reads_what_it_was_handed() {
        let folder = tempfile::tempdir().unwrap();
        node().write(folder.path()).unwrap();
        let read = NodeShare::read(folder.path()).unwrap();
        assert_eq!((read.did, read.sid, read.pan), (Did([2; 8]), Sid(0x0a17), 0x4321));
        assert_eq!(read.policy, Policy::new(Profile::ToBoth));
        assert_eq!(read.secrets.e3.as_ref().unwrap().0.as_slice(), [3; 32]);
        assert_eq!(read.secrets.e2_root.as_ref().unwrap().as_slice(), [5; 32]);
        assert_eq!(read.secrets.dh_key.as_ref().unwrap().as_slice(), [8; 32]);
        assert_eq!(read.cloud, node().cloud);
    }

    #[test]
    fn a_share_of_before_renewal_reads_as_one_that_does_not_renew() {
        let folder = tempfile::tempdir().unwrap();
        let mut before = node();
        (before.cloud, before.secrets.dh_key, before.secrets.blind) = (None, None, None);
        before.write(folder.path()).unwrap();
        let vault = Vault::open_folder(folder.path()).unwrap();
        let path = folder.path().join(SECRETS_FILE);
        let bytes = vault.open_file(&path).unwrap();
        vault.seal_file(&path, bytes.strip_suffix(&[0, 0]).unwrap()).unwrap();
        let read = NodeShare::read(folder.path()).unwrap();
        assert_eq!((read.cloud, read.secrets.dh_key.is_none()), (None, true));
    }

    #[test]
    fn a_node_that_agrees_its_first_contexts_has_none_and_needs_both_keys() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = node();
        (first.secrets.e3, first.secrets.e2_root) = (None, None);
        first.write(folder.path()).unwrap();
        assert!(NodeShare::read(folder.path()).unwrap().secrets.e3.is_none());
        first.secrets.e2_root = Some(Zeroizing::new([5; 32]));
        first.write(&folder.path().join("half")).unwrap();
        assert!(
            NodeShare::read(&folder.path().join("half")).unwrap_err().to_string().contains("enrol the device again")
        );
        first.secrets.e2_root = None;
        first.cloud = None;
        first.write(&folder.path().join("keyless")).unwrap();
        assert!(NodeShare::read(&folder.path().join("keyless")).unwrap_err().to_string().contains("[cloud]"));
    }

    #[test]
    fn a_node_that_agrees_with_its_gateway_alone_has_no_contexts_of_others_and_mixes_nothing_in() {
        let local = || {
            let mut local = node();
            (local.gateway, local.cloud) = (local.cloud, None);
            (local.secrets.e3, local.secrets.e2_root) = (None, None);
            local.policy.profile = Profile::ToGateway;
            local
        };
        let folder = tempfile::tempdir().unwrap();
        local().write(folder.path()).unwrap();
        let read = NodeShare::read(folder.path()).unwrap();
        assert_eq!((read.gateway, read.cloud, read.policy.pq_mix), (local().gateway, None, false));
        for (name, change) in [
            ("both", (|n| n.cloud = n.gateway) as fn(&mut NodeShare)),
            ("levels", |n| n.policy.profile = Profile::ToBoth),
            ("secrets", |n| n.secrets.e2_root = Some(Zeroizing::new([5; 32]))),
            ("mode", |n| n.policy.mode = Mode::Random),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let mut wrong = local();
            change(&mut wrong);
            wrong.write(folder.path()).unwrap();
            let refused = NodeShare::read(folder.path()).unwrap_err().to_string();
            assert!(refused.contains("[gateway]") && refused.contains("enrol the device again"), "{name}: {refused}");
        }
    }

    #[test]
    fn a_mistake_in_a_config_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        node().write(folder.path()).unwrap();
        let path = folder.path().join(NODE_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("epoch", "epok")).unwrap();
        let error = NodeShare::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("unknown field `epok`") && error.contains("line "), "{error}");
        std::fs::write(&path, text.replace("\"0a17\"", "\"0a1\"")).unwrap();
        let error = NodeShare::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("sid = \"0a1\": expected a short id: 4 hex digits"), "{error}");
    }

    #[test]
    fn a_node_that_signs_reads_so_and_says_nothing_of_it_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NODE_FILE);
        node().write(folder.path()).unwrap();
        assert!(!std::fs::read_to_string(&path).unwrap().contains("sign"));
        let mut signs = node();
        (signs.policy.sign, signs.policy.batch) = (Sign::Batch, 8);
        signs.write(folder.path()).unwrap();
        assert_eq!(NodeShare::read(folder.path()).unwrap().policy, signs.policy);
        let text = std::fs::read_to_string(&path).unwrap().replace("sign_batch = 8", "sign_batch = 65");
        std::fs::write(&path, text).unwrap();
        assert!(NodeShare::read(folder.path()).unwrap_err().to_string().contains("N_batch is 1 to 64"));
    }

    #[test]
    fn a_policy_that_was_weakened_by_hand_does_not_fit_its_secrets() {
        let folder = tempfile::tempdir().unwrap();
        node().write(folder.path()).unwrap();
        let path = folder.path().join(NODE_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("e1+e2+e3+e4", "e1+e2+e4")).unwrap();
        assert!(NodeShare::read(folder.path()).unwrap_err().to_string().contains("enrol the device again"));
    }

    #[test]
    fn a_gateway_share_has_no_place_for_what_it_must_not_hold() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let key = |b| Zeroizing::new(vec![b; 40]);
        let network_keys = vec![NetworkKey { index: 1, phase: Phase::Switch, key: Zeroizing::new([9; 16]) }];
        let GatewaySecrets { tls_key, signing_key, network_keys } =
            GatewaySecrets { tls_key: key(1), signing_key: key(2), network_keys };
        GatewaySecrets { tls_key, signing_key, network_keys }.write(&vault, folder.path()).unwrap();
        let read = GatewaySecrets::read(&vault, folder.path()).unwrap();
        assert_eq!((read.tls_key.as_slice(), read.signing_key.as_slice()), (&[1; 40][..], &[2; 40][..]));
        assert_eq!(read.network_keys[0].key.as_slice(), [9; 16]);
    }
}
