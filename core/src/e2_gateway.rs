//! # E2: device to gateway
//!
//! | | |
//! |---|---|
//! | Key held by | one device and the gateways of one group (only the primary can send) |
//! | Hides       | the body, from every relay |
//! | Proves      | which device spoke, to its gateway, and that it is new |
//! | Binds       | algorithm, device id, peer id (epoch), boot id, number, and in answers the request |
//! | Drops as    | `E2-01` stranger, `E2-02` expired, `E2-03` forged, `E2-04`..`E2-06` replayed, `E2-07` malformed |
//! | Does not    | hide who talks to whom; prove anything to the cloud but the gateway's word |
//! | Spec        | docs/protocol.md 3, 5, 6.3 |

use core::fmt;

use crate::counter::Counter;
use crate::e3_cloud::{E3, NoSuchContext, peer_id as cloud_id};
use crate::error::{Code, SealError};
use crate::id::{BootContext, Did, Epoch, GatewayGroup, Sid};
use crate::key::Key;
use crate::level::{Level, OscoreLevel, sealed};
use crate::oscore::{Context, Id, Master, OscoreOption, Params, RequestId};
use crate::suite::{Alg, TAG, hkdf_expand};
use crate::wire::coap::{self, number};

/// Level E2. There are no values of it: it only names keys and contexts.
pub enum E2 {}

impl sealed::Sealed for E2 {}

impl Level for E2 {
    const LABEL: &'static [u8; 4] = b"e2gw";
}

impl OscoreLevel for E2 {
    const UNKNOWN_KID: Code = Code::GatewayUnknownKid;
    const NO_CONTEXT: Code = Code::GatewayNoContext;
    const FORGED: Code = Code::GatewayForged;
    const REPLAYED: Code = Code::GatewayReplayed;
    const DUP: Code = Code::GatewayDuplicate;
    const NONCE_REUSE: Code = Code::GatewayNonceReuse;
    const INNER: Code = Code::GatewayInnerMalformed;
    const LEVEL_MISSING: Code = Code::GatewayLevelMissing;
    const LIMIT: Code = Code::GatewayLimitReached;
    const MAY_NEST: bool = true;
}

/// K_e2root: what the C2 secrets of every gateway group come from. Held by the device and the cloud, never by a gateway.
pub struct E2Root(Key<E2, 32>);

impl E2Root {
    /// An installed or agreed root.
    pub const fn new(root: [u8; 32]) -> Self {
        Self(Key::new(root))
    }

    /// The root of epoch 0, mode R.
    pub fn bootstrap(root_psk: &[u8; 32], did: Did) -> Self {
        Self(Key::new(hkdf_expand(root_psk, &[b"e2 boot v1", &did.0])))
    }

    /// The bytes, to be stored wrapped.
    pub const fn danger_bytes(&self) -> &[u8; 32] {
        self.0.danger_bytes()
    }

    /// MS2 and salt2 of a gateway group: what its primary gateway gets.
    pub fn secret(&self, group: GatewayGroup) -> E2Secret {
        let group = group.to_bytes();
        E2Secret {
            master_secret: Key::new(hkdf_expand(self.0.expose(), &[b"e2 ms", &group])),
            master_salt: hkdf_expand(self.0.expose(), &[b"e2 salt", &group]),
        }
    }
}

impl fmt::Debug for E2Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("E2Root(..)")
    }
}

/// MS2 and salt2: what C2 contexts of one epoch and gateway group are derived from (docs/protocol.md 3).
pub struct E2Secret {
    master_secret: Key<E2, 32>,
    master_salt: [u8; 8],
}

impl E2Secret {
    /// As it was pushed or stored.
    pub const fn new(master_secret: [u8; 32], master_salt: [u8; 8]) -> Self {
        Self { master_secret: Key::new(master_secret), master_salt }
    }

    /// MS2. Who holds it reads and writes as the device and as its gateway.
    pub const fn danger_master_secret(&self) -> &[u8; 32] {
        self.master_secret.danger_bytes()
    }

    /// salt2.
    pub const fn master_salt(&self) -> &[u8; 8] {
        &self.master_salt
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
    ) -> Result<Context<E2>, NoSuchContext> {
        Ok(self.context(alg, Id::from(sid), peer_id(sid, epoch, bctx)?, bctx))
    }

    /// The gateway's end.
    ///
    /// # Errors
    /// [`NoSuchContext`].
    pub fn context_for_peer(
        &self,
        sid: Sid,
        epoch: Epoch,
        bctx: Option<BootContext>,
        alg: Alg,
    ) -> Result<Context<E2>, NoSuchContext> {
        Ok(self.context(alg, peer_id(sid, epoch, bctx)?, Id::from(sid), bctx))
    }

    fn context(&self, alg: Alg, sender_id: Id, recipient_id: Id, bctx: Option<BootContext>) -> Context<E2> {
        Context::derive(&Params {
            alg,
            master_secret: self.master_secret.expose(),
            master_salt: &self.master_salt,
            id_context: bctx.as_ref().map(|b| &b.0[..]),
            sender_id,
            recipient_id,
        })
    }
}

