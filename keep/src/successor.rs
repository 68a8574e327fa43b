//! A gateway's next keys and certificate, on their way to take the place of those in use (docs/protocol.md 10.1).
//!
//! One sealed file holds the whole of it, and each step replaces that file before the next step is taken: keys are durable
//! before a request for them goes out, and a certificate before it is used. The pair in use stays untouched until the new
//! one was taken by the cloud; then it is replaced, in two files, and done again at the next start if power went between.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::enrol::Keys;
use crate::files::{self, Readers};
use crate::share::{CERTIFICATE_FILE, GatewaySecrets, SECRETS_FILE, ShareError, field, malformed, take_field};
use crate::vault::Vault;

/// Where the next pair stands.
#[derive(Clone, Debug)]
pub enum Next {
    /// Keys, for which a certificate is being asked.
    Asked(Keys),
    /// Keys with their certificate (PEM), which the cloud has not taken yet.
    Issued(Keys, String),
    /// The cloud took them: they are to take the place of the pair in use.
    Proven(Keys, String),
}

/// The file that the next pair is kept in.
#[derive(Debug)]
pub struct Journal<'a> {
    folder: &'a Path,
    vault: &'a Vault,
    path: PathBuf,
}

impl<'a> Journal<'a> {
    /// Of the daemon's renewals.
    pub fn of_renewal(folder: &'a Path, vault: &'a Vault) -> Self {
        Self { folder, vault, path: folder.join("renewal.sealed") }
    }

    /// Of enrolment.
    pub fn of_enrolment(folder: &'a Path, vault: &'a Vault) -> Self {
        Self { folder, vault, path: folder.join("enrolment.sealed") }
    }

    /// Where the next pair stands; `None`: there is none.
    ///
    /// # Errors
    /// [`ShareError`] when the file is damaged.
    pub fn read(&self) -> Result<Option<Next>, ShareError> {
        if !self.path.exists() {
            return Ok(None);
        }
        let bytes = self.vault.open_file(&self.path)?;
        let parsed = bytes.split_first().and_then(|(phase, rest)| {
            let (tls, rest) = take_field(rest)?;
            let (receipts, rest) = take_field(rest)?;
            let (chain, rest) = take_field(rest)?;
            let owned = |b: &[u8]| Zeroizing::new(b.to_vec());
            let keys = Keys { tls: owned(tls), receipts: owned(receipts) };
            let chain = String::from_utf8(chain.to_vec()).ok()?;
            match (phase, rest.is_empty()) {
                (1, true) => Some(Next::Asked(keys)),
                (2, true) => Some(Next::Issued(keys, chain)),
                (3, true) => Some(Next::Proven(keys, chain)),
                _ => None,
            }
        });
        parsed.map(Some).ok_or_else(|| malformed(&self.path, "is no renewal of this version; remove it"))
    }

    /// Makes it durable where the next pair stands.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, next: &Next) -> Result<(), ShareError> {
        let (phase, keys, chain) = match next {
            Next::Asked(keys) => (1, keys, ""),
            Next::Issued(keys, chain) => (2, keys, chain.as_str()),
            Next::Proven(keys, chain) => (3, keys, chain.as_str()),
        };
        let mut out = Zeroizing::new(Vec::with_capacity(1024 + chain.len()));
        out.push(phase);
        field(&mut out, &keys.tls);
        field(&mut out, &keys.receipts);
        field(&mut out, chain.as_bytes());
        Ok(self.vault.seal_file(&self.path, &out)?)
    }

    /// Gives the next pair up.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn clear(&self) -> Result<(), ShareError> {
        Ok(files::remove(&self.path)?)
    }

    /// Puts a pair that the cloud took in the place of the one in use. Whether there was one. May be done again after a
    /// crash: each step leaves what the next start goes on from.
    ///
    /// # Errors
    /// A file cannot be read or written; then it is to be done again.
    pub fn settle(&self) -> Result<bool, ShareError> {
        let Some(Next::Proven(keys, chain)) = self.read()? else { return Ok(false) };
        let network_keys = match self.folder.join(SECRETS_FILE).exists() {
            true => GatewaySecrets::read(self.vault, self.folder)?.network_keys,
            false => Vec::new(),
        };
        let secrets = GatewaySecrets { tls_key: keys.tls, signing_key: keys.receipts, network_keys };
        secrets.write(self.vault, self.folder)?;
        files::write(&self.folder.join(CERTIFICATE_FILE), Readers::Everybody, chain.as_bytes())?;
        self.clear()?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_pair_is_read_as_it_was_written_and_takes_its_place_only_when_proven() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let journal = Journal::of_renewal(folder.path(), &vault);
        assert!(journal.read().unwrap().is_none());
        let keys = Keys::draw().unwrap();
        journal.write(&Next::Asked(keys.clone())).unwrap();
        assert!(matches!(journal.read().unwrap(), Some(Next::Asked(k)) if k.tls == keys.tls));
        assert!(!journal.settle().unwrap());
        journal.write(&Next::Issued(keys.clone(), "chain".into())).unwrap();
        assert!(!journal.settle().unwrap() && !folder.path().join(SECRETS_FILE).exists());
        let proven = Next::Proven(keys.clone(), "chain".into());
        journal.write(&proven).unwrap();
        assert!(journal.settle().unwrap());
        assert!(journal.read().unwrap().is_none());
        // Power went after either file: the next start does it again.
        journal.write(&proven).unwrap();
        std::fs::remove_file(folder.path().join(CERTIFICATE_FILE)).unwrap();
        assert!(journal.settle().unwrap());
        let secrets = GatewaySecrets::read(&vault, folder.path()).unwrap();
        assert_eq!((&secrets.tls_key, &secrets.signing_key), (&keys.tls, &keys.receipts));
        assert_eq!(files::read_text(&folder.path().join(CERTIFICATE_FILE)).unwrap(), "chain");
    }

    #[test]
    fn a_damaged_journal_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let journal = Journal::of_renewal(folder.path(), &vault);
        vault.seal_file(&folder.path().join("renewal.sealed"), &[9, 0]).unwrap();
        assert!(journal.read().unwrap_err().to_string().contains("renewal.sealed"));
    }
}
