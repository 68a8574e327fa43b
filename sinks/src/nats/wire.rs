//! NATS's text protocol, as a publisher needs it: what a server says is read here, and what is said to it is written.
//!
//! All that a server says is bounded: a line, and what it announces. Nothing here reads or writes a socket.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::Deserialize;

/// Bytes of a line, at most. `INFO` is the longest: it names the servers of a cluster.
const LONGEST_LINE: usize = 64 << 10;
/// Bytes that a message to us may have: answers of JetStream have some hundred.
const LONGEST_MESSAGE: usize = 64 << 10;
/// How the headers of a message begin.
const VERSION: &str = "NATS/1.0";

/// What a server says of itself, as far as we look at it.
#[derive(Debug, Deserialize)]
pub(super) struct Info {
    /// Whether it takes headers.
    #[serde(default)]
    pub(super) headers: bool,
    /// Whether it speaks TLS alone.
    #[serde(default)]
    pub(super) tls_required: bool,
    /// Whether it can speak TLS.
    #[serde(default)]
    pub(super) tls_available: bool,
    /// Bytes of a message, headers included, at most.
    pub(super) max_payload: usize,
}

/// What a server says.
#[derive(Debug)]
pub(super) enum Said {
    /// Something went wrong; most often it closes the connection now.
    Err(String),
    /// What it is, first of all; it may say it again.
    Info(Info),
    /// A message on a subject that we listen to, with the status of its headers if it has one.
    Message { subject: String, status: Option<u16>, payload: Bytes },
    /// Nothing that matters.
    Ok,
    /// It wants to hear from us.
    Ping,
    /// It is there.
    Pong,
}

/// What it said is no NATS.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Nonsense {
    /// A line does not end.
    #[error("it sends a line that does not end")]
    Endless,
    /// A line has another form.
    #[error("it does not speak NATS")]
    Line,
    /// A message is longer than any answer.
    #[error("it announces a message of {0} bytes, and answers are short")]
    Long(usize),
}

/// Takes what is whole from the front of `buffer`; `None` where more must come.
pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<Said>, Nonsense> {
    let Some(end) = buffer.iter().take(LONGEST_LINE).position(|b| *b == b'\n') else {
        return if buffer.len() < LONGEST_LINE { Ok(None) } else { Err(Nonsense::Endless) };
    };
    let line = std::str::from_utf8(buffer.get(..end).unwrap_or_default()).map_err(|_| Nonsense::Line)?;
    let line = line.trim_end_matches('\r');
    let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let said = match word.to_ascii_uppercase().as_str() {
        "INFO" => Said::Info(serde_json::from_str(rest).map_err(|_| Nonsense::Line)?),
        "+OK" => Said::Ok,
        "PING" => Said::Ping,
        "PONG" => Said::Pong,
        "-ERR" => Said::Err(words(rest.trim().trim_matches('\''))),
        "MSG" => return message(rest.to_owned(), false, buffer, end + 1),
        "HMSG" => return message(rest.to_owned(), true, buffer, end + 1),
        _ => return Err(Nonsense::Line),
    };
    buffer.advance(end + 1);
    Ok(Some(said))
}

/// `MSG subject sid [reply] bytes`, or `HMSG subject sid [reply] header-bytes bytes`.
fn message(line: String, has_header: bool, buffer: &mut BytesMut, start: usize) -> Result<Option<Said>, Nonsense> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let number = |word: &str| word.parse::<usize>().map_err(|_| Nonsense::Line);
    let (subject, header, all) = match (&*words, has_header) {
        ([subject, _, all] | [subject, _, _, all], false) => (*subject, 0, number(all)?),
        ([subject, _, header, all] | [subject, _, _, header, all], true) => (*subject, number(header)?, number(all)?),
        _ => return Err(Nonsense::Line),
    };
    if all > LONGEST_MESSAGE {
        return Err(Nonsense::Long(all));
    }
    if header > all {
        return Err(Nonsense::Line);
    }
    if buffer.len() < start + all + 2 {
        return Ok(None);
    }
    buffer.advance(start);
    let header = buffer.split_to(header);
    let payload = buffer.split_to(all - header.len()).freeze();
    if !buffer.starts_with(b"\r\n") {
        return Err(Nonsense::Line);
    }
    buffer.advance(2);
    // `NATS/1.0 503`, and more.
    let status = std::str::from_utf8(&header).ok().and_then(|h| h.lines().next()?.strip_prefix(VERSION));
    let status = status.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
    Ok(Some(Said::Message { subject: subject.to_owned(), status, payload }))
}

