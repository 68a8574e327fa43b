//! # Timestamps of others: RFC 3161 over the checkpoint in which a batch stands
//!
//! A token is walked through element by element, and nothing in it goes unlooked at: what is not signed has one form, so
//! that no altered byte passes. It adds one sentence: this authority says that the checkpoint existed then.
//!
//! Spec: docs/evidence.md 9; RFC 3161, RFC 5652, RFC 5816.

use aws_lc_rs::digest::{self, Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512};
use fivefold_core::suite::sha256;
use x509_parser::pem::Pem;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::bundle::{self, Bundle, Timestamp};
use crate::chain::{
    self, Anchor, ECDSA_SHA256, ECDSA_SHA384, ECDSA_SHA512, RSA_KEY, RSA_SHA256, RSA_SHA384, RSA_SHA512,
};
use crate::chain::{Whom, Why};
use crate::der::{self, Der, Element, NotDer, tag};
use crate::note;
use crate::tlog_proof::TlogProof;
use crate::verify::Stamped;

/// Object identifiers, contents octets.
const SIGNED_DATA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x07, 0x02];
const TST_INFO: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x10, 0x01, 0x04];
const CONTENT_TYPE: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x03];
const MESSAGE_DIGEST: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x04];
const SIGNING_CERTIFICATE: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x10, 0x02, 0x0C];
const SIGNING_CERTIFICATE_V2: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x10, 0x02, 0x2F];

const FORM: Why = "a timestamp token of another form";

impl From<NotDer> for Why {
    fn from(NotDer: NotDer) -> Self {
        FORM
    }
}

/// A hash that a token may use, with the signature algorithms that go with it.
struct Digest {
    hash: &'static Algorithm,
    ecdsa: &'static [u8],
    rsa: &'static [u8],
}

const DIGESTS: [(&[u8], Digest); 3] = [
    (
        &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01],
        Digest { hash: &SHA256, ecdsa: ECDSA_SHA256, rsa: RSA_SHA256 },
    ),
    (
        &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02],
        Digest { hash: &SHA384, ecdsa: ECDSA_SHA384, rsa: RSA_SHA384 },
    ),
    (
        &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03],
        Digest { hash: &SHA512, ecdsa: ECDSA_SHA512, rsa: RSA_SHA512 },
    ),
];

/// Checks a token over the SHA-256 `imprint`, with its certificates and revocation lists.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(stamp: &Timestamp<'_>, imprint: &[u8; 32], anchors: &[Anchor]) -> Result<Stamped, Why> {
    let token = Token::parse(stamp.token)?;
    let at = gen_time(token.info, imprint)?;
    let own = stamp.chain.first().ok_or("a timestamp without the certificate of its signer")?;
    signed(&token, own)?;
    let certified = chain::follow(&stamp.chain, anchors, Whom::Timestamps)?;
    if !certified.covers(at) {
        return Err("a certificate of the timestamp's authority was not valid when it signed");
    }
    let is_named = |c: &[u8]| stamp.chain.contains(&c) || anchors.iter().any(|a| a.der() == c);
    if !token.certificates.iter().all(|c| is_named(c)) {
        return Err("a certificate in the timestamp token is not in its list");
    }
    let mut revocation_checked = false;
    for list in &stamp.lists {
        revocation_checked |= not_listed(list, &stamp.chain, anchors, at)?;
    }
    let authority = chain::read(own)?.subject().to_string();
    Ok(Stamped { authority, at, revocation_checked })
}

/// What a timestamp of this bundle is over: SHA-256 of the signed note in its proof.
///
/// # Errors
/// When its proof is none.
pub fn imprint_of(bundle: &Bundle<'_>) -> Result<[u8; 32], note::Malformed> {
    let proof = TlogProof::parse(bundle.proof.as_bytes())?;
    Ok(sha256(&[proof.checkpoint.to_string().as_bytes()]))
}

/// The question for an authority: TimeStampReq { 1, { SHA-256, imprint }, certReq TRUE } (RFC 3161 2.4.1).
pub fn request(imprint: &[u8; 32]) -> Vec<u8> {
    let oid = DIGESTS.first().map(|(oid, _)| *oid).unwrap_or_default();
    let algorithm = der::element(tag::SEQUENCE, &[&der::element(tag::OID, &[oid]), &[tag::NULL, 0]]);
    let of = der::element(tag::SEQUENCE, &[&algorithm, &der::element(tag::OCTET_STRING, &[imprint])]);
    der::element(tag::SEQUENCE, &[&[tag::INTEGER, 1, 1], &of, &[tag::BOOLEAN, 1, 0xFF]])
}

