//! Rows of MeshliumDB (W14) as what they mean, or why they are not taken.

use fivefold_waspmote::Serial;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use zeroize::Zeroizing;

use super::dump::{Row, Value};

/// Characters of what was found that a report repeats.
const SHOWN: usize = 40;
/// Characters of a sensor's tag, of a node id and of a value, at most: more than any Meshlium has room for.
const LONGEST_TAG: usize = 64;
const LONGEST_VALUE: usize = 1024;

/// What became of something that is in a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// Not taken, because it is not needed here.
    Left,
    /// Not taken, because it cannot be what it says.
    Refused,
    /// Taken, and not to be trusted.
    Taken,
}

impl Fate {
    /// One word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Refused => "refused",
            Self::Taken => "taken",
        }
    }
}

/// A line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    /// Line of the dump where the row begins; of a live database 0.
    pub(crate) line: u64,
    /// Its table.
    pub(crate) table: String,
    /// Its id there, if it has one.
    pub(crate) row: Option<i64>,
    /// A stable word (docs/migrate-from-meshlium.md lists them).
    pub(crate) reason: &'static str,
    /// What became of it.
    pub(crate) fate: Fate,
    /// A sentence.
    pub(crate) text: String,
}

/// A reading that Meshlium stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Its id there.
    pub(crate) row: i64,
    /// Who sent it, as it said.
    pub(crate) serial: Serial,
    /// Its node id.
    pub(crate) node_id: String,
    /// Type byte of its frame.
    pub(crate) frame_type: Option<u8>,
    /// Sequence of its frame.
    pub(crate) sequence: Option<u8>,
    /// Tag of the sensor.
    pub(crate) sensor: String,
    /// The value, as text.
    pub(crate) value: String,
    /// When Meshlium received it: `YYYY-MM-DD hh:mm:ss`, UTC.
    pub(crate) timestamp: String,
    /// Bits of connectors (W15).
    pub(crate) sync: i64,
    /// Whether it holds what is markup or a command somewhere else; it is kept as it is.
    pub(crate) is_markup: bool,
}

/// A frame that Meshlium kept for a cloud, unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForCloud {
    /// Its id there.
    pub(crate) row: i64,
    /// Who sent it.
    pub(crate) serial: Serial,
    /// Type byte.
    pub(crate) frame_type: u8,
    /// As Meshlium kept it.
    pub(crate) raw: String,
    /// As of a [`Reading`].
    pub(crate) timestamp: String,
    /// As of a [`Reading`].
    pub(crate) sync: i64,
}

/// A key that Meshlium opens frames with.
pub(crate) struct Key {
    /// Its id there.
    pub(crate) row: Option<i64>,
    /// Whose: a node id, or a serial.
    pub(crate) node: String,
    /// The key as it was typed; `None` if there is none. An empty text is one too: the zero key.
    pub(crate) text: Option<Zeroizing<Vec<u8>>>,
    /// Bits of the RSA modulus beside it; 0 if there is none.
    pub(crate) rsa_bits: usize,
}

/// A sensor of Meshlium's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Id in binary frames.
    pub(crate) id: i64,
    /// Its tag.
    pub(crate) tag: String,
    /// Its name.
    pub(crate) name: String,
    /// Its unit.
    pub(crate) unit: String,
    /// Number of the type of its values.
    pub(crate) kind: i64,
    /// How many values a field has.
    pub(crate) fields: i64,
}

/// What a row is.
pub(crate) enum Meaning {
    /// A row of `sensorParser`.
    Reading(Reading),
    /// A row of `sensorCloud`.
    ForCloud(ForCloud),
    /// A row of `encryptionData`.
    Key(Key),
    /// A row of `sensors`.
    Listed(Listed),
    /// A login or a token: its table says which.
    Account,
    /// Of no interest here.
    Other,
    /// It cannot be taken.
    Refused(Note),
}

/// Which rows are looked at; the others are [`Meaning::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Keys, sensors, logins.
    Book,
    /// Readings and frames.
    History,
}

/// In which terms a dump is to be read.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// The zone of its times.
    pub(crate) zone: TimeZone,
    /// Whether its texts are Latin-1 as a whole, and not UTF-8.
    pub(crate) is_latin1: bool,
}

/// What a row is.
pub(crate) fn meaning(row: &Row<'_>, part: Part, terms: &Terms) -> Meaning {
    let reader = Reader { row, terms };
    // Those are the server's own.
    if ["mysql", "information_schema", "performance_schema", "sys"].contains(&row.database) {
        return Meaning::Other;
    }
    let read = match (row.table, part) {
        ("sensorParser", Part::History) => reader.reading().map(Meaning::Reading),
        ("sensorCloud", Part::History) => reader.for_cloud().map(Meaning::ForCloud),
        ("encryptionData", Part::Book) => reader.key().map(Meaning::Key),
        ("sensors", Part::Book) => reader.listed().map(Meaning::Listed),
        ("users" | "login" | "tokens", Part::Book) => return Meaning::Account,
        _ => return Meaning::Other,
    };
    read.unwrap_or_else(Meaning::Refused)
}

