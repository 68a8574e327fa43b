//! Why a request of a module is refused: each refusal has one word, one status and one sentence.

use std::fmt;

use fivefold_core::error::Code;

macro_rules! refusals {
    ($($variant:ident = $word:literal, $status:literal, $severs:expr, $sentence:literal;)*) => {
        /// Why a request is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Refusal {
            $(#[doc = $sentence] $variant,)*
        }

        impl Refusal {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// One stable word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The status with which it is answered.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// Whether nobody knows any more where the next request begins.
            pub const fn severs(self) -> bool {
                match self { $(Self::$variant => $severs,)* }
            }

            /// What it is counted as: a limit of this listener, or something that holds no frame.
            pub const fn code(self) -> Code {
                match self.status() {
                    413 | 414 | 431 => Code::ClassicTooMany,
                    _ => Code::ClassicMalformed,
                }
            }

            /// One sentence.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

refusals! {
    BodyTooLong = "body-too-long", 413, true, "a body longer than any frame needs";
    EmptyFrame = "empty-frame", 400, false, "the parameter frame is empty";
    EmptyLines = "empty-lines", 400, true, "empty lines without end before a request";
    Expectation = "expectation", 417, true, "the client expects something other than 100-continue";
    FrameTooLong = "frame-too-long", 400, false, "more bytes than a frame has";
    HeadTooLong = "head-too-long", 431, true, "headers that are too long";
    Header = "header", 400, true, "a header line without a name and a colon";
    Length = "length", 400, true, "a Content-Length that is no number, or two that differ";
    LineTooLong = "line-too-long", 414, true, "a line that is too long";
    Method = "method", 405, false, "a method other than GET and POST";
    NoFrame = "no-frame", 400, false, "no parameter called frame";
    NotHex = "not-hex", 400, false, "the parameter frame is not written in hex digits";
    OddHex = "odd-hex", 400, false, "the parameter frame has an odd number of hex digits";
    Path = "path", 404, false, "a path that is neither /getpost_frame_parser.php nor /hw/ps";
    RequestLine = "request-line", 400, true, "no request line of HTTP";
    TooManyHeaders = "too-many-headers", 431, true, "too many headers";
    Transfer = "transfer", 501, true, "a Transfer-Encoding, which is not taken here";
    TwoFrames = "two-frames", 400, false, "more than one parameter called frame";
    Unfinished = "unfinished", 400, true, "the request ended before it was whole";
    Version = "version", 505, true, "a version other than HTTP/1.0 and HTTP/1.1";
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())
    }
}

impl std::error::Error for Refusal {}
