//! What the modules' HTTP clients write, as a parser that takes bytes as they come: no socket, no clock.
//!
//! It takes less than HTTP asks for, because the senders give less: no version, no headers, LF for CR LF, a body whose length
//! nobody says (W13). What it takes is bounded, and what it refuses has a name ([`Refusal`]).

use std::fmt;

use zeroize::Zeroizing;

use super::form::{Door, Target, frame_in, starts_with};
use super::refusal::Refusal;

/// Bytes of one line, at most: the longest request of a module is below 700, a bearer token may be long.
pub const LONGEST_LINE: usize = 4096;
/// Bytes of a request's head, at most.
pub const LONGEST_HEAD: usize = 8192;
/// Header lines, at most.
pub const MOST_HEADERS: usize = 64;
/// Bytes of a body, at most: a form with one frame is below 700.
pub const LONGEST_BODY: usize = 4096;
/// Bytes that wait to be looked at, at most: a whole request, and what follows it at once.
pub const LONGEST_WAIT: usize = LONGEST_HEAD + LONGEST_BODY;
/// Empty lines before a request, at most.
const MOST_EMPTY: usize = 8;

/// What becomes of the connection once the request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It ends.
    Close,
    /// Another request may follow.
    Keep,
}

/// A request with a frame in it.
#[derive(PartialEq, Eq)]
pub struct Request {
    /// Where it was handed in.
    pub door: Door,
    /// The frame, out of its hex digits; nothing in it is looked at.
    pub frame: Box<[u8]>,
    /// What stood behind `Authorization: Bearer`.
    pub bearer: Option<Zeroizing<Vec<u8>>>,
    /// What the client expects of the connection.
    pub after: After,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("door", &self.door)
            .field("frame", &self.frame)
            .field("bearer", &self.bearer.as_ref().map(|_| "(…)"))
            .field("after", &self.after)
            .finish()
    }
}

/// What a look at the bytes so far came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The client waits for `100 Continue` before it sends the body.
    Continue,
    /// Bytes are missing.
    More(Missing),
    /// A whole request.
    Whole(Request),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A request: none has begun.
    Request,
    /// The rest of one.
    Rest,
    /// Perhaps nothing: a body has begun whose length nobody said. Silence ends it ([`Parser::end`]).
    Perhaps,
}

/// Takes bytes as they come, and hands out requests.
#[derive(Default)]
pub struct Parser {
    /// It may hold a token.
    bytes: Zeroizing<Vec<u8>>,
    /// How far it was looked for the end of a line.
    looked: usize,
    state: State,
}

impl fmt::Debug for Parser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parser").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

#[derive(Default)]
enum State {
    #[default]
    Between,
    Skipping(usize),
    Head(Head),
    Body(Head, Body),
    /// A refusal severed the connection.
    Severed(Refusal),
}

/// How long a body is.
#[derive(Clone, Copy)]
enum Body {
    Known(usize),
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Get,
    Post,
}

/// What is known of a request before its body.
struct Head {
    method: Result<Method, Refusal>,
    target: Result<Target, Refusal>,
    minor: Option<u8>,
    headers: usize,
    len: usize,
    length: Option<usize>,
    expects: bool,
    bearer: Option<Zeroizing<Vec<u8>>>,
    said: Option<After>,
}

impl Parser {
    /// One that has heard nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes it takes now.
    pub fn room(&self) -> usize {
        LONGEST_WAIT.saturating_sub(self.bytes.len())
    }

