//! The signing key of a software node: made in its folder, sealed under its vault, and never anywhere else
//! (docs/protocol.md 13.1).

use std::path::Path;

use fivefold_core::proof::possession::SigningPoint;

use super::{ShareError, malformed};
use crate::sign::SigningKey;
use crate::vault::Vault;

/// File of a node's signing key in its folder: PKCS #8, sealed.
pub const SIGNING_KEY_FILE: &str = "signing-key.sealed";

/// The signing key of the node in `folder`; `None` if it never made one.
///
/// # Errors
/// [`ShareError::Vault`] when it does not open; [`ShareError::Config`] when it is no key.
pub fn signing_key(vault: &Vault, folder: &Path) -> Result<Option<SigningKey>, ShareError> {
    let path = folder.join(SIGNING_KEY_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let pkcs8 = vault.open_file(&path)?;
    SigningKey::from_pkcs8(&pkcs8).map(Some).map_err(|e| malformed(&path, e.to_string()))
}

/// Makes a signing key in `folder`, in the place of one that is there. It is durable before it is given out.
///
/// # Errors
/// No randomness, or the file cannot be written.
pub fn make_signing_key(vault: &Vault, folder: &Path) -> Result<SigningKey, ShareError> {
    let path = folder.join(SIGNING_KEY_FILE);
    let (key, pkcs8) = SigningKey::generate().map_err(|e| malformed(&path, e.to_string()))?;
    vault.seal_file(&path, &pkcs8)?;
    Ok(key)
}

/// The public half of a signing key, as requests carry it.
pub fn signing_point(key: &SigningKey) -> SigningPoint {
    // A key of this type is always an uncompressed point of P-256.
    SigningPoint::from_spki(key.spki()).unwrap_or(SigningPoint([0; SigningPoint::SIZE]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signing_key_is_made_once_and_stands_nowhere_in_the_clear() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        assert!(signing_key(&vault, folder.path()).unwrap().is_none());
        let made = make_signing_key(&vault, folder.path()).unwrap();
        let read = signing_key(&vault, folder.path()).unwrap().unwrap();
        assert_eq!((read.spki(), signing_point(&read)), (made.spki(), signing_point(&made)));
        let pkcs8 = vault.open_file(&folder.path().join(SIGNING_KEY_FILE)).unwrap();
        let bytes = std::fs::read(folder.path().join(SIGNING_KEY_FILE)).unwrap();
        assert!(!bytes.windows(32).any(|w| pkcs8.windows(32).any(|k| k == w)));
        let elsewhere = tempfile::tempdir().unwrap();
        let other = Vault::create(elsewhere.path()).unwrap();
        assert!(signing_key(&other, folder.path()).is_err(), "another node's vault");
        vault.seal_file(&folder.path().join(SIGNING_KEY_FILE), b"no key").unwrap();
        assert!(signing_key(&vault, folder.path()).unwrap_err().to_string().contains(SIGNING_KEY_FILE));
    }
}
