//! `vault.toml`: the wrapped data keys, and where the key comes from that wraps them.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::source::{Stretch, WRAPPED, WrappingKey};
use super::{DataKey, Description, KeyId, Pin, Source, TokenKey, VAULT_FILE, VaultError, bad};
use crate::files::{self, FileError, Readers};
use crate::format::Newer;

/// Format of `vault.toml`. The one before had no number: its data key was derived from the passphrase.
const FORMAT: u8 = 2;
/// What the format before sealed to tell a wrong passphrase from a damaged secret.
const CHECK: (&str, &[u8]) = ("vault check", b"this passphrase opens this vault");
const HEADING: &str = "# A vault: its data key, wrapped. It is no secret; what [source] names is, and nothing opens without it.\n\
                       # Show it with: fivefold vault show --dir THIS_FOLDER. Change it with: fivefold vault rewrap.\n\n";

/// `vault.toml`, checked.
pub(super) struct Envelope {
    source: Source,
    /// Where the passphrase file lies now, if not where `source` says.
    passphrase_file: Option<PathBuf>,
    stretch: Option<Stretch>,
    keys: Keys,
}

enum Keys {
    /// The present data key, and the one before while records are being sealed again.
    Wrapped(Vec<Wrapped>),
    /// The data key is what the passphrase gives; this was sealed under it.
    Derived {
        /// [`CHECK`].
        check: Vec<u8>,
    },
}

/// A wrapping key, and the data keys that it gave.
type Unwrapped = (Box<dyn WrappingKey>, Vec<DataKey>);

struct Wrapped {
    id: KeyId,
    bytes: [u8; WRAPPED],
}

