//! Where what came over LoRaWAN meets the engine, and what it waits for before its sender may forget it.

use fivefold_core::error::Code;
use fivefold_core::time::Millis;
use fivefold_core::wire::classic::Carrier;
use tokio::sync::oneshot;

use super::session::Heard;
use crate::classic::Waiting;
use crate::gateway::{Arrival, ClassicDone, Gateway, Lorawan, OverLorawan};

/// Those who wait for the end of the round, when all that it wrote is durable.
#[derive(Debug, Default)]
pub(crate) struct Held(Vec<oneshot::Sender<ClassicDone>>);

impl Held {
    /// Hands an uplink to the engine: as a message of the modern suite if the DevEUI is such a device's, else as a frame of a
    /// classic one.
    pub(crate) fn hand_in(&mut self, gateway: &mut Gateway, classic: &mut Waiting, now: Millis, heard: Heard) {
        let Heard { uplink, activation, done } = heard;
        let (dev_eui, rssi, payload) = (uplink.dev_eui, uplink.rssi, &*uplink.bytes);
        if payload.is_empty() {
            // The radio's own business: MAC commands, an acknowledgement.
            return self.0.push(done);
        }
        if gateway.lorawan_device(dev_eui).is_none() {
            let lorawan = Some(OverLorawan { activation, received: uplink.received_at });
            let (carrier, source) = (Carrier::Lorawan, Some(dev_eui.0));
            let arrival = Arrival { carrier, source, rssi, frame: payload, lorawan };
            return gateway.handle_classic(now, classic.ticket(Some(done)), arrival);
        }
        let (f_port, received) = (uplink.f_port, uplink.received_at);
        match gateway.handle_lorawan(now, Lorawan { dev_eui, f_port, payload, activation, rssi, received }) {
            // Whatever else was refused would be so again.
            Err(rejected) if rejected.code == Code::StoreFull => drop(done.send(ClassicDone::Refused(rejected))),
            Ok(()) | Err(_) => self.0.push(done),
        }
    }

    /// All that was written is durable.
    pub(crate) fn safe(&mut self) {
        for done in self.0.drain(..) {
            let _ = done.send(ClassicDone::Stored);
        }
    }

    /// The store failed: who drops out unanswered is not safe.
    pub(crate) fn fail(&mut self) {
        self.0.clear();
    }
}
