//! A serial line to a device: any tty. Frames go over it (`fivefold_core::wire::serial`), among whatever else a console says.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fivefold_core::wire::serial::{Deframer, Frame, Kind, LONGEST};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::termios::{ControlModes, OptionalActions, tcgetattr, tcsetattr};

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
        let tty = open_tty(path, baud)?;
        Ok(Self { path: path.to_owned(), tty, deframer: Deframer::default(), heard: VecDeque::new() })
    }

    /// Says a frame.
    ///
    /// # Errors
    /// The line was closed.
    pub(crate) fn say(&mut self, kind: Kind, body: &[u8]) -> anyhow::Result<()> {
        let mut out = [0; LONGEST];
        let len = Frame { kind, body }.emit(&mut out)?;
        let mut rest = out.get(..len).unwrap_or_default();
        while !rest.is_empty() {
            match self.tty.write(rest) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == ErrorKind::WouldBlock => drop(self.wait(PollFlags::OUT, SILENCE)?),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e).with_context(|| format!("cannot write to {}", self.path.display())),
            }
        }
        Ok(())
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
        let time = Timespec::try_from(time).context("no such time")?;
        match poll(&mut [PollFd::new(&self.tty, flags)], Some(&time)) {
            Ok(n) => Ok(n > 0),
            Err(rustix::io::Errno::INTR) => Ok(false),
            Err(e) => Err(e).with_context(|| format!("cannot wait for {}", self.path.display())),
        }
    }
}

/// Opens a tty, without echo and without changes to what goes over it. Nothing waits for it.
///
/// # Errors
/// It is none, or cannot be opened.
pub(crate) fn open_tty(path: &Path, baud: u32) -> anyhow::Result<File> {
    let shown = path.display();
    let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits();
    let tty = OpenOptions::new().read(true).write(true).custom_flags(flags as i32).open(path);
    let tty = tty.with_context(|| format!("cannot open {shown}"))?;
    let mut mode = tcgetattr(&tty).with_context(|| format!("{shown} is no serial line"))?;
    mode.make_raw();
    // Eight bits, one stop bit, no flow control, and no modem whose carrier is waited for.
    mode.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
    mode.control_modes &= !(ControlModes::CSTOPB | ControlModes::CRTSCTS);
    mode.set_speed(baud).with_context(|| format!("{shown} does not run at {baud} baud"))?;
    tcsetattr(&tty, OptionalActions::Flush, &mode).with_context(|| format!("cannot set up {shown}"))?;
    Ok(tty)
}

/// What is said on a line of an error, as much as fits.
pub(crate) fn in_short(text: &str) -> &[u8] {
    let end = text.len().min(Kind::Refused.longest());
    (0..=end).rev().find_map(|end| text.get(..end)).unwrap_or_default().as_bytes()
}
