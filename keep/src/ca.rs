//! The operator's certificate authority (docs/protocol.md 10): one CA signs for three roles, and each certificate can play
//! only its own.

use std::net::IpAddr;

use fivefold_core::id::{GatewayId, Net};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber, date_time_ymd,
};
use zeroize::Zeroizing;

use crate::vault::{VaultError, random};

/// Longest life of an end certificate, in days.
pub const LONGEST_DAYS: u32 = 90;

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The library refused.
    #[error("cannot make the certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A name that cannot stand in a certificate.
    #[error("`{0}` is neither a host name nor an address")]
    Name(String),
    /// No randomness.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// A certificate and its key, as they are stored: the key is to be sealed.
#[derive(Debug)]
pub struct Issued {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its key, PKCS #8 DER. Secret.
    pub key: Zeroizing<Vec<u8>>,
    /// Serial number, lower-case hex.
    pub serial: String,
}

/// For whom a certificate is.
#[derive(Clone, Debug)]
pub enum Role {
    /// The cloud: EKU serverAuth, its host names and addresses.
    Cloud(Vec<String>),
    /// A gateway: EKU clientAuth, SAN `urn:gw:<net>:<gw>`.
    Gateway(Net, GatewayId),
}

/// The authority, with its key in memory.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
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
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2055, 1, 1));
        params.serial_number = Some(serial()?.0);
        let certificate = params.self_signed(&key)?.pem();
        Ok((Self { issuer: Issuer::new(params, key), certificate }, der))
    }

    /// The authority as it was stored.
    ///
    /// # Errors
    /// The certificate or the key is not what [`Authority::create`] made.
    pub fn load(certificate: &str, key: &[u8]) -> Result<Self, CaError> {
        let key = KeyPair::try_from(key)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key)?;
        Ok(Self { issuer, certificate: certificate.to_owned() })
    }

    /// Its certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues a certificate for a new key, valid from `now_unix_s` (less five minutes, for clocks that are a little off)
    /// for `days`, at most [`LONGEST_DAYS`].
    ///
    /// # Errors
    /// [`CaError::Name`]; a library error.
    pub fn issue(&self, role: &Role, now_unix_s: u64, days: u32) -> Result<Issued, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let (mut params, usage) = match role {
            Role::Cloud(names) => {
                let mut params = CertificateParams::new(Vec::new())?;
                params.distinguished_name = called("Fivefold cloud");
                params.subject_alt_names = names.iter().map(|n| host(n)).collect::<Result<_, _>>()?;
                (params, ExtendedKeyUsagePurpose::ServerAuth)
            }
            Role::Gateway(net, gateway) => {
                let uri = format!("urn:gw:{net}:{gateway}");
                let mut params = CertificateParams::new(Vec::new())?;
                params.distinguished_name = called(&format!("Fivefold gateway {gateway}"));
                params.subject_alt_names =
                    vec![SanType::URI(uri.as_str().try_into().map_err(|_| CaError::Name(uri.clone()))?)];
                (params, ExtendedKeyUsagePurpose::ClientAuth)
            }
        };
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        let from = i64::try_from(now_unix_s).unwrap_or(i64::MAX / 2) - 300;
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + std::time::Duration::from_secs(from.unsigned_abs());
        let life = std::time::Duration::from_secs(u64::from(days.min(LONGEST_DAYS)) * 86_400);
        params.not_after = params.not_before + life;
        let (number, text) = serial()?;
        params.serial_number = Some(number);
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: Zeroizing::new(key.serialize_der()), serial: text })
    }
}

/// A key of its own for gateway receipts: PKCS #8 DER and the SubjectPublicKeyInfo (DER).
///
/// # Errors
/// No randomness.
pub fn signing_key() -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), CaError> {
    use rcgen::PublicKeyData as _;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok((Zeroizing::new(key.serialize_der()), key.subject_public_key_info()))
}

fn called(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
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
    use x509_parser::prelude::*;

    const NOW: u64 = 1_790_000_000;

    #[test]
    fn each_role_gets_its_own_usage_and_name_and_no_other() {
        let (authority, key) = Authority::create("test").unwrap();
        let again = Authority::load(authority.certificate(), &key).unwrap();
        let gateway = again.issue(&Role::Gateway(Net(7), GatewayId(1)), NOW, 400).unwrap();
        let (_, pem) = parse_x509_pem(gateway.certificate.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert!(matches!(names[..], [GeneralName::URI("urn:gw:00000007:00000001")]));
        let life = certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp();
        assert_eq!(life, 90 * 86_400, "no longer than ninety days, whatever is asked");
        let (_, ca) = parse_x509_pem(authority.certificate().as_bytes()).unwrap();
        let ca = ca.parse_x509().unwrap();
        assert_eq!(certificate.issuer(), ca.subject());

        let cloud = again.issue(&Role::Cloud(vec!["localhost".into(), "127.0.0.1".into()]), NOW, 30).unwrap();
        let (_, pem) = parse_x509_pem(cloud.certificate.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth);
    }
}
