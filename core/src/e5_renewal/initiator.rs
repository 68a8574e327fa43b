//! The device's side: message_1, message_3, and what message_4 confirms.

use core::fmt;
use core::marker::PhantomData;

use zeroize::Zeroize;

use crate::e3_cloud::{NoSuchContext, peer_id};
use crate::error::{Code, Rejected};
use crate::id::{Epoch, Sid};
use crate::level::OscoreLevel;
use crate::oscore::Id;
use crate::suite::agreement::{Agree, PublicX};
use crate::suite::{HASH, TAG, sha256};
use crate::wire::cbor::{Malformed, Reader, Writer};

use super::agreed::Agreed;
use super::credential::{Credential, Identity, emit_id, read_id};
use super::handed::HandedKey;
use super::message::{MAC, Message, emit_message_1, epoch_of, message_1_of, read_byte_string, read_claim};
use super::schedule::{Keys2e, Keys4, holds};
use super::{NOT_ON_CURVE, Refused, agree, forged};

/// PLAINTEXT_2 of others, at most, with data in it that means nothing to us.
const LONGEST_PLAINTEXT_2: usize = 96;
/// PLAINTEXT_3 of ours, at most: a kid and MAC_3.
const LONGEST_PLAINTEXT_3: usize = 8 + 1 + MAC;
/// PLAINTEXT_4 of others, at most. No message_2 is as short as the longest message_4, so that one is not taken for the other.
const LONGEST_PLAINTEXT_4: usize = 32;

/// Whether message_1 says which device it is from (EAD_1, docs/protocol.md 11). On links whose frames say so it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Announce {
    /// It says nothing of the device.
    Nothing,
    /// It says the short id: devices with IP of their own.
    Sid,
}

/// A run from the device's side, in state `S`: [`WaitM2`], then [`WaitM4`]. With `L` = E3 it is one with the cloud, with E2
/// one with a gateway alone. It lives in RAM: a run that a reboot cut is given up, and its epoch with it.
pub struct Initiator<L, S> {
    state: S,
    level: PhantomData<fn() -> L>,
}

/// message_1 is out: the ephemeral key, the hash of message_1, and both connection identifiers.
pub struct WaitM2<A> {
    ephemeral: A,
    h_message_1: [u8; HASH],
    c_i: Id,
    /// C_R that the other side must choose; `None` where it may choose.
    c_r: Option<Id>,
}

/// message_3 is out: the key schedule as it ends. The private keys of the run are gone.
pub struct WaitM4 {
    keys: Keys4,
    c_i: Id,
    c_r: Id,
}

impl<L: OscoreLevel, A: Agree> Initiator<L, WaitM2<A>> {
    /// Begins a run and writes message_1. The ephemeral key is new for each run, and `epoch` was never offered before: the
    /// next one is durable already (docs/protocol.md 8.2, W2).
    ///
    /// # Errors
    /// [`NoSuchContext`]: the epoch is 0 or has the bytes of the short id, or that is reserved.
    pub fn offer(ephemeral: A, sid: Sid, epoch: Epoch, announce: Announce) -> Result<(Self, Message), NoSuchContext> {
        let c_i = peer_id(sid, epoch, None)?;
        let message_1 = emit_message_1(&ephemeral.public_x(), c_i, announce.of(sid));
        Ok((Self::waiting(ephemeral, message_1_of(&message_1), c_i, Some(sid.into())), message_1))
    }

    /// Begins a run with a responder that chooses C_R by itself, and with any C_I: for tests against other
    /// implementations. What comes out of it is no context of a device of ours.
    pub fn danger_offer(ephemeral: A, c_i: Id) -> (Self, Message) {
        let message_1 = emit_message_1(&ephemeral.public_x(), c_i, None);
        (Self::waiting(ephemeral, message_1_of(&message_1), c_i, None), message_1)
    }

    pub(super) fn waiting(ephemeral: A, message_1: &[u8], c_i: Id, c_r: Option<Id>) -> Self {
        let state = WaitM2 { ephemeral, h_message_1: sha256(&[message_1]), c_i, c_r };
        Self { state, level: PhantomData }
    }

    /// Checks message_2 and writes message_3.
    ///
    /// # Errors
    /// `E5-02` for what is no message_2, and for one that the owner of `peer` did not make for this run; `E5-03` when it
    /// names another credential than `peer`. The session is always given back: nothing was spent, and message_2 names no
    /// run, so what does not verify may be a late one of another, or anybody's.
    pub fn handle_message_2(
        self,
        message_2: &[u8],
        own: &Identity<'_, A>,
        peer: &Credential<'_>,
    ) -> Result<(Initiator<L, WaitM4>, Message), Refused<Self>> {
        match self.state.answer(message_2, own, peer) {
            Ok((state, message_3)) => Ok((Initiator { state, level: PhantomData }, message_3)),
            Err(rejected) => Err(Refused::waiting(self, rejected)),
        }
    }
}

