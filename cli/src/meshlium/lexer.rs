//! Words of SQL as `mysqldump` and the `mysql` client write and read it, from a stream: nothing is kept but the word at hand.
//!
//! Comments are skipped. What stands in `/*! ... */` is read as the server reads it, but for `/*!999999 ... */`, which no
//! server executes.

use std::io::{self, Read};

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// Bytes of a name or a bare word that are kept; a name has at most 64 characters there.
const LONGEST_WORD: usize = 256;
/// Bytes of a delimiter, at most.
const LONGEST_DELIMITER: usize = 16;

/// What was read. Its contents are in [`Lexer::text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// Nothing is left.
    End,
    /// What ends a statement.
    Delimiter,
    /// Hex digits: `0x4D`, `x'4D'`; the text is what they stand for.
    Hex,
    /// Hex or binary digits that are none.
    BadDigits,
    /// In backticks.
    Name,
    /// Digits, with a point or an exponent.
    Number,
    /// Anything else, one byte.
    Sign(u8),
    /// In quotes; the text is without them and without escapes.
    Text,
    /// In quotes, and the stream ended in it.
    Unclosed,
    /// A bare word.
    Word,
}

impl Token {
    /// Whether a statement ends here.
    pub(crate) const fn ends(self) -> bool {
        matches!(self, Self::Delimiter | Self::End | Self::Unclosed)
    }
}

/// Reads tokens.
pub(crate) struct Lexer<R> {
    reader: R,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    /// Offset of the buffer's first byte in the file.
    base: u64,
    line: u64,
    /// Contents of the token, as much as is kept.
    pub(crate) text: Vec<u8>,
    /// How long its contents are.
    pub(crate) length: u64,
    /// Bytes of a text that are kept.
    pub(crate) keep: usize,
    /// What ends a statement.
    pub(crate) delimiter: Vec<u8>,
    /// Whether this stands in `/*! ... */`.
    pub(crate) conditional: bool,
    /// Whether a backslash escapes (not under the SQL mode `NO_BACKSLASH_ESCAPES`).
    pub(crate) backslash: bool,
    /// Whether the dump says that it is complete.
    pub(crate) completed: bool,
}

impl<R: Read> Lexer<R> {
    /// Reads `reader`, which stands at this offset and line of its file.
    pub(crate) fn new(reader: R, offset: u64, line: u64) -> Self {
        Self {
            reader,
            buffer: vec![0; CHUNK],
            at: 0,
            end: 0,
            base: offset,
            line,
            text: Vec::new(),
            length: 0,
            keep: 0,
            delimiter: b";".to_vec(),
            conditional: false,
            backslash: true,
            completed: false,
        }
    }

    /// Offset of what is read next.
    pub(crate) const fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Line of what is read next; the first is 1.
    pub(crate) const fn line(&self) -> u64 {
        self.line
    }

