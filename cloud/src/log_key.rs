//! The key that signs the deployment's log, and the log's name.
//!
//! The name is `fivefold.<first 8 hex digits of SHA-256 over the SubjectPublicKeyInfo of the operator's CA>/log`, and stays when
//! the CA is replaced: it is sealed with the key. The public half lies beside it, for whoever wants to pin it.

use std::path::{Path, PathBuf};

use fivefold_evidence::checkpoint::LogKey;
use fivefold_evidence::note::{Malformed, VKey};
use fivefold_keep::ca::{CaError, SpkiHash, spki_of};
use fivefold_keep::files::{self, FileError, Readers};
use fivefold_keep::vault::{Vault, VaultError, random};
use zeroize::Zeroizing;

/// File name of the sealed key in the cloud's folder.
pub const LOG_KEY_FILE: &str = "log-key.sealed";
/// File name of its public half.
pub const LOG_VKEY_FILE: &str = "log.vkey";
/// Folder of the log in the cloud's folder.
pub const LOG_FOLDER: &str = "log";

/// Why there is no key for the log. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum LogKeyError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The CA of the operator, of which the log's name is made.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// What is sealed is no key.
    #[error("{path}: {source}", path = path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        source: Malformed,
    },
}

impl LogKeyError {
    /// Whether it is the same at the next try, until somebody mends it.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Ca(_) | Self::Malformed { .. } => true,
            Self::File(e) => e.is_lasting(),
            Self::Vault(e) => e.is_lasting(),
        }
    }
}

/// The key in the cloud's folder; it is made when there is none, and named after `ca` (PEM).
///
/// # Errors
/// [`LogKeyError`].
pub fn open_or_make(folder: &Path, vault: &Vault, ca: &str) -> Result<LogKey, LogKeyError> {
    let path = folder.join(LOG_KEY_FILE);
    let malformed = |source| LogKeyError::Malformed { path: path.clone(), source };
    if !path.exists() {
        let seed = random::<32>()?;
        let origin = origin(ca)?;
        let mut sealed = Zeroizing::new(seed.to_vec());
        sealed.extend_from_slice(origin.as_bytes());
        vault.seal_file(&path, &sealed)?;
    }
    let opened = vault.open_file(&path)?;
    let (seed, origin) = opened.split_first_chunk::<32>().ok_or_else(|| malformed(Malformed("it is cut short")))?;
    let origin = core::str::from_utf8(origin).map_err(|_| malformed(Malformed("its name is not UTF-8")))?;
    let key = LogKey::from_seed(origin, &Zeroizing::new(*seed)).map_err(malformed)?;
    let vkey = format!("{}\n", key.vkey());
    let public = folder.join(LOG_VKEY_FILE);
    if std::fs::read_to_string(&public).ok().as_ref() != Some(&vkey) {
        files::write(&public, Readers::Everybody, vkey.as_bytes())?;
    }
    Ok(key)
}

/// The public half, without the vault.
///
/// # Errors
/// [`LogKeyError`] when it is not there yet, or is none.
pub fn vkey(folder: &Path) -> Result<VKey, LogKeyError> {
    let path = folder.join(LOG_VKEY_FILE);
    files::read_text(&path)?.trim_end().parse().map_err(|source| LogKeyError::Malformed { path, source })
}

/// The name of the log of an operator with this CA (PEM).
///
/// # Errors
/// [`CaError`] when it is no certificate.
pub fn origin(ca: &str) -> Result<String, CaError> {
    let hash = SpkiHash::of(&spki_of(ca)?).to_string();
    Ok(format!("fivefold.{}/log", hash.get(..8).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fivefold_keep::ca::Authority;

    #[test]
    fn a_key_is_made_once_and_keeps_its_name_when_the_ca_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let (first, second) = (Authority::create("a").unwrap().0, Authority::create("b").unwrap().0);
        let key = open_or_make(folder.path(), &vault, first.certificate()).unwrap();
        assert_eq!(key.vkey().name(), origin(first.certificate()).unwrap());
        assert_ne!(origin(first.certificate()).unwrap(), origin(second.certificate()).unwrap());
        let again = open_or_make(folder.path(), &vault, second.certificate()).unwrap();
        assert_eq!(again.vkey(), key.vkey());
        assert_eq!(vkey(folder.path()).unwrap(), *key.vkey());
        // The public file is no authority: it is written again from the sealed one.
        std::fs::write(folder.path().join(LOG_VKEY_FILE), "x").unwrap();
        open_or_make(folder.path(), &vault, second.certificate()).unwrap();
        assert_eq!(vkey(folder.path()).unwrap(), *key.vkey());
        let sealed = std::fs::read(folder.path().join(LOG_KEY_FILE)).unwrap();
        assert!(!sealed.windows(8).any(|w| w == &key.vkey().name().as_bytes()[..8]));
    }
}
