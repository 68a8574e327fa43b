//! Bearer tokens of `/hw/ps`: a file of hashes in the gateway's folder. A token itself is shown once, to the operator.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use fivefold_core::suite::sha256;
use fivefold_keep::files::{self, FileError, Readers};
use fivefold_keep::format::{self, Newer, Unread};
use fivefold_keep::vault::random;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The file in the gateway's folder.
pub const TOKENS_FILE: &str = "http-tokens.toml";
/// Bytes of a token that was made elsewhere: fewer are no secret, more do not fit in a line of a request.
pub const LENGTHS: std::ops::RangeInclusive<usize> = 8..=3000;

const HEADING: &str =
    "# SHA-256 of the bearer tokens that /hw/ps takes. Written by: fivefold gateway token add, revoke\n\n";

/// Why tokens cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not of its form.
    #[error("{path}: {reason}; make it anew with: fivefold gateway token add", path = path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It has a later format.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// A token's text will not do.
    #[error("a token has {} to {} characters of ASCII, without blanks", LENGTHS.start(), LENGTHS.end())]
    Text,
    /// The system gives no randomness.
    #[error("the system gives no randomness: no token was made")]
    Random,
    /// The name is taken.
    #[error("a token called {0} exists already; choose another name, or revoke that one")]
    Taken(String),
    /// There is none of that name.
    #[error("there is no token called {0}; see: fivefold gateway token list")]
    Unknown(String),
}

impl TokensError {
    /// Whether it is the same at the next try, until somebody mends it.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::File(e) => e.is_lasting(),
            Self::Form { .. } | Self::Newer(_) => true,
            Self::Text | Self::Random | Self::Taken(_) | Self::Unknown(_) => false,
        }
    }
}

/// One token, without what opens anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// Its name, for people.
    pub name: String,
    /// SHA-256 of its text, 64 hex digits.
    pub sha256: String,
    /// When it was made, in Unix seconds.
    pub created_at: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Token>,
}

/// The tokens in a gateway's folder, by the order in which they were made; none where there is no file.
///
/// # Errors
/// [`TokensError::File`], [`TokensError::Form`].
pub fn read(folder: &Path) -> Result<Vec<Token>, TokensError> {
    let path = folder.join(TOKENS_FILE);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = files::read_private(&path)?;
    let form = |reason: String| TokensError::Form { path: path.clone(), reason };
    let text = std::str::from_utf8(&text).map_err(|e| form(e.to_string()))?;
    let file: File = format::from_toml(path.display(), text).map_err(|e| match e {
        Unread::Newer(newer) => newer.into(),
        Unread::Form(_) => form(e.message()),
    })?;
    for token in &file.token {
        hash(token).ok_or_else(|| form(format!("the hash of token {} is none", token.name)))?;
    }
    Ok(file.token)
}

fn write(folder: &Path, token: Vec<Token>) -> Result<(), TokensError> {
    let path = folder.join(TOKENS_FILE);
    let form = |e: toml::ser::Error| TokensError::Form { path: path.clone(), reason: e.to_string() };
    let text = toml::to_string(&File { token }).map_err(form)?;
    Ok(files::write(&path, Readers::Owner, format!("{HEADING}{text}").as_bytes())?)
}

/// Enters a token: a new one, or one that modules in the field already have.
///
/// # Errors
/// [`TokensError`]: the name is taken, the known text will not do, a file.
pub fn add(folder: &Path, name: &str, known: Option<&str>, now_unix_s: u64) -> Result<Zeroizing<String>, TokensError> {
    let mut all = read(folder)?;
    if all.iter().any(|t| t.name == name) {
        return Err(TokensError::Taken(name.to_owned()));
    }
    let text = match known {
        Some(text) => {
            if !LENGTHS.contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(TokensError::Text);
            }
            Zeroizing::new(text.to_owned())
        }
        None => Zeroizing::new(format!("ffb_{}", hex::encode(random::<32>().map_err(|_| TokensError::Random)?))),
    };
    let sha256 = hex::encode(sha256(&[text.as_bytes()]));
    all.push(Token { name: name.to_owned(), sha256, created_at: now_unix_s });
    write(folder, all)?;
    Ok(text)
}

/// Takes a token back; a running gateway knows within a second.
///
/// # Errors
/// [`TokensError::Unknown`], a file.
pub fn revoke(folder: &Path, name: &str) -> Result<(), TokensError> {
    let mut all = read(folder)?;
    let before = all.len();
    all.retain(|t| t.name != name);
    if all.len() == before {
        return Err(TokensError::Unknown(name.to_owned()));
    }
    write(folder, all)
}

