//! The file that carries a gateway's state to a site without a cloud (docs/protocol.md, "Gateway state"): written by the
//! operator's command, read by one gateway and by nobody else.
//!
//! `"FVG1" ‖ net(4) ‖ gw(4) ‖ x of an ephemeral key(32) ‖ AES-256-GCM(K, parts) ‖ signature(64)`. K comes of the ephemeral key
//! and the gateway's own, `parts` is each part of the state behind its length in 4 bytes, and the signature is the CA's over
//! all before it. K is used once, so the nonce is zero. What an older file says is refused by the version in the state.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::{GatewayId, Net};
use fivefold_core::proof::{Sign as _, Verify as _};
use fivefold_core::suite::agreement::{Agree as _, PublicX};
use fivefold_core::suite::{hkdf_expand, hmac_sha256};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::registry::draw_key;
use crate::sign::{AgreementKey, SigningKey, VerifyingKey};
use crate::vault::VaultError;

/// File name of the sealed DH key of a gateway that agrees keys alone.
pub const LOCAL_KEY_FILE: &str = "local-key.sealed";
/// File name of the state that the operator's command writes for it.
pub const STATE_FILE: &str = "site.state";
/// What names its key in the handshake: the cloud's is 00.
pub const LOCAL_KID: u8 = 1;

const MAGIC: &[u8; 4] = b"FVG1";
/// First bytes in any format: a digit follows.
const FAMILY: &[u8; 3] = b"FVG";
const HEAD: usize = MAGIC.len() + 4 + 4 + 32;
const SIGNATURE: usize = 64;

/// Why such a file is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SiteError {
    /// Not of this form.
    #[error("it is no state of a gateway; write it with: fivefold gateway state")]
    Malformed,
    /// It has a later format.
    #[error(
        "it has format {0}, and this gateway knows format 1; upgrade the gateway, then it takes the state by itself"
    )]
    Newer(char),
    /// The operator's CA did not sign it.
    #[error("it is not signed by the operator whose CA certificate this gateway has")]
    Signature,
    /// It is another gateway's.
    #[error("it is for {0}, another gateway")]
    OtherGateway(GatewayName),
    /// It was sealed for another key.
    #[error("it does not open: it was written for another key than this gateway has; see: fivefold gateway local")]
    Sealed,
    /// The state did not seal.
    #[error("the gateway's public key is none, or the system gave no randomness")]
    Failed,
}

impl From<VaultError> for SiteError {
    fn from(_: VaultError) -> Self {
        Self::Failed
    }
}

/// Seals the parts of a state for one gateway, under the operator's word.
///
/// # Errors
/// [`SiteError::Failed`].
pub fn seal(
    ca: &SigningKey,
    name: GatewayName,
    to: &PublicX,
    parts: &[Zeroizing<Vec<u8>>],
) -> Result<Vec<u8>, SiteError> {
    let (ephemeral, _) = draw_key()?;
    let from = ephemeral.public_x();
    let mut body = Zeroizing::new(Vec::new());
    for part in parts {
        let len = u32::try_from(part.len()).map_err(|_| SiteError::Failed)?;
        body.extend_from_slice(&len.to_be_bytes());
        body.extend_from_slice(part);
    }
    let mut out = [&MAGIC[..], &name.net.to_bytes(), &name.gateway.0.to_be_bytes(), &from.0].concat();
    let key = key(&ephemeral, to, &from, to)?;
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key([0; NONCE_LEN]), Aad::from(&out), &mut body)
        .map_err(|_| SiteError::Failed)?;
    out.extend_from_slice(&body);
    out.extend_from_slice(tag.as_ref());
    let signature = ca.sign(&[&out]).map_err(|_| SiteError::Failed)?;
    out.extend_from_slice(&signature.0);
    Ok(out)
}

