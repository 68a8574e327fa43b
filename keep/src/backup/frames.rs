//! One file of a set: its head in clear, and a stream of bytes in sealed frames.
//!
//! `"FFBK" ‖ format (2) ‖ length (4) ‖ head, JSON ‖ frames`. A frame is 1 MiB of the stream, the last one what is left, each
//! with its tag of 16 bytes: AES-256-GCM under the file's key, the nonce is the frame's number (8) and 1 for the last frame
//! or 0 (4), and SHA-256 of everything before the first frame goes along. So no frame can be changed, moved, taken out or
//! brought from another file, and a file that was cut has no last one.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use serde::{Deserialize, Serialize};

use super::{BackupError, Result};

const MAGIC: &[u8; 4] = b"FFBK";
const FORMAT: u16 = 1;
/// Bytes of the stream in a frame.
const FRAME: usize = 1 << 20;
const TAG: usize = 16;
/// A head has no more bytes.
const LONGEST_HEAD: u32 = 64 << 10;

/// What a file says of itself; it is no secret, and nobody can change it unseen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Which set it is of.
    pub set: String,
    /// Its number in the set.
    pub number: u32,
    /// SHA-256 of the head of the file before it.
    pub before: Option<String>,
    /// What was backed up: `cloud`, or `gateway` and its name.
    pub of: String,
    /// SHA-256 of the CA's key: which deployment it is of.
    pub deployment: String,
    /// When it was begun, in Unix seconds.
    pub at: u64,
    /// Version of the program.
    pub program: String,
    /// The vault's envelope.
    pub vault: String,
    /// The same data key under a recovery passphrase.
    pub recovery: Option<String>,
    /// The file's key, sealed under the vault's data key.
    pub key: String,
}

impl Head {
    /// Under which name its key is sealed.
    pub(super) fn key_name(&self) -> String {
        format!("backup {} {}", self.set, self.number)
    }

    /// All that stands before the first frame.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // A struct of texts and numbers: nothing in it can fail.
        let json = serde_json::to_vec(self).unwrap_or_default();
        [&MAGIC[..], &FORMAT.to_be_bytes(), &(json.len() as u32).to_be_bytes(), &json].concat()
    }

    /// Reads it; and how long it is.
    pub(super) fn read(path: &Path) -> Result<(Self, File, Vec<u8>)> {
        let reading = |e: io::Error| BackupError::reading(path, e);
        let no = || BackupError::NotBackup { path: path.to_owned() };
        let file = File::open(path).map_err(reading)?;
        let mut bytes = vec![0; 10];
        file.read_exact_at(&mut bytes, 0).map_err(|_| no())?;
        let (magic, rest) = bytes.split_first_chunk().ok_or_else(no)?;
        let (format, rest) = rest.split_first_chunk().ok_or_else(no)?;
        let (len, _) = rest.split_first_chunk().ok_or_else(no)?;
        let (found, len) = (u16::from_be_bytes(*format), u32::from_be_bytes(*len));
        if magic != MAGIC {
            return Err(no());
        }
        if found > FORMAT {
            return Err(BackupError::TooNew { path: path.to_owned(), found, known: FORMAT });
        }
        if found != FORMAT || len > LONGEST_HEAD {
            return Err(no());
        }
        bytes.resize(10 + len as usize, 0);
        file.read_exact_at(&mut bytes, 0).map_err(|_| no())?;
        let head: Self = serde_json::from_slice(bytes.get(10..).unwrap_or_default()).map_err(|_| no())?;
        Ok((head, file, bytes))
    }
}

