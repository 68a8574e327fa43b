//! OSCORE (RFC 8613): the one seal that E2 and E3 share. Both roles, algorithms 10 and 11, with or without ID Context,
//! answers with and without a number of their own.
//!
//! A [`Context`] keeps key bytes, not expanded keys, so that a gateway holds a hundred thousand of them; who opens many
//! messages of one context in a row keeps an [`Opening`] beside it. Windows and ledgers are the caller's: what is opened
//! here is [`Authentic`], not yet new.

mod inner;
mod master;
mod option;

use core::fmt;
use core::marker::PhantomData;

pub use inner::{
    InnerAnswer, InnerRequest, Plaintext, Refused, judge_answer, judge_request, judge_tiny_request, nested_answer,
};
pub(crate) use master::Master;
pub use option::OscoreOption;
use zeroize::{Zeroize, Zeroizing};

use crate::counter::Counter;
use crate::error::{Code, Rejected, SealError};
use crate::id::{BootContext, Sid};
use crate::key::Key;
use crate::level::OscoreLevel;
use crate::suite::{AeadSchedule, Alg, LONGEST_KEY, NONCE, TAG, hkdf_expand_into, hkdf_extract};

/// The number at which a context stops, for the sender (from it on) and the receiver (above it): 2^20 (docs/protocol.md 5).
pub const NUMBER_LIMIT: u32 = 1 << 20;
/// No answer bears this number or a greater one: three bytes are what a tiny answer has room for. From [`NUMBER_LIMIT`] on they
/// are numbers of a server whose store was put back from a copy (docs/protocol.md 8.4).
pub const ANSWER_LIMIT: u32 = 1 << 24;
/// The number from which a context is to be renewed (docs/protocol.md 5).
pub const RENEW_AT: u32 = 49_152;
/// Failed verifications after which a context is to be renewed.
pub const FAILURES_SOFT: u32 = 1 << 14;
/// Failed verifications after which a context accepts nothing more.
pub const FAILURES_HARD: u32 = 1 << 20;
/// The shortest OSCORE ciphertext: an encrypted code, and the tag.
pub const SHORTEST_CIPHERTEXT: usize = TAG + 1;

/// An OSCORE Sender or Recipient ID: 0 to 7 bytes (RFC 8613 3.3 with a nonce of 13).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    bytes: [u8; 7],
    len: u8,
}

impl Id {
    /// `None` for more than 7 bytes.
    pub fn new(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; 7];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self { bytes, len: id.len() as u8 })
    }

    /// The bytes, possibly none.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl From<Sid> for Id {
    fn from(sid: Sid) -> Self {
        let [a, b] = sid.to_bytes();
        Self { bytes: [a, b, 0, 0, 0, 0, 0], len: 2 }
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Id(")?;
        self.as_bytes().iter().try_for_each(|b| write!(f, "{b:02x}"))?;
        f.write_str(")")
    }
}

/// A Partial IV in its only allowed form: no leading zero byte, except the single byte 00. 1 to 5 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartialIv {
    // Right-aligned, so that the derived order is that of the numbers.
    bytes: [u8; 5],
    len: u8,
}

impl PartialIv {
    /// From the bytes of a message.
    ///
    /// # Errors
    /// `T-02` for a leading zero byte, `T-01` for no byte or more than 5.
    pub fn from_minimal(piv: &[u8]) -> Result<Self, Rejected> {
        match piv {
            [] => Err(Rejected::new(Code::TinyMalformed, "PIV length 0")),
            [0, _, ..] => Err(Rejected::new(Code::PivNotMinimal, "PIV not minimal")),
            _ => {
                let mut bytes = [0; 5];
                let start = 5usize.checked_sub(piv.len());
                match start.and_then(|s| bytes.get_mut(s..)) {
                    Some(end) => end.copy_from_slice(piv),
                    None => return Err(Rejected::new(Code::TinyMalformed, "PIV longer than 5 bytes")),
                }
                Ok(Self { bytes, len: piv.len() as u8 })
            }
        }
    }

