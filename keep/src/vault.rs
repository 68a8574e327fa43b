//! Secrets at rest (docs/protocol.md 3, K3): records sealed with AES-256-GCM under a random data key, and the data key
//! wrapped under a key that comes from a [`Source`]: a passphrase file, a systemd credential, or a PKCS #11 token.
//!
//! `vault.toml` holds the wrapped data key and says where the key comes from that wraps it; it is no secret. Whoever has a
//! copy of everything but that source opens nothing. [`rewrap`] puts the same data key under another source, in one durable
//! write; [`Rekey`] draws another data key, and everything is sealed again under it.

mod envelope;
mod rekey;
mod source;
mod token;

use std::fs::File;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::files::{self, FileError, Readers};
use crate::format::Newer;
use envelope::Envelope;

pub use rekey::{Rekey, Resumed};
pub use source::{Pin, Source, SourceError, TokenKey, draw_passphrase};

/// First bytes of everything sealed.
const MAGIC: &[u8; 4] = b"FVS2";
/// First bytes of what was sealed before there was an envelope: no key id follows.
const MAGIC_BEFORE: &[u8; 4] = b"FVS1";
/// First bytes of everything sealed, in any format: a digit follows.
const FAMILY: &[u8; 3] = b"FVS";
/// The digit that is written.
const SEALED: i64 = 2;

/// File name of the public part of a vault, in the folder it serves.
pub const VAULT_FILE: &str = "vault.toml";
/// File name of the passphrase that is drawn when the operator brings none.
pub const PASSPHRASE_FILE: &str = "passphrase";

/// Why a vault or a secret in it did not open. Each is one sentence with the next step.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A daemon or another command works with it.
    #[error("{vault} is in use by a daemon or another command; stop that first, then type this again", vault = vault.display())]
    Busy {
        /// The vault file.
        vault: PathBuf,
    },
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
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The vault, or what was sealed, has a later format.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// A passphrase file was named for a vault that another source opens.
    #[error(
        "{vault} is opened by {source_name}, not by a passphrase file; leave --passphrase-file \
         (FIVEFOLD_PASSPHRASE_FILE, or passphrase_file in cloud.toml) out",
        vault = vault.display()
    )]
    NotByPassphrase {
        /// The vault file.
        vault: PathBuf,
        /// Where its key comes from.
        source_name: String,
    },
    /// A record was sealed under a data key that this vault does not have.
    #[error("the sealed record `{name}` is of another vault; bring back the vault.toml that it was sealed with")]
    OtherVault {
        /// Its name.
        name: String,
    },
    /// No randomness, or a primitive failed.
    #[error("the system gives no randomness")]
    Random,
    /// The source gives no key.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The source's key is not this vault's.
    #[error(
        "{source_name} does not open {vault}: one of the two was changed or is of another deployment; bring back the one \
         that belongs here",
        vault = vault.display()
    )]
    WrongSource {
        /// The source.
        source_name: String,
        /// The vault file.
        vault: PathBuf,
    },
}

impl VaultError {
    /// Whether it is the same at the next try, until somebody mends it.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Random => false,
            Self::Damaged { .. }
            | Self::Format { .. }
            | Self::Newer(_)
            | Self::NotByPassphrase { .. }
            | Self::OtherVault { .. }
            | Self::WrongSource { .. } => true,
            Self::File(e) => e.is_lasting(),
            Self::Source(e) => e.is_lasting(),
        }
    }
}

/// Tells a vault's data keys apart. It is drawn with the key, and says nothing about it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// Of the data key of a vault made before there was an envelope: it was derived from the passphrase itself.
    const BEFORE: Self = Self([0; 8]);
    const LEN: usize = 8;
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// What seals records. Wiped when dropped, never printed.
struct DataKey {
    id: KeyId,
    bytes: Zeroizing<[u8; Self::LEN]>,
}

impl DataKey {
    const LEN: usize = 32;

