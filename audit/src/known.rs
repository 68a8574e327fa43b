//! Secrets that everybody knows: of examples, of default configurations, of specifications.
//!
//! `known.tsv` holds their digests with what they are and where they are published: it gives nobody a key that he could not
//! read there. What any example might count up or repeat needs no line.

use std::fmt;

use fivefold_core::suite::sha256;

const TABLE: &str = include_str!("known.tsv");

/// A secret that is public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// What it is.
    pub what: &'static str,
    /// Where it is published.
    pub source: &'static str,
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.source)
    }
}

/// Looks a key or a password up, by its bytes.
pub fn find(secret: &[u8]) -> Option<Known> {
    if secret.is_empty() {
        return Some(Known { what: "nothing at all", source: "an empty secret" });
    }
    let counted = Known { what: "one byte repeated, or counted up or down", source: "any example" };
    listed(secret).or_else(|| (secret.len() >= 8 && is_counted(secret)).then_some(counted))
}

/// The same of those alone that stand in the table.
pub fn listed(secret: &[u8]) -> Option<Known> {
    let digest = hex::encode(sha256(&[secret]));
    rows().find(|(known, ..)| *known == digest).map(|(_, what, source)| Known { what, source })
}

/// The same for a key written in hex digits, or as it stands where it is not.
pub fn find_text(text: &str) -> Option<Known> {
    let digits = text.replace([':', ' ', '-'], "");
    hex::decode(digits.as_bytes())
        .ok()
        .filter(|key| key.len() >= 8)
        .and_then(|key| find(&key))
        .or_else(|| find(text.as_bytes()))
}

/// Whether its bytes are one repeated, or counted up or down; in decimal too, as people write such keys: 01 .. 09 10 11.
pub(crate) fn is_counted(secret: &[u8]) -> bool {
    let decimal = |b: &u8| (b >> 4 < 10 && b & 0x0F < 10).then_some((b >> 4) * 10 + (b & 0x0F));
    let people: Option<Vec<u8>> = secret.iter().map(decimal).collect();
    [Some(secret), people.as_deref()].into_iter().flatten().any(|bytes| {
        let mut steps = bytes.iter().zip(bytes.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a));
        let first = steps.next();
        matches!(first, Some(0 | 1 | 0x11 | 0xFF)) && steps.all(|step| Some(step) == first)
    })
}

fn rows() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut parts = line.split('\t');
        Some((parts.next()?, parts.next()?, parts.next()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_can_read_somewhere_is_found() {
        for (key, what) in [
            (&b"ZigBeeAlliance09"[..], "trust centre"),
            (b"libeliumlibelium", "Waspmote"),
            (b"WaspmoteLinkKey!", "Waspmote"),
            (b"you-must-replace-this", "ChirpStack"),
            (&[0; 16], "repeated"),
            (
                &[0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF],
                "OpenThread",
            ),
            (b"\x01\x02\x03\x04\x05\x06\x07\x08", "counted"),
            (b"\x01\x02\x03\x04\x05\x06\x07\x08\x09\x10\x11\x12\x13\x14\x15\x16", "counted"),
            (b"", "nothing"),
        ] {
            assert!(find(key).unwrap().what.contains(what), "{key:?}");
        }
        assert!(find_text("2b:7e:15:16:28:ae:d2:a6:ab:f7:15:88:09:cf:4f:3c").unwrap().what.contains("LoRaWAN"));
        assert!(find_text("secretPSK").unwrap().source.contains("tinydtls"));
        assert!(find_text("98677fafd6adb70c59e8d947c971150f").unwrap().what.contains("TinyOS"));
        assert_eq!(find_text("2b7e151628aed2a6abf7158809cf4f3d"), None);
        assert_eq!(find(&sha256(&[b"a key that nobody published"])), None);
    }

    #[test]
    fn every_line_of_the_table_is_whole_has_an_address_and_none_stands_twice() {
        let lines = TABLE.lines().filter(|line| !line.starts_with('#')).count();
        let all: Vec<_> = rows().collect();
        assert_eq!(all.len(), lines);
        for (digest, what, source) in &all {
            assert!(digest.len() == 64 && hex::decode(digest).is_ok(), "{digest}");
            // A claim that nobody can look up is none.
            let address = source.split_once("https://").map_or("", |(_, rest)| rest);
            assert!(what.len() > 10 && address.split('/').next().unwrap().contains('.'), "{digest} {what}: {source}");
        }
        assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted, each once");
    }
}
