//! The key schedule of EDHOC (RFC 9528 4), one type for what is known at each point; each consumes the one before.

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::oscore::Id;
use crate::suite::agreement::{PublicX, SharedX};
use crate::suite::{
    AeadSchedule, Alg, Forged, HASH, NONCE, OutputTooLong, TAG, hkdf_expand_into, hkdf_extract, sha256,
};
use crate::wire::cbor::Writer;

use super::credential::{Credential, emit_id};
use super::message::MAC;

/// Head of a CBOR byte string of 32 bytes.
const HASH_HEAD: &[u8] = &[0x58, 0x20];
/// Enc_structure of COSE_Encrypt0 up to the transcript hash: ["Encrypt0", h'', TH] (RFC 9052 5.3).
const ENCRYPT_0: [u8; 13] = *b"\x83\x68Encrypt0\x40\x58\x20";
/// The EDHOC AEAD of suite 2.
const AEAD: Alg = Alg::AesCcm16_64_128;

/// A pseudorandom key (RFC 9528 4.1.1), wiped when dropped.
pub(super) struct Prk([u8; HASH]);

impl Prk {
    fn extract(salt: &[u8; HASH], shared: &SharedX) -> Self {
        Self(hkdf_extract(salt, shared.expose()))
    }

    /// EDHOC_KDF (RFC 9528 4.1.2) with a context that stands in parts.
    fn kdf_into(&self, label: u16, context: &[&[u8]], out: &mut [u8]) -> Result<(), OutputTooLong> {
        let n: usize = context.iter().map(|part| part.len()).sum();
        let (mut before, mut after) = ([0; 8], [0; 4]);
        // Label, head and length of ours take at most 3 bytes each.
        let mut w = Writer::new(&mut before);
        let written = w.unsigned(label).and_then(|()| w.bytes_head(n));
        debug_assert!(written.is_ok());
        let before_len = w.len();
        let mut w = Writer::new(&mut after);
        let written = w.unsigned(out.len() as u64);
        debug_assert!(written.is_ok());
        let after_len = w.len();
        let mut info: Parts<'_> = Parts::default();
        info.push(before.get(..before_len).unwrap_or_default());
        context.iter().for_each(|part| info.push(part));
        info.push(after.get(..after_len).unwrap_or_default());
        hkdf_expand_into(&self.0, info.as_slice(), out)
    }

    fn kdf<const N: usize>(&self, label: u16, context: &[&[u8]]) -> [u8; N] {
        const { assert!(N <= crate::suite::HKDF_LONGEST) };
        let mut out = [0; N];
        let fits = self.kdf_into(label, context, &mut out);
        debug_assert!(fits.is_ok());
        out
    }

    fn salted(&self, label: u16, th: &[u8; HASH], shared: &SharedX) -> Self {
        let mut salt = self.kdf(label, &[th]);
        let prk = Self::extract(&salt, shared);
        salt.zeroize();
        prk
    }

    /// Key and nonce under two labels, and the AAD, of a COSE_Encrypt0.
    fn aead(&self, key_label: u16, nonce_label: u16, th: &[u8; HASH]) -> Sealing {
        let mut key = self.kdf::<16>(key_label, &[th]);
        let schedule = AeadSchedule::new(AEAD, &key);
        key.zeroize();
        let mut aad = [0; ENCRYPT_0.len() + HASH];
        aad.iter_mut().zip(ENCRYPT_0.iter().chain(th)).for_each(|(a, b)| *a = *b);
        Sealing { schedule, nonce: self.kdf(nonce_label, &[th]), aad }
    }

    fn mac(&self, label: u16, context: &Parts<'_>) -> [u8; MAC] {
        self.kdf(label, context.as_slice())
    }
}

impl Drop for Prk {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Whether a MAC is the right one, in constant time.
pub(super) fn holds(mac: &[u8; MAC], expected: &[u8; MAC]) -> bool {
    mac.ct_eq(expected).into()
}

/// Byte strings that are hashed one after the other.
#[derive(Default)]
struct Parts<'a> {
    parts: [&'a [u8]; 14],
    n: usize,
}

impl<'a> Parts<'a> {
    fn push(&mut self, part: &'a [u8]) {
        // Fourteen are enough for the longest: context_2 in its info.
        debug_assert!(self.n < self.parts.len());
        if let Some(next) = self.parts.get_mut(self.n) {
            *next = part;
            self.n += 1;
        }
    }

