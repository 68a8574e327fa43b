//! The state folder of a software node: two sealed slot files, and a lock so that no two processes use one identity.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, bail};
use fivefold_core::suite::sha256;
use fivefold_device::storage::{OpenError, RECORD};
use fivefold_device::{Record, Slot, Slots, Storage};
use fivefold_keep::files;
use fivefold_keep::share::SECRETS_FILE;
use fivefold_keep::vault::{PASSPHRASE_FILE, Vault, VaultError};

const FOLDER: &str = "state";
const LOCK: &str = "lock";
/// Stands beside the state folder once counters were written: without them these secrets must not be used again.
const MARKER: &str = "started";

/// What a node starts from.
pub(super) struct State {
    pub(super) marker: Marker,
    pub(super) slots: Slots<Files>,
    pub(super) record: Option<Record>,
}

/// The two slots as files, sealed by the node's vault. Each is written anew, synced, and renamed into place.
#[derive(Clone)]
pub(super) struct Files {
    vault: Rc<Vault>,
    folder: PathBuf,
    /// Held as long as the process lives.
    _lock: Rc<File>,
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

/// Remembers beside the state folder for which secrets counters were ever written: a line for each.
pub(super) struct Marker {
    path: PathBuf,
    lines: String,
    /// The line of the present secrets.
    own: String,
}

impl Marker {
    fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(MARKER);
        let secrets = files::read_private(&dir.join(SECRETS_FILE))?;
        let own = format!("{}\n", hex::encode(sha256(&[&secrets])));
        let lines = match fs::read_to_string(&path) {
            Ok(lines) => lines,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        Ok(Self { path, lines, own })
    }

    fn is_set(&self) -> bool {
        self.lines.contains(&self.own)
    }

    /// Whether counters were written, but none for the present secrets: those are newly enrolled.
    fn is_of_others(&self) -> bool {
        !self.lines.is_empty() && !self.is_set()
    }

    /// After the first record is durable.
    pub(super) fn set(&mut self) -> anyhow::Result<()> {
        if !self.is_set() {
            self.lines.push_str(&self.own);
            files::write(&self.path, files::Readers::Everybody, self.lines.as_bytes())?;
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
    let marker = Marker::read(dir)?;
    let files = Files { vault: Rc::new(vault), folder: folder.clone(), _lock: Rc::new(lock) };
    let opened = match Slots::open(files.clone()) {
        // An earlier enrolment sealed them under its own vault. New secrets start from 0 by right.
        Err(OpenError::Corrupt) if marker.is_of_others() => {
            for slot in [Slot::A, Slot::B] {
                let path = files.path(slot);
                fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
            Slots::open(files)
        }
        opened => opened,
    };
    let (slots, record) = opened.map_err(|e| match e {
        OpenError::Corrupt => anyhow::anyhow!("{}: both copies of the counters are damaged; {AGAIN}", folder.display()),
        OpenError::Medium(e) => anyhow::Error::from(e),
    })?;
    if record.is_none() && marker.is_set() {
        bail!("{} has lost the counters of this node; {AGAIN}", folder.display());
    }
    Ok(State { marker, slots, record })
}

const AGAIN: &str = "starting from 0 would repeat nonces: enrol the device again, which draws new secrets";
