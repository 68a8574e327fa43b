//! Secrets at rest: wrapped with AES-256-GCM under a key that comes from a passphrase file (docs/protocol.md 3, K3).
//!
//! A vault is a small public file, `vault.toml`, with the salt and the work factor, beside a passphrase file that only its
//! owner reads. Whoever has a copy of everything but the passphrase file opens nothing.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::files::{self, FileError, Readers};

/// Rounds of PBKDF2-HMAC-SHA256 for a new vault (OWASP's figure of 2023).
const ROUNDS: u32 = 600_000;
const MAX_ROUNDS: u32 = 100_000_000;
const KEY: usize = 32;
const SALT: usize = 16;
/// What is sealed to tell a wrong passphrase from a damaged secret.
const CHECK: (&str, &[u8]) = ("vault check", b"this passphrase opens this vault");
/// First bytes of everything sealed.
const MAGIC: &[u8; 4] = b"FVS1";

/// File name of the public part of a vault, in the folder it serves.
pub const VAULT_FILE: &str = "vault.toml";
/// File name of the passphrase that is drawn when the operator brings none.
pub const PASSPHRASE_FILE: &str = "passphrase";

/// Why a vault or a secret in it did not open.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A sealed record was changed, cut, or belongs under another name.
    #[error("the sealed record `{name}` is damaged or not what its place says; restore it from a backup")]
    Damaged {
        /// Its name.
        name: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// `vault.toml` is not of its form.
    #[error("{path} is no vault: {reason}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No randomness, or a primitive failed.
    #[error("the system gives no randomness")]
    Random,
    /// The passphrase is not this vault's.
    #[error("the passphrase in {passphrase} does not open {vault}; is it the file of another deployment?", passphrase = passphrase.display(), vault = vault.display())]
    WrongPassphrase {
        /// The passphrase file.
        passphrase: PathBuf,
        /// The vault file.
        vault: PathBuf,
    },
}

/// `vault.toml`, as it stands on disk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    kdf: String,
    rounds: u32,
    salt: String,
    check: String,
}

const KDF: &str = "pbkdf2-hmac-sha256";

/// An open vault: seals and opens named records. Its key is in memory only.
pub struct Vault {
    key: LessSafeKey,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(..)")
    }
}

impl Vault {
    /// Makes a vault in `folder`: draws a passphrase into `folder/passphrase` (mode 600), and writes `folder/vault.toml`.
    ///
    /// # Errors
    /// The files cannot be written, or there is no randomness.
    pub fn create(folder: &Path) -> Result<Self, VaultError> {
        let random = random::<32>()?;
        let passphrase = Zeroizing::new(STANDARD.encode(random.as_slice()) + "\n");
        files::write(&folder.join(PASSPHRASE_FILE), Readers::Owner, passphrase.as_bytes())?;
        Self::create_under(folder, &folder.join(PASSPHRASE_FILE))
    }

    /// Makes a vault in `folder` under a passphrase file that is there already.
    ///
    /// # Errors
    /// The passphrase file cannot be read or is readable by others; `vault.toml` cannot be written.
    pub fn create_under(folder: &Path, passphrase_file: &Path) -> Result<Self, VaultError> {
        let path = folder.join(VAULT_FILE);
        let passphrase = passphrase_of(passphrase_file)?;
        let salt = random::<SALT>()?;
        let vault = Self { key: derive(&path, &passphrase, salt.as_slice(), ROUNDS)? };
        let check = vault.seal(CHECK.0, CHECK.1)?;
        let form = Form {
            kdf: KDF.into(),
            rounds: ROUNDS,
            salt: STANDARD.encode(salt.as_slice()),
            check: STANDARD.encode(check),
        };
        let text = toml::to_string(&form).map_err(|e| bad(&path, &e.to_string()))?;
        files::write(&path, Readers::Everybody, text.as_bytes())?;
        Ok(vault)
    }

    /// Opens the vault of `folder` with the passphrase in `passphrase_file`. Takes some tenths of a second: the work factor.
    ///
    /// # Errors
    /// [`VaultError::WrongPassphrase`], [`VaultError::Format`], [`VaultError::File`].
    pub fn open_folder(folder: &Path, passphrase_file: &Path) -> Result<Self, VaultError> {
        let path = folder.join(VAULT_FILE);
        let form: Form = toml::from_str(&files::read_text(&path)?).map_err(|e| bad(&path, e.message()))?;
        if form.kdf != KDF || form.rounds == 0 || form.rounds > MAX_ROUNDS {
            return Err(bad(&path, "its key derivation is not known here"));
        }
        let salt = STANDARD.decode(&form.salt).map_err(|_| bad(&path, "the salt is no base64"))?;
        let check = STANDARD.decode(&form.check).map_err(|_| bad(&path, "the check is no base64"))?;
        let passphrase = passphrase_of(passphrase_file)?;
        let vault = Self { key: derive(&path, &passphrase, &salt, form.rounds)? };
        match vault.open(CHECK.0, &check) {
            Ok(text) if text.as_slice() == CHECK.1 => Ok(vault),
            _ => Err(VaultError::WrongPassphrase { passphrase: passphrase_file.to_owned(), vault: path }),
        }
    }