/// `vault.toml`, as it stands on disk.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    format: u8,
    source: SourceForm,
    key: KeyForm,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<KeyForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum SourceForm {
    PassphraseFile {
        path: PathBuf,
        rounds: u32,
        salt: String,
    },
    Pkcs11 {
        module: PathBuf,
        token: String,
        key: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pin_file: Option<PathBuf>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pin_credential: Option<String>,
    },
    SystemdCredential {
        name: String,
        rounds: u32,
        salt: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyForm {
    id: String,
    wrapped: String,
}

/// `vault.toml` as it was before there was an envelope.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FormBefore {
    kdf: String,
    rounds: u32,
    salt: String,
    check: String,
}

const KDF_BEFORE: &str = "pbkdf2-hmac-sha256";

impl Envelope {
    /// Reads the envelope of `folder`. `passphrase_file` takes the place of the path in it.
    pub(super) fn read(folder: &Path, passphrase_file: Option<&Path>) -> Result<Self, VaultError> {
        Self::of_text(folder, &files::read_text(&folder.join(VAULT_FILE))?, passphrase_file)
    }

    /// As [`Envelope::read`], of the text of a `vault.toml` that lies or lay in `folder`.
    pub(super) fn of_text(folder: &Path, text: &str, passphrase_file: Option<&Path>) -> Result<Self, VaultError> {
        let mut envelope = Self::parse(folder, text)?;
        if passphrase_file.is_some() && !matches!(envelope.source, Source::PassphraseFile(_)) {
            let source_name = envelope.source.to_string();
            return Err(VaultError::NotByPassphrase { vault: folder.join(VAULT_FILE), source_name });
        }
        envelope.passphrase_file = passphrase_file.map(Path::to_owned);
        Ok(envelope)
    }

    fn parse(folder: &Path, text: &str) -> Result<Self, VaultError> {
        let path = folder.join(VAULT_FILE);
        let malformed = |e: toml::de::Error| {
            let line = e.span().map(|s| text.get(..s.start).unwrap_or_default().matches('\n').count() + 1);
            let place = line.map(|l| format!("line {l}: ")).unwrap_or_default();
            bad(&path, format!("{place}{}; {RESTORE}", e.message().lines().collect::<Vec<_>>().join("; ")))
        };
        let table: toml::Table = toml::from_str(text).map_err(malformed)?;
        if table.contains_key("kdf") {
            let form: FormBefore = toml::from_str(text).map_err(malformed)?;
            if form.kdf != KDF_BEFORE {
                return Err(bad(&path, format!("its key derivation is not known here; {RESTORE}")));
            }
            return Ok(Self {
                source: Source::PassphraseFile(folder.join(super::PASSPHRASE_FILE)),
                passphrase_file: None,
                stretch: Some(stretch(&path, form.rounds, &form.salt)?),
                keys: Keys::Derived { check: base64(&path, "check", &form.check)? },
            });
        }
        match table.get("format").and_then(toml::Value::as_integer) {
            Some(n) if n > i64::from(FORMAT) => {
                return Err(Newer::new(path.display(), n, i64::from(FORMAT)).into());
            }
            _ => {}
        }
        let form: Form = toml::from_str(text).map_err(malformed)?;
        let (source, stretch) = match form.source {
            SourceForm::PassphraseFile { path: file, rounds, salt } => {
                (Source::PassphraseFile(folder.join(file)), Some(stretch(&path, rounds, &salt)?))
            }
            SourceForm::SystemdCredential { name, rounds, salt } => {
                (Source::SystemdCredential(name), Some(stretch(&path, rounds, &salt)?))
            }
            SourceForm::Pkcs11 { module, token, key, pin_file, pin_credential } => {
                let pin = match (pin_file, pin_credential) {
                    (Some(file), None) => Pin::File(folder.join(file)),
                    (None, Some(name)) => Pin::Credential(name),
                    _ => return Err(bad(&path, "[source] wants either `pin_file` or `pin_credential`; name one")),
                };
                (Source::Pkcs11(TokenKey { module, token, key, pin }), None)
            }
        };
        let keys = [Some(form.key), form.before].into_iter().flatten().map(|k| wrapped(&path, &k));
        Ok(Self { source, passphrase_file: None, stretch, keys: Keys::Wrapped(keys.collect::<Result<_, _>>()?) })
    }

    /// Wraps `keys`, the present one first, under `source`, and makes sure that they come back.
    pub(super) fn seal(folder: &Path, source: &Source, keys: &[DataKey]) -> Result<Self, VaultError> {
        let stretch = source.stretch()?;
        let under = source.key(stretch.as_ref())?;
        let none = Self { source: source.clone(), passphrase_file: None, stretch, keys: Keys::Wrapped(Vec::new()) };
        none.around(folder, under.as_ref(), keys)
    }

    /// Wraps `keys` under the passphrase in `file`, which is to lie in the folder later.
    pub(super) fn seal_for_later(folder: &Path, file: &Path, keys: &[DataKey]) -> Result<Self, VaultError> {
        let source = Source::PassphraseFile(folder.join(super::PASSPHRASE_FILE));
        let now = Source::PassphraseFile(file.to_owned());
        let stretch = now.stretch()?;
        let under = now.key(stretch.as_ref())?;
        let none = Self { source, passphrase_file: Some(file.to_owned()), stretch, keys: Keys::Wrapped(Vec::new()) };
        none.around(folder, under.as_ref(), keys)
    }

    /// The same envelope around another data key, with the present one as the one before; and both.
    pub(super) fn with_new_key(mut self, folder: &Path) -> Result<(Self, Vec<DataKey>), VaultError> {
        let (under, mut keys) = match &self.keys {
            Keys::Wrapped(wrapped) => self.unwrapped(folder, wrapped)?,
            Keys::Derived { check } => {
                let key = self.derived(folder, check)?;
                // What the old salt gives is a data key: it must not wrap itself.
                self.stretch = self.source.stretch()?;
                (self.source_now().key(self.stretch.as_ref())?, vec![key])
            }
        };
        keys.insert(0, DataKey::draw()?);
        Ok((self.around(folder, under.as_ref(), &keys)?, keys))
    }

    fn around(self, folder: &Path, under: &dyn WrappingKey, keys: &[DataKey]) -> Result<Self, VaultError> {
        let source = self.source_now();
        let keys = keys.iter().map(|k| wrap(folder, &source, under, k)).collect::<Result<_, _>>()?;
        Ok(Self { keys: Keys::Wrapped(keys), ..self })
    }

    fn source_now(&self) -> Source {
        self.passphrase_file.clone().map_or_else(|| self.source.clone(), Source::PassphraseFile)
    }

    /// The same envelope without the key before.
    pub(super) fn without_key_before(mut self) -> Self {
        if let Keys::Wrapped(keys) = &mut self.keys {
            keys.truncate(1);
        }
        self
    }

    /// Where the key comes from.
    pub(super) fn source(self) -> Source {
        self.source
    }

    /// Whether a re-keying is not finished.
    pub(super) fn has_key_before(&self) -> bool {
        matches!(&self.keys, Keys::Wrapped(keys) if keys.len() > 1)
    }

    /// The data keys, the present one first.
    pub(super) fn open(&self, folder: &Path) -> Result<Vec<DataKey>, VaultError> {
        match &self.keys {
            Keys::Wrapped(wrapped) => Ok(self.unwrapped(folder, wrapped)?.1),
            Keys::Derived { check } => Ok(vec![self.derived(folder, check)?]),
        }
    }

    fn unwrapped(&self, folder: &Path, wrapped: &[Wrapped]) -> Result<Unwrapped, VaultError> {
        let source = self.source_now();
        let under = source.key(self.stretch.as_ref())?;
        let keys = wrapped.iter().map(|k| unwrap(folder, &source, under.as_ref(), k)).collect::<Result<_, _>>()?;
        Ok((under, keys))
    }

    fn derived(&self, folder: &Path, check: &[u8]) -> Result<DataKey, VaultError> {
        let source = self.source_now();
        let key = DataKey { id: KeyId::BEFORE, bytes: source.stretched(self.stretch.as_ref())? };
        let text = super::split(check).and_then(|(_, rest)| key.schedule().ok()?.open(CHECK.0, rest));
        match text {
            Some(text) if text.as_slice() == CHECK.1 => Ok(key),
            _ => Err(wrong(folder, &source)),
        }
    }

    /// Writes it: after a crash the old one stands there or this one.
    pub(super) fn write(&self, folder: &Path) -> Result<(), VaultError> {
        Ok(files::write(&folder.join(VAULT_FILE), Readers::Everybody, self.text(folder)?.as_bytes())?)
    }

    /// What stands in `vault.toml`.
    pub(super) fn text(&self, folder: &Path) -> Result<String, VaultError> {
        let text = toml::to_string(&self.form(folder)?).map_err(|e| bad(&folder.join(VAULT_FILE), e.to_string()))?;
        Ok(format!("{HEADING}{text}"))
    }

    fn form(&self, folder: &Path) -> Result<Form, VaultError> {
        let path = folder.join(VAULT_FILE);
        let (rounds, salt) = self.stretch.as_ref().map(|s| (s.rounds, STANDARD.encode(&s.salt))).unwrap_or_default();
        let source = match &self.source {
            Source::PassphraseFile(file) => SourceForm::PassphraseFile { path: stored(folder, file)?, rounds, salt },
            Source::SystemdCredential(name) => SourceForm::SystemdCredential { name: name.clone(), rounds, salt },
            Source::Pkcs11(TokenKey { module, token, key, pin }) => {
                let (pin_file, pin_credential) = match pin {
                    Pin::Credential(name) => (None, Some(name.clone())),
                    Pin::File(file) => (Some(stored(folder, file)?), None),
                };
                SourceForm::Pkcs11 {
                    module: module.clone(),
                    token: token.clone(),
                    key: key.clone(),
                    pin_file,
                    pin_credential,
                }
            }
        };
        let Keys::Wrapped(keys) = &self.keys else { return Err(bad(&path, "it is of the format before")) };
        let mut keys = keys.iter().map(|k| KeyForm { id: k.id.to_string(), wrapped: STANDARD.encode(k.bytes) });
        let key = keys.next().ok_or_else(|| bad(&path, "it has no key"))?;
        Ok(Form { format: FORMAT, source, key, before: keys.next() })
    }

    /// What it says, without opening anything.
    pub(super) fn describe(&self) -> Description {
        let ids: Vec<KeyId> = match &self.keys {
            Keys::Wrapped(keys) => keys.iter().map(|k| k.id).collect(),
            Keys::Derived { .. } => Vec::new(),
        };
        Description { source: self.source.clone(), key: ids.first().copied(), before: ids.get(1).copied() }
    }
}

const RESTORE: &str = "restore it from a backup";

/// What stands for a file in `vault.toml`: relative to the folder where it lies in there, so that the folder can be moved.
fn stored(folder: &Path, file: &Path) -> Result<PathBuf, VaultError> {
    let absolute = |p: &Path| std::path::absolute(p).map_err(|source| FileError::Read { path: p.to_owned(), source });
    let (folder, file) = (absolute(folder)?, absolute(file)?);
    Ok(file.strip_prefix(&folder).map_or_else(|_| file.clone(), Path::to_owned))
}

fn stretch(path: &Path, rounds: u32, salt: &str) -> Result<Stretch, VaultError> {
    Stretch::new(base64(path, "salt", salt)?, rounds).ok_or_else(|| bad(path, format!("rounds = {rounds}; {RESTORE}")))
}

fn base64(path: &Path, key: &str, text: &str) -> Result<Vec<u8>, VaultError> {
    STANDARD.decode(text).map_err(|_| bad(path, format!("`{key}` is no base64; {RESTORE}")))
}

fn wrapped(path: &Path, form: &KeyForm) -> Result<Wrapped, VaultError> {
    let mut id = [0; KeyId::LEN];
    if hex::decode_to_slice(&form.id, &mut id).is_err() {
        return Err(bad(path, format!("id = \"{}\" is no key id of 16 hex digits; {RESTORE}", form.id)));
    }
    let bytes = base64(path, "wrapped", &form.wrapped)?;
    let len = bytes.len();
    let bytes =
        bytes.try_into().map_err(|_| bad(path, format!("`wrapped` has {len} bytes, not {WRAPPED}; {RESTORE}")))?;
    Ok(Wrapped { id: KeyId(id), bytes })
}

/// What a wrapped data key is bound to: that it is one, and its id.
fn binding(id: KeyId) -> Vec<u8> {
    [b"fivefold data key ".as_slice(), &id.0].concat()
}

fn wrap(folder: &Path, source: &Source, under: &dyn WrappingKey, key: &DataKey) -> Result<Wrapped, VaultError> {
    let bytes = under.wrap(&binding(key.id), &key.bytes)?;
    let wrapped = Wrapped { id: key.id, bytes };
    // Nothing is written that was not seen to come back: a token may say yes and keep no such key.
    let again = unwrap(folder, source, under, &wrapped)?;
    verify_slices_are_equal(again.bytes.as_slice(), key.bytes.as_slice()).map_err(|_| wrong(folder, source))?;
    Ok(wrapped)
}

fn unwrap(folder: &Path, source: &Source, under: &dyn WrappingKey, key: &Wrapped) -> Result<DataKey, VaultError> {
    let opened = under.unwrap(&binding(key.id), &key.bytes)?;
    opened.map(|bytes| DataKey { id: key.id, bytes }).ok_or_else(|| wrong(folder, source))
}

fn wrong(folder: &Path, source: &Source) -> VaultError {
    VaultError::WrongSource { source_name: source.to_string(), vault: folder.join(VAULT_FILE) }
}

// Locks. Whoever has a data key in memory holds the folder, shared; who draws another one wants it alone, for the time of
// one write. Changes of the envelope are made one at a time, under a lock of `vault.toml`; that is not in the way of those
// who have the key. No lock outlives its process.

/// Locks the folder as one who has its data key.
pub(super) fn lock_shared(folder: &Path) -> Result<File, VaultError> {
    let failed = |source| FileError::Read { path: folder.to_owned(), source };
    still_there(folder, || {
        let file = File::open(folder).map_err(failed)?;
        file.lock_shared().map_err(failed)?;
        Ok(file)
    })
}

/// Locks the folder against everybody who has its data key.
pub(super) fn lock_alone(folder: &Path) -> Result<File, VaultError> {
    still_there(folder, || lock(folder, folder))
}

/// Locks the envelope of `folder` against others who change it.
pub(super) fn lock_envelope(folder: &Path) -> Result<File, VaultError> {
    let path = folder.join(VAULT_FILE);
    still_there(&path, || lock(&path, folder))
}

/// Locks what lies at `path`. Another may have taken its place in between, as a folder that is restored does while a daemon waits.
fn still_there(path: &Path, lock: impl Fn() -> Result<File, VaultError>) -> Result<File, VaultError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    loop {
        let file = lock()?;
        let (held, there) = (file.metadata().map_err(failed)?, fs::metadata(path).map_err(failed)?);
        if (held.dev(), held.ino()) == (there.dev(), there.ino()) {
            return Ok(file);
        }
    }
}

