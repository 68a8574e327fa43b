//! # E3: device to cloud
//!
//! | | |
//! |---|---|
//! | Key held by | one device and the cloud |
//! | Hides       | the body, from every relay and gateway |
//! | Proves      | which device spoke, to the cloud, and that it is new |
//! | Binds       | algorithm, device id, peer id (epoch), boot id, number, and in answers the request |
//! | Drops as    | `E3-01` stranger, `E3-02` expired, `E3-03` forged, `E3-04`..`E3-06` replayed, `E3-07` malformed |
//! | Does not    | hide who talks to whom, or when; prove anything to third parties (that is a signature) |
//! | Spec        | docs/protocol.md 3, 5, 6 |

use core::fmt;

use crate::error::Code;
use crate::id::{BootContext, Did, Epoch, Sid};
use crate::level::{Level, OscoreLevel, sealed};
use crate::oscore::{Context, Id, Master};
use crate::suite::{Alg, hkdf_expand};

/// Level E3. There are no values of it: it only names keys and contexts.
pub enum E3 {}

impl sealed::Sealed for E3 {}

impl Level for E3 {
    const LABEL: &'static [u8; 4] = b"e3cl";
}

impl OscoreLevel for E3 {
    const UNKNOWN_KID: Code = Code::CloudUnknownKid;
    const NO_CONTEXT: Code = Code::CloudNoContext;
    const FORGED: Code = Code::CloudForged;
    const REPLAYED: Code = Code::CloudReplayed;
    const DUP: Code = Code::CloudDuplicate;
    const NONCE_REUSE: Code = Code::CloudNonceReuse;
    const INNER: Code = Code::CloudInnerMalformed;
    const LEVEL_MISSING: Code = Code::CloudLevelMissing;
    const LIMIT: Code = Code::CloudLimitReached;
    const MAY_NEST: bool = false;
}

/// What C3 contexts of one epoch are derived from: MS3 and salt3 (docs/protocol.md 3). Held by the device and the cloud.
pub struct E3Secret(Master<E3>);

impl E3Secret {
    /// An installed or agreed secret: MS3 of 32 bytes (16 with algorithm 10), salt3 of 8. `None` for other lengths; no
    /// salt at all is what the bootstrap has.
    pub fn new(master_secret: &[u8], master_salt: &[u8]) -> Option<Self> {
        Master::new(master_secret, master_salt).map(Self)
    }

    pub(crate) fn exported<const N: usize>(master_secret: [u8; N], master_salt: [u8; 8]) -> Self {
        Self(Master::exported(master_secret, master_salt))
    }

    /// The secret of epoch 0, mode R: every boot has a context of its own by its boot id.
    pub fn bootstrap(root_psk: &[u8; 32], did: Did) -> Self {
        Self(Master::unsalted(hkdf_expand(root_psk, &[b"e3 boot v1", &did.0])))
    }

    /// MS3. Who holds it reads and writes as the device.
    pub fn danger_master_secret(&self) -> &[u8] {
        self.0.danger_secret()
    }

    /// salt3; empty in the bootstrap.
    pub fn master_salt(&self) -> &[u8] {
        self.0.salt()
    }

    /// The device's end.
    ///
    /// # Errors
    /// [`NoSuchContext`].
    pub fn context_for_device(
        &self,
        sid: Sid,
        epoch: Epoch,
        bctx: Option<BootContext>,
        alg: Alg,
    ) -> Result<Context<E3>, NoSuchContext> {
        Ok(self.0.context(alg, Id::from(sid), peer_id(sid, epoch, bctx)?, bctx))
    }

    /// The cloud's end.
    ///
    /// # Errors
    /// [`NoSuchContext`].
    pub fn context_for_peer(
        &self,
        sid: Sid,
        epoch: Epoch,
        bctx: Option<BootContext>,
        alg: Alg,
    ) -> Result<Context<E3>, NoSuchContext> {
        Ok(self.0.context(alg, peer_id(sid, epoch, bctx)?, Id::from(sid), bctx))
    }
}

impl fmt::Debug for E3Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("E3Secret(..)")
    }
}

/// The id that the cloud bears in C3: the bytes of the epoch.
///
/// # Errors
/// [`NoSuchContext`].
pub fn peer_id(sid: Sid, epoch: Epoch, bctx: Option<BootContext>) -> Result<Id, NoSuchContext> {
    if !sid.is_assignable() {
        return Err(NoSuchContext::SidReserved);
    }
    if epoch.0 == 0 && bctx.is_none() {
        return Err(NoSuchContext::EpochZeroWithoutBoot);
    }
    if epoch.collides_with(sid) {
        return Err(NoSuchContext::SameIds);
    }
    epoch.with_bytes(Id::new).ok_or(NoSuchContext::SameIds)
}

/// A context that docs/protocol.md rules out. Nothing was derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSuchContext {
    /// Epoch 0 is the bootstrap, and that has a boot id.
    EpochZeroWithoutBoot,
    /// Device and peer would bear the same id: the device skips this epoch.
    SameIds,
    /// 0000, FFFE, FFFF and E200..E2FF are no short ids of devices.
    SidReserved,
}

impl fmt::Display for NoSuchContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EpochZeroWithoutBoot => "epoch 0 needs a boot id; take epoch 1 or greater",
            Self::SameIds => "the epoch's bytes equal the short id; skip this epoch",
            Self::SidReserved => "the short id is reserved (0000, FFFE, FFFF, E200..E2FF)",
        })
    }
}

impl core::error::Error for NoSuchContext {}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> E3Secret {
        E3Secret::new(&[7; 32], &[1; 8]).unwrap()
    }

    #[test]
    fn an_epoch_whose_bytes_equal_the_short_id_is_skipped() {
        let no = secret().context_for_device(Sid(0x0a17), Epoch(0x0a17), None, Alg::AesCcm16_64_256);
        assert_eq!(no.err(), Some(NoSuchContext::SameIds));
    }

    #[test]
    fn epoch_zero_exists_only_with_a_boot_id() {
        let (sid, alg) = (Sid(1), Alg::AesCcm16_64_256);
        let no = secret().context_for_peer(sid, Epoch(0), None, alg);
        assert_eq!(no.err(), Some(NoSuchContext::EpochZeroWithoutBoot));
        assert!(secret().context_for_peer(sid, Epoch(0), Some(BootContext([1; 8])), alg).is_ok());
    }

    #[test]
    fn reserved_short_ids_get_no_context() {
        for sid in [0, 0xFFFE, 0xFFFF, 0xE205] {
            assert_eq!(peer_id(Sid(sid), Epoch(5), None), Err(NoSuchContext::SidReserved));
        }
    }

    #[test]
    fn a_secret_of_another_length_is_none() {
        assert!(E3Secret::new(&[0; 31], &[0; 8]).is_none() && E3Secret::new(&[0; 32], &[0; 7]).is_none());
        assert!(E3Secret::new(&[0; 16], &[0; 8]).is_some());
    }

    #[test]
    fn bootstrap_secrets_of_two_devices_differ() {
        let [a, b] = [1, 2].map(|n| E3Secret::bootstrap(&[9; 32], Did([n; 8])));
        assert_ne!(a.danger_master_secret(), b.danger_master_secret());
        assert!(a.master_salt().is_empty());
    }
}
