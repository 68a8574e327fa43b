//! Text files of strangers.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

/// Bytes of a config file, at most.
const LONGEST: u64 = 1 << 20;

/// Reads a text file of a bounded size.
///
/// # Errors
/// One sentence: it is not there, not readable, no file, too long, or no text.
pub fn text(path: &Path) -> Result<String, String> {
    let bytes = start_of(path, LONGEST + 1)?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("{} is longer than {} MiB: it is no config of ours", path.display(), LONGEST >> 20));
    }
    String::from_utf8(bytes)
        .map_err(|e| format!("{} is no text, at byte {}", path.display(), e.utf8_error().valid_up_to()))
}

/// The first bytes of a file.
///
/// # Errors
/// One sentence.
pub(super) fn start_of(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let failed = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    // A pipe or a device would never end, or block.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}
