//! What is sealed under a vault, and where: files, the book, the stores.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use fivefold_cloud::config::Config as CloudConfig;
use fivefold_gateway::spool::Spool;
use fivefold_keep::files::Readers;
use fivefold_keep::registry::Registry;
use fivefold_keep::share::{
    CLOUD_FILE, CloudSettings, GATEWAY_FILE, GatewaySettings, NODE_FILE, SECRETS_FILE, read_config,
};
use fivefold_keep::vault::{VAULT_FILE, Vault};
use serde_json::{Value, json};

use crate::node::join::IDENTITY_FILE;
use crate::node::state::{self, Disk};
use crate::operator::{OPERATOR_FILE, REGISTRY_FILE, acting};

/// Ending of a sealed file.
const SEALED: &str = "sealed";

/// A folder with a vault, and whose it is.
#[derive(Debug)]
pub(super) struct Place {
    /// The folder with `vault.toml`.
    pub(super) vault: PathBuf,
    /// The cloud's folder, where the vault is the operator's.
    pub(super) cloud: Option<PathBuf>,
}

/// Something that is sealed under a vault; each is sealed again by itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    CloudStore(PathBuf),
    File(PathBuf),
    GatewayStore(PathBuf),
    Node(PathBuf),
    Registry(PathBuf),
}

impl Place {
    /// Whose folder it is. The cloud has no vault of its own: its config says which.
    pub(super) fn of(dir: &Path) -> anyhow::Result<Self> {
        if dir.join(VAULT_FILE).exists() {
            let cloud = dir.join(OPERATOR_FILE).exists().then(|| dir.join("cloud"));
            return Ok(Self { vault: dir.to_owned(), cloud });
        }
        let config = dir.join(CLOUD_FILE);
        anyhow::ensure!(
            config.exists(),
            "{} has no {VAULT_FILE}; name the operator's, the cloud's, a gateway's or a node's folder with --dir",
            dir.display()
        );
        let settings: CloudSettings = read_config(&config)?;
        Ok(Self { vault: dir.join(settings.vault), cloud: Some(dir.to_owned()) })
    }

    /// With the cloud in another folder.
    pub(super) fn with_cloud(self, cloud: Option<&Path>) -> Self {
        Self { cloud: cloud.map(Path::to_owned).or(self.cloud), ..self }
    }

    /// Everything that is sealed under the vault.
    pub(super) fn parts(&self) -> anyhow::Result<Vec<Part>> {
        let dir = &self.vault;
        let mut parts = Vec::new();
        if dir.join(IDENTITY_FILE).exists() && !dir.join(SECRETS_FILE).exists() {
            // A node that waits to be enrolled.
            sealed_files(dir, &mut parts)?;
        } else if dir.join(NODE_FILE).exists() {
            parts.push(Part::Node(dir.clone()));
        } else if dir.join(GATEWAY_FILE).exists() {
            let settings: GatewaySettings = read_config(&dir.join(GATEWAY_FILE))?;
            sealed_files(dir, &mut parts)?;
            parts.extend(there(dir.join(settings.store.path)).map(Part::GatewayStore));
        } else if let Some(cloud) = &self.cloud {
            anyhow::ensure!(
                cloud.join(CLOUD_FILE).exists(),
                "{} has no {CLOUD_FILE}; name the cloud's folder with --cloud, for its key and store are sealed under this \
                 vault too",
                cloud.display()
            );
            let config = CloudConfig::load(cloud)?;
            let same = |a: &Path, b: &Path| a.canonicalize().ok() == b.canonicalize().ok();
            anyhow::ensure!(
                same(&config.vault, dir) && same(&config.registry, &dir.join(REGISTRY_FILE)),
                "the cloud in {} uses another vault or registry than those in {}; name its own folder with --dir",
                cloud.display(),
                dir.display()
            );
            sealed_files(dir, &mut parts)?;
            // The cloud's folder may lie elsewhere.
            sealed_files(cloud, &mut parts)?;
            parts.push(Part::Registry(config.registry));
            parts.extend(there(config.store).map(Part::CloudStore));
        } else {
            anyhow::bail!("{} is neither an operator's, a gateway's nor a node's folder", dir.display());
        }
        Ok(parts)
    }
}

fn there(path: PathBuf) -> Option<PathBuf> {
    path.exists().then_some(path)
}

/// Sealed files below a folder, each once; a folder with a vault of its own is another party's.
fn sealed_files(dir: &Path, parts: &mut Vec<Part>) -> anyhow::Result<()> {
    let mut entries = std::fs::read_dir(dir)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read {}", dir.display()))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            if !path.join(VAULT_FILE).exists() {
                sealed_files(&path, parts)?;
            }
        } else if path.extension().is_some_and(|e| e == SEALED) {
            let same = |p: &Part| matches!(p, Part::File(f) if f.canonicalize().ok() == path.canonicalize().ok());
            if !parts.iter().any(same) {
                parts.push(Part::File(path));
            }
        }
    }
    Ok(())
}

impl Part {
    /// Seals it again where the vault's key before sealed it; returns how many records. A store is one transaction; all
    /// else is written by `disk`, one durable write after the other.
    pub(super) fn reseal(&self, vault: &Arc<Vault>, disk: &mut Disk<'_>) -> anyhow::Result<usize> {
        match self {
            Self::CloudStore(path) => Ok(fivefold_cloud::store::reseal(path, vault)?),
            Self::File(path) => match vault.resealed_file(path).with_context(|| {
                format!(
                    "{} cannot be sealed again; move it away if nothing needs it, and type this again",
                    path.display()
                )
            })? {
                Some(bytes) => {
                    disk(path, Readers::Owner, &bytes)?;
                    Ok(1)
                }
                None => Ok(0),
            },
            Self::GatewayStore(path) => Ok(Spool::reseal(path, vault)?),
            Self::Node(dir) => state::reseal(dir, vault, disk),
            Self::Registry(path) => Ok(Registry::open(path, acting(crate::clock::now()?))?.reseal(vault)?),
        }
    }
}

/// How many records were sealed again.
#[derive(Debug, Default)]
pub(super) struct Resealed {
    files: usize,
    registry: usize,
    store: usize,
}

impl Resealed {
    pub(super) fn add(&mut self, part: &Part, n: usize) {
        match part {
            Part::CloudStore(_) | Part::GatewayStore(_) => self.store += n,
            Part::File(_) | Part::Node(_) => self.files += n,
            Part::Registry(_) => self.registry += n,
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({ "files": self.files, "registry": self.registry, "store": self.store })
    }
}

impl std::fmt::Display for Resealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} files, {} records of the registry, {} of the store", self.files, self.registry, self.store)
    }
}