    /// Takes bytes, up to [`Self::room`]; what is beyond is not taken. How many were taken.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.get(..self.room()).unwrap_or(bytes);
        self.bytes.extend_from_slice(taken);
        taken.len()
    }

    /// Looks at the bytes so far. To be called again after each request, since others may have come with it.
    ///
    /// # Errors
    /// One [`Refusal`]; what follows one that [severs](Refusal::severs) is the same for ever.
    pub fn step(&mut self) -> Result<Step, Refusal> {
        let step = self.advance();
        if let Err(refusal) = step
            && refusal.severs()
        {
            self.bytes.clear();
            self.looked = 0;
            self.state = State::Severed(refusal);
        }
        step
    }

    /// Nothing follows for now: the client is silent, or has closed its half. What that ends is a body whose length nobody said,
    /// and a line without version that no empty line follows.
    ///
    /// # Errors
    /// [`Refusal::Unfinished`] in the middle of something, and as [`Self::step`].
    pub fn end(&mut self) -> Result<Option<Request>, Refusal> {
        if let Step::Whole(request) = self.step()? {
            return Ok(Some(request));
        }
        match std::mem::take(&mut self.state) {
            State::Severed(refusal) => {
                self.state = State::Severed(refusal);
                Err(refusal)
            }
            State::Between | State::Skipping(_) if self.bytes.is_empty() => Ok(None),
            State::Body(head, Body::Unknown) if !self.bytes.is_empty() => {
                let len = self.bytes.len();
                self.finish(head, len).map(Some)
            }
            State::Head(head) if head.minor.is_none() && head.headers == 0 && self.bytes.is_empty() => {
                self.finish(head, 0).map(Some)
            }
            // A line without version, and not even its end.
            State::Between | State::Skipping(_) if self.bytes.len() < LONGEST_LINE => {
                self.push(b"\n\n");
                match self.step() {
                    Ok(Step::Whole(request)) => Ok(Some(request)),
                    Ok(_) => Err(Refusal::Unfinished),
                    Err(refusal) => Err(refusal),
                }
            }
            _ => Err(Refusal::Unfinished),
        }
    }

    fn advance(&mut self) -> Result<Step, Refusal> {
        loop {
            match std::mem::take(&mut self.state) {
                State::Severed(refusal) => {
                    self.state = State::Severed(refusal);
                    return Err(refusal);
                }
                State::Between => self.state = State::Skipping(0),
                State::Skipping(empty) => {
                    let Some(line) = self.line()? else {
                        self.state = if empty == 0 { State::Between } else { State::Skipping(empty) };
                        let missing = if self.bytes.is_empty() { Missing::Request } else { Missing::Rest };
                        return Ok(Step::More(missing));
                    };
                    if !line.is_empty() {
                        self.state = State::Head(Head::of_line(&line)?);
                    } else if empty >= MOST_EMPTY {
                        return Err(Refusal::EmptyLines);
                    } else {
                        self.state = State::Skipping(empty + 1);
                    }
                }
                State::Head(mut head) => {
                    let Some(line) = self.line()? else {
                        self.state = State::Head(head);
                        return Ok(Step::More(Missing::Rest));
                    };
                    if !line.is_empty() {
                        head.header(&line)?;
                        self.state = State::Head(head);
                        continue;
                    }
                    let body = head.body()?;
                    let asks = head.expects && self.bytes.is_empty() && !matches!(body, Body::Known(0));
                    self.state = State::Body(head, body);
                    if asks {
                        return Ok(Step::Continue);
                    }
                }
                State::Body(head, Body::Known(len)) => {
                    if self.bytes.len() < len {
                        self.state = State::Body(head, Body::Known(len));
                        return Ok(Step::More(Missing::Rest));
                    }
                    return self.finish(head, len).map(Step::Whole);
                }
                State::Body(head, Body::Unknown) => {
                    // Its length is that of its line, or of what comes before silence.
                    let start = self.bytes.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(self.bytes.len());
                    let rest = self.bytes.get(start..).unwrap_or_default();
                    if let Some(end) = rest.iter().position(|b| *b == b'\n') {
                        return self.finish(head, start + end + 1).map(Step::Whole);
                    }
                    if self.bytes.len() > LONGEST_BODY {
                        return Err(Refusal::BodyTooLong);
                    }
                    let missing = if rest.is_empty() { Missing::Rest } else { Missing::Perhaps };
                    self.state = State::Body(head, Body::Unknown);
                    return Ok(Step::More(missing));
                }
            }
        }
    }

    /// The next line without its end, once that is there.
    fn line(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, Refusal> {
        let rest = self.bytes.get(self.looked..).unwrap_or_default();
        let Some(end) = rest.iter().position(|b| *b == b'\n').map(|at| self.looked + at) else {
            self.looked = self.bytes.len();
            return if self.looked > LONGEST_LINE { Err(Refusal::LineTooLong) } else { Ok(None) };
        };
        if end > LONGEST_LINE {
            return Err(Refusal::LineTooLong);
        }
        let line = self.bytes.get(..end).unwrap_or_default();
        let blank = line.iter().rposition(|b| *b != b'\r').map_or(0, |at| at + 1);
        let line = Zeroizing::new(line.get(..blank).unwrap_or_default().to_vec());
        self.bytes.drain(..=end);
        self.looked = 0;
        Ok(Some(line))
    }

    /// A request whose body are the next bytes.
    fn finish(&mut self, head: Head, body: usize) -> Result<Request, Refusal> {
        self.state = State::Between;
        self.looked = 0;
        let len = body.min(self.bytes.len());
        let body = Zeroizing::new(self.bytes.drain(..len).collect::<Vec<u8>>());
        let method = head.method?;
        let target = head.target?;
        let frame = match (target.frame, method) {
            (Err(Refusal::NoFrame), Method::Post) => frame_in(&body)?,
            (Ok(_), Method::Post) if frame_in(&body) != Err(Refusal::NoFrame) => return Err(Refusal::TwoFrames),
            (frame, _) => frame?,
        };
        let after = match head.minor {
            Some(1) => head.said.unwrap_or(After::Keep),
            Some(_) => head.said.unwrap_or(After::Close),
            None => After::Close,
        };
        Ok(Request { door: target.door, frame, bearer: head.bearer, after })
    }
}

