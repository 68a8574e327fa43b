//! What the ids and tags of fields mean (W4): the nodes' own tables, and the sensors that a user adds to one.

mod tables;

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::kind::FrameType;
use crate::serial::Generation;

/// How one value of a sensor is written in a binary frame. Numbers are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 1 byte, unsigned.
    U8,
    /// 2 bytes, signed.
    I16,
    /// 2 bytes, unsigned.
    U16,
    /// 4 bytes, IEEE 754.
    Float,
    /// A length byte and that many bytes; always one value.
    Text,
    /// 4 bytes, unsigned.
    U32,
}

impl Kind {
    /// Bytes of one value; `None` where each says its own length.
    pub const fn width(self) -> Option<usize> {
        match self {
            Self::U8 => Some(1),
            Self::I16 | Self::U16 => Some(2),
            Self::Float | Self::U32 => Some(4),
            Self::Text => None,
        }
    }

    /// As the JSON of the tables and a user's file spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::U8 => "uint8",
            Self::I16 => "int16",
            Self::U16 => "uint16",
            Self::Float => "float32",
            Self::Text => "string",
            Self::U32 => "uint32",
        }
    }

    /// Of the word that [`as_str`](Self::as_str) gives.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::U8, Self::I16, Self::U16, Self::Float, Self::Text, Self::U32].into_iter().find(|k| k.as_str() == word)
    }
}

/// One row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sensor {
    /// Id in binary frames.
    pub id: u8,
    /// Tag in ASCII frames.
    pub tag: Cow<'static, str>,
    /// How a value is written.
    pub kind: Kind,
    /// Values of one field.
    pub fields: u8,
    /// Decimals of a float in ASCII frames.
    pub decimals: u8,
    /// Unit, or nothing where the node's code does not say.
    pub unit: Cow<'static, str>,
    /// What is measured, for people.
    pub description: Cow<'static, str>,
}

const fn row(
    id: u8,
    tag: &'static str,
    kind: Kind,
    fields: u8,
    decimals: u8,
    unit: &'static str,
    description: &'static str,
) -> Sensor {
    Sensor {
        id,
        tag: Cow::Borrowed(tag),
        kind,
        fields,
        decimals,
        unit: Cow::Borrowed(unit),
        description: Cow::Borrowed(description),
    }
}

/// A table as its generated file holds it.
struct Rows {
    rows: &'static [Sensor],
    /// Place in `rows`, or 0xFFFF.
    by_id: [u16; 256],
    /// Places in `rows`, by tag and then id.
    by_tag: &'static [u16],
}

/// Which table of the nodes' own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// v15, all types but 7 and 8.
    Default,
    /// Smart Agriculture Xtreme, type 7.
    Agriculture,
    /// Smart Water Xtreme, type 8.
    Water,
    /// v12.
    V12,
}

impl Table {
    /// The table of a frame (W2): by its type, and of types 1 to 5 by who sent it.
    pub const fn of(kind: FrameType, generation: Generation) -> Self {
        match (kind, generation) {
            (FrameType::AgricultureXtreme, _) => Self::Agriculture,
            (FrameType::WaterXtreme, _) => Self::Water,
            (_, Generation::V12) => Self::V12,
            (_, Generation::V15) => Self::Default,
        }
    }

    /// `default`, `agriculture`, `water` or `v12`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Agriculture => "agriculture",
            Self::Water => "water",
            Self::V12 => "v12",
        }
    }

    /// Of the word that [`as_str`](Self::as_str) gives.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Default, Self::Agriculture, Self::Water, Self::V12].into_iter().find(|t| t.as_str() == word)
    }

    fn rows(self) -> &'static Rows {
        match self {
            Self::Default => &tables::DEFAULT,
            Self::Agriculture => &tables::AGRICULTURE,
            Self::Water => &tables::WATER,
            Self::V12 => &tables::V12,
        }
    }
}

/// A table, and the sensors that a user added to it.
#[derive(Clone, Debug)]
pub struct Sensors {
    table: Table,
    own: Vec<Sensor>,
}

impl Sensors {
    /// A table as the nodes have it.
    pub const fn of(table: Table) -> Self {
        Self { table, own: Vec::new() }
    }

    /// Which table.
    pub const fn table(&self) -> Table {
        self.table
    }