    /// Of a sender number.
    pub const fn from_value(number: u32) -> Self {
        let [a, b, c, d] = number.to_be_bytes();
        let len = match number {
            0..=0xFF => 1,
            0x100..=0xFFFF => 2,
            0x1_0000..=0xFF_FFFF => 3,
            _ => 4,
        };
        Self { bytes: [0, a, b, c, d], len }
    }

    /// The number.
    pub fn value(&self) -> u64 {
        self.bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// The bytes, as they stand in a message.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(5usize.saturating_sub(usize::from(self.len))..).unwrap_or_default()
    }

    /// Refuses a request's number above [`NUMBER_LIMIT`], as every receiver does before it opens.
    ///
    /// # Errors
    /// `L::LIMIT` (`E2-09`, `E3-09`).
    pub fn check_limit<L: OscoreLevel>(&self) -> Result<(), Rejected> {
        if self.value() > u64::from(NUMBER_LIMIT) {
            return Err(Rejected::new(L::LIMIT, "PIV above 2^20"));
        }
        Ok(())
    }
}

impl fmt::Debug for PartialIv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PartialIv({})", self.value())
    }
}

/// What names a request in its answers: who asked, under which number (`request_kid`, `request_piv` of RFC 8613 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// Sender ID of the one who asked.
    pub kid: Id,
    /// Its number.
    pub piv: PartialIv,
}

/// What a context is derived from (RFC 8613 3.2). HKDF is SHA-256.
#[derive(Clone, Copy)]
pub struct Params<'a> {
    /// AEAD algorithm.
    pub alg: Alg,
    /// Master Secret, of any length.
    pub master_secret: &'a [u8],
    /// Master Salt; empty when there is none.
    pub master_salt: &'a [u8],
    /// ID Context; the boot id in mode R.
    pub id_context: Option<&'a [u8]>,
    /// Our own id.
    pub sender_id: Id,
    /// The other side's id.
    pub recipient_id: Id,
}

/// One end of an OSCORE security context at level `L`. About 110 bytes; wiped when dropped.
///
/// What a context of one level sealed, a context of another cannot even be asked to open in the types; here by bytes:
/// see the tests. A counter seals once:
/// ```
/// use fivefold_core::{counter::Counter, e3_cloud::E3, oscore::Context};
/// fn send(c: &Context<E3>, n: Counter, out: &mut [u8]) {
///     let _ = c.seal_request(n, b"\x02\xffhello", out);
/// }
/// ```
/// ```compile_fail,E0382
/// use fivefold_core::{counter::Counter, e3_cloud::E3, oscore::Context};
/// fn send(c: &Context<E3>, n: Counter, out: &mut [u8]) {
///     let _ = c.seal_request(n, b"\x02\xffhello", out);
///     let _ = c.seal_request(n, b"\x02\xffworld", out);
/// }
/// ```
/// A context of E2 is none of E3:
/// ```
/// use fivefold_core::{e3_cloud::E3, oscore::Context};
/// fn read_as_cloud(_: &Context<E3>) {}
/// fn cloud(c: &Context<E3>) { read_as_cloud(c) }
/// ```
/// ```compile_fail,E0308
/// use fivefold_core::{e2_gateway::E2, e3_cloud::E3, oscore::Context};
/// fn read_as_cloud(_: &Context<E3>) {}
/// fn gateway(c: &Context<E2>) { read_as_cloud(c) }
/// ```
pub struct Context<L: OscoreLevel> {
    sender_key: Key<L, LONGEST_KEY>,
    receive: ReceiveContext<L>,
}

