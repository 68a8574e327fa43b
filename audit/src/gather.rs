//! Facts from files: the operator's book and vault, shares, config files.
//!
//! Every file is somebody's mistake, or an attacker's: no more of it is read than a config can be long, links are not
//! followed where a folder is searched, and what cannot be read is said, never passed over.

mod book;
mod certificates;
mod folder;
mod foreign;
pub mod live;
mod node;
mod read;
mod running;
mod shares;

use std::path::Path;

use fivefold_keep::registry::{REGISTRY_FILE, Registry};
use fivefold_keep::share::{CLOUD_FILE, GATEWAY_FILE};
use fivefold_keep::vault::Vault;

use crate::facts::Facts;

pub use book::{book, secrets};
pub use foreign::{beside, told};
pub use node::node;
pub use read::text;
pub use running::running;

/// Whether the vault is opened.
#[derive(Clone, Copy, Debug)]
pub enum Secrets<'a> {
    /// It is; its passphrase may lie elsewhere than it says.
    Open(Option<&'a Path>),
    /// It stays closed: rules about keys are not looked at.
    Sealed,
}

/// Looks at a folder: an operator's, or a gateway's. What cannot be read is in [`Facts::unread`].
pub fn deployment(folder: &Path, secrets: Secrets<'_>, facts: &mut Facts) {
    let registry = folder.join(REGISTRY_FILE);
    if registry.is_file() {
        if let Err(wrong) = operator(folder, &registry, secrets, facts) {
            facts.unread.push(wrong);
        }
    } else if folder.join(GATEWAY_FILE).exists() {
        shares::gateway_alone(folder, facts);
    } else {
        facts.unread.push(format!(
            "{} is no operator's folder and no gateway's: it has neither {REGISTRY_FILE} nor {GATEWAY_FILE}",
            folder.display()
        ));
        return;
    }
    folder::search(folder, facts);
}

/// Looks at a cloud's config, and where the key comes from that opens its vault; nothing is searched.
pub fn cloud(folder: &Path, vault: &Path, facts: &mut Facts) {
    shares::cloud(folder, &folder.join(CLOUD_FILE), facts);
    shares::vault(crate::rule::Subject::cloud(), vault, facts);
}

/// Searches a folder for secrets that lie open, and for certificates.
pub fn search(folder: &Path, facts: &mut Facts) {
    folder::search(folder, facts);
}

/// Looks at a gateway's folder as it needs it to start; nothing is searched.
pub fn gateway(folder: &Path, facts: &mut Facts) {
    shares::gateway_alone(folder, facts);
}

fn operator(folder: &Path, path: &Path, secrets: Secrets<'_>, facts: &mut Facts) -> Result<(), String> {
    let registry = Registry::open_read_only(path).map_err(|e| e.to_string())?;
    book(&registry, facts).map_err(|e| e.to_string())?;
    shares::cloud(&folder.join("cloud"), &folder.join("cloud").join(CLOUD_FILE), facts);
    shares::vault(crate::rule::Subject::deployment(), folder, facts);
    shares::gateways(folder, facts);
    shares::nodes(folder, facts);
    if let Secrets::Open(passphrase) = secrets {
        let vault = Vault::open_folder_with(folder, passphrase);
        let vault = vault.map_err(|e| format!("{e}; to go on without it: --without-secrets"))?;
        book::secrets(&registry, &vault, facts).map_err(|e| e.to_string())?;
    }
    Ok(())
}
