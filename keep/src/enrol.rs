//! What a gateway asks a certificate with, and what it is told with it (docs/protocol.md 10.1): its keys are made where
//! they stay, and a request shows that whoever asks has them.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::suite::sha256;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::prelude::{FromDer as _, GeneralName, ParsedExtension};
use zeroize::Zeroizing;

use crate::ca::{CaError, SpkiHash};
use crate::sign::VerifyingKey;
use crate::vault::{VaultError, random};

/// Bytes of a request, at most: two PKCS #10 requests of P-256 keys have about 1000.
pub const REQUEST_BYTES: usize = 8 * 1024;

/// The AlgorithmIdentifier ecdsa-with-SHA256, which has no parameters (RFC 5758 3.2).
const ECDSA_WITH_SHA256: [u8; 12] = [0x30, 0x0A, 0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x04, 0x03, 0x02];

/// The two keys of a gateway, PKCS #8 DER. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Keys {
    /// Of its TLS certificate.
    pub tls: Zeroizing<Vec<u8>>,
    /// For receipts.
    pub receipts: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// Two new keys on P-256.
    ///
    /// # Errors
    /// No randomness.
    pub fn draw() -> Result<Self, CaError> {
        let draw = || -> Result<_, CaError> {
            Ok(Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_der()))
        };
        Ok(Self { tls: draw()?, receipts: draw()? })
    }

    /// A request for `name`: PEM, two PKCS #10 requests (RFC 2986), the TLS key's first. Each is signed with its own key.
    ///
    /// # Errors
    /// A key is none.
    pub fn request(&self, name: GatewayName) -> Result<String, CaError> {
        let mut pem = String::new();
        for key in [&self.tls, &self.receipts] {
            let key = KeyPair::try_from(key.as_slice())?;
            let mut params = CertificateParams::new(Vec::new())?;
            let uri = name.to_string();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, format!("Fivefold gateway {}", name.gateway));
            params.subject_alt_names =
                vec![SanType::URI(uri.as_str().try_into().map_err(|_| CaError::Name(uri.clone()))?)];
            pem.push_str(&params.serialize_request(&key)?.pem()?);
        }
        Ok(pem)
    }
}

/// Why no certificate is issued: each is counted as E4-01, and told to whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.reason())]
pub enum Refused {
    /// The gateway is revoked, or was never registered.
    Gateway,
    /// A key that is no ECDSA key on P-256, RSA for one.
    KeyKind,
    /// One of the keys was certified before, or both are one.
    KeyUsed,
    /// Not two PKCS #10 requests in PEM, or something else is asked for than a gateway's name.
    Malformed,
    /// It asks for another network or gateway.
    Name,
    /// The request is not signed with the key that it is about.
    Signature,
    /// The token is too old.
    TokenExpired,
    /// There is no such token.
    TokenUnknown,
    /// The token was used, for other keys.
    TokenUsed,
    /// Too many in a short time.
    TooMany,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Gateway,
        Self::KeyKind,
        Self::KeyUsed,
        Self::Malformed,
        Self::Name,
        Self::Signature,
        Self::TokenExpired,
        Self::TokenUnknown,
        Self::TokenUsed,
        Self::TooMany,
    ];

    /// One word for programs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gateway => "gateway-refused",
            Self::KeyKind => "request-key-kind",
            Self::KeyUsed => "request-key-used",
            Self::Malformed => "request-malformed",
            Self::Name => "request-name",
            Self::Signature => "request-signature",
            Self::TokenExpired => "token-expired",
            Self::TokenUnknown => "token-unknown",
            Self::TokenUsed => "token-used",
            Self::TooMany => "too-many",
        }
    }

    /// One sentence for people.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Gateway => "this gateway is revoked, or was never registered",
            Self::KeyKind => "both keys must be ECDSA keys on P-256",
            Self::KeyUsed => "one of these keys was certified before: draw two new ones",
            Self::Malformed => "a request is two PKCS #10 requests in PEM, each for urn:gw:<net>:<gw> and nothing else",
            Self::Name => "the request is for another network or gateway",
            Self::Signature => "the request is not signed with the key that it is about",
            Self::TokenExpired => "the token is too old: ask the operator for another (fivefold gateway invite)",
            Self::TokenUnknown => "there is no such token here: ask the operator for one (fivefold gateway invite)",
            Self::TokenUsed => "the token was used already: ask the operator for another (fivefold gateway invite)",
            Self::TooMany => "too many requests: wait a minute",
        }
    }

    /// As it is counted.
    pub const fn rejected(self) -> Rejected {
        Rejected::new(Code::ChannelRefused, self.reason())
    }
}

