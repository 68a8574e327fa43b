//! Every secret of a deployment, collected by who may open it: to look for them where they must not be.

use std::fs;
use std::num::NonZeroU32;
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fivefold::attack::database::forms;
use fivefold_cloud::context::ContextSecrets;
use fivefold_core::e2_gateway::E2Root;
use fivefold_core::id::{Did, Epoch, Sid};
use fivefold_keep::registry::Registry;
use fivefold_keep::share::{GatewaySecrets, NodeShare, SIGNING_KEY_FILE};
use fivefold_keep::vault::Vault;

use super::Farm;

/// A secret and what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// All of them, as long as passphrase files open the vaults.
pub fn of(farm: &Farm) -> Vec<Secret> {
    let mut all = Vec::new();
    let dir = farm.folder.path().join("farm");
    let mut add = |name: String, bytes: &[u8]| all.push(Secret { name, bytes: bytes.to_vec() });
    vault_keys(&dir, &mut add);
    let vault = Vault::open_folder(&dir).unwrap();
    for file in ["ca-key.sealed", "cloud/key.sealed", "cloud/issuer-key.sealed"] {
        private_key(file, &vault.open_file(&dir.join(file)).unwrap(), &mut add);
    }
    let log_key = vault.open_file(&dir.join("cloud/log-key.sealed")).unwrap();
    add("seed of the log's key".into(), &log_key[..32]);
    let book = Registry::open_read_only(&dir.join("registry.db")).unwrap();
    for network in book.networks().unwrap() {
        for key in book.network_keys(&vault, network.net).unwrap() {
            add(format!("network key {} of {}", key.index, network.name), key.key.as_slice());
        }
    }
    for device in book.devices().unwrap() {
        let secrets = book.secrets(&vault, &device).unwrap();
        let did = device.did;
        add(format!("MS3 of {did}"), &secrets.ms3);
        add(format!("K_e2root of {did}"), secrets.e2_root.as_slice());
        add(format!("K_blind of {did}"), secrets.blind.as_slice());
        add(format!("root_psk of {did}"), secrets.root_psk.as_slice());
        let group = book.networks().unwrap().iter().find(|n| n.net == device.net).unwrap().group;
        add(format!("MS2 of {did}"), E2Root::new(*secrets.e2_root).secret(group).danger_master_secret());
    }
    let rows = |file: &str, sql: &str| -> Vec<(Vec<u8>, i64, Vec<u8>)> {
        let Ok(db) = rusqlite::Connection::open(dir.join(file)) else { return Vec::new() };
        let Ok(mut query) = db.prepare(sql) else { return Vec::new() };
        let rows = query.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)));
        rows.unwrap().map(Result::unwrap).collect()
    };
    for (_, kid, sealed) in rows("registry.db", "SELECT x'', kid, sealed FROM cloud_keys") {
        add("the cloud's key for EDHOC".into(), &vault.open(&format!("cloud key {kid:02x}"), &sealed).unwrap());
    }
    for (did, epoch, sealed) in
        rows("cloud/readings.db", "SELECT did, epoch, sealed FROM context WHERE sealed IS NOT NULL")
    {
        let (did, epoch) = (Did(did.try_into().unwrap()), Epoch(epoch as u16));
        let context = ContextSecrets::open(&vault, did, epoch, &sealed).unwrap();
        let of = |what: &str| format!("{what} of {did} in the cloud's store, epoch {epoch}");
        context.e3.iter().for_each(|s| add(of("MS3"), s.danger_master_secret()));
        context.e2_root.iter().for_each(|s| add(of("K_e2root"), s.danger_bytes()));
        context.blind.iter().for_each(|s| add(of("K_blind"), s.danger_bytes()));
    }
    for folder in folders(&dir.join("gateways")) {
        vault_keys(&folder, &mut add);
        let secrets = GatewaySecrets::read(&Vault::open_folder(&folder).unwrap(), &folder).unwrap();
        private_key("TLS key of a gateway", &secrets.tls_key, &mut add);
        private_key("signing key of a gateway", &secrets.signing_key, &mut add);
        of_site(&folder, &mut add);
    }
    for folder in folders(&dir.join("nodes")) {
        vault_keys(&folder, &mut add);
        let share = NodeShare::read(&folder).unwrap();
        add("root_psk in a node's share".into(), share.secrets.root_psk.as_slice());
        share.secrets.dh_key.iter().for_each(|key| add("DH key of a node".into(), key.as_slice()));
        let signing = folder.join(SIGNING_KEY_FILE);
        if signing.exists() {
            let key = Vault::open_folder(&folder).unwrap().open_file(&signing).unwrap();
            private_key("signing key of a node", &key, &mut add);
        }
    }
    all.sort();
    all.dedup();
    all
}

