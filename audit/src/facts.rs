//! What was seen of a deployment. Plain values: no secret stands here, only what was found of it.
//!
//! `None` means that nobody looked, never that there is nothing: a rule says so then.

mod config;

use std::borrow::Cow;
use std::path::PathBuf;

use fivefold_core::id::Sid;
use fivefold_core::profile::{Overrides, Policy, Profile};
use fivefold_keep::registry::{KeyOrigin, Scope};
use fivefold_keep::rotation::Rotation;

pub use config::{Config, line_of};

use crate::rule::{Kind, Severity, Subject, Unknown};

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When, Unix seconds.
    pub now: u64,
    /// Whether the operator's book was read: without it, nothing is known of networks and devices but what is said below.
    pub has_book: bool,
    /// Whether the state was read that the cloud pushed to this gateway: its devices, as far as a gateway must know them.
    pub has_state: bool,
    /// The levels that the operator says each network must have at least.
    pub wanted: Option<Profile>,
    /// Networks.
    pub networks: Vec<Network>,
    /// Devices of the modern suite.
    pub devices: Vec<Device>,
    /// Classic devices.
    pub classic: Vec<Classic>,
    /// Groups of classic devices that have one key.
    pub sharers: Vec<Vec<Sharer>>,
    /// Gateways.
    pub gateways: Vec<Gateway>,
    /// Tokens for the cloud's API that are not revoked.
    pub tokens: Vec<TokenSeen>,
    /// The cloud's config, where it is here.
    pub cloud: Option<Config<fivefold_keep::share::CloudSettings>>,
    /// Vaults.
    pub vaults: Vec<VaultSeen>,
    /// Certificates in files.
    pub certificates: Vec<Certificate>,
    /// Public RSA keys.
    pub rsa: Vec<Rsa>,
    /// Secrets that lie in files in the clear, or open to others.
    pub bare: Vec<Bare>,
    /// Whether this very process has databases of the folder open. Then no search may open one: closing it again would end the
    /// locks of all of the process (POSIX), and somebody else's SQLite would take the database for one that nobody uses.
    pub has_databases_open: bool,
    /// Whether files were searched for such secrets.
    pub is_searched: bool,
    /// What was passed over then, and what it would take.
    pub unsearched: Vec<(PathBuf, &'static str)>,
    /// What somebody else's examination saw, for the rule that it names.
    pub seen: Vec<Seen>,
    /// Rules that somebody else's examination looked at, by id.
    pub examined: Vec<&'static str>,
    /// What it could not look at, by rule.
    pub passed_over: Vec<(&'static str, Unknown)>,
    /// What the running cloud knows of itself, where this is it.
    pub live: Option<Live>,
    /// What could not be read at all, in sentences.
    pub unread: Vec<String>,
}

/// What a running cloud knows that no file shows. Times are Unix seconds.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// When this process started.
    pub started: u64,
    /// When each witness of the log cosigned last, if it did since then.
    pub cosigned: Vec<Option<u64>>,
    /// Entries of the log that the store never knew of.
    pub strays: u64,
    /// Whether the store was put back from a copy by the procedure, so that such entries are no wonder.
    pub is_restored: bool,
}

/// What a running cloud heard of a device. Times are Unix seconds.
#[derive(Clone, Debug, Default)]
pub struct Reported {
    /// When it was enrolled.
    pub enrolled: u64,
    /// When it was heard last.
    pub heard: Option<u64>,
    /// What it said last of the policy that it runs, since it was enrolled.
    pub policy: Option<PolicyReport>,
    /// Since when its readings wait for a signature that is overdue.
    pub unsigned: Option<u64>,
}

/// What a device says of the policy that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyReport {
    /// When.
    pub at: u64,
    /// Whether it is the one of the book; `None` where the report is about other things alone.
    pub is_as_in_book: Option<bool>,
}

/// A token for the cloud's API. Times are Unix seconds.
#[derive(Clone, Debug)]
pub struct TokenSeen {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub scope: Scope,
    /// When it was made.
    pub made: u64,
    /// From when on it is refused.
    pub ends: Option<u64>,
}

/// A network.
#[derive(Clone, Debug)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// The levels of its devices.
    pub profile: Profile,
    /// Its keys, where the vault was opened.
    pub keys: Option<Vec<KeySeen>>,
    /// How old its key is, as far as the book says.
    pub key_since: Option<KeySince>,
    /// The last change of its key.
    pub rotation: Option<Rotation>,
    /// Whether its devices agree keys with a gateway alone.
    pub is_local: bool,
}

/// How old a network's key is. Times are Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySince {
    /// It was made then.
    Made(u64),
    /// It was in use then, and may be any older.
    InUse(u64),
}

/// How old the contexts of a device are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// It has none: E1 alone.
    None,
    /// It makes new ones at each boot (mode R).
    Boot,
    /// Its gateway knows.
    AtGateway,
    /// Agreed then, Unix seconds.
    Agreed(u64),
    /// Installed by a file then, Unix seconds.
    Installed(u64),
    /// It is in the book, and has none yet.
    Awaited,
    /// Nobody here knows: a gateway is not told.
    Unseen,
}

