//! What is entered in the operator's book of what a Meshlium knew: its nodes, with their keys, and the sensors of its users.

use std::collections::{BTreeMap, BTreeSet};

use fivefold_cloud::store::{ImportNote, ImportedNode};
use fivefold_waspmote::{ClassicKey, KeyBits, KeyRefused, Kind, Sensor, Sensors, Serial, Table, Weak};
use zeroize::Zeroizing;

use super::dump::Row;
use super::rows::{Fate, Key, Listed, Meaning, Note, Part, Terms, meaning, shown};

/// Rows of keys, sensors and logins that are looked at, each.
const MOST: usize = 100_000;

/// How the book is made up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'w> {
    /// The operator's words for keys that anybody can guess; without them they are not taken.
    pub(crate) words: Option<&'w str>,
    /// Size of all keys; `None`: the smallest that its text fits in.
    pub(crate) bits: Option<KeyBits>,
    /// Of a serial that has fewer rows nobody knows whether there is such a node.
    pub(crate) least_rows: u64,
}

/// What one walk found.
#[derive(Default)]
pub(crate) struct Book {
    keys: Vec<(u64, Key)>,
    listed: Vec<(u64, Listed)>,
    notes: Vec<Note>,
}

/// A device to enter.
pub(crate) struct Found {
    /// Its serial.
    pub(crate) serial: Serial,
    /// The node id that it uses most; `None` if it is none.
    pub(crate) node_id: Option<String>,
    /// Its sensors, where they are not those of its hardware.
    pub(crate) table: Option<Table>,
    /// Its key for the gateway.
    pub(crate) key: Option<GatewayKey>,
}

/// A key as it was typed into a Meshlium.
pub(crate) struct GatewayKey {
    /// The text, which is not longer than the key.
    pub(crate) text: Zeroizing<Vec<u8>>,
    /// Size of the key.
    pub(crate) bits: KeyBits,
}

/// A book that was made up.
pub(crate) struct Settled {
    /// Devices, by serial.
    pub(crate) devices: Vec<Found>,
    /// Sensors that no node's own table has.
    pub(crate) sensors: Vec<Sensor>,
    /// What is to be said.
    pub(crate) notes: Vec<Note>,
}

impl Book {
    /// Takes what belongs in the book.
    pub(crate) fn take(&mut self, row: &Row<'_>, terms: &Terms) {
        let (line, id) = (row.line, row.value("id").and_then(id_of));
        match meaning(row, Part::Book, terms) {
            Meaning::Key(key) if self.keys.len() < MOST => self.keys.push((line, key)),
            Meaning::Listed(listed) if self.listed.len() < MOST => self.listed.push((line, listed)),
            Meaning::Account if self.notes.len() < MOST => {
                let text = "logins, tokens and their hashes are not taken: people get a token of their own here";
                self.note(line, row.table, id, "account", Fate::Left, text.to_owned());
            }
            Meaning::Refused(note) if self.notes.len() < MOST => self.notes.push(note),
            _ => {}
        }
    }

    fn note(&mut self, line: u64, table: &str, row: Option<i64>, reason: &'static str, fate: Fate, text: String) {
        self.notes.push(Note { line, table: table.to_owned(), row, reason, fate, text });
    }

