//! Keys that are easy to guess: what everybody knows, what no generator gave, and what is made of names (AR-04, AR-08).

use std::borrow::Cow;
use std::collections::HashSet;

use fivefold_core::suite::sha256;

use crate::facts::{KeySeen, Print, Weakness};
use crate::known;
use crate::rule::Severity;

/// Looks at a key; `names` are what it may have been made of: ids and names of its owner.
pub fn look(what: impl Into<Cow<'static, str>>, key: &[u8], names: &[&[u8]]) -> KeySeen {
    let weak = weakness(key, names).map(|why| Weakness { why, severity: Severity::Critical });
    KeySeen { what: what.into(), print: Some(Print(sha256(&[key]))), weak }
}

/// Why a key is easy to guess, in words that fit after "it is".
pub fn weakness(key: &[u8], names: &[&[u8]]) -> Option<String> {
    let different: HashSet<u8> = key.iter().copied().collect();
    let first = key.first().copied()?;
    if let Some(known) = known::listed(key) {
        return Some(format!("public: {known}"));
    }
    if different.len() == 1 {
        return Some(format!("the byte {first:02x}, over and over"));
    }
    let step = key.get(1).copied()?.wrapping_sub(first);
    if known::is_counted(key) || key.iter().zip(key.iter().skip(1)).all(|(a, b)| b.wrapping_sub(*a) == step) {
        return Some("counted: each byte is the one before and the same again".into());
    }
    if key.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
        return Some("printable text".into());
    }
    if let Some(text) = key.split(|b| *b == 0).next().filter(|t| t.len() < key.len())
        && key.get(text.len()..).is_some_and(|rest| rest.iter().all(|b| *b == 0))
        && text.iter().all(|b| b.is_ascii_graphic() || *b == b' ')
    {
        return Some("short text, filled up with zeros".into());
    }
    if (2..=key.len() / 2).any(|period| key.iter().zip(key.iter().skip(period)).all(|(a, b)| a == b)) {
        return Some("a short piece, repeated".into());
    }
    // A random key has fewer so rarely that nobody will ever see one.
    if different.len() * 3 <= key.len() {
        return Some(format!("made of {} different bytes", different.len()));
    }
    names.iter().find(|name| is_made_of(key, name)).map(|_| "made of its owner's id or name".to_owned())
}

/// Whether the key holds a name, or is a hash of it.
fn is_made_of(key: &[u8], name: &[u8]) -> bool {
    let is_hash = |of: &[u8]| sha256(&[of]).starts_with(key);
    let holds = name.len() >= 8 && key.windows(name.len()).any(|w| w == name);
    !name.is_empty() && (holds || is_hash(name) || is_hash(hex::encode(name).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_generator_gave_is_named() {
        let did = [0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1];
        let random = sha256(&[b"as good as random"]);
        assert!(weakness(b"ZigBeeAlliance09", &[]).unwrap().starts_with("public"));
        let mut own = random;
        own[4..12].copy_from_slice(&did);
        let counted: [u8; 32] = std::array::from_fn(|i| 0xC0_u8.wrapping_add(i as u8));
        let piece: [u8; 32] = std::array::from_fn(|i| random[i % 11]);
        let few: [u8; 32] = std::array::from_fn(|i| random[(i * i + i / 3) % 9]);
        for (key, why) in [
            (&[0x5A; 32][..], "over and over"),
            (&counted, "counted"),
            (b"libelium-waspmote-key-for-a-dam!", "printable text"),
            (b"dam-7\0\0\0\0\0\0\0\0\0\0\0", "short text"),
            (&piece, "repeated"),
            (&few, "different bytes"),
            (&own, "owner's id"),
            (&sha256(&[&did]), "owner's id"),
            (&sha256(&[b"acde480000000001"])[..16], "owner's id"),
            (&sha256(&[b"field-7"])[..16], "owner's id or name"),
        ] {
            let said = weakness(key, &[&did, b"field-7"]).unwrap();
            assert!(said.contains(why), "{said}, expected {why}");
        }
        for n in 0..2000_u32 {
            let key = sha256(&[&n.to_be_bytes()]);
            assert_eq!(weakness(&key, &[&did, b"field-7"]), None);
            assert_eq!(weakness(&key[..16], &[&did, b"field-7"]), None);
        }
        assert_eq!(weakness(&[], &[]), None);
    }
}
