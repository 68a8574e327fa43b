//! Frames of classic devices (Waspmote, Plug & Sense!): opened where the key is here, and handed on as they came, each once.
//!
//! Nothing in such a frame proves who sent it: what the gateway finds wrong it says beside the frame, and the cloud judges.

mod hardened;
pub(super) mod key_message;
mod read;
mod roll;

use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::{Did, Sid};
use fivefold_core::profile::LinkClass;
use fivefold_core::time::Millis;
use fivefold_core::wire::classic::{self, Carrier, Report};
use fivefold_core::wire::envelope::{Envelope, Kind, Originator};

use fivefold_waspmote::time_reply;

use super::{Activation, Gateway, Output, Then};
pub(super) use hardened::ToAnswer;
pub(super) use key_message::{Answered, KeyParts, Passed};
use read::{Content, Seen};
pub(super) use roll::Roll;

/// A classic frame as it came.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'f> {
    /// How.
    pub carrier: Carrier,
    /// Radio address of its sender: an XBee's 64 bits, or a DevEUI, in written order.
    pub source: Option<[u8; 8]>,
    /// Signal strength in dBm.
    pub rssi: Option<i16>,
    /// The frame.
    pub frame: &'f [u8],
    /// Of frames over LoRaWAN: what is known of the radio.
    pub lorawan: Option<OverLorawan>,
}

/// What is known of the radio of a frame that came over LoRaWAN.
#[derive(Clone, Copy, Debug)]
pub struct OverLorawan {
    /// How the device came into its network, by the operator's word.
    pub activation: Activation,
    /// When the network server received it; a time to come is taken for now.
    pub received: Option<Millis>,
}

/// What came of a classic frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassicDone {
    /// This is to be sent back to where it came from: the answer to a time request, or to a hardened frame that is durable.
    Answer(Box<[u8]>),
    /// A part of a key message, kept in memory until the others are there: its node sends all of them until it has its answer.
    Noted,
    /// It is not stored, and was counted.
    Refused(Rejected),
    /// It is durable: whoever acknowledges frames may do so now.
    Stored,
}

/// What was done with a frame that was not refused.
enum Taken {
    Answer(Box<[u8]>),
    KeyMessage(Box<Passed>),
    Noted,
    Waits,
    Written(Option<Box<ToAnswer>>),
}

/// A refusal, and whose frame it was as far as that is known.
type Refusal = (Rejected, Option<Sid>);

const STRANGER: Rejected = Rejected::new(Code::ClassicUnknown, "a serial or DevEUI that is not in the book");
const TOO_MANY: Rejected =
    Rejected::new(Code::ClassicTooMany, "more frames a minute of this serial than are passed on");
const TOO_LONG: Rejected = Rejected::new(Code::ClassicMalformed, "longer than any frame");
const OVER_THE_AIR: Rejected = Rejected::new(Code::ClassicOverTheAir, "over-the-air programming: not for a gateway");
const NO_TIME: Rejected = Rejected::new(Code::GatewayClockOff, "the gateway's clock shows no time");
const NO_RADIO: Rejected = Rejected::new(Code::ClassicMalformed, "a time request, but not by XBee");
const FOREIGN_RADIO: Rejected = Rejected::new(Code::ClassicForeignInner, "the serial is not that of this DevEUI");

impl Gateway {
    /// A frame of a classic device. What comes of it is an [`Output::Classic`] with `ticket`: at once when it is refused or
    /// answered, and when it is durable otherwise.
    pub fn handle_classic(&mut self, now: Millis, ticket: u64, arrival: Arrival<'_>) {
        self.scribe.hear(now, arrival.source.map(Did), arrival.frame);
        let taken = self.take_classic(now, ticket, &arrival).inspect_err(|(rejected, sid)| self.count(*rejected, *sid));
        self.scribe.over(now);
        let done = match taken {
            Ok(Taken::Written(answer)) => return self.after_persist(Then::Classic(ticket, answer)),
            Ok(Taken::KeyMessage(passed)) => return self.after_persist(Then::KeyMessage(passed)),
            Ok(Taken::Waits) => return,
            Ok(Taken::Noted) => ClassicDone::Noted,
            Ok(Taken::Answer(bytes)) => ClassicDone::Answer(bytes),
            Err((rejected, _)) => ClassicDone::Refused(rejected),
        };
        self.outputs.push_back(Output::Classic { ticket, done });
    }

    /// The class of what comes by the XBee module: `xbee-ee` where modules encrypt among themselves, which proves nothing.
    pub const fn note_module_class(&mut self, class: LinkClass) {
        self.module_class = class;
    }

    pub(super) fn classic_is_durable(&mut self, now: Millis, ticket: u64, to: Option<&ToAnswer>) {
        let answer = to.and_then(|to| self.hardened_answer(now, to));
        let done = answer.map_or(ClassicDone::Stored, ClassicDone::Answer);
        self.outputs.push_back(Output::Classic { ticket, done });
    }

    /// The store failed: what waited for it is refused, and nothing else of the script stays.
    pub(super) fn fail_classic(&mut self) {
        self.outputs.retain(|output| matches!(output, Output::Classic { .. }));
        let rejected = Rejected::new(Code::StoreFull, "the store cannot be written");
        let mut tickets = self.abandon_key_messages();
        for (_, then) in std::mem::take(&mut self.then) {
            match then {
                Then::Classic(ticket, _) => tickets.push(ticket),
                Then::KeyAnswer(answered) => tickets.extend(answered.tickets),
                Then::KeyMessage(passed) => tickets.push(passed.ticket()),
                _ => {}
            }
        }
        let refused = tickets.into_iter().map(|ticket| (ticket, ClassicDone::Refused(rejected)));
        self.outputs.extend(refused.map(|(ticket, done)| Output::Classic { ticket, done }));
    }

