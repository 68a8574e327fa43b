//! Requests for enrolment and their answers as people carry them: a file, text to copy, a QR code in the terminal.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use anyhow::Context as _;
use fivefold_core::wire::enrolment::{Answer, TEXT_LONGEST, emit_text, parse_text};
use qrcodegen::{QrCode, QrCodeEcc, QrSegment};

/// Longest file that is looked at.
const LONGEST: u64 = 4096;

/// Reads the bytes of a request or an answer, out of a file that holds them, or holds them as text. `-` is standard input.
///
/// # Errors
/// It cannot be read, or is too long to be one.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut held = Vec::new();
    let failed = || format!("cannot read {}", path.display());
    if path == Path::new("-") {
        std::io::stdin().lock().take(LONGEST + 1).read_to_end(&mut held).with_context(failed)?;
    } else {
        let file = std::fs::File::open(path).with_context(failed)?;
        file.take(LONGEST + 1).read_to_end(&mut held).with_context(failed)?;
    }
    let shown = path.display();
    anyhow::ensure!(held.len() as u64 <= LONGEST, "{shown} is too long to be a request or an answer of enrolment");
    bytes_of(&held).map_err(|e| anyhow::anyhow!("{shown}: {e}"))
}

/// The bytes that text stands for, or that it is.
///
/// # Errors
/// It begins as ours and goes on as something else.
pub(crate) fn bytes_of(held: &[u8]) -> Result<Vec<u8>, fivefold_core::wire::cbor::Malformed> {
    let mut bytes = vec![0; Answer::LONGEST];
    Ok(match parse_text(held, &mut bytes)? {
        Some(len) => {
            bytes.truncate(len);
            bytes
        }
        None => held.to_vec(),
    })
}

/// The bytes as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    let mut out = vec![0; TEXT_LONGEST];
    let len = emit_text(bytes, &mut out).unwrap_or(0);
    out.truncate(len);
    String::from_utf8(out).unwrap_or_default()
}

/// A QR code (ISO/IEC 18004) of the text, in half blocks: two rows of modules to a line, and a quiet zone of four.
pub(crate) struct Qr(QrCode);

impl Qr {
    /// Of text in the alphanumeric mode, with as much error correction as its version has room for.
    ///
    /// # Errors
    /// It is too long.
    pub(crate) fn of(text: &str) -> anyhow::Result<Self> {
        let segment = QrSegment::make_alphanumeric(text);
        Ok(Self(QrCode::encode_segments(&[segment], QrCodeEcc::Low).context("too long for a QR code")?))
    }

    /// Its version: 1 to 40.
    pub(crate) fn version(&self) -> u8 {
        self.0.version().value()
    }

    /// As lines. On a terminal the colours are said too: a reader wants dark on light.
    pub(crate) fn lines(&self) -> String {
        const QUIET: i32 = 4;
        let (before, after) = if std::io::stdout().is_terminal() { ("\x1b[97;40m", "\x1b[0m") } else { ("", "") };
        let side = self.0.size() + QUIET;
        let is_light = |x, y| !self.0.get_module(x, y);
        let mut out = String::new();
        for y in (-QUIET..side).step_by(2) {
            out.push_str(before);
            out.extend((-QUIET..side).map(|x| match (is_light(x, y), is_light(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            }));
            out.push_str(after);
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a QR code off the terminal, as a camera would.
    fn scanned(lines: &str) -> String {
        let mut light: Vec<Vec<bool>> = Vec::new();
        for line in lines.lines() {
            light.push(line.chars().map(|c| matches!(c, '█' | '▀')).collect());
            light.push(line.chars().map(|c| matches!(c, '█' | '▄')).collect());
        }
        const SCALE: usize = 4;
        let (width, height) = (light[0].len() * SCALE, light.len() * SCALE);
        let pixel = |x: usize, y: usize| if light[y / SCALE][x / SCALE] { 255 } else { 0 };
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, pixel);
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1);
        grids[0].decode().unwrap().1
    }

    #[test]
    fn a_scanner_reads_what_the_terminal_shows_and_it_fits_eighty_columns() {
        // The last is what eighty columns hold; no answer is longer.
        for len in [67, 361, 410] {
            let bytes: Vec<u8> = (0..len).map(|n| (n * 37 + 11) as u8).collect();
            let text = text(&bytes);
            let code = Qr::of(&text).unwrap();
            let lines = code.lines();
            assert!(lines.lines().all(|l| l.chars().count() <= 80), "version {}", code.version());
            let read = scanned(&lines);
            assert_eq!(read, text);
            assert_eq!(bytes_of(format!("{read}\n").as_bytes()).unwrap(), bytes);
        }
    }

    #[test]
    fn a_file_that_is_too_long_or_half_ours_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, vec![b'1'; 5000]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("too long"));
        std::fs::write(&path, "FV1:lower").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("not base45"));
        assert!(read(&folder.path().join("none")).is_err());
    }
}
