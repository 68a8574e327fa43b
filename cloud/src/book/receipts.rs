//! Gateways' keys for receipts, as the registry has them: with which certificate a receipt is shown to strangers.

use std::collections::BTreeMap;

use fivefold_core::proof::KeyName;
use fivefold_keep::registry::ReceiptSigner;

/// All keys for receipts that have a certificate, revoked ones too: their receipts of before are shown with them.
#[derive(Clone, Debug, Default)]
pub struct ReceiptSigners(BTreeMap<KeyName, ReceiptSigner>);

impl ReceiptSigners {
    pub(super) fn of(signers: Vec<ReceiptSigner>) -> Self {
        Self(signers.into_iter().map(|signer| (signer.name(), signer)).collect())
    }

    /// The key that a COSE header names.
    pub fn named(&self, name: KeyName) -> Option<&ReceiptSigner> {
        self.0.get(&name)
    }

    /// Keys that are revoked, and when in Unix seconds, by name.
    pub(super) fn revoked(&self) -> impl Iterator<Item = (KeyName, u64)> + '_ {
        self.0.iter().filter_map(|(name, signer)| Some((*name, signer.revoked_at?)))
    }
}