/// A request that was checked: whoever made it has both keys, and asks for one gateway's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    name: GatewayName,
    tls: Vec<u8>,
    receipts: Vec<u8>,
}

impl Request {
    /// Checks what came: PEM with two PKCS #10 requests, and nothing else of PEM.
    ///
    /// # Errors
    /// [`Refused::Malformed`], [`Refused::KeyKind`], [`Refused::Signature`], [`Refused::KeyUsed`] where both keys are one,
    /// [`Refused::Name`] where both name another gateway.
    pub fn parse(pem: &[u8]) -> Result<Self, Refused> {
        if pem.len() > REQUEST_BYTES {
            return Err(Refused::Malformed);
        }
        let blocks = CertificateSigningRequestDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let [tls, receipts] = blocks.map_err(|_| Refused::Malformed)?.try_into().map_err(|_| Refused::Malformed)?;
        let ((tls, name), (receipts, other)) = (proven(&tls)?, proven(&receipts)?);
        if name != other {
            return Err(Refused::Name);
        }
        if tls == receipts {
            return Err(Refused::KeyUsed);
        }
        Ok(Self { name, tls, receipts })
    }

    /// Which gateway it is for.
    pub const fn name(&self) -> GatewayName {
        self.name
    }

    /// SubjectPublicKeyInfo of the TLS key.
    pub fn tls_spki(&self) -> &[u8] {
        &self.tls
    }

    /// SubjectPublicKeyInfo of the key for receipts.
    pub fn receipts_spki(&self) -> &[u8] {
        &self.receipts
    }

    /// Names of both keys.
    pub fn keys(&self) -> [SpkiHash; 2] {
        [SpkiHash::of(&self.tls), SpkiHash::of(&self.receipts)]
    }
}

/// The key of one PKCS #10 request, which signed it, and the name that it asks for.
fn proven(der: &[u8]) -> Result<(Vec<u8>, GatewayName), Refused> {
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| Refused::Malformed)?;
    if !rest.is_empty() {
        return Err(Refused::Malformed);
    }
    let info = &request.certification_request_info;
    let spki = info.subject_pki.raw;
    if !VerifyingKey::from_spki(spki).is_ok_and(|key| key.is_p256()) {
        return Err(Refused::KeyKind);
    }
    // The parser takes some other spellings of what the signature does not cover: only the one of DER is taken here.
    let spelled = [info.raw, &ECDSA_WITH_SHA256].concat();
    if !der.windows(spelled.len()).take(5).any(|w| w == spelled) || request.signature_value.unused_bits != 0 {
        return Err(Refused::Signature);
    }
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, info.subject_pki.subject_public_key.data.as_ref())
        .verify(info.raw, request.signature_value.data.as_ref())
        .map_err(|_| Refused::Signature)?;
    let [attribute] = info.attributes() else { return Err(Refused::Malformed) };
    let ParsedCriAttribute::ExtensionRequest(wanted) = attribute.parsed_attribute() else {
        return Err(Refused::Malformed);
    };
    let [extension] = &wanted.extensions[..] else { return Err(Refused::Malformed) };
    let ParsedExtension::SubjectAlternativeName(san) = extension.parsed_extension() else {
        return Err(Refused::Malformed);
    };
    let [GeneralName::URI(uri)] = &san.general_names[..] else { return Err(Refused::Malformed) };
    Ok((spki.to_vec(), uri.parse().map_err(|_| Refused::Malformed)?))
}

/// A token that lets one gateway ask for its first certificate, once: `ffg_<net>_<gw>_<64 hex digits>`, 256 random bits.
/// Wiped when dropped, never printed but by [`Token::danger_text`].
pub struct Token {
    name: GatewayName,
    text: Zeroizing<String>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.name)
    }
}

/// What is no enrolment token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no enrolment token: expected ffg_<net>_<gw>_<64 hex digits>, as fivefold gateway invite wrote it")]
pub struct NoToken;