impl<A: Agree> WaitM2<A> {
    fn answer(
        &self,
        message_2: &[u8],
        own: &Identity<'_, A>,
        peer: &Credential<'_>,
    ) -> Result<(WaitM4, Message), Rejected> {
        let mut plaintext_2 = [0; LONGEST_PLAINTEXT_2];
        let (g_y, plaintext_2) = split_message_2(message_2, &mut plaintext_2)?;
        let Self { ephemeral, h_message_1, c_i, c_r: expected } = self;
        let (c_i, malformed) = (*c_i, |m: Malformed| m.counted(Code::RenewalForged));

        let g_xy = agree(ephemeral, &g_y).map_err(|_| NOT_ON_CURVE)?;
        let keys = Keys2e::new(&g_y, h_message_1, &g_xy);
        keys.apply_keystream_2(plaintext_2, &mut [0; LONGEST_PLAINTEXT_2]).map_err(|_| NOT_MESSAGE_2)?;
        let plaintext_2 = &*plaintext_2;
        let mut r = Reader::new(plaintext_2);
        let c_r = read_id(&mut r).map_err(malformed)?;
        let (kid, mac_2, ead_2) = read_claim(&mut r).map_err(malformed)?;
        if kid != peer.kid() {
            return Err(Rejected::new(Code::RenewalUnknownCredential, "message_2 names another credential"));
        }
        let g_rx = agree(ephemeral, &peer.public_x()).map_err(|_| PEER_NOT_ON_CURVE)?;
        let keys = keys.with_responder(&g_rx);
        if !holds(mac_2, &keys.mac_2(c_r, peer, ead_2)) {
            return Err(forged("MAC_2 does not hold"));
        }
        if expected.unwrap_or(c_r) != c_r || c_r == c_i {
            return Err(forged("C_R is not the short id of this device"));
        }

        let keys = keys.after_message_2(plaintext_2, peer);
        let g_iy = agree(own.key, &g_y).map_err(|_| NOT_ON_CURVE)?;
        let prk_4e3m = keys.with_initiator(&g_iy);
        let mac_3 = keys.mac_3(&prk_4e3m, own.credential, &[]);
        let mut plaintext_3 = [0; LONGEST_PLAINTEXT_3];
        let mut w = Writer::new(&mut plaintext_3);
        // The buffer holds the longest kid and the MAC.
        let written = emit_id(&mut w, own.credential.kid()).and_then(|()| w.bytes(&mac_3));
        debug_assert!(written.is_ok());
        let len = w.len();
        let plaintext_3 = plaintext_3.get_mut(..len).unwrap_or_default();
        let mut ciphertext_3 = [0; LONGEST_PLAINTEXT_3];
        let ciphertext_3 = ciphertext_3.get_mut(..len).unwrap_or_default();
        ciphertext_3.copy_from_slice(plaintext_3);
        let tag = keys.seal_3(ciphertext_3);
        let message_3 = Message::write(|w| {
            emit_id(w, c_r)?;
            w.bytes_head(len + TAG)?;
            w.encoded(ciphertext_3)?;
            w.encoded(&tag)
        });
        let keys = keys.after_message_3(prk_4e3m, plaintext_3, own.credential);
        Ok((WaitM4 { keys, c_i, c_r }, message_3))
    }
}

/// G_Y, and CIPHERTEXT_2 copied to the first bytes of `out`.
fn split_message_2<'o>(message_2: &[u8], out: &'o mut [u8]) -> Result<(PublicX, &'o mut [u8]), Rejected> {
    let both = read_byte_string(message_2).map_err(|m| m.counted(Code::RenewalForged))?;
    let (g_y, ciphertext_2) = both.split_first_chunk().ok_or(NOT_MESSAGE_2)?;
    if ciphertext_2.is_empty() {
        return Err(NOT_MESSAGE_2);
    }
    let out = out.get_mut(..ciphertext_2.len()).ok_or(forged("message_2 is longer than a device takes"))?;
    out.copy_from_slice(ciphertext_2);
    Ok((PublicX(*g_y), out))
}

impl<L: OscoreLevel> Initiator<L, WaitM4> {
    /// Checks message_4: the other side has the same keys, and has made them durable.
    ///
    /// # Errors
    /// `E5-02`, also for an EAD_4 that is not as it must be. The session is always given back: it may have been anybody's,
    /// message_2 once more for one.
    pub fn handle_message_4(self, message_4: &[u8]) -> Result<Agreed<L>, Refused<Self>> {
        match self.state.check(message_4) {
            Ok(handed) => {
                let WaitM4 { keys, c_i, c_r } = self.state;
                Ok(Agreed::new(keys.exporter(), c_i, c_r, handed))
            }
            Err(rejected) => Err(Refused::waiting(self, rejected)),
        }
    }
}

impl WaitM4 {
    fn check(&self, message_4: &[u8]) -> Result<Option<HandedKey>, Rejected> {
        let malformed = |m: Malformed| m.counted(Code::RenewalForged);
        let ciphertext_4 = read_byte_string(message_4).map_err(malformed)?;
        if !(TAG..=LONGEST_PLAINTEXT_4 + TAG).contains(&ciphertext_4.len()) {
            return Err(forged("not the length of message_4"));
        }
        let mut plaintext_4 = [0; LONGEST_PLAINTEXT_4];
        let len = self.keys.open_4(ciphertext_4, &mut plaintext_4).map_err(|_| forged("message_4 does not open"))?;
        let handed = HandedKey::read(plaintext_4.get(..len).unwrap_or_default());
        plaintext_4.zeroize();
        handed.map_err(malformed)
    }
}

impl<L, S: fmt::Debug> fmt::Debug for Initiator<L, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Initiator({:?})", self.state)
    }
}

impl<A> fmt::Debug for WaitM2<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaitM2(epoch {:?})", epoch_of(self.c_i))
    }
}

impl fmt::Debug for WaitM4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaitM4(epoch {:?})", epoch_of(self.c_i))
    }
}

const NOT_MESSAGE_2: Rejected = forged("shorter or longer than message_2 can be");
const PEER_NOT_ON_CURVE: Rejected = forged("the key of the credential is not on the curve");
