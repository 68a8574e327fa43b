//! # Chains: whose key it is, as the pinned operator says
//!
//! X.509 (RFC 5280) as far as it is needed and no further. Of each certificate every byte counts: what is signed is
//! covered by the signature, and what stands around it has one form, so that no altered byte passes.
//!
//! | Refused | when |
//! |---|---|
//! | a certificate | it is not DER, not version 3, its outer algorithm is not the inner one, or it has a critical extension that is not known here |
//! | the first one | it may sign certificates, has an extended key usage that is not its role's, may not sign, or bears another name |
//! | any other | it may not sign certificates, or not over so many others |
//! | the chain | a name or a signature does not lead on, or it does not end under a pinned authority |
//!
//! Spec: docs/evidence.md 8.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use fivefold_core::id::{Did, GatewayId, Net};
use fivefold_core::proof::P256_SPKI;
use x509_parser::asn1_rs::Tag;
use x509_parser::prelude::{
    ExtendedKeyUsage, FromDer, GeneralName, NameConstraints, ParsedExtension, SubjectPublicKeyInfo, X509Certificate,
    X509Version,
};
use x509_parser::x509::AlgorithmIdentifier;

use crate::der::{self, tag};

/// Object identifiers (contents octets) of the signature algorithms that occur.
pub(crate) const ECDSA_SHA256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02];
pub(crate) const ECDSA_SHA384: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x03];
pub(crate) const ECDSA_SHA512: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x04];
pub(crate) const RSA_SHA256: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0B];
pub(crate) const RSA_SHA384: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0C];
pub(crate) const RSA_SHA512: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0D];
/// SubjectPublicKeyInfo of a key on P-384, up to its point.
const P384_SPKI: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01, 0x06, 0x05, 0x2B, 0x81, 0x04, 0x00,
    0x22, 0x03, 0x62, 0x00,
];

/// Why a chain is refused: one sentence.
pub type Why = &'static str;

/// For whom the first certificate must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whom {
    /// A device: SAN `urn:dev:mac:<did>`, no extended key usage anywhere.
    Device(Did),
    /// A gateway: SAN `urn:gw:<net>:<gw>`, no extended key usage or clientAuth alone.
    Gateway(Net, GatewayId),
    /// An authority of timestamps: timeStamping alone, critical (RFC 3161 2.3).
    Timestamps,
}

/// A pinned authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    der: Vec<u8>,
}

impl Anchor {
    /// From its certificate (DER).
    ///
    /// # Errors
    /// When it is no certificate of an authority.
    pub fn from_der(der: &[u8]) -> Result<Self, Why> {
        let certificate = read(der)?;
        if !certificate.basic_constraints().map_err(|_| DOUBLED)?.is_some_and(|c| c.value.ca) {
            return Err("it has no CA bit");
        }
        Ok(Self { der: der.to_vec() })
    }

    /// Its certificate (DER).
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SubjectPublicKeyInfo (DER) of its key.
    pub fn spki(&self) -> Vec<u8> {
        read(&self.der).map(|c| c.public_key().raw.to_vec()).unwrap_or_default()
    }
}

/// What a chain says, once it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// SubjectPublicKeyInfo (DER) of the key.
    pub spki: Vec<u8>,
    /// All of its certificates are valid from then on, Unix seconds.
    pub from: u64,
    /// And until then, Unix seconds.
    pub until: u64,
}

impl Certified {
    /// Whether all certificates of the chain were valid at that time (Unix seconds).
    pub const fn covers(&self, unix_s: u64) -> bool {
        self.from <= unix_s && unix_s <= self.until
    }
}

/// Follows a chain, the certificate of `whom` first and the pinned one left out, to one of the pinned authorities.
///
/// # Errors
/// The first thing that is wrong.
pub fn follow(chain: &[&[u8]], anchors: &[Anchor], whom: Whom) -> Result<Certified, Why> {
    let certificates = chain.iter().map(|der| read(der)).collect::<Result<Vec<_>, _>>()?;
    if chain.iter().any(|der| anchors.iter().any(|a| a.der == *der)) {
        return Err("the pinned authority's own certificate is in the chain");
    }
    let (first, above) = certificates.split_first().ok_or("the chain has no certificate")?;
    end(first, whom)?;
    for (below, certificate) in above.iter().enumerate() {
        let longest = authority(certificate)?.ok_or("a certificate in the chain has no CA bit")?;
        if longest.is_some_and(|l| below as u64 > u64::from(l)) {
            return Err("a certificate stands above more certificates than it may");
        }
        constrained(certificate, whom)?;
    }
    for (lower, upper) in certificates.iter().zip(above) {
        issued(lower, upper.subject().as_raw(), upper.public_key(), whom)?;
    }
    let last = certificates.last().unwrap_or(first);
    let mut why = "it does not end under a pinned authority";
    for anchor in anchors {
        // Its dates and extensions are not looked at: whoever pinned it trusts its key.
        let anchor = read(&anchor.der)?;
        if anchor.subject().as_raw() != last.issuer().as_raw() {
            continue;
        }
        match issued(last, anchor.subject().as_raw(), anchor.public_key(), whom) {
            Ok(()) => {
                let seconds = |t: i64| u64::try_from(t).unwrap_or(0);
                let from = certificates.iter().map(|c| seconds(c.validity().not_before.timestamp())).max();
                let until = certificates.iter().map(|c| seconds(c.validity().not_after.timestamp())).min();
                return Ok(Certified {
                    spki: first.public_key().raw.to_vec(),
                    from: from.unwrap_or(u64::MAX),
                    until: until.unwrap_or(0),
                });
            }
            Err(e) => why = e,
        }
    }
    Err(why)
}

