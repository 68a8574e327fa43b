//! Another data key for a vault: for when somebody may know the present one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::envelope::{self, Envelope};
use super::{Vault, VaultError};

/// A vault while its data key is being replaced. Three steps, each durable before the next:
///
/// 1. [`Rekey::begin`] draws another data key and writes an envelope with both. From here on the vault seals under the new
///    one and opens what either sealed.
/// 2. Whoever keeps sealed records seals them again: [`Vault::reseal`].
/// 3. [`Rekey::finish`] writes the envelope without the key before.
///
/// A crash in between loses nothing: [`Rekey::begin`] goes on with the key that was drawn.
#[derive(Debug)]
pub struct Rekey {
    vault: Arc<Vault>,
    folder: PathBuf,
    resumed: Resumed,
    /// Nobody else changes the envelope meanwhile.
    _one: File,
}

/// Whether a re-keying goes on that was interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// It starts now.
    No,
    /// It was begun before.
    Yes,
}

impl Rekey {
    /// Draws another data key for the vault of `folder`, or goes on where an earlier run stopped. `passphrase_file` is as
    /// in [`Vault::open_folder_with`].
    ///
    /// # Errors
    /// [`VaultError::Busy`] while a daemon or a command has the vault open: it would go on under the key before. Else as
    /// [`Vault::open_folder`].
    pub fn begin(folder: &Path, passphrase_file: Option<&Path>) -> Result<Self, VaultError> {
        let one = envelope::lock_envelope(folder)?;
        let read = Envelope::read(folder, passphrase_file)?;
        if read.has_key_before() {
            let vault = Vault::of(&read.open(folder)?, envelope::lock_shared(folder)?)?;
            return Ok(Self { vault: Arc::new(vault), folder: folder.to_owned(), resumed: Resumed::Yes, _one: one });
        }
        let alone = envelope::lock_alone(folder)?;
        let (new, keys) = read.with_new_key(folder)?;
        new.write(folder)?;
        drop(alone);
        let vault = Vault::of(&keys, envelope::lock_shared(folder)?)?;
        // That was another file: it is locked anew. A rewrapping in between took both keys along.
        let one = envelope::lock_envelope(folder)?;
        Ok(Self { vault: Arc::new(vault), folder: folder.to_owned(), resumed: Resumed::No, _one: one })
    }

    /// Seals under the new key, and opens what either sealed.
    pub const fn vault(&self) -> &Arc<Vault> {
        &self.vault
    }

    /// Whether it goes on where an earlier run stopped.
    pub const fn resumed(&self) -> Resumed {
        self.resumed
    }

    /// Gives up the key before. What is still sealed under it never opens again.
    ///
    /// # Errors
    /// The envelope cannot be written; then it stays as it is.
    pub fn finish(self) -> Result<(), VaultError> {
        Envelope::read(&self.folder, None)?.without_key_before().write(&self.folder)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{PASSPHRASE_FILE, Source, VAULT_FILE, describe, rewrap};
    use super::*;
    use crate::files::{self, Readers};

    /// What a power cut leaves of a write of `vault.toml`: the new file cut at every length beside the old, whole beside the
    /// old, and in its place.
    fn cuts(folder: &Path, old: &[u8], new: &[u8], check: impl Fn()) {
        let (path, beside) = (folder.join(VAULT_FILE), folder.join("vault.toml.new"));
        for len in [0, 1, new.len() / 2, new.len() - 1, new.len()] {
            fs::write(&path, old).unwrap();
            fs::write(&beside, &new[..len]).unwrap();
            check();
        }
        fs::rename(&beside, &path).unwrap();
        check();
    }

    #[test]
    fn a_rewrapping_that_is_cut_anywhere_leaves_the_old_source_or_the_new() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let sealed = Vault::create(at).unwrap().seal("a", b"x").unwrap();
        let read = || fs::read(at.join(VAULT_FILE)).unwrap();
        let old = read();
        let path = at.join("new");
        files::write(&path, Readers::Owner, b"another passphrase than that\n").unwrap();
        rewrap(at, None, &Source::PassphraseFile(path)).unwrap();
        let new = read();
        assert_ne!(old, new);
        cuts(at, &old, &new, || {
            assert_eq!(Vault::open_folder(at).unwrap().open("a", &sealed).unwrap().as_slice(), b"x");
        });
        // What a cut left beside it is in nobody's way.
        fs::write(at.join("vault.toml.new"), b"rest").unwrap();
        rewrap(at, None, &Source::PassphraseFile(at.join(PASSPHRASE_FILE))).unwrap();
        assert!(Vault::open_folder(at).is_ok() && !at.join("vault.toml.new").exists());
    }