    fn draw() -> Result<Self, VaultError> {
        loop {
            let id = KeyId(*random()?);
            if id != KeyId::BEFORE {
                return Ok(Self { id, bytes: random()? });
            }
        }
    }

    fn schedule(&self) -> Result<Keyed, VaultError> {
        Ok(Keyed { id: self.id, key: aes(&self.bytes)? })
    }
}

pub(crate) fn aes(key: &[u8; DataKey::LEN]) -> Result<LessSafeKey, VaultError> {
    // The size is right; nothing else can fail.
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| VaultError::Random)
}

/// A data key, ready for use.
struct Keyed {
    id: KeyId,
    key: LessSafeKey,
}

impl Keyed {
    /// Opens nonce and ciphertext, if they were sealed under this key and name.
    fn open(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut body = Zeroizing::new(body.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let len = self.key.open_in_place(nonce, Aad::from(name.as_bytes()), &mut body).ok()?.len();
        body.truncate(len);
        Some(body)
    }
}

/// An open vault: seals and opens named records. Its data key is in memory only.
pub struct Vault {
    current: Keyed,
    /// The key before, while records are being sealed again.
    before: Option<Keyed>,
    /// Held as long as the data key is in use: nobody replaces it meanwhile.
    _lock: File,
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
        let path = folder.join(PASSPHRASE_FILE);
        draw_passphrase(&path)?;
        Self::create_under(folder, &Source::PassphraseFile(path))
    }

    /// Makes a vault in `folder` under a source that is there already.
    ///
    /// # Errors
    /// The source gives no key; `vault.toml` cannot be written.
    pub fn create_under(folder: &Path, source: &Source) -> Result<Self, VaultError> {
        let keys = [DataKey::draw()?];
        Envelope::seal(folder, source, &keys)?.write(folder)?;
        Self::of(&keys, envelope::lock_shared(folder)?)
    }

    /// With these keys, the present one first, and the lock on their envelope.
    fn of(keys: &[DataKey], lock: File) -> Result<Self, VaultError> {
        let mut keys = keys.iter().map(DataKey::schedule);
        let current = keys.next().ok_or(VaultError::Random)??;
        Ok(Self { current, before: keys.next().transpose()?, _lock: lock })
    }

    /// Opens the vault of `folder` by the source that `vault.toml` names. A passphrase takes some tenths of a second: the
    /// work factor.
    ///
    /// # Errors
    /// [`VaultError`]: no key from the source, or not the right one; `vault.toml` is missing or damaged.
    pub fn open_folder(folder: &Path) -> Result<Self, VaultError> {
        Self::open_folder_with(folder, None)
    }

    /// As [`Vault::open_folder`], with the passphrase file in another place than `vault.toml` says.
    ///
    /// # Errors
    /// As there; [`VaultError::NotByPassphrase`] where another source opens it.
    pub fn open_folder_with(folder: &Path, passphrase_file: Option<&Path>) -> Result<Self, VaultError> {
        let lock = envelope::lock_shared(folder)?;
        Self::of(&Envelope::read(folder, passphrase_file)?.open(folder)?, lock)
    }

    /// Seals `secret` under `name`; it opens under that name only.
    ///
    /// # Errors
    /// [`VaultError::Random`].
    pub fn seal(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, VaultError> {
        let Keyed { id, key } = &self.current;
        let nonce = random::<NONCE_LEN>()?;
        let mut body = secret.to_vec();
        let aad = Aad::from(name.as_bytes());
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(*nonce), aad, &mut body)
            .map_err(|_| VaultError::Random)?;
        let mut out = Vec::with_capacity(MAGIC.len() + KeyId::LEN + NONCE_LEN + body.len());
        if *id == KeyId::BEFORE {
            out.extend_from_slice(MAGIC_BEFORE);
        } else {
            out.extend_from_slice(MAGIC);
            out.extend_from_slice(&id.0);
        }
        out.extend_from_slice(nonce.as_slice());
        out.append(&mut body);
        Ok(out)
    }