/// A device of the modern suite.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its EUI-64.
    pub name: String,
    /// Its network, by name.
    pub network: String,
    /// Short id.
    pub sid: Sid,
    /// What else the book says that its share says too; `None` where there is no book.
    pub place: Option<DevicePlace>,
    /// Its policy record.
    pub policy: Policy,
    /// What the operator lets it do that is not safe.
    pub overrides: Overrides,
    /// When it was revoked, Unix seconds: then most rules pass it over.
    pub revoked_at: Option<u64>,
    /// Its secrets, where the vault was opened.
    pub keys: Option<Vec<KeySeen>>,
    /// Its contexts.
    pub context: Context,
    /// Its signing key.
    pub signer: Option<SignerSeen>,
    /// Its share, where it is here: the file, and what in it is not as in the book.
    pub share: Option<ShareSeen>,
    /// What the running cloud heard of it, where this is it.
    pub reported: Option<Reported>,
}

/// Where a device belongs, and from when on, as `node.toml` writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePlace {
    /// Network id.
    pub net: String,
    /// PAN id on the air.
    pub pan: String,
    /// Gateway group.
    pub group: String,
    /// Epoch of its enrolment.
    pub epoch: u16,
}

/// A signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignerSeen {
    /// Where it was made, as the book says.
    pub origin: Option<KeyOrigin>,
    /// Whether it is the DH key too, as far as the book says.
    pub is_dh_key: bool,
}

/// A node's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareSeen {
    /// Its config.
    pub path: PathBuf,
    /// What is not as in the book, in words.
    pub differs: Option<String>,
}

/// A classic device.
#[derive(Clone, Debug)]
pub struct Classic {
    /// Its serial.
    pub name: String,
    /// Its network, by name.
    pub network: String,
    /// Short id.
    pub sid: Sid,
    /// Whether only frames of the hardened profile count.
    pub is_hardened: bool,
    /// Its keys, if it has any.
    pub keys: Vec<KeySeen>,
    /// Whether its keys come by RSA key messages.
    pub has_key_messages: bool,
    /// Its signing key.
    pub signer: Option<SignerSeen>,
    /// When it was revoked, Unix seconds.
    pub revoked_at: Option<u64>,
}

/// One of those that have a key in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharer {
    /// Serial of the device.
    pub name: String,
    /// Its network, by name.
    pub network: String,
    /// Whether it was revoked.
    pub is_revoked: bool,
}

/// A key that was looked at, without the key.
#[derive(Clone, Debug)]
pub struct KeySeen {
    /// Which one, as in "its key for the cloud".
    pub what: Cow<'static, str>,
    /// A digest, to find the same key elsewhere.
    pub print: Option<Print>,
    /// Why it is easy to guess, if it is.
    pub weak: Option<Weakness>,
}

/// Why a key is easy to guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weakness {
    /// In words that fit after "it is".
    pub why: String,
    /// How bad.
    pub severity: Severity,
}

/// A digest of a key. Of a weak one it might be searched for: it is not shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Print(pub [u8; 32]);

impl std::fmt::Debug for Print {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Print(..)")
    }
}

/// A gateway.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Its name.
    pub name: String,
    /// Its network, by name.
    pub network: String,
    /// Short address.
    pub sid: Sid,
    /// Whether it may send under C2.
    pub is_primary: bool,
    /// Whether it was revoked.
    pub is_revoked: bool,
    /// Its newest certificate: when it begins and ends, Unix seconds.
    pub certificate: Option<(u64, u64)>,
    /// Its config, where it is here.
    pub config: Option<Config<fivefold_keep::share::GatewaySettings>>,
    /// Files beside it that no gateway may have.
    pub strange: Option<Vec<PathBuf>>,
    /// Network keys that it has, where it looked itself.
    pub link_keys: Option<Vec<KeySeen>>,
}

/// A vault: where the key comes from that opens it.
#[derive(Clone, Debug)]
pub struct VaultSeen {
    /// Whose.
    pub subject: Subject,
    /// Its folder.
    pub folder: PathBuf,
    /// What wraps its key.
    pub wrap: Wrap,
}

/// What wraps a vault's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// A passphrase in the same folder.
    Beside(PathBuf),
    /// A passphrase in a file elsewhere.
    Elsewhere(PathBuf),
    /// A token, or a credential that systemd unwraps.
    Held(String),
}

/// A certificate in a file.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The file.
    pub path: PathBuf,
    /// What it is signed with, where that is broken: `SHA-1` or `MD5`.
    pub broken: Option<&'static str>,
}

/// A public RSA key.
#[derive(Clone, Debug)]
pub struct Rsa {
    /// Whose.
    pub subject: Subject,
    /// Modulus, big-endian.
    pub modulus: Vec<u8>,
    /// Public exponent, big-endian.
    pub exponent: Vec<u8>,
}

