//! What both ends of a context share before they derive it: Master Secret and Master Salt (RFC 8613 3.1).

use zeroize::Zeroize;

use crate::id::BootContext;
use crate::key::Key;
use crate::level::OscoreLevel;
use crate::oscore::{Context, Id, Params};
use crate::suite::Alg;

/// A Master Secret of 16 or 32 bytes with a Master Salt of 8, or none.
pub(crate) struct Master<L: OscoreLevel> {
    secret: Key<L, 32>,
    secret_len: u8,
    salt: [u8; 8],
    salt_len: u8,
}

impl<L: OscoreLevel> Master<L> {
    /// `None` for a secret of other than 16 or 32 bytes, or a salt of other than 0 or 8.
    pub(crate) fn new(secret: &[u8], salt: &[u8]) -> Option<Self> {
        if !matches!(secret.len(), 16 | 32) || !matches!(salt.len(), 0 | 8) {
            return None;
        }
        Some(Self::fitted(secret, salt))
    }

    /// What EDHOC's exporter gave; wipes `secret`.
    pub(crate) fn exported<const N: usize>(mut secret: [u8; N], salt: [u8; 8]) -> Self {
        const { assert!(N == 16 || N == 32) };
        let this = Self::fitted(&secret, &salt);
        secret.zeroize();
        this
    }

    /// Of 32 bytes, with no salt; wipes `secret`.
    pub(crate) fn unsalted(mut secret: [u8; 32]) -> Self {
        let this = Self::fitted(&secret, &[]);
        secret.zeroize();
        this
    }

    fn fitted(secret: &[u8], salt: &[u8]) -> Self {
        let mut key = [0; 32];
        key.iter_mut().zip(secret).for_each(|(k, s)| *k = *s);
        let mut start = [0; 8];
        start.iter_mut().zip(salt).for_each(|(k, s)| *k = *s);
        let this =
            Self { secret: Key::new(key), secret_len: secret.len() as u8, salt: start, salt_len: salt.len() as u8 };
        key.zeroize();
        this
    }

    pub(crate) fn danger_secret(&self) -> &[u8] {
        self.secret.danger_bytes().get(..self.secret_len.into()).unwrap_or_default()
    }

    pub(crate) fn salt(&self) -> &[u8] {
        self.salt.get(..self.salt_len.into()).unwrap_or_default()
    }

    pub(crate) fn context(&self, alg: Alg, sender_id: Id, recipient_id: Id, bctx: Option<BootContext>) -> Context<L> {
        Context::derive(&Params {
            alg,
            master_secret: self.danger_secret(),
            master_salt: self.salt(),
            id_context: bctx.as_ref().map(|b| &b.0[..]),
            sender_id,
            recipient_id,
        })
    }
}
