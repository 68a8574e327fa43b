//! The operator's certificate authority (docs/protocol.md 10, 13.1): one CA signs for its roles, and each certificate can play
//! only its own.
//!
//! The cloud certifies gateways in the operator's absence, with an issuing key that the CA has certified for that and
//! nothing else: whoever steals it cannot make a cloud's certificate, nor another authority.

use std::net::IpAddr;

use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::{Did, GatewayId, Net};
use fivefold_core::proof::possession::SigningPublic;
use fivefold_core::suite::sha256;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SanType, SerialNumber, SubjectPublicKeyInfo, date_time_ymd,
};
use x509_parser::prelude::{GeneralName, Pem, parse_x509_pem};
use zeroize::Zeroizing;

use crate::enrol::Request;

use crate::vault::{VaultError, random};

/// Longest life of a certificate for TLS, in days.
pub const LONGEST_DAYS: u32 = 90;
/// Longest life of the certificate of a device's signing key, in days: five years.
pub const DEVICE_DAYS: u32 = 5 * 365;
/// Life of an issuing key's certificate, in days.
pub const ISSUER_DAYS: u32 = 5 * 365;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The library refused.
    #[error("cannot make the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A name that cannot stand in a certificate.
    #[error("`{0}` is neither a host name nor an address")]
    Name(String),
    /// The authority's own certificate cannot be read, or has ended.
    #[error("the authority's own certificate cannot be used: {0}")]
    Authority(&'static str),
    /// No randomness.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// SHA-256 of a SubjectPublicKeyInfo (DER): the name of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpkiHash(pub [u8; 32]);

impl SpkiHash {
    /// Of a SubjectPublicKeyInfo.
    pub fn of(spki: &[u8]) -> Self {
        Self(sha256(&[spki]))
    }
}

impl std::fmt::Display for SpkiHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// SubjectPublicKeyInfo (DER) of a certificate in PEM, which is looked at no further.
///
/// # Errors
/// [`CaError::Authority`] when it is no certificate.
pub fn spki_of(certificate: &str) -> Result<Vec<u8>, CaError> {
    const UNREADABLE: CaError = CaError::Authority("it is no certificate");
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).map_err(|_| UNREADABLE)?;
    pem.parse_x509().map(|x509| x509.public_key().raw.to_vec()).map_err(|_| UNREADABLE)
}

/// The certificates of a chain in PEM as DER, in their order; what is none is left out.
pub fn chain_der(chain: &str) -> Vec<Vec<u8>> {
    Pem::iter_from_buffer(chain.as_bytes()).filter_map(|pem| pem.ok().map(|p| p.contents)).collect()
}

/// A certificate that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// The certificate, and that of the issuing key after it if there is one, PEM.
    pub chain: String,
    /// Serial number, lower-case hex.
    pub serial: String,
    /// When it begins to be valid, Unix seconds.
    pub not_before: u64,
    /// When it ends, Unix seconds.
    pub not_after: u64,
    /// Which key it is for.
    pub spki: SpkiHash,
}

/// A certificate with its key, which is to be sealed.
#[derive(Debug)]
pub struct Issued {
    /// The certificate.
    pub certified: Certified,
    /// Its key, PKCS #8 DER. Secret.
    pub key: Zeroizing<Vec<u8>>,
}

/// For whom a certificate is.
#[derive(Clone, Debug)]
pub enum Role {
    /// The cloud: EKU serverAuth, its host names and addresses.
    Cloud(Vec<String>),
    /// A gateway: EKU clientAuth, SAN `urn:gw:<net>:<gw>`.
    Gateway(Net, GatewayId),
    /// A gateway's key for receipts: the same name, and no EKU, so that no TLS of ours takes it.
    Receipts(GatewayName),
    /// A device that signs its readings: no EKU, so that no TLS of ours takes it; SAN `urn:dev:mac:<did>` (RFC 9039).
    Device(Did),
}

