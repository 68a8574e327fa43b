//! Frames over LoRaWAN, where the radio's own keys are E1 and the network server says whose a frame is.

use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{Did, Sid};
use fivefold_core::profile::{LinkClass, Radio};
use fivefold_core::time::Millis;
use fivefold_core::wire::tiny::{Layers, Wants};

use super::Gateway;
use super::flight::{Via, Way};
use super::receive::Source;

/// Bytes of a tiny frame over LoRaWAN, at most: the RuleID, and what any data rate carries.
const LONGEST: usize = 1 + 242;

/// How a device came into its LoRaWAN network, by the operator's word: no event says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Over the air (OTAA): fresh session keys with each join, and frame counters that are checked. E1 of class `lorawan`.
    OverTheAir,
    /// By personalisation (ABP): the same keys for ever, and counters that mostly start again at each boot. No E1.
    Personalisation,
}

impl Activation {
    /// What it makes of the link.
    pub const fn link_class(self) -> LinkClass {
        match self {
            Self::OverTheAir => LinkClass::Lorawan,
            Self::Personalisation => LinkClass::None,
        }
    }
}

/// What a device sent over LoRaWAN, as its network server tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lorawan<'b> {
    /// Whose it is.
    pub dev_eui: Did,
    /// FPort: the RuleID (docs/protocol.md 6).
    pub f_port: u8,
    /// FRMPayload.
    pub payload: &'b [u8],
    /// Whether the link counts as E1.
    pub activation: Activation,
    /// Strength at the best station, in dBm.
    pub rssi: Option<i16>,
    /// When the network server received it; a time to come is taken for now.
    pub received: Option<Millis>,
}

impl Gateway {
    /// The device of the modern suite that has this DevEUI: it is the did.
    pub fn lorawan_device(&self, dev_eui: Did) -> Option<Sid> {
        let sid = self.link.neighbours().registered(dev_eui)?;
        self.devices.find(sid).filter(|d| d.did == dev_eui).map(|d| d.sid)
    }

    /// What a device of the modern suite sent. It goes on where a tiny frame from the air goes on after E1.
    ///
    /// # Errors
    /// What was counted; of `E4-04` the sender may try again later. `E3-01` for a DevEUI that is in no record, `E2-08` or
    /// `E3-08` where the record names another radio, or has no word for a link without E1.
    pub fn handle_lorawan(&mut self, now: Millis, heard: Lorawan<'_>) -> Result<(), Rejected> {
        let sid = self.lorawan_device(heard.dev_eui);
        self.scribe.hear(now, Some(heard.dev_eui), heard.payload);
        let judged = match sid {
            Some(sid) => self.lorawan(now, sid, heard),
            None => Err(Rejected::new(Code::CloudUnknownKid, "a DevEUI that is not in the allow-list")),
        };
        let judged = judged.inspect_err(|rejected| self.count(*rejected, sid));
        self.scribe.over(now);
        judged
    }

    fn lorawan(&mut self, now: Millis, sid: Sid, heard: Lorawan<'_>) -> Result<(), Rejected> {
        if heard.payload.is_empty() {
            // A frame of the radio's own: MAC commands, an acknowledgement.
            return Ok(());
        }
        let link = self.link_over_lorawan(sid, heard.activation)?;
        let mut frame = [0; LONGEST];
        let len = heard.payload.len() + 1;
        let (Some((rule, rest)), true) = (frame.split_first_mut(), len <= LONGEST) else {
            return Err(Rejected::new(Code::TinyMalformed, "longer than LoRaWAN carries"));
        };
        *rule = heard.f_port;
        rest.iter_mut().zip(heard.payload).for_each(|(to, from)| *to = *from);
        let source = Source {
            sid,
            wants: Wants::Nothing,
            way: Way::Radio { to: sid, via: Via::Lorawan, token: 0, layers: Layers::C3 },
            link,
            hops: None,
            key_index: None,
            lqi: None,
            rssi: heard.rssi,
            received: heard.received.map(|at| at.min(now)),
        };
        self.tiny(now, source, Via::Lorawan, frame.get(..len).unwrap_or_default())
    }

    fn link_over_lorawan(&self, sid: Sid, activation: Activation) -> Result<LinkClass, Rejected> {
        let device = self.devices.find(sid);
        let code = match device {
            Some(d) if d.policy.profile.has_e2() => Code::GatewayLevelMissing,
            _ => Code::CloudLevelMissing,
        };
        match (device, activation) {
            (Some(d), _) if d.policy.radio != Radio::Lorawan => {
                Err(Rejected::new(code, "over LoRaWAN, and the device's record names another radio"))
            }
            (Some(d), _) if activation.link_class().is_e1() || d.overrides.danger_no_link => {
                Ok(activation.link_class())
            }
            _ => Err(Rejected::new(code, "LoRaWAN under ABP is no E1, and the device's record does not allow that")),
        }
    }
}
