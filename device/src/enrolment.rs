//! Enrolment (docs/protocol.md 11.1): the device makes its key, asks, and takes what the operator granted.
//!
//! The key is made once, from 32 bytes of a true random generator, and stored before the request goes out; it never leaves.
//! Whoever runs this carries bytes: over a serial line (`fivefold_core::wire::serial`), as a file, or in a QR code.
//! What goes to flash beside the key may be the answer as it came, at most 512 bytes: accept it again at every boot.
//!
//! ```
//! use fivefold_core::id::Did;
//! use fivefold_core::suite::agreement::Agree;
//! use fivefold_core::suite::p256::AgreementKey;
//! use fivefold_core::wire::serial::{Deframer, Frame, Kind, LONGEST};
//! use fivefold_device::enrolment::Enrolment;
//!
//! /// What to say on the line, and whether what was granted is durable now.
//! fn heard(enrolment: &Enrolment<AgreementKey>, frame: Frame<'_>, out: &mut [u8]) -> (usize, bool) {
//!     let request = enrolment.request(None);
//!     let (say, done) = match frame.kind {
//!         Kind::Ask => (Frame { kind: Kind::Request, body: &request }, false),
//!         Kind::Answer => match enrolment.accept(frame.body) {
//!             // Write `granted` to flash here, before anything is said.
//!             Ok(granted) => (Frame { kind: Kind::Stored, body: b"" }, granted.epoch.0 > 0),
//!             Err(rejected) => (Frame { kind: Kind::Refused, body: rejected.reason.as_bytes() }, false),
//!         },
//!         _ => return (0, false),
//!     };
//!     (say.emit(out).unwrap_or(0), done)
//! }
//!
//! let key = AgreementKey::from_random(&[7; 32]).unwrap();
//! let enrolment = Enrolment::new(Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]), key, None);
//! let (mut line, mut out) = (Deframer::default(), [0; LONGEST]);
//! for byte in b"boot 1.2 FV\x01\x00\x00\xDC\x5A" {
//!     line.feed(*byte);
//! }
//! let (len, done) = heard(&enrolment, line.frame().unwrap(), &mut out);
//! assert!(len > 60 && !done);
//! ```

use core::fmt;

use fivefold_core::e5_renewal::enrolment::{AuthorityKey, Opened};
use fivefold_core::e5_renewal::{Credential, PeerKid, PqMix};
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{Did, Epoch, GatewayGroup, Net, Sid};
use fivefold_core::key::Key;
use fivefold_core::profile::{Overrides, Policy};
use fivefold_core::proof::possession::{Possession, SigningPublic};
use fivefold_core::proof::{Sign, SignError};
use fivefold_core::suite::agreement::{Agree, PublicX};
use fivefold_core::suite::p256::VerifyingKey;
use fivefold_core::wire::enrolment::Request;
use fivefold_core::wire::ieee802154::Pan;
use heapless::Vec;
use zeroize::Zeroizing;

use crate::renewal::{Keys, Peer};
use crate::{Secrets, Settings};

/// A device that is to be enrolled: who it is, and the key that it made.
pub struct Enrolment<A> {
    did: Did,
    own: A,
    operator: Option<AuthorityKey>,
    signing: Option<Possession>,
}

impl<A> fmt::Debug for Enrolment<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Enrolment({})", self.did)
    }
}

impl<A: Agree> Enrolment<A> {
    /// With its key, which is durable already. A device that knows its operator's CA takes no other's answer.
    pub const fn new(did: Did, own: A, operator: Option<AuthorityKey>) -> Self {
        Self { did, own, operator, signing: None }
    }

    /// Asks for a certificate of its signing key too, which is durable already (docs/protocol.md 13.1). It is another key
    /// than that of key agreement; `key` is the public half of `signer`.
    ///
    /// # Errors
    /// The signer gave no proof.
    pub fn with_signing_key(self, signer: &impl Sign, key: SigningPublic) -> Result<Self, SignError> {
        let signing = Some(Possession::prove(signer, key, self.did, Some(&self.own.public_x()))?);
        Ok(Self { signing, ..self })
    }

