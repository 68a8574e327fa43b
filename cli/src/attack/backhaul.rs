//! The machine in the middle: every gateway of the demo reaches the cloud through this forwarder, which records, flips
//! bits and leads connections elsewhere on this machine when it is told to.
//!
//! It obeys lines on standard input, answers each with one line of JSON ([`Wire`]), and ends with its input:
//!
//! ```text
//! pass 0                    forward wire 0 faithfully
//! flip 0                    flip one bit in every piece of data on wire 0
//! to 0 127.0.0.1:4433       lead wire 0 elsewhere; what is open is cut
//! report 0                  change nothing
//! ```

use std::fs::File;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::door::Door;

/// One wire: where it listens and where it leads.
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    /// Where a gateway connects.
    pub bind: SocketAddr,
    /// Where the cloud listens.
    pub to: SocketAddr,
}

impl std::str::FromStr for Forward {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (bind, to) = text.split_once('=').ok_or("expected LISTEN=CLOUD, two addresses")?;
        let address = |a: &str| a.parse().map_err(|e| format!("{a}: {e}"));
        Ok(Self { bind: address(bind)?, to: address(to)? })
    }
}

/// What happened on one wire so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// Connections taken.
    pub connections: u64,
    /// Bytes seen, both ways.
    pub bytes: u64,
    /// Bits flipped.
    pub flipped: u64,
}

#[derive(Debug, Default)]
struct State {
    flip: AtomicBool,
    connections: AtomicU64,
    bytes: AtomicU64,
    flipped: AtomicU64,
    to: Mutex<Option<SocketAddr>>,
    open: Mutex<Vec<TcpStream>>,
}

impl State {
    fn report(&self) -> Wire {
        Wire {
            connections: self.connections.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            flipped: self.flipped.load(Ordering::Relaxed),
        }
    }

    fn cut(&self) {
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn lead(&self, to: SocketAddr) {
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = Some(to);
        self.cut();
    }
}

/// Where the bytes of wire `index` are recorded.
pub fn recording(folder: &Path, index: usize) -> PathBuf {
    folder.join(format!("wire-{index}.bin"))
}

/// Runs until standard input ends.
///
/// # Errors
/// An address is taken, or a recording cannot be written.
pub fn run(wires: &[Forward], folder: &Path) -> anyhow::Result<()> {
    let mut states = Vec::new();
    for (index, wire) in wires.iter().enumerate() {
        let listener = TcpListener::bind(wire.bind).with_context(|| format!("cannot listen on {}", wire.bind))?;
        let path = recording(folder, index);
        let record = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let state = Arc::new(State { to: Mutex::new(Some(wire.to)), ..State::default() });
        states.push(Arc::clone(&state));
        let record = Arc::new(Mutex::new(record));
        std::thread::spawn(move || accept(&listener, &state, &record));
    }
    for line in io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        let (verb, index) = (words.next().unwrap_or_default(), words.next().and_then(|w| w.parse::<usize>().ok()));
        let Some(state) = index.and_then(|i| states.get(i)) else {
            anyhow::bail!("`{line}` names no wire");
        };
        match verb {
            "pass" => state.flip.store(false, Ordering::Relaxed),
            "flip" => state.flip.store(true, Ordering::Relaxed),
            "to" => state.lead(words.next().unwrap_or_default().parse().context("`to` needs an address")?),
            "report" => {}
            _ => anyhow::bail!("`{verb}` is no order of a backhaul"),
        }
        println!("{}", serde_json::to_string(&state.report())?);
    }
    Ok(())
}

fn accept(listener: &TcpListener, state: &Arc<State>, record: &Arc<Mutex<File>>) {
    for gateway in listener.incoming().map_while(Result::ok) {
        let to = *state.to.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(cloud) = to.and_then(|to| Door::Loopback.connect(to).ok()) else {
            continue;
        };
        state.connections.fetch_add(1, Ordering::Relaxed);
        for (from, to) in [(&gateway, &cloud), (&cloud, &gateway)] {
            let (Ok(from), Ok(to), Ok(kept)) = (from.try_clone(), to.try_clone(), from.try_clone()) else {
                continue;
            };
            state.open.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
            let (state, record) = (Arc::clone(state), Arc::clone(record));
            std::thread::spawn(move || pump(from, to, &state, &record));
        }
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, state: &State, record: &Mutex<File>) {
    let mut buffer = [0u8; 16 * 1024];
    while let Ok(len) = from.read(&mut buffer) {
        let Some(piece) = buffer.get_mut(..len).filter(|p| !p.is_empty()) else {
            break;
        };
        state.bytes.fetch_add(len as u64, Ordering::Relaxed);
        let _ = record.lock().unwrap_or_else(PoisonError::into_inner).write_all(piece);
        if state.flip.load(Ordering::Relaxed)
            && let Some(byte) = piece.get_mut(len / 2)
        {
            *byte ^= 0x10;
            state.flipped.fetch_add(1, Ordering::Relaxed);
        }
        if to.write_all(piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wire_is_two_addresses() {
        let wire: Forward = "127.0.0.1:1=127.0.0.1:2".parse().unwrap();
        assert_eq!((wire.bind.port(), wire.to.port()), (1, 2));
        assert!("127.0.0.1:1".parse::<Forward>().is_err());
        assert!("a=b".parse::<Forward>().is_err());
    }

    #[test]
    fn a_flipping_wire_changes_what_passes_and_counts_it() {
        let cloud = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bind = listener.local_addr().unwrap();
        let state = Arc::new(State { to: Mutex::new(Some(cloud.local_addr().unwrap())), ..State::default() });
        state.flip.store(true, Ordering::Relaxed);
        let record = Arc::new(Mutex::new(tempfile::tempfile().unwrap()));
        let accepting = Arc::clone(&state);
        std::thread::spawn(move || accept(&listener, &accepting, &record));
        let mut gateway = TcpStream::connect(bind).unwrap();
        gateway.write_all(b"hello").unwrap();
        let mut got = [0; 5];
        cloud.accept().unwrap().0.read_exact(&mut got).unwrap();
        assert_ne!(&got, b"hello");
        assert_eq!((state.report().flipped, state.report().connections), (1, 1));
    }
}