    fn take_classic(&mut self, now: Millis, ticket: u64, arrival: &Arrival<'_>) -> Result<Taken, Refusal> {
        if arrival.frame.len() > classic::FRAME {
            return Err((TOO_LONG, None));
        }
        let by_radio = self.radio_of(arrival);
        let (at, found) = match read::read(arrival, &self.classic).map_err(|rejected| (rejected, None))? {
            Seen::OverTheAir => return Err((OVER_THE_AIR, None)),
            Seen::TimeRequest if arrival.carrier == Carrier::Xbee => {
                let answer =
                    i64::try_from(now.0 / 1000).ok().and_then(|unix_s| time_reply(unix_s, 0)).ok_or((NO_TIME, None))?;
                self.tally.count(Code::ClassicTimeAnswered, None);
                return Ok(Taken::Answer(answer.into()));
            }
            Seen::TimeRequest => return Err((NO_RADIO, None)),
            // A network server vouches for a DevEUI: what one says that is in no book is nobody's, whatever serial it writes.
            Seen::Tiny | Seen::Known(..) | Seen::Stranger(_)
                if arrival.carrier == Carrier::Lorawan && by_radio.is_none() =>
            {
                return Err(self.stranger(now, arrival, &dev_eui(arrival)));
            }
            Seen::Tiny => (by_radio.ok_or((STRANGER, None))?, None),
            Seen::Known(at, _) if by_radio.is_some_and(|radio| radio != at) => {
                (at, Some(Finding::Wrong(FOREIGN_RADIO)))
            }
            Seen::Known(at, Content::Hardened) => {
                self.admit(now, at)?;
                return self.take_hardened(now, arrival, at);
            }
            Seen::Known(at, Content::KeyMessage) => return self.take_key_part(now, ticket, arrival, at),
            Seen::Known(at, Content::Sealed(sealed)) => {
                (at, self.classic.device(at).and_then(|device| read::open(&sealed, device)))
            }
            Seen::Known(at, Content::Other) => (at, None),
            Seen::Stranger(serial) => return Err(self.stranger(now, arrival, &serial.to_string())),
        };
        let (sid, serial) = self.admit(now, at)?;
        let (inner, wrong) = match &found {
            Some(Finding::Inner(inner)) => (Some(&**inner), None),
            Some(Finding::Wrong(wrong)) => (None, Some(*wrong)),
            None => (None, None),
        };
        self.report(now, arrival, &serial, inner, wrong.map(|w| w.code)).map_err(|rejected| (rejected, Some(sid)))?;
        self.note(wrong, sid);
        Ok(Taken::Written(None))
    }

    /// Counts a frame of a device that is known against its rate.
    fn admit(&mut self, now: Millis, at: usize) -> Result<(Sid, Box<str>), Refusal> {
        let device = self.classic.device_mut(at).ok_or((STRANGER, None))?;
        let sid = device.sid;
        if device.admits(now, self.limits.messages_a_minute) {
            Ok((sid, device.serial.clone()))
        } else {
            Err((TOO_MANY, Some(sid)))
        }
    }

    /// Counts what was wrong with a frame that is handed on all the same.
    fn note(&mut self, wrong: Option<Rejected>, sid: Sid) {
        if let Some(wrong) = wrong {
            self.count(wrong, Some(sid));
        }
    }

    /// Whose radio it came by, where that is proven: a network server vouches for the DevEUI.
    fn radio_of(&self, arrival: &Arrival<'_>) -> Option<usize> {
        if arrival.carrier != Carrier::Lorawan {
            return None;
        }
        self.classic.by_dev_eui(arrival.source?)
    }

    /// Of somebody unknown: reported now and then, so that the operator sees who is there.
    fn stranger(&mut self, now: Millis, arrival: &Arrival<'_>, name: &str) -> Refusal {
        if self.classic.admits_stranger(now, name) {
            // Without room for it, the next one says the same.
            let _ = self.report(now, arrival, name, None, Some(STRANGER.code));
        }
        (STRANGER, None)
    }

    fn report(
        &mut self,
        now: Millis,
        arrival: &Arrival<'_>,
        name: &str,
        inner: Option<&[u8]>,
        code: Option<Code>,
    ) -> Result<(), Rejected> {
        let report = Report { frame: arrival.frame, carrier: arrival.carrier, inner, source: arrival.source, code };
        let mut bytes = [0; classic::BYTES];
        let len = report.emit(&mut bytes).map_err(|_| TOO_LONG)?;
        let link = match arrival.carrier {
            Carrier::Lorawan => arrival.lorawan.map_or(LinkClass::Lorawan, |radio| radio.activation.link_class()),
            Carrier::Xbee => self.module_class,
            Carrier::Http | Carrier::Bridge => LinkClass::None,
        };
        let received = arrival.lorawan.and_then(|radio| radio.received).map_or(now, |at| at.min(now));
        let envelope = Envelope {
            seq: self.next_seq,
            received,
            kind: Kind::Classic,
            bytes: bytes.get(..len).unwrap_or_default(),
            originator: Originator::Classic(name),
            rssi: arrival.rssi,
            lqi: None,
            opened: None,
            link,
            hops: None,
            key_index: None,
        };
        self.store(&envelope).map(drop)
    }
}

/// What the gateway found when it looked into a frame.
enum Finding {
    /// What it opened.
    Inner(Box<[u8]>),
    /// It did not open, or to what is somebody else's.
    Wrong(Rejected),
}

fn dev_eui(arrival: &Arrival<'_>) -> String {
    arrival.source.iter().flatten().map(|byte| format!("{byte:02x}")).collect()
}
