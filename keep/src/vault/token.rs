//! A wrapping key in a PKCS #11 token: AES-256-GCM is done inside (CKM_AES_GCM), the key never comes out.
//!
//! The token's library is loaded when a vault is opened by it, and left again before the vault is handed out: a daemon holds
//! no session, and a token may be pulled while it runs.

use std::ffi::c_ulong;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use aws_lc_rs::aead::NONCE_LEN;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::RawAuthPin;
use zeroize::Zeroizing;

use super::source::{WRAPPED, WrappingKey, pin, wrapped};
use super::{DataKey, Pin, SourceError, TokenKey, VaultError, random};

/// A library has one state in the whole process: who initializes and finalizes it must be alone.
static ALONE: Mutex<()> = Mutex::new(());
const TAG_BITS: c_ulong = 128;
/// How often a token that cannot be used is tried again, and after what time each: two seconds in all.
const LOOKS: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// A key in a token, with a session open. Dropping it logs out and lets the library go.
pub(super) struct Opened {
    at: TokenKey,
    user: LoggedIn,
    key: ObjectHandle,
}

/// A session of the token's user. Dropped in this order: the session ends, then the library, then others may.
struct LoggedIn {
    session: Session,
    _library: Library,
    _alone: MutexGuard<'static, ()>,
}

/// A library that is initialized.
struct Library(Pkcs11);

impl Drop for Library {
    fn drop(&mut self) {
        // Whatever it says, we are done with it.
        let _ = self.0.clone().finalize();
    }
}

/// Finds the key and checks that it is one that cannot leave.
pub(super) fn open(at: &TokenKey) -> Result<Opened, VaultError> {
    let user = log_in(at, Mode::Read)?;
    let found = find(at, &user.session)?;
    let [key] = found.as_slice() else {
        return Err(SourceError::NoKey { token: at.token.clone(), key: at.key.clone(), found: found.len() }.into());
    };
    let key = *key;
    check(at, &user.session, key)?;
    Ok(Opened { at: at.clone(), user, key })
}

impl TokenKey {
    /// Makes the key in its token: AES-256, not extractable.
    ///
    /// # Errors
    /// [`SourceError::KeyExists`]; the token cannot be used.
    pub fn generate(&self) -> Result<(), VaultError> {
        let user = log_in(self, Mode::Write)?;
        if !find(self, &user.session)?.is_empty() {
            return Err(SourceError::KeyExists { token: self.token.clone(), key: self.key.clone() }.into());
        }
        let template = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::ValueLen((DataKey::LEN as c_ulong).into()),
            Attribute::Label(self.key.clone().into_bytes()),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
        ];
        let made = user.session.generate_key(&Mechanism::AesKeyGen, &template);
        made.map(drop).map_err(|e| failed(&self.token, "make an AES-256 key (CKM_AES_KEY_GEN)", &e))
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Read,
    Write,
}

/// Logs in. A token that is not there or not fit to be used is tried again for a while: it may be plugged in just now,
/// and SoftHSM hides it, or fails, while another process that logs in writes the token's file.
fn log_in(at: &TokenKey, mode: Mode) -> Result<LoggedIn, VaultError> {
    let mut looks = 0;
    loop {
        match try_log_in(at, mode) {
            // A PIN that was refused is never tried again: tokens lock after a few.
            Err(VaultError::Source(SourceError::NoToken { found: 0, .. } | SourceError::Token { .. }))
                if looks < LOOKS =>
            {
                looks += 1;
                thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

fn try_log_in(at: &TokenKey, mode: Mode) -> Result<LoggedIn, VaultError> {
    let pin = pin(&at.pin)?;
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let library = load(&at.module)?;
    let slot = slot(at, &library.0)?;
    let session = match mode {
        Mode::Read => library.0.open_ro_session(slot),
        Mode::Write => library.0.open_rw_session(slot),
    };
    let session = session.map_err(|e| failed(&at.token, "open a session", &e))?;
    let token = at.token.clone();
    match session.login_with_raw(UserType::User, &RawAuthPin::new(Box::new(pin.to_vec()))) {
        Ok(()) => Ok(LoggedIn { session, _library: library, _alone: alone }),
        Err(e) => Err(not_in(token, &at.pin, &e)),
    }
}

/// Why a token let nobody in.
fn not_in(token: String, pin: &Pin, e: &Error) -> VaultError {
    match e {
        Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _) => {
            SourceError::PinRefused { token, pin: pin.to_string() }.into()
        }
        Error::Pkcs11(RvError::PinLocked, _) => SourceError::Locked { token }.into(),
        e => failed(&token, "log in", e),
    }
}

fn load(module: &Path) -> Result<Library, VaultError> {
    let refused = |reason: String| VaultError::from(SourceError::Module { module: module.to_owned(), reason });
    if !module.is_absolute() {
        // Else the environment would say what is loaded.
        return Err(refused("its path is not absolute".into()));
    }
    if cfg!(all(target_env = "musl", target_feature = "crt-static")) {
        return Err(refused("this program is one without libraries and can load none; the packages' one can".into()));
    }
    let library = Pkcs11::new(module).map_err(|e| {
        refused(match e {
            Error::LibraryLoading(e) => e.to_string(),
            e => short(&e),
        })
    })?;
    match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) => Ok(Library(library)),
        Err(e) => Err(refused(short(&e))),
    }
}

/// The slot of the token with the right label.
fn slot(at: &TokenKey, library: &Pkcs11) -> Result<Slot, VaultError> {
    let asked = |e| failed(&at.token, "be listed", &e);
    let mut labels = Vec::new();
    for slot in library.get_slots_with_token().map_err(asked)? {
        let info = library.get_token_info(slot).map_err(asked)?;
        if info.token_initialized() {
            labels.push((info.label().to_owned(), slot));
        }
    }
    let found: Vec<Slot> = labels.iter().filter(|(label, _)| *label == at.token).map(|(_, slot)| *slot).collect();
    match found.as_slice() {
        [slot] => Ok(*slot),
        found => {
            let labels: Vec<&str> = labels.iter().map(|(label, _)| label.as_str()).collect();
            let there =
                if labels.is_empty() { "it shows none".to_owned() } else { format!("it shows: {}", labels.join(", ")) };
            let (module, token) = (at.module.clone(), at.token.clone());
            Err(SourceError::NoToken { module, token, found: found.len(), there }.into())
        }
    }
}

fn find(at: &TokenKey, session: &Session) -> Result<Vec<ObjectHandle>, VaultError> {
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(at.key.clone().into_bytes()),
    ];
    session.find_objects(&template).map_err(|e| failed(&at.token, "look for the key", &e))
}