impl Rsa {
    /// Bits of the modulus.
    pub fn bits(&self) -> usize {
        let zeros = self.modulus.iter().take_while(|b| **b == 0).count();
        let rest = self.modulus.get(zeros..).unwrap_or_default();
        rest.first().map_or(0, |first| rest.len() * 8 - first.leading_zeros() as usize)
    }
}

/// A secret that lies open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bare {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, in words that fit behind its name.
    pub why: String,
    /// What mends it.
    pub cure: String,
}

/// What an examination of somebody else's files saw.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Id of the rule that is broken.
    pub rule: &'static str,
    /// About what.
    pub subject: Subject,
    /// What is wrong, in one sentence.
    pub sentence: String,
    /// What mends it; empty: as the rule says.
    pub cure: String,
    /// How bad; `None`: as the rule says.
    pub severity: Option<Severity>,
}

impl Network {
    /// As a subject.
    pub fn subject(&self) -> Subject {
        Subject::network(&self.name)
    }
}

impl Device {
    /// As a subject.
    pub fn subject(&self) -> Subject {
        Subject::new(Kind::Device, &self.name).of(&self.network)
    }
}

impl Classic {
    /// As a subject.
    pub fn subject(&self) -> Subject {
        Subject::new(Kind::Device, &self.name).of(&self.network)
    }
}

impl Gateway {
    /// As a subject.
    pub fn subject(&self) -> Subject {
        Subject::new(Kind::Gateway, &self.name).of(&self.network)
    }
}

/// Seconds by which the clock of one machine may be behind that of another.
const SLACK: u64 = 86_400;

impl Facts {
    /// Whole days since then; `None` where that is yet to come, so that the clock is wrong, or what was written by it.
    pub fn days_since(&self, at: u64) -> Option<u64> {
        (at <= self.now.saturating_add(SLACK)).then(|| self.now.saturating_sub(at) / 86_400)
    }

    /// What shows that the clock is behind, in a sentence: by it no age can be judged, and no waiver is over.
    pub fn clock_is_behind(&self) -> Option<String> {
        let of_network = |n: &Network| {
            let key = n.key_since.map(|since| match since {
                KeySince::Made(at) | KeySince::InUse(at) => at,
            });
            key.max(n.rotation.as_ref().map(|r| r.started_at))
        };
        let of_device = |d: &Device| match d.context {
            Context::Agreed(at) | Context::Installed(at) => Some(at).max(d.revoked_at),
            Context::None | Context::Boot | Context::AtGateway | Context::Awaited | Context::Unseen => d.revoked_at,
        };
        let networks = self.networks.iter().filter_map(of_network);
        let devices = self.devices.iter().filter_map(of_device);
        let classic = self.classic.iter().filter_map(|d| d.revoked_at);
        let gateways = self.gateways.iter().filter_map(|g| g.certificate.map(|(begins, _)| begins));
        let last = networks.chain(devices).chain(classic).chain(gateways).max()?;
        self.days_since(last).is_none().then(|| {
            let days = (last - self.now) / 86_400;
            format!(
                "the clock is {days} days behind what the book knows of, so nobody knows how old anything is: set it"
            )
        })
    }

    /// Nothing seen yet.
    pub fn at(now: u64) -> Self {
        Self { now, ..Self::default() }
    }

    /// Whether it is known which devices there are, from the book or as the gateway was told.
    pub const fn knows_devices(&self) -> bool {
        self.has_book || self.has_state
    }

    /// Devices that are not revoked.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|d| d.revoked_at.is_none())
    }

    /// Classic devices that are not revoked.
    pub fn classic(&self) -> impl Iterator<Item = &Classic> {
        self.classic.iter().filter(|d| d.revoked_at.is_none())
    }

    /// Gateways that are not revoked.
    pub fn gateways(&self) -> impl Iterator<Item = &Gateway> {
        self.gateways.iter().filter(|g| !g.is_revoked)
    }

    /// Everything that a finding may be about. Files are not among them: what is not found in them any more is mended.
    pub fn subjects(&self) -> impl Iterator<Item = Subject> {
        let networks = self.networks.iter().map(Network::subject);
        let devices = self.devices.iter().map(Device::subject);
        let classic = self.classic.iter().map(Classic::subject);
        let gateways = self.gateways.iter().map(Gateway::subject);
        let seen = self.seen.iter().map(|s| s.subject.clone());
        let kinds = [Subject::deployment(), Subject::cloud()];
        networks.chain(devices).chain(classic).chain(gateways).chain(seen).chain(kinds)
    }

    /// Whether a network, or a device of it, has E1 alone.
    pub fn is_link_only(&self, network: &str) -> bool {
        let alone = Profile::DangerLinkOnly;
        self.networks.iter().any(|n| n.name == network && n.profile == alone)
            || self.devices().any(|d| d.network == network && d.policy.profile == alone)
    }

    /// Whether a network has classic devices whose frames have no MAC: in ECB, or in the clear.
    pub fn has_no_mac(&self, network: &str) -> bool {
        self.classic().any(|d| d.network == network && !d.is_hardened)
    }
}