    #[test]
    fn a_rekeying_that_is_cut_anywhere_opens_all_records_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let read = || fs::read(at.join(VAULT_FILE)).unwrap();
        let mut records: Vec<Vec<u8>> = {
            let vault = Vault::create(at).unwrap();
            (0..3).map(|n| vault.seal(&format!("{n}"), &[n; 20]).unwrap()).collect()
        };
        let all_open = |records: &[Vec<u8>]| {
            let vault = Vault::open_folder(at).unwrap();
            for (n, record) in records.iter().enumerate() {
                assert_eq!(vault.open(&format!("{n}"), record).unwrap().as_slice(), [n as u8; 20]);
            }
        };
        let first = read();
        let rekey = Rekey::begin(at, None).unwrap();
        assert_eq!(rekey.resumed(), Resumed::No);
        let new = rekey.vault().key_id();
        drop(rekey);
        let second = read();
        cuts(at, &first, &second, || all_open(&records));
        for n in 0..records.len() {
            let rekey = Rekey::begin(at, None).unwrap();
            assert_eq!((rekey.resumed(), rekey.vault().key_id()), (Resumed::Yes, new), "no third key is drawn");
            records[n] = rekey.vault().reseal(&format!("{n}"), &records[n]).unwrap().unwrap();
            assert_eq!(rekey.vault().reseal(&format!("{n}"), &records[n]).unwrap(), None);
            drop(rekey);
            all_open(&records);
        }
        // A rewrapping in the middle of it takes both keys along.
        let path = at.join("new");
        files::write(&path, Readers::Owner, b"another passphrase than that\n").unwrap();
        rewrap(at, None, &Source::PassphraseFile(path)).unwrap();
        all_open(&records);
        let third = read();
        Rekey::begin(at, None).unwrap().finish().unwrap();
        let fourth = read();
        cuts(at, &third, &fourth, || all_open(&records));
        assert_eq!(describe(at).unwrap().before, None);
        // The key before is gone: what it sealed stays shut.
        fs::write(at.join(VAULT_FILE), &first).unwrap();
        assert!(Vault::open_folder(at).unwrap().open("0", &records[0]).is_err());
    }

    #[test]
    fn nobody_gets_another_key_under_the_feet_of_who_has_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let daemon = Vault::create(at).unwrap();
        // A rewrapping puts another file there; who has the key has it still.
        rewrap(at, None, &Source::PassphraseFile(at.join(PASSPHRASE_FILE))).unwrap();
        let before = fs::read(at.join(VAULT_FILE)).unwrap();
        let error = Rekey::begin(at, None).unwrap_err();
        assert_eq!(fs::read(at.join(VAULT_FILE)).unwrap(), before);
        assert!(matches!(error, VaultError::Busy { .. }) && error.to_string().contains("stop that first"), "{error}");
        drop(daemon);
        let one = Rekey::begin(at, None).unwrap();
        // Who opens it now has both keys, and a second change of the envelope waits.
        assert!(Vault::open_folder(at).is_ok());
        assert!(matches!(Rekey::begin(at, None).unwrap_err(), VaultError::Busy { .. }));
        let same = Source::PassphraseFile(at.join(PASSPHRASE_FILE));
        assert!(matches!(rewrap(at, None, &same).unwrap_err(), VaultError::Busy { .. }));
        one.finish().unwrap();
    }

    #[test]
    fn a_passphrase_file_elsewhere_for_once_does_not_change_where_the_vault_looks() {
        let (folder, usb) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = folder.path();
        drop(Vault::create(at).unwrap());
        let away = usb.path().join("p");
        fs::rename(at.join(PASSPHRASE_FILE), &away).unwrap();
        Rekey::begin(at, Some(&away)).unwrap().finish().unwrap();
        assert_eq!(describe(at).unwrap().source, Source::PassphraseFile(at.join(PASSPHRASE_FILE)));
        assert!(Vault::open_folder_with(at, Some(&away)).is_ok());
    }
}
