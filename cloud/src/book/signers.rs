//! Signing keys of devices, as the registry has them: what batches are checked with, and what the log says of them.

use std::collections::HashMap;

use fivefold_core::id::Did;
use fivefold_core::proof::KeyName;
use fivefold_keep::registry::Signer;
use fivefold_keep::sign::VerifyingKey;

/// A signing key, ready to check signatures.
#[derive(Clone, Debug)]
pub struct KnownSigner {
    /// As registered: whose it is, its certificate, where it was made, and when it was revoked.
    pub registered: Signer,
    /// Checks its signatures.
    pub key: VerifyingKey,
}

/// All signing keys of one version of the registry, revoked ones too: batches that were signed before are checked with them.
#[derive(Clone, Debug, Default)]
pub struct Signers {
    /// By device, the oldest first.
    all: Vec<KnownSigner>,
    by_name: HashMap<KeyName, usize>,
}

impl Signers {
    pub(super) fn of(signers: Vec<Signer>) -> Self {
        let mut known = Self::default();
        for registered in signers {
            match VerifyingKey::of_device(&registered.spki) {
                Ok(key) => {
                    known.by_name.insert(registered.name(), known.all.len());
                    known.all.push(KnownSigner { registered, key });
                }
                Err(error) => tracing::error!(did = %registered.did, %error, "a signing key is unusable"),
            }
        }
        known
    }

    /// The key that a COSE header names, whosever it is and whether it is revoked or not.
    pub fn named(&self, name: KeyName) -> Option<&KnownSigner> {
        self.by_name.get(&name).and_then(|at| self.all.get(*at))
    }

    /// The keys of a device, the oldest first.
    pub fn of_device(&self, did: Did) -> &[KnownSigner] {
        let from = self.all.partition_point(|s| s.registered.did < did);
        let rest = self.all.get(from..).unwrap_or_default();
        rest.get(..rest.partition_point(|s| s.registered.did == did)).unwrap_or_default()
    }

    /// The key of a device that is in force.
    pub fn in_force(&self, did: Did) -> Option<&KnownSigner> {
        self.of_device(did).iter().find(|s| s.registered.revoked_at.is_none())
    }

    /// All keys, by device, the oldest first.
    pub fn all(&self) -> &[KnownSigner] {
        &self.all
    }

    /// Keys that are revoked, and when in Unix seconds.
    pub(super) fn revoked(&self) -> impl Iterator<Item = (KeyName, u64)> + '_ {
        self.all.iter().filter_map(|s| Some((s.registered.name(), s.registered.revoked_at?)))
    }
}

#[cfg(test)]
mod tests {
    use fivefold_keep::registry::KeyOrigin;
    use fivefold_keep::sign::SigningKey;

    use super::*;

    fn signer(did: u8, certified_at: u64, revoked_at: Option<u64>) -> Signer {
        let spki = SigningKey::generate().unwrap().0.spki().to_vec();
        let (did, origin, chain) = (Did([did; 8]), KeyOrigin::Device, String::new());
        Signer { did, spki, origin, chain, not_after: 9, certified_at, revoked_at }
    }

    #[test]
    fn a_key_is_found_by_its_name_and_by_its_device_revoked_or_not() {
        let unusable = Signer { spki: vec![0; 91], ..signer(2, 3, None) };
        let all = vec![signer(1, 1, None), signer(2, 1, Some(7)), signer(2, 2, None), unusable, signer(3, 1, Some(5))];
        let signers = Signers::of(all.clone());
        assert_eq!(signers.all().len(), 4);
        for one in all.iter().filter(|s| s.spki[0] != 0) {
            assert_eq!(&signers.named(one.name()).unwrap().registered, one);
        }
        assert_eq!(signers.of_device(Did([2; 8])).len(), 2);
        assert_eq!(signers.in_force(Did([2; 8])).unwrap().registered, all[2]);
        assert!(signers.in_force(Did([3; 8])).is_none() && signers.of_device(Did([4; 8])).is_empty());
        let revoked: Vec<_> = signers.revoked().collect();
        assert_eq!(revoked.len(), 2);
        assert!(revoked.contains(&(all[1].name(), 7)) && revoked.contains(&(all[4].name(), 5)));
    }
}
