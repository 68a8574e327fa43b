//! What an uplink is, and which network server tells of it.

use std::fmt;
use std::str::FromStr;

use fivefold_core::id::Did;
use fivefold_core::time::Millis;

/// Bytes of an FRMPayload, at most: what the fastest data rates of any region carry (LoRaWAN Regional Parameters, N).
pub const PAYLOAD: usize = 242;

/// Which network server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkServer {
    /// ChirpStack v4, by its MQTT integration: JSON, topics as it ships them.
    ChirpStack,
    /// The Things Stack v3, by its MQTT server.
    TheThingsStack,
}

impl NetworkServer {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ChirpStack, Self::TheThingsStack];

    /// As `kind` of `[lorawan]` writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChirpStack => "chirpstack",
            Self::TheThingsStack => "things-stack",
        }
    }
}

impl fmt::Display for NetworkServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for NetworkServer {
    type Err = NoNetworkServer;

    fn from_str(text: &str) -> Result<Self, NoNetworkServer> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(NoNetworkServer)
    }
}

/// A word that names no network server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected chirpstack or things-stack")]
pub struct NoNetworkServer;

/// The application at the network server whose devices are heard: a level of its topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application(String);

impl Application {
    /// As it stands in topics: ChirpStack's application id, `APPLICATION@TENANT` of The Things Stack.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Application {
    type Err = NoApplication;

    fn from_str(text: &str) -> Result<Self, NoApplication> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
        if text.is_empty() || text.len() > 128 || !text.chars().all(fits) {
            return Err(NoApplication);
        }
        Ok(Self(text.to_owned()))
    }
}

/// A text that names no application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected one application: of ChirpStack its id (a UUID), of The Things Stack APPLICATION@TENANT; wildcards are not taken"
)]
pub struct NoApplication;

/// What a device sent, as its network server tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Uplink {
    /// Who sent it, by the word of the network server, which checked the frame under that device's key.
    pub dev_eui: Did,
    /// FPort; 0 when the event names none.
    pub f_port: u8,
    /// The frame counter; 0 when the event names none, as both network servers leave out zeros.
    pub f_cnt: u32,
    /// FRMPayload in the clear, at most [`PAYLOAD`] bytes; empty when the frame had none.
    pub bytes: Box<[u8]>,
    /// The best of all receiving stations, in dBm.
    pub rssi: Option<i16>,
    /// The best of all receiving stations, in dB.
    pub snr: Option<f32>,
    /// When the network server received it, by its clock, in Unix milliseconds.
    pub received_at: Option<Millis>,
    /// What topics of this device have in its place: ChirpStack's the DevEUI, those of The Things Stack the device id.
    pub device: Box<str>,
}
