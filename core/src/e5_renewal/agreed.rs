//! What a run gives: the secrets of docs/protocol.md 3, each once.

use core::fmt;
use core::marker::PhantomData;

use zeroize::Zeroize;

use crate::e2_gateway::{E2, E2Local, E2Root};
use crate::e3_cloud::{E3, E3Secret};
use crate::id::{Did, Epoch};
use crate::oscore::Id;
use crate::proof::statement::BlindKey;
use crate::suite::{Alg, HASH, hkdf_expand, hmac_sha256};

use super::handed::HandedKey;
use super::message::epoch_of;
use super::schedule::Exporter;

/// OSCORE Master Secret (RFC 9528 A.1).
const OSCORE_SECRET: u16 = 0;
/// OSCORE Master Salt.
const OSCORE_SALT: u16 = 1;
/// K_e2root; this and the following are private labels (RFC 9528 10.1).
const E2_ROOT: u16 = 32769;
/// K_blind.
const BLIND: u16 = 32770;
/// MS3 of algorithm 11.
const E3_SECRET: u16 = 32771;
/// salt3 of algorithm 11.
const E3_SALT: u16 = 32772;

/// A run that both sides completed, at level `L`.
///
/// One with the cloud gives E3, one with a gateway does not:
/// ```
/// use fivefold_core::e3_cloud::{E3, E3Secret};
/// use fivefold_core::{e5_renewal::Agreed, suite::Alg};
/// fn secret(agreed: Agreed<E3>) -> E3Secret { agreed.secrets(Alg::AesCcm16_64_256, None).e3 }
/// ```
/// ```compile_fail,E0061
/// use fivefold_core::{e2_gateway::E2, e3_cloud::E3Secret};
/// use fivefold_core::{e5_renewal::Agreed, suite::Alg};
/// fn secret(agreed: Agreed<E2>) -> E3Secret { agreed.secrets(Alg::AesCcm16_64_256, None).e3 }
/// ```
/// ```compile_fail,E0609
/// use fivefold_core::{e2_gateway::E2, e3_cloud::E3Secret};
/// use fivefold_core::{e5_renewal::Agreed, suite::Alg};
/// fn secret(agreed: Agreed<E2>) -> E3Secret { agreed.secrets(Alg::AesCcm16_64_256).e3 }
/// ```
/// The twin of the last one:
/// ```
/// use fivefold_core::e2_gateway::{E2, E2Local};
/// use fivefold_core::{e5_renewal::Agreed, suite::Alg};
/// fn secret(agreed: Agreed<E2>) -> E2Local { agreed.secrets(Alg::AesCcm16_64_256).e2 }
/// ```
/// Nor does a run change its level:
/// ```
/// use fivefold_core::e2_gateway::E2;
/// use fivefold_core::e5_renewal::{Agreed, Initiator, WaitM4};
/// fn confirmed(run: Initiator<E2, WaitM4>) -> Option<Agreed<E2>> { run.handle_message_4(&[]).ok() }
/// ```
/// ```compile_fail,E0308
/// use fivefold_core::{e2_gateway::E2, e3_cloud::E3};
/// use fivefold_core::e5_renewal::{Agreed, Initiator, WaitM4};
/// fn confirmed(run: Initiator<E2, WaitM4>) -> Option<Agreed<E3>> { run.handle_message_4(&[]).ok() }
/// ```
pub struct Agreed<L> {
    exporter: Exporter,
    c_i: Id,
    c_r: Id,
    handed: Option<HandedKey>,
    level: PhantomData<fn() -> L>,
}

impl<L> Agreed<L> {
    pub(super) const fn new(exporter: Exporter, c_i: Id, c_r: Id, handed: Option<HandedKey>) -> Self {
        Self { exporter, c_i, c_r, handed, level: PhantomData }
    }

    /// C_I.
    pub const fn c_i(&self) -> Id {
        self.c_i
    }

    /// C_R: the bytes of the device's short id.
    pub const fn c_r(&self) -> Id {
        self.c_r
    }

    /// The network key that message_4 hands to the device, if it does.
    pub const fn handed(&self) -> Option<&HandedKey> {
        self.handed.as_ref()
    }

    /// The epoch that was agreed on; `None` when C_I is none.
    pub fn epoch(&self) -> Option<Epoch> {
        epoch_of(self.c_i)
    }
}

impl Agreed<E3> {
    /// What device and cloud have from now on. `alg` and whether there is a `mix` are what the policy record says
    /// (docs/protocol.md 2).
    pub fn secrets(self, alg: Alg, mix: Option<&PqMix>) -> CloudSecrets {
        let mixed = |label: u16| -> [u8; 32] {
            let mut plain = self.exporter.export(label);
            let mixed = mix.map_or(plain, |mix| mix.mix(&plain));
            plain.zeroize();
            mixed
        };
        let e3 = match alg {
            Alg::AesCcm16_64_128 => {
                E3Secret::exported::<16>(self.exporter.export(OSCORE_SECRET), self.exporter.export(OSCORE_SALT))
            }
            Alg::AesCcm16_64_256 => E3Secret::exported(mixed(E3_SECRET), self.exporter.export(E3_SALT)),
        };
        CloudSecrets { e3, e2_root: E2Root::new(mixed(E2_ROOT)), blind: BlindKey::new(mixed(BLIND)) }
    }
}

impl Agreed<E2> {
    /// What device and gateway have from now on, where there is no cloud ("C2 local"). root_psk is not mixed in: a gateway
    /// has none.
    pub fn secrets(self, alg: Alg) -> LocalSecrets {
        let salt = self.exporter.export(OSCORE_SALT);
        let e2 = match alg {
            Alg::AesCcm16_64_128 => E2Local::exported::<16>(self.exporter.export(OSCORE_SECRET), salt),
            Alg::AesCcm16_64_256 => E2Local::exported::<32>(self.exporter.export(OSCORE_SECRET), salt),
        };
        LocalSecrets { e2, blind: BlindKey::new(self.exporter.export(BLIND)) }
    }
}

impl<L> fmt::Debug for Agreed<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Agreed(C_I {:?}, C_R {:?})", self.c_i, self.c_r)
    }
}

/// What a run with the cloud gives. No gateway is ever handed any of it; what one needs, [`E2Root::secret`] derives.
#[derive(Debug)]
pub struct CloudSecrets {
    /// MS3 and salt3.
    pub e3: E3Secret,
    /// K_e2root.
    pub e2_root: E2Root,
    /// K_blind.
    pub blind: BlindKey,
}

/// What a run with a gateway gives.
#[derive(Debug)]
pub struct LocalSecrets {
    /// The secret of C2 local.
    pub e2: E2Local,
    /// K_blind of that context.
    pub blind: BlindKey,
}

/// PQK: what mixes root_psk into what EDHOC gives, so that a recorder who breaks the curve one day still lacks a secret
/// (docs/protocol.md 3).
pub struct PqMix([u8; HASH]);

impl PqMix {
    /// Of a device.
    pub fn new(root_psk: &[u8; 32], did: Did) -> Self {
        Self(hkdf_expand(root_psk, &[b"e5-pqmix-v1", &did.0]))
    }

    fn mix(&self, z: &[u8; 32]) -> [u8; 32] {
        hmac_sha256(&self.0, &[z])
    }
}

impl Drop for PqMix {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for PqMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PqMix(..)")
    }
}