impl Role {
    const fn longest_days(&self) -> u32 {
        match self {
            Self::Cloud(_) | Self::Gateway(..) | Self::Receipts(_) => LONGEST_DAYS,
            Self::Device(_) => DEVICE_DAYS,
        }
    }
}

/// The authority, or one of its issuing keys, with its key in memory.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    // Stands after what an issuing key certifies; the CA's own certificate is known to everybody.
    chain: String,
    ends: u64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)")
    }
}

impl Authority {
    /// A new authority. Returns it with its key (PKCS #8 DER), which is to be sealed.
    ///
    /// # Errors
    /// No randomness.
    pub fn create(name: &str) -> Result<(Self, Zeroizing<Vec<u8>>), CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let der = Zeroizing::new(key.serialize_der());
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = called(&format!("{name} CA"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2055, 1, 1));
        params.serial_number = Some(serial()?.0);
        let certificate = params.self_signed(&key)?.pem();
        Ok((Self::load(&certificate, &der)?, der))
    }

    /// The authority, or an issuing key, as it was stored.
    ///
    /// # Errors
    /// The certificate or the key is not what [`Authority::create`] or [`Authority::create_issuer`] made.
    pub fn load(certificate: &str, key: &[u8]) -> Result<Self, CaError> {
        const UNREADABLE: CaError = CaError::Authority("it is no certificate");
        let key = KeyPair::try_from(key)?;
        let (_, pem) = parse_x509_pem(certificate.as_bytes()).map_err(|_| UNREADABLE)?;
        let x509 = pem.parse_x509().map_err(|_| UNREADABLE)?;
        if x509.public_key().raw != key.subject_public_key_info() {
            return Err(CaError::Authority("it is not for this key"));
        }
        let chain = if x509.subject() == x509.issuer() { String::new() } else { certificate.to_owned() };
        let ends = u64::try_from(x509.validity().not_after.timestamp()).unwrap_or(0);
        let issuer = Issuer::from_ca_cert_pem(certificate, key)?;
        Ok(Self { issuer, certificate: certificate.to_owned(), chain, ends })
    }

    /// Its certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// When its certificate ends, Unix seconds: nothing that it certifies is valid longer.
    pub const fn ends(&self) -> u64 {
        self.ends
    }

    /// A key that certifies gateways and nothing else: no authority under it, clientAuth alone, and no DNS name nor
    /// address, so that nothing of it can be a cloud. Returns its certificate (PEM) and the key (PKCS #8 DER), which is to
    /// be sealed.
    ///
    /// # Errors
    /// A library error; no randomness.
    pub fn create_issuer(&self, now_unix_s: u64, days: u32) -> Result<(String, Zeroizing<Vec<u8>>), CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(Vec::new())?;
        let (number, text) = serial()?;
        params.serial_number = Some(number);
        params.distinguished_name = called(&format!("Fivefold gateway issuer {}", text.get(..8).unwrap_or(&text)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: Vec::new(),
            excluded_subtrees: vec![
                GeneralSubtree::DnsName(String::new()),
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ],
        });
        params.use_authority_key_identifier_extension = true;
        self.lives(&mut params, now_unix_s, days)?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok((certificate, Zeroizing::new(key.serialize_der())))
    }

    /// Issues a certificate for a new key, valid from `now_unix_s` (less five minutes, for clocks that are a little off)
    /// for `days`, at most [`LONGEST_DAYS`], or [`DEVICE_DAYS`] for a device.
    ///
    /// # Errors
    /// [`CaError::Name`]; a library error.
    pub fn issue(&self, role: &Role, now_unix_s: u64, days: u32) -> Result<Issued, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certified = self.sign(role, &key, now_unix_s, days)?;
        Ok(Issued { certified, key: Zeroizing::new(key.serialize_der()) })
    }

    /// Certifies the TLS key of a gateway's request, for the gateway that it names and with nothing else of the request.
    ///
    /// # Errors
    /// A library error.
    pub fn certify(&self, request: &Request, now_unix_s: u64, days: u32) -> Result<Certified, CaError> {
        let key = SubjectPublicKeyInfo::from_der(request.tls_spki())?;
        let name = request.name();
        self.sign(&Role::Gateway(name.net, name.gateway), &key, now_unix_s, days)
    }

    /// Certifies a gateway's key for receipts, for `days`, at most [`LONGEST_DAYS`]. That the gateway has it was looked at before.
    ///
    /// # Errors
    /// A library error.
    pub fn certify_receipts(
        &self,
        name: GatewayName,
        spki: &[u8],
        now_unix_s: u64,
        days: u32,
    ) -> Result<Certified, CaError> {
        self.sign(&Role::Receipts(name), &SubjectPublicKeyInfo::from_der(spki)?, now_unix_s, days)
    }

    /// Certifies the signing key of a device, for `days`, at most [`DEVICE_DAYS`]. That the device has it, and that the key is
    /// a good one, was looked at before.
    ///
    /// # Errors
    /// A library error.
    pub fn certify_device(
        &self,
        did: Did,
        key: &SigningPublic,
        now_unix_s: u64,
        days: u32,
    ) -> Result<Certified, CaError> {
        self.certify_classic(did, &key.spki(), now_unix_s, days)
    }

    /// The same for a hardened classic node, whose signing key is RSA (docs/protocol.md 13.4).
    ///
    /// # Errors
    /// As for [`certify_device`](Self::certify_device).
    pub fn certify_classic(&self, did: Did, spki: &[u8], now_unix_s: u64, days: u32) -> Result<Certified, CaError> {
        let key = SubjectPublicKeyInfo::from_der(spki)?;
        self.sign(&Role::Device(did), &key, now_unix_s, days)
    }

    fn sign(&self, role: &Role, key: &impl PublicKeyData, now_unix_s: u64, days: u32) -> Result<Certified, CaError> {
        let mut params = CertificateParams::new(Vec::new())?;
        match role {
            Role::Cloud(names) => {
                params.distinguished_name = called("Fivefold cloud");
                params.subject_alt_names = names.iter().map(|n| host(n)).collect::<Result<_, _>>()?;
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }
            Role::Gateway(net, gateway) => {
                params.distinguished_name = called(&format!("Fivefold gateway {gateway}"));
                params.subject_alt_names = vec![uri(format!("urn:gw:{net}:{gateway}"))?];
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }
            Role::Receipts(name) => {
                params.distinguished_name = called(&format!("Fivefold receipts of gateway {}", name.gateway));
                params.subject_alt_names = vec![uri(name.to_string())?];
            }
            Role::Device(did) => {
                params.distinguished_name = called(&format!("Fivefold device {did}"));
                params.subject_alt_names = vec![uri(format!("urn:dev:mac:{did}"))?];
            }
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        let (not_before, not_after) = self.lives(&mut params, now_unix_s, days.min(role.longest_days()))?;
        let (number, serial) = serial()?;
        params.serial_number = Some(number);
        let chain = params.signed_by(key, &self.issuer)?.pem() + &self.chain;
        Ok(Certified { chain, serial, not_before, not_after, spki: SpkiHash::of(&key.subject_public_key_info()) })
    }

    /// Sets how long a certificate is valid: from five minutes ago, and no longer than the authority itself.
    fn lives(&self, params: &mut CertificateParams, now_unix_s: u64, days: u32) -> Result<(u64, u64), CaError> {
        let from = now_unix_s.saturating_sub(300);
        let until = from.saturating_add(u64::from(days) * 86_400).min(self.ends);
        if until <= now_unix_s {
            return Err(CaError::Authority("it has ended"));
        }
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + std::time::Duration::from_secs(from);
        params.not_after = epoch + std::time::Duration::from_secs(until);
        Ok((from, until))
    }
}