impl Token {
    /// A new one for a gateway.
    ///
    /// # Errors
    /// No randomness.
    pub fn draw(name: GatewayName) -> Result<Self, VaultError> {
        let secret = Zeroizing::new(hex::encode(random::<32>()?.as_slice()));
        Ok(Self { name, text: Zeroizing::new(format!("ffg_{}_{}_{}", name.net, name.gateway, *secret)) })
    }

    /// Whose it is.
    pub const fn name(&self) -> GatewayName {
        self.name
    }

    /// SHA-256 of it: what is kept.
    pub fn hash(&self) -> [u8; 32] {
        sha256(&[self.text.as_bytes()])
    }

    /// The token itself, to be handed over or sent.
    pub fn danger_text(&self) -> &str {
        &self.text
    }
}

impl FromStr for Token {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let rest = text.strip_prefix("ffg_").ok_or(NoToken)?;
        let (net, rest) = rest.split_once('_').ok_or(NoToken)?;
        let (gateway, secret) = rest.split_once('_').ok_or(NoToken)?;
        let name = format!("urn:gw:{net}:{gateway}").parse().map_err(|_| NoToken)?;
        if secret.len() != 64 || !secret.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(NoToken);
        }
        Ok(Self { name, text: Zeroizing::new(text.to_owned()) })
    }
}

/// What a gateway is told when it is enrolled: TOML, the same over the wire and in a file. No secret is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Its name, for people.
    pub name: String,
    /// Gateway id, 8 hex digits: as in the certificate.
    pub id: String,
    /// Network id, 8 hex digits: as in the certificate.
    pub net: String,
    /// Gateway group, 8 hex digits.
    pub group: String,
    /// EUI-64 of its radio, 16 hex digits.
    pub did: String,
    /// Short address of its radio, 4 hex digits.
    pub sid: String,
    /// PAN id, 4 hex digits.
    pub pan: String,
    /// The operator's CA, PEM.
    pub ca: String,
    /// Its certificate, and that of the issuing key after it, PEM.
    pub certificate: String,
}

/// Bytes of a grant, at most.
pub const GRANT_BYTES: usize = 64 * 1024;

impl Grant {
    /// As text.
    pub fn emit(&self) -> String {
        // Strings alone: there is nothing that TOML has no form for.
        toml::to_string(self).unwrap_or_default()
    }

