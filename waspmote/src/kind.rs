//! Frame types (W2).

use crate::serial::Generation;

/// How the fields of a frame are written: bit 7 of the type byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// `TAG:value#`, bit set.
    Ascii,
    /// Sensor id and value, bit clear.
    Binary,
}

impl Encoding {
    /// `ascii` or `binary`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ascii => "ascii",
            Self::Binary => "binary",
        }
    }

    pub(crate) const fn of(type_byte: u8) -> Self {
        if type_byte & 0x80 == 0 { Self::Binary } else { Self::Ascii }
    }
}

/// Type of a frame in clear: the low 7 bits of the type byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameType {
    /// Readings, v12.
    InformationV12 = 0,
    /// A timer of the sketch.
    Timeout = 1,
    /// Something happened.
    Event = 2,
    /// A threshold was passed.
    Alarm = 3,
    /// Service 1: keep-alive.
    KeepAlive = 4,
    /// Service 2: low battery.
    LowBattery = 5,
    /// Readings, v15.
    InformationV15 = 6,
    /// Readings of Smart Agriculture Xtreme, with a table of its own.
    AgricultureXtreme = 7,
    /// Readings of Smart Water Xtreme, with a table of its own.
    WaterXtreme = 8,
}

impl FrameType {
    /// Of the low 7 bits of a type byte.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::InformationV12,
            1 => Self::Timeout,
            2 => Self::Event,
            3 => Self::Alarm,
            4 => Self::KeepAlive,
            5 => Self::LowBattery,
            6 => Self::InformationV15,
            7 => Self::AgricultureXtreme,
            8 => Self::WaterXtreme,
            _ => return None,
        })
    }

    /// The low 7 bits of the type byte.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// A stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InformationV12 | Self::InformationV15 => "information",
            Self::Timeout => "timeout",
            Self::Event => "event",
            Self::Alarm => "alarm",
            Self::KeepAlive => "keep-alive",
            Self::LowBattery => "low-battery",
            Self::AgricultureXtreme => "agriculture-xtreme",
            Self::WaterXtreme => "water-xtreme",
        }
    }

    /// Which hardware sends it; `None` for types 1 to 5, which both do.
    pub const fn generation(self) -> Option<Generation> {
        match self {
            Self::InformationV12 => Some(Generation::V12),
            Self::InformationV15 | Self::AgricultureXtreme | Self::WaterXtreme => Some(Generation::V15),
            _ => None,
        }
    }
}