    /// Adds a sensor of the user's own.
    ///
    /// # Errors
    /// Why it cannot be one: id or tag taken, a tag that an ASCII frame cannot carry, no values.
    pub fn add(&mut self, sensor: Sensor) -> Result<(), SensorRefused> {
        if let Some(holder) = self.by_id(sensor.id) {
            return Err(SensorRefused::IdTaken { id: sensor.id, tag: holder.tag.clone().into_owned() });
        }
        let tag = sensor.tag.as_bytes();
        if tag.is_empty() || tag.len() > 16 || !tag.iter().all(|c| c.is_ascii_graphic() && !b"#:".contains(c)) {
            return Err(SensorRefused::Tag);
        }
        if self.with_tag(tag).next().is_some() {
            return Err(SensorRefused::TagTaken);
        }
        if sensor.fields == 0 || (sensor.kind == Kind::Text && sensor.fields != 1) {
            return Err(SensorRefused::Fields);
        }
        self.own.push(sensor);
        Ok(())
    }

    /// The sensor with this id.
    #[inline]
    pub fn by_id(&self, id: u8) -> Option<&Sensor> {
        let rows = self.table.rows();
        let place = rows.by_id.get(usize::from(id)).copied()?;
        rows.rows.get(usize::from(place)).or_else(|| self.own.iter().find(|sensor| sensor.id == id))
    }

    /// The sensors with this tag: one, or two where the node's table uses it twice (`TC7_A` to `TC7_D` of agriculture).
    pub fn with_tag(&self, tag: &[u8]) -> impl Iterator<Item = &Sensor> {
        let rows = self.table.rows();
        let at = |place: &u16| rows.rows.get(usize::from(*place));
        let start = rows.by_tag.partition_point(|place| at(place).is_some_and(|s| s.tag.as_bytes() < tag));
        let named = rows.by_tag.get(start..).unwrap_or_default().iter().filter_map(at);
        named
            .take_while(move |sensor| sensor.tag.as_bytes() == tag)
            .chain(self.own.iter().filter(move |sensor| sensor.tag.as_bytes() == tag))
    }

    /// All of them: those of the table by id, then the user's own.
    pub fn iter(&self) -> impl Iterator<Item = &Sensor> {
        self.table.rows().rows.iter().chain(&self.own)
    }
}

/// Why a sensor cannot be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SensorRefused {
    /// Another sensor has the id.
    IdTaken {
        /// The id.
        id: u8,
        /// Tag of who has it.
        tag: String,
    },
    /// Another sensor has the tag.
    TagTaken,
    /// No tag that an ASCII frame can carry.
    Tag,
    /// No values, or several strings.
    Fields,
}

impl fmt::Display for SensorRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IdTaken { id, tag } => write!(f, "id {id} is {tag} already"),
            Self::TagTaken => f.write_str("another sensor has this tag"),
            Self::Tag => f.write_str("a tag has 1 to 16 visible ASCII characters, none of them # or :"),
            Self::Fields => f.write_str("a field has at least one value, and of strings exactly one"),
        }
    }
}

impl core::error::Error for SensorRefused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_id_and_its_tag() {
        for table in [Table::Default, Table::Agriculture, Table::Water, Table::V12] {
            let sensors = Sensors::of(table);
            assert!(sensors.iter().count() > 150);
            for sensor in sensors.iter() {
                assert_eq!(sensors.by_id(sensor.id), Some(sensor));
                assert!(sensors.with_tag(sensor.tag.as_bytes()).any(|found| found == sensor));
            }
        }
        assert_eq!(Sensors::of(Table::Default).by_id(12).unwrap().tag, "NO");
        assert_eq!(Sensors::of(Table::V12).by_id(12).unwrap().tag, "TCA");
        assert_eq!(Sensors::of(Table::Agriculture).with_tag(b"TC7_A").count(), 2);
    }

    #[test]
    fn a_sensor_of_ones_own_takes_a_free_id_and_a_free_tag() {
        let mut sensors = Sensors::of(Table::Default);
        let own = |id, tag: &'static str| row(id, tag, Kind::Float, 1, 2, "mm", "Snow");
        assert_eq!(sensors.add(own(22, "SNOW")), Ok(()));
        assert_eq!(sensors.by_id(22).unwrap().tag, "SNOW");
        assert_eq!(sensors.with_tag(b"SNOW").count(), 1);
        assert!(matches!(sensors.add(own(22, "ICE")), Err(SensorRefused::IdTaken { id: 22, .. })));
        assert!(matches!(sensors.add(own(52, "ICE")), Err(SensorRefused::IdTaken { id: 52, .. })));
        assert_eq!(sensors.add(own(23, "SNOW")), Err(SensorRefused::TagTaken));
        assert_eq!(sensors.add(own(23, "BAT")), Err(SensorRefused::TagTaken));
        assert_eq!(sensors.add(own(23, "A#B")), Err(SensorRefused::Tag));
        assert_eq!(sensors.add(Sensor { fields: 0, ..own(23, "ICE") }), Err(SensorRefused::Fields));
    }
}
