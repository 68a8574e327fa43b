//! Signed notes and the keys that are written beside them (C2SP `signed-note`).
//!
//! A note is text, an empty line, and lines that each say: this key has signed the text. What the signed bytes are depends
//! on the kind of the key: [`crate::checkpoint`] and [`crate::cosignature`] know.

use core::fmt;
use core::str::FromStr;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes of a note, at most: sixteen post-quantum signatures and more fit.
pub const LONGEST_NOTE: usize = 256 * 1024;
/// Signature lines of a note, at most. C2SP asks for 16 at least.
pub const MOST_LINES: usize = 64;

/// Bytes of an Ed25519 public key.
pub const ED25519_KEY: usize = 32;
/// Bytes of an ML-DSA-44 public key (FIPS 204).
pub const ML_DSA_44_KEY: usize = 1312;

/// What is no note, no signature line or no key. The reason is for people; it names no byte of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// The number beside a key's name in a signature line: the first 4 bytes of SHA-256(name ‖ LF ‖ kind ‖ key).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 4]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// What a key signs, by the identifier byte of C2SP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// 01: Ed25519 over the text. A log's.
    Log,
    /// 04: Ed25519 over text and time. A witness's (`cosignature/v1`).
    Witness,
    /// 06: ML-DSA-44 over size, root and time. A witness's (`subtree/v1`).
    WitnessPq,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Log => 1,
            Self::Witness => 4,
            Self::WitnessPq => 6,
        }
    }

    const fn key_bytes(self) -> usize {
        match self {
            Self::Log | Self::Witness => ED25519_KEY,
            Self::WitnessPq => ML_DSA_44_KEY,
        }
    }
}

/// The public key of a log or a witness, with its name: what a person pins. Written `name+id+base64`.
#[derive(Clone, PartialEq, Eq)]
pub struct VKey {
    name: String,
    id: KeyId,
    kind: Kind,
    public: Vec<u8>,
}

impl VKey {
    /// Of a public key: 32 bytes of Ed25519, or 1312 of ML-DSA-44.
    ///
    /// # Errors
    /// [`Malformed`] for another length, and for a name that is empty or has a space or a plus.
    pub fn new(name: &str, kind: Kind, public: &[u8]) -> Result<Self, Malformed> {
        check_name(name)?;
        if public.len() != kind.key_bytes() {
            return Err(Malformed("a key of the wrong length for its kind"));
        }
        Ok(Self { name: name.into(), id: key_id(name, kind, public), kind, public: public.into() })
    }

    /// Its name: of a log, its origin.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number in signature lines.
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// What it signs.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The public key itself.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// Whether a line says that it is this key's.
    pub fn wrote(&self, line: &Line) -> bool {
        line.key == self.id && line.name == self.name
    }
}

impl FromStr for VKey {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Malformed("a verifier key is written name+id+base64"));
        };
        let decoded = STANDARD.decode(key).map_err(|_| Malformed("a verifier key's last part is not base64"))?;
        let (kind, public) = match decoded.split_first() {
            Some((1, public)) => (Kind::Log, public),
            Some((4, public)) => (Kind::Witness, public),
            Some((6, public)) => (Kind::WitnessPq, public),
            _ => return Err(Malformed("a verifier key of a kind that is not known here")),
        };
        let vkey = Self::new(name, kind, public)?;
        if vkey.id.to_string() != id {
            return Err(Malformed("a verifier key's number does not belong to its name and key"));
        }
        Ok(vkey)
    }
}

impl fmt::Display for VKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = [&[self.kind.byte()], &self.public[..]].concat();
        write!(f, "{}+{}+{}", self.name, self.id, STANDARD.encode(key))
    }
}

impl fmt::Debug for VKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VKey({}+{})", self.name, self.id)
    }
}

/// One line: who says to have signed, and the signature as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The key's name.
    pub name: String,
    /// The key's number.
    pub key: KeyId,
    /// The signature: 1 byte at least. Its shape is the key's affair.
    pub signature: Vec<u8>,
}

impl FromStr for Line {
    type Err = Malformed;

    /// One line, without its newline.
    fn from_str(line: &str) -> Result<Self, Malformed> {
        let rest =
            line.strip_prefix("\u{2014} ").ok_or(Malformed("a signature line starts with U+2014 and a space"))?;
        let (name, signature) = rest.split_once(' ').ok_or(Malformed("a signature line has a name and a signature"))?;
        check_name(name)?;
        let bytes = STANDARD.decode(signature).map_err(|_| Malformed("a signature is not base64"))?;
        match bytes.split_first_chunk() {
            Some((key, signature)) if !signature.is_empty() => {
                Ok(Self { name: name.into(), key: KeyId(*key), signature: signature.into() })
            }
            _ => Err(Malformed("a signature is shorter than a key's number and one byte")),
        }
    }
}

impl fmt::Display for Line {
    /// One line, with its newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.key.0[..], &self.signature].concat();
        writeln!(f, "\u{2014} {} {}", self.name, STANDARD.encode(bytes))
    }
}

/// A note whose shape is checked; nothing of it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    lines: Vec<Line>,
}

