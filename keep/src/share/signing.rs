//! The signing key of a software node: made in its folder, sealed under its vault, and never anywhere else
//! (docs/protocol.md 13.1).

use std::path::Path;

use super::{ShareError, malformed};
use crate::device_key::{DeviceAlg, DeviceSigningKey};
use crate::vault::Vault;

/// File of a node's signing key in its folder: PKCS #8, sealed.
pub const SIGNING_KEY_FILE: &str = "signing-key.sealed";

/// The signing key of the node in `folder`; `None` if it never made one.
///
/// # Errors
/// [`ShareError::Vault`] when it does not open; [`ShareError::Config`] when it is no key.
pub fn signing_key(vault: &Vault, folder: &Path) -> Result<Option<DeviceSigningKey>, ShareError> {
    let path = folder.join(SIGNING_KEY_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let pkcs8 = vault.open_file(&path)?;
    DeviceSigningKey::from_pkcs8(&pkcs8).map(Some).map_err(|e| malformed(&path, e.to_string()))
}

/// The vault that a share is written under in `folder`: that of the signing key, where there is one, for no other opens it; else a
/// new one.
///
/// # Errors
/// The signing key does not open: nothing was changed, and it is not lost by what this was asked for.
pub fn vault_of_share(folder: &Path) -> Result<Vault, ShareError> {
    if !folder.join(SIGNING_KEY_FILE).exists() {
        return Ok(Vault::create(folder)?);
    }
    let vault = Vault::open_folder(folder)?;
    signing_key(&vault, folder)?;
    Ok(vault)
}

/// Makes a signing key in `folder`, in the place of one that is there. It is durable before it is given out.
///
/// # Errors
/// No randomness, or the file cannot be written.
pub fn make_signing_key(vault: &Vault, folder: &Path, alg: DeviceAlg) -> Result<DeviceSigningKey, ShareError> {
    let path = folder.join(SIGNING_KEY_FILE);
    let (key, pkcs8) = DeviceSigningKey::generate(alg).map_err(|e| malformed(&path, e.to_string()))?;
    vault.seal_file(&path, &pkcs8)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signing_key_is_made_once_and_stands_nowhere_in_the_clear() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        assert!(signing_key(&vault, folder.path()).unwrap().is_none());
        for alg in [DeviceAlg::P256, DeviceAlg::Ed25519] {
            let made = make_signing_key(&vault, folder.path(), alg).unwrap();
            let read = signing_key(&vault, folder.path()).unwrap().unwrap();
            assert_eq!((read.public(), read.kind()), (made.public(), alg));
            let pkcs8 = vault.open_file(&folder.path().join(SIGNING_KEY_FILE)).unwrap();
            let bytes = std::fs::read(folder.path().join(SIGNING_KEY_FILE)).unwrap();
            assert!(!bytes.windows(32).any(|w| pkcs8.windows(32).any(|k| k == w)));
        }
        let elsewhere = tempfile::tempdir().unwrap();
        let other = Vault::create(elsewhere.path()).unwrap();
        assert!(signing_key(&other, folder.path()).is_err(), "another node's vault");
        vault.seal_file(&folder.path().join(SIGNING_KEY_FILE), b"no key").unwrap();
        assert!(signing_key(&vault, folder.path()).unwrap_err().to_string().contains(SIGNING_KEY_FILE));
    }
}
