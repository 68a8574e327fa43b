//! Why bytes are no frame, or a frame does not open.

use core::fmt;

/// Why a frame is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refused {
    /// Fewer bytes than the smallest header.
    Short {
        /// Bytes that are there.
        length: usize,
    },
    /// More bytes than a node ever sends in a frame.
    Long {
        /// Bytes that are there.
        length: usize,
    },
    /// It does not start with `<=>`.
    Delimiter,
    /// No frame has this type.
    Type {
        /// The type byte.
        byte: u8,
    },
    /// N promises more bytes than there are.
    Truncated {
        /// Bytes that the frame should have.
        promised: usize,
        /// Bytes that are there.
        present: usize,
    },
    /// Bytes follow the end of the frame.
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The serial is neither 16 hex digits nor a decimal of 32 bits, or misses bytes.
    Serial,
    /// A binary frame with its serial as a decimal, as the vendor's first software wrote it: what follows is not known.
    SerialText,
    /// A frame of this type does not come from hardware with such a serial.
    Generation,
    /// The node id is longer than 16 bytes, or does not end.
    NodeId,
    /// The sequence is missing, or no number from 0 to 255.
    Sequence,
    /// An ASCII frame has fewer fields than its header says.
    FieldCount {
        /// Fields that the header says.
        promised: u8,
        /// Fields that are there.
        present: u8,
    },
    /// A field of a binary frame ends behind the frame.
    FieldLength {
        /// Id of the sensor.
        id: u8,
        /// Where its field starts in the frame.
        at: usize,
    },
    /// A frame cannot be cut into pieces: nobody can say where the field of an unknown sensor ends.
    UnknownSensor {
        /// Id of the sensor.
        id: u8,
        /// Where its field starts in the frame.
        at: usize,
    },
    /// The node put its timestamp into its own header: a fault of its software, for serials with a 0x23 in their second half.
    Stamped,
    /// The ciphertext is empty, or no multiple of 16 bytes.
    Blocks {
        /// Its length.
        length: usize,
    },
    /// What was decrypted does not start as a frame does: another key, or altered on the way.
    NotOpened,
    /// What was decrypted starts as a frame does and is none.
    Inner {
        /// As the word of the reason.
        reason: &'static str,
    },
    /// Something other than zeros fills the last block.
    Padding,
    /// The inner frame is an encrypted one itself, or no frame with fields.
    Nested {
        /// Its type byte.
        byte: u8,
    },
    /// The inner frame is of another serial than the outer one.
    ForeignSerial,
    /// The inner frame has another node id than the outer one (v12).
    ForeignNodeId,
}

impl Refused {
    /// A stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Short { .. } => "short",
            Self::Long { .. } => "long",
            Self::Delimiter => "delimiter",
            Self::Type { .. } => "type",
            Self::Truncated { .. } => "truncated",
            Self::Trailing { .. } => "trailing",
            Self::Serial => "serial",
            Self::SerialText => "serial-text",
            Self::Generation => "generation",
            Self::NodeId => "node-id",
            Self::Sequence => "sequence",
            Self::FieldCount { .. } => "field-count",
            Self::FieldLength { .. } => "field-length",
            Self::UnknownSensor { .. } => "unknown-sensor",
            Self::Stamped => "stamped",
            Self::Blocks { .. } => "blocks",
            Self::NotOpened => "not-opened",
            Self::Inner { .. } => "inner",
            Self::Padding => "padding",
            Self::Nested { .. } => "nested",
            Self::ForeignSerial => "foreign-serial",
            Self::ForeignNodeId => "foreign-node-id",
        }
    }

    /// The same, of an inner frame: what its outer frame is then refused for.
    pub(crate) const fn inner(self) -> Self {
        match self {
            Self::Delimiter => Self::NotOpened,
            Self::Type { byte } => Self::Nested { byte },
            Self::Padding => Self::Padding,
            other => Self::Inner { reason: other.as_str() },
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Short { length } => write!(f, "{length} bytes are no frame: the smallest header has more"),
            Self::Long { length } => write!(f, "{length} bytes are more than a node ever sends in one frame"),
            Self::Delimiter => f.write_str("a frame starts with <=> (3c3d3e)"),
            Self::Type { byte } => write!(f, "no frame has the type byte 0x{byte:02x}"),
            Self::Truncated { promised, present } => {
                write!(f, "the length byte promises a frame of {promised} bytes, {present} are there")
            }
            Self::Trailing { bytes } => write!(f, "{bytes} bytes follow the end of the frame"),
            Self::Serial => f.write_str("the serial is neither 8 bytes (16 hex digits) nor a number of 32 bits"),
            Self::SerialText => f.write_str(
                "a binary frame of the vendor's first software, with its serial as text: its layout is not known",
            ),
            Self::Generation => f.write_str("the type and the serial belong to different generations of hardware"),
            Self::NodeId => f.write_str("the node id does not end within 16 bytes"),
            Self::Sequence => f.write_str("the sequence is no number from 0 to 255"),
            Self::FieldCount { promised, present } => {
                write!(f, "the header promises {promised} fields, {present} are there")
            }
            Self::FieldLength { id, at } => {
                write!(f, "the field of sensor {id} at byte {at} ends behind the frame")
            }
            Self::UnknownSensor { id, at } => write!(f, "sensor {id} at byte {at} is not in the table"),
            Self::Stamped => f.write_str("the node wrote its timestamp into its own serial: the frame is lost"),
            Self::Blocks { length } => write!(f, "a ciphertext of {length} bytes is not made of blocks of 16"),
            Self::NotOpened => f.write_str("it does not open with this key: wrong key, or altered on the way"),
            Self::Inner { reason } => write!(f, "what it opens to starts as a frame and is none ({reason})"),
            Self::Padding => f.write_str("what it opens to does not end in less than a block of zeros"),
            Self::Nested { byte } => {
                write!(f, "what it opens to has the type byte 0x{byte:02x}: no frame with fields")
            }
            Self::ForeignSerial => f.write_str("the frame inside is of another serial than the frame around it"),
            Self::ForeignNodeId => f.write_str("the frame inside has another node id than the frame around it"),
        }
    }
}

impl core::error::Error for Refused {}