    fn extend(&mut self, parts: &[&'a [u8]]) {
        parts.iter().for_each(|part| self.push(part));
    }

    fn as_slice(&self) -> &[&'a [u8]] {
        self.parts.get(..self.n).unwrap_or_default()
    }
}

/// A COSE_Encrypt0 to be sealed or opened.
struct Sealing {
    schedule: AeadSchedule,
    nonce: [u8; NONCE],
    aad: [u8; ENCRYPT_0.len() + HASH],
}

impl Sealing {
    fn seal(&self, body: &mut [u8]) -> [u8; TAG] {
        self.schedule.seal(&self.nonce, &self.aad, body)
    }

    /// Opens ciphertext and tag into the first bytes of `out`, and returns how many.
    fn open(&self, sealed: &[u8], out: &mut [u8]) -> Result<usize, Forged> {
        let (body, tag) = sealed.split_last_chunk::<TAG>().ok_or(Forged)?;
        let out = out.get_mut(..body.len()).ok_or(Forged)?;
        out.copy_from_slice(body);
        self.schedule.open(&self.nonce, &self.aad, out, tag)?;
        Ok(body.len())
    }
}

/// Both ephemeral keys are known: PRK_2e and TH_2.
pub(super) struct Keys2e {
    prk_2e: Prk,
    th_2: [u8; HASH],
}

impl Keys2e {
    pub(super) fn new(g_y: &PublicX, h_message_1: &[u8; HASH], g_xy: &SharedX) -> Self {
        let th_2 = sha256(&[HASH_HEAD, &g_y.0, HASH_HEAD, h_message_1]);
        Self { prk_2e: Prk::extract(&th_2, g_xy), th_2 }
    }

    /// Encrypts PLAINTEXT_2, or decrypts CIPHERTEXT_2; no more than 8160 bytes of it.
    pub(super) fn apply_keystream_2(&self, text: &mut [u8], keystream: &mut [u8]) -> Result<(), OutputTooLong> {
        let keystream = keystream.get_mut(..text.len()).ok_or(OutputTooLong)?;
        self.prk_2e.kdf_into(0, &[&self.th_2], keystream)?;
        text.iter_mut().zip(keystream.iter()).for_each(|(t, k)| *t ^= k);
        keystream.zeroize();
        Ok(())
    }

    /// The Responder's static key comes in.
    pub(super) fn with_responder(&self, g_rx: &SharedX) -> Keys3e2m {
        Keys3e2m { prk_3e2m: self.prk_2e.salted(1, &self.th_2, g_rx), th_2: self.th_2 }
    }
}

/// PRK_3e2m, still under TH_2.
pub(super) struct Keys3e2m {
    prk_3e2m: Prk,
    th_2: [u8; HASH],
}

impl Keys3e2m {
    /// MAC_2 over context_2 = << C_R, ID_CRED_R, TH_2, CRED_R, ? EAD_2 >>.
    pub(super) fn mac_2(&self, c_r: Id, cred_r: &Credential<'_>, ead_2: &[u8]) -> [u8; MAC] {
        let mut id = [0; 8];
        let mut w = Writer::new(&mut id);
        // An Id has at most 7 bytes.
        let written = emit_id(&mut w, c_r);
        debug_assert!(written.is_ok());
        let len = w.len();
        let kid = cred_r.encoded_kid();
        let mut context = Parts::default();
        context.push(id.get(..len).unwrap_or_default());
        context.extend(&[ID_CRED, kid.as_byte_string(), HASH_HEAD, &self.th_2]);
        context.extend(&cred_r.parts(&kid));
        context.push(ead_2);
        self.prk_3e2m.mac(2, &context)
    }

