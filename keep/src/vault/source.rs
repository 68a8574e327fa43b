//! Where the key comes from that wraps a vault's data key.

use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};
use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{DataKey, VaultError, aes, random, token};
use crate::files::{self, FileError, Readers};

/// Rounds of PBKDF2-HMAC-SHA256 for a new passphrase (OWASP's figure of 2023).
const ROUNDS: u32 = 600_000;
const MAX_ROUNDS: u32 = 100_000_000;
const SALT: usize = 16;
/// Shortest passphrase, in bytes.
const SHORTEST: usize = 12;
const TAG: usize = 16;
/// A wrapped data key: nonce, ciphertext and tag of AES-256-GCM.
pub(super) const WRAPPED: usize = NONCE_LEN + DataKey::LEN + TAG;
/// Where systemd puts the credentials of a service.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// A key that wraps data keys with AES-256-GCM: in memory for the time of one call, or in a token that never lets it go.
pub(super) trait WrappingKey {
    /// Seals a data key, bound to `binding`: nonce, ciphertext and tag.
    ///
    /// # Errors
    /// No randomness, or the token refuses.
    fn wrap(&self, binding: &[u8], key: &[u8; DataKey::LEN]) -> Result<[u8; WRAPPED], VaultError>;

    /// Opens it. `None`: it was wrapped under another key or binding, or changed.
    ///
    /// # Errors
    /// The token refuses.
    fn unwrap(
        &self,
        binding: &[u8],
        wrapped: &[u8; WRAPPED],
    ) -> Result<Option<Zeroizing<[u8; DataKey::LEN]>>, VaultError>;
}

/// Where the key comes from that wraps a vault's data key. Shown as people would say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file with a passphrase that only its owner reads.
    PassphraseFile(PathBuf),
    /// An AES-256 key in a token, which never leaves it.
    Pkcs11(TokenKey),
    /// A passphrase that systemd hands to the service: `LoadCredential=` or `LoadCredentialEncrypted=`.
    SystemdCredential(String),
}

/// An AES-256 key in a PKCS #11 token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey {
    /// The token's library, an absolute path. It is loaded when a vault is opened by it, and never otherwise.
    pub module: PathBuf,
    /// Label of the token.
    pub token: String,
    /// Label of the key.
    pub key: String,
    /// Where the user's PIN comes from.
    pub pin: Pin,
}

/// Where a token's PIN comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// A systemd credential of this name.
    Credential(String),
    /// A file that only its owner reads.
    File(PathBuf),
}

impl std::fmt::Display for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Credential(name) => write!(f, "the systemd credential `{name}`"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PassphraseFile(path) => write!(f, "the passphrase in {}", path.display()),
            Self::Pkcs11(key) => write!(f, "key `{}` of token `{}`", key.key, key.token),
            Self::SystemdCredential(name) => write!(f, "the systemd credential `{name}`"),
        }
    }
}

/// Why a source gives no key. Each is one sentence with the next step.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Others than the owner can read a credential.
    #[error(
        "the systemd credential {path} can be read by others (mode {mode:03o}); let systemd place it, or type: chmod 400 \
         {path}",
        path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The token has a key of that label already.
    #[error("token `{token}` has a key `{key}` already; leave --generate-key out to use it, or choose another label")]
    KeyExists {
        /// Label of the token.
        token: String,
        /// Label of the key.
        key: String,
    },
    /// The key could leave the token.
    #[error(
        "key `{key}` of token `{token}` cannot be used: {reason}; make one that stays inside, with: fivefold vault rewrap \
         ... --generate-key and another --key"
    )]
    KeyUnfit {
        /// Label of the token.
        token: String,
        /// Label of the key.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The token is locked after wrong PINs.
    #[error("token `{token}` is locked after wrong PINs; unlock it with its SO PIN and the token's own tool")]
    Locked {
        /// Label of the token.
        token: String,
    },
    /// The library does not load.
    #[error(
        "the PKCS #11 module {module} does not load ({reason}); install it, or correct `module` in vault.toml",
        module = module.display()
    )]
    Module {
        /// The library.
        module: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// A name that no credential can have.
    #[error("`{name}` is no name of a systemd credential; take the ID that stands in LoadCredential= before the colon")]
    Name {
        /// The name.
        name: String,
    },
    /// systemd handed over others.
    #[error(
        "{folder} has no credential `{name}`; add to the service's unit, under [Service]: \
         LoadCredentialEncrypted={name}:/etc/credstore.encrypted/{name}",
        folder = folder.display()
    )]
    NoCredential {
        /// Where the service's credentials are.
        folder: PathBuf,
        /// The name.
        name: String,
    },
    /// The process was not started with credentials.
    #[error(
        "the systemd credential `{name}` is wanted and CREDENTIALS_DIRECTORY is not set; add to the service's unit, under \
         [Service]: LoadCredentialEncrypted={name}:/etc/credstore.encrypted/{name} (a command: systemd-run --pipe --wait \
         -p with the same line)"
    )]
    NoCredentials {
        /// The name.
        name: String,
    },
    /// The token has no such key, or more than one.
    #[error(
        "token `{token}` has {found} AES keys labelled `{key}`, and exactly one is wanted; correct the label, or make a key \
         with: fivefold vault rewrap ... --generate-key"
    )]
    NoKey {
        /// Label of the token.
        token: String,
        /// Label of the key.
        key: String,
        /// How many it has.
        found: usize,
    },
    /// The library shows no such token, or more than one.
    #[error(
        "{module} shows {found} tokens labelled `{token}`, and exactly one is wanted ({there}); plug it in, or correct its \
         label in vault.toml",
        module = module.display()
    )]
    NoToken {
        /// The library.
        module: PathBuf,
        /// Label of the token.
        token: String,
        /// How many it shows.
        found: usize,
        /// What it shows instead.
        there: String,
    },
    /// The token refused the PIN.
    #[error(
        "token `{token}` refuses the PIN in {pin}; correct it before anything tries again, for tokens lock after a few wrong \
         ones"
    )]
    PinRefused {
        /// Label of the token.
        token: String,
        /// Where the PIN is.
        pin: String,
    },
    /// A passphrase that is too short.
    #[error("{source_name} is too short: a passphrase needs at least 12 characters; bring a longer one")]
    Short {
        /// The source.
        source_name: String,
    },
    /// The token failed.
    #[error("token `{token}` failed to {what} ({reason})")]
    Token {
        /// Label of the token.
        token: String,
        /// What it was asked for.
        what: &'static str,
        /// What it said.
        reason: String,
    },
}

