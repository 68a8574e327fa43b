//! The database of a Meshlium, as a dump of it shows it: what walks through the dump counts, this says what it means.

use std::path::Path;

use fivefold_waspmote::{ClassicKey, KeyBits, Weak};

use super::{NOT_EXAMINED, Notes, shown};
use crate::known;

/// RSA keys shorter than this are broken by anybody who rents machines for it.
const SHORTEST_RSA: usize = 2048;

/// Looks at a key of its table `encryptionData`: `node` is whose, `text` as it stands there.
pub fn key(path: &Path, line: usize, node: &str, text: &[u8], notes: &mut Notes) {
    notes.look(&["AR-08"]);
    let node = shown(&node);
    notes.say("FX-41", path, line, format!("the key of {node} stands in the clear"));
    notes.say("AR-09", path, line, format!("the frames of {node} are sealed with AES in ECB mode"));
    let bits = [KeyBits::Aes128, KeyBits::Aes192, KeyBits::Aes256].into_iter().find(|b| text.len() <= b.bytes());
    let weakness = match bits.map(|bits| ClassicKey::from_text(text, bits)) {
        Some(Ok(key)) => key.weakness(),
        // Its node uses the key of zeros then.
        _ => Some(Weak::Zero),
    };
    if let Some(known) = known::find(text) {
        notes.say("AR-08", path, line, format!("everybody knows the key of {node}: {}", known.what));
    } else if let Some(weak) = weakness {
        notes.say("AR-08", path, line, format!("the key of {node} can be guessed: {weak}"));
    }
}

/// Looks at an RSA modulus beside a key.
pub fn rsa(path: &Path, line: usize, node: &str, bits: usize, notes: &mut Notes) {
    notes.look(&["AR-12"]);
    let node = shown(&node);
    notes.say("AR-15", path, line, format!("{node} has an RSA key, which is used without padding there"));
    if bits < SHORTEST_RSA {
        notes.say("AR-12", path, line, format!("the RSA key of {node} has {bits} bits"));
    }
}

/// Looks at an account: `texts` are its columns that hold a password, a token or a hash.
pub fn account(path: &Path, line: usize, table: &str, texts: &[&[u8]], notes: &mut Notes) {
    notes.look(&["FX-42"]);
    let table = shown(&table);
    let is_digest = |text: &&[u8], digits| text.len() == digits && text.iter().all(u8::is_ascii_hexdigit);
    if texts.iter().any(|t| is_default(t)) {
        notes.say(
            "FX-42",
            path,
            line,
            format!("an account in {table} has a password that every unit was shipped with"),
        );
    }
    let what = if texts.iter().any(|t| is_digest(t, 32)) {
        "an MD5 hash without salt"
    } else if texts.iter().any(|t| is_digest(t, 40) || t.len() == 41 && t.starts_with(b"*")) {
        "a SHA-1 hash without salt"
    } else {
        "as good as the password"
    };
    notes.say("FX-43", path, line, format!("an account stands in {table}: {what}"));
}

/// Passwords that were shipped, as they are or as the hashes that its manager keeps.
fn is_default(text: &[u8]) -> bool {
    // The same lengths as the two hashes have; the plain ones are in the table of what everybody knows.
    if let Some(known) = known::find(text) {
        return known.what.starts_with("Meshlium") || known.what.starts_with("a password");
    }
    let hash = text.strip_prefix(b"*").unwrap_or(text).to_ascii_lowercase();
    known::find(&hash).is_some_and(|known| known.what.starts_with("Meshlium"))
}

/// Says that readings are in it.
pub fn readings(path: &Path, line: usize, count: u64, notes: &mut Notes) {
    // What was skipped on the way here was said.
    notes.look(&[NOT_EXAMINED]);
    if count > 0 {
        let rows = if count == 1 { "1 reading stands" } else { &format!("{count} readings stand") };
        notes.say("FX-44", path, line, format!("{rows} in the clear, and nothing in them says who made them"));
    }
}
