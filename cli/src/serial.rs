//! A serial line to a device: any tty. Frames go over it (`fivefold_core::wire::serial`), among whatever else a console says.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fivefold_core::wire::serial::{Deframer, Frame, Kind, LONGEST};
use fivefold_gateway::xbee::tty;
use rustix::event::PollFlags;

/// After so long a silence, what was begun is no frame.
const SILENCE: Duration = Duration::from_secs(1);

/// Where a line is, and how fast.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Place {
    /// Over this serial line, e.g. /dev/ttyUSB0: request and answer in one visit.
    #[arg(long, value_name = "TTY")]
    pub(crate) serial: Option<PathBuf>,
    /// Its speed, in baud.
    #[arg(long, default_value_t = 115_200, requires = "serial")]
    pub(crate) baud: u32,
    /// Wait so long for the other end of the line, in seconds.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", requires = "serial")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) wait: u16,
}

/// When something is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    #[expect(clippy::disallowed_methods, reason = "the rim waits for what comes over the line")]
    pub(crate) fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    #[expect(clippy::disallowed_methods, reason = "the rim waits for what comes over the line")]
    pub(crate) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    pub(crate) fn is_over(self) -> bool {
        self.left().is_zero()
    }
}

/// An open line.
pub(crate) struct Line {
    path: PathBuf,
    tty: File,
    deframer: Deframer,
    heard: VecDeque<(Kind, Vec<u8>)>,
}

impl Line {
    /// Opens a tty, without echo and without changes to what goes over it.
    ///
    /// # Errors
    /// It is none, or cannot be opened.
    pub(crate) fn open(path: &Path, baud: u32) -> anyhow::Result<Self> {
        let tty = tty::open(path, baud)?;
        Ok(Self { path: path.to_owned(), tty, deframer: Deframer::default(), heard: VecDeque::new() })
    }

    /// Says a frame.
    ///
    /// # Errors
    /// The line was closed.
    pub(crate) fn say(&mut self, kind: Kind, body: &[u8]) -> anyhow::Result<()> {
        let mut out = [0; LONGEST];
        let len = Frame { kind, body }.emit(&mut out)?;
        tty::write_all(&self.tty, out.get(..len).unwrap_or_default())
            .with_context(|| format!("cannot write to {}", self.path.display()))
    }

    /// The next frame, if one comes in time.
    ///
    /// # Errors
    /// The line was closed.
    pub(crate) fn hear(&mut self, until: Deadline) -> anyhow::Result<Option<(Kind, Vec<u8>)>> {
        let mut bytes = [0; 256];
        loop {
            if let Some(frame) = self.heard.pop_front() {
                return Ok(Some(frame));
            }
            if until.is_over() {
                return Ok(None);
            }
            if !self.wait(PollFlags::IN, until.left().min(SILENCE))? {
                self.deframer.forget();
                continue;
            }
            match self.tty.read(&mut bytes) {
                Ok(0) => anyhow::bail!("{} was closed", self.path.display()),
                Ok(n) => self.take(bytes.get(..n).unwrap_or_default()),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => return Err(e).with_context(|| format!("cannot read from {}", self.path.display())),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.deframer.feed(*byte);
            while let Some(frame) = self.deframer.frame() {
                self.heard.push_back((frame.kind, frame.body.to_vec()));
            }
        }
    }

    /// Whether the line is ready in time.
    fn wait(&self, flags: PollFlags, time: Duration) -> anyhow::Result<bool> {
        tty::wait(&self.tty, flags, time).with_context(|| format!("cannot wait for {}", self.path.display()))
    }
}

/// What is said on a line of an error, as much as fits.
pub(crate) fn in_short(text: &str) -> &[u8] {
    let end = text.len().min(Kind::Refused.longest());
    (0..=end).rev().find_map(|end| text.get(..end)).unwrap_or_default().as_bytes()
}
