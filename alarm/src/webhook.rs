//! What a webhook's receiver checks: a signature over time and body.

use fivefold_core::suite::hmac_sha256;
use fivefold_core::time::Millis;

/// Header with [`signature`].
pub const SIGNATURE: &str = "fivefold-signature";
/// Header with the alarm's id.
pub const ID: &str = "fivefold-alarm-id";

/// `t=SECONDS,v1=HEX`: HMAC-SHA-256 under the secret that both have, over the decimal seconds, a full stop and the body. The time
/// is when it is sent: who takes nothing older than five minutes is shown no recording.
pub fn signature(secret: &[u8], now: Millis, body: &[u8]) -> String {
    let seconds = (now.0 / 1000).to_string();
    let mac = hmac_sha256(secret, &[seconds.as_bytes(), b".", body]);
    format!("t={seconds},v1={}", hex::encode(mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_what_openssl_makes_of_the_same() {
        // printf '1790000000.{"id":"x"}' | openssl dgst -sha256 -hmac secret
        let made = signature(b"secret", Millis(1_790_000_000_999), br#"{"id":"x"}"#);
        assert_eq!(made, "t=1790000000,v1=605d7b4396505f121624883eb7e430403781f6e247cf0ccfd89ad493390559c0");
    }
}
