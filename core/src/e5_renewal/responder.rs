//! The server's side, at the cloud or at a gateway: message_2, who claims to be there, and message_4.

use core::fmt;
use core::marker::PhantomData;

use crate::error::{Code, Rejected};
use crate::id::{Epoch, Sid};
use crate::level::OscoreLevel;
use crate::oscore::Id;
use crate::suite::agreement::Agree;
use crate::suite::{TAG, sha256};
use crate::wire::cbor::{Reader, Writer};

use super::agreed::Agreed;
use super::credential::{Credential, Identity, emit_id};
use super::handed::HandedKey;
use super::message::{MAC, Message, Offer, epoch_of, read_byte_string, read_claim};
use super::schedule::{Keys2e, Keys3, holds};
use super::{NOT_ON_CURVE, Refused, agree, forged};

/// PLAINTEXT_2 of ours, at most: C_R, a kid, MAC_2.
const LONGEST_PLAINTEXT_2: usize = 8 + 8 + 1 + MAC;
/// PLAINTEXT_3 of others, at most, with data in it that means nothing to us.
const LONGEST_PLAINTEXT_3: usize = 96;

/// A run from the server's side, in state `S`: [`WaitM3`], then [`ReadM3`]. With `L` = E3 the server is the cloud, with E2 a
/// gateway. It lives in RAM: what a restart loses, the device asks for again.
pub struct Responder<L, S> {
    state: S,
    c_i: Id,
    c_r: Id,
    level: PhantomData<fn() -> L>,
}

/// message_2 is out: the ephemeral key, and the key schedule up to message_3.
pub struct WaitM3<A> {
    ephemeral: A,
    keys: Keys3,
}

/// message_3 is decrypted: whoever made message_1 made it too. Who that is remains to be proven.
pub struct ReadM3<A> {
    ephemeral: A,
    keys: Keys3,
    kid: Id,
    mac_3: [u8; MAC],
    plaintext_3: [u8; LONGEST_PLAINTEXT_3],
    len: usize,
    ead_from: usize,
}

impl<L, S> Responder<L, S> {
    /// C_I: what the device chose.
    pub const fn c_i(&self) -> Id {
        self.c_i
    }

    /// C_R: the bytes of the device's short id.
    pub const fn c_r(&self) -> Id {
        self.c_r
    }

    /// The epoch that the device asks for; `None` when C_I is none.
    pub fn epoch(&self) -> Option<Epoch> {
        epoch_of(self.c_i)
    }
}

impl<L: OscoreLevel, A: Agree> Responder<L, WaitM3<A>> {
    /// Answers message_1 with message_2. The ephemeral key is new for each message_1; a repeat of message_1 is answered
    /// with the message_2 that was kept, not by this.
    ///
    /// # Errors
    /// `E5-02` when G_X is no point of the curve, or C_I has the bytes of the short id or is empty.
    pub fn answer(
        offer: &Offer<'_>,
        ephemeral: A,
        sid: Sid,
        own: &Identity<'_, A>,
    ) -> Result<(Self, Message), Rejected> {
        Self::answer_as(offer, ephemeral, sid.into(), own)
    }

    pub(super) fn answer_as(
        offer: &Offer<'_>,
        ephemeral: A,
        c_r: Id,
        own: &Identity<'_, A>,
    ) -> Result<(Self, Message), Rejected> {
        let c_i = offer.c_i();
        if c_i == c_r {
            return Err(forged("C_I has the bytes of the short id"));
        }
        let g_y = ephemeral.public_x();
        let g_xy = agree(&ephemeral, &offer.g_x).map_err(|_| NOT_ON_CURVE)?;
        let keys_2 = Keys2e::new(&g_y, &sha256(&[offer.as_bytes()]), &g_xy);
        let g_rx = agree(own.key, &offer.g_x).map_err(|_| NOT_ON_CURVE)?;
        let keys = keys_2.with_responder(&g_rx);
        let mac_2 = keys.mac_2(c_r, own.credential, &[]);
        let mut plaintext_2 = [0; LONGEST_PLAINTEXT_2];
        let mut w = Writer::new(&mut plaintext_2);
        // The buffer holds two identifiers at their longest, and the MAC.
        let written =
            emit_id(&mut w, c_r).and_then(|()| emit_id(&mut w, own.credential.kid())).and_then(|()| w.bytes(&mac_2));
        debug_assert!(written.is_ok());
        let len = w.len();
        let mut ciphertext_2 = plaintext_2;
        let ciphertext_2 = ciphertext_2.get_mut(..len).unwrap_or_default();
        let fits = keys_2.apply_keystream_2(ciphertext_2, &mut [0; LONGEST_PLAINTEXT_2]);
        debug_assert!(fits.is_ok());
        let message_2 = Message::write(|w| {
            w.bytes_head(g_y.0.len() + len)?;
            w.encoded(&g_y.0)?;
            w.encoded(ciphertext_2)
        });
        let keys = keys.after_message_2(plaintext_2.get(..len).unwrap_or_default(), own.credential);
        Ok((Self { state: WaitM3 { ephemeral, keys }, c_i, c_r, level: PhantomData }, message_2))
    }