impl<L: OscoreLevel> Context<L> {
    /// Derives keys and Common IV (RFC 8613 3.2.1). An ID Context goes into the keys whatever its length; it is kept for
    /// [`id_context`](Self::id_context) if it is 8 bytes long, as boot ids are.
    pub fn derive(p: &Params<'_>) -> Self {
        let prk = Zeroizing::new(hkdf_extract(p.master_salt, p.master_secret));
        let mut sender_key = [0; LONGEST_KEY];
        let mut recipient_key = [0; LONGEST_KEY];
        let mut common_iv = [0; NONCE];
        let len = p.alg.key_len();
        expand(&prk, p, p.sender_id.as_bytes(), "Key", sender_key.get_mut(..len).unwrap_or_default());
        expand(&prk, p, p.recipient_id.as_bytes(), "Key", recipient_key.get_mut(..len).unwrap_or_default());
        expand(&prk, p, b"", "IV", &mut common_iv);
        let context = Self {
            sender_key: Key::new(sender_key),
            receive: ReceiveContext {
                recipient_key: Key::new(recipient_key),
                common_iv,
                alg: p.alg,
                sender_id: p.sender_id,
                recipient_id: p.recipient_id,
                id_context: p.id_context.and_then(|c| c.try_into().ok()).map(BootContext),
            },
        };
        sender_key.zeroize();
        recipient_key.zeroize();
        context
    }

    /// What a secondary gateway gets: it opens the other side's requests and cannot send.
    pub fn receive_part(&self) -> ReceiveContext<L> {
        let r = &self.receive;
        ReceiveContext {
            recipient_key: Key::new(*r.recipient_key.expose()),
            common_iv: r.common_iv,
            alg: r.alg,
            sender_id: r.sender_id,
            recipient_id: r.recipient_id,
            id_context: r.id_context,
        }
    }

    /// AEAD algorithm.
    pub fn alg(&self) -> Alg {
        self.receive.alg
    }

    /// Our own id.
    pub fn sender_id(&self) -> Id {
        self.receive.sender_id
    }

    /// The other side's id.
    pub fn recipient_id(&self) -> Id {
        self.receive.recipient_id
    }

    /// The boot id, in mode R.
    pub fn id_context(&self) -> Option<BootContext> {
        self.receive.id_context
    }

    /// Seals a request: `out` gets ciphertext and tag, `plaintext.len() + 8` bytes. Returns what answers refer to, and
    /// the length.
    ///
    /// # Errors
    /// [`SealError::LeaseSpent`] from number 2^20 on, [`SealError::BufferTooSmall`].
    pub fn seal_request(&self, n: Counter, plaintext: &[u8], out: &mut [u8]) -> Result<(RequestId, usize), SealError> {
        self.seal_request_under(n.value(), plaintext, out)
    }

