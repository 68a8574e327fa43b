//! # Renewal of the gateway's own certificate
//!
//! | | |
//! |---|---|
//! | Key held by | this gateway: both keys are drawn here and never leave it |
//! | Hides       | nothing: a request and a certificate are public |
//! | Proves      | to the cloud, by the certificate in use, who asks for the next one |
//! | Binds       | the new keys to the same name |
//! | Drops as    | `E4-01` what the cloud refuses; the pair in use stays |
//! | Does not    | use a pair that the cloud has not taken once |
//! | Spec        | docs/protocol.md 10.1 |
//!
//! Each step is durable before the next one ([`Journal`]), so that a crash anywhere goes on where it was: the same keys are
//! asked for again, and the same certificate is tried again.

use std::path::Path;

use fivefold_core::e4_channel::GatewayName;
use fivefold_core::error::Rejected;
use fivefold_core::time::Millis;
use fivefold_keep::enrol::{Keys, Refused};
use fivefold_keep::share::ShareError;
use fivefold_keep::successor::{Journal, Next};
use fivefold_keep::tls::{Anchor, Identity};
use fivefold_keep::vault::Vault;

/// What an exchange with the cloud about a certificate came to.
#[derive(Debug)]
pub enum Answer<T> {
    /// It did what was asked.
    Done(T),
    /// It refuses: by the word of a refusal, or the certificate itself, with a code.
    Refused(Option<String>, Option<Rejected>, String),
    /// It was not reached, or whoever was reached is not the cloud.
    Away(Option<Rejected>, String),
}

/// Where certificates are asked for.
pub trait Desk {
    /// Asks for a certificate (PEM chain) for the keys of `request`, over a new connection under `identity`.
    fn ask(&self, identity: &Identity, request: String) -> impl Future<Output = Answer<String>> + Send;

    /// Connects under `identity`, and does nothing.
    fn greet(&self, identity: &Identity) -> impl Future<Output = Answer<()>> + Send;
}

/// What an attempt came to.
#[derive(Debug)]
pub enum Step {
    /// Not before this time.
    NotYet(Millis),
    /// The cloud took the new pair: [`Journal::settle`] puts it in the place of the old one.
    Proven,
    /// Later again. The pair in use is as good as before.
    Again(Option<Rejected>, String),
}

/// When the next certificate is asked for: at two thirds of the life of this one.
pub fn due((from, until): (Millis, Millis)) -> Millis {
    from.plus(until.since(from) / 3 * 2)
}

/// What a renewal needs to know.
#[derive(Debug)]
pub struct Renewal<'a, D> {
    /// The gateway's folder.
    pub folder: &'a Path,
    /// Its vault.
    pub vault: &'a Vault,
    /// Its name.
    pub name: GatewayName,
    /// The operator's CA.
    pub anchor: &'a Anchor,
    /// The cloud.
    pub desk: D,
}

impl<D: Desk> Renewal<'_, D> {
    /// Goes on from where the journal stands, as far as it gets. `current` is the pair in use; `now` the time.
    ///
    /// # Errors
    /// The journal cannot be read or written.
    pub async fn attempt(&self, current: &Identity, now: Millis) -> Result<Step, ShareError> {
        let journal = Journal::of_renewal(self.folder, self.vault);
        let keys = match journal.read()? {
            Some(Next::Proven(..)) => return Ok(Step::Proven),
            Some(Next::Issued(keys, chain)) => return self.prove(&journal, keys, chain, now).await,
            Some(Next::Asked(keys)) => keys,
            None => {
                let due = due(current.validity());
                if now < due {
                    return Ok(Step::NotYet(due));
                }
                let keys = match Keys::draw() {
                    Ok(keys) => keys,
                    Err(why) => return Ok(Step::Again(None, why.to_string())),
                };
                journal.write(&Next::Asked(keys.clone()))?;
                keys
            }
        };
        let request = match keys.request(self.name) {
            Ok(request) => request,
            Err(why) => return Ok(Step::Again(None, why.to_string())),
        };
        match self.desk.ask(current, request).await {
            Answer::Done(chain) => {
                if let Err(why) = self.check(&keys, &chain, now) {
                    journal.clear()?;
                    return Ok(Step::Again(None, format!("the cloud gave a certificate that cannot be used: {why}")));
                }
                journal.write(&Next::Issued(keys.clone(), chain.clone()))?;
                self.prove(&journal, keys, chain, now).await
            }
            Answer::Refused(word, rejected, why) => {
                // Keys that were certified before, and whose certificate is not given again: new ones are drawn next time.
                if word.as_deref() == Some(Refused::KeyUsed.word()) {
                    journal.clear()?;
                }
                Ok(Step::Again(rejected, why))
            }
            Answer::Away(rejected, why) => Ok(Step::Again(rejected, why)),
        }
    }

    /// Connects under the new pair once, before anything depends on it.
    async fn prove(&self, journal: &Journal<'_>, keys: Keys, chain: String, now: Millis) -> Result<Step, ShareError> {
        let identity = match self.check(&keys, &chain, now) {
            Ok(identity) => identity,
            Err(why) => {
                journal.clear()?;
                return Ok(Step::Again(None, format!("the new certificate cannot be used: {why}")));
            }
        };
        match self.desk.greet(&identity).await {
            Answer::Done(()) => {
                journal.write(&Next::Proven(keys, chain))?;
                Ok(Step::Proven)
            }
            Answer::Refused(_, rejected, why) => {
                journal.clear()?;
                Ok(Step::Again(rejected, format!("the cloud refuses the new certificate, the old one stays: {why}")))
            }
            Answer::Away(rejected, why) => Ok(Step::Again(rejected, why)),
        }
    }

    fn check(&self, keys: &Keys, chain: &str, now: Millis) -> Result<Identity, String> {
        let identity = Identity::from_pkcs8(chain.as_bytes(), &keys.tls).map_err(|e| e.to_string())?;
        identity.require_gateway(self.name).map_err(|e| e.to_string())?;
        identity.check_chain(self.anchor, now).map_err(|e| e.to_string())?;
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_ninety_days_is_renewed_after_sixty() {
        let day = 86_400_000;
        assert_eq!(due((Millis(5 * day), Millis(95 * day))), Millis(65 * day));
    }
}
