//! What is backed up of a cloud and of a gateway, and what makes it safe to start again.

use std::fs;
use std::path::{Component, Path, PathBuf};

use fivefold_cloud::config::Config as CloudConfig;
use fivefold_core::time::Millis;
use fivefold_gateway::spool;
use fivefold_keep::backup::{Head, Plan};
use fivefold_keep::registry::Registry;
use fivefold_keep::share::{self, CLOUD_FILE, CloudSettings, GATEWAY_FILE, GatewaySettings, NODE_FILE};
use serde_json::{Value, json};

use crate::clock;
use crate::cloud;
use crate::operator::{REGISTRY_FILE, acted, acting, is_operators};

/// Whose folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// The operator's, with the cloud's in it.
    Cloud,
    /// A gateway's.
    Gateway,
}

/// What was done to a folder so that it may start.
pub(super) struct PutBack {
    pub(super) value: Value,
    pub(super) text: String,
}

impl Of {
    /// What its backups say they are of.
    pub(super) fn name(self, dir: &Path) -> anyhow::Result<String> {
        match self {
            Self::Cloud => {
                anyhow::ensure!(
                    is_operators(dir),
                    "{} is no operator's folder; name the one that `fivefold init` made with --dir",
                    dir.display()
                );
                Ok("cloud".into())
            }
            Self::Gateway => Ok(format!("gateway {}", gateway(dir)?.name)),
        }
    }

    /// Refuses a set of somebody else's folder, and the folder of somebody else to put it into.
    pub(super) fn check(self, head: &Head, dir: &Path) -> anyhow::Result<()> {
        let (fits, other) = match self {
            Self::Cloud => (head.of == "cloud", "gateway"),
            Self::Gateway => (head.of.starts_with("gateway "), "cloud"),
        };
        anyhow::ensure!(fits, "the set is of {}; restore it with: fivefold {other} restore", head.of);
        if let Some(theirs) = whose(dir).filter(|theirs| *theirs != head.of) {
            anyhow::bail!(
                "{} is the folder of {theirs}, and the set is of {}; name another folder with --dir",
                dir.display(),
                head.of
            );
        }
        Ok(())
    }

    /// Readings first, then the book: no context is in the copy whose epoch the book has not noted. The log comes after the
    /// store, which knows the places of entries; its heads before its tiles.
    pub(super) fn plan(self, dir: &Path) -> anyhow::Result<Plan> {
        match self {
            Self::Cloud => {
                let config = CloudConfig::load(&dir.join("cloud"))?;
                let (store, log) = (inside(dir, &config.store)?, inside(dir, &config.log)?);
                let registry = inside(dir, &config.registry)?;
                self.check_paths(dir, &dir.display().to_string(), "type this again")?;
                let readings = "SELECT coalesce(max(id), 0) FROM reading";
                Ok(Plan {
                    databases: vec![store.clone(), registry],
                    first: vec![format!("{log}/checkpoint"), format!("{log}/own/heads")],
                    pair: Some((format!("{log}/own/signed"), format!("{log}/own/journal"))),
                    counts: vec![("readings", store, readings)],
                })
            }
            Self::Gateway => {
                let store = inside(dir, &dir.join(gateway(dir)?.store.path))?;
                self.check_paths(dir, &dir.display().to_string(), "type this again")?;
                let waiting = "SELECT count(*) FROM spool";
                Ok(Plan {
                    databases: vec![store.clone()],
                    counts: vec![("waiting", store, waiting)],
                    ..Plan::default()
                })
            }
        }
    }

    /// Refuses settings by which a folder that is put back would use what lies in the old place: one database would be made
    /// safe to start, and another one started.
    fn check_paths(self, dir: &Path, of: &str, next: &str) -> anyhow::Result<()> {
        let (file, below, named) = match self {
            Self::Cloud => {
                let s: CloudSettings = share::read_config(&dir.join("cloud").join(CLOUD_FILE))?;
                ("cloud/cloud.toml", 1, vec![("registry", s.registry), ("store", s.store), ("vault", s.vault)])
            }
            Self::Gateway => (GATEWAY_FILE, 0, vec![("store.path", gateway(dir)?.store.path)]),
        };
        for (key, path) in named {
            anyhow::ensure!(
                stays(&path, below),
                "`{key}` in {file} of {of} is {}, by which a folder that is put back would use what lies in the old place; \
                 write it there relative to {file}, within the folder, and {next}",
                path.display()
            );
        }
        Ok(())
    }