/// A key that can be read out, or is weaker than what it wraps, is refused.
fn check(at: &TokenKey, session: &Session, key: ObjectHandle) -> Result<(), VaultError> {
    let wanted = [AttributeType::Sensitive, AttributeType::Extractable, AttributeType::ValueLen];
    let attributes = session.get_attributes(key, &wanted).map_err(|e| failed(&at.token, "describe the key", &e))?;
    let (mut sensitive, mut extractable, mut len) = (false, true, None);
    for attribute in attributes {
        match attribute {
            Attribute::Sensitive(yes) => sensitive = yes,
            Attribute::Extractable(yes) => extractable = yes,
            Attribute::ValueLen(n) => len = usize::try_from(*n).ok(),
            _ => {}
        }
    }
    let reason = match len {
        _ if !sensitive => "it can be read in the clear (CKA_SENSITIVE is false)",
        _ if extractable => "it can be taken out (CKA_EXTRACTABLE is true)",
        Some(DataKey::LEN) => return Ok(()),
        _ => "it has not 256 bits",
    };
    Err(SourceError::KeyUnfit { token: at.token.clone(), key: at.key.clone(), reason }.into())
}

impl WrappingKey for Opened {
    fn wrap(&self, binding: &[u8], key: &[u8; DataKey::LEN]) -> Result<[u8; WRAPPED], VaultError> {
        let refused = |e: Error| failed(&self.at.token, "wrap the data key (CKM_AES_GCM)", &e);
        let mut nonce = *random::<NONCE_LEN>()?;
        let gcm = GcmParams::new(&mut nonce, binding, TAG_BITS.into()).map_err(refused)?;
        let mechanism = Mechanism::AesGcm(gcm);
        let sealed = self.user.session.encrypt(&mechanism, self.key, key).map_err(refused)?;
        drop(mechanism);
        // Some tokens take no nonce from outside and write theirs where ours was.
        wrapped(&nonce, &sealed).ok_or_else(|| failed(&self.at.token, "wrap the data key", &Error::InvalidValue))
    }

    fn unwrap(
        &self,
        binding: &[u8],
        wrapped: &[u8; WRAPPED],
    ) -> Result<Option<Zeroizing<[u8; DataKey::LEN]>>, VaultError> {
        let refused = |e: Error| failed(&self.at.token, "unwrap the data key (CKM_AES_GCM)", &e);
        let Some((nonce, sealed)) = wrapped.split_first_chunk::<NONCE_LEN>() else { return Ok(None) };
        let mut nonce = *nonce;
        let gcm = GcmParams::new(&mut nonce, binding, TAG_BITS.into()).map_err(refused)?;
        let opened = match self.user.session.decrypt(&Mechanism::AesGcm(gcm), self.key, sealed) {
            Ok(opened) => Zeroizing::new(opened),
            // What tokens say of a tag that does not fit; SoftHSM says no more than "general error".
            Err(Error::Pkcs11(
                RvError::EncryptedDataInvalid
                | RvError::EncryptedDataLenRange
                | RvError::FunctionFailed
                | RvError::GeneralError,
                _,
            )) => return Ok(None),
            Err(e) => return Err(refused(e)),
        };
        Ok(<&[u8; DataKey::LEN]>::try_from(opened.as_slice()).ok().map(|key| Zeroizing::new(*key)))
    }
}

fn failed(token: &str, what: &'static str, error: &Error) -> VaultError {
    SourceError::Token { token: token.to_owned(), what, reason: short(error) }.into()
}

/// The function and the code, for the standard's sentences are paragraphs.
fn short(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("C_{function:?}: {code:?}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn a_locked_token_is_told_apart_from_a_wrong_pin() {
        let pin = Pin::File("pin".into());
        let said = |e: RvError| not_in("fivefold".into(), &pin, &Error::Pkcs11(e, Function::Login)).to_string();
        let locked = said(RvError::PinLocked);
        assert!(locked.contains("token `fivefold` is locked") && locked.contains("SO PIN"), "{locked}");
        assert!(said(RvError::PinIncorrect).contains("refuses the PIN in"));
        assert!(!said(RvError::DeviceError).contains("PIN"));
    }
}