/// What was found, for a report: short, and nothing in it that a terminal obeys.
pub(crate) fn shown(text: &str) -> String {
    let plain: String = text.chars().take(SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect();
    let more = if text.chars().count() > SHOWN { "..." } else { "" };
    format!("`{plain}{more}`")
}

/// Text in Windows-1252, which is what MySQL calls latin1.
fn latin1(bytes: &[u8]) -> String {
    const HIGH: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8D}', 'Ž', '\u{8F}', '\u{90}', '‘',
        '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9D}', 'ž', 'Ÿ',
    ];
    bytes.iter().map(|&b| HIGH.get(usize::from(b.wrapping_sub(0x80))).copied().unwrap_or(char::from(b))).collect()
}

struct Reader<'r, 'd> {
    row: &'r Row<'d>,
    terms: &'r Terms,
}

type Read<T> = Result<T, Note>;

impl Reader<'_, '_> {
    fn refuse(&self, reason: &'static str, text: String) -> Note {
        let row = self.integer("id").ok();
        Note { line: self.row.line, table: self.row.table.to_owned(), row, reason, fate: Fate::Refused, text }
    }

    /// Text of a column; empty where it is NULL or not there.
    fn text(&self, column: &str) -> Read<String> {
        match self.row.value(column) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::Number(digits)) => Ok(digits.clone()),
            Some(Value::Text(bytes)) => Ok(match std::str::from_utf8(bytes) {
                Ok(text) if !self.terms.is_latin1 => text.to_owned(),
                _ => latin1(bytes),
            }),
            Some(Value::Long(n)) => Err(self.refuse("too-long", format!("{column} has {n} bytes"))),
            Some(Value::Expression) => {
                Err(self.refuse("expression", format!("{column} is an expression, and nothing is computed here")))
            }
        }
    }

    fn short(&self, column: &str, most: usize) -> Read<String> {
        let text = self.text(column)?;
        let n = text.chars().count();
        if n > most {
            return Err(self.refuse("too-long", format!("{column} has {n} characters: {}", shown(&text))));
        }
        Ok(text)
    }

    /// `None` where it is NULL or not there, as text if it is no integer.
    fn number(&self, column: &str) -> Result<Option<i64>, String> {
        let text = match self.row.value(column) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Number(digits)) => digits.clone(),
            Some(Value::Text(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            Some(Value::Long(_) | Value::Expression) => return Err("?".into()),
        };
        text.trim().parse().map(Some).map_err(|_| text)
    }

    fn integer(&self, column: &str) -> Result<i64, String> {
        self.number(column)?.ok_or_else(String::new)
    }

    fn id(&self) -> Read<i64> {
        self.integer("id").map_err(|found| {
            self.refuse("no-id", format!("id {} is no number: it could not be told from others", shown(&found)))
        })
    }

    fn serial(&self, column: &str) -> Read<Serial> {
        let text = self.text(column)?;
        let text = text.trim();
        if text.is_empty() {
            return Err(self.refuse("no-serial", format!("{column} is empty: it is not known who sent it")));
        }
        let serial: Serial =
            text.parse().map_err(|e| self.refuse("serial", format!("{column} {}: {e}", shown(text))))?;
        if serial.is_zero() {
            return Err(
                self.refuse("serial-zero", format!("{column} is zero: what a node sends that cannot read its own"))
            );
        }
        Ok(serial)
    }

    fn node_id(&self) -> Read<String> {
        self.short("id_wasp", LONGEST_TAG)
    }

    fn byte(&self, column: &str) -> Read<Option<u8>> {
        let reason = if column == "frame_type" { "frame-type" } else { "sequence" };
        match self.number(column) {
            Ok(None) => Ok(None),
            Ok(Some(n)) if (0..=255).contains(&n) => Ok(u8::try_from(n).ok()),
            Ok(Some(n)) => Err(self.refuse(reason, format!("{column} {n} is not one byte"))),
            Err(found) => Err(self.refuse(reason, format!("{column} {} is no number", shown(&found)))),
        }
    }

    fn timestamp(&self) -> Read<String> {
        let text = self.text("timestamp")?;
        let refuse = || self.refuse("time", format!("timestamp {} is no time", shown(&text)));
        // MySQL 4.0 wrote them without separators.
        let digits = (text.len() == 14 && text.bytes().all(|b| b.is_ascii_digit())).then(|| {
            let at = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
            format!("{}-{}-{} {}:{}:{}", at(0, 4), at(4, 6), at(6, 8), at(8, 10), at(10, 12), at(12, 14))
        });
        let local: DateTime = digits.as_deref().unwrap_or(&text).parse().map_err(|_| refuse())?;
        let utc = self.terms.zone.to_timestamp(local).map_err(|_| refuse())?;
        let utc = TimeZone::UTC.to_datetime(utc);
        if utc.year() < 2000 {
            return Err(refuse());
        }
        Ok(utc.strftime("%Y-%m-%d %H:%M:%S").to_string())
    }

    fn sync(&self) -> i64 {
        self.integer("sync").unwrap_or(0)
    }

    fn reading(&self) -> Read<Reading> {
        let (row, serial, node_id) = (self.id()?, self.serial("id_secret")?, self.node_id()?);
        let frame_type = self.byte("frame_type")?;
        if let Some(kind) = frame_type.filter(|kind| !carries_readings(*kind)) {
            return Err(self.refuse("frame-type", format!("a frame of type {kind} (0x{kind:02X}) carries no readings")));
        }
        let sequence = self.byte("frame_number")?;
        let sensor = self.short("sensor", LONGEST_TAG)?;
        if sensor.is_empty() {
            return Err(self.refuse("sensor", "it names no sensor".into()));
        }
        if matches!(self.row.value("value"), None | Some(Value::Null)) {
            return Err(self.refuse("no-value", format!("{} has no value", shown(&sensor))));
        }
        let value = self.short("value", LONGEST_VALUE)?;
        let timestamp = self.timestamp()?;
        let is_markup = [&node_id, &sensor, &value].into_iter().any(|text| is_markup(text));
        Ok(Reading {
            row,
            serial,
            node_id,
            frame_type,
            sequence,
            sensor,
            value,
            timestamp,
            sync: self.sync(),
            is_markup,
        })
    }

    fn for_cloud(&self) -> Read<ForCloud> {
        let (row, serial) = (self.id()?, self.serial("id_node")?);
        let frame_type = self.byte("frame_type")?.unwrap_or(0);
        if !(0x64..=0x67).contains(&frame_type) && frame_type != 0x69 {
            return Err(self.refuse(
                "frame-type",
                format!("a frame of type {frame_type} (0x{frame_type:02X}) is none for a cloud"),
            ));
        }
        let raw = self.short("raw", LONGEST_VALUE)?;
        if raw.is_empty() || raw == "noraw" {
            return Err(self.refuse("no-frame", "the frame itself was not kept".into()));
        }
        Ok(ForCloud { row, serial, frame_type, raw, timestamp: self.timestamp()?, sync: self.sync() })
    }

    fn key(&self) -> Read<Key> {
        let text = match self.row.value("private_aes") {
            Some(Value::Text(bytes)) => Some(Zeroizing::new(bytes.clone())),
            Some(Value::Number(digits)) => Some(Zeroizing::new(digits.clone().into_bytes())),
            Some(Value::Long(n)) => return Err(self.refuse("key-too-long", format!("the key of {n} bytes is none"))),
            Some(Value::Expression) => return Err(self.refuse("expression", "the key is an expression".into())),
            None | Some(Value::Null) => None,
        };
        let node = self.short("waspmote_id", 2 * LONGEST_TAG)?.trim().to_owned();
        let digits = self.text("modulus_rsa").or_else(|_| self.text("public_rsa"))?;
        let rsa = if digits.is_empty() { self.text("public_rsa")? } else { digits };
        let rsa_bits = rsa.chars().filter(char::is_ascii_hexdigit).count() * 4;
        Ok(Key { row: self.integer("id").ok(), node, text, rsa_bits })
    }

    fn listed(&self) -> Read<Listed> {
        let number = |column: &str| {
            self.integer(column)
                .map_err(|found| self.refuse("sensor", format!("{column} {} is no number", shown(&found))))
        };
        Ok(Listed {
            id: number("id")?,
            tag: self.short("id_ascii", LONGEST_TAG)?.trim().to_owned(),
            name: self.short("name", LONGEST_TAG)?,
            unit: self.short("units", LONGEST_TAG)?,
            kind: number("value")?,
            // The early shape has no such column.
            fields: self.number("fields").ok().flatten().unwrap_or(1),
        })
    }
}

/// Types of W2 whose frames have fields: information, events and the like, and encrypted ones that Meshlium opened.
const fn carries_readings(kind: u8) -> bool {
    matches!(kind & 0x7F, 0..=8) || matches!(kind, 0x60..=0x63)
}

/// Whether a text is something else than data to SQL, HTML, a shell or a terminal.
fn is_markup(text: &str) -> bool {
    text.chars().any(|c| c.is_control() || matches!(c, '<' | '>' | '\'' | '"' | '`' | '\\' | '|' | '$'))
        || text.contains("--")
        || text.contains("/*")
}