/// Reads a certificate in its one form.
pub(crate) fn read(der: &[u8]) -> Result<X509Certificate<'_>, Why> {
    const UNREADABLE: Why = "a certificate cannot be read";
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| UNREADABLE)?;
    if !rest.is_empty() || certificate.version() != X509Version::V3 {
        return Err(UNREADABLE);
    }
    let inner = &certificate.tbs_certificate.signature;
    let outer = algorithm(&certificate.signature_algorithm)?;
    if algorithm(inner)? != outer {
        return Err("the algorithm outside of a certificate is not the one inside");
    }
    // What the signature does not cover is written once more, and must come out as it was.
    if signed(certificate.tbs_certificate.as_ref(), &outer, &certificate.signature_value.data) != der {
        return Err("a certificate is not in DER");
    }
    certificate.tbs_certificate.extensions_map().map_err(|_| DOUBLED)?;
    for extension in certificate.extensions() {
        let parsed = extension.parsed_extension();
        let is_known = matches!(
            parsed,
            ParsedExtension::BasicConstraints(_)
                | ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::KeyUsage(_)
                | ParsedExtension::NameConstraints(_)
                | ParsedExtension::SubjectAlternativeName(_)
        );
        if matches!(parsed, ParsedExtension::ParseError { .. }) {
            return Err(UNREADABLE);
        }
        if extension.critical && !is_known {
            return Err("a certificate has a critical extension that is not known here");
        }
    }
    Ok(certificate)
}

/// `SEQUENCE { contents, algorithm, BIT STRING signature }`: the outside of certificates and of revocation lists.
pub(crate) fn signed(contents: &[u8], algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    let bits = der::element(tag::BIT_STRING, &[&[0], signature]);
    der::element(tag::SEQUENCE, &[contents, algorithm, &bits])
}

/// An AlgorithmIdentifier of ours in DER.
pub(crate) fn algorithm(read: &AlgorithmIdentifier<'_>) -> Result<Vec<u8>, Why> {
    const OTHER: Why = "a certificate is signed by an algorithm that is not taken here";
    let oid = read.algorithm.as_bytes();
    let parameters: &[u8] = match oid {
        ECDSA_SHA256 | ECDSA_SHA384 | ECDSA_SHA512 if read.parameters.is_none() => &[],
        RSA_SHA256 | RSA_SHA384 | RSA_SHA512 => &[tag::NULL, 0],
        _ => return Err(OTHER),
    };
    Ok(der::element(tag::SEQUENCE, &[&der::element(tag::OID, &[oid]), parameters]))
}

/// Checks a signature of the key over the message; `by` is an object identifier.
pub(crate) fn verify(by: &[u8], key: &SubjectPublicKeyInfo<'_>, message: &[u8], signature: &[u8]) -> Result<(), Why> {
    const OTHER_KEY: Why = "a signature is by an algorithm that does not fit the key";
    let is_rsa = key.algorithm.algorithm.as_bytes() == RSA_KEY
        && key.algorithm.parameters.as_ref().is_some_and(|p| p.tag() == Tag::Null && p.data.is_empty());
    // A point in full, 04 ‖ x ‖ y: the length of the whole says so, but for the first byte.
    let is_point = key.subject_public_key.data.first() == Some(&4);
    let is_p256 = is_point && key.raw.starts_with(&P256_SPKI);
    let is_p384 = is_point && key.raw.starts_with(&P384_SPKI);
    let by: &'static dyn VerificationAlgorithm = match by {
        ECDSA_SHA256 if is_p256 => &ECDSA_P256_SHA256_ASN1,
        ECDSA_SHA384 if is_p256 => &ECDSA_P256_SHA384_ASN1,
        ECDSA_SHA512 if is_p256 => &ECDSA_P256_SHA512_ASN1,
        ECDSA_SHA256 if is_p384 => &ECDSA_P384_SHA256_ASN1,
        ECDSA_SHA384 if is_p384 => &ECDSA_P384_SHA384_ASN1,
        ECDSA_SHA512 if is_p384 => &ECDSA_P384_SHA512_ASN1,
        RSA_SHA256 if is_rsa => &RSA_PKCS1_2048_8192_SHA256,
        RSA_SHA384 if is_rsa => &RSA_PKCS1_2048_8192_SHA384,
        RSA_SHA512 if is_rsa => &RSA_PKCS1_2048_8192_SHA512,
        _ => return Err(OTHER_KEY),
    };
    UnparsedPublicKey::new(by, &*key.subject_public_key.data)
        .verify(message, signature)
        .map_err(|_| "a signature does not hold")
}