    /// The byte `ahead` of the next one.
    fn peek_at(&mut self, ahead: usize) -> io::Result<Option<u8>> {
        while self.end - self.at <= ahead {
            self.buffer.copy_within(self.at..self.end, 0);
            self.base += self.at as u64;
            self.end -= self.at;
            self.at = 0;
            let Some(room) = self.buffer.get_mut(self.end..) else { return Ok(None) };
            match self.reader.read(room) {
                Ok(0) => return Ok(None),
                Ok(n) => self.end += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(self.buffer.get(self.at + ahead).copied())
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.at < self.end { Ok(self.buffer.get(self.at).copied()) } else { self.peek_at(0) }
    }

    fn bump(&mut self) -> io::Result<Option<u8>> {
        let byte = self.peek()?;
        if byte.is_some() {
            self.at += 1;
            self.line += u64::from(byte == Some(b'\n'));
        }
        Ok(byte)
    }

    fn skip(&mut self, n: usize) -> io::Result<()> {
        for _ in 0..n {
            self.bump()?;
        }
        Ok(())
    }

    fn stands(&mut self, bytes: &[u8]) -> io::Result<bool> {
        for (ahead, byte) in bytes.iter().enumerate() {
            if self.peek_at(ahead)? != Some(*byte) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn put(&mut self, byte: u8, most: usize) {
        self.length += 1;
        if self.text.len() < most {
            self.text.push(byte);
        }
    }

    /// The next token.
    ///
    /// # Errors
    /// Those of the reader.
    pub(crate) fn next(&mut self) -> io::Result<Token> {
        self.text.clear();
        self.length = 0;
        loop {
            let Some(byte) = self.peek()? else { return Ok(Token::End) };
            if self.delimiter.first() == Some(&byte) {
                let delimiter = std::mem::take(&mut self.delimiter);
                let stands = self.stands(&delimiter);
                let n = delimiter.len();
                self.delimiter = delimiter;
                if stands? {
                    self.skip(n)?;
                    // A statement ends what was opened in it, as the server says of a comment that is cut.
                    self.conditional = false;
                    return Ok(Token::Delimiter);
                }
            }
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | 0x0B | 0x0C => self.skip(1)?,
                b'#' => self.line_comment()?,
                b'-' if self.stands(b"--")? && self.peek_at(2)?.is_none_or(|b| b <= b' ') => self.line_comment()?,
                b'/' if self.stands(b"/*")? => self.comment()?,
                b'*' if self.conditional && self.stands(b"*/")? => {
                    self.skip(2)?;
                    self.conditional = false;
                }
                b'\'' | b'"' => return self.quoted(byte, Token::Text),
                b'`' => return self.quoted(byte, Token::Name),
                b'0'..=b'9' => return self.number(),
                b'.' if self.peek_at(1)?.is_some_and(|b| b.is_ascii_digit()) => return self.number(),
                _ if is_word(byte) => return self.word(),
                _ => {
                    self.skip(1)?;
                    return Ok(Token::Sign(byte));
                }
            }
        }
    }

    /// What is left of this line: what the `mysql` client takes for a new delimiter.
    ///
    /// # Errors
    /// Those of the reader.
    pub(crate) fn take_delimiter(&mut self) -> io::Result<()> {
        let mut rest = Vec::new();
        while let Some(byte) = self.peek()?.filter(|b| *b != b'\n') {
            self.bump()?;
            if rest.len() < CHUNK {
                rest.push(byte);
            }
        }
        let word = rest.trim_ascii().split(u8::is_ascii_whitespace).next().unwrap_or_default();
        if !word.is_empty() && word.len() <= LONGEST_DELIMITER {
            self.delimiter = word.to_vec();
        }
        Ok(())
    }

    fn line_comment(&mut self) -> io::Result<()> {
        let completed = b"-- Dump completed";
        self.completed |= self.stands(completed)?;
        while self.peek()?.is_some_and(|b| b != b'\n') {
            self.bump()?;
        }
        Ok(())
    }

    fn comment(&mut self) -> io::Result<()> {
        self.skip(2)?;
        let mark = if self.stands(b"!")? {
            1
        } else if self.stands(b"M!")? {
            2
        } else {
            0
        };
        if mark > 0 {
            self.skip(mark)?;
            let mut version = 0u32;
            for _ in 0..6 {
                let Some(digit) = self.peek()?.filter(u8::is_ascii_digit) else { break };
                version = version * 10 + u32::from(digit - b'0');
                self.bump()?;
            }
            if version < 999_999 {
                self.conditional = true;
                return Ok(());
            }
        }
        while self.peek()?.is_some() {
            if self.stands(b"*/")? {
                return self.skip(2);
            }
            self.bump()?;
        }
        Ok(())
    }

    fn quoted(&mut self, quote: u8, token: Token) -> io::Result<Token> {
        let most = if token == Token::Name { LONGEST_WORD } else { self.keep };
        self.bump()?;
        while let Some(byte) = self.bump()? {
            if byte == quote {
                if self.peek()? != Some(quote) {
                    return Ok(token);
                }
                self.bump()?;
                self.put(quote, most);
            } else if byte == b'\\' && token == Token::Text && self.backslash {
                let Some(escaped) = self.bump()? else { break };
                match escaped {
                    b'0' => self.put(0, most),
                    b'b' => self.put(8, most),
                    b'n' => self.put(b'\n', most),
                    b'r' => self.put(b'\r', most),
                    b't' => self.put(b'\t', most),
                    b'Z' => self.put(0x1A, most),
                    // Those two keep their backslash (they are for LIKE).
                    b'%' | b'_' => {
                        self.put(b'\\', most);
                        self.put(escaped, most);
                    }
                    other => self.put(other, most),
                }
            } else {
                self.put(byte, most);
            }
        }
        Ok(Token::Unclosed)
    }

    fn number(&mut self) -> io::Result<Token> {
        if self.stands(b"0x")? && self.peek_at(2)?.is_some_and(|b| b.is_ascii_hexdigit()) {
            self.skip(2)?;
            return self.digits(None, 16);
        }
        if self.stands(b"0b")? && self.peek_at(2)?.is_some_and(|b| matches!(b, b'0' | b'1')) {
            self.skip(2)?;
            return self.digits(None, 2);
        }
        let mut before = 0;
        while let Some(byte) = self.peek()? {
            let sign = matches!(byte, b'+' | b'-') && matches!(before, b'e' | b'E');
            if !(byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E') || sign) {
                break;
            }
            self.bump()?;
            self.put(byte, LONGEST_WORD);
            before = byte;
        }
        if self.peek()?.is_some_and(is_word) {
            return self.word();
        }
        Ok(Token::Number)
    }

    /// Hex or binary digits, up to the quote that closes them or to what is none.
    fn digits(&mut self, quote: Option<u8>, base: u32) -> io::Result<Token> {
        let per_byte = if base == 16 { 2 } else { 8 };
        let (mut bits, mut count, mut good) = (0u32, 0u32, true);
        // Their number is not known before the end: an odd one has a zero in front.
        let mut all: Vec<u8> = Vec::new();
        while let Some(byte) = self.peek()? {
            if Some(byte) == quote {
                break;
            }
            let Some(digit) = (byte as char).to_digit(base) else {
                if quote.is_none() {
                    good &= !is_word(byte);
                    break;
                }
                good = false;
                self.bump()?;
                continue;
            };
            self.bump()?;
            self.length += 1;
            if all.len() < self.keep.saturating_mul(per_byte as usize) {
                all.push(digit as u8);
            }
        }
        if quote.is_some() && self.bump()?.is_none() {
            return Ok(Token::Unclosed);
        }
        let missing = (per_byte - all.len() as u32 % per_byte) % per_byte;
        good &= quote.is_none() || base == 2 || missing == 0;
        for digit in std::iter::repeat_n(0, missing as usize).chain(all) {
            bits = bits * base + u32::from(digit);
            count += 1;
            if count == per_byte {
                self.text.push(bits as u8);
                (bits, count) = (0, 0);
            }
        }
        self.length = self.length.div_ceil(u64::from(per_byte));
        Ok(if good { Token::Hex } else { Token::BadDigits })
    }

    fn word(&mut self) -> io::Result<Token> {
        while let Some(byte) = self.peek()?.filter(|b| is_word(*b)) {
            self.bump()?;
            self.put(byte, LONGEST_WORD);
        }
        if self.length == 1 && matches!(self.peek()?, Some(b'\'')) {
            let prefix = self.text.first().map(u8::to_ascii_lowercase);
            if matches!(prefix, Some(b'x' | b'b' | b'n')) {
                self.text.clear();
                self.length = 0;
            }
            match prefix {
                Some(b'n') => return self.quoted(b'\'', Token::Text),
                Some(base @ (b'x' | b'b')) => {
                    self.bump()?;
                    return self.digits(Some(b'\''), if base == b'x' { 16 } else { 2 });
                }
                _ => {}
            }
        }
        Ok(Token::Word)
    }

    /// Whether the token is this word, in any case.
    pub(crate) fn is(&self, word: &str) -> bool {
        self.text.eq_ignore_ascii_case(word.as_bytes())
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'@') || byte >= 0x80
}