    /// Opens what was sealed under `name`.
    ///
    /// # Errors
    /// [`VaultError::Damaged`], [`VaultError::OtherVault`].
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let damaged = || VaultError::Damaged { name: name.to_owned() };
        later(name, sealed)?;
        let (id, rest) = split(sealed).ok_or_else(damaged)?;
        let keyed = [Some(&self.current), self.before.as_ref()].into_iter().flatten().find(|k| k.id == id);
        let keyed = keyed.ok_or_else(|| VaultError::OtherVault { name: name.to_owned() })?;
        keyed.open(name, rest).ok_or_else(damaged)
    }

    /// Seals a record again if the key before sealed it. `None`: it is under the present key.
    ///
    /// # Errors
    /// As [`Vault::open`] and [`Vault::seal`].
    pub fn reseal(&self, name: &str, sealed: &[u8]) -> Result<Option<Vec<u8>>, VaultError> {
        let opened = self.open(name, sealed)?;
        if split(sealed).is_some_and(|(id, _)| id == self.current.id) {
            return Ok(None);
        }
        self.seal(name, &opened).map(Some)
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
    /// [`VaultError::Damaged`], [`VaultError::OtherVault`], [`VaultError::File`].
    pub fn open_file(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        self.open(&name_of(path), &files::read_private(path)?)
    }

    /// What [`Vault::reseal`] makes of a file, not yet written.
    ///
    /// # Errors
    /// As [`Vault::reseal`] and [`Vault::open_file`].
    pub fn resealed_file(&self, path: &Path) -> Result<Option<Vec<u8>>, VaultError> {
        self.reseal(&name_of(path), &files::read_private(path)?)
    }

    /// Id of the key that it seals under.
    pub fn key_id(&self) -> KeyId {
        self.current.id
    }
}

/// Refuses what was sealed in a later format.
fn later(name: &str, sealed: &[u8]) -> Result<(), Newer> {
    let digit = sealed.strip_prefix(FAMILY).and_then(|rest| rest.first()).filter(|b| b.is_ascii_digit());
    match digit.map(|digit| i64::from(digit - b'0')) {
        Some(found) if found > SEALED => Err(Newer::new(format_args!("the sealed record `{name}`"), found, SEALED)),
        _ => Ok(()),
    }
}

/// Key id and the rest of something sealed.
fn split(sealed: &[u8]) -> Option<(KeyId, &[u8])> {
    let (magic, rest) = sealed.split_first_chunk::<4>()?;
    match magic {
        MAGIC => rest.split_first_chunk().map(|(id, rest)| (KeyId(*id), rest)),
        MAGIC_BEFORE => Some((KeyId::BEFORE, rest)),
        _ => None,
    }
}

/// Puts the data key of the vault in `folder` under another source: one durable write, before which the old source opens it
/// and after which the new one does. A daemon that has it open goes on. `passphrase_file` is as in
/// [`Vault::open_folder_with`].
///
/// Whoever had the old source and a copy of the old `vault.toml` has the data key still: that is what [`Rekey`] is for.
///
/// # Errors
/// [`VaultError`]; then the old source opens it.
pub fn rewrap(folder: &Path, passphrase_file: Option<&Path>, to: &Source) -> Result<(), VaultError> {
    let _one = envelope::lock_envelope(folder)?;
    let keys = Envelope::read(folder, passphrase_file)?.open(folder)?;
    Envelope::seal(folder, to, &keys)?.write(folder)
}

/// The text of a `vault.toml` around the data key of the vault in `folder`, which the passphrase in `file` opens: for a backup.
/// Put back, it looks for that passphrase in the folder's own file.
///
/// # Errors
/// [`VaultError`].
pub fn recovery_envelope(folder: &Path, passphrase_file: Option<&Path>, file: &Path) -> Result<String, VaultError> {
    let keys = Envelope::read(folder, passphrase_file)?.open(folder)?;
    Envelope::seal_for_later(folder, file, &keys)?.text(folder)
}

