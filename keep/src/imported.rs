//! Public keys that came from outside: what is looked at before one is entered in the book (docs/protocol.md 11.1, AR-08).
//!
//! A good key cannot be told from its looks, a bad one often can: no point of the curve, a private key that everybody can
//! guess, bytes that no random generator gave.

use std::collections::HashSet;
use std::sync::OnceLock;

use fivefold_core::id::Did;
use fivefold_core::proof::P256_SPKI;
use fivefold_core::proof::possession::SigningPublic;
use fivefold_core::suite::agreement::{Agree as _, PublicX};

use crate::device_key::{is_weak, public_of};
use crate::sign::{AgreementKey, x_of_point};

/// Why a public key was refused. Each is one sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefused {
    /// Not hex digits.
    #[error("the key is not in hex digits")]
    Hex,
    /// Of another length.
    #[error(
        "the key has {0} bytes: expected the x coordinate (32), a compressed point (33), an uncompressed one (65), or a \
         SubjectPublicKeyInfo (91)"
    )]
    Length(usize),
    /// The point at infinity.
    #[error("the key is the point at infinity, which has no secret half")]
    Infinity,
    /// It looks like a private key.
    #[error(
        "this looks like a private key: that never leaves its device; give the public one, and let the device make a new key"
    )]
    Private,
    /// On no point of the curve.
    #[error("the key is no point of the curve P-256; was it cut, or is it the private key?")]
    OffCurve,
    /// Of small order, or in another form than its only one.
    #[error("this Ed25519 key is of small order, or in another form than its only one: under it anybody signs")]
    SmallOrder,
    /// Everybody can guess its private half.
    #[error("everybody knows the private half of this key: it is from a test, or a number that can be guessed (AR-08)")]
    Guessable,
    /// Its bytes are not random.
    #[error("the bytes of this key are not random: repeated, counted up, text, or made of the device's own id (AR-08)")]
    LowEntropy,
}

/// Reads a public P-256 key in hex, in any form that tools write, and looks at it.
///
/// # Errors
/// [`KeyRefused`].
pub fn read(text: &str, did: Did) -> Result<PublicX, KeyRefused> {
    let text = text.trim();
    if text.contains("PRIVATE KEY") {
        return Err(KeyRefused::Private);
    }
    let bytes = hex::decode(text.replace([':', ' '], "")).map_err(|_| KeyRefused::Hex)?;
    let point = bytes.strip_prefix(&P256_SPKI).unwrap_or(&bytes);
    let x = match point {
        [0] => return Err(KeyRefused::Infinity),
        // PKCS #8 and SEC1 begin so, and nothing that is public.
        [0x30, ..] if !matches!(point.len(), 32 | 33 | 65) => return Err(KeyRefused::Private),
        [2 | 3, ..] if point.len() == 33 => x_of_point(point).map_err(|_| KeyRefused::OffCurve)?,
        [4, ..] if point.len() == 65 => x_of_point(point).map_err(|_| KeyRefused::OffCurve)?,
        _ => match <[u8; 32]>::try_from(point) {
            Ok(x) => PublicX(x),
            Err(_) if matches!(point.len(), 33 | 65) => return Err(KeyRefused::OffCurve),
            Err(_) => return Err(KeyRefused::Length(bytes.len())),
        },
    };
    examine(x, did)
}

/// Looks at a public key, which is given back if nothing is wrong with it.
///
/// # Errors
/// [`KeyRefused`].
pub fn examine(x: PublicX, did: Did) -> Result<PublicX, KeyRefused> {
    if x.0 == [0; 32] {
        return Err(KeyRefused::Infinity);
    }
    if is_made_up(&x.0, did) {
        return Err(KeyRefused::LowEntropy);
    }
    if guessable().contains(&x.0) {
        return Err(KeyRefused::Guessable);
    }
    let mut compressed = [2; 33];
    compressed[1..].copy_from_slice(&x.0);
    x_of_point(&compressed).map_err(|_| KeyRefused::OffCurve)
}