    /// For a second level around the first, which shares its number (docs/protocol.md 5).
    pub(crate) fn seal_request_under(
        &self,
        number: u32,
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<(RequestId, usize), SealError> {
        let request = RequestId { kid: self.sender_id(), piv: sendable(number, NUMBER_LIMIT)? };
        let len = self.seal(&request, self.nonce(&request.kid, &request.piv), plaintext, out)?;
        Ok((request, len))
    }

    /// Opens a request of the other side. See [`ReceiveContext::open_request`].
    ///
    /// # Errors
    /// As there.
    pub fn open_request<'b>(
        &self,
        piv: PartialIv,
        ciphertext: &[u8],
        out: &'b mut [u8],
    ) -> Result<Authentic<'b, L>, Rejected> {
        self.receive.open_request(piv, ciphertext, out)
    }

    /// The expanded key for opening, to keep for several messages.
    pub fn opening(&self) -> Opening<L> {
        self.receive.opening()
    }

    /// [`open_request`](Self::open_request) with a key that was expanded before, by [`opening`](Self::opening) of this
    /// very context.
    ///
    /// # Errors
    /// As there.
    pub fn open_request_with<'b>(
        &self,
        opening: &Opening<L>,
        piv: PartialIv,
        ciphertext: &[u8],
        out: &'b mut [u8],
    ) -> Result<Authentic<'b, L>, Rejected> {
        self.receive.open_request_with(opening, piv, ciphertext, out)
    }

    /// Seals an answer to a request of the other side: `out` gets ciphertext and tag, `plaintext.len() + 8` bytes. With
    /// [`AnswerNumber::Own`] the number goes into the OSCORE option of the answer.
    ///
    /// # Errors
    /// [`SealError::LeaseSpent`] when `to` is no request of the other side or not the one the unnumbered answer belongs
    /// to, and for own numbers from 2^24 on; [`SealError::BufferTooSmall`].
    pub fn seal_answer(
        &self,
        to: &RequestId,
        n: AnswerNumber<L>,
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        // The nonce of an unnumbered answer is that of the request: made with our own id it would be one of ours.
        if to.kid != self.recipient_id() {
            return Err(SealError::LeaseSpent);
        }
        let nonce = match n {
            AnswerNumber::Unnumbered(only) if only.request == *to => self.nonce(&to.kid, &to.piv),
            AnswerNumber::Unnumbered(_) => return Err(SealError::LeaseSpent),
            AnswerNumber::Own(n) => self.nonce(&self.sender_id(), &sendable(n.value(), ANSWER_LIMIT)?),
        };
        self.seal(to, nonce, plaintext, out)
    }

    /// Opens the answer to a request of ours. `piv` is the answer's own number, if it has one. The caller sees to it that
    /// at most one answer without a number is taken for each request, and numbers only increase (docs/protocol.md 8.1).
    ///
    /// # Errors
    /// `L::FORGED` when the tag does not hold or `to` is no request of ours, `L::LIMIT` from 2^24 on, `T-01` when it is
    /// shorter than a tag and a code, or longer than `out`.
    pub fn open_answer<'b>(
        &self,
        to: &RequestId,
        piv: Option<PartialIv>,
        ciphertext: &[u8],
        out: &'b mut [u8],
    ) -> Result<Authentic<'b, L>, Rejected> {
        if to.kid != self.sender_id() {
            return Err(Rejected::new(L::FORGED, "an answer to a request that was not ours"));
        }
        let nonce = match &piv {
            Some(piv) => {
                if piv.value() >= u64::from(ANSWER_LIMIT) {
                    return Err(Rejected::new(L::LIMIT, "PIV of an answer above three bytes"));
                }
                self.nonce(&self.recipient_id(), piv)
            }
            None => self.nonce(&to.kid, &to.piv),
        };
        let plaintext = self.receive.open(&self.opening(), to, &nonce, ciphertext, out)?;
        Ok(Authentic { plaintext, request: *to, piv: piv.unwrap_or(to.piv), level: PhantomData })
    }

    fn nonce(&self, id: &Id, piv: &PartialIv) -> [u8; NONCE] {
        self.receive.nonce(id, piv)
    }

    fn seal(
        &self,
        request: &RequestId,
        nonce: [u8; NONCE],
        plaintext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let len = plaintext.len() + TAG;
        let (body, tag) = out
            .get_mut(..len)
            .and_then(|sealed| sealed.split_at_mut_checked(plaintext.len()))
            .ok_or(SealError::BufferTooSmall)?;
        body.copy_from_slice(plaintext);
        let schedule = AeadSchedule::new(self.alg(), self.sender_key.expose());
        tag.copy_from_slice(&schedule.seal(&nonce, Aad::new(self.alg(), request).as_bytes(), body));
        Ok(len)
    }
}

impl<L: OscoreLevel> fmt::Debug for Context<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.receive.describe("Context", f)
    }
}

/// The receiving half of a context: it opens requests of the other side and seals nothing.
///
/// ```compile_fail,E0599
/// use fivefold_core::{counter::Counter, e2_gateway::E2, oscore::ReceiveContext};
/// fn send(c: &ReceiveContext<E2>, n: Counter, out: &mut [u8]) {
///     let _ = c.seal_request(n, b"\x02\xffhello", out);
/// }
/// ```
/// ```
/// use fivefold_core::{counter::Counter, e2_gateway::E2, oscore::Context};
/// fn send(c: &Context<E2>, n: Counter, out: &mut [u8]) {
///     let _ = c.seal_request(n, b"\x02\xffhello", out);
/// }
/// ```
pub struct ReceiveContext<L: OscoreLevel> {
    recipient_key: Key<L, LONGEST_KEY>,
    common_iv: [u8; NONCE],
    alg: Alg,
    sender_id: Id,
    recipient_id: Id,
    id_context: Option<BootContext>,
}