    /// Makes the book up, for nodes that were seen in the history.
    pub(crate) fn settle(mut self, seen: &[ImportedNode], rules: Rules<'_>) -> Settled {
        let mut nodes: BTreeMap<Serial, Vec<&ImportedNode>> = BTreeMap::new();
        for node in seen {
            if let Ok(serial) = node.serial.parse() {
                nodes.entry(serial).or_default().push(node);
            }
        }
        let mut devices = Vec::new();
        let mut by_name: BTreeMap<&str, BTreeSet<Serial>> = BTreeMap::new();
        for (serial, names) in &nodes {
            if let Some(found) = self.device(*serial, names, rules) {
                devices.push(found);
            }
            names.iter().for_each(|n| {
                by_name.entry(n.node_id.as_str()).or_default().insert(*serial);
            });
            let reversed = serial.reversed();
            if reversed > *serial && nodes.contains_key(&reversed) {
                let text = format!(
                    "{serial} and {reversed} are the same bytes the other way round: one node may have sent both (W4)"
                );
                self.note(0, "sensorParser", None, "serial-reversed", Fate::Taken, text);
            }
        }
        for (name, serials) in by_name.iter().filter(|(name, serials)| serials.len() > 1 && !name.is_empty()) {
            let all: Vec<_> = serials.iter().take(4).map(Serial::to_string).collect();
            let text = format!("node id {} is used by {} serials: {}", shown(name), serials.len(), all.join(", "));
            self.note(0, "sensorParser", None, "node-id-shared", Fate::Taken, text);
        }
        for (line, key) in std::mem::take(&mut self.keys) {
            self.key(line, key, &by_name, &mut devices, rules);
        }
        let sensors = self.sensors();
        self.notes.sort_by_key(|n| n.line);
        Settled { devices, sensors, notes: self.notes }
    }

    fn device(&mut self, serial: Serial, names: &[&ImportedNode], rules: Rules<'_>) -> Option<Found> {
        let rows: u64 = names.iter().map(|n| n.rows).sum();
        let most = names.iter().max_by_key(|n| n.rows)?;
        let row = names.iter().map(|n| n.first).min();
        if rows < rules.least_rows {
            let text = format!(
                "serial {serial} has {rows} row{}: anybody could have posted that (W16.7); if you know it, type: fivefold \
                 device add --classic {serial}",
                if rows == 1 { "" } else { "s" }
            );
            self.note(0, "sensorParser", row, "seen-too-little", Fate::Refused, text);
            return None;
        }
        if names.len() > 1 {
            let text = format!(
                "serial {serial} was seen under {} node ids; it is entered as {}, which it used most",
                names.len(),
                shown(&most.node_id)
            );
            self.note(0, "sensorParser", row, "serial-two-names", Fate::Taken, text);
        }
        let is_name = |id: &str| id.len() <= 16 && id.bytes().all(|b| (0x21..0x7F).contains(&b) && b != b'#');
        if !is_name(&most.node_id) {
            let text = format!("{} of serial {serial} is no node id: it is entered without one", shown(&most.node_id));
            self.note(0, "sensorParser", row, "node-id", Fate::Taken, text);
        }
        let table = if most.has_water {
            Some(Table::Water)
        } else if most.has_agriculture {
            Some(Table::Agriculture)
        } else {
            None
        };
        let node_id = Some(most.node_id.clone()).filter(|id| !id.is_empty() && is_name(id));
        Some(Found { serial, node_id, table, key: None })
    }

