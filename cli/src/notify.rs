//! Words to the service manager: `sd_notify(3)` of systemd, for units of `Type=notify`; that the daemon lives, where it asks for that
//! (`sd_watchdog_enabled(3)`); and by the exit code whether to start it again. Where there is no such manager, nothing is said.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{self, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::output::{self, Output};

/// Exit code of a daemon whose next start would end in the same way until somebody mends what it names: a setting, a source of the
/// vault's key, a format. It is EX_CONFIG of sysexits.h, and the units do not start it again (`RestartPreventExitStatus=`).
const LASTING: u8 = 78;

/// Variable with the address of the manager's socket: a path, or `@` and a name without a file.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Says why a daemon did not start, and will not before somebody mends that.
pub(crate) fn lasts(output: Output, error: &anyhow::Error) -> ExitCode {
    output::error(output, error);
    ExitCode::from(LASTING)
}

fn manager() -> Option<OsString> {
    env::var_os(SOCKET).filter(|a| !a.is_empty())
}

/// Says that the daemon listens. What fails is a warning in the log: the daemon works, whoever waits for it will say so.
pub(crate) fn ready() {
    let Some(address) = manager() else { return };
    if let Err(error) = send(&address, b"READY=1") {
        tracing::warn!(%error, "the service manager cannot be told that this is ready ({SOCKET})");
    }
}

/// What says that the daemon lives, each time that it is called, if the manager wants to hear it.
pub(crate) fn heart() -> impl Fn() + Send + 'static {
    let is_wanted =
        is_watched(env::var("WATCHDOG_USEC").ok().as_deref(), env::var("WATCHDOG_PID").ok().as_deref(), process::id());
    let address = manager().filter(|_| is_wanted);
    let is_heard = AtomicBool::new(true);
    move || {
        let Some(address) = &address else { return };
        let sent = send(address, b"WATCHDOG=1");
        // Once, and not each second.
        if is_heard.swap(sent.is_ok(), Ordering::Relaxed)
            && let Err(error) = sent
        {
            tracing::warn!(%error, "the service manager cannot be told that this lives, and will end it ({SOCKET})");
        }
    }
}

/// Whether this process is to say that it lives. Without a PID the time is for whoever has the variables.
fn is_watched(usec: Option<&str>, pid: Option<&str>, own: u32) -> bool {
    let is_set = usec.and_then(|u| u.parse::<u64>().ok()).is_some_and(|u| u > 0);
    is_set && pid.is_none_or(|pid| pid.parse() == Ok(own))
}

fn send(address: &OsStr, words: &[u8]) -> std::io::Result<()> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(words, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_with_a_path_and_one_without_a_file_both_hear_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("fivefold-notify-test-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let by_path = UnixDatagram::bind(&path).unwrap();
        let mut heard = [0; 16];
        for (manager, address) in [(by_path, path.as_os_str()), (by_name, OsStr::new(&format!("@{name}")))] {
            send(address, b"READY=1").unwrap();
            let n = manager.recv(&mut heard).unwrap();
            assert_eq!(&heard[..n], b"READY=1");
        }
    }

    #[test]
    fn a_manager_that_is_gone_is_an_error_and_nothing_worse() {
        let folder = tempfile::tempdir().unwrap();
        assert!(send(folder.path().join("nobody").as_os_str(), b"READY=1").is_err());
        assert!(send(OsStr::new(&"long".repeat(100)), b"READY=1").is_err());
    }

    #[test]
    fn only_the_process_that_is_watched_says_that_it_lives() {
        assert!(is_watched(Some("60000000"), Some("7"), 7));
        assert!(is_watched(Some("60000000"), None, 7));
        for (usec, pid) in [
            (None, Some("7")),
            (Some("0"), Some("7")),
            (Some("a minute"), None),
            (Some("60000000"), Some("8")),
            (Some("60000000"), Some("")),
        ] {
            assert!(!is_watched(usec, pid, 7), "{usec:?} {pid:?}");
        }
    }
}