/// The token in an authority's answer (TimeStampResp, RFC 3161 2.4.2), or the bytes themselves if they are a token. It is
/// one over `imprint`; nothing else is checked.
///
/// # Errors
/// When the authority refused, or it is something else.
pub fn token_over<'b>(answer: &'b [u8], imprint: &[u8; 32]) -> Result<&'b [u8], Why> {
    let mut parts = Der::new(answer).inside(tag::SEQUENCE)?;
    let token = if parts.is_next(tag::OID) {
        answer
    } else {
        // PKIStatusInfo: 0 granted, 1 granted with changes.
        let status = parts.inside(tag::SEQUENCE)?.take(tag::INTEGER)?.contents;
        is(matches!(status, [0 | 1]), "the authority gave no timestamp")?;
        parts.take(tag::SEQUENCE)?.whole
    };
    gen_time(Token::parse(token)?.info, imprint)?;
    Ok(token)
}

/// The certificates of a token's signer and of those above it, from the token itself and from `more`, as far as they lead;
/// the one that certifies itself is left out.
///
/// # Errors
/// When the token is none, or the signer's certificate is not there.
pub fn chain_of<'b>(token: &'b [u8], more: &'b [Vec<u8>]) -> Result<Vec<&'b [u8]>, Why> {
    let read = Token::parse(token)?;
    let mut signer = Der::new(read.signer);
    signer.take(tag::INTEGER)?;
    let name = signer.take(tag::SEQUENCE)?.contents;
    let there: Vec<&[u8]> = read.certificates.into_iter().chain(more.iter().map(Vec::as_slice)).collect();
    let own = there.iter().find(|c| issuer_and_serial(c).is_ok_and(|n| n == name));
    let mut chain = vec![*own.ok_or("it does not bring the signer's certificate; name it with --chain")?];
    while let Some(last) = chain.last().filter(|_| chain.len() < bundle::CHAIN) {
        let last = chain::read(last)?;
        let is_above = |c: &&&[u8]| {
            chain::read(c)
                .is_ok_and(|up| up.subject().as_raw() == last.issuer().as_raw() && up.issuer() != up.subject())
        };
        match there.iter().find(is_above).filter(|c| !chain.contains(*c)) {
            Some(above) => chain.push(above),
            None => break,
        }
    }
    Ok(chain)
}

/// The certificates of a PEM file, DER.
///
/// # Errors
/// When it holds something else.
pub fn certificates_in(pems: &str) -> Result<Vec<Vec<u8>>, Why> {
    const OTHER: Why = "it holds something else than certificates in PEM";
    let blocks = Pem::iter_from_buffer(pems.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(|_| OTHER)?;
    is(!blocks.is_empty() && blocks.iter().all(|b| b.label == "CERTIFICATE"), OTHER)?;
    Ok(blocks.into_iter().map(|b| b.contents).collect())
}

/// The parts of a token that are looked at.
struct Token<'b> {
    digests: &'b [u8],
    info: &'b [u8],
    certificates: Vec<&'b [u8]>,
    signer: &'b [u8],
}

impl<'b> Token<'b> {
    /// ContentInfo { signedData, [0] SignedData { 3, SET OF digest, { TSTInfo, [0] OCTET STRING }, [0]? certificates, SET
    /// of one signer } }.
    fn parse(bytes: &'b [u8]) -> Result<Self, Why> {
        let mut outer = Der::new(bytes);
        let mut content = outer.inside(tag::SEQUENCE)?;
        outer.end()?;
        is(content.take(tag::OID)?.contents == SIGNED_DATA, "a timestamp token that is no SignedData")?;
        let mut wrapped = content.inside(tag::CONTEXT_0)?;
        content.end()?;
        let mut data = wrapped.inside(tag::SEQUENCE)?;
        wrapped.end()?;
        is(data.take(tag::INTEGER)?.contents == [3], "SignedData of another version than 3")?;
        let digests = data.take(tag::SET)?.contents;
        let mut encapsulated = data.inside(tag::SEQUENCE)?;
        is(encapsulated.take(tag::OID)?.contents == TST_INFO, "SignedData over something else than a timestamp")?;
        let mut info = encapsulated.inside(tag::CONTEXT_0)?;
        encapsulated.end()?;
        let octets = info.take(tag::OCTET_STRING)?.contents;
        info.end()?;
        let mut certificates = Vec::new();
        if let Some(inside) = data.optional(tag::CONTEXT_0)? {
            let mut inside = Der::new(inside.contents);
            while !inside.is_at_end() {
                certificates.push(inside.any()?.whole);
            }
        }
        // No [1]: revocation lists stand beside the token.
        let mut signers = data.inside(tag::SET)?;
        data.end()?;
        let signer = signers.take(tag::SEQUENCE)?.contents;
        signers.end()?;
        Ok(Self { digests, info: octets, certificates, signer })
    }
}