impl<L: OscoreLevel> ReceiveContext<L> {
    /// From what was pushed: the other side's sender key (16 or 32 bytes, as the algorithm says), the Common IV and the
    /// ids. `None` when the key has another length.
    pub fn from_parts(
        alg: Alg,
        recipient_key: &[u8],
        common_iv: [u8; NONCE],
        sender_id: Id,
        recipient_id: Id,
        id_context: Option<BootContext>,
    ) -> Option<Self> {
        if recipient_key.len() != alg.key_len() {
            return None;
        }
        let mut key = [0; LONGEST_KEY];
        key.get_mut(..recipient_key.len())?.copy_from_slice(recipient_key);
        let context = Self { recipient_key: Key::new(key), common_iv, alg, sender_id, recipient_id, id_context };
        key.zeroize();
        Some(context)
    }

    /// The other side's sender key: what it takes to read and to forge its messages.
    pub fn danger_recipient_key(&self) -> &[u8] {
        self.recipient_key.expose().get(..self.alg.key_len()).unwrap_or_default()
    }

    /// The Common IV. Not secret by itself.
    pub fn common_iv(&self) -> &[u8; NONCE] {
        &self.common_iv
    }

    /// AEAD algorithm.
    pub fn alg(&self) -> Alg {
        self.alg
    }

    /// The id that our side of the context has.
    pub fn sender_id(&self) -> Id {
        self.sender_id
    }

    /// The other side's id.
    pub fn recipient_id(&self) -> Id {
        self.recipient_id
    }

    /// The boot id, in mode R.
    pub fn id_context(&self) -> Option<BootContext> {
        self.id_context
    }

    /// The expanded key for opening, to keep for several messages.
    pub fn opening(&self) -> Opening<L> {
        Opening { schedule: AeadSchedule::new(self.alg, self.recipient_key.expose()), level: PhantomData }
    }

    /// Opens a request of the other side into `out`, which needs `ciphertext.len() - 8` bytes. Whether the number is new
    /// is the caller's to judge, after this and before anything is done with the plaintext.
    ///
    /// # Errors
    /// `L::FORGED` when the tag does not hold, `L::LIMIT` for a number above 2^20, `T-01` when the ciphertext is shorter
    /// than a tag and a code, or longer than `out`.
    pub fn open_request<'b>(
        &self,
        piv: PartialIv,
        ciphertext: &[u8],
        out: &'b mut [u8],
    ) -> Result<Authentic<'b, L>, Rejected> {
        self.open_request_with(&self.opening(), piv, ciphertext, out)
    }

    /// [`open_request`](Self::open_request) with a key that was expanded before, by [`opening`](Self::opening) of this
    /// very context.
    ///
    /// # Errors
    /// As there.
    pub fn open_request_with<'b>(
        &self,
        opening: &Opening<L>,
        piv: PartialIv,
        ciphertext: &[u8],
        out: &'b mut [u8],
    ) -> Result<Authentic<'b, L>, Rejected> {
        piv.check_limit::<L>()?;
        let request = RequestId { kid: self.recipient_id, piv };
        let plaintext = self.open(opening, &request, &self.nonce(&request.kid, &piv), ciphertext, out)?;
        Ok(Authentic { plaintext, request, piv, level: PhantomData })
    }

    fn open<'b>(
        &self,
        opening: &Opening<L>,
        request: &RequestId,
        nonce: &[u8; NONCE],
        ciphertext: &[u8],
        out: &'b mut [u8],
    ) -> Result<&'b [u8], Rejected> {
        let (body, tag) = ciphertext
            .split_last_chunk::<TAG>()
            .filter(|(body, _)| !body.is_empty())
            .ok_or(Rejected::new(Code::TinyMalformed, "shorter than tag and code"))?;
        let plaintext =
            out.get_mut(..body.len()).ok_or(Rejected::new(Code::TinyMalformed, "longer than this receiver takes"))?;
        plaintext.copy_from_slice(body);
        opening
            .schedule
            .open(nonce, Aad::new(self.alg, request).as_bytes(), plaintext, tag)
            .map_err(|_| Rejected::new(L::FORGED, "tag failure"))?;
        Ok(plaintext)
    }

    /// RFC 8613 5.2: (length of the id ‖ id, left-padded to 7 ‖ PIV, left-padded to 5) XOR Common IV.
    fn nonce(&self, id: &Id, piv: &PartialIv) -> [u8; NONCE] {
        let mut nonce = self.common_iv;
        let id = id.as_bytes();
        nonce[0] ^= id.len() as u8;
        nonce.iter_mut().skip(8 - id.len()).zip(id).for_each(|(n, b)| *n ^= b);
        nonce.iter_mut().skip(8).zip(piv.bytes).for_each(|(n, b)| *n ^= b);
        nonce
    }

    fn describe(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("alg", &self.alg)
            .field("sender_id", &self.sender_id)
            .field("recipient_id", &self.recipient_id)
            .field("id_context", &self.id_context)
            .finish_non_exhaustive()
    }
}