    /// What it asks with; the same each time, but for the time in it, in Unix seconds, if the device has a clock.
    pub fn request(&self, made: Option<u64>) -> Vec<u8, { Request::LONGEST }> {
        let request = Request { did: self.did, x: self.own.public_x(), made, signing: self.signing };
        let mut out = Vec::new();
        // It holds the longest.
        let _ = out.resize(Request::LONGEST, 0);
        let len = request.emit(&mut out);
        debug_assert!(len.is_ok());
        out.truncate(len.unwrap_or(0));
        out
    }

    /// Takes an answer. It must be durable before anybody is told that it was taken.
    ///
    /// # Errors
    /// E5-03 when it is for another device or by another operator; E5-02 when it was changed, or is for keys of before.
    pub fn accept(&self, answer: &[u8]) -> Result<Granted, Rejected> {
        let opened = Opened::open(answer, self.did, &self.own)?;
        let authority = self.operator.unwrap_or(*opened.authority());
        let key = VerifyingKey::from_spki(&authority.spki())
            .map_err(|_| Rejected::new(Code::RenewalForged, "the key of the operator's CA is none"))?;
        let grant = opened.verify(&key)?;
        Ok(Granted {
            did: self.did,
            authority,
            net: grant.net,
            sid: grant.sid,
            pan: grant.pan,
            group: grant.group,
            epoch: grant.epoch,
            policy: grant.policy,
            overrides: grant.overrides,
            cloud_kid: grant.cloud_kid,
            cloud_x: grant.cloud_x,
            key_index: grant.key_index,
            network_key: Zeroizing::new(*grant.network_key),
            root_psk: Zeroizing::new(*grant.root_psk),
        })
    }
}

/// What a device was granted: all that it needs beside its own key. Its secrets are wiped when it is dropped, never printed.
pub struct Granted {
    /// Its EUI-64.
    pub did: Did,
    /// The CA of the operator who granted it.
    pub authority: AuthorityKey,
    /// Its network.
    pub net: Net,
    /// Its short id.
    pub sid: Sid,
    /// PAN id on the air.
    pub pan: u16,
    /// Gateway group of its C2 contexts.
    pub group: GatewayGroup,
    /// The first epoch that it agrees on.
    pub epoch: Epoch,
    /// Its policy record.
    pub policy: Policy,
    /// What it may do that is not safe.
    pub overrides: Overrides,
    /// What names the cloud's key.
    pub cloud_kid: PeerKid,
    /// The cloud's public DH key.
    pub cloud_x: PublicX,
    /// Index of the network key.
    pub key_index: u8,
    /// The network key.
    pub network_key: Zeroizing<[u8; 16]>,
    /// root_psk.
    pub root_psk: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Granted({} in {}, epoch {})", self.sid, self.net, self.epoch)
    }
}

impl Granted {
    /// What a node starts with: it sends to any gateway in reach, until it is told of other ways.
    pub fn settings(&self) -> Settings {
        Settings::new(self.did, self.sid, Pan(self.pan), self.policy, self.epoch)
    }

    /// Its secrets: the network key, and no contexts. It agrees them before its first reading.
    pub fn secrets(&self) -> Secrets {
        let mut secrets = Secrets::default();
        // There is room for two.
        let _ = secrets.link.push((self.key_index, Key::new(*self.network_key)));
        secrets
    }

    /// What it agrees contexts with.
    pub fn keys<A: Agree>(&self, own: A) -> Keys<A> {
        Keys {
            credential: Credential::device(self.sid, own.public_x()),
            own,
            peer: Peer::Cloud(Credential::peer(self.cloud_kid, self.cloud_x)),
            mix: self.policy.pq_mix.then(|| PqMix::new(&self.root_psk, self.did)),
            group: self.group,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::{ENTROPY, Entropy, Node};
    use fivefold_core::e5_renewal::enrolment::answer;
    use fivefold_core::profile::Profile;
    use fivefold_core::proof::possession::SigningPoint;
    use fivefold_core::suite::p256::{AgreementKey, SigningKey};
    use fivefold_core::time::Millis;
    use fivefold_core::wire::enrolment::{Answer, Grant};

    const DID: Did = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]);

