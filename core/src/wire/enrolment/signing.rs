//! How a signing key is asked for: beside the DH key in a request for enrolment, or by itself once the device is enrolled.

use super::{Fingerprint, SIGNING, key, kind};
use crate::error::SealError;
use crate::id::Did;
use crate::proof::Signature;
use crate::proof::possession::{Possession, SigningPublic};
use crate::suite::agreement::PublicX;
use crate::wire::cbor::{Malformed, Reader, Writer};

/// Bytes of item 6, at most: key, head, signing key, proof.
pub(super) const ITEM: usize = 1 + 1 + 2 * 66;

pub(super) const DAMAGED: Malformed = Malformed::new("the request was damaged");
const UNKNOWN: Malformed = Malformed::new("enrolment: an item is missing or unknown");

/// What an enrolled device asks with to have its signing key certified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigningRequest {
    /// Its EUI-64.
    pub did: Did,
    /// Its public DH key, if it has one.
    pub x: Option<PublicX>,
    /// When it was written, Unix seconds; a device without a clock leaves it out.
    pub made: Option<u64>,
    /// The signing key. The proof is still to be checked.
    pub signing: Possession,
}

impl SigningRequest {
    /// Bytes of one, at most.
    pub const LONGEST: usize = 1 + 2 + 10 + 35 + 10 + 10 + ITEM;

    /// What a person compares at both ends.
    pub fn fingerprint(&self) -> Fingerprint {
        let x = self.x.as_ref().map_or(&[][..], |x| &x.0);
        Fingerprint::of(&[&self.did.0, x, self.signing.key.as_bytes()])
    }

    /// Reads one, and nothing after it.
    ///
    /// # Errors
    /// When it is none, or was damaged.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        const OTHER: Malformed = Malformed::new("not a request to certify a signing key");
        let mut r = Reader::new(bytes);
        let items = r.map().map_err(|_| OTHER)?;
        kind(&mut r, SIGNING, OTHER)?;
        key(&mut r, 2)?;
        let did = Did(*r.bytes_of()?);
        let mut rest = r.clone();
        let x = match rest.unsigned()? {
            3 => {
                r = rest;
                Some(PublicX(*r.bytes_of()?))
            }
            _ => None,
        };
        let (made, fingerprint, signing) = tail(&mut r)?;
        r.end()?;
        let signing = signing.ok_or(OTHER)?;
        if items != 4 + u64::from(x.is_some()) + u64::from(made.is_some()) {
            return Err(OTHER);
        }
        let request = Self { did, x, made, signing };
        if request.fingerprint() == fingerprint { Ok(request) } else { Err(DAMAGED) }
    }

    /// Writes it, and returns how many bytes it took.
    ///
    /// # Errors
    /// When `out` is too small; [`SigningRequest::LONGEST`] bytes suffice.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, SealError> {
        let mut w = Writer::new(out);
        w.map(4 + usize::from(self.x.is_some()) + usize::from(self.made.is_some()))?;
        w.unsigned(1u8)?;
        w.unsigned(SIGNING)?;
        w.unsigned(2u8)?;
        w.bytes(&self.did.0)?;
        if let Some(x) = &self.x {
            w.unsigned(3u8)?;
            w.bytes(&x.0)?;
        }
        emit_tail(&mut w, self.made, self.fingerprint(), Some(&self.signing))?;
        Ok(w.len())
    }
}

type Tail = (Option<u64>, Fingerprint, Option<Possession>);

/// Items 4 to 6, to the end of the map.
pub(super) fn tail(r: &mut Reader<'_>) -> Result<Tail, Malformed> {
    let mut next = r.unsigned()?;
    let made = if next == 4 {
        let made = r.unsigned()?;
        next = r.unsigned()?;
        Some(made)
    } else {
        None
    };
    if next != 5 {
        return Err(UNKNOWN);
    }
    let fingerprint = Fingerprint(*r.bytes_of()?);
    if r.is_at_end() {
        return Ok((made, fingerprint, None));
    }
    key(r, 6)?;
    r.array_of(2)?;
    let key =
        SigningPublic::from_bytes(r.bytes()?).ok_or(Malformed::new("enrolment: a signing key of neither curve"))?;
    let proof = Signature(*r.bytes_of()?);
    Ok((made, fingerprint, Some(Possession { key, proof })))
}

pub(super) fn emit_tail(
    w: &mut Writer<'_>,
    made: Option<u64>,
    fingerprint: Fingerprint,
    signing: Option<&Possession>,
) -> Result<(), SealError> {
    if let Some(made) = made {
        w.unsigned(4u8)?;
        w.unsigned(made)?;
    }
    w.unsigned(5u8)?;
    w.bytes(&fingerprint.0)?;
    if let Some(signing) = signing {
        w.unsigned(6u8)?;
        w.array(2)?;
        w.bytes(signing.key.as_bytes())?;
        w.bytes(&signing.proof.0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Request};
    use super::*;
    use crate::proof::possession::SigningPoint;

    #[test]
    fn a_request_to_certify_reads_as_it_was_written_and_as_nothing_else() {
        let did = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]);
        let signing = Possession { key: SigningPublic::P256(SigningPoint([0x5A; 64])), proof: Signature([0xA5; 64]) };
        let ed25519 = Possession { key: SigningPublic::Ed25519([0x5A; 32]), ..signing };
        let x = Some(PublicX([7; 32]));
        for (x, made, signing) in
            [(None, None, signing), (x, Some(u64::MAX), signing), (None, Some(0), ed25519), (x, Some(9), ed25519)]
        {
            let request = SigningRequest { did, x, made, signing };
            let item = 66 + signing.key.as_bytes().len();
            let mut out = [0; SigningRequest::LONGEST];
            let len = request.emit(&mut out).unwrap();
            assert_eq!(SigningRequest::parse(&out[..len]), Ok(request));
            assert!((0..len).all(|cut| SigningRequest::parse(&out[..cut]).is_err()));
            for at in (0..13).chain(len - item - 14..len - 66) {
                let mut changed = out;
                changed[at] ^= 1;
                assert!(SigningRequest::parse(&changed[..len]).is_err(), "byte {at}");
            }
            assert!(Request::parse(&out[..len]).unwrap_err().reason.contains("certify a signing key"));
            assert!(Answer::parse(&out[..len]).is_err());
        }
        let enrols = Request { did, x: PublicX([7; 32]), made: None, signing: Some(signing) };
        let mut out = [0; Request::LONGEST];
        let len = enrols.emit(&mut out).unwrap();
        assert!(SigningRequest::parse(&out[..len]).unwrap_err().reason.contains("a request for enrolment"));
    }
}