/// What a server says of an error, in one line that is not too long.
pub(super) fn words(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// Writes `HPUB` with the headers given. A name and a value of a header are ours, and have no line end.
pub(super) fn publish(out: &mut BytesMut, subject: &str, reply: &str, headers: &[(&str, &str)], payload: &[u8]) {
    let length = header_length(headers);
    out.reserve(subject.len() + reply.len() + length + payload.len() + 64);
    out.put_slice(format!("HPUB {subject} {reply} {length} {}\r\n{VERSION}\r\n", length + payload.len()).as_bytes());
    for (name, value) in headers {
        for part in [name, ": ", value, "\r\n"] {
            out.put_slice(part.as_bytes());
        }
    }
    for part in [b"\r\n", payload, b"\r\n"] {
        out.put_slice(part);
    }
}

/// Bytes of these headers in a message.
pub(super) fn header_length(headers: &[(&str, &str)]) -> usize {
    VERSION.len() + 4 + headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(bytes: &[u8]) -> Result<Option<Said>, Nonsense> {
        take(&mut BytesMut::from(bytes))
    }

    #[test]
    fn what_a_server_says_is_read_also_byte_by_byte() {
        let all = b"INFO {\"headers\":true,\"max_payload\":1048576,\"server_id\":\"N\"}\r\n+OK\r\nPING\r\nPONG\r\n\
                    MSG _INBOX.a.1 1 12\r\n{\"seq\":1}   \r\nHMSG _INBOX.a.2 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n\
                    -ERR 'Authorization Violation'\r\n";
        let (mut buffer, mut said) = (BytesMut::new(), Vec::new());
        for byte in all {
            buffer.put_u8(*byte);
            while let Some(one) = take(&mut buffer).unwrap() {
                said.push(one);
            }
        }
        assert!(buffer.is_empty());
        assert!(matches!(&said[0], Said::Info(i) if i.headers && !i.tls_required && i.max_payload == 1 << 20));
        assert!(matches!(&said[1..4], [Said::Ok, Said::Ping, Said::Pong]));
        assert!(matches!(&said[4], Said::Message { subject, status: None, payload }
            if subject == "_INBOX.a.1" && &payload[..] == b"{\"seq\":1}   "));
        assert!(matches!(&said[5], Said::Message { status: Some(503), payload, .. } if payload.is_empty()));
        assert!(matches!(&said[6], Said::Err(text) if text == "Authorization Violation"));
        assert_eq!(said.len(), 7);
    }

    #[test]
    fn what_is_no_nats_is_refused_and_nothing_is_kept_without_end() {
        assert_eq!(of(b"HTTP/1.1 400 Bad Request\r\n").unwrap_err(), Nonsense::Line);
        assert!(matches!(of(b"-ERR\r\n"), Ok(Some(Said::Err(text))) if text.is_empty()));
        assert_eq!(of(&vec![b'a'; LONGEST_LINE]).unwrap_err(), Nonsense::Endless);
        assert_eq!(of(b"MSG a 1 18446744073709551615\r\n").unwrap_err(), Nonsense::Long(usize::MAX));
        for line in
            ["MSG a 1 18446744073709551616", "MSG a 1", "MSG a 1 -1", "HMSG a 1 9 8", "INFO {", "INFO {}", "\u{7f}"]
        {
            assert_eq!(of(format!("{line}\r\n").as_bytes()).unwrap_err(), Nonsense::Line, "{line}");
        }
        assert_eq!(of(b"MSG a 1 1\r\nabcd").unwrap_err(), Nonsense::Line, "longer than announced");
        assert!(of(b"MSG a 1 1\r\na\r").unwrap().is_none());
    }

    #[test]
    fn a_message_is_published_with_its_lengths() {
        let mut out = BytesMut::new();
        publish(&mut out, "fivefold.N.D", "_INBOX.x.1", &[("Nats-Msg-Id", "id")], b"{}");
        let expected = "HPUB fivefold.N.D _INBOX.x.1 29 31\r\nNATS/1.0\r\nNats-Msg-Id: id\r\n\r\n{}\r\n";
        assert_eq!(std::str::from_utf8(&out).unwrap(), expected);
        assert_eq!(header_length(&[("Nats-Msg-Id", "id")]), 29);
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_server_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), word in 0..8_usize) {
            let word = ["", "INFO ", "MSG ", "HMSG a 1 ", "-ERR", "HMSG a 1 4 4\r\n", "MSG a 1 3\r\n", "PING\r\n"][word];
            let mut buffer = BytesMut::from(&[word.as_bytes(), &bytes].concat()[..]);
            while let Ok(Some(_)) = take(&mut buffer) {}
        }
    }
}