    fn key(
        &mut self,
        line: u64,
        key: Key,
        by_name: &BTreeMap<&str, BTreeSet<Serial>>,
        devices: &mut [Found],
        rules: Rules<'_>,
    ) {
        let Key { row, node, text, rsa_bits } = key;
        let mut say = |reason, fate, text: String| self.note(line, "encryptionData", row, reason, fate, text);
        if rsa_bits > 0 {
            let text = format!("an RSA key of {rsa_bits} bits is not taken: raw RSA proves and hides nothing (W16.10)");
            say("rsa", Fate::Left, text);
        }
        let Some(text) = text else { return };
        let serial = match (node.parse::<Serial>(), by_name.get(node.as_str())) {
            (_, Some(serials)) if serials.len() > 1 => {
                let text =
                    format!("node id {} is used by {} serials: give each its key by hand", shown(&node), serials.len());
                return say("key-ambiguous", Fate::Refused, text);
            }
            (_, Some(serials)) => serials.first().copied(),
            (Ok(serial), None) => Some(serial),
            (Err(_), None) => None,
        };
        let device = serial.and_then(|serial| devices.iter_mut().find(|d| d.serial == serial));
        let Some(device) = device else {
            let text = format!("its key is for {}, which no node that is entered is called", shown(&node));
            return say("key-unmatched", Fate::Refused, text);
        };
        let bits = rules.bits.unwrap_or(match text.len() {
            ..=16 => KeyBits::Aes128,
            17..=24 => KeyBits::Aes192,
            _ => KeyBits::Aes256,
        });
        let weakness = match ClassicKey::from_text(&text, bits) {
            Ok(key) => key.weakness(),
            Err(KeyRefused::Long { length, most }) => {
                let text = format!(
                    "the key of {} has {length} characters, and {most} fit: its node uses the zero key instead, as if it had \
                     none (W16.5)",
                    shown(&node)
                );
                return say("key-too-long", Fate::Refused, text);
            }
            Err(other) => return say(other.as_str(), Fate::Refused, format!("the key of {}: {other}", shown(&node))),
        };
        if device.key.as_ref().is_some_and(|known| *known.text != *text) {
            return say(
                "key-twice",
                Fate::Refused,
                format!("{} has another key above; that one was taken", shown(&node)),
            );
        }
        let reason = match weakness {
            None | Some(Weak::Printable) => None,
            Some(Weak::Zero) => Some("key-zero"),
            Some(Weak::Dictionary) => Some("key-dictionary"),
            Some(Weak::Short) => Some("key-short"),
        };
        if let (Some(reason), Some(why)) = (reason, weakness) {
            if rules.words.is_none() {
                let text = format!(
                    "{}: {why} (CL-13). It was not taken: give the node another one, or say --danger-weak-keys \"WORDS\"",
                    shown(&node)
                );
                return say(reason, Fate::Refused, text);
            }
            say(reason, Fate::Taken, format!("{}: {why} (CL-13): anybody can be this node", shown(&node)));
        }
        device.key = Some(GatewayKey { text, bits });
    }

    /// Sensors that a user added: those that are in no node's own table under their tag.
    fn sensors(&mut self) -> Vec<Sensor> {
        let own = [Table::Default, Table::Agriculture, Table::Water, Table::V12].map(Sensors::of);
        let mut all = Sensors::of(Table::Default);
        let mut added: Vec<Sensor> = Vec::new();
        for (line, listed) in std::mem::take(&mut self.listed) {
            if own.iter().any(|table| table.with_tag(listed.tag.as_bytes()).next().is_some()) {
                continue;
            }
            // The numbers are those of the nodes' own table of types (W4).
            let kind = match listed.kind {
                0 => Some(Kind::U8),
                1 => Some(Kind::I16),
                2 => Some(Kind::Float),
                3 => Some(Kind::Text),
                4 => Some(Kind::U32),
                _ => None,
            };
            let (id, fields) = (u8::try_from(listed.id).ok(), u8::try_from(listed.fields).ok());
            let (Some(kind), Some(id), Some(fields)) = (kind, id, fields) else {
                let text = format!(
                    "{}: id {}, type {} and {} values are no sensor",
                    shown(&listed.tag),
                    listed.id,
                    listed.kind,
                    listed.fields
                );
                self.note(line, "sensors", Some(listed.id), "sensor", Fate::Refused, text);
                continue;
            };
            let sensor = Sensor {
                id,
                tag: listed.tag.clone().into(),
                kind,
                fields,
                decimals: 2,
                unit: listed.unit.into(),
                description: listed.name.into(),
            };
            match all.add(sensor.clone()) {
                Ok(()) => added.push(sensor),
                Err(why) => {
                    let text = format!("{}: {why}", shown(&listed.tag));
                    self.note(line, "sensors", Some(listed.id), "sensor", Fate::Refused, text);
                }
            }
        }
        added
    }
}

pub(crate) fn id_of(value: &super::dump::Value) -> Option<i64> {
    match value {
        super::dump::Value::Number(digits) => digits.parse().ok(),
        super::dump::Value::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

impl From<Note> for ImportNote {
    fn from(n: Note) -> Self {
        Self {
            line: n.line,
            table: n.table,
            row: n.row,
            reason: n.reason.into(),
            fate: n.fate.as_str().into(),
            text: n.text,
        }
    }
}