/// TSTInfo { 1, policy, imprint, serial number, genTime, .. } (RFC 3161 2.4.2): when it was made, Unix seconds.
fn gen_time(info: &[u8], imprint: &[u8; 32]) -> Result<u64, Why> {
    let mut outer = Der::new(info);
    let mut parts = outer.inside(tag::SEQUENCE)?;
    outer.end()?;
    is(parts.take(tag::INTEGER)?.contents == [1], "a timestamp of another version than 1")?;
    parts.take(tag::OID)?;
    let mut of = parts.inside(tag::SEQUENCE)?;
    let hash = digest_of(of.inside(tag::SEQUENCE)?)?.hash;
    let found = of.take(tag::OCTET_STRING)?.contents;
    of.end()?;
    is(*hash == SHA256 && found == imprint, "a timestamp of something else than the checkpoint of the batch")?;
    parts.take(tag::INTEGER)?;
    let at = unix(parts.take(tag::GENERALIZED_TIME)?.contents).ok_or("a timestamp whose time is written otherwise")?;
    while !parts.is_at_end() {
        let part = parts.any()?;
        if part.tag == tag::CONTEXT_1 {
            no_critical(Der::new(part.contents))?;
        }
    }
    Ok(at)
}

/// Extensions ::= SEQUENCE OF { OID, BOOLEAN DEFAULT FALSE, OCTET STRING }; here without the outer head.
fn no_critical(mut extensions: Der<'_>) -> Result<(), Why> {
    while !extensions.is_at_end() {
        let mut extension = extensions.inside(tag::SEQUENCE)?;
        extension.take(tag::OID)?;
        is(!extension.is_next(tag::BOOLEAN), "a timestamp with a critical extension")?;
        extension.any()?;
    }
    Ok(())
}

/// SignerInfo { 1, issuer and serial number, digest, [0] attributes, signature algorithm, signature }.
fn signed(token: &Token<'_>, own: &[u8]) -> Result<(), Why> {
    let mut parts = Der::new(token.signer);
    is(parts.take(tag::INTEGER)?.contents == [1], "a timestamp whose signer is of another version than 1")?;
    let name = parts.take(tag::SEQUENCE)?.contents;
    is(name == issuer_and_serial(own)?, "the first certificate of a timestamp is not its signer's")?;
    let algorithm = parts.take(tag::SEQUENCE)?;
    is(algorithm.whole == token.digests, "a timestamp with other digests than its signer's")?;
    let digest = digest_of(Der::new(algorithm.contents))?;
    let attributes = parts.take(tag::CONTEXT_0)?;
    let by = parts.take(tag::SEQUENCE)?.contents;
    let signature = parts.take(tag::OCTET_STRING)?.contents;
    // Nothing after it: attributes that are not signed could be anything.
    parts.end()?;
    Attributes::parse(attributes.contents)?.check(digest.hash, token.info, own)?;

    let certificate = chain::read(own)?;
    let key = certificate.public_key();
    let is_rsa = key.algorithm.algorithm.as_bytes() == RSA_KEY;
    let (named, whole) = if is_rsa {
        let rsa = [&der::element(tag::OID, &[RSA_KEY])[..], &[tag::NULL, 0]].concat();
        (rsa, digest.rsa)
    } else {
        (der::element(tag::OID, &[digest.ecdsa]), digest.ecdsa)
    };
    is(by == named, "a timestamp whose signature algorithm does not fit the key")?;
    // What is signed is the SET OF, not the [0] in which it stands (RFC 5652 5.4).
    let message = der::element(tag::SET, &[attributes.contents]);
    chain::verify(whole, key, &message, signature).map_err(|_| "the signature of a timestamp does not hold")
}