/// Opens what [`seal`] sealed: the parts of a state. `ca` is PEM, with one certificate of the operator's or, while it is
/// replaced, two.
///
/// # Errors
/// [`SiteError`].
pub fn open(
    ca: &[u8],
    name: GatewayName,
    own: &AgreementKey,
    file: &[u8],
) -> Result<Vec<Zeroizing<Vec<u8>>>, SiteError> {
    if let Some(digit @ b'2'..=b'9') = file.strip_prefix(FAMILY).and_then(|rest| rest.first()) {
        return Err(SiteError::Newer(char::from(*digit)));
    }
    let (signed, signature) = file.split_last_chunk::<SIGNATURE>().ok_or(SiteError::Malformed)?;
    let (head, body) = signed.split_first_chunk::<HEAD>().ok_or(SiteError::Malformed)?;
    let rest = head.strip_prefix(MAGIC).ok_or(SiteError::Malformed)?;
    let (net, rest) = rest.split_first_chunk::<4>().ok_or(SiteError::Malformed)?;
    let (gateway, from) = rest.split_first_chunk::<4>().ok_or(SiteError::Malformed)?;
    let from = PublicX(from.try_into().map_err(|_| SiteError::Malformed)?);
    let by_ca = CertificateDer::pem_slice_iter(ca)
        .filter_map(Result::ok)
        .filter_map(|certificate| VerifyingKey::from_certificate(&certificate).ok())
        .any(|key| key.verify(&[signed], signature).is_ok());
    if !by_ca {
        return Err(SiteError::Signature);
    }
    let whose = GatewayName { net: Net::from_bytes(*net), gateway: GatewayId(u32::from_be_bytes(*gateway)) };
    if whose != name {
        return Err(SiteError::OtherGateway(whose));
    }
    let mut body = Zeroizing::new(body.to_vec());
    let key = key(own, &from, &from, &own.public_x())?;
    let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
    let mut rest: &[u8] = key.open_in_place(nonce, Aad::from(head), &mut body).map_err(|_| SiteError::Sealed)?;
    let mut parts = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let len = usize::try_from(u32::from_be_bytes(*len)).map_err(|_| SiteError::Malformed)?;
        let (part, after) = after.split_at_checked(len).ok_or(SiteError::Malformed)?;
        parts.push(Zeroizing::new(part.to_vec()));
        rest = after;
    }
    if rest.is_empty() { Ok(parts) } else { Err(SiteError::Malformed) }
}

/// K: HKDF (RFC 5869) over the agreed x, with both public keys as info.
fn key(own: &AgreementKey, peer: &PublicX, from: &PublicX, to: &PublicX) -> Result<LessSafeKey, SiteError> {
    let shared = own.agree(peer).map_err(|_| SiteError::Failed)?;
    let prk = Zeroizing::new(hmac_sha256(b"fivefold gateway state v1", &[shared.danger_bytes()]));
    let key = Zeroizing::new(hkdf_expand::<32>(&prk, &[&from.0, &to.0]));
    let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| SiteError::Failed)?;
    Ok(LessSafeKey::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::Authority;

    const NAME: GatewayName = GatewayName { net: Net(7), gateway: GatewayId(1) };

    fn operator() -> (String, SigningKey) {
        let (authority, key) = Authority::create("test").unwrap();
        (authority.certificate().to_owned(), SigningKey::from_pkcs8(&key).unwrap())
    }

    #[test]
    fn one_gateway_opens_what_its_operator_wrote_and_nobody_else_and_nothing_else() {
        let ((ca, signing), (other_ca, other_signing)) = (operator(), operator());
        let [own, other] = [7, 9].map(|n| AgreementKey::from_random(&[n; 32]).unwrap());
        let parts = [vec![1; 300], Vec::new(), vec![2; 5]].map(Zeroizing::new);
        let file = seal(&signing, NAME, &own.public_x(), &parts).unwrap();
        assert_eq!(open(ca.as_bytes(), NAME, &own, &file).unwrap(), parts);
        assert!(!file.windows(32).any(|w| w == [1; 32]));
        let both = other_ca.clone() + &ca;
        assert!(open(both.as_bytes(), NAME, &own, &file).is_ok(), "while a CA is replaced");
        assert_eq!(open(other_ca.as_bytes(), NAME, &own, &file), Err(SiteError::Signature));
        assert_eq!(open(ca.as_bytes(), NAME, &other, &file), Err(SiteError::Sealed));
        let elsewhere = GatewayName { gateway: GatewayId(2), ..NAME };
        assert_eq!(open(ca.as_bytes(), elsewhere, &own, &file), Err(SiteError::OtherGateway(NAME)));
        let forged = seal(&other_signing, NAME, &own.public_x(), &parts).unwrap();
        assert_eq!(open(ca.as_bytes(), NAME, &own, &forged), Err(SiteError::Signature));
        for at in [0, 4, 8, 12, HEAD, file.len() - SIGNATURE - 1, file.len() - 1] {
            let mut changed = file.clone();
            changed[at] ^= 1;
            assert!(open(ca.as_bytes(), NAME, &own, &changed).is_err(), "byte {at}");
        }
        for len in 0..file.len() {
            assert!(open(ca.as_bytes(), NAME, &own, &file[..len]).is_err());
        }
    }
}
