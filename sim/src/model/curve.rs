//! P-256 for devices of a model, behind the one seam of key agreement: the daemons' own curve, with each product computed
//! once. A model looks at the state machines, and makes the same keys many thousand times.

use std::cell::RefCell;
use std::collections::HashMap;

use fivefold_core::suite::agreement::{Agree, PointRefused, PublicX, SharedX};
use fivefold_keep::sign::AgreementKey;

type Bytes = [u8; 32];

thread_local! {
    static PUBLIC: RefCell<HashMap<Bytes, Option<PublicX>>> = RefCell::default();
    static SHARED: RefCell<HashMap<(Bytes, Bytes), Option<Bytes>>> = RefCell::default();
}

/// A private key that is worth nothing.
pub(super) struct Curve {
    scalar: Bytes,
    public: PublicX,
}

impl Agree for Curve {
    fn from_random(random: &Bytes) -> Option<Self> {
        let make = || AgreementKey::from_random(random).map(|key| key.public_x());
        let public = PUBLIC.with_borrow_mut(|known| *known.entry(*random).or_insert_with(make))?;
        Some(Self { scalar: *random, public })
    }

    fn public_x(&self) -> PublicX {
        self.public
    }

    fn agree(&self, peer: &PublicX) -> Result<SharedX, PointRefused> {
        let make = || {
            let key = AgreementKey::from_random(&self.scalar)?;
            key.agree(peer).ok().map(|shared| *shared.danger_bytes())
        };
        let shared = SHARED.with_borrow_mut(|known| *known.entry((self.scalar, peer.0)).or_insert_with(make));
        shared.map(SharedX::new).ok_or(PointRefused)
    }
}