impl fmt::Debug for E2Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("E2Secret(..)")
    }
}

/// What the C2 contexts of a run with the gateway alone are derived from ("C2 local", docs/protocol.md 3, 5). Held by the
/// device and that gateway, and of no use to any other.
pub struct E2Local(Master<E2>);

impl E2Local {
    /// As it was stored: a secret of 32 bytes (16 with algorithm 10) and its salt. `None` for other lengths.
    pub fn new(master_secret: &[u8], master_salt: &[u8; 8]) -> Option<Self> {
        Master::new(master_secret, master_salt).map(Self)
    }

    pub(crate) fn exported<const N: usize>(master_secret: [u8; N], master_salt: [u8; 8]) -> Self {
        Self(Master::exported(master_secret, master_salt))
    }

    /// The secret. Who holds it reads and writes as the device and as its gateway.
    pub fn danger_master_secret(&self) -> &[u8] {
        self.0.danger_secret()
    }

    /// Its salt.
    pub fn master_salt(&self) -> &[u8] {
        self.0.salt()
    }

    /// The device's end. The gateway bears the bytes of the epoch, as the cloud does in C3.
    ///
    /// # Errors
    /// [`NoSuchContext`].
    pub fn context_for_device(
        &self,
        sid: Sid,
        epoch: Epoch,
        bctx: Option<BootContext>,
        alg: Alg,
    ) -> Result<Context<E2>, NoSuchContext> {
        Ok(self.0.context(alg, Id::from(sid), cloud_id(sid, epoch, bctx)?, bctx))
    }

    /// The gateway's end.
    ///
    /// # Errors
    /// [`NoSuchContext`].
    pub fn context_for_peer(
        &self,
        sid: Sid,
        epoch: Epoch,
        bctx: Option<BootContext>,
        alg: Alg,
    ) -> Result<Context<E2>, NoSuchContext> {
        Ok(self.0.context(alg, cloud_id(sid, epoch, bctx)?, Id::from(sid), bctx))
    }
}

impl fmt::Debug for E2Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("E2Local(..)")
    }
}

/// The id that the gateway bears in C2: E2, then the bytes of the epoch.
///
/// # Errors
/// [`NoSuchContext`].
pub fn peer_id(sid: Sid, epoch: Epoch, bctx: Option<BootContext>) -> Result<Id, NoSuchContext> {
    // What rules out a C3 context rules out the C2 beside it.
    let cloud = cloud_id(sid, epoch, bctx)?;
    let mut id = [0xE2, 0, 0];
    id.iter_mut().skip(1).zip(cloud.as_bytes()).for_each(|(i, e)| *i = *e);
    id.get(..1 + cloud.as_bytes().len()).and_then(Id::new).ok_or(NoSuchContext::SameIds)
}

/// How C3 stands inside C2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nesting {
    /// As a CoAP message with its own OSCORE option: links with IP (docs/protocol.md 5).
    Coap,
    /// By inner rule 01: tiny links (docs/protocol.md 6.3).
    Tiny,
}

/// A request under both levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Both {
    /// What C3 answers refer to, and C2 answers as well: number and kid are the same.
    pub request: RequestId,
    /// Length of the C2 ciphertext with its tag, in `out`.
    pub len: usize,
    /// Where the C3 ciphertext with its tag stands in `inner`, to be sent again under a later C2 number (inner rule 02).
    pub ct3: (usize, usize),
}

