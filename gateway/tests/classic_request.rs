//! Requests of modules, byte for byte, through the parser of the HTTP listener: all that is taken, and each refusal by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_gateway::classic::http::form::{Door, LONGEST_FRAME};
use fivefold_gateway::classic::http::refusal::Refusal;
use fivefold_gateway::classic::http::request::{
    After, LONGEST_BODY, LONGEST_LINE, LONGEST_WAIT, MOST_HEADERS, Missing, Parser, Request, Step,
};
use proptest::prelude::*;

#[path = "common/requests.rs"]
mod requests;

const FRAME: &str = "3C3D3E0213FF316DF95343503123D71FD9012E0125FF2001";

fn frame() -> Box<[u8]> {
    hex::decode(FRAME).unwrap().into()
}

/// All that a parser makes of some bytes which come in pieces of one size.
fn heard(bytes: &[u8], piece: usize) -> Vec<Result<Request, Refusal>> {
    let mut parser = Parser::new();
    let mut all = Vec::new();
    for mut piece in bytes.chunks(piece) {
        loop {
            let taken = parser.push(piece);
            piece = &piece[taken..];
            match parser.step() {
                Ok(Step::Whole(request)) => all.push(Ok(request)),
                Ok(Step::Continue) => {}
                Ok(Step::More(_)) if piece.is_empty() => break,
                Ok(Step::More(_)) => assert!(parser.room() > 0, "it wants more, and has no room for it"),
                Err(refusal) => {
                    all.push(Err(refusal));
                    if refusal.severs() {
                        return all;
                    }
                }
            }
        }
    }
    match parser.end() {
        Ok(Some(request)) => all.push(Ok(request)),
        Ok(None) => {}
        Err(refusal) => all.push(Err(refusal)),
    }
    all
}

/// The same from one piece and from single bytes.
#[track_caller]
fn both(text: impl AsRef<[u8]>) -> Vec<Result<Request, Refusal>> {
    let whole = heard(text.as_ref(), usize::MAX);
    assert_eq!(whole, heard(text.as_ref(), 1), "how it is cut makes no difference");
    whole
}

#[track_caller]
fn taken(text: impl AsRef<[u8]>) -> Request {
    let mut all = both(text.as_ref());
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).unwrap()
}

#[track_caller]
fn refused(text: impl AsRef<[u8]>) -> Refusal {
    both(text.as_ref()).into_iter().next().expect("something").unwrap_err()
}

#[test]
fn requests_of_every_module_are_taken_as_they_are() {
    for (case, request) in requests::of_every_module() {
        let text = |key: &str| case[key].as_str();
        let request = taken(request);
        assert_eq!(hex::encode(&request.frame), text("frame_hex").unwrap(), "{}", case["module"]);
        let bridge = case["module"] == "cloud bridge";
        assert_eq!(request.door, if bridge { Door::Bridge } else { Door::Meshlium });
        assert_eq!(request.bearer.is_some(), bridge);
    }
}

#[test]
fn a_line_without_version_is_a_request_once_an_empty_line_or_nothing_follows() {
    for end in ["\n\n", "\r\n\r\n", "\n", "\r\n", ""] {
        let request = taken(format!("GET /getpost_frame_parser.php?frame={FRAME}{end}"));
        assert_eq!((request.frame, request.after), (frame(), After::Close), "{end:?}");
    }
}