/// What a gateway without a cloud has beside: its own key, and what it agreed.
fn of_site(folder: &Path, add: &mut impl FnMut(String, &[u8])) {
    let vault = Vault::open_folder(folder).unwrap();
    let key = folder.join("local-key.sealed");
    if !key.exists() {
        return;
    }
    add("DH key of a gateway".into(), &vault.open_file(&key).unwrap());
    let Ok(db) = rusqlite::Connection::open(folder.join("store.db")) else { return };
    let Ok(mut query) = db.prepare("SELECT sid, epoch, sealed FROM agreed") else { return };
    let rows = query.query_map([], |r| Ok((Sid(r.get(0)?), Epoch(r.get(1)?), r.get::<_, Vec<u8>>(2)?)));
    for (sid, epoch, sealed) in rows.unwrap().map(Result::unwrap) {
        let agreed = vault.open(&format!("gateway agreed context {sid} {epoch}"), &sealed).unwrap();
        // x, SHA-256 of message_3, K_blind, message_4 behind its length, salt, secret.
        let m4 = usize::from(agreed[96]);
        add(format!("K_blind of {sid} at its gateway"), &agreed[64..96]);
        add(format!("secret of C2 local of {sid}"), &agreed[97 + m4 + 8..]);
    }
}

fn folders(dir: &Path) -> Vec<std::path::PathBuf> {
    fs::read_dir(dir).map(|d| d.map(|e| e.unwrap().path()).collect()).unwrap_or_default()
}

/// Passphrase, wrapping key and data key of a vault, by what is written in docs/protocol.md 3 alone.
fn vault_keys(dir: &Path, add: &mut impl FnMut(String, &[u8])) {
    let form: toml::Table = toml::from_str(&fs::read_to_string(dir.join("vault.toml")).unwrap()).unwrap();
    let (source, key) = (&form["source"], &form["key"]);
    let passphrase = fs::read_to_string(dir.join(source["path"].as_str().unwrap())).unwrap();
    let passphrase = passphrase.trim_end();
    let of = |what: &str| format!("{what} of {}", dir.display());
    add(of("passphrase"), passphrase.as_bytes());
    if let Ok(random) = STANDARD.decode(passphrase) {
        add(of("bytes of the passphrase"), &random);
    }
    let mut wrapping = [0; 32];
    let rounds = NonZeroU32::new(source["rounds"].as_integer().unwrap() as u32).unwrap();
    let salt = STANDARD.decode(source["salt"].as_str().unwrap()).unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, passphrase.as_bytes(), &mut wrapping);
    add(of("wrapping key"), &wrapping);
    let mut wrapped = STANDARD.decode(key["wrapped"].as_str().unwrap()).unwrap();
    let id = hex::decode(key["id"].as_str().unwrap()).unwrap();
    let (nonce, sealed) = wrapped.split_at_mut(12);
    let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
    let binding = [b"fivefold data key ".as_slice(), &id].concat();
    let aes = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &wrapping).unwrap());
    add(of("data key"), aes.open_in_place(nonce, Aad::from(binding), sealed).unwrap());
}

/// A PKCS #8 of a P-256 key, and the scalar in it (RFC 5915: version 1, then an octet string of 32).
fn private_key(name: &str, pkcs8: &[u8], add: &mut impl FnMut(String, &[u8])) {
    add(name.to_owned(), pkcs8);
    let at = pkcs8.windows(5).position(|w| w == [2, 1, 1, 4, 32]).unwrap() + 5;
    add(format!("scalar of {name}"), &pkcs8[at..at + 32]);
}

/// A search for secrets in whatever form.
pub struct Search(Vec<(String, memchr::memmem::Finder<'static>)>);

impl Search {
    pub fn new(secrets: &[Secret]) -> Self {
        let finders = secrets.iter().flat_map(|s| {
            forms(&s.bytes).into_iter().map(|f| (s.name.clone(), memchr::memmem::Finder::new(&f).into_owned()))
        });
        Self(finders.collect())
    }

    /// Names of what stands in `text`.
    pub fn found(&self, text: &[u8]) -> Vec<&str> {
        let mut found: Vec<&str> =
            self.0.iter().filter(|(_, f)| f.find(text).is_some()).map(|(name, _)| name.as_str()).collect();
        found.dedup();
        found
    }
}
