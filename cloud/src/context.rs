//! The secrets of one context at rest: MS3, salt3, K_e2root and K_blind under the operator's vault (docs/protocol.md 3, K3).

use fivefold_core::e2_gateway::E2Root;
use fivefold_core::e3_cloud::E3Secret;
use fivefold_core::e5_renewal::CloudSecrets;
use fivefold_core::id::{Did, Epoch};
use fivefold_core::profile::Profile;
use fivefold_core::proof::statement::BlindKey;
use fivefold_keep::vault::{Vault, VaultError};
use zeroize::Zeroizing;

/// First byte of what is sealed. Rows of before have none: MS3 and salt3 alone, 24 or 40 bytes.
const LAYOUT: u8 = 2;
const SALT: usize = 8;

/// What the cloud keeps of one context. Wiped when dropped, never printed.
#[derive(Debug)]
pub struct ContextSecrets {
    /// MS3 and salt3, where E3 is declared.
    pub e3: Option<E3Secret>,
    /// K_e2root; rows of before have none.
    pub e2_root: Option<E2Root>,
    /// K_blind; rows of before have none.
    pub blind: Option<BlindKey>,
}

/// The name under which they are sealed.
pub(crate) fn name(did: Did, epoch: Epoch) -> String {
    format!("cloud context {did} {epoch}")
}

impl ContextSecrets {
    /// What a device of this profile has use for, of what EDHOC gave.
    pub fn agreed(secrets: CloudSecrets, profile: Profile) -> Self {
        let CloudSecrets { e3, e2_root, blind } = secrets;
        Self { e3: profile.has_e3().then_some(e3), e2_root: profile.has_e2().then_some(e2_root), blind: Some(blind) }
    }

    /// Seals them.
    ///
    /// # Errors
    /// [`VaultError::Random`].
    pub fn seal(&self, vault: &Vault, did: Did, epoch: Epoch) -> Result<Vec<u8>, VaultError> {
        vault.seal(&name(did, epoch), &self.to_bytes())
    }

    /// Opens what [`Self::seal`] sealed under the same names.
    ///
    /// # Errors
    /// [`VaultError::Damaged`].
    pub fn open(vault: &Vault, did: Did, epoch: Epoch, sealed: &[u8]) -> Result<Self, VaultError> {
        let name = name(did, epoch);
        let bytes = vault.open(&name, sealed)?;
        Self::from_bytes(&bytes).ok_or(VaultError::Damaged { name })
    }

    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(2 + 32 + SALT + 2 * 33));
        out.push(LAYOUT);
        let mut put = |part: &[u8]| {
            out.push(part.len() as u8);
            out.extend_from_slice(part);
        };
        put(self.e3.as_ref().map_or(&[], E3Secret::danger_master_secret));
        put(self.e3.as_ref().map_or(&[], E3Secret::master_salt));
        put(self.e2_root.as_ref().map_or(&[], |r| r.danger_bytes()));
        put(self.blind.as_ref().map_or(&[], |b| b.danger_bytes()));
        out
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if matches!(bytes.len(), 24 | 40) {
            let (ms3, salt3) = bytes.split_last_chunk::<SALT>()?;
            return Some(Self { e3: Some(E3Secret::new(ms3, salt3)?), e2_root: None, blind: None });
        }
        let mut rest = bytes.strip_prefix(&[LAYOUT])?;
        let mut take = || {
            let (len, after) = rest.split_first()?;
            let (part, after) = after.split_at_checked(usize::from(*len))?;
            rest = after;
            Some(part)
        };
        let (ms3, salt3, e2_root, blind) = (take()?, take()?, take()?, take()?);
        let key = |part: &[u8]| -> Option<Option<[u8; 32]>> {
            if part.is_empty() { Some(None) } else { Some(Some(part.try_into().ok()?)) }
        };
        let e3 = if ms3.is_empty() { None } else { Some(E3Secret::new(ms3, salt3)?) };
        let this = Self { e3, e2_root: key(e2_root)?.map(E2Root::new), blind: key(blind)?.map(BlindKey::new) };
        rest.is_empty().then_some(this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> ContextSecrets {
        ContextSecrets {
            e3: E3Secret::new(&[1; 32], &[2; 8]),
            e2_root: Some(E2Root::new([3; 32])),
            blind: Some(BlindKey::new([4; 32])),
        }
    }

    #[test]
    fn what_was_sealed_for_one_context_opens_as_that_one_only() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let (did, epoch) = (Did([7; 8]), Epoch(6));
        let sealed = whole().seal(&vault, did, epoch).unwrap();
        for part in [[1; 32], [3; 32], [4; 32]] {
            assert!(!sealed.windows(32).any(|w| w == part));
        }
        let opened = ContextSecrets::open(&vault, did, epoch, &sealed).unwrap();
        assert_eq!(opened.to_bytes(), whole().to_bytes());
        assert!(ContextSecrets::open(&vault, did, Epoch(7), &sealed).is_err());
        assert!(ContextSecrets::open(&vault, Did([8; 8]), epoch, &sealed).is_err());
        // As version 0.1 sealed them.
        let before = vault.seal(&name(did, epoch), &[[9; 16].as_slice(), &[5; 8]].concat()).unwrap();
        let opened = ContextSecrets::open(&vault, did, epoch, &before).unwrap();
        assert_eq!(opened.e3.unwrap().danger_master_secret(), [9; 16]);
        assert!(opened.e2_root.is_none() && opened.blind.is_none());
    }

    #[test]
    fn a_device_without_e3_has_no_secret_of_it_at_rest() {
        let secrets = ContextSecrets { e3: None, ..whole() };
        let bytes = secrets.to_bytes();
        assert!(ContextSecrets::from_bytes(&bytes).unwrap().e3.is_none());
        // Of the lengths of before, nothing but the vault's tag tells them apart.
        for cut in (0..bytes.len()).filter(|cut| !matches!(cut, 24 | 40)) {
            assert!(ContextSecrets::from_bytes(&bytes[..cut]).is_none(), "cut at {cut}");
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(ContextSecrets::from_bytes(&longer).is_none());
    }
}
