//! What an attacker has: written by the demo or the range, and nothing else is given to the process.

use memchr::memmem;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// A station in radio reach.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Station {
    /// What the demo calls it, e.g. `gateway north` or `node 0a17`.
    pub name: String,
    /// UDP address of its radio.
    pub addr: SocketAddr,
    /// Short address, 4 hex digits. Every frame in the air shows it.
    pub sid: String,
    /// EUI-64, 16 hex digits. Every HELLO in the air shows it.
    pub eui64: String,
}

/// Everything one attacker holds and can reach.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// How many attacks there were before: an insider takes counters that none of them used.
    #[serde(default)]
    pub turn: u32,
    /// Network id, 8 hex digits.
    pub net: String,
    /// PAN of the network, 4 hex digits; every frame in the air shows it.
    pub pan: String,
    /// What was heard on the air so far: JSON lines of [`super::air::Heard`].
    pub recording: PathBuf,
    /// Stations of this network in reach, gateways first.
    pub stations: Vec<Station>,
    /// Gateways elsewhere.
    pub elsewhere: Vec<Station>,
    /// Folder of a node that the attacker owns, with its passphrase file.
    pub node: Option<PathBuf>,
    /// Folder of a gateway that the attacker owns, with its passphrase file.
    pub gateway: Option<PathBuf>,
    /// Where that gateway finds the credential that opens its vault, if one does.
    pub credentials: Option<PathBuf>,
    /// Process of that gateway, whose memory it reads.
    pub gateway_pid: Option<u32>,
    /// The operator's word on whom the attacker may speak to. Without one, nobody is spoken to.
    pub permit: Option<PathBuf>,
    /// Certificate of the CA by whose key that is signed.
    pub ca: PathBuf,
    /// Where gateways call the cloud, e.g. `https://localhost:8443`.
    pub cloud: String,
    /// Files of a stolen copy of the databases.
    pub database: Vec<PathBuf>,
    /// Attackers who share the work: which of them this is, and how many they are. None shares.
    pub share: Option<(usize, usize)>,
    /// What attackers of classic nodes have beside this.
    #[serde(default)]
    pub classic: Option<super::classic::Classic>,
    /// Not the attacker's: payloads that were really sent, in hex, to judge what it read.
    pub oracle: Vec<String>,
    /// Not the attacker's: secrets of the deployment, in hex, to judge whether a copy holds one in the clear.
    pub oracle_secrets: Vec<String>,
}

impl Plan {
    /// Reads a plan.
    ///
    /// # Errors
    /// The file cannot be read or is no plan.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("cannot read the plan {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no plan of an attack", path.display()))
    }

    /// The real payloads, as bytes.
    pub fn payloads(&self) -> Vec<Vec<u8>> {
        self.oracle.iter().filter_map(|h| hex::decode(h).ok()).filter(|p| p.len() >= 8).collect()
    }
}

/// How many of `needles` occur in `haystack`.
pub fn found(haystack: &[u8], needles: &[Vec<u8>]) -> u64 {
    needles.iter().filter(|needle| memmem::find(haystack, needle).is_some()).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_is_found_wherever_it_lies_and_counted_once() {
        let needles = vec![b"temp".to_vec(), b"absent".to_vec(), b"end".to_vec()];
        assert_eq!(found(b"..temp..temp..end", &needles), 2);
        assert_eq!(found(b"", &needles), 0);
        assert_eq!(found(b"tem", &needles), 0);
    }
}