/// Opens a vault by the text of its `vault.toml`, as if that lay in `folder`; `held` is locked meanwhile in its place.
///
/// # Errors
/// [`VaultError`].
pub fn open_envelope(
    text: &str,
    folder: &Path,
    passphrase_file: Option<&Path>,
    held: &Path,
) -> Result<Vault, VaultError> {
    let lock = envelope::lock_shared(held)?;
    Vault::of(&Envelope::of_text(folder, text, passphrase_file)?.open(folder)?, lock)
}

/// Where the key comes from that opens the vault of that text, as if it lay in `folder`.
///
/// # Errors
/// [`VaultError`].
pub fn source_in(text: &str, folder: &Path) -> Result<Source, VaultError> {
    Ok(Envelope::of_text(folder, text, None)?.source())
}

/// Keeps everybody out of the vault in `folder`, as long as the file that it returns is open.
///
/// # Errors
/// [`VaultError::Busy`]: a daemon or another command has it open.
pub fn lock_out(folder: &Path) -> Result<File, VaultError> {
    envelope::lock_alone(folder)
}

/// What `vault.toml` says, without opening anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Where the key comes from that opens it; paths are resolved.
    pub source: Source,
    /// Id of the data key; `None` in a vault made before there was an envelope.
    pub key: Option<KeyId>,
    /// Id of the key before, while a re-keying is not finished.
    pub before: Option<KeyId>,
}

