//! What a module is told: an answer that each of their clients takes for one.
//!
//! W13 says what they look for, and no two look for the same. 4G needs a body, WiFi PRO a length that is not zero, the RN-171 the
//! text `200 OK`, 3G the texts `200 ok` and `content-length: ` in this order. So the status is said twice, field names are in
//! lower case, the length is the last field, and there is always a body.

use fivefold_core::error::{Code, Rejected};

use super::refusal::Refusal;
use super::request::After;

/// What becomes of a frame, as its sender is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is durable, and with it goes an answer for the node: a part of the hardened profile's key message.
    Answered(Box<[u8]>),
    /// The bearer token is missing, or none of ours.
    Bearer,
    /// Nobody could take it in time, or too many came from there.
    Busy,
    /// A part of a key message was taken, into memory.
    Noted,
    /// The request is none.
    Refused(Refusal),
    /// The engine refuses the frame.
    Rejected(Rejected),
    /// It did not come in time.
    Slow,
    /// It is durable.
    Stored,
}

impl Answer {
    /// Its status.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Answered(_) | Self::Noted | Self::Stored => 200,
            Self::Bearer => 401,
            Self::Busy => 503,
            Self::Slow => 408,
            Self::Refused(refusal) => refusal.status(),
            Self::Rejected(rejected) => match rejected.code {
                Code::StoreFull => 503,
                Code::ClassicTooMany => 429,
                Code::ClassicUnknown => 403,
                _ => 400,
            },
        }
    }

    /// The whole answer.
    pub fn emit(&self, after: After) -> Vec<u8> {
        let status = self.status();
        let reason = reason(status);
        let body = match self {
            Self::Answered(frame) => format!("200 ok\n{}\n", hex::encode_upper(frame)),
            Self::Bearer => "a bearer token of this gateway is needed\n".to_owned(),
            Self::Busy => "not stored: send it again\n".to_owned(),
            Self::Refused(refusal) => format!("refused: {}\n", refusal.sentence()),
            Self::Rejected(rejected) => format!("refused: {} {}\n", rejected.code.as_str(), rejected.reason),
            Self::Slow => "the request did not come in time\n".to_owned(),
            Self::Noted | Self::Stored => "200 ok\n".to_owned(),
        };
        let again = match self.status() {
            503 => "retry-after: 30\r\n",
            401 => "www-authenticate: Bearer\r\n",
            405 => "allow: GET, POST\r\n",
            _ => "",
        };
        let connection = match after {
            After::Close => "close",
            After::Keep => "keep-alive",
        };
        let lower = reason.to_ascii_lowercase();
        let mut answer = format!(
            "HTTP/1.1 {status} {reason}\r\nstatus: {status} {lower}\r\ncontent-type: text/plain\r\n{again}\
             connection: {connection}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        answer.extend_from_slice(body.as_bytes());
        answer
    }
}

/// What a client that asked with `Expect` waits for.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        _ => "Service Unavailable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answer: &Answer) -> String {
        String::from_utf8(answer.emit(After::Keep)).unwrap()
    }

    /// As `strstr` after `strstr` finds them.
    fn in_this_order(text: &str, words: &[&str]) -> bool {
        words.iter().try_fold(text, |rest, w| rest.split_once(w).map(|(_, rest)| rest)).is_some()
    }

    #[test]
    fn every_modules_client_finds_what_it_looks_for() {
        for answer in [Answer::Stored, Answer::Answered([0x3C, 0x3D, 0x3E, 0x6A].into())] {
            let text = text(&answer);
            assert!(text.contains("200 OK"), "RN-171");
            assert!(in_this_order(&text, &["200 ok", "content-length: "]), "3G in parse mode");
            assert!(
                in_this_order(&text.to_ascii_lowercase(), &["200 ok", "content-length: "]),
                "by a modem in lower case"
            );
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let length: usize = head.rsplit_once("content-length: ").unwrap().1.parse().unwrap();
            assert_eq!(length, body.len());
            assert!(length > 0, "4G and WiFi PRO");
        }
    }

    #[test]
    fn an_answer_for_the_node_stands_in_the_body_as_modules_write_frames() {
        let answer = text(&Answer::Answered([0x3C, 0x3D, 0x3E, 0x6A, 0xFF].into()));
        assert!(answer.ends_with("\r\n\r\n200 ok\n3C3D3E6AFF\n"), "{answer}");
    }

    #[test]
    fn what_is_not_stored_never_says_that_it_was() {
        let full = Rejected::new(Code::StoreFull, "full");
        let mut all = vec![Answer::Bearer, Answer::Busy, Answer::Slow, Answer::Rejected(full)];
        all.extend(Refusal::ALL.iter().copied().map(Answer::Refused));
        for answer in all {
            let text = text(&answer).to_ascii_lowercase();
            assert!(!text.contains("200 ok"), "{text}");
            assert!(!text.ends_with("\r\n\r\n"), "a body is always there");
        }
        assert_eq!(Answer::Rejected(full).status(), 503);
    }
}