impl<L: OscoreLevel> fmt::Debug for ReceiveContext<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe("ReceiveContext", f)
    }
}

/// An expanded key for opening messages of one context. Large: keep a few, not one for each device.
#[derive(Clone, Debug)]
pub struct Opening<L: OscoreLevel> {
    schedule: AeadSchedule,
    level: PhantomData<fn() -> L>,
}

/// The plaintext of a message whose tag held, under a context of level `L`. Only an opening makes one.
///
/// It says who wrote the bytes, not that they are new: a repeat opens as well (docs/protocol.md 8.1).
/// ```compile_fail,E0451
/// use core::marker::PhantomData;
/// use fivefold_core::{e3_cloud::E3, oscore::{Authentic, Id, PartialIv, RequestId}};
/// let piv = PartialIv::from_value(0);
/// let request = RequestId { kid: Id::default(), piv };
/// let _: Authentic<'_, E3> = Authentic { plaintext: b"forged", request, piv, level: PhantomData };
/// ```
/// ```
/// use fivefold_core::{e3_cloud::E3, oscore::{Authentic, Context, PartialIv}};
/// fn read<'b>(c: &Context<E3>, sealed: &[u8], out: &'b mut [u8]) -> Option<Authentic<'b, E3>> {
///     c.open_request(PartialIv::from_value(0), sealed, out).ok()
/// }
/// ```
pub struct Authentic<'b, L: OscoreLevel> {
    plaintext: &'b [u8],
    request: RequestId,
    piv: PartialIv,
    level: PhantomData<fn() -> L>,
}

impl<'b, L: OscoreLevel> Authentic<'b, L> {
    /// What was sealed: code, options, payload ([`Plaintext`]), or what docs/protocol.md 6.3 puts there.
    pub fn plaintext(&self) -> &'b [u8] {
        self.plaintext
    }

    /// The request that this is, or that this answers.
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// The number it was sealed under: of an answer without its own, the request's.
    pub fn piv(&self) -> PartialIv {
        self.piv
    }

    /// The right to one answer without a number (docs/protocol.md 9.2). The caller MUST have made durable that it is
    /// used, before the answer is sent: a repeat of the request opens again, and must find the right gone.
    pub fn unnumbered(self) -> UnnumberedAnswer<L> {
        UnnumberedAnswer { request: self.request, level: PhantomData }
    }
}

impl<L: OscoreLevel> fmt::Debug for Authentic<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentic").field("request", &self.request).field("piv", &self.piv).finish_non_exhaustive()
    }
}