    /// Seals `secret` under `name`; it opens under that name only.
    ///
    /// # Errors
    /// [`VaultError::Random`].
    pub fn seal(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, VaultError> {
        let nonce = random::<NONCE_LEN>()?;
        let mut body = secret.to_vec();
        let aad = Aad::from(name.as_bytes());
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(*nonce), aad, &mut body)
            .map_err(|_| VaultError::Random)?;
        let mut out = Vec::with_capacity(MAGIC.len() + NONCE_LEN + body.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(nonce.as_slice());
        out.append(&mut body);
        Ok(out)
    }

    /// Opens what was sealed under `name`.
    ///
    /// # Errors
    /// [`VaultError::Damaged`].
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let damaged = || VaultError::Damaged { name: name.to_owned() };
        let rest = sealed.strip_prefix(MAGIC).ok_or_else(damaged)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(damaged)?;
        let mut body = Zeroizing::new(body.to_vec());
        let len = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(name.as_bytes()), &mut body)
            .map_err(|_| damaged())?
            .len();
        body.truncate(len);
        Ok(body)
    }

    /// Seals `secret` into a file of mode 600, whose name in the vault is its file name.
    ///
    /// # Errors
    /// [`VaultError::Random`], [`VaultError::File`].
    pub fn seal_file(&self, path: &Path, secret: &[u8]) -> Result<(), VaultError> {
        Ok(files::write(path, Readers::Owner, &self.seal(&name_of(path), secret)?)?)
    }

    /// Opens a file of [`Vault::seal_file`].
    ///
    /// # Errors
    /// [`VaultError::Damaged`], [`VaultError::File`].
    pub fn open_file(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open(&name_of(path), &files::read_private(path)?)
    }
}

/// `N` bytes of the system's randomness, wiped when dropped.
///
/// # Errors
/// [`VaultError::Random`].
pub fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, VaultError> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|_| VaultError::Random)?;
    Ok(bytes)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn bad(path: &Path, reason: &str) -> VaultError {
    VaultError::Format { path: path.to_owned(), reason: reason.to_owned() }
}

fn passphrase_of(path: &Path) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let mut passphrase = files::read_private(path)?;
    while passphrase.last().is_some_and(u8::is_ascii_whitespace) {
        passphrase.pop();
    }
    if passphrase.len() < 12 {
        return Err(bad(path, "a passphrase needs at least 12 characters"));
    }
    Ok(passphrase)
}

fn derive(path: &Path, passphrase: &[u8], salt: &[u8], rounds: u32) -> Result<LessSafeKey, VaultError> {
    let rounds = NonZeroU32::new(rounds).ok_or_else(|| bad(path, "no rounds"))?;
    let mut key = Zeroizing::new([0u8; KEY]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, passphrase, key.as_mut_slice());
    let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| bad(path, "the key has a wrong size"))?;
    Ok(LessSafeKey::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_under_its_own_name_only_and_not_when_changed() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let sealed = vault.seal("a", b"secret").unwrap();
        assert_eq!(vault.open("a", &sealed).unwrap().as_slice(), b"secret");
        assert!(vault.open("b", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(vault.open("a", &changed).is_err(), "byte {at}");
            assert!(vault.open("a", &sealed[..at]).is_err(), "cut at {at}");
        }
        assert!(!sealed.windows(6).any(|w| w == b"secret"));
    }

    #[test]
    fn another_passphrase_is_told_apart_from_damage() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sealed = Vault::create(one.path()).unwrap().seal("a", b"x").unwrap();
        Vault::create(two.path()).unwrap();
        let wrong = Vault::open_folder(one.path(), &two.path().join(PASSPHRASE_FILE)).unwrap_err();
        assert!(matches!(wrong, VaultError::WrongPassphrase { .. }), "{wrong}");
        let right = Vault::open_folder(one.path(), &one.path().join(PASSPHRASE_FILE)).unwrap();
        assert_eq!(right.open("a", &sealed).unwrap().as_slice(), b"x");
    }

    #[test]
    fn a_short_or_exposed_passphrase_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        files::write(&path, Readers::Owner, b"short\n").unwrap();
        assert!(Vault::create_under(folder.path(), &path).unwrap_err().to_string().contains("12 characters"));
        files::write(&path, Readers::Everybody, b"long enough for a passphrase\n").unwrap();
        assert!(Vault::create_under(folder.path(), &path).unwrap_err().to_string().contains("chmod 600"));
    }
}
