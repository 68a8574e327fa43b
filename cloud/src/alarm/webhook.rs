//! A POST request for each alarm, signed.

use fivefold_alarm::{Alarm, webhook};
use fivefold_core::time::Millis;
use fivefold_sinks::post::Post;
use rustls::ClientConfig;
use zeroize::Zeroizing;

use super::NotTaken;

/// A receiver.
pub(super) struct Webhook {
    post: Post,
    secret: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Webhook(..)")
    }
}

impl Webhook {
    pub(super) fn new(url: reqwest::Url, tls: ClientConfig, secret: Zeroizing<Vec<u8>>) -> reqwest::Result<Self> {
        Ok(Self { post: Post::new(url, tls)?, secret })
    }

    /// Taken is what is answered with 2xx.
    pub(super) async fn deliver(&self, alarm: &Alarm, now: Millis) -> Result<(), NotTaken> {
        let body = alarm.json();
        let headers = [
            ("content-type", "application/json".to_owned()),
            (webhook::ID, alarm.id().to_string()),
            (webhook::SIGNATURE, webhook::signature(&self.secret, now, body.as_bytes())),
        ];
        let reply = self.post.send(&headers, body).await.map_err(NotTaken::Away)?;
        if (200..300).contains(&reply.status) { Ok(()) } else { Err(NotTaken::Refused(reply.said())) }
    }
}
