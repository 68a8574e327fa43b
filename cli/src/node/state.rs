//! The state folder of a software node: two sealed slot files, and a lock so that no two processes use one identity.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use fivefold_device::storage::{OpenError, RECORD};
use fivefold_device::{Record, Slot, Slots, Storage};
use fivefold_keep::files;
use fivefold_keep::share::SECRETS_FILE;
use fivefold_keep::vault::{PASSPHRASE_FILE, Vault, VaultError};

const FOLDER: &str = "state";
const LOCK: &str = "lock";
/// Stands beside the state folder once counters were written: without them the node must not start again.
const MARKER: &str = "started";

/// What a node starts from.
pub(super) struct State {
    pub(super) marker: Marker,
    pub(super) slots: Slots<Files>,
    pub(super) record: Option<Record>,
}

/// The two slots as files, sealed by the node's vault. Each is written anew, synced, and renamed into place.
pub(super) struct Files {
    vault: Vault,
    folder: PathBuf,
    /// Held as long as the process lives.
    _lock: File,
}

impl Files {
    fn path(&self, slot: Slot) -> PathBuf {
        self.folder.join(match slot {
            Slot::A => "slot-a.sealed",
            Slot::B => "slot-b.sealed",
        })
    }
}

impl Storage for Files {
    type Error = VaultError;

    fn read(&mut self, slot: Slot, out: &mut [u8; RECORD]) -> Result<(), VaultError> {
        let path = self.path(slot);
        *out = [0xFF; RECORD];
        if !path.exists() {
            return Ok(());
        }
        match self.vault.open_file(&path) {
            Ok(bytes) => match bytes.as_slice().try_into() {
                Ok(record) => *out = record,
                Err(_) => *out = [0x5A; RECORD],
            },
            // Neither blank nor a record: the other slot decides.
            Err(VaultError::Damaged { .. }) => *out = [0x5A; RECORD],
            Err(e) => return Err(e),
        }
        Ok(())
    }

    fn write(&mut self, slot: Slot, bytes: &[u8; RECORD]) -> Result<(), VaultError> {
        self.vault.seal_file(&self.path(slot), bytes)
    }
}

/// Remembers beside the state folder that counters exist.
pub(super) struct Marker {
    path: PathBuf,
    set: bool,
}

impl Marker {
    /// After the first record is durable.
    pub(super) fn set(&mut self) -> anyhow::Result<()> {
        if !self.set {
            files::write(&self.path, files::Readers::Everybody, b"The counters of this node are in state/.\n")?;
            self.set = true;
        }
        Ok(())
    }
}

/// Opens the state folder of the node in `dir`, and locks it.
///
/// # Errors
/// One sentence: it is in use, damaged, or was removed.
pub(super) fn open(dir: &Path) -> anyhow::Result<State> {
    let folder = dir.join(FOLDER);
    files::create_folder(&folder)?;
    let lock = File::create(folder.join(LOCK)).with_context(|| format!("cannot write to {}", folder.display()))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            bail!("{} is in use by another process: one identity runs once; stop the other node first", dir.display())
        }
        Err(TryLockError::Error(e)) => return Err(e).with_context(|| format!("cannot lock {}", folder.display())),
    }
    let vault = Vault::open_folder(dir, &dir.join(PASSPHRASE_FILE))?;
    let files = Files { vault, folder: folder.clone(), _lock: lock };
    let (slots, record) = Slots::open(files).map_err(|e| match e {
        OpenError::Corrupt => anyhow::anyhow!("{}: both copies of the counters are damaged; {AGAIN}", folder.display()),
        OpenError::Medium(e) => anyhow::Error::from(e),
    })?;
    let marker = marker(dir)?;
    if record.is_none() && marker.set {
        bail!("{} has lost the counters of this node; {AGAIN}", folder.display());
    }
    Ok(State { marker, slots, record })
}

/// The marker is younger than the secrets of the enrolment it belongs to: new secrets need no old counters.
fn marker(dir: &Path) -> anyhow::Result<Marker> {
    let path = dir.join(MARKER);
    let written = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let set = match (written(&path), written(&dir.join(SECRETS_FILE))) {
        (Some(marker), Some(secrets)) => marker >= secrets,
        (marker, _) => marker.is_some(),
    };
    Ok(Marker { path, set })
}

const AGAIN: &str = "starting from 0 would repeat nonces: enrol the device again, which draws new secrets";
