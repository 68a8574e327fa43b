//! A serial line: any tty, opened so that bytes go over it as they are.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::termios::{ControlModes, OptionalActions, tcgetattr, tcsetattr};

/// A line that takes nothing for so long is stuck.
const STUCK: Duration = Duration::from_secs(5);

/// Why a line cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TtyError {
    /// It is no tty.
    #[error("{path} is no serial line ({source})", path = path.display())]
    NoLine {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not there, or not ours.
    #[error("cannot open {path} ({source})", path = path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It does not run at that speed.
    #[error("{path} does not run at {baud} baud ({source})", path = path.display())]
    Speed {
        /// Which.
        path: PathBuf,
        /// Bits a second.
        baud: u32,
        /// What the system says.
        source: io::Error,
    },
}

/// Opens a tty, without echo and without changes to what goes over it. It does not block.
///
/// # Errors
/// It is none, or cannot be opened.
pub fn open(path: &Path, baud: u32) -> Result<File, TtyError> {
    let no_line = |source: rustix::io::Errno| TtyError::NoLine { path: path.to_owned(), source: source.into() };
    let flags = (OFlags::NOCTTY | OFlags::NONBLOCK).bits();
    let tty = OpenOptions::new().read(true).write(true).custom_flags(flags.cast_signed()).open(path);
    let tty = tty.map_err(|source| TtyError::Open { path: path.to_owned(), source })?;
    let mut mode = tcgetattr(&tty).map_err(no_line)?;
    mode.make_raw();
    // Eight bits, one stop bit, no flow control, and no modem whose carrier is waited for.
    mode.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
    mode.control_modes &= !(ControlModes::CSTOPB | ControlModes::CRTSCTS);
    let speed = mode.set_speed(baud);
    speed.map_err(|source| TtyError::Speed { path: path.to_owned(), baud, source: source.into() })?;
    tcsetattr(&tty, OptionalActions::Flush, &mode).map_err(no_line)?;
    Ok(tty)
}

/// Whether the line is ready in time: to be read, or to be written to.
///
/// # Errors
/// It is gone.
pub fn wait(tty: &File, flags: PollFlags, time: Duration) -> io::Result<bool> {
    let time = Timespec::try_from(time).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
    match poll(&mut [PollFd::new(tty, flags)], Some(&time)) {
        Ok(n) => Ok(n > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Writes all of `bytes`.
///
/// # Errors
/// The line is gone, or takes nothing.
pub fn write_all(mut tty: &File, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match tty.write(rest) {
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                if !wait(tty, PollFlags::OUT, STUCK)? {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