/// A key of its own for gateway receipts: PKCS #8 DER and the SubjectPublicKeyInfo (DER).
///
/// # Errors
/// No randomness.
pub fn signing_key() -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok((Zeroizing::new(key.serialize_der()), key.subject_public_key_info()))
}

/// Host names and addresses in a cloud's certificate (PEM), to renew it for the same ones.
///
/// # Errors
/// [`CaError::Authority`] when it cannot be read.
pub fn names_in(certificate: &str) -> Result<Vec<String>, CaError> {
    const UNREADABLE: CaError = CaError::Authority("it is no certificate of a cloud");
    let (_, pem) = parse_x509_pem(certificate.as_bytes()).map_err(|_| UNREADABLE)?;
    let x509 = pem.parse_x509().map_err(|_| UNREADABLE)?;
    let san = x509.subject_alternative_name().map_err(|_| UNREADABLE)?.ok_or(UNREADABLE)?;
    let names = san.value.general_names.iter().map(|name| match name {
        GeneralName::DNSName(name) => Ok((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Ok(IpAddr::from([a, b, c, d]).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).map(|b| IpAddr::from(b).to_string()).map_err(|_| UNREADABLE),
        },
        _ => Err(UNREADABLE),
    });
    names.collect()
}

fn called(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

fn uri(uri: String) -> Result<SanType, CaError> {
    uri.as_str().try_into().map(SanType::URI).map_err(|_| CaError::Name(uri))
}

fn host(name: &str) -> Result<SanType, CaError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    Ok(SanType::DnsName(name.try_into().map_err(|_| CaError::Name(name.to_owned()))?))
}

/// 16 random bytes, positive and without a leading zero byte (RFC 5280 4.1.2.2).
fn serial() -> Result<(SerialNumber, String), CaError> {
    let mut bytes = *random::<16>()?;
    bytes[0] = bytes[0] & 0x7F | 0x40;
    Ok((SerialNumber::from_slice(&bytes), hex::encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_key::{DeviceAlg, DeviceSigningKey};
    use crate::enrol::Keys;
    use x509_parser::prelude::*;

    const NOW: u64 = 1_790_000_000;

    fn read<T>(pem: &str, look: impl FnOnce(&X509Certificate<'_>) -> T) -> T {
        let (_, pem) = parse_x509_pem(pem.as_bytes()).unwrap();
        look(&pem.parse_x509().unwrap())
    }

    #[test]
    fn each_role_gets_its_own_usage_and_name_and_no_other() {
        let (authority, key) = Authority::create("test").unwrap();
        let again = Authority::load(authority.certificate(), &key).unwrap();
        let gateway = again.issue(&Role::Gateway(Net(7), GatewayId(1)), NOW, 400).unwrap().certified;
        let ca = read(authority.certificate(), |ca| ca.subject().to_string());
        read(&gateway.chain, |certificate| {
            let usage = certificate.extended_key_usage().unwrap().unwrap().value;
            assert!(usage.client_auth && !usage.server_auth && !usage.any);
            let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
            assert!(matches!(names[..], [GeneralName::URI("urn:gw:00000007:00000001")]));
            let life = certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp();
            assert_eq!(life, 90 * 86_400, "no longer than ninety days, whatever is asked");
            assert_eq!(gateway.not_after - gateway.not_before, 90 * 86_400);
            assert_eq!(certificate.issuer().to_string(), ca);
            assert_eq!(hex::encode(certificate.raw_serial()), gateway.serial);
            assert_eq!(SpkiHash::of(certificate.public_key().raw), gateway.spki);
        });
        let name = GatewayName { net: Net(7), gateway: GatewayId(1) };
        let receipts = again.issue(&Role::Receipts(name), NOW, 400).unwrap().certified;
        read(&receipts.chain, |certificate| {
            assert!(certificate.extended_key_usage().unwrap().is_none() && !certificate.is_ca());
            assert_eq!(certificate.key_usage().unwrap().unwrap().value.flags, 1, "digitalSignature and nothing else");
            let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
            assert!(matches!(names[..], [GeneralName::URI("urn:gw:00000007:00000001")]));
            assert_eq!(receipts.not_after - receipts.not_before, 90 * 86_400);
        });
        let names = ["localhost", "127.0.0.1", "2001:db8::1"].map(String::from).to_vec();
        let cloud = again.issue(&Role::Cloud(names.clone()), NOW, 30).unwrap();
        assert_eq!(names_in(&cloud.certified.chain).unwrap(), names);
        assert!(names_in(&gateway.chain).is_err() && names_in("nothing").is_err());
        read(&cloud.certified.chain, |certificate| {
            let usage = certificate.extended_key_usage().unwrap().unwrap().value;
            assert!(usage.server_auth && !usage.client_auth);
        });
    }

    #[test]
    fn a_devices_certificate_names_it_signs_and_does_nothing_else() {
        let (authority, _) = Authority::create("test").unwrap();
        let did = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]);
        for alg in [DeviceAlg::P256, DeviceAlg::Ed25519] {
            let key = DeviceSigningKey::generate(alg).unwrap().0.public();
            let made = authority.certify_device(did, &key, NOW, 10_000).unwrap();
            assert_eq!(made.spki, SpkiHash::of(&key.spki()));
            looks_as_it_must(&made);
        }
    }

    fn looks_as_it_must(made: &Certified) {
        assert_eq!(made.chain.matches("BEGIN CERTIFICATE").count(), 1, "without the root that a verifier has");
        read(&made.chain, |certificate| {
            let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
            assert!(matches!(names[..], [GeneralName::URI("urn:dev:mac:acde480000000001")]));
            assert!(certificate.extended_key_usage().unwrap().is_none() && !certificate.is_ca());
            let usage = certificate.key_usage().unwrap().unwrap().value;
            assert_eq!(usage.flags, 1, "digitalSignature and nothing else");
            let life = certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp();
            assert_eq!(life, 5 * 365 * 86_400, "no longer than five years, whatever is asked");
        });
    }

    #[test]
    fn an_issuing_key_is_certified_for_gateways_alone_and_nothing_outlives_it() {
        let (authority, _) = Authority::create("test").unwrap();
        let (certificate, key) = authority.create_issuer(NOW, 20).unwrap();
        read(&certificate, |issuer| {
            let basic = issuer.basic_constraints().unwrap().unwrap().value;
            assert_eq!((basic.ca, basic.path_len_constraint), (true, Some(0)));
            let usage = issuer.extended_key_usage().unwrap().unwrap().value;
            assert!(usage.client_auth && !usage.server_auth && !usage.any);
            let names = issuer.name_constraints().unwrap().unwrap();
            assert!(names.critical && names.value.permitted_subtrees.is_none());
            assert_eq!(names.value.excluded_subtrees.as_ref().unwrap().len(), 3);
        });
        let issuer = Authority::load(&certificate, &key).unwrap();
        let name = GatewayName { net: Net(7), gateway: GatewayId(1) };
        let request = Request::parse(Keys::draw().unwrap().request(name).unwrap().as_bytes()).unwrap();
        let made = issuer.certify(&request, NOW, 90).unwrap();
        assert_eq!(made.not_after, issuer.ends());
        assert_eq!(made.spki, SpkiHash::of(request.tls_spki()));
        assert_eq!(made.chain.matches("BEGIN CERTIFICATE").count(), 2, "its own and the issuing key's");
        assert!(issuer.certify(&request, NOW + 20 * 86_400, 90).is_err());
        let (other, _) = authority.create_issuer(NOW, 20).unwrap();
        assert!(Authority::load(&other, &key).is_err(), "another key's certificate");
    }
}