impl Note {
    /// Of a text that ends in a newline, and its signatures.
    ///
    /// # Errors
    /// [`Malformed`] when that is no note.
    pub fn new(text: String, lines: Vec<Line>) -> Result<Self, Malformed> {
        check_characters(&text)?;
        if !text.ends_with('\n') {
            return Err(Malformed("the text of a note ends in a newline"));
        }
        if lines.is_empty() {
            return Err(Malformed("a note without a signature"));
        }
        if lines.len() > MOST_LINES {
            return Err(Malformed("a note with too many signatures"));
        }
        Ok(Self { text, lines })
    }

    /// Reads a note.
    ///
    /// # Errors
    /// [`Malformed`] with what was wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > LONGEST_NOTE {
            return Err(Malformed("a note longer than 256 KiB"));
        }
        let whole = core::str::from_utf8(bytes).map_err(|_| Malformed("a note is not UTF-8"))?;
        check_characters(whole)?;
        let (text, signatures) =
            whole.rsplit_once("\n\n").ok_or(Malformed("a note has an empty line before its signatures"))?;
        let signatures = signatures.strip_suffix('\n').ok_or(Malformed("the last signature line ends in a newline"))?;
        if signatures.split('\n').count() > MOST_LINES {
            return Err(Malformed("a note with too many signatures"));
        }
        let lines = signatures.split('\n').map(str::parse).collect::<Result<_, _>>()?;
        Self::new(format!("{text}\n"), lines)
    }

    /// What was signed, with its last newline.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, as they came.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Adds a signature, in the place of one by the same key if there is one.
    ///
    /// # Errors
    /// [`Malformed`] when there are [`MOST_LINES`] already.
    pub fn add(&mut self, line: Line) -> Result<(), Malformed> {
        self.lines.retain(|other| other.key != line.key || other.name != line.name);
        if self.lines.len() >= MOST_LINES {
            return Err(Malformed("a note with too many signatures"));
        }
        self.lines.push(line);
        Ok(())
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.lines.iter().try_for_each(|line| line.fmt(f))
    }
}

/// A decimal as C2SP writes numbers: digits, no leading zero, no sign, at most 2^63 - 1.
pub(crate) fn decimal(text: &str) -> Result<u64, Malformed> {
    let plain = match text.as_bytes() {
        [] => false,
        [b'0', _, ..] => false,
        digits => digits.iter().all(u8::is_ascii_digit),
    };
    let number = if plain { text.parse::<u64>().ok() } else { None };
    number.filter(|n| *n <= i64::MAX as u64).ok_or(Malformed("not a decimal without leading zeros below 2^63"))
}

/// A hash in base64.
pub(crate) fn hash(text: &str) -> Result<[u8; 32], Malformed> {
    let bytes = STANDARD.decode(text).map_err(|_| Malformed("a hash is not base64"))?;
    bytes.try_into().map_err(|_| Malformed("a hash is not 32 bytes"))
}

/// A hash as base64.
pub(crate) fn hash_text(hash: &[u8; 32]) -> String {
    STANDARD.encode(hash)
}

fn key_id(name: &str, kind: Kind, public: &[u8]) -> KeyId {
    let hash = digest::digest(&digest::SHA256, &[name.as_bytes(), b"\n", &[kind.byte()], public].concat());
    let mut id = [0; 4];
    id.iter_mut().zip(hash.as_ref()).for_each(|(i, h)| *i = *h);
    KeyId(id)
}

fn check_name(name: &str) -> Result<(), Malformed> {
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '+' || c < ' ') {
        return Err(Malformed("a key's name is empty or has a space or a plus"));
    }
    Ok(())
}

fn check_characters(text: &str) -> Result<(), Malformed> {
    if text.contains(|c: char| c < ' ' && c != '\n') {
        return Err(Malformed("a note has a control character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written_and_not_otherwise() {
        let key = VKey::new("log.example/a", Kind::Log, &[7; 32]).unwrap();
        let text = key.to_string();
        assert_eq!(text.parse::<VKey>().unwrap(), key);
        assert!(text.replace("log.example/a", "log.example/b").parse::<VKey>().is_err());
        assert!(text.to_uppercase().parse::<VKey>().is_err());
        assert!(VKey::new("log.example/a", Kind::WitnessPq, &[7; 32]).is_err());
        for name in ["", "a b", "a+b", "a\u{2003}b", "a\n"] {
            assert!(VKey::new(name, Kind::Log, &[7; 32]).is_err(), "{name:?}");
        }
    }

    #[test]
    fn decimals_have_one_form() {
        assert_eq!(decimal("0"), Ok(0));
        assert_eq!(decimal("9223372036854775807"), Ok(i64::MAX as u64));
        for text in ["", "00", "01", "+1", "-1", " 1", "1 ", "9223372036854775808", "1e3", "\u{0661}"] {
            assert!(decimal(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_text_of_a_note_may_have_empty_lines() {
        let note = "a\n\nb\n\n\u{2014} n AAAAAAE=\n";
        let parsed = Note::parse(note.as_bytes()).unwrap();
        assert_eq!(parsed.text(), "a\n\nb\n");
        assert_eq!(parsed.to_string(), note);
    }

    #[test]
    fn a_note_has_a_bound_on_its_signatures() {
        let mut note = "a\n\n".to_string();
        note.extend((0..MOST_LINES).map(|_| "\u{2014} n AAAAAAE=\n"));
        assert!(Note::parse(note.as_bytes()).is_ok());
        note.push_str("\u{2014} n AAAAAAE=\n");
        assert!(Note::parse(note.as_bytes()).is_err());
    }
}