    /// Decrypts message_3, which stands behind C_R in the payload.
    ///
    /// # Errors
    /// `E5-02`. The session is given back when it was no message_3, or not one of this run: anybody can send that.
    pub fn handle_message_3(self, message_3: &[u8]) -> Result<Responder<L, ReadM3<A>>, Refused<Self>> {
        let mut plaintext_3 = [0; LONGEST_PLAINTEXT_3];
        let opened = read_byte_string(message_3)
            .map_err(|m| m.counted(Code::RenewalForged))
            .and_then(|c| self.state.keys.open_3(c, &mut plaintext_3).map_err(|_| forged("message_3 does not open")));
        let len = match opened {
            Ok(len) => len,
            Err(rejected) => return Err(Refused::waiting(self, rejected)),
        };
        let mut r = Reader::new(plaintext_3.get(..len).unwrap_or_default());
        let (kid, mac_3, ead_3) = read_claim(&mut r)?;
        let (mac_3, ead_from) = (*mac_3, len - ead_3.len());
        let Self { state: WaitM3 { ephemeral, keys }, c_i, c_r, level } = self;
        let state = ReadM3 { ephemeral, keys, kid, mac_3, plaintext_3, len, ead_from };
        Ok(Responder { state, c_i, c_r, level })
    }
}

impl<L: OscoreLevel, A: Agree> Responder<L, ReadM3<A>> {
    /// ID_CRED_I: the kid of the credential that the device says it has. Nothing proves it yet.
    pub const fn id_cred_i(&self) -> Id {
        self.state.kid
    }

    /// Checks that the device has the key of `credential`, and writes message_4. What comes out is durable before
    /// message_4 is sent (docs/protocol.md 8.2, W6).
    ///
    /// # Errors
    /// `E5-03` when message_3 names another credential than this one, `E5-02` when its owner did not make message_3.
    pub fn verify(self, credential: &Credential<'_>) -> Result<(Agreed<L>, Message), Rejected> {
        self.verify_and_hand(credential, None)
    }

    /// The same; message_4 hands the device a network key that it slept through (EAD_4, docs/protocol.md 4.3).
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn verify_and_hand(
        self,
        credential: &Credential<'_>,
        handed: Option<HandedKey>,
    ) -> Result<(Agreed<L>, Message), Rejected> {
        let ReadM3 { ephemeral, keys, kid, mac_3, plaintext_3, len, ead_from } = self.state;
        if kid != credential.kid() {
            return Err(Rejected::new(Code::RenewalUnknownCredential, "message_3 names another credential"));
        }
        let plaintext_3 = plaintext_3.get(..len).unwrap_or_default();
        let ead_3 = plaintext_3.get(ead_from..).unwrap_or_default();
        let g_iy = agree(&ephemeral, &credential.public_x())
            .map_err(|_| Rejected::new(Code::RenewalUnknownCredential, "the credential's key is not on the curve"))?;
        let prk_4e3m = keys.with_initiator(&g_iy);
        if !holds(&mac_3, &keys.mac_3(&prk_4e3m, credential, ead_3)) {
            return Err(forged("MAC_3 does not hold"));
        }
        let keys = keys.after_message_3(prk_4e3m, plaintext_3, credential);
        let mut ciphertext_4 = [0; HandedKey::LONGEST];
        let mut w = Writer::new(&mut ciphertext_4);
        // The buffer holds the longest.
        let written = handed.as_ref().map_or(Ok(()), |key| key.emit(&mut w));
        debug_assert!(written.is_ok());
        let len = w.len();
        let ciphertext_4 = ciphertext_4.get_mut(..len).unwrap_or_default();
        let tag = keys.seal_4(ciphertext_4);
        let message_4 = Message::write(|w| {
            w.bytes_head(len + TAG)?;
            w.encoded(ciphertext_4)?;
            w.encoded(&tag)
        });
        Ok((Agreed::new(keys.exporter(), self.c_i, self.c_r, handed), message_4))
    }
}

impl<L, S> fmt::Debug for Responder<L, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Responder(C_I {:?}, C_R {:?})", self.c_i, self.c_r)
    }
}
