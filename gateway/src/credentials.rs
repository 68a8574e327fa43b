//! What the gateway shows to the cloud and signs with, as it is now: replaced together, without a stop.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use fivefold_keep::share::ShareError;
use fivefold_keep::sign::SigningKey;
use fivefold_keep::successor::Journal;
use fivefold_keep::tls::{Identity, LiveIdentity};
use fivefold_keep::vault::Vault;

use crate::config::{Config, ConfigError};

/// Certificate, its key, and the key for receipts.
#[derive(Debug)]
pub struct Credentials {
    identity: LiveIdentity,
    signing: ArcSwap<SigningKey>,
    // Whoever reads or replaces the two files that these come from.
    files: Mutex<()>,
}

impl Credentials {
    /// Starts with these.
    pub fn new(identity: Identity, signing: SigningKey) -> Self {
        Self { identity: LiveIdentity::new(identity), signing: ArcSwap::from_pointee(signing), files: Mutex::new(()) }
    }

    /// Certificate and key of new connections.
    pub const fn identity(&self) -> &LiveIdentity {
        &self.identity
    }

    /// The key for receipts.
    pub fn signing(&self) -> Arc<SigningKey> {
        self.signing.load_full()
    }

    /// Takes what stands in the folder now. Whether it is another pair than before.
    ///
    /// # Errors
    /// What is there cannot be used: then nothing changes.
    pub fn reload(&self, config: &Config, vault: &Vault) -> Result<bool, ConfigError> {
        let _files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        self.take(config, vault)
    }

    /// Puts the pair that the cloud took in the place of the one in use.
    ///
    /// # Errors
    /// A file cannot be written or read; it is done again at the next start.
    pub fn settle(&self, config: &Config, vault: &Vault) -> Result<(), ConfigError> {
        let _files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        Journal::of_renewal(&config.folder, vault).settle()?;
        self.take(config, vault).map(drop)
    }

    fn take(&self, config: &Config, vault: &Vault) -> Result<bool, ConfigError> {
        let (identity, secrets) = config.identity(vault)?;
        let signing = config.signing(&secrets)?;
        let is_another = identity.serial() != self.identity.current().serial();
        self.signing.store(Arc::new(signing));
        self.identity.replace(identity);
        Ok(is_another)
    }
}

/// Finishes what a crash left half done: a pair that the cloud took is the one in use. To be called before the folder's
/// secrets are read.
///
/// # Errors
/// A file cannot be read or written.
pub fn recover(folder: &std::path::Path, vault: &Vault) -> Result<(), ShareError> {
    Journal::of_enrolment(folder, vault).settle()?;
    Journal::of_renewal(folder, vault).settle()?;
    Ok(())
}
