//! Which classic devices there are, as the cloud pushed them, and how often each was heard.

use std::collections::HashMap;

use fivefold_core::id::Sid;
use fivefold_core::time::Millis;
use fivefold_core::wire::state::State;
use fivefold_waspmote::hardened::Window;
use fivefold_waspmote::{ClassicKey, Serial};

use super::hardened::Hardened;
use crate::gateway::output::HardenedName;

/// Milliseconds in which an unknown serial is reported once.
const STRANGER_PAUSE: u64 = 600_000;
/// Frames of unknown serials that are reported in a minute.
const STRANGERS_A_MINUTE: u16 = 60;
const MINUTE: u64 = 60_000;

/// A classic device.
pub(in super::super) struct Classic {
    /// As it is written.
    pub(super) serial: Box<str>,
    /// Its short id.
    pub(super) sid: Sid,
    /// What opens its frames for the gateway.
    pub(super) key: Option<ClassicKey>,
    /// Its keys of the hardened profile.
    pub(super) hardened: Vec<Hardened>,
    /// Whether it is hardened, as the operator says.
    pub(super) is_hardened: bool,
    minute: u64,
    frames: u16,
    /// In which minute, and how many key messages of it were passed on.
    key_messages: (u64, u16),
}

impl Classic {
    /// Counts a frame against the rate; `false` above `limit` in this minute.
    pub(super) fn admits(&mut self, now: Millis, limit: u16) -> bool {
        if self.minute != now.0 / MINUTE {
            (self.minute, self.frames) = (now.0 / MINUTE, 0);
        }
        self.frames = self.frames.saturating_add(1);
        self.frames <= limit
    }

    /// Counts a key message against its rate; `false` above `limit` in this minute.
    pub(super) fn admits_key_message(&mut self, now: Millis, limit: u16) -> bool {
        if self.key_messages.0 != now.0 / MINUTE {
            self.key_messages = (now.0 / MINUTE, 0);
        }
        self.key_messages.1 = self.key_messages.1.saturating_add(1);
        self.key_messages.1 <= limit
    }
}

/// All of them.
#[derive(Default)]
pub(in super::super) struct Roll {
    devices: Vec<Classic>,
    by_serial: HashMap<Serial, usize>,
    by_dev_eui: HashMap<[u8; 8], usize>,
    /// What the store has of keys of the hardened profile.
    restored: HashMap<HardenedName, Window>,
    /// Unknown ones that were reported, and when.
    strangers: HashMap<Box<str>, Millis>,
    /// In which minute, and how many.
    reported: (u64, u16),
}

impl Roll {
    /// With what the store has from before.
    pub(in super::super) fn new(windows: impl IntoIterator<Item = (HardenedName, Window)>) -> Self {
        Self { restored: windows.into_iter().collect(), ..Self::default() }
    }

    /// How many.
    pub(in super::super) fn len(&self) -> usize {
        self.devices.len()
    }

    /// Takes those of a state in place of the ones before.
    pub(in super::super) fn apply(&mut self, parts: &[State<'_>]) {
        let mut old: HashMap<Box<str>, Classic> = self.devices.drain(..).map(|d| (d.serial.clone(), d)).collect();
        let marked = old.values().flat_map(|d| &d.hardened).map(|h| (h.name, h.window));
        self.restored.extend(marked);
        self.by_serial.clear();
        self.by_dev_eui.clear();
        for c in parts.iter().flat_map(|p| p.classic.iter()) {
            let rates = old.remove(c.serial).map(|d| (d.minute, d.frames, d.key_messages));
            let (minute, frames, key_messages) = rates.unwrap_or_default();
            let at = self.devices.len();
            self.devices.push(Classic {
                serial: c.serial.into(),
                sid: c.sid,
                key: c.key.and_then(|key| ClassicKey::from_bytes(key).ok()),
                hardened: Hardened::of(&c, |name| self.restored.get(&name).copied()),
                is_hardened: c.flags.hardened,
                minute,
                frames,
                key_messages,
            });
            if let Ok(serial) = c.serial.parse() {
                self.by_serial.insert(serial, at);
            }
            if let Some(eui) = c.dev_eui {
                self.by_dev_eui.insert(eui, at);
            }
            self.strangers.remove(c.serial);
        }
    }

    /// Whether a short id is that of a classic device.
    pub(in super::super) fn contains(&self, sid: Sid) -> bool {
        // By sid as the state has them, each part in order: parts are few, and so are they.
        self.devices.binary_search_by_key(&sid, |d| d.sid).is_ok()
    }

    /// The one with this serial; of v12, also with its bytes in the other order.
    pub(super) fn find(&self, serial: Serial) -> Option<usize> {
        self.by_serial.get(&serial).or_else(|| self.by_serial.get(&serial.reversed())).copied()
    }

    /// Whether the key of a v15 device of that epoch is here.
    pub(super) fn has_hardened(&self, serial: &[u8; 8], epoch: u32) -> bool {
        let device = self.find(Serial::V15(*serial)).and_then(|at| self.device(at));
        device.is_some_and(|device| device.hardened.iter().any(|h| h.is_of(epoch)))
    }

    /// The one with this DevEUI.
    pub(super) fn by_dev_eui(&self, eui: [u8; 8]) -> Option<usize> {
        self.by_dev_eui.get(&eui).copied()
    }

    pub(super) fn device(&self, at: usize) -> Option<&Classic> {
        self.devices.get(at)
    }

    pub(super) fn device_mut(&mut self, at: usize) -> Option<&mut Classic> {
        self.devices.get_mut(at)
    }

    /// Whether a frame of this stranger is to be reported.
    pub(super) fn admits_stranger(&mut self, now: Millis, name: &str) -> bool {
        if self.reported.0 != now.0 / MINUTE {
            self.reported = (now.0 / MINUTE, 0);
        }
        let again = self.strangers.get(name).is_some_and(|at| now.since(*at) < STRANGER_PAUSE);
        if again || self.reported.1 >= STRANGERS_A_MINUTE {
            return false;
        }
        self.reported.1 += 1;
        self.strangers.insert(name.into(), now);
        true
    }

    /// Forgets strangers that may be reported again.
    pub(in super::super) fn expire(&mut self, now: Millis) {
        self.strangers.retain(|_, at| now.since(*at) < STRANGER_PAUSE);
    }
}
