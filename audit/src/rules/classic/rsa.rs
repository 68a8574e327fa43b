//! RSA keys: size, exponent, and what several have in common.

use fivefold_core::suite::sha256;
use num_bigint::BigUint;

use crate::facts::{Facts, Rsa};
use crate::rule::{Found, Subject};

/// Bits that a modulus must have.
const BITS: usize = 2048;
/// Keys that are compared with each other, at most.
const MOST: usize = 512;
/// The longest modulus that is reckoned with, in bits.
const LONGEST: usize = 16_384;

/// Whose key it is, and which of his: named by its modulus.
fn subject(key: &Rsa) -> Subject {
    let name = sha256(&[&key.modulus]);
    key.subject.clone().on(hex::encode(name.get(..8).unwrap_or_default()))
}

pub(super) fn small(facts: &Facts, found: &mut Found) {
    for key in &facts.rsa {
        let bits = key.bits();
        if bits >= BITS {
            found.good();
            continue;
        }
        found.bad(
            subject(key),
            format!("the RSA key of {} has {bits} bits", key.subject),
            "make one of 2048 bits or more",
        );
    }
}

pub(super) fn bad(facts: &Facts, found: &mut Found) {
    for key in &facts.rsa {
        if BigUint::from_bytes_be(&key.exponent) < BigUint::from(65_537_u32) {
            found.bad(
                subject(key),
                format!("the RSA key of {} has a public exponent below 65537", key.subject),
                "make it anew, with exponent 65537",
            );
        } else {
            found.good();
        }
    }
    let (looked_at, left) = facts.rsa.split_at(facts.rsa.len().min(MOST));
    if !left.is_empty() {
        let needs = format!("time: {MOST} RSA keys are compared with each other, and {} more are not", left.len());
        found.unknown(Subject::deployment(), needs);
    }
    let (looked_at, long): (Vec<&Rsa>, Vec<&Rsa>) = looked_at.iter().partition(|k| k.bits() <= LONGEST);
    for key in long {
        found.unknown(key.subject.clone(), format!("time: its RSA key has more than {LONGEST} bits"));
    }
    for (key, shares) in looked_at.iter().zip(common(&looked_at)) {
        if let Some(what) = shares {
            found.bad(
                subject(key),
                format!("the RSA key of {} has {what} with another one here: both private keys are known", key.subject),
                "make both anew, on another machine",
            );
        }
    }
}

/// What each modulus has in common with the others, all at once: gcd(n, P / n mod n), where P is the product of all.
fn common(keys: &[&Rsa]) -> Vec<Option<&'static str>> {
    let zero = BigUint::ZERO;
    let one = BigUint::from(1_u8);
    let moduli: Vec<BigUint> = keys.iter().map(|k| BigUint::from_bytes_be(&k.modulus)).collect();
    let product = moduli.iter().filter(|n| **n > one).fold(one.clone(), |p, n| p * n);
    let of = |n: &BigUint| {
        if *n <= one {
            return None;
        }
        let rest = (&product % (n * n)) / n;
        let mut pair = (n.clone(), rest);
        while pair.1 != zero {
            let next = &pair.0 % &pair.1;
            pair = (pair.1, next);
        }
        match pair.0 {
            divisor if divisor == one => None,
            divisor if divisor == *n => Some("its modulus in common"),
            _ => Some("a prime in common"),
        }
    };
    moduli.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(modulus: u64) -> Rsa {
        Rsa { subject: Subject::cloud(), modulus: modulus.to_be_bytes().to_vec(), exponent: vec![1, 0, 1] }
    }

    #[test]
    fn a_common_prime_and_a_common_modulus_are_told_apart() {
        let keys = [key(101 * 103), key(107 * 109), key(101 * 113), key(127 * 131), key(127 * 131), key(0), key(1)];
        let keys: Vec<&Rsa> = keys.iter().collect();
        let prime = Some("a prime in common");
        let modulus = Some("its modulus in common");
        assert_eq!(common(&keys), [prime, None, prime, modulus, modulus, None, None]);
        assert_eq!(common(&[]), []);
    }

    #[test]
    fn bits_are_counted_from_the_first_that_is_set() {
        assert_eq!(key(0).bits(), 0);
        assert_eq!(key(1).bits(), 1);
        assert_eq!(key(0x1_0000).bits(), 17);
    }
}