impl SourceError {
    /// Whether it is the same at the next try, until somebody mends it. A token may be plugged in, or its service come up; one that
    /// refused a PIN must not be asked again.
    pub const fn is_lasting(&self) -> bool {
        match self {
            Self::Exposed { .. }
            | Self::KeyExists { .. }
            | Self::KeyUnfit { .. }
            | Self::Locked { .. }
            | Self::Name { .. }
            | Self::NoCredential { .. }
            | Self::NoCredentials { .. }
            | Self::NoKey { .. }
            | Self::PinRefused { .. }
            | Self::Short { .. } => true,
            Self::Module { .. } | Self::NoToken { .. } | Self::Token { .. } => false,
        }
    }
}

impl Source {
    /// What `vault.toml` calls it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::PassphraseFile(_) => "passphrase-file",
            Self::Pkcs11(_) => "pkcs11",
            Self::SystemdCredential(_) => "systemd-credential",
        }
    }

    /// What a new envelope under this source needs beside it.
    pub(super) fn stretch(&self) -> Result<Option<Stretch>, VaultError> {
        match self {
            Self::PassphraseFile(_) | Self::SystemdCredential(_) => {
                Ok(Some(Stretch { salt: random::<SALT>()?.to_vec(), rounds: ROUNDS }))
            }
            Self::Pkcs11(_) => Ok(None),
        }
    }

    /// The key that wraps.
    pub(super) fn key(&self, stretch: Option<&Stretch>) -> Result<Box<dyn WrappingKey>, VaultError> {
        match self {
            Self::PassphraseFile(_) | Self::SystemdCredential(_) => Ok(Box::new(Stretched(self.stretched(stretch)?))),
            Self::Pkcs11(key) => Ok(Box::new(token::open(key)?)),
        }
    }

    /// What the passphrase gives.
    pub(super) fn stretched(&self, stretch: Option<&Stretch>) -> Result<Zeroizing<[u8; DataKey::LEN]>, VaultError> {
        let mut passphrase = match self {
            Self::PassphraseFile(path) => files::read_private(path)?,
            Self::SystemdCredential(name) => credential(name)?,
            Self::Pkcs11(_) => return Err(VaultError::Random),
        };
        trim(&mut passphrase);
        if passphrase.len() < SHORTEST {
            return Err(SourceError::Short { source_name: self.to_string() }.into());
        }
        let stretch = stretch.ok_or(VaultError::Random)?;
        Ok(stretch.derive(&passphrase))
    }
}

/// How a passphrase becomes a key: PBKDF2-HMAC-SHA256.
pub(super) struct Stretch {
    pub(super) salt: Vec<u8>,
    pub(super) rounds: u32,
}

impl Stretch {
    /// `None` where the rounds are none, or too many to end.
    pub(super) fn new(salt: Vec<u8>, rounds: u32) -> Option<Self> {
        (1..=MAX_ROUNDS).contains(&rounds).then_some(Self { salt, rounds })
    }

    fn derive(&self, passphrase: &[u8]) -> Zeroizing<[u8; DataKey::LEN]> {
        let mut key = Zeroizing::new([0; DataKey::LEN]);
        let rounds = NonZeroU32::new(self.rounds).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &self.salt, passphrase, key.as_mut_slice());
        key
    }
}

/// A wrapping key in memory.
struct Stretched(Zeroizing<[u8; DataKey::LEN]>);

