//! A word to the service manager: `sd_notify(3)` of systemd, for units of `Type=notify`. Where there is no such manager,
//! nothing is said.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Variable with the address of the manager's socket: a path, or `@` and a name without a file.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Says that the daemon listens. What fails is a warning in the log: the daemon works, whoever waits for it will say so.
pub(crate) fn ready() {
    let Some(address) = std::env::var_os(SOCKET).filter(|a| !a.is_empty()) else { return };
    if let Err(error) = send(&address, b"READY=1") {
        tracing::warn!(%error, "the service manager cannot be told that this is ready ({SOCKET})");
    }
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
}