    fn key(n: u8) -> AgreementKey {
        AgreementKey::from_random(&[n; 32]).unwrap()
    }

    fn ca(n: u8) -> (SigningKey, AuthorityKey) {
        let key = SigningKey::from_random(&[n; 32]).unwrap();
        let public = AuthorityKey::from_spki(&key.spki()).unwrap();
        (key, public)
    }

    fn answered(request: &[u8], by: u8) -> std::vec::Vec<u8> {
        let grant = Grant {
            net: Net(7),
            sid: Sid(0x0a17),
            pan: 0x4321,
            group: GatewayGroup(1),
            epoch: Epoch(1),
            policy: Policy::new(Profile::ToCloud),
            overrides: Overrides::NONE,
            cloud_kid: PeerKid::new(0).unwrap(),
            cloud_x: key(9).public_x(),
            key_index: 1,
            network_key: &[9; 16],
            root_psk: &[10; 32],
        };
        let (signer, public) = ca(by);
        let mut out = std::vec![0; Answer::LONGEST];
        let request = Request::parse(request).unwrap();
        let len = answer(&request, &grant, (&signer, &public), key(0x55), &mut out).unwrap();
        out.truncate(len);
        out
    }

    #[test]
    fn what_was_granted_boots_a_node_that_agrees_its_first_contexts() {
        let enrolment = Enrolment::new(DID, key(1), None);
        let granted = enrolment.accept(&answered(&enrolment.request(None), 2)).unwrap();
        assert_eq!((granted.sid, granted.authority), (Sid(0x0a17), ca(2).1));
        let entropy = Entropy::check(core::array::from_fn::<u8, ENTROPY, _>(|n| n as u8)).unwrap();
        let keys = Some(granted.keys(key(1)));
        let (settings, secrets) = (granted.settings(), granted.secrets());
        let node: Node<8, AgreementKey> =
            Node::boot_renewing(Millis(0), settings, &secrets, keys, None, &entropy).unwrap();
        assert!(node.renews());
        assert!(!std::format!("{granted:?}").contains("[9"));
    }

    #[test]
    fn a_device_that_signs_asks_with_a_proof_that_the_key_is_its_own() {
        let (signer, public) = ca(0x21);
        let own = SigningPublic::P256(SigningPoint(public.0));
        let enrolment = Enrolment::new(DID, key(1), None).with_signing_key(&signer, own).unwrap();
        let request = Request::parse(&enrolment.request(Some(1_790_000_000))).unwrap();
        let asked = request.signing.unwrap();
        assert_eq!(asked.key, own);
        let verifier = VerifyingKey::from_spki(&own.spki()).unwrap();
        assert_eq!(asked.verify(&verifier, DID, Some(&request.x)), Ok(()));
        // The answer is the same as without.
        assert!(enrolment.accept(&answered(&enrolment.request(None), 2)).is_ok());
    }

    #[test]
    fn a_device_that_knows_its_operator_takes_no_others_word() {
        let enrolment = Enrolment::new(DID, key(1), Some(ca(2).1));
        let request = enrolment.request(Some(1_790_000_000));
        assert!(enrolment.accept(&answered(&request, 2)).is_ok());
        let refused = enrolment.accept(&answered(&request, 3)).unwrap_err();
        assert_eq!(refused.code, Code::RenewalUnknownCredential);
        // Keys made anew: the answer of before is for nobody.
        let anew = Enrolment::new(DID, key(4), Some(ca(2).1));
        assert_eq!(anew.accept(&answered(&request, 2)).unwrap_err().code, Code::RenewalForged);
        assert_eq!(enrolment.accept(&request).unwrap_err().code, Code::RenewalForged);
    }
}
