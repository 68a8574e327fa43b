//! A POST request for each alarm, signed.

use std::time::Duration;

use fivefold_alarm::{Alarm, webhook};
use fivefold_core::time::Millis;
use rustls::ClientConfig;
use zeroize::Zeroizing;

use super::{NotTaken, away};

/// A receiver.
pub(super) struct Webhook {
    url: reqwest::Url,
    client: reqwest::Client,
    secret: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Webhook(..)")
    }
}

impl Webhook {
    pub(super) fn new(url: reqwest::Url, tls: ClientConfig, secret: Zeroizing<Vec<u8>>) -> reqwest::Result<Self> {
        // A redirect would carry alarms to where nobody said that they go.
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .tls_backend_preconfigured(tls)
            .https_only(url.scheme() == "https")
            .build()?;
        Ok(Self { url, client, secret })
    }

    /// Taken is what is answered with 2xx; the body of an answer is not read.
    pub(super) async fn deliver(&self, alarm: &Alarm, now: Millis) -> Result<(), NotTaken> {
        let body = alarm.json();
        let request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header(webhook::ID, alarm.id().to_string())
            .header(webhook::SIGNATURE, webhook::signature(&self.secret, now, body.as_bytes()));
        // Without the address: its path may be a secret of the receiver's.
        let answer = request.body(body).send().await.map_err(|e| away(cause(&e.without_url())))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(NotTaken::Refused(format!("it answered {status}"))) }
    }
}

/// An error with its causes.
fn cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}