fn lock(path: &Path, folder: &Path) -> Result<File, VaultError> {
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(VaultError::Busy { vault: folder.join(VAULT_FILE) }),
        Err(TryLockError::Error(e)) => Err(failed(e).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PASSPHRASE_FILE, Vault};
    use super::*;

    #[test]
    fn who_waited_for_a_folder_holds_the_one_that_took_its_place() {
        let around = tempfile::tempdir().unwrap();
        let [at, before] = ["a", "before"].map(|name| around.path().join(name));
        fs::create_dir(&at).unwrap();
        let alone = lock_alone(&at).unwrap();
        let held = std::thread::scope(|scope| {
            let waits = scope.spawn(|| lock_shared(&at).unwrap());
            // It waits by now; else there is nothing to see.
            std::thread::sleep(std::time::Duration::from_millis(300));
            fs::rename(&at, before).unwrap();
            fs::create_dir(&at).unwrap();
            drop(alone);
            waits.join().unwrap()
        });
        assert_eq!(held.metadata().unwrap().ino(), fs::metadata(&at).unwrap().ino());
        assert!(matches!(lock_alone(&at), Err(VaultError::Busy { .. })));
    }

    fn refused(folder: &Path, text: &str) -> String {
        fs::write(folder.join(VAULT_FILE), text).unwrap();
        Vault::open_folder(folder).unwrap_err().to_string()
    }

    #[test]
    fn an_envelope_that_was_cut_anywhere_or_changed_opens_nothing_and_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        drop(Vault::create(at).unwrap());
        let good = fs::read_to_string(at.join(VAULT_FILE)).unwrap();
        // Deriving takes its time: what does not parse is told without it, so every cut can be tried.
        let key = good.find("[key]").unwrap();
        let mut told = 0;
        for cut in 0..good.len() {
            let text = &good[..cut];
            if Envelope::parse(at, text).is_err() {
                let error = refused(at, text);
                assert!(error.contains("vault.toml") && !error.contains('\n'), "{error}");
                told += 1;
            } else {
                assert!(text.trim_end() == good.trim_end(), "cut at {cut} passes for whole: {text}");
            }
        }
        assert!(told > key);
        for (from, to, says) in [
            ("format = 2", "format = 3", "has format 3, and this program knows up to format 2"),
            ("format = 2", "format = 1\nkdf = \"x\"", "unknown field"),
            ("kind = \"passphrase-file\"", "kind = \"guess\"", "line "),
            ("rounds = 600000", "rounds = 0", "rounds = 0"),
            ("path = ", "colour = 1\npath = ", "unknown field `colour`"),
            ("id = \"", "id = \"0", "16 hex digits"),
            ("wrapped = \"", "wrapped = \"AAAA", "`wrapped` has 63 bytes, not 60"),
            ("wrapped = \"", "wrapped = \"?", "no base64"),
        ] {
            let error = refused(at, &good.replacen(from, to, 1));
            assert!(error.contains(says) && error.contains("vault.toml"), "{error}");
        }
    }

    #[test]
    fn a_changed_wrap_a_changed_id_and_a_wrap_of_another_vault_do_not_open() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [&one, &two] {
            drop(Vault::create(folder.path()).unwrap());
        }
        let form =
            |folder: &Path| -> Form { toml::from_str(&fs::read_to_string(folder.join(VAULT_FILE)).unwrap()).unwrap() };
        let opens = |form: &Form| {
            fs::write(one.path().join(VAULT_FILE), toml::to_string(form).unwrap()).unwrap();
            Vault::open_folder(one.path())
        };
        let good = form(one.path());
        assert!(opens(&good).is_ok());
        let mut id = form(one.path());
        id.key.id = "0102030405060708".into();
        let mut flipped = form(one.path());
        let mut bytes = STANDARD.decode(&flipped.key.wrapped).unwrap();
        bytes[20] ^= 1;
        flipped.key.wrapped = STANDARD.encode(bytes);
        let mut foreign = form(one.path());
        foreign.key = form(two.path()).key;
        for wrong in [id, flipped, foreign] {
            let error = opens(&wrong).unwrap_err();
            assert!(matches!(error, VaultError::WrongSource { .. }), "{error}");
            assert!(error.to_string().contains(PASSPHRASE_FILE), "{error}");
        }
    }

    #[test]
    fn a_pin_has_one_place() {
        let folder = tempfile::tempdir().unwrap();
        let form = |pin: &str| {
            format!(
                "format = 2\n[source]\nkind = \"pkcs11\"\nmodule = \"/m.so\"\ntoken = \"t\"\nkey = \"k\"\n{pin}\n\
                 [key]\nid = \"0102030405060708\"\nwrapped = \"{}\"\n",
                STANDARD.encode([0; WRAPPED])
            )
        };
        for (pin, says) in [
            ("", "either `pin_file` or `pin_credential`"),
            ("pin_file = \"a\"\npin_credential = \"b\"", "either `pin_file` or `pin_credential`"),
            ("pin = \"1234\"", "unknown field `pin`"),
            ("pin_file = \"a\"", "cannot read"),
        ] {
            let error = refused(folder.path(), &form(pin));
            assert!(error.contains(says), "{error}");
        }
    }
}