    /// message_2 is complete: TH_3.
    pub(super) fn after_message_2(self, plaintext_2: &[u8], cred_r: &Credential<'_>) -> Keys3 {
        Keys3 { th_3: transcript(&self.th_2, plaintext_2, cred_r), prk_3e2m: self.prk_3e2m }
    }
}

/// COSE header map with a kid, up to the kid.
const ID_CRED: &[u8] = &[0xA1, 0x04];

/// TH_3 and TH_4: H( TH before, PLAINTEXT, CRED ).
fn transcript(th: &[u8; HASH], plaintext: &[u8], cred: &Credential<'_>) -> [u8; HASH] {
    let kid = cred.encoded_kid();
    let mut parts = Parts::default();
    parts.extend(&[HASH_HEAD, th, plaintext]);
    parts.extend(&cred.parts(&kid));
    sha256(parts.as_slice())
}

/// PRK_3e2m under TH_3: what message_3 is sealed with. All that a Responder keeps of the schedule while it waits.
pub(super) struct Keys3 {
    prk_3e2m: Prk,
    th_3: [u8; HASH],
}

impl Keys3 {
    /// Encrypts PLAINTEXT_3 in place.
    pub(super) fn seal_3(&self, plaintext_3: &mut [u8]) -> [u8; TAG] {
        self.prk_3e2m.aead(3, 4, &self.th_3).seal(plaintext_3)
    }

    /// Decrypts CIPHERTEXT_3 into `out`.
    pub(super) fn open_3(&self, ciphertext_3: &[u8], out: &mut [u8]) -> Result<usize, Forged> {
        self.prk_3e2m.aead(3, 4, &self.th_3).open(ciphertext_3, out)
    }

    /// The Initiator's static key comes in: PRK_4e3m.
    pub(super) fn with_initiator(&self, g_iy: &SharedX) -> Prk {
        self.prk_3e2m.salted(5, &self.th_3, g_iy)
    }

    /// MAC_3 over context_3 = << ID_CRED_I, TH_3, CRED_I, ? EAD_3 >>.
    pub(super) fn mac_3(&self, prk_4e3m: &Prk, cred_i: &Credential<'_>, ead_3: &[u8]) -> [u8; MAC] {
        let kid = cred_i.encoded_kid();
        let mut context = Parts::default();
        context.extend(&[ID_CRED, kid.as_byte_string(), HASH_HEAD, &self.th_3]);
        context.extend(&cred_i.parts(&kid));
        context.push(ead_3);
        prk_4e3m.mac(6, &context)
    }

    /// message_3 is complete: TH_4.
    pub(super) fn after_message_3(self, prk_4e3m: Prk, plaintext_3: &[u8], cred_i: &Credential<'_>) -> Keys4 {
        Keys4 { th_4: transcript(&self.th_3, plaintext_3, cred_i), prk_4e3m }
    }
}

/// PRK_4e3m under TH_4: what message_4 is sealed with, and what the outcome is derived from.
pub(super) struct Keys4 {
    prk_4e3m: Prk,
    th_4: [u8; HASH],
}

impl Keys4 {
    /// Encrypts PLAINTEXT_4 in place. The tag goes behind it.
    pub(super) fn seal_4(&self, plaintext_4: &mut [u8]) -> [u8; TAG] {
        self.prk_4e3m.aead(8, 9, &self.th_4).seal(plaintext_4)
    }

    /// Decrypts CIPHERTEXT_4 into `out`.
    pub(super) fn open_4(&self, ciphertext_4: &[u8], out: &mut [u8]) -> Result<usize, Forged> {
        self.prk_4e3m.aead(8, 9, &self.th_4).open(ciphertext_4, out)
    }

    /// PRK_out, and from it PRK_exporter.
    pub(super) fn exporter(self) -> Exporter {
        let prk_out = Prk(self.prk_4e3m.kdf(7, &[&self.th_4]));
        Exporter(Prk(prk_out.kdf(10, &[])))
    }
}

/// PRK_exporter: EDHOC_Exporter (RFC 9528 4.2.1) with an empty context.
pub(super) struct Exporter(Prk);

impl Exporter {
    pub(super) fn export<const N: usize>(&self, label: u16) -> [u8; N] {
        self.0.kdf(label, &[])
    }
}

mod trace;