/// Looks at the public half of a signing key.
///
/// # Errors
/// [`KeyRefused`].
pub fn examine_signing(key: &SigningPublic, did: Did) -> Result<(), KeyRefused> {
    let point = match key {
        SigningPublic::P256(point) => point,
        // That it is a point at all is shown by the proof of its device, which nobody gives for another 32 bytes.
        SigningPublic::Ed25519(key) if is_made_up(key, did) => return Err(KeyRefused::LowEntropy),
        SigningPublic::Ed25519(key) if guessable_ed25519().contains(key) => return Err(KeyRefused::Guessable),
        SigningPublic::Ed25519(key) if is_weak(key) => return Err(KeyRefused::SmallOrder),
        SigningPublic::Ed25519(_) => return Ok(()),
    };
    examine(point.x(), did)?;
    let mut sec1 = [4; 65];
    sec1[1..].copy_from_slice(&point.0);
    x_of_point(&sec1).map(|_| ()).map_err(|_| KeyRefused::OffCurve)
}

/// Whether no generator gave these bytes. A random key looks so once in more than 10^13.
fn is_made_up(bytes: &[u8; 32], did: Did) -> bool {
    let different: HashSet<u8> = bytes.iter().copied().collect();
    let (first, second) = (bytes[0], bytes[1]);
    let step = second.wrapping_sub(first);
    different.len() <= 12
        || bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ')
        || bytes.iter().zip(&bytes[1..]).all(|(a, b)| b.wrapping_sub(*a) == step)
        || bytes.windows(8).any(|w| w == did.0)
}

/// Private keys of published examples: RFC 9529 (EDHOC, method 3, both sides), RFC 6979 A.2.5, and the vectors of
/// docs/protocol.md (counted up, below).
const PUBLISHED: [&str; 3] = [
    "fb13adeb6518cee5f88417660841142e830a81fe334380a953406a1305e8706b",
    "72cc4761dbd4c78f758931aa589d348d1ef874a7e303ede2f140dcf3e6aa4aac",
    "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721",
];

/// Private keys of the published examples of Ed25519: RFC 8032 7.1, of which the first is that of RFC 8037 too.
const PUBLISHED_ED25519: [&str; 5] = [
    "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
    "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
    "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
    "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
    "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
];

/// Private keys that can be guessed: small numbers, one byte repeated, and bytes counted up.
fn simple() -> impl Iterator<Item = [u8; 32]> {
    let small = (1..=1024u16).map(|n| {
        let mut scalar = [0; 32];
        scalar[30..].copy_from_slice(&n.to_be_bytes());
        scalar
    });
    let repeated = (0..=u8::MAX).map(|b| [b; 32]);
    let counted = (0..=u8::MAX).map(|start| std::array::from_fn(|i| start.wrapping_add(i as u8)));
    small.chain(repeated).chain(counted)
}

fn published<'a>(hex: &'a [&str]) -> impl Iterator<Item = [u8; 32]> + 'a {
    hex.iter().filter_map(|h| hex::decode(h).ok()?.try_into().ok())
}

/// Public keys of private ones that can be guessed.
fn guessable() -> &'static HashSet<[u8; 32]> {
    static GUESSABLE: OnceLock<HashSet<[u8; 32]>> = OnceLock::new();
    GUESSABLE.get_or_init(|| {
        let scalars = simple().chain(published(&PUBLISHED));
        scalars.filter_map(|s| AgreementKey::from_random(&s)).map(|k| k.public_x().0).collect()
    })
}

