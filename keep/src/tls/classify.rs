//! Which code a failed handshake is counted under.

use std::error::Error as StdError;
use std::io;

use fivefold_core::error::{Code, Rejected};
use rustls::{AlertDescription, CertificateError, PeerIncompatible};

use super::leaf::ROLE;

const REFUSES_US: &str = "the peer refuses our certificate";

/// The code of a handshake that failed: E4-07 where no post-quantum group was in common, else E4-01; `None` when no TLS
/// error is in the chain of sources (the network failed, which is E4-05 after a while).
///
/// Takes what `tokio-rustls`, `hyper` and `reqwest` return: the TLS error is looked for inside.
pub fn classify(error: &(dyn StdError + 'static)) -> Option<Rejected> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(classify_tls(tls));
        }
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = inside.and_then(|inside| classify(inside)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Whether it is the peer that refused: our certificate, or us altogether.
pub fn refuses_us(rejected: &Rejected) -> bool {
    rejected.reason == REFUSES_US
}

/// The same for an error of rustls itself.
pub fn classify_tls(error: &rustls::Error) -> Rejected {
    use rustls::Error as E;
    let (code, reason) = match error {
        E::PeerIncompatible(PeerIncompatible::NoKxGroupsInCommon) => {
            (Code::ChannelNotHybrid, "the peer offers no X25519MLKEM768")
        }
        E::PeerMisbehaved(
            rustls::PeerMisbehaved::SelectedUnofferedKxGroup
            | rustls::PeerMisbehaved::IllegalHelloRetryRequestWithUnofferedNamedGroup,
        ) => (Code::ChannelNotHybrid, "the peer insists on a group that is no X25519MLKEM768"),
        // TLS 1.3 has this alert for one thing: no acceptable set of parameters (RFC 8446 6.2).
        E::AlertReceived(AlertDescription::HandshakeFailure) => {
            (Code::ChannelNotHybrid, "the peer takes none of our groups and suites")
        }
        E::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        )
        | E::AlertReceived(AlertDescription::ProtocolVersion) => (ROLE, "the peer speaks no TLS 1.3"),
        E::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => (ROLE, "no cipher suite in common"),
        E::NoCertificatesPresented => (ROLE, "no client certificate"),
        E::InvalidCertificate(why) => match why {
            CertificateError::Other(other) => match other.0.downcast_ref::<Rejected>() {
                Some(rejected) => (rejected.code, rejected.reason),
                None => (ROLE, "the certificate is refused"),
            },
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => (ROLE, "the certificate is expired"),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                (ROLE, "the certificate is not valid yet: is the clock right?")
            }
            CertificateError::Revoked => (ROLE, "the certificate is revoked"),
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                (ROLE, "the certificate is not of the operator's CA")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                (ROLE, "the certificate is for another name")
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                (ROLE, "the certificate is for another purpose")
            }
            _ => (ROLE, "the certificate is refused"),
        },
        E::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied,
        ) => (ROLE, REFUSES_US),
        E::InvalidMessage(_) | E::InappropriateMessage { .. } | E::InappropriateHandshakeMessage { .. } => {
            (ROLE, "what came is no TLS")
        }
        _ => (ROLE, "the TLS handshake failed"),
    };
    Rejected::new(code, reason)
}
