//! Frames of the hardened profile that are sealed for this gateway (docs/protocol.md 12.4): number new, tag, content, mark
//! durable, and only then is one counted, and answered once.

use fivefold_core::error::{Code, Rejected};
use fivefold_core::time::Millis;
use fivefold_core::wire::classic::Carrier;
use fivefold_core::wire::state::ClassicDevice;
use fivefold_waspmote::Serial;
use fivefold_waspmote::hardened::{Answer, Epoch, Key, Opened, Peer, Refused, Sealed, Window, Wish};

use super::roll::Classic;
use super::{Arrival, Gateway, Refusal, Taken};
use crate::gateway::Record;
use crate::gateway::output::{HardenedName, first8};

const REPEATED: Rejected = Rejected::new(Code::HardenedReplayed, "a number that was taken before, or is too old");
const FORGED: Rejected = Rejected::new(Code::HardenedForged, "the tag does not hold");
const NO_KEY: Rejected = Rejected::new(Code::ClassicForged, "no key of that epoch is here");
const CONTENT: Rejected = Rejected::new(Code::ClassicForged, "what it opens to is no frame");
const SHAPE: Rejected = Rejected::new(Code::ClassicMalformed, "no frame of the hardened profile");

/// A key of a device, and what was taken under it.
pub(super) struct Hardened {
    epoch: Epoch,
    pub(super) name: HardenedName,
    key: Key,
    pub(super) window: Window,
}

impl Hardened {
    /// Those of an entry of the state; `window` says what was taken under a key.
    pub(super) fn of(device: &ClassicDevice<'_>, window: impl Fn(HardenedName) -> Option<Window>) -> Vec<Self> {
        let of = |k: fivefold_core::wire::state::HardenedKey<'_>| {
            let name = HardenedName(first8(&[
                b"fivefold hardened key",
                device.serial.as_bytes(),
                &k.epoch.to_be_bytes(),
                k.key,
            ]));
            Self { epoch: Epoch(k.epoch), name, key: Key::from_bytes(*k.key), window: window(name).unwrap_or_default() }
        };
        device.hardened.iter().map(of).collect()
    }
}

impl Hardened {
    pub(super) const fn is_of(&self, epoch: u32) -> bool {
        self.epoch.0 == epoch
    }
}

/// An opened frame that is to be answered when its mark is durable.
pub(in super::super) struct ToAnswer {
    serial: Serial,
    opened: Opened,
}

impl Classic {
    fn hardened_key(&mut self, epoch: Epoch) -> Option<&mut Hardened> {
        self.hardened.iter_mut().find(|h| h.epoch == epoch)
    }
}

impl Gateway {
    /// A frame of type 68.
    pub(super) fn take_hardened(&mut self, now: Millis, arrival: &Arrival<'_>, at: usize) -> Result<Taken, Refusal> {
        let Some(device) = self.classic.device_mut(at) else { return Err((SHAPE, None)) };
        let (sid, serial) = (device.sid, device.serial.clone());
        let of_device = |rejected| (rejected, Some(sid));
        let sealed = Sealed::parse(arrival.frame).map_err(|_| of_device(SHAPE))?;
        let Some(hardened) = device.hardened_key(sealed.number.epoch) else {
            // Where no keys are here at all, another gateway or the cloud may have them.
            let wrong = (!device.hardened.is_empty()).then_some(NO_KEY);
            return self.hand_on(now, arrival, &serial, wrong).map_err(of_device).inspect(|_| self.note(wrong, sid));
        };
        let Ok(fresh) = hardened.window.check(sealed.number.sequence) else { return Err(of_device(REPEATED)) };
        let opened = match sealed.open(&hardened.key) {
            Ok(opened) => opened,
            Err(refused) => {
                let wrong = Some(if refused == Refused::Tag { FORGED } else { CONTENT });
                return self
                    .hand_on(now, arrival, &serial, wrong)
                    .map_err(of_device)
                    .inspect(|_| self.note(wrong, sid));
            }
        };
        self.report(now, arrival, &serial, Some(opened.frame()), None).map_err(of_device)?;
        // Behind the envelope in one transaction: a crash before it leaves neither.
        let Some(hardened) = self.classic.device_mut(at).and_then(|d| d.hardened_key(sealed.number.epoch)) else {
            return Ok(Taken::Written(None));
        };
        hardened.window.mark(fresh);
        let (name, window) = (hardened.name, hardened.window.to_bytes());
        self.persist(Record::HardenedWindow { name, window });
        // Over LoRaWAN there is no way back for classic frames.
        let answer =
            (arrival.carrier != Carrier::Lorawan).then(|| Box::new(ToAnswer { serial: sealed.serial(), opened }));
        Ok(Taken::Written(answer))
    }

    fn hand_on(
        &mut self,
        now: Millis,
        arrival: &Arrival<'_>,
        serial: &str,
        wrong: Option<Rejected>,
    ) -> Result<Taken, Rejected> {
        self.report(now, arrival, serial, None, wrong.map(|w| w.code)).map(|()| Taken::Written(None))
    }

    /// The answer to a frame whose mark is durable.
    pub(super) fn hardened_answer(&mut self, now: Millis, to: &ToAnswer) -> Option<Box<[u8]>> {
        let Serial::V15(serial) = to.serial else { return None };
        let at = self.classic.find(to.serial)?;
        let hardened = self.classic.device_mut(at)?.hardened_key(to.opened.number().epoch)?;
        let answer = Answer { wish: Wish::None, time: u32::try_from(now.0 / 1000).unwrap_or(0) };
        answer.seal(Peer::Gateway, &serial, &to.opened, &hardened.key).ok().map(|bytes| bytes.as_slice().into())
    }
}