#[test]
fn case_blanks_and_line_ends_mean_nothing() {
    let lower = FRAME.to_lowercase();
    for text in [
        format!("GET /getpost_frame_parser.php?frame={lower} HTTP/1.1\nhost:h\n\n"),
        format!("get  /getpost_frame_parser.php?frame={FRAME}   HTTP/1.1 \r\nHOST : h\r\n\r\n"),
        format!("\r\n\nGET\t/getpost_frame_parser.php?frame= {FRAME} http/1.1\r\n\r\n"),
        format!("GET //getpost_frame_parser.php?a=1&FRAME={FRAME}&b HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
        format!("GET http://192.0.2.1:8080/getpost_frame_parser.php?frame={FRAME}#top HTTP/1.1\r\n\r\n"),
        format!("GET HTTPS://h/getpost_frame_parser.php?frame=%33%43{}%20+ HTTP/1.1\r\n\r\n", &FRAME[2..]),
        format!("POST /getpost_frame_parser.php HTTP/1.1\r\nCONTENT-LENGTH:  54 \r\n\r\nframe={FRAME}"),
        format!("POST /getpost_frame_parser.php HTTP/1.1\ncontent-length: 54\ncontent-length:54\n\nframe={FRAME}"),
        format!("POST /getpost_frame_parser.php?frame={FRAME} HTTP/1.1\nHost: h\n\n"),
    ] {
        let request = taken(&text);
        assert_eq!((request.frame, request.after), (frame(), After::Keep), "{text}");
    }
}

#[test]
fn a_body_whose_length_nobody_says_ends_with_its_line_or_with_silence() {
    for end in ["", "\n", "\r\n"] {
        let request = taken(format!("POST /getpost_frame_parser.php\n\nframe={FRAME}{end}"));
        assert_eq!(request.frame, frame(), "{end:?}");
    }
    let mut parser = Parser::new();
    parser.push(format!("POST /getpost_frame_parser.php HTTP/1.1\r\n\r\nframe={FRAME}").as_bytes());
    assert_eq!(parser.step(), Ok(Step::More(Missing::Perhaps)));
    assert_eq!(parser.end().unwrap().unwrap().frame, frame());
    assert_eq!(parser.step(), Ok(Step::More(Missing::Request)));
}

#[test]
fn who_expects_a_word_before_the_body_gets_it_once() {
    let mut parser = Parser::new();
    parser.push(b"POST /getpost_frame_parser.php HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 54\r\n\r\n");
    assert_eq!(parser.step(), Ok(Step::Continue));
    assert_eq!(parser.step(), Ok(Step::More(Missing::Rest)));
    parser.push(format!("frame={FRAME}").as_bytes());
    assert!(matches!(parser.step(), Ok(Step::Whole(r)) if r.frame == frame()));
}

#[test]
fn requests_that_come_together_are_answered_one_after_the_other() {
    let get = format!("GET /getpost_frame_parser.php?frame={FRAME} HTTP/1.1\r\n\r\n");
    let post = format!("POST /getpost_frame_parser.php HTTP/1.1\r\nContent-Length: 54\r\n\r\nframe={FRAME}");
    let bad = "GET /index.html HTTP/1.1\r\n\r\n";
    let all = both(format!("{get}{post}\r\n{bad}{post}{get}"));
    assert_eq!(all.len(), 5);
    for (n, one) in all.iter().enumerate() {
        match one {
            Err(refusal) => assert_eq!((n, *refusal), (2, Refusal::Path)),
            Ok(request) => assert_eq!(request.frame, frame()),
        }
    }
}

#[test]
fn a_bearer_token_is_found_and_never_printed() {
    let request = taken(format!("GET /hw/ps?frame={FRAME} HTTP/1.1\r\nauthorization: bEARER  abc.def-1 \r\n\r\n"));
    assert_eq!((request.door, request.bearer.as_ref().unwrap().as_slice()), (Door::Bridge, &b"abc.def-1"[..]));
    assert!(!format!("{request:?}").contains("abc") && !format!("{request:?}").contains(&format!("{:?}", b"abc")));
    for other in ["Basic YTpi", "Bearer", "abc"] {
        let request = taken(format!("GET /hw/ps?frame={FRAME} HTTP/1.1\r\nAuthorization: {other}\r\n\r\n"));
        assert_eq!(request.bearer, None, "{other}");
    }
}

#[test]
fn every_refusal_has_a_request_that_provokes_it() {
    let get = |query: &str| format!("GET /getpost_frame_parser.php?{query} HTTP/1.1\r\n\r\n");
    let with = |header: &str| format!("POST /getpost_frame_parser.php HTTP/1.1\r\n{header}\r\n\r\n");
    let long = "3C".repeat(LONGEST_FRAME + 1);
    let cases = [
        (Refusal::BodyTooLong, with(&format!("Content-Length: {}", LONGEST_BODY + 1))),
        (Refusal::EmptyFrame, get("frame=")),
        (Refusal::EmptyLines, "\r\n".repeat(10)),
        (Refusal::Expectation, with("Expect: 200-ok")),
        (Refusal::FrameTooLong, get(&format!("frame={long}"))),
        (
            Refusal::HeadTooLong,
            with(
                &[
                    format!("A: {}", "a".repeat(4000)),
                    format!("B: {}", "b".repeat(4000)),
                    "C: ".to_owned() + &"c".repeat(300),
                ]
                .join("\r\n"),
            ),
        ),
        (Refusal::Header, with("no colon")),
        (Refusal::Length, with("Content-Length: -1")),
        (Refusal::LineTooLong, get(&"a".repeat(LONGEST_LINE))),
        (Refusal::Method, "HEAD /getpost_frame_parser.php HTTP/1.1\r\n\r\n".into()),
        (Refusal::NoFrame, get("fram=3C")),
        (Refusal::NotHex, get("frame=3C3D3Z")),
        (Refusal::OddHex, get("frame=3C3D3")),
        (Refusal::Path, "GET / HTTP/1.1\r\n\r\n".into()),
        (Refusal::RequestLine, "\u{16}\u{3}\u{1}\n".into()),
        (Refusal::TooManyHeaders, with(&vec!["A: a"; MOST_HEADERS + 1].join("\r\n"))),
        (Refusal::Transfer, with("Transfer-Encoding: chunked")),
        (Refusal::TwoFrames, get("frame=3C&frame=3D")),
        (Refusal::Unfinished, "GET /getpost_frame_parser.php HTTP/1.1\r\nHost".into()),
        (Refusal::Version, "PRI * HTTP/2.0\r\n\r\n".into()),
    ];
    for (expected, text) in &cases {
        assert_eq!(refused(text), *expected, "{text:?}");
    }
    assert_eq!(cases.map(|(r, _)| r), Refusal::ALL);
}

#[test]
fn other_ways_to_the_same_refusals() {
    for text in
        ["Content-Length: 1\r\nContent-Length: 2", "Content-Length: 0x10", "Content-Length:", "Content-Length: +5"]
    {
        let text = format!("POST /getpost_frame_parser.php HTTP/1.1\r\n{text}\r\n\r\n");
        assert_eq!(refused(&text), Refusal::Length, "{text:?}");
    }
    let folded = "GET / HTTP/1.1\r\nHost: h\r\n folded: yes\r\n\r\n";
    assert_eq!(refused(folded), Refusal::Header);
    let both = format!("POST /getpost_frame_parser.php?frame=3C HTTP/1.1\r\nContent-Length: 54\r\n\r\nframe={FRAME}");
    assert_eq!(refused(both), Refusal::TwoFrames);
    for text in ["frame=%3", "frame=%zz", "frame=3C-3D", "frame=\u{7f}3C"] {
        let text = format!("POST /getpost_frame_parser.php\n\n{text}\n");
        assert_eq!(refused(&text), Refusal::NotHex, "{text:?}");
    }
    for text in ["GET\n\n", "nonsense\n\n", "GE7 / HTTP/1.1\n\n", "\0\0\0\n"] {
        assert_eq!(refused(text), Refusal::RequestLine, "{text:?}");
    }
    assert_eq!(refused("GET http://h HTTP/1.1\r\n\r\n"), Refusal::Path);
    assert_eq!(refused("GET /getpost_frame_parser.php?frame=3C HTTP/1.2\r\n\r\n"), Refusal::Version);
}

#[test]
fn a_longest_frame_fits_in_a_url_and_in_a_form() {
    let long = "FF".repeat(LONGEST_FRAME);
    for text in [
        format!("GET /getpost_frame_parser.php?frame={long} HTTP/1.1\r\n\r\n"),
        format!("POST /getpost_frame_parser.php\n\nframe={long}"),
    ] {
        assert_eq!(taken(text).frame.len(), LONGEST_FRAME);
    }
}

#[test]
fn what_never_ends_is_refused_before_it_fills_the_memory() {
    for endless in ["a", "\r", "GET ", "A: a\r\n", "\r\n"] {
        let mut parser = Parser::new();
        if endless.starts_with('A') {
            parser.push(b"GET / HTTP/1.1\r\n");
        }
        let mut pushed = 0;
        while parser.step().is_ok() {
            pushed += parser.push(endless.as_bytes());
            assert!(pushed <= LONGEST_WAIT, "{endless:?}");
        }
        let refusal = parser.step().unwrap_err();
        assert!(refusal.severs(), "{refusal:?}");
        parser.push(b"GET /getpost_frame_parser.php?frame=3C HTTP/1.1\r\n\r\n");
        assert_eq!(parser.step(), Err(refusal), "nothing is believed after it");
    }
}

proptest! {
    #[test]
    fn any_bytes_end_in_requests_or_one_refusal_however_they_are_cut(bytes in any::<Vec<u8>>(), piece in 1..40usize) {
        prop_assert_eq!(heard(&bytes, usize::MAX), heard(&bytes, piece));
    }

    #[test]
    fn altered_requests_end_in_requests_or_refusals_however_they_are_cut(
        at in 0..180usize,
        with in "[ -~\r\n\t]{0,3}",
        piece in 1..40usize,
    ) {
        let mut text = format!(
            "POST /getpost_frame_parser.php HTTP/1.1\r\nHost: h\r\nContent-Length: 54\r\n\r\nframe={FRAME}GET / HTTP/1.0\r\n\r\n"
        );
        let at = at.min(text.len());
        text.replace_range(at..(at + with.len()).min(text.len()), &with);
        prop_assert_eq!(heard(text.as_bytes(), usize::MAX), heard(text.as_bytes(), piece));
    }
}
