//! The memory of a process, as whoever has its computer reads it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};

use anyhow::Context as _;

/// Bytes that are held at a time.
const PIECE: u64 = 4 << 20;
/// Regions that the kernel lends to every process, and that hold nothing of one.
const KERNELS: [&str; 4] = ["[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]"];

/// How much of a process was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Regions that hold anything, whatever their rights are.
    pub regions: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Of them, those that lay in swap: to read them brings them back.
    pub swapped: u64,
    /// Bytes that were not to be had. A process that is stopped has none of these.
    pub unread: u64,
}

/// A line of `/proc/PID/smaps` that begins a region, and what follows of it.
struct Region {
    start: u64,
    end: u64,
    name: String,
    /// Bytes of it that are in memory, and in swap.
    held: (u64, u64),
}

/// Hands over all that a process has in memory and in swap, in pieces. Each begins with the last `overlap` bytes of the one
/// before, so what is no longer than that is whole in one of them.
///
/// # Errors
/// The process is not there, or not this user's to look at.
pub fn read(pid: u32, overlap: usize, mut look: impl FnMut(&[u8])) -> anyhow::Result<Image> {
    let regions = regions(pid).context("cannot look at the memory of the process")?;
    let mut memory = File::open(format!("/proc/{pid}/mem")).context("cannot read the memory of the process")?;
    let mut image = Image::default();
    for region in regions.iter().filter(|r| r.held != (0, 0) && !KERNELS.contains(&r.name.as_str())) {
        image.regions += 1;
        image.swapped += region.held.1;
        let mut piece = Vec::new();
        let mut at = region.start;
        while at < region.end {
            let wanted = (region.end - at).min(PIECE);
            piece.drain(..piece.len().saturating_sub(overlap));
            let before = piece.len();
            // A region that is gone, or has a hole, gives what it gives.
            let _ = memory.seek(SeekFrom::Start(at)).and_then(|_| (&mut memory).take(wanted).read_to_end(&mut piece));
            let came = (piece.len() - before) as u64;
            image.bytes += came;
            look(&piece);
            if came < wanted {
                image.unread += region.end - at - came;
                break;
            }
            at += wanted;
        }
    }
    Ok(image)
}

fn regions(pid: u32) -> anyhow::Result<Vec<Region>> {
    let mut regions: Vec<Region> = Vec::new();
    for line in BufReader::new(File::open(format!("/proc/{pid}/smaps"))?).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let bounds = first.split_once('-').map(|(a, b)| (u64::from_str_radix(a, 16), u64::from_str_radix(b, 16)));
        if let Some((Ok(start), Ok(end))) = bounds {
            let name = words.nth(4).unwrap_or_default().to_owned();
            regions.push(Region { start, end, name, held: (0, 0) });
        } else if let (Some(region), Some(Ok(kib))) = (regions.last_mut(), words.next().map(str::parse::<u64>)) {
            match first {
                "Rss:" => region.held.0 = kib << 10,
                "Swap:" => region.held.1 = kib << 10,
                _ => {}
            }
        }
    }
    Ok(regions)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use memchr::memmem;

    use super::*;

    /// The needle is written at run time: it stands nowhere but where it is put, and in the pieces that are looked at.
    fn needle(salt: u8) -> Vec<u8> {
        (0..40u8).map(|i| i.wrapping_mul(73) ^ salt).collect()
    }

    #[test]
    fn what_a_process_holds_is_found_wherever_it_lies_in_however_much() {
        let needle = needle(0xA7);
        let mut much = vec![0u8; 80 << 20];
        // Over the border of two pieces, wherever the region begins, and at the very end.
        for at in (PIECE as usize / 2..much.len() - 40).step_by(PIECE as usize - 16) {
            much[at..at + 40].copy_from_slice(&needle);
        }
        let end = much.len() - 40;
        much[end..].copy_from_slice(&needle);
        let address = much.as_ptr() as u64;
        let region = |r: &Region| r.start <= address && address < r.end;
        assert!(regions(std::process::id()).unwrap().iter().any(region));
        let mut found = 0;
        let image = read(std::process::id(), 39, |piece| found += memmem::find_iter(piece, &needle).count()).unwrap();
        assert!(found >= 20, "{found}");
        assert!(image.bytes >= 80 << 20 && image.regions > 5, "{image:?}");
        assert!(much.len() > end);
    }

    #[test]
    fn a_process_that_is_not_there_is_refused() {
        assert!(read(u32::MAX, 8, |_| {}).is_err());
    }
}