/// The same of Ed25519.
fn guessable_ed25519() -> &'static HashSet<[u8; 32]> {
    static GUESSABLE: OnceLock<HashSet<[u8; 32]>> = OnceLock::new();
    GUESSABLE.get_or_init(|| {
        // A number may begin with its low byte, too.
        let turned = |mut seed: [u8; 32]| {
            seed.reverse();
            seed
        };
        let seeds = simple().chain(simple().map(turned)).chain(published(&PUBLISHED_ED25519));
        seeds.filter_map(|s| public_of(&s)).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::draw_key;

    const DID: Did = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]);

    #[test]
    fn a_key_is_read_in_every_form_that_tools_write() {
        let (key, _) = draw_key().unwrap();
        let x = key.public_x();
        for text in [x.to_string(), format!("02{x}"), format!(" 03{x}\n"), x.to_string().to_uppercase()] {
            assert_eq!(read(&text, DID), Ok(x), "{text}");
        }
        let (pair, _) = crate::sign::SigningKey::generate().unwrap();
        let spki = hex::encode(pair.spki());
        let point = &spki[2 * P256_SPKI.len()..];
        assert_eq!(read(&spki, DID), read(point, DID));
        assert!(read(point, DID).is_ok());
        let mut bent = point.to_owned();
        let last = if bent.ends_with('0') { "1" } else { "0" };
        bent.replace_range(129.., last);
        assert_eq!(read(&bent, DID), Err(KeyRefused::OffCurve), "x of a point, with another y");
    }

    #[test]
    fn what_is_no_key_or_a_weak_one_is_refused_by_name() {
        let of = |scalar: [u8; 32]| AgreementKey::from_random(&scalar).unwrap().public_x().to_string();
        let mut three = [0; 32];
        three[31] = 3;
        let (_, scalar) = draw_key().unwrap();
        let mut own = *scalar;
        own[8..16].copy_from_slice(&DID.0);
        let cases = [
            ("", KeyRefused::Length(0)),
            ("00", KeyRefused::Infinity),
            (&"00".repeat(32), KeyRefused::Infinity),
            ("xyz", KeyRefused::Hex),
            (&"ab".repeat(31), KeyRefused::Length(31)),
            (&format!("05{}", of(three)), KeyRefused::OffCurve),
            ("-- PRIVATE KEY --", KeyRefused::Private),
            (&format!("3077020101{}", "ab".repeat(116)), KeyRefused::Private),
            (&of(three), KeyRefused::Guessable),
            (&of([0x42; 32]), KeyRefused::Guessable),
            (&of(std::array::from_fn(|i| 0x80 + i as u8)), KeyRefused::Guessable),
            (&of(hex::decode(PUBLISHED[0]).unwrap().try_into().unwrap()), KeyRefused::Guessable),
            (&"a5".repeat(32), KeyRefused::LowEntropy),
            (&hex::encode(b"correct horse battery staple now"), KeyRefused::LowEntropy),
            (&hex::encode(std::array::from_fn::<u8, 32, _>(|i| (7 * i) as u8)), KeyRefused::LowEntropy),
            (&hex::encode(own), KeyRefused::LowEntropy),
        ];
        for (text, why) in cases {
            assert_eq!(read(text, DID), Err(why), "{text}");
        }
        let (mut refused, mut x) = (0, [0x37; 32]);
        for n in 0..40u8 {
            x = fivefold_core::suite::sha256(&[&x, &[n]]);
            refused += usize::from(read(&hex::encode(x), DID) == Err(KeyRefused::OffCurve));
        }
        assert!((5..35).contains(&refused), "about half of all x are on no point: {refused}");
    }

    #[test]
    fn a_signing_key_that_anybody_may_have_is_refused_by_name() {
        use crate::device_key::{DeviceAlg, DeviceSigningKey};
        for alg in [DeviceAlg::P256, DeviceAlg::Ed25519] {
            assert_eq!(examine_signing(&DeviceSigningKey::generate(alg).unwrap().0.public(), DID), Ok(()));
        }
        let of = |seed: [u8; 32]| public_of(&seed).unwrap();
        let mut three = [0; 32];
        three[31] = 3;
        let mut small = hex::decode("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85").unwrap();
        small.truncate(32);
        for (key, why) in [
            (of(three), KeyRefused::Guessable),
            (of([0; 32]), KeyRefused::Guessable),
            (of(published(&PUBLISHED_ED25519).next().unwrap()), KeyRefused::Guessable),
            ([0x5A; 32], KeyRefused::LowEntropy),
            (small.try_into().unwrap(), KeyRefused::SmallOrder),
        ] {
            assert_eq!(examine_signing(&SigningPublic::Ed25519(key), DID), Err(why), "{key:02x?}");
        }
        // The public key of that seed, as RFC 8032 has it.
        let first = of(published(&PUBLISHED_ED25519).next().unwrap());
        assert_eq!(hex::encode(first), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    }
}