    /// A log says who took a copy of everything.
    pub(super) fn note_backup(self, dir: &Path, head: &Head) -> anyhow::Result<()> {
        let what = format!("set {}, number {}", head.set, head.number);
        match self {
            Self::Cloud => Registry::open(&dir.join(REGISTRY_FILE), acting(head.at))?.enter_backup(what)?,
            Self::Gateway => acted(dir, "backup made", what)?,
        }
        Ok(())
    }

    /// Where the passphrase of the vault is looked for by somebody else than the vault.
    pub(super) fn passphrase_file(self, dir: &Path) -> anyhow::Result<Option<PathBuf>> {
        if self == Self::Gateway {
            return Ok(None);
        }
        let settings: CloudSettings = share::read_config(&dir.join("cloud").join(CLOUD_FILE))?;
        Ok(settings.passphrase_file.map(|file| dir.join("cloud").join(file)))
    }

    /// Makes a folder that was put back safe to start.
    pub(super) fn put_back(self, at: &Path, head: &Head, now: u64) -> anyhow::Result<PutBack> {
        self.check_paths(at, "the set", "restore from a backup that was made after that")?;
        match self {
            Self::Cloud => {
                let deed = format!("from set {}, number {}, of {}", head.set, head.number, clock::text(head.at));
                let done = cloud::count_as_restored(at, &deed, now)?;
                Ok(PutBack { value: done.value(), text: done.text() })
            }
            Self::Gateway => {
                let settings = gateway(at)?;
                let site = if settings.local.is_some() { spool::Site::Alone } else { spool::Site::WithCloud };
                let (then, now) = (Millis(head.at * 1000), Millis(now * 1000));
                let done = spool::restored(&at.join(settings.store.path), site, then, now)?;
                let which = format!("set {}, number {}, of {}", head.set, head.number, clock::text(head.at));
                acted(at, "restored from a backup", which)?;
                let value =
                    json!({ "contexts": done.contexts, "waiting": done.waiting, "frame_counters_from": done.floor });
                let text = format!(
                    "{} contexts are not answered under any more: their devices renew by themselves after a day of silence, and those of \
                     mode R when they are enrolled again. {} envelopes wait for the cloud, which knows those that it has.",
                    done.contexts, done.waiting
                );
                Ok(PutBack { value, text })
            }
        }
    }
}

/// Of whom backups of a folder would be, as far as what is left of it says.
fn whose(dir: &Path) -> Option<String> {
    if is_operators(dir) {
        return Some("cloud".into());
    }
    if dir.join(NODE_FILE).exists() {
        return Some("a node".into());
    }
    Of::Gateway.name(dir).ok()
}

fn gateway(dir: &Path) -> anyhow::Result<GatewaySettings> {
    let path = dir.join(GATEWAY_FILE);
    anyhow::ensure!(path.exists(), "{} is no gateway's folder: it has no {GATEWAY_FILE}", dir.display());
    Ok(share::read_config(&path)?)
}

/// Whether a path that stands in a file so many folders below one never leaves that one, wherever it is put.
pub(super) fn stays(path: &Path, below: usize) -> bool {
    let deep = path.components().try_fold(below, |deep, part| match part {
        Component::Normal(_) => Some(deep + 1),
        Component::CurDir => Some(deep),
        Component::ParentDir => deep.checked_sub(1),
        Component::Prefix(_) | Component::RootDir => None,
    });
    deep.is_some()
}

/// The path in `dir` of something that the config names; it need not be there yet.
fn inside(dir: &Path, path: &Path) -> anyhow::Result<String> {
    let real = |p: &Path| fs::canonicalize(p).or_else(|_| std::path::absolute(p));
    let folder = path.parent().unwrap_or(path);
    let whole = real(folder)?.join(path.file_name().unwrap_or_default());
    let within = whole.strip_prefix(real(dir)?).ok().and_then(Path::to_str);
    within.map(str::to_owned).ok_or_else(|| {
        anyhow::anyhow!(
            "{} lies outside of {}, and a backup is of one folder; move it in, or name the folder that has both",
            path.display(),
            dir.display()
        )
    })
}
