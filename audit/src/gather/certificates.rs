//! Certificates in PEM files.

use std::path::Path;

use x509_parser::pem::Pem;
use x509_parser::public_key::PublicKey;

use crate::facts::{Certificate, Facts, Rsa};
use crate::rule::Subject;

/// Certificates to a file, at most.
const MOST: usize = 100;
/// How one begins.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
/// Signature algorithms with a broken hash, and which.
const BROKEN: [(&str, &str); 4] = [
    ("1.2.840.113549.1.1.2", "MD2"),
    ("1.2.840.113549.1.1.4", "MD5"),
    ("1.2.840.113549.1.1.5", "SHA-1"),
    ("1.2.840.10045.4.1", "SHA-1"),
];

/// Looks at the certificates of a PEM file.
pub(super) fn look(path: &Path, bytes: &[u8], facts: &mut Facts) {
    let begun = String::from_utf8_lossy(bytes).lines().filter(|line| line.starts_with(BEGIN)).count();
    let mut read = 0;
    // What is damaged is no part, and is missed below.
    let parts = Pem::iter_from_buffer(bytes).take(MOST).flatten();
    for pem in parts.filter(|pem| pem.label == "CERTIFICATE") {
        let Ok(certificate) = pem.parse_x509() else { continue };
        read += 1;
        let oid = certificate.signature_algorithm.algorithm.to_id_string();
        let broken = BROKEN.iter().find(|(known, _)| *known == oid).map(|(_, hash)| *hash);
        facts.certificates.push(Certificate { path: path.to_owned(), broken });
        rsa(Subject::file(path), certificate.public_key(), facts);
    }
    if read < begun {
        facts.unread.push(format!(
            "{} holds {begun} certificate(s), of which {} cannot be read: damaged, or beyond the first {MOST} parts",
            path.display(),
            begun - read
        ));
    }
}

/// Takes a public key up, if it is one of RSA.
pub(super) fn rsa(subject: Subject, key: &x509_parser::x509::SubjectPublicKeyInfo<'_>, facts: &mut Facts) {
    if let Ok(PublicKey::RSA(key)) = key.parsed() {
        let (modulus, exponent) = (key.modulus.to_vec(), key.exponent.to_vec());
        facts.rsa.push(Rsa { subject, modulus, exponent });
    }
}

/// When the first certificate of a PEM file begins and ends, Unix seconds.
pub(super) fn life(bytes: &[u8]) -> Option<(u64, u64)> {
    let pem = Pem::iter_from_buffer(bytes).next()?.ok()?;
    let certificate = pem.parse_x509().ok()?;
    let validity = certificate.validity();
    let time = |t: x509_parser::time::ASN1Time| u64::try_from(t.timestamp()).ok();
    Some((time(validity.not_before)?, time(validity.not_after)?))
}