/// The hash of an AlgorithmIdentifier's contents; parameters are absent or NULL.
fn digest_of(mut algorithm: Der<'_>) -> Result<Digest, Why> {
    let oid = algorithm.take(tag::OID)?.contents;
    if let Some(null) = algorithm.optional(tag::NULL)? {
        is(null.contents.is_empty(), FORM)?;
    }
    algorithm.end()?;
    let known = DIGESTS.into_iter().find(|(of, _)| *of == oid);
    known.map(|(_, digest)| digest).ok_or("a digest other than SHA-256, SHA-384 and SHA-512")
}

/// The issuer's name and the serial number of a certificate, as they stand in it.
fn issuer_and_serial(certificate: &[u8]) -> Result<Vec<u8>, Why> {
    let mut tbs = Der::new(certificate).inside(tag::SEQUENCE)?.inside(tag::SEQUENCE)?;
    tbs.optional(tag::CONTEXT_0)?;
    let serial = tbs.take(tag::INTEGER)?.whole;
    tbs.take(tag::SEQUENCE)?;
    Ok([tbs.take(tag::SEQUENCE)?.whole, serial].concat())
}

/// The signed attributes that count; others are signed too, and ignored.
#[derive(Default)]
struct Attributes<'b> {
    content_type: Option<&'b [u8]>,
    message_digest: Option<&'b [u8]>,
    certificate: Option<&'b [u8]>,
    certificate_v2: Option<&'b [u8]>,
}

impl<'b> Attributes<'b> {
    fn parse(bytes: &'b [u8]) -> Result<Self, Why> {
        let mut all = Self::default();
        let mut seen: Vec<&[u8]> = Vec::new();
        let mut set = Der::new(bytes);
        while !set.is_at_end() {
            let mut attribute = set.inside(tag::SEQUENCE)?;
            let name = attribute.take(tag::OID)?.contents;
            let values = attribute.take(tag::SET)?.contents;
            attribute.end()?;
            is(!seen.contains(&name), "a timestamp with a signed attribute twice")?;
            seen.push(name);
            let place = match name {
                CONTENT_TYPE => &mut all.content_type,
                MESSAGE_DIGEST => &mut all.message_digest,
                SIGNING_CERTIFICATE => &mut all.certificate,
                SIGNING_CERTIFICATE_V2 => &mut all.certificate_v2,
                _ => continue,
            };
            *place = Some(values);
        }
        Ok(all)
    }

    fn check(&self, hash: &'static Algorithm, info: &[u8], own: &[u8]) -> Result<(), Why> {
        const MISSING: Why = "a timestamp without a signed attribute that it needs";
        let content = only(self.content_type.ok_or(MISSING)?)?;
        is(content.tag == tag::OID && content.contents == TST_INFO, "a timestamp that says it is something else")?;
        let digest = only(self.message_digest.ok_or(MISSING)?)?;
        let is_of_info = digest.contents == digest::digest(hash, info).as_ref();
        is(digest.tag == tag::OCTET_STRING && is_of_info, "a timestamp that was signed over something else")?;
        let (values, mut hash, is_v2) = match (self.certificate_v2, self.certificate) {
            (Some(values), _) => (values, &SHA256, true),
            // It names a certificate that is known by other means, too: this hash need not withstand anybody.
            (None, Some(values)) => (values, &SHA1_FOR_LEGACY_USE_ONLY, false),
            (None, None) => return Err(MISSING),
        };
        // SigningCertificate { SEQUENCE OF ESSCertID, .. }: the first of them is the signer's (RFC 5816).
        let outer = only(values)?;
        is(outer.tag == tag::SEQUENCE, FORM)?;
        let mut id = Der::new(outer.contents).inside(tag::SEQUENCE)?.inside(tag::SEQUENCE)?;
        if is_v2 && id.is_next(tag::SEQUENCE) {
            hash = digest_of(id.inside(tag::SEQUENCE)?)?.hash;
        }
        let named = id.take(tag::OCTET_STRING)?.contents;
        is(named == digest::digest(hash, own).as_ref(), "a timestamp that was signed under another certificate")
    }
}

/// The one value of an attribute.
fn only(values: &[u8]) -> Result<Element<'_>, Why> {
    let mut values = Der::new(values);
    let value = values.any()?;
    values.end()?;
    Ok(value)
}