    /// Reads one.
    ///
    /// # Errors
    /// One sentence about what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > GRANT_BYTES {
            return Err(format!("a grant has at most {GRANT_BYTES} bytes"));
        }
        crate::format::from_toml("this grant", text).map_err(|e| e.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fivefold_core::id::{GatewayId, Net};
    use rcgen::{BasicConstraints, IsCa, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm};

    const NAME: GatewayName = GatewayName { net: Net(7), gateway: GatewayId(0xA1) };

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        params
    }

    fn one(kind: &'static SignatureAlgorithm, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = params(&NAME.to_string());
        change(&mut params);
        params.serialize_request(&KeyPair::generate_for(kind).unwrap()).unwrap().pem().unwrap()
    }

    fn good() -> String {
        one(&PKCS_ECDSA_P256_SHA256, |_| {})
    }

    fn refused(pem: &str) -> Refused {
        Request::parse(pem.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_request_is_for_the_keys_that_signed_it() {
        let keys = Keys::draw().unwrap();
        let request = Request::parse(keys.request(NAME).unwrap().as_bytes()).unwrap();
        assert_eq!(request.name(), NAME);
        let spki = crate::sign::SigningKey::from_pkcs8(&keys.receipts).unwrap().spki().to_vec();
        assert_eq!(request.receipts_spki(), spki);
        assert_ne!(request.tls_spki(), request.receipts_spki());
        assert_eq!(format!("{keys:?}"), "Keys(..)");
    }

    #[test]
    fn every_changed_byte_of_a_request_is_refused() {
        let pem = good();
        let [block] = &CertificateSigningRequestDer::pem_slice_iter(pem.as_bytes()).collect::<Vec<_>>()[..] else {
            panic!()
        };
        let der = block.as_ref().unwrap().as_ref();
        assert!(proven(der).is_ok());
        let mut by_signature = 0;
        for at in 0..der.len() {
            let mut changed = der.to_vec();
            changed[at] ^= 1;
            let Err(refused) = proven(&changed) else { panic!("byte {at} of {} counts for nothing", der.len()) };
            by_signature += usize::from(refused == Refused::Signature);
            assert!(proven(&der[..at]).is_err(), "cut at {at}");
        }
        assert!(by_signature > 100, "{by_signature}");
        assert!(proven(&[der, &[0]].concat()).is_err());
    }

    #[test]
    fn a_key_that_is_not_on_p256_is_refused() {
        for kind in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519, &PKCS_RSA_SHA256] {
            let bad = one(kind, |_| {});
            assert_eq!(refused(&(bad.clone() + &good())), Refused::KeyKind, "{kind:?}");
            assert_eq!(refused(&(good() + &bad)), Refused::KeyKind, "{kind:?}");
        }
    }

    #[test]
    fn a_request_that_asks_for_more_than_a_gateways_name_is_refused() {
        use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
        let p256 = &PKCS_ECDSA_P256_SHA256;
        let odd = [
            one(p256, |p| p.subject_alt_names.clear()),
            one(p256, |p| p.subject_alt_names = vec![SanType::DnsName("cloud.example".try_into().unwrap())]),
            one(p256, |p| p.subject_alt_names.push(SanType::DnsName("cloud.example".try_into().unwrap()))),
            one(p256, |p| p.extended_key_usages = vec![ServerAuth]),
            one(p256, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            one(p256, |p| *p = params("urn:gw:00000007:000000A1")),
        ];
        for (i, odd) in odd.iter().enumerate() {
            assert_eq!(refused(&(odd.clone() + &good())), Refused::Malformed, "{i}");
        }
    }

    #[test]
    fn a_request_has_two_different_keys_and_one_name() {
        let keys = Keys::draw().unwrap();
        let same = Keys { receipts: keys.tls.clone(), ..keys };
        assert_eq!(refused(&same.request(NAME).unwrap()), Refused::KeyUsed);
        let elsewhere = one(&PKCS_ECDSA_P256_SHA256, |p| *p = params("urn:gw:00000008:000000a1"));
        assert_eq!(refused(&(good() + &elsewhere)), Refused::Name);
        for text in [String::new(), good(), good() + &good() + &good(), "-----BEGIN CERTIFICATE REQUEST-----".into()] {
            assert_eq!(refused(&text), Refused::Malformed);
        }
        assert_eq!(refused(&(good() + &good() + &"\n".repeat(REQUEST_BYTES))), Refused::Malformed);
    }

    #[test]
    fn a_token_names_its_gateway_and_prints_nothing_else() {
        let token = Token::draw(NAME).unwrap();
        let again: Token = token.danger_text().parse().unwrap();
        assert_eq!((again.name(), again.hash()), (NAME, token.hash()));
        assert_eq!(format!("{token:?}"), "Token(urn:gw:00000007:000000a1)");
        assert_ne!(Token::draw(NAME).unwrap().hash(), token.hash());
        let text = token.danger_text();
        for wrong in ["", "ff_00", &text[1..], &text[..text.len() - 1], &text.to_uppercase(), &format!("{text} ")] {
            assert!(wrong.parse::<Token>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_grant_is_read_as_it_was_written_and_nothing_unknown_is_taken() {
        let text = |t: &str| t.to_owned();
        let grant = Grant {
            name: text("north"),
            id: text("000000a1"),
            net: text("00000007"),
            group: text("00000007"),
            did: text("0202020202020202"),
            sid: text("0001"),
            pan: text("4321"),
            ca: text("-----BEGIN\nX\n"),
            certificate: text("c"),
        };
        assert_eq!(Grant::parse(&grant.emit()).unwrap(), grant);
        assert!(Grant::parse(&(grant.emit() + "more = 1\n")).unwrap_err().contains("unknown field"));
        assert!(Grant::parse(&grant.emit().replace("pan", "pam")).is_err());
    }

    #[test]
    fn every_refusal_has_a_word_of_its_own() {
        let words: std::collections::HashSet<_> = Refused::ALL.iter().map(|r| r.word()).collect();
        assert_eq!(words.len(), Refused::ALL.len());
        assert!(Refused::ALL.iter().all(|r| r.rejected().code == Code::ChannelRefused));
    }
}
