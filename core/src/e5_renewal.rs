//! # E5: renewal of contexts
//!
//! EDHOC (RFC 9528) method 3, cipher suite 2, with message_4; credentials are CCS by `kid`. The device is the Initiator and
//! its epoch is C_I, so that the order of renewals is authenticated.
//!
//! | | |
//! |---|---|
//! | Key held by | one device and the cloud (identity keys of both), or one device and its gateway |
//! | Hides       | who the device is, from everybody on the way |
//! | Proves      | each to the other, with keys that later theft does not open |
//! | Binds       | the device's id and the epoch, which only grows |
//! | Drops as    | `E5-02` forged, `E5-03` stranger or revoked, `E5-04` another suite or method, `E5-06` epoch not greater |
//! | Does not    | carry readings; choose the algorithm of the contexts that it makes |
//! | Spec        | docs/protocol.md 3, 11; for hardened classic devices [`key_message`], 12 |
//!
//! Nothing here keeps time, draws randomness or stores: an ephemeral key comes in, messages and states go out. Each step
//! consumes the one before. A run whose level is [`E3`](crate::e3_cloud::E3) is one with the cloud, and gives
//! [`CloudSecrets`]; one of level [`E2`](crate::e2_gateway::E2) is one with a gateway alone, and gives [`LocalSecrets`], from
//! which nothing of E3 can be had.
//!
//! ```
//! # #[cfg(feature = "p256")] {
//! use fivefold_core::e3_cloud::E3;
//! use fivefold_core::e5_renewal::{Announce, Credential, Identity, Initiator, PeerKid, Responder, ToServer};
//! use fivefold_core::id::{Epoch, Sid};
//! use fivefold_core::suite::agreement::Agree;
//! use fivefold_core::suite::{Alg, p256::AgreementKey};
//!
//! // Enrolment gave each side its own key and the other's public one.
//! let [device_key, cloud_key] = [1, 2].map(|n| AgreementKey::from_random(&[n; 32]).unwrap());
//! let device = Credential::device(Sid(0x0a17), device_key.public_x());
//! let cloud = Credential::peer(PeerKid::new(0).unwrap(), cloud_key.public_x());
//!
//! // Device. Epoch 6 is durable as used up (W2) before this goes out.
//! let ephemeral = AgreementKey::from_random(&[3; 32]).unwrap();
//! let (waiting, m1) = Initiator::<E3, _>::offer(ephemeral, Sid(0x0a17), Epoch(5), Announce::Nothing).unwrap();
//! // Cloud.
//! let ToServer::Offer(offer) = ToServer::parse(m1.as_bytes()).unwrap() else { panic!() };
//! let (own, ephemeral) = (Identity { key: &cloud_key, credential: &cloud }, AgreementKey::from_random(&[4; 32]).unwrap());
//! let (session, m2) = Responder::<E3, _>::answer(&offer, ephemeral, Sid(0x0a17), &own).unwrap();
//! // Device.
//! let own = Identity { key: &device_key, credential: &device };
//! let (waiting, m3) = waiting.handle_message_2(m2.as_bytes(), &own, &cloud).unwrap();
//! // Cloud: who claims to be there is known before the proof is looked at.
//! let ToServer::Proof { message_3, .. } = ToServer::parse(m3.as_bytes()).unwrap() else { panic!() };
//! let claimed = session.handle_message_3(message_3).unwrap();
//! assert_eq!(claimed.id_cred_i(), device.kid());
//! let (agreed, m4) = claimed.verify(&device).unwrap();
//! let at_cloud = agreed.secrets(Alg::AesCcm16_64_256, None); // durable as pending (W6) before m4 goes out
//! // Device.
//! let agreed = waiting.handle_message_4(m4.as_bytes()).unwrap();
//! assert_eq!(agreed.epoch(), Some(Epoch(5)));
//! let on_device = agreed.secrets(Alg::AesCcm16_64_256, None); // durable, unconfirmed (W3), before it is used
//! assert_eq!(on_device.e3.danger_master_secret(), at_cloud.e3.danger_master_secret());
//! # }
//! ```

mod agreed;
mod credential;
mod draw;
pub mod enrolment;
mod handed;
mod initiator;
pub mod key_message;
mod message;
mod responder;
mod schedule;

pub use agreed::{Agreed, CloudSecrets, LocalSecrets, PqMix};
pub use credential::{Credential, Identity, PeerKid};
pub use draw::Draw;
pub use handed::HandedKey;
pub use initiator::{Announce, Initiator, WaitM2, WaitM4};
pub use message::{ErrorMessage, Message, Offer, ToServer};
pub use responder::{ReadM3, Responder, WaitM3};

use core::fmt;

use crate::error::{Code, Rejected};
use crate::suite::agreement::{Agree, PointRefused, PublicX, SharedX};
use crate::wire::cbor::Malformed;

/// A message was refused. Whether the run goes on is decided: with a session, nothing was spent and the right message may
/// still come; without one it is over (docs/protocol.md 11).
pub struct Refused<S> {
    /// The code that is counted, and why.
    pub rejected: Rejected,
    /// The state as it was, where the message was not even one for it, or could have been anybody's.
    pub session: Option<S>,
}

impl<S> Refused<S> {
    /// Nothing was spent.
    const fn waiting(session: S, rejected: Rejected) -> Self {
        Self { rejected, session: Some(session) }
    }

    /// The run is over.
    const fn over(rejected: Rejected) -> Self {
        Self { rejected, session: None }
    }
}

impl<S> From<Rejected> for Refused<S> {
    fn from(rejected: Rejected) -> Self {
        Self::over(rejected)
    }
}

impl<S> From<Malformed> for Refused<S> {
    fn from(malformed: Malformed) -> Self {
        Self::over(malformed.counted(Code::RenewalForged))
    }
}

impl<S> fmt::Debug for Refused<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let and = if self.session.is_some() { "still waiting" } else { "over" };
        write!(f, "Refused({}, {and})", self.rejected)
    }
}

impl<S> fmt::Display for Refused<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rejected.fmt(f)
    }
}

impl<S> core::error::Error for Refused<S> {}

const fn forged(reason: &'static str) -> Rejected {
    Rejected::new(Code::RenewalForged, reason)
}

/// Key agreement with a key that came from outside. Zero is on the curve, and nobody's key: no honest side draws it.
fn agree<A: Agree>(own: &A, peer: &PublicX) -> Result<SharedX, PointRefused> {
    if peer.0 == [0; 32] { Err(PointRefused) } else { own.agree(peer) }
}

const NOT_ON_CURVE: Rejected = forged("an ephemeral key is not on the curve");