fn nonce(frame: u64, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    let (number, flag) = bytes.split_at_mut(8);
    number.copy_from_slice(&frame.to_be_bytes());
    flag.copy_from_slice(&u32::from(last).to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Writes the frames of a stream. Its key seals no other.
pub(super) struct Sealer<W> {
    to: W,
    key: LessSafeKey,
    bound: [u8; 32],
    frame: u64,
    buffer: Vec<u8>,
    position: u64,
}

impl<W: Write> Sealer<W> {
    pub(super) fn new(mut to: W, head: &[u8], key: LessSafeKey) -> io::Result<Self> {
        to.write_all(head)?;
        let buffer = Vec::with_capacity(FRAME + TAG);
        Ok(Self { to, key, bound: super::tree::sha256(head), frame: 0, buffer, position: 0 })
    }

    /// Bytes of the stream so far.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn put(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.buffer.len() == FRAME {
                self.seal(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(FRAME - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            self.position += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let (nonce, aad) = (nonce(self.frame, last), Aad::from(&self.bound));
        self.key.seal_in_place_append_tag(nonce, aad, &mut self.buffer).map_err(io::Error::other)?;
        self.to.write_all(&self.buffer)?;
        self.buffer.clear();
        self.frame += 1;
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        self.to.flush()?;
        Ok(self.to)
    }
}

/// Reads the stream of a file; each frame is opened before a byte of it is given out.
pub(super) struct Opener {
    file: File,
    path: PathBuf,
    number: u32,
    key: LessSafeKey,
    bound: [u8; 32],
    start: u64,
    frames: u64,
    len: u64,
    position: u64,
    open: Option<u64>,
    buffer: Vec<u8>,
}

impl Opener {
    pub(super) fn new(path: &Path, key: LessSafeKey) -> Result<Self> {
        let (head, file, bytes) = Head::read(path)?;
        let start = bytes.len() as u64;
        let whole = file.metadata().map_err(|e| BackupError::reading(path, e))?.len();
        let (body, full) = (whole.saturating_sub(start), (FRAME + TAG) as u64);
        let frames = body.div_ceil(full).max(1);
        let len = body.saturating_sub(frames * TAG as u64);
        let bound = super::tree::sha256(&bytes);
        let (path, number) = (path.to_owned(), head.number);
        let buffer = Vec::with_capacity(FRAME + TAG);
        Ok(Self { file, path, number, key, bound, start, frames, len, position: 0, open: None, buffer })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    pub(super) const fn go_to(&mut self, position: u64) {
        self.position = position;
    }

    fn load(&mut self, frame: u64) -> Result<()> {
        let broken = || BackupError::Frame { path: self.path.clone(), frame, before: self.number.checked_sub(1) };
        let last = frame + 1 == self.frames;
        let at = self.start + frame * (FRAME + TAG) as u64;
        let size = if last { self.len.saturating_sub(frame * FRAME as u64) as usize + TAG } else { FRAME + TAG };
        self.open = None;
        self.buffer.resize(size, 0);
        self.file.read_exact_at(&mut self.buffer, at).map_err(|_| broken())?;
        let opened = self.key.open_in_place(nonce(frame, last), Aad::from(&self.bound), &mut self.buffer);
        let len = opened.map_err(|_| broken())?.len();
        self.buffer.truncate(len);
        self.open = Some(frame);
        Ok(())
    }

    /// The next bytes: as many as `out` has. `None`: the stream ends before.
    pub(super) fn take(&mut self, mut out: &mut [u8]) -> Result<Option<()>> {
        if self.position + out.len() as u64 > self.len {
            return Ok(None);
        }
        while !out.is_empty() {
            let frame = self.position / FRAME as u64;
            if self.open != Some(frame) {
                self.load(frame)?;
            }
            let have = self.buffer.get((self.position % FRAME as u64) as usize..).unwrap_or_default();
            let n = have.len().min(out.len());
            let (now, later) = out.split_at_mut(n);
            now.copy_from_slice(have.get(..n).unwrap_or_default());
            self.position += n as u64;
            out = later;
            if n == 0 {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// That the last frame is one: a file that was cut has none.
    pub(super) fn check_end(&mut self) -> Result<()> {
        self.load(self.frames - 1)
    }
}
