//! Classic radios: each hears frames of Waspmote and Plug & Sense! nodes in its own way and brings them to the engine, which
//! says when one is safe.

pub mod http;

use std::collections::HashMap;
use std::sync::mpsc::{SyncSender, TrySendError};

use fivefold_core::error::{Code, Rejected};
use fivefold_core::wire::classic::Carrier;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::daemon::{DaemonError, Event};
use crate::gateway::{Arrival, ClassicDone};

/// A frame that a classic radio heard, for the engine.
#[derive(Debug)]
pub struct ClassicEvent {
    /// How it came.
    pub carrier: Carrier,
    /// Radio address of its sender: an XBee's 64 bits, or a DevEUI.
    pub source: Option<[u8; 8]>,
    /// Signal strength in dBm.
    pub rssi: Option<i16>,
    /// The frame.
    pub frame: Box<[u8]>,
    /// Who waits to hear what came of it.
    pub done: Option<oneshot::Sender<ClassicDone>>,
}

impl ClassicEvent {
    /// As the engine takes it.
    pub fn arrival(&self) -> Arrival<'_> {
        Arrival { carrier: self.carrier, source: self.source, rssi: self.rssi, frame: &self.frame, lorawan: None }
    }
}

/// Where a classic radio brings what it hears.
#[derive(Clone, Debug)]
pub struct Desk {
    engine: SyncSender<Event>,
}

/// The engine ends, or its store failed before the frame was safe.
const ENDED: Rejected = Rejected::new(Code::StoreFull, "the gateway could not keep it");
const BUSY: Rejected = Rejected::new(Code::ClassicTooMany, "more frames wait than the gateway takes");

impl Desk {
    /// Of this engine.
    pub const fn new(engine: SyncSender<Event>) -> Self {
        Self { engine }
    }

    /// Brings a frame; what comes back is the engine's answer, once there is one. A full queue refuses it (CL-10).
    fn hand_in(&self, mut event: ClassicEvent) -> Result<oneshot::Receiver<ClassicDone>, Rejected> {
        let (done, answer) = oneshot::channel();
        event.done = Some(done);
        match self.engine.try_send(Event::Classic(event)) {
            Ok(()) => Ok(answer),
            Err(TrySendError::Full(_)) => Err(BUSY),
            Err(TrySendError::Disconnected(_)) => Err(ENDED),
        }
    }

    /// Brings a frame and waits until it is safe, answered or refused. Whatever stands in `event.done` is replaced.
    pub async fn bring(&self, event: ClassicEvent) -> ClassicDone {
        match self.hand_in(event) {
            Ok(answer) => answer.await.unwrap_or(ClassicDone::Refused(ENDED)),
            Err(rejected) => ClassicDone::Refused(rejected),
        }
    }

    /// The same from a thread of its own.
    pub fn bring_blocking(&self, event: ClassicEvent) -> ClassicDone {
        match self.hand_in(event) {
            Ok(answer) => answer.blocking_recv().unwrap_or(ClassicDone::Refused(ENDED)),
            Err(rejected) => ClassicDone::Refused(rejected),
        }
    }

    /// Counts what a radio refused so many times. Whether the engine had room to hear of it.
    pub fn refuse_often(&self, rejected: Rejected, times: u64) -> bool {
        self.engine.try_send(Event::RefusedOften(rejected, times)).is_ok()
    }

    /// Counts something that the radio refused by itself.
    pub fn refuse(&self, rejected: Rejected) {
        let _ = self.engine.try_send(Event::Refused(rejected));
    }
}

/// Radios that wait for the engine's answer.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    last: u64,
    by_ticket: HashMap<u64, oneshot::Sender<ClassicDone>>,
}

impl Waiting {
    /// A ticket for a frame.
    pub(crate) fn ticket(&mut self, done: Option<oneshot::Sender<ClassicDone>>) -> u64 {
        self.last += 1;
        if let Some(done) = done {
            self.by_ticket.insert(self.last, done);
        }
        self.last
    }

    /// The engine's answer.
    pub(crate) fn done(&mut self, ticket: u64, done: ClassicDone) {
        if let Some(waiting) = self.by_ticket.remove(&ticket) {
            let _ = waiting.send(done);
        }
    }

    /// The store failed: nobody's frame is safe.
    pub(crate) fn fail(&mut self) {
        for (_, waiting) in self.by_ticket.drain() {
            let _ = waiting.send(ClassicDone::Refused(ENDED));
        }
    }
}

/// Starts the classic radios that the configuration names, as tasks that never end by themselves.
///
/// # Errors
/// One that cannot be had.
pub(crate) async fn listen(config: &Config, desk: &Desk) -> Result<Option<JoinHandle<()>>, DaemonError> {
    let Some(settings) = &config.insecure_http else { return Ok(None) };
    http::start(&config.folder, settings, desk.clone()).await.map(Some)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    fn event() -> ClassicEvent {
        ClassicEvent { carrier: Carrier::Http, source: None, rssi: None, frame: [7].into(), done: None }
    }

    #[test]
    fn a_radio_hears_what_came_of_its_frame_and_a_full_or_failed_engine_refuses_it() {
        let (engine, queue) = sync_channel(1);
        let desk = Desk::new(engine);
        let mut waiting = Waiting::default();
        let bring = || {
            let desk = desk.clone();
            std::thread::spawn(move || desk.bring_blocking(event()))
        };
        let taken = |waiting: &mut Waiting| match queue.recv().unwrap() {
            Event::Classic(event) => waiting.ticket(event.done),
            other => panic!("{other:?}"),
        };
        let brought = bring();
        let ticket = taken(&mut waiting);
        waiting.done(ticket, ClassicDone::Stored);
        assert_eq!(brought.join().unwrap(), ClassicDone::Stored);
        let brought = bring();
        taken(&mut waiting);
        waiting.fail();
        assert_eq!(brought.join().unwrap(), ClassicDone::Refused(ENDED));
        desk.engine.try_send(Event::Stop).unwrap();
        assert_eq!(desk.bring_blocking(event()), ClassicDone::Refused(BUSY));
        drop(queue);
        assert_eq!(desk.bring_blocking(event()), ClassicDone::Refused(ENDED));
    }
}
