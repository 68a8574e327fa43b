//! The state folder of a software node: two sealed slot files, and a lock so that no two processes use one identity.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, bail};
use fivefold_core::suite::sha256;
use fivefold_device::storage::{FORMAT, OpenError, RECORD};
use fivefold_device::{Record, Slot, Slots, Storage};
use fivefold_keep::files::{self, Readers};
use fivefold_keep::format::{self, Newer};
use fivefold_keep::share::{SECRETS_FILE, SIGNING_KEY_FILE};
use fivefold_keep::vault::{Vault, VaultError};

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
        self.folder.join(file_of(slot))
    }
}

const fn file_of(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "slot-a.sealed",
        Slot::B => "slot-b.sealed",
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
            // Earlier versions wrote fewer bytes; of what a later one wrote the beginning tells its format.
            Ok(bytes) => out.iter_mut().zip(bytes.iter()).for_each(|(out, b)| *out = *b),
            // Neither blank nor a record: the other slot decides.
            Err(VaultError::Damaged { .. } | VaultError::OtherVault { .. }) => *out = [0x5A; RECORD],
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
        let own = line(&secrets);
        let lines = match fs::read_to_string(&path) {
            Ok(text) => format::of_lines(path.display(), &text)?.to_owned(),
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

    /// The counters belong to these secrets too, which are about to take the place of the present ones. Durable before they
    /// are there: without this they would pass as new ones, whose numbers start from 0.
    fn adopt(&mut self, secrets: &[u8], disk: &mut Disk<'_>) -> anyhow::Result<()> {
        if self.is_set() {
            self.lines.push_str(&line(secrets));
            disk(&self.path, Readers::Everybody, self.lines.as_bytes())?;
        }
        Ok(())
    }

    /// Puts other secrets in the place of the present ones.
    pub(super) fn replace_secrets(&mut self, dir: &Path, sealed: &[u8]) -> anyhow::Result<()> {
        self.adopt(sealed, &mut |path, readers, bytes| Ok(files::write(path, readers, bytes)?))?;
        files::write(&dir.join(SECRETS_FILE), Readers::Owner, sealed)?;
        self.own = line(sealed);
        Ok(())
    }

    /// After the first record is durable.
    pub(super) fn set(&mut self) -> anyhow::Result<()> {
        if !self.is_set() {
            self.lines.push_str(&self.own);
            files::write(&self.path, Readers::Everybody, self.lines.as_bytes())?;
        }
        Ok(())
    }
}

/// What stands in the marker for sealed secrets.
fn line(secrets: &[u8]) -> String {
    format!("{}\n", hex::encode(sha256(&[secrets])))
}

/// Opens the state folder of the node in `dir`, and locks it.
///
/// # Errors
/// One sentence: it is in use, damaged, or was removed.
pub(super) fn open(dir: &Path) -> anyhow::Result<State> {
    let (folder, lock) = locked(dir)?;
    let vault = Vault::open_folder(dir)?;
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
        OpenError::Newer(found) => Newer::new(folder.display(), found.into(), FORMAT.into()).into(),
        OpenError::Medium(e) => anyhow::Error::from(e),
    })?;
    if record.is_none() && marker.is_set() {
        bail!("{} has lost the counters of this node; {AGAIN}", folder.display());
    }
    Ok(State { marker, slots, record })
}

/// Makes the state folder if it is not there, and locks it.
fn locked(dir: &Path) -> anyhow::Result<(PathBuf, File)> {
    let folder = dir.join(FOLDER);
    files::create_folder(&folder)?;
    let lock = files::open_or_create(&folder.join(LOCK), Readers::Everybody)
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok((folder, lock)),
        Err(TryLockError::WouldBlock) => {
            bail!("{} is in use by another process: one identity runs once; stop the other node first", dir.display())
        }
        Err(TryLockError::Error(e)) => Err(e).with_context(|| format!("cannot lock {}", folder.display())),
    }
}

/// Seals secrets and counters of the node in `dir` again, while the vault's data key is replaced. `disk` makes one durable
/// write after the other. Returns how many files were sealed again.
///
/// # Errors
/// The node runs, its secrets do not open, or `disk` fails.
pub(crate) fn reseal(dir: &Path, vault: &Vault, disk: &mut Disk<'_>) -> anyhow::Result<usize> {
    let (folder, _lock) = locked(dir)?;
    let mut resealed = 0;
    let secrets = dir.join(SECRETS_FILE);
    if let Some(bytes) = vault.resealed_file(&secrets)? {
        Marker::read(dir)?.adopt(&bytes, disk)?;
        disk(&secrets, Readers::Owner, &bytes)?;
        resealed += 1;
    }
    let signing = dir.join(SIGNING_KEY_FILE);
    if signing.exists()
        && let Some(bytes) = vault.resealed_file(&signing)?
    {
        disk(&signing, Readers::Owner, &bytes)?;
        resealed += 1;
    }
    for slot in [Slot::A, Slot::B].map(|slot| folder.join(file_of(slot))).iter().filter(|p| p.exists()) {
        match vault.resealed_file(slot) {
            Ok(None) => {}
            Ok(Some(bytes)) => {
                disk(slot, Readers::Owner, &bytes)?;
                resealed += 1;
            }
            // A slot that was cut, or of an earlier enrolment: it is nothing now, and is nothing afterwards.
            Err(VaultError::Damaged { .. } | VaultError::OtherVault { .. }) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(resealed)
}

/// Makes one durable write.
pub(crate) type Disk<'d> = dyn FnMut(&Path, Readers, &[u8]) -> anyhow::Result<()> + 'd;

const AGAIN: &str = "starting from 0 would repeat nonces: enrol the device again, which draws new secrets";