/// Reads what `vault.toml` of `folder` says.
///
/// # Errors
/// It is missing or damaged.
pub fn describe(folder: &Path) -> Result<Description, VaultError> {
    Ok(Envelope::read(folder, None)?.describe())
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

fn bad(path: &Path, reason: impl Into<String>) -> VaultError {
    VaultError::Format { path: path.to_owned(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(folder: &Path, name: &str, text: &str) -> Source {
        let path = folder.join(name);
        files::write(&path, Readers::Owner, text.as_bytes()).unwrap();
        Source::PassphraseFile(path)
    }

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
    fn another_passphrase_is_told_apart_from_damage_and_from_another_vault() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sealed = Vault::create(one.path()).unwrap().seal("a", b"x").unwrap();
        let other = Vault::create(two.path()).unwrap();
        let wrong = Vault::open_folder_with(one.path(), Some(&two.path().join(PASSPHRASE_FILE))).unwrap_err();
        assert!(matches!(wrong, VaultError::WrongSource { .. }), "{wrong}");
        assert!(matches!(other.open("a", &sealed).unwrap_err(), VaultError::OtherVault { .. }));
        let right = Vault::open_folder(one.path()).unwrap();
        assert_eq!(right.open("a", &sealed).unwrap().as_slice(), b"x");
    }

    #[test]
    fn a_short_or_exposed_passphrase_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let short = passphrase(folder.path(), "p", "short\n");
        assert!(Vault::create_under(folder.path(), &short).unwrap_err().to_string().contains("12 characters"));
        let path = folder.path().join("p");
        files::write(&path, Readers::Everybody, b"long enough for a passphrase\n").unwrap();
        assert!(Vault::create_under(folder.path(), &short).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn rewrapping_changes_who_opens_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let running = Vault::create(at).unwrap();
        let sealed = running.seal("a", b"x").unwrap();
        let before = std::fs::read(at.join(VAULT_FILE)).unwrap();
        let new = passphrase(at, "new", "another passphrase than that\n");
        // A daemon that has it open is in nobody's way, and goes on.
        rewrap(at, None, &new).unwrap();
        assert_eq!(running.open("a", &sealed).unwrap().as_slice(), b"x");
        let vault = Vault::open_folder(at).unwrap();
        assert_eq!(vault.open("a", &sealed).unwrap().as_slice(), b"x");
        assert_eq!(vault.key_id(), running.key_id());
        let old = Vault::open_folder_with(at, Some(&at.join(PASSPHRASE_FILE))).unwrap_err();
        assert!(matches!(old, VaultError::WrongSource { .. }), "{old}");
        // The other way round: what stood there before opens by what it was wrapped under.
        std::fs::write(at.join(VAULT_FILE), before).unwrap();
        assert_eq!(Vault::open_folder(at).unwrap().open("a", &sealed).unwrap().as_slice(), b"x");
    }

    #[test]
    fn a_folder_can_be_moved_with_the_passphrase_in_it() {
        let above = tempfile::tempdir().unwrap();
        let [here, there] = ["here", "there"].map(|n| above.path().join(n));
        files::create_folder(&here).unwrap();
        let sealed = Vault::create(&here).unwrap().seal("a", b"x").unwrap();
        std::fs::rename(&here, &there).unwrap();
        assert!(Vault::open_folder(&there).unwrap().open("a", &sealed).is_ok());
        let outside = passphrase(above.path(), "outside", "a passphrase elsewhere\n");
        rewrap(&there, None, &outside).unwrap();
        std::fs::rename(&there, &here).unwrap();
        assert!(Vault::open_folder(&here).unwrap().open("a", &sealed).is_ok());
    }

    /// `vault.toml` and a record as the version before made them.
    const BEFORE: &str = r#"kdf = "pbkdf2-hmac-sha256"
rounds = 600000
salt = "c/wXjC7FKQO38hDI1GufDQ=="
check = "RlZTMfZdnlpblrFveyjih3hVmoKYi6VU016TePyUR/+7VyKDbSaGP8M2G4iiw2R4AIxpet1eDJrvNK/GM6j/Lw=="
"#;
    const BEFORE_PASSPHRASE: &str = "ecAWQul+aWxAsafB6pb/QEkAdS0M5Qhowfq1jBD/jBE=\n";
    const BEFORE_RECORD: &str =
        "46565331000102030405060708090a0bc6f6ce9acb760d49f5272d132cb6124b19c6156c51b808a6f796746d6997c82ff6e9";

    #[test]
    fn a_vault_of_before_the_envelope_opens_is_rewrapped_and_gets_another_key() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        std::fs::write(at.join(VAULT_FILE), BEFORE).unwrap();
        let drawn = passphrase(at, PASSPHRASE_FILE, BEFORE_PASSPHRASE);
        let record = hex::decode(BEFORE_RECORD).unwrap();
        let opens = |vault: &Vault| assert_eq!(vault.open("old", &record).unwrap().as_slice(), b"a secret of before");
        let vault = Vault::open_folder(at).unwrap();
        opens(&vault);
        assert_eq!(describe(at).unwrap(), Description { source: drawn.clone(), key: None, before: None });
        // It seals as before, so that the version before can still be brought back.
        assert!(vault.seal("new", b"x").unwrap().starts_with(MAGIC_BEFORE));
        drop(vault);
        let other = passphrase(at, "other", "another passphrase than that\n");
        rewrap(at, None, &other).unwrap();
        let vault = Vault::open_folder(at).unwrap();
        opens(&vault);
        assert!(vault.seal("new", b"x").unwrap().starts_with(MAGIC_BEFORE), "the data key is the same");
        drop(vault);
        // And straight from the old form to another data key.
        std::fs::write(at.join(VAULT_FILE), BEFORE).unwrap();
        let rekey = Rekey::begin(at, None).unwrap();
        opens(rekey.vault());
        let record = rekey.vault().reseal("old", &record).unwrap().unwrap();
        assert!(record.starts_with(MAGIC));
        rekey.finish().unwrap();
        let vault = Vault::open_folder(at).unwrap();
        assert_eq!(vault.open("old", &record).unwrap().as_slice(), b"a secret of before");
        assert_eq!(describe(at).unwrap().source, drawn);
    }
}