/// rsaEncryption.
pub(crate) const RSA_KEY: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01];

/// `lower` bears the issuer's name and signature.
fn issued(lower: &X509Certificate<'_>, issuer: &[u8], key: &SubjectPublicKeyInfo<'_>, whom: Whom) -> Result<(), Why> {
    if lower.issuer().as_raw() != issuer {
        return Err("a certificate names another issuer than the one above it");
    }
    let by = lower.signature_algorithm.algorithm.as_bytes();
    if whom != Whom::Timestamps && !(by == ECDSA_SHA256 && key.raw.starts_with(&P256_SPKI)) {
        return Err("an operator signs by ECDSA on P-256 with SHA-256");
    }
    verify(by, key, lower.tbs_certificate.as_ref(), &lower.signature_value.data)
        .map_err(|_| "the signature of a certificate does not hold")
}

/// Whether it may sign certificates: how many others may stand between it and the end, if that is limited.
fn authority(certificate: &X509Certificate<'_>) -> Result<Option<Option<u32>>, Why> {
    let Some(constraints) = certificate.basic_constraints().map_err(|_| DOUBLED)?.filter(|c| c.value.ca) else {
        return Ok(None);
    };
    let may_sign = certificate.key_usage().map_err(|_| DOUBLED)?.is_some_and(|u| u.value.key_cert_sign());
    Ok(may_sign.then_some(constraints.value.path_len_constraint))
}

const DOUBLED: Why = "a certificate has an extension twice";

/// What the certificate of an authority forbids to those below it.
fn constrained(certificate: &X509Certificate<'_>, whom: Whom) -> Result<(), Why> {
    if let Some(usage) = certificate.extended_key_usage().map_err(|_| DOUBLED)? {
        let allows = match whom {
            Whom::Device(_) => false,
            Whom::Gateway(..) => is_only(usage.value, |u| u.client_auth),
            Whom::Timestamps => usage.value.time_stamping || usage.value.any,
        };
        if !allows {
            return Err("a certificate in the chain may not certify for this role");
        }
    }
    let names = certificate.name_constraints().map_err(|_| DOUBLED)?;
    if names.is_some_and(|n| concern_others(n.value)) {
        return Err("a certificate in the chain has constraints on names that are not known here");
    }
    Ok(())
}

/// Names of ours are URIs, and those of authorities of timestamps are directory names: what excludes host names and addresses alone
/// does not concern them.
fn concern_others(constraints: &NameConstraints<'_>) -> bool {
    let of_hosts = |base: &GeneralName<'_>| matches!(base, GeneralName::DNSName(_) | GeneralName::IPAddress(_));
    constraints.permitted_subtrees.is_some()
        || constraints.excluded_subtrees.iter().flatten().any(|tree| !of_hosts(&tree.base))
}

/// The first certificate of a chain.
fn end(certificate: &X509Certificate<'_>, whom: Whom) -> Result<(), Why> {
    if certificate.basic_constraints().map_err(|_| DOUBLED)?.is_some_and(|c| c.value.ca) {
        return Err("the certificate of the key may sign certificates");
    }
    let may_sign = certificate.key_usage().map_err(|_| DOUBLED)?;
    let may_sign = may_sign.is_some_and(|u| u.value.digital_signature() && !u.value.key_cert_sign());
    if certificate.name_constraints().map_err(|_| DOUBLED)?.is_some() {
        return Err("the certificate of the key has constraints on names");
    }
    let usage = certificate.extended_key_usage().map_err(|_| DOUBLED)?;
    let uri = match whom {
        Whom::Device(did) => {
            if usage.is_some() {
                return Err("the certificate of a device has an extended key usage");
            }
            format!("urn:dev:mac:{did}")
        }
        Whom::Gateway(net, gateway) => {
            if !usage.is_none_or(|u| is_only(u.value, |u| u.client_auth)) {
                return Err("the certificate of a gateway is for clientAuth and nothing else");
            }
            format!("urn:gw:{net}:{gateway}")
        }
        Whom::Timestamps => {
            if !usage.is_some_and(|u| u.critical && is_only(u.value, |u| u.time_stamping)) {
                return Err("the certificate of the authority is not for timestamps and nothing else");
            }
            return Ok(());
        }
    };
    if !may_sign {
        return Err("the certificate of the key is not for signatures");
    }
    let names = certificate.subject_alternative_name().map_err(|_| DOUBLED)?;
    let names = names.as_ref().map(|n| &n.value.general_names[..]).unwrap_or_default();
    match names {
        [GeneralName::URI(name)] if *name == uri => Ok(()),
        _ => Err("the certificate bears another name"),
    }
}

/// One usage, and no other.
fn is_only(usage: &ExtendedKeyUsage<'_>, this: impl Fn(&ExtendedKeyUsage<'_>) -> bool) -> bool {
    let all = [
        usage.any,
        usage.server_auth,
        usage.client_auth,
        usage.code_signing,
        usage.email_protection,
        usage.time_stamping,
        usage.ocsp_signing,
    ];
    this(usage) && all.iter().filter(|set| **set).count() == 1 && usage.other.is_empty()
}
