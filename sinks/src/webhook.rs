//! CloudEvents 1.0 by POST, in batches, signed as Standard Webhooks has it.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fivefold_core::suite::{hmac_sha256, sha256};
use fivefold_keep::share::CloudOutbox;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::post::{Post, check_url};
use crate::settings::Files;
use crate::{Answer, Most, Outbound, Sending, Sink};

/// What a secret of Standard Webhooks begins with; base64 follows.
const PREFIX: &str = "whsec_";
/// Readings of a request.
const MOST: Most = Most { readings: 100, bytes: 512 * 1024 };

/// Checked words.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    // Its path may be a secret of the receiver's.
    url: reqwest::Url,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "webhook at {}", self.url.origin().ascii_serialization())
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Settings {
    pub(crate) fn check(at: &str, words: &CloudOutbox) -> Result<Self, String> {
        Ok(Self { url: check_url("webhook", at, words.ca_file.is_some())? })
    }

    pub(crate) fn prepare(&self, files: Files) -> Result<Webhook, String> {
        let key = key(&files.secret)?;
        let post = Post::new(self.url.clone(), files.tls).map_err(|e| e.to_string())?;
        Ok(Webhook { post, key })
    }
}

/// The key in a secret: the base64 behind `whsec_`, or the secret itself where it does not begin so.
fn key(secret: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
    match secret.strip_prefix(PREFIX.as_bytes()) {
        None => Ok(Zeroizing::new(secret.to_vec())),
        Some(text) => {
            let wrong = || format!("its secret begins with {PREFIX}, and no base64 follows");
            STANDARD.decode(text).map(Zeroizing::new).map_err(|_| wrong())
        }
    }
}

/// A receiver.
#[derive(Debug)]
pub(crate) struct Webhook {
    post: Post,
    key: Zeroizing<Vec<u8>>,
}

/// The event of a reading. Its id is the reading's, and of a label one of its own: who takes each id once must not miss it. The
/// reading's id is in `data` in both.
pub(crate) fn event(reading: &Outbound) -> Value {
    json!({
        "specversion": "1.0",
        "id": reading.event_id(),
        "source": reading.device_urn(),
        "type": format!("fivefold.{}", reading.about.as_str()),
        "time": reading.time(),
        "datacontenttype": "application/json",
        "proof": reading.proof.as_str(),
        "e1class": reading.e1.as_str(),
        "insecure": reading.insecure,
        "data": reading.json(),
    })
}

/// The signature of Standard Webhooks over a message sent at `seconds`.
fn signature(key: &[u8], id: &str, seconds: u64, body: &[u8]) -> String {
    let mac = hmac_sha256(key, &[id.as_bytes(), b".", seconds.to_string().as_bytes(), b".", body]);
    format!("v1,{}", STANDARD.encode(mac))
}

impl Webhook {
    async fn deliver(&self, batch: &[Arc<Outbound>]) -> Answer {
        let events: Vec<Value> = batch.iter().map(|reading| event(reading)).collect();
        let body = Value::Array(events).to_string();
        // The same batch has the same id when it comes again.
        let named: Vec<String> = batch.iter().map(|reading| reading.event_id()).collect();
        let digest = sha256(&[named.join(" ").as_bytes()]);
        let id = format!("msg_{}", digest.first_chunk::<16>().map(hex::encode).unwrap_or_default());
        #[expect(clippy::disallowed_methods, reason = "who checks a signature wants to know when it was made")]
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let headers = [
            ("content-type", "application/cloudevents-batch+json; charset=utf-8".to_owned()),
            ("webhook-signature", signature(&self.key, &id, seconds, body.as_bytes())),
            ("webhook-timestamp", seconds.to_string()),
            ("webhook-id", id),
        ];
        match self.post.send(&headers, body).await {
            Ok(reply) => reply.answer(),
            Err(error) => Answer::away(error),
        }
    }
}

impl Sink for Webhook {
    fn most(&self) -> Most {
        MOST
    }

    fn send<'s>(&'s mut self, batch: &'s [Arc<Outbound>]) -> Sending<'s> {
        Box::pin(self.deliver(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_example_of_standard_webhooks() {
        // From the specification's reference implementations: secret, id, time and body of their test.
        let key = key(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let made = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(made, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_what_it_says_or_base64_behind_its_prefix() {
        assert_eq!(*key(b"sixteen bytes or more").unwrap(), b"sixteen bytes or more");
        assert_eq!(*key(b"whsec_AAEC").unwrap(), [0, 1, 2]);
        assert!(key(b"whsec_%").unwrap_err().contains("base64"));
    }
}
