//! What a certificate says of its owner: role, name, validity. Nothing of its chain is looked at here.

use std::collections::HashSet;
use std::fmt;

use arc_swap::ArcSwap;
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::time::Millis;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Serial number of a certificate, as the big-endian bytes that stand in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(pub Vec<u8>);

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

/// Certificates of the cloud that gateways do not trust any more, although the CA signed them.
pub type Revoked = HashSet<Serial>;

/// The revocations that every handshake of a gateway consults: whoever learns of a new one stores a new set.
pub type LiveRevoked = ArcSwap<Revoked>;

/// What counts of a certificate beside its chain.
#[derive(Clone)]
pub(super) struct Leaf {
    pub(super) serial: Serial,
    // The only name, if it is one URI.
    uri: Option<String>,
    names: usize,
    has_uri: bool,
    client: bool,
    server: bool,
    other_purpose: bool,
    is_ca: bool,
    pub(super) not_before: Millis,
    pub(super) not_after: Millis,
}

pub(super) const ROLE: Code = Code::ChannelRefused;

impl Leaf {
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<Self, Rejected> {
        const UNREADABLE: Rejected = Rejected::new(ROLE, "the certificate cannot be read");
        let (rest, x509) = X509Certificate::from_der(certificate).map_err(|_| UNREADABLE)?;
        if !rest.is_empty() {
            return Err(UNREADABLE);
        }
        let san = x509.subject_alternative_name().map_err(|_| UNREADABLE)?;
        let names = san.map_or(&[][..], |san| &san.value.general_names);
        let uri = match names {
            [GeneralName::URI(uri)] => Some((*uri).to_owned()),
            _ => None,
        };
        let purpose = x509.extended_key_usage().map_err(|_| UNREADABLE)?.map(|eku| eku.value);
        let millis = |seconds: i64| Millis(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
        Ok(Self {
            serial: Serial(x509.raw_serial().to_vec()),
            uri,
            names: names.len(),
            has_uri: names.iter().any(|name| matches!(name, GeneralName::URI(_))),
            client: purpose.is_some_and(|p| p.client_auth),
            server: purpose.is_some_and(|p| p.server_auth),
            other_purpose: purpose.is_some_and(|p| {
                p.any
                    || p.code_signing
                    || p.email_protection
                    || p.time_stamping
                    || p.ocsp_signing
                    || !p.other.is_empty()
            }),
            is_ca: x509.is_ca(),
            not_before: millis(x509.validity().not_before.timestamp()),
            not_after: millis(x509.validity().not_after.timestamp()),
        })
    }

    /// A gateway: EKU clientAuth and nothing else, one SAN `urn:gw:<net>:<gw>` and nothing else.
    pub(super) fn gateway(&self) -> Result<GatewayName, Rejected> {
        if self.is_ca || !self.client || self.server || self.other_purpose {
            return Err(Rejected::new(ROLE, "no gateway's certificate: its purpose must be clientAuth alone"));
        }
        let uri = self.uri.as_deref().filter(|_| self.names == 1);
        uri.and_then(|uri| uri.parse().ok())
            .ok_or(Rejected::new(ROLE, "no gateway's certificate: its only name must be urn:gw:<net>:<gw>"))
    }

    /// A cloud: EKU serverAuth and nothing else, no name that is a gateway's.
    pub(super) fn cloud(&self) -> Result<(), Rejected> {
        if self.is_ca || !self.server || self.client || self.other_purpose {
            return Err(Rejected::new(ROLE, "no cloud's certificate: its purpose must be serverAuth alone"));
        }
        if self.has_uri || self.names == 0 {
            return Err(Rejected::new(ROLE, "no cloud's certificate: its names must be DNS names or addresses"));
        }
        Ok(())
    }

    pub(super) fn check_cloud(&self, revoked: &Revoked) -> Result<(), Rejected> {
        self.cloud()?;
        if revoked.contains(&self.serial) {
            return Err(Rejected::new(ROLE, "the cloud's certificate is revoked"));
        }
        Ok(())
    }
}