/// The right to seal one answer under the request's own nonce. It comes from an opened request and is used up by
/// [`Context::seal_answer`].
///
/// ```
/// use fivefold_core::{e3_cloud::E3, oscore::*};
/// fn answer(c: &Context<E3>, once: UnnumberedAnswer<E3>, out: &mut [u8]) {
///     let to = once.request();
///     let _ = c.seal_answer(&to, AnswerNumber::Unnumbered(once), b"\x44", out);
/// }
/// ```
/// ```compile_fail,E0382
/// use fivefold_core::{e3_cloud::E3, oscore::*};
/// fn answer(c: &Context<E3>, once: UnnumberedAnswer<E3>, out: &mut [u8]) {
///     let to = once.request();
///     let _ = c.seal_answer(&to, AnswerNumber::Unnumbered(once), b"\x44", out);
///     let _ = c.seal_answer(&to, AnswerNumber::Unnumbered(once), b"\x80", out);
/// }
/// ```
#[derive(Debug)]
pub struct UnnumberedAnswer<L: OscoreLevel> {
    request: RequestId,
    level: PhantomData<fn() -> L>,
}

impl<L: OscoreLevel> UnnumberedAnswer<L> {
    /// The request it belongs to.
    pub fn request(&self) -> RequestId {
        self.request
    }
}

/// Under which number an answer is sealed.
#[derive(Debug)]
pub enum AnswerNumber<L: OscoreLevel> {
    /// Under a number of our own, which the answer carries.
    Own(Counter),
    /// Under the request's, once; the answer carries none.
    Unnumbered(UnnumberedAnswer<L>),
}

fn sendable(number: u32, limit: u32) -> Result<PartialIv, SealError> {
    if number >= limit {
        return Err(SealError::LeaseSpent);
    }
    Ok(PartialIv::from_value(number))
}

/// RFC 8613 3.2.1: HKDF-Expand with info = [id, id_context, alg_aead, type, L].
fn expand(prk: &[u8; 32], p: &Params<'_>, id: &[u8], kind: &'static str, out: &mut [u8]) {
    let id_context = p.id_context;
    let (head, head_len) = match id_context {
        None => ([0xF6, 0, 0], 1),
        Some(c) => cbor_head(0x40, c.len()),
    };
    let info: &[&[u8]] = &[
        &[0x85, 0x40 | id.len() as u8],
        id,
        head.get(..head_len).unwrap_or_default(),
        id_context.unwrap_or_default(),
        &[p.alg.cose(), 0x60 | kind.len() as u8],
        kind.as_bytes(),
        match out.len() {
            NONCE => &[0x0D],
            16 => &[0x10],
            _ => &[0x18, 0x20],
        },
    ];
    let fits = hkdf_expand_into(prk, info, out);
    debug_assert!(fits.is_ok());
}

/// A CBOR head of a length below 64 KiB.
fn cbor_head(major: u8, len: usize) -> ([u8; 3], usize) {
    let [high, low] = (len as u16).to_be_bytes();
    match len {
        0..24 => ([major | low, 0, 0], 1),
        24..256 => ([major | 24, low, 0], 2),
        _ => ([major | 25, high, low], 3),
    }
}

/// RFC 8613 5.4: the Enc_structure ["Encrypt0", h'', [1, [alg], request_kid, request_piv, h'']].
struct Aad {
    bytes: [u8; 32],
    len: usize,
}

impl Aad {
    fn new(alg: Alg, request: &RequestId) -> Self {
        let (kid, piv) = (request.kid.as_bytes(), request.piv.as_bytes());
        let array = 7 + kid.len() + piv.len();
        let mut bytes = [0; 32];
        let parts: [&[u8]; 6] = [
            b"\x83\x68Encrypt0\x40",
            &[0x40 | array as u8, 0x85, 0x01, 0x81, alg.cose(), 0x40 | kid.len() as u8],
            kid,
            &[0x40 | piv.len() as u8],
            piv,
            &[0x40],
        ];
        bytes.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(b, p)| *b = *p);
        Self { bytes, len: 12 + array }
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