/// Seals a request for the cloud, and that for the gateway, under one number (docs/protocol.md 5). `inner` gets the C2
/// plaintext, `out` the C2 ciphertext with its tag.
///
/// # Errors
/// [`SealError::LeaseSpent`] from number 2^20 on, or when the contexts are of two devices or two boots;
/// [`SealError::BufferTooSmall`].
pub fn seal_both(
    c2: &Context<E2>,
    c3: &Context<E3>,
    n: Counter,
    plaintext: &[u8],
    nesting: Nesting,
    inner: &mut [u8],
    out: &mut [u8],
) -> Result<Both, SealError> {
    if c2.sender_id() != c3.sender_id() || c2.id_context() != c3.id_context() {
        return Err(SealError::LeaseSpent);
    }
    let number = n.value();
    let mut head = [0; 32];
    let head_len = match nesting {
        Nesting::Tiny => {
            head[0] = 0x01;
            1
        }
        Nesting::Coap => {
            let (kid, bctx) = (c3.sender_id(), c3.id_context());
            let option = OscoreOption {
                piv: Some(crate::oscore::PartialIv::from_value(number)),
                kid_context: bctx.as_ref().map(|b| &b.0[..]),
                kid: Some(kid.as_bytes()),
            };
            let mut value = [0; 24];
            let value_len = option.emit(&mut value)?;
            head[0] = coap::POST;
            let value = value.get(..value_len).unwrap_or_default();
            let end = 1 + coap::emit_option(head.get_mut(1..).unwrap_or_default(), 0, number::OSCORE, value)?;
            *head.get_mut(end).ok_or(SealError::BufferTooSmall)? = coap::PAYLOAD_MARKER;
            end + 1
        }
    };
    let end = head_len + plaintext.len() + TAG;
    let inner = inner.get_mut(..end).ok_or(SealError::BufferTooSmall)?;
    if out.len() < end + TAG {
        // Before the first seal: a number whose seal failed half-way would be lost, not dangerous, yet avoidable.
        return Err(SealError::BufferTooSmall);
    }
    let (start, ct3) = inner.split_at_mut_checked(head_len).ok_or(SealError::BufferTooSmall)?;
    start.copy_from_slice(head.get(..head_len).unwrap_or_default());
    c3.seal_request_under(number, plaintext, ct3)?;
    let (request, len) = c2.seal_request_under(number, inner, out)?;
    Ok(Both { request, len, ct3: (head_len, end) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counter::Lease;
    use crate::e3_cloud::E3Secret;
    use crate::oscore::{InnerRequest, PartialIv, judge_request};
    use crate::wire::tiny::{Inner, Within};

    fn number(n: u32) -> Counter {
        let mut lease = Lease::resume(n, n + 1);
        lease.extend(n + 1);
        lease.take().unwrap()
    }

    #[test]
    fn groups_and_labels_separate_secrets() {
        let root = E2Root::new([3; 32]);
        let [a, b] = [1, 2].map(|g| root.secret(GatewayGroup(g)));
        assert_ne!(a.danger_master_secret(), b.danger_master_secret());
        assert_ne!(a.master_salt(), b.master_salt());
    }

    #[test]
    fn the_gateway_bears_e2_and_the_epoch() {
        assert_eq!(peer_id(Sid(0x0a17), Epoch(5), None).unwrap().as_bytes(), [0xE2, 5]);
        assert_eq!(peer_id(Sid(0x0a17), Epoch(0x0203), None).unwrap().as_bytes(), [0xE2, 2, 3]);
    }

    #[test]
    fn both_levels_share_a_number_and_open_one_after_the_other() {
        let (sid, epoch, alg) = (Sid(0x0a17), Epoch(5), Alg::AesCcm16_64_256);
        let (s2, s3) = (E2Secret::new([2; 32], [0; 8]), E3Secret::new(&[3; 32], &[0; 8]).unwrap());
        for bctx in [None, Some(BootContext([9; 8]))] {
            let device = (
                s2.context_for_device(sid, epoch, bctx, alg).unwrap(),
                s3.context_for_device(sid, epoch, bctx, alg).unwrap(),
            );
            let gateway = s2.context_for_peer(sid, epoch, bctx, alg).unwrap();
            let cloud = s3.context_for_peer(sid, epoch, bctx, alg).unwrap();
            for nesting in [Nesting::Coap, Nesting::Tiny] {
                let (mut inner, mut sealed, mut opened, mut read) = ([0; 80], [0; 80], [0; 80], [0; 80]);
                let both = seal_both(&device.0, &device.1, number(7), b"\x02\xffhi", nesting, &mut inner, &mut sealed)
                    .unwrap();
                let piv = PartialIv::from_value(7);
                let at_gateway = gateway.open_request(piv, &sealed[..both.len], &mut opened).unwrap();
                assert_eq!(at_gateway.request(), both.request);
                let ct3 = match nesting {
                    Nesting::Coap => match judge_request::<E2>(at_gateway.plaintext()).unwrap() {
                        InnerRequest::Nested { option, ciphertext } => {
                            assert_eq!((option.piv, option.kid), (Some(piv), Some(&[0x0a, 0x17][..])));
                            assert_eq!(option.kid_context, bctx.as_ref().map(|b| &b.0[..]));
                            ciphertext
                        }
                        InnerRequest::Payload(_) => panic!("not nested"),
                    },
                    Nesting::Tiny => match Inner::parse(at_gateway.plaintext(), Within::Request).unwrap() {
                        Inner::Same { ct3 } => ct3,
                        other => panic!("{other:?}"),
                    },
                };
                assert_eq!(ct3, &inner[both.ct3.0..both.ct3.1]);
                assert_eq!(cloud.open_request(piv, ct3, &mut read).unwrap().plaintext(), b"\x02\xffhi");
            }
        }
    }

    #[test]
    fn contexts_of_two_devices_are_not_nested() {
        let alg = Alg::AesCcm16_64_256;
        let c2 = E2Secret::new([2; 32], [0; 8]).context_for_device(Sid(1), Epoch(1), None, alg).unwrap();
        let c3 = E3Secret::new(&[3; 32], &[0; 8]).unwrap().context_for_device(Sid(2), Epoch(1), None, alg).unwrap();
        let (mut inner, mut out) = ([0; 80], [0; 80]);
        let no = seal_both(&c2, &c3, number(0), b"\x02\xffhi", Nesting::Tiny, &mut inner, &mut out);
        assert_eq!(no, Err(SealError::LeaseSpent));
    }
}
