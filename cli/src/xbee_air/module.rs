//! One emulated module: its settings, and the line to its host.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use fivefold_core::id::Did;
use fivefold_gateway::xbee::kind::Kind;
use fivefold_gateway::xbee::tty;
use fivefold_waspmote::xbee::{At, Decoder, Mode, Packet};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// 16-bit address of a module that has none, as Waspmote nodes set it before they send (W10).
pub(super) const NO_ADDRESS_16: [u8; 2] = [0xFF, 0xFF];

/// A module to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its 64-bit address.
    pub mac: Did,
    /// What it speaks: modules of one kind hear each other.
    pub kind: Kind,
    /// Where its line is to be found: a link to the pseudo-terminal.
    pub link: PathBuf,
}

/// An emulated module.
pub(super) struct Module {
    pub(super) place: Place,
    line: Option<Line>,
    decoder: Decoder,
    settings: HashMap<[u8; 2], Vec<u8>>,
}

struct Line {
    master: File,
    /// Kept open, so that the other end may come and go.
    _slave: File,
}

impl Module {
    pub(super) fn new(place: Place) -> io::Result<Self> {
        let settings = HashMap::from([(At::ADDRESS_16.0, NO_ADDRESS_16.to_vec())]);
        let mut module = Self { place, line: None, decoder: Decoder::new(Mode::Escaped), settings };
        module.plug()?;
        Ok(module)
    }

    /// Makes its line, and the link to it.
    pub(super) fn plug(&mut self) -> io::Result<()> {
        self.unplug();
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = PathBuf::from(std::ffi::OsString::from_vec(ptsname(&master, Vec::new())?.into_bytes()));
        let slave = tty::open(&name, 115_200).map_err(io::Error::other)?;
        fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
        place_link(&name, &self.place.link)?;
        self.line = Some(Line { master: File::from(master), _slave: slave });
        self.decoder = Decoder::new(Mode::Escaped);
        Ok(())
    }

    /// Takes its line away, as somebody who pulls the cable.
    pub(super) fn unplug(&mut self) {
        if self.line.take().is_some() {
            let _ = fs::remove_file(&self.place.link);
        }
    }

    pub(super) fn master(&self) -> Option<&File> {
        self.line.as_ref().map(|line| &line.master)
    }

    /// What the host said since the last time.
    pub(super) fn hear(&mut self) -> Vec<Vec<u8>> {
        let Some(line) = &mut self.line else { return Vec::new() };
        let (mut bytes, mut packets) = ([0; 1024], Vec::new());
        loop {
            match line.master.read(&mut bytes) {
                Ok(0) => break,
                Ok(n) => {
                    for &byte in bytes.get(..n).unwrap_or_default() {
                        // A real module says nothing to garbage.
                        if self.decoder.push(byte) == Some(Ok(())) {
                            packets.push(self.decoder.packet().to_vec());
                        }
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        packets
    }

    /// Bytes for the host, as they are. What it does not read is lost, as in a module's buffer.
    pub(super) fn say_raw(&self, bytes: &[u8]) {
        if let Some(line) = &self.line {
            let _ = tty::write_all(&line.master, bytes);
        }
    }

    pub(super) fn say(&self, packet: &Packet<'_>) {
        if let Ok(frame) = packet.emit(Mode::Escaped) {
            self.say_raw(&frame);
        }
    }

    pub(super) fn setting(&self, at: At) -> &[u8] {
        self.settings.get(&at.0).map_or(&[], Vec::as_slice)
    }

    /// The address that its payloads bear, if it is a short one.
    pub(super) fn short(&self) -> Option<[u8; 2]> {
        let own: [u8; 2] = self.setting(At::ADDRESS_16).try_into().ok()?;
        (self.place.kind == Kind::Ieee802154 && own < [0xFF, 0xFE]).then_some(own)
    }

    /// Whether it encrypts, and by which key.
    pub(super) fn encryption(&self) -> Option<&[u8]> {
        (self.setting(At::ENCRYPTION) == [1]).then(|| self.setting(At::LINK_KEY))
    }

    /// A command of the host.
    pub(super) fn command(&mut self, id: u8, at: At, value: &[u8]) {
        let Did(mac) = self.place.mac;
        let (high, low) = mac.split_at(4);
        if !value.is_empty() {
            self.settings.insert(at.0, value.to_vec());
        }
        let answer = match at {
            At::SERIAL_HIGH => high.to_vec(),
            At::SERIAL_LOW => low.to_vec(),
            // Written, and never told.
            At::LINK_KEY => Vec::new(),
            at if value.is_empty() => self.setting(at).to_vec(),
            _ => Vec::new(),
        };
        if id != 0 {
            self.say(&Packet::AtResponse { id, at, status: 0, value: &answer });
        }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        self.unplug();
    }
}

fn place_link(name: &Path, link: &Path) -> io::Result<()> {
    match fs::remove_file(link) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    symlink(name, link)
}