/// A revocation list is that of an issuer in this chain, and has none of its certificates with a time at or before `at`.
/// Returns whether it says that the first of them was good then: it is that one's issuer's, whole (no critical extensions), and
/// not followed by a newer one before `at`.
fn not_listed(list: &[u8], chain: &[&[u8]], anchors: &[Anchor], at: u64) -> Result<bool, Why> {
    const UNREADABLE: Why = "a revocation list beside a timestamp cannot be read";
    let (rest, read) = CertificateRevocationList::from_der(list).map_err(|_| UNREADABLE)?;
    let outer = chain::algorithm(&read.signature_algorithm)?;
    let inner = chain::algorithm(&read.tbs_cert_list.signature)?;
    let whole = chain::signed(read.tbs_cert_list.as_ref(), &outer, &read.signature_value.data);
    if !rest.is_empty() || outer != inner || whole != list {
        return Err(UNREADABLE);
    }
    let by = read.signature_algorithm.algorithm.as_bytes();
    let issuers = chain.iter().skip(1).copied().chain(anchors.iter().map(Anchor::der));
    let is_signed = issuers.filter_map(|der| chain::read(der).ok()).any(|issuer| {
        issuer.subject().as_raw() == read.issuer().as_raw()
            && chain::verify(by, issuer.public_key(), read.tbs_cert_list.as_ref(), &read.signature_value.data).is_ok()
    });
    is(is_signed, "a revocation list beside a timestamp is signed by nobody in its chain")?;
    for der in chain {
        let certificate = chain::read(der)?;
        if certificate.issuer().as_raw() != read.issuer().as_raw() {
            continue;
        }
        let revoked = read.iter_revoked_certificates().any(|r| {
            r.raw_serial() == certificate.raw_serial()
                && u64::try_from(r.revocation_date.timestamp()).unwrap_or(0) <= at
        });
        is(!revoked, "a certificate of the timestamp's authority was revoked before it signed")?;
    }
    let is_of_signer = chain.first().is_some_and(|own| {
        chain::read(own).is_ok_and(|certificate| certificate.issuer().as_raw() == read.issuer().as_raw())
    });
    let is_current =
        read.next_update().is_some_and(|next| u64::try_from(next.timestamp()).is_ok_and(|next| next >= at));
    Ok(is_of_signer && is_current && read.extensions().iter().all(|e| !e.critical))
}

/// What must hold, and what to say if it does not.
fn is(holds: bool, why: Why) -> Result<(), Why> {
    if holds { Ok(()) } else { Err(why) }
}

/// GeneralizedTime as RFC 3161 writes it, `YYYYMMDDhhmmss[.f]Z`: Unix seconds, the fraction left out.
fn unix(text: &[u8]) -> Option<u64> {
    let (digits, rest) = text.split_at_checked(14)?;
    let rest = rest.strip_suffix(b"Z")?;
    match rest {
        [] => {}
        [b'.', fraction @ ..] => {
            if fraction.last().is_none_or(|last| *last == b'0') || !fraction.iter().all(u8::is_ascii_digit) {
                return None;
            }
        }
        _ => return None,
    }
    let number = |from: usize, to: usize| {
        let part = digits.get(from..to)?;
        part.iter().try_fold(0u64, |n, d| d.is_ascii_digit().then(|| n * 10 + u64::from(d - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day == 0 || day > days || hour > 23 || minute > 59 || second > 59 || year < 1970 {
        return None;
    }
    // Days since 0000-03-01 of the proleptic Gregorian calendar: the leap day stands at the end of the year.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let since = y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    Some((since - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words;

    #[test]
    fn times_are_read_as_they_are_said() {
        for text in ["19700101000000Z", "20000229235959Z", "20260921141320Z", "21000301000000Z", "99991231235959Z"] {
            let at = unix(text.as_bytes()).unwrap();
            let said: String = words::time(at).chars().filter(|c| c.is_ascii_digit() || *c == 'Z').collect();
            assert_eq!(said, text);
        }
        assert_eq!(unix(b"20260921141320.25Z"), unix(b"20260921141320Z"));
        for text in [
            "20260921141320",
            "20260921141320.Z",
            "20260921141320.10Z",
            "20260229000000Z",
            "20261301000000Z",
            "20260100000000Z",
            "20260101240000Z",
            "20260101006000Z",
            "2026010100006 Z",
            "19691231235959Z",
            "",
        ] {
            assert_eq!(unix(text.as_bytes()), None, "{text}");
        }
    }
}