impl WrappingKey for Stretched {
    fn wrap(&self, binding: &[u8], key: &[u8; DataKey::LEN]) -> Result<[u8; WRAPPED], VaultError> {
        let nonce = random::<NONCE_LEN>()?;
        let mut body = Zeroizing::new(*key);
        let sealed = aes(&self.0)?
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(binding), body.as_mut_slice())
            .map_err(|_| VaultError::Random)?;
        wrapped(&nonce, &[body.as_slice(), sealed.as_ref()].concat()).ok_or(VaultError::Random)
    }

    fn unwrap(
        &self,
        binding: &[u8],
        wrapped: &[u8; WRAPPED],
    ) -> Result<Option<Zeroizing<[u8; DataKey::LEN]>>, VaultError> {
        let Some((nonce, body)) = wrapped.split_first_chunk::<NONCE_LEN>() else { return Ok(None) };
        let mut body = Zeroizing::new(body.to_vec());
        let opened =
            aes(&self.0)?.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(binding), body.as_mut_slice());
        Ok(opened.ok().and_then(|key| <&[u8; DataKey::LEN]>::try_from(&*key).ok().map(|key| Zeroizing::new(*key))))
    }
}

/// Nonce, ciphertext and tag in one.
pub(super) fn wrapped(nonce: &[u8; NONCE_LEN], sealed: &[u8]) -> Option<[u8; WRAPPED]> {
    [nonce.as_slice(), sealed].concat().try_into().ok()
}

/// Draws a passphrase of 32 random bytes, in base64, into a file of mode 600.
///
/// # Errors
/// The file cannot be written, or there is no randomness.
pub fn draw_passphrase(path: &Path) -> Result<(), VaultError> {
    let passphrase = Zeroizing::new(STANDARD.encode(random::<32>()?.as_slice()) + "\n");
    Ok(files::write(path, Readers::Owner, passphrase.as_bytes())?)
}

/// The PIN of a token.
pub(super) fn pin(pin: &Pin) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let mut bytes = match pin {
        Pin::Credential(name) => credential(name)?,
        Pin::File(path) => files::read_private(path)?,
    };
    trim(&mut bytes);
    Ok(bytes)
}

/// Editors end a line where none is meant.
fn trim(bytes: &mut Zeroizing<Vec<u8>>) {
    while bytes.last().is_some_and(u8::is_ascii_whitespace) {
        bytes.pop();
    }
}

/// What systemd handed to this process under `name`.
fn credential(name: &str) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let folder = std::env::var_os(CREDENTIALS).map(PathBuf::from);
    credential_in(folder.as_deref(), name)
}

fn credential_in(folder: Option<&Path>, name: &str) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0', ':']) {
        return Err(SourceError::Name { name: name.to_owned() }.into());
    }
    let folder = folder.ok_or_else(|| SourceError::NoCredentials { name: name.to_owned() })?;
    let path = folder.join(name);
    let failed = |source| FileError::Read { path: path.clone(), source };
    let meta = match fs::metadata(&path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(SourceError::NoCredential { folder: folder.to_owned(), name: name.to_owned() }.into());
        }
        Err(e) => return Err(failed(e).into()),
    };
    if is_exposed(meta.mode(), meta.gid()) {
        return Err(SourceError::Exposed { path, mode: meta.mode() & 0o777 }.into());
    }
    Ok(fs::read(&path).map(Zeroizing::new).map_err(failed)?)
}

/// Whether others than root and the service can read a credential. Where systemd lets the service's user in by an ACL, the
/// mask of that list shows as the bits of root's group: 0440.
const fn is_exposed(mode: u32, gid: u32) -> bool {
    mode & 0o007 != 0 || (mode & 0o070 != 0 && gid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_read_where_systemd_put_it_and_its_absence_names_the_unit_line() {
        let folder = tempfile::tempdir().unwrap();
        files::write(&folder.path().join("ff"), Readers::Owner, b"what systemd handed over\n").unwrap();
        let read = credential_in(Some(folder.path()), "ff").unwrap();
        assert_eq!(read.as_slice(), b"what systemd handed over\n");
        for (folder, name, says) in [
            (None, "ff", "CREDENTIALS_DIRECTORY is not set"),
            (None, "ff", "LoadCredentialEncrypted=ff:/etc/credstore.encrypted/ff"),
            (Some(folder.path()), "gg", "has no credential `gg`"),
            (Some(folder.path()), "gg", "LoadCredentialEncrypted=gg:"),
            (Some(folder.path()), "../ff", "is no name"),
            (Some(folder.path()), "", "is no name"),
        ] {
            let error = credential_in(folder, name).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_credential_that_others_read_is_refused_and_systemds_own_list_of_readers_is_not() {
        let folder = tempfile::tempdir().unwrap();
        files::write(&folder.path().join("ff"), Readers::Everybody, b"what everybody can read").unwrap();
        let error = credential_in(Some(folder.path()), "ff").unwrap_err();
        assert!(matches!(error, VaultError::Source(SourceError::Exposed { mode: 0o644, .. })), "{error}");
        // Its owner alone; root's group, as an ACL shows; another group; everybody.
        assert!(!is_exposed(0o400, 1000) && !is_exposed(0o100_440, 0));
        assert!(is_exposed(0o440, 1000) && is_exposed(0o404, 0));
    }
}
