//! What was seen of a deployment. Plain values: no secret stands here, only what was found of it.
//!
//! `None` means that nobody looked, never that there is nothing: a rule says so then.

use std::collections::HashSet;
use std::path::PathBuf;

use fivefold_core::profile::{Overrides, Policy, Profile};

use crate::rule::{Kind, Subject};

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When, Unix seconds.
    pub now: u64,
    /// The levels that the operator says each network must have at least.
    pub wanted: Option<Profile>,
    /// Networks.
    pub networks: Vec<Network>,
    /// Devices of the modern suite.
    pub devices: Vec<Device>,
    /// Classic devices.
    pub classic: Vec<Classic>,
    /// What could not be read at all, in sentences.
    pub unread: Vec<String>,
}

/// A network.
#[derive(Clone, Debug)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// The levels of its devices.
    pub profile: Profile,
}

/// A device of the modern suite.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its EUI-64.
    pub name: String,
    /// Its network, by name.
    pub network: String,
    /// Its policy record.
    pub policy: Policy,
    /// What the operator lets it do that is not safe.
    pub overrides: Overrides,
    /// Whether it was revoked: then most rules pass it over.
    pub is_revoked: bool,
}

/// A classic device.
#[derive(Clone, Debug)]
pub struct Classic {
    /// Its serial.
    pub name: String,
    /// Its network, by name.
    pub network: String,
    /// Whether only frames of the hardened profile count.
    pub is_hardened: bool,
    /// Its keys, if it has any.
    pub keys: Vec<KeySeen>,
    /// Whether it was revoked.
    pub is_revoked: bool,
}

/// A key that was looked at, without the key.
#[derive(Clone, Debug)]
pub struct KeySeen {
    /// Which one, as in "its key for the cloud".
    pub what: String,
    /// Why it is easy to guess, if it is.
    pub weak: Option<String>,
    /// Where it stands, if in a file.
    pub file: Option<PathBuf>,
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

impl Facts {
    /// Nothing seen yet.
    pub fn at(now: u64) -> Self {
        Self { now, ..Self::default() }
    }

    /// Devices that are not revoked.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|d| !d.is_revoked)
    }

    /// Classic devices that are not revoked.
    pub fn classic(&self) -> impl Iterator<Item = &Classic> {
        self.classic.iter().filter(|d| !d.is_revoked)
    }

    /// Everything that a finding may be about.
    pub fn subjects(&self) -> impl Iterator<Item = Subject> {
        let networks = self.networks.iter().map(Network::subject);
        let devices = self.devices.iter().map(Device::subject);
        let classic = self.classic.iter().map(Classic::subject);
        let kinds = [Subject::deployment(), Subject::new(Kind::Cloud, "")];
        networks.chain(devices).chain(classic).chain(kinds)
    }

    /// Whether a network, or a device of it, has E1 alone.
    pub fn is_link_only(&self, network: &str) -> bool {
        self.networks.iter().any(|n| n.name == network && n.profile == Profile::DangerLinkOnly)
            || self.devices().any(|d| d.network == network && d.policy.profile == Profile::DangerLinkOnly)
    }

    /// Whether a network has classic devices that seal in ECB.
    pub fn has_ecb(&self, network: &str) -> bool {
        self.classic().any(|d| d.network == network && !d.is_hardened && !d.keys.is_empty())
    }

    /// Networks, by name.
    pub fn network_names(&self) -> HashSet<&str> {
        self.networks.iter().map(|n| n.name.as_str()).collect()
    }
}