impl Head {
    fn of_line(line: &[u8]) -> Result<Self, Refusal> {
        if !line.iter().all(|b| (b' '..=b'~').contains(b) || *b == b'\t') {
            return Err(Refusal::RequestLine);
        }
        let mut words: Vec<&[u8]> = line.split(|b| matches!(b, b' ' | b'\t')).filter(|w| !w.is_empty()).collect();
        if words.len() < 2 {
            return Err(Refusal::RequestLine);
        }
        let method = match words.remove(0) {
            w if w.eq_ignore_ascii_case(b"GET") => Ok(Method::Get),
            w if w.eq_ignore_ascii_case(b"POST") => Ok(Method::Post),
            w if w.len() <= 20 && w.iter().all(u8::is_ascii_alphabetic) => Err(Refusal::Method),
            _ => return Err(Refusal::RequestLine),
        };
        let minor = match words.last().filter(|w| words.len() > 1 && starts_with(w, b"HTTP/")) {
            None => None,
            Some(w) => match w.get(5..) {
                Some(b"1.1") => Some(1),
                Some(b"1.0") => Some(0),
                _ => return Err(Refusal::Version),
            },
        };
        if minor.is_some() {
            words.pop();
        }
        // A blank inside of the target is a template's, and means nothing.
        let target = Target::parse(&words.concat());
        let len = line.len();
        let (headers, length, expects, bearer, said) = (0, None, false, None, None);
        Ok(Self { method, target, minor, headers, len, length, expects, bearer, said })
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.headers += 1;
        self.len += line.len();
        if self.headers > MOST_HEADERS {
            return Err(Refusal::TooManyHeaders);
        }
        if self.len > LONGEST_HEAD {
            return Err(Refusal::HeadTooLong);
        }
        let colon = line.iter().position(|b| *b == b':').ok_or(Refusal::Header)?;
        let (name, value) = line.split_at(colon);
        let (name, value) = (name.trim_ascii_end(), value.get(1..).unwrap_or_default().trim_ascii());
        // A line that begins with a blank would belong to the one before: what it means is not agreed upon.
        if name.is_empty() || !name.iter().all(|b| b.is_ascii_graphic()) {
            return Err(Refusal::Header);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = number(value).ok_or(Refusal::Length)?;
            if self.length.is_some_and(|l| l != length) {
                return Err(Refusal::Length);
            }
            self.length = Some(length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Err(Refusal::Transfer);
        } else if name.eq_ignore_ascii_case(b"expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::Expectation);
            }
            self.expects = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            for word in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                if word.eq_ignore_ascii_case(b"close") {
                    self.said = Some(After::Close);
                } else if word.eq_ignore_ascii_case(b"keep-alive") && self.said.is_none() {
                    self.said = Some(After::Keep);
                }
            }
        } else if name.eq_ignore_ascii_case(b"authorization") && starts_with(value, b"Bearer ") {
            let token = value.get(7..).unwrap_or_default().trim_ascii();
            self.bearer = Some(Zeroizing::new(token.to_vec()));
        }
        Ok(())
    }

    /// How long its body is.
    fn body(&self) -> Result<Body, Refusal> {
        match self.length {
            Some(length) if length > LONGEST_BODY => Err(Refusal::BodyTooLong),
            Some(length) => Ok(Body::Known(length)),
            None if self.method != Ok(Method::Post) => Ok(Body::Known(0)),
            // The frame was there already, or nobody would read a body.
            None if self.target.as_ref().map_or(true, |t| t.frame != Err(Refusal::NoFrame)) => Ok(Body::Known(0)),
            None => Ok(Body::Unknown),
        }
    }
}

/// Decimal digits and nothing else.
fn number(text: &[u8]) -> Option<usize> {
    if text.is_empty() || text.len() > 9 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |n, d| n * 10 + usize::from(d - b'0')))
}