/// Which file it is: it is replaced as a whole, and clocks of file systems tick slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    written: Option<SystemTime>,
}

fn stamp(folder: &Path) -> Option<Stamp> {
    let found = std::fs::metadata(folder.join(TOKENS_FILE)).ok()?;
    Some(Stamp { inode: found.ino(), bytes: found.len(), written: found.modified().ok() })
}

fn hashes(folder: &Path) -> Result<Vec<[u8; 32]>, TokensError> {
    Ok(read(folder)?.iter().filter_map(hash).collect())
}

fn hash(token: &Token) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    hex::decode_to_slice(&token.sha256, &mut hash).ok()?;
    Some(hash)
}

/// What a running listener knows.
#[derive(Debug)]
pub struct Tokens {
    folder: PathBuf,
    hashes: ArcSwap<Vec<[u8; 32]>>,
    /// The file that they are from; whatever else was there last is not looked at again.
    stamp: Mutex<Option<Stamp>>,
}

impl Tokens {
    /// Those of a folder.
    ///
    /// # Errors
    /// As [`read`].
    pub fn of(folder: &Path) -> Result<Self, TokensError> {
        let stamp = Mutex::new(stamp(folder));
        let hashes = ArcSwap::from_pointee(hashes(folder)?);
        Ok(Self { folder: folder.to_owned(), hashes, stamp })
    }

    /// Takes those that are in the folder now, if the file is another. Whether it is. Where it cannot be read, the old ones
    /// stay.
    ///
    /// # Errors
    /// As [`read`], once for each file.
    pub fn follow(&self) -> Result<bool, TokensError> {
        let now = stamp(&self.folder);
        let before = std::mem::replace(&mut *self.stamp.lock().unwrap_or_else(PoisonError::into_inner), now);
        if now == before {
            return Ok(false);
        }
        self.hashes.store(Arc::new(hashes(&self.folder)?));
        Ok(true)
    }

    /// Whether the operator entered this one. All are compared, so that time says nothing about which.
    pub fn knows(&self, token: &[u8]) -> bool {
        let hash = sha256(&[token]);
        self.hashes.load().iter().fold(false, |known, h| verify_slices_are_equal(h, &hash).is_ok() | known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_once_and_its_hash_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let token = add(folder.path(), "dam", None, 1).unwrap();
        let file = std::fs::read_to_string(folder.path().join(TOKENS_FILE)).unwrap();
        assert!(!file.contains(token.as_str()));
        let tokens = Tokens::of(folder.path()).unwrap();
        assert!(tokens.knows(token.as_bytes()));
        assert!(!tokens.knows(b"") && !tokens.knows(&token.as_bytes()[1..]));
    }

    #[test]
    fn a_token_that_modules_already_have_is_taken_over_and_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let known = "eyJhbGciOiJIUzI1NiJ9.e30.ZRrHA1JJJW8opsbCGfG_HACGpVUMN_a9IV7pAx_Zmeo";
        add(folder.path(), "bridge", Some(known), 1).unwrap();
        let tokens = Tokens::of(folder.path()).unwrap();
        assert!(tokens.knows(known.as_bytes()));
        revoke(folder.path(), "bridge").unwrap();
        assert!(tokens.follow().unwrap());
        assert!(!tokens.follow().unwrap());
        assert!(!tokens.knows(known.as_bytes()));
    }

    #[test]
    fn mistakes_are_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap().is_empty());
        for text in ["short", "with a blank in the middle", "with\na line that ends"] {
            assert!(matches!(add(folder.path(), "a", Some(text), 1), Err(TokensError::Text)), "{text}");
        }
        add(folder.path(), "a", None, 1).unwrap();
        assert!(matches!(add(folder.path(), "a", None, 1), Err(TokensError::Taken(_))));
        assert!(matches!(revoke(folder.path(), "b"), Err(TokensError::Unknown(_))));
        let broken = "[[token]]\nname = \"a\"\nsha256 = \"12\"\ncreated_at = 1\n";
        files::write(&folder.path().join(TOKENS_FILE), Readers::Owner, broken.as_bytes()).unwrap();
        assert!(matches!(read(folder.path()), Err(TokensError::Form { .. })));
    }
}
