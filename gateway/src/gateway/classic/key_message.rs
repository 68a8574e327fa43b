//! Key messages of classic nodes (docs/protocol.md 12.5): parts are put together here, a whole KR1 goes to the cloud as an
//! envelope of its own, and the KR2 that comes back goes to whoever waits for it.
//!
//! Nothing of it is believed here. Who hears the radio can spoil a message and use up what a node may send in a minute, as he can
//! jam the radio; he cannot make the gateway keep more than its bounds, nor pass more on.

use std::collections::VecDeque;

use fivefold_core::e5_renewal::key_message::MessageHash;
use fivefold_core::error::{Code, Rejected};
use fivefold_core::id::Sid;
use fivefold_core::profile::LinkClass;
use fivefold_core::time::Millis;
use fivefold_core::wire::classic::Carrier;
use fivefold_core::wire::envelope::{Downlink, Envelope, Kind, Originator};
use fivefold_core::wire::key_message::{Header, KeyLevel, Kr1, Kr2};
use fivefold_waspmote::key_message::{Assembly, Cut, LONGEST_FRAME, Part, Refused};

use super::roll::Roll;
use super::{Arrival, ClassicDone, Gateway, Output, Refusal, Taken, Then};

/// Milliseconds within which all parts of a message come.
const PARTS_WITHIN: u64 = 60_000;
/// Milliseconds for which whoever brought the last part waits for KR2: a module gives up soon after.
const PATIENCE: u64 = 5_000;
/// Nodes with an unfinished message.
const UNFINISHED: usize = 64;
/// Messages whose KR2 is waited for, and who waits for one.
const WAITING: usize = 64;
const TICKETS: usize = 4;
/// Messages that are passed on in a minute: of one node, and of all.
const OF_NODE: u16 = 6;
const OF_ALL: u16 = 60;

const fn refused(reason: &'static str) -> Rejected {
    Rejected::new(Code::KeyMessageRefused, reason)
}

const NO_WAY_BACK: Rejected = refused("a key message over a radio without a way back for its answer");
const NOT_HARDENED: Rejected = refused("a key message of a device that is not hardened");
const MISSING: Rejected = refused("parts of a key message did not come in time");
const CROWDED: Rejected = refused("an unfinished key message gave way: too many nodes have one");
const FOREIGN: Rejected = refused("its parts name another serial than the key message");
const TOO_MANY: Rejected = refused("more key messages a minute than are passed on");

/// What a part is refused for.
const fn reason(refusal: Refused) -> Rejected {
    refused(match refusal {
        Refused::Conflict { .. } => "another part of a key message came before it under its index",
        Refused::Place { .. } => "a part of a key message with no place in it",
        Refused::Long { .. } => "parts that are more than a key message may have",
        _ => "no part of a key message",
    })
}

/// A message of which parts are missing.
struct Unfinished {
    serial: [u8; 8],
    sid: Sid,
    /// As the sender counts them, with the number of parts: another one begins anew.
    id: (u8, u8),
    since: Millis,
    parts: Assembly,
}

/// A KR1 that is durable, and who waits for its answer.
struct Waiting {
    seq: u64,
    header: Header,
    message: MessageHash,
    tickets: Vec<u64>,
    until: Millis,
    /// It is there, and the key that it is about is not yet.
    answer: Option<Kr2>,
}

/// A KR1 on its way into the store.
pub(in super::super) struct Passed {
    ticket: u64,
    seq: u64,
    header: Header,
    message: MessageHash,
}

/// A KR2 on its way out, behind what has to be durable before it.
pub(in super::super) struct Answered {
    pub(in super::super) tickets: Vec<u64>,
    frame: Box<[u8]>,
}

/// All of them.
#[derive(Default)]
pub(in super::super) struct KeyParts {
    unfinished: VecDeque<Unfinished>,
    waiting: Vec<Waiting>,
    /// In which minute, and how many were passed on.
    passed: (u64, u16),
    /// Of the last KR2: one that follows has another.
    id: u8,
}

impl KeyParts {
    /// When the next of them is over.
    pub(in super::super) fn expiry(&self) -> Option<Millis> {
        let parts = self.unfinished.front().map(|u| u.since.plus(PARTS_WITHIN));
        let patience = self.waiting.iter().map(|w| w.until).min();
        [parts, patience].into_iter().flatten().min()
    }

    /// Takes a part. Out comes the whole message if it was the last, and whose unfinished one gave way.
    fn take(&mut self, now: Millis, sid: Sid, part: &Part<'_>) -> Result<(Option<Vec<u8>>, Option<Sid>), Refused> {
        let id = (part.id, part.count);
        let mut gone = None;
        let at = match self.unfinished.iter().position(|u| u.serial == part.serial) {
            Some(at) => at,
            None => {
                if self.unfinished.len() >= UNFINISHED {
                    gone = self.unfinished.pop_front().map(|u| u.sid);
                }
                let parts = Assembly::new();
                self.unfinished.push_back(Unfinished { serial: part.serial, sid, id, since: now, parts });
                self.unfinished.len() - 1
            }
        };
        // In the order of their beginnings, so that the first one ends first.
        if self.unfinished.get(at).is_some_and(|u| u.id != id)
            && let Some(mut anew) = self.unfinished.remove(at)
        {
            (anew.id, anew.since) = (id, now);
            self.unfinished.push_back(anew);
        }
        let Some(at) = self.unfinished.iter().position(|u| u.serial == part.serial) else { return Ok((None, gone)) };
        let Some(unfinished) = self.unfinished.get_mut(at) else { return Ok((None, gone)) };
        let taken = unfinished.parts.take(part);
        if unfinished.parts.is_empty() {
            self.unfinished.remove(at);
        }
        taken.map(|whole| (whole, gone))
    }

    fn admits(&mut self, now: Millis) -> bool {
        if self.passed.0 != now.0 / 60_000 {
            self.passed = (now.0 / 60_000, 0);
        }
        self.passed.1 = self.passed.1.saturating_add(1);
        self.passed.1 <= OF_ALL
    }

    /// Those whose answer may go out: for the gateway's own level once its key is here.
    fn ready(&mut self, roll: &Roll) -> Vec<(Vec<u64>, Kr2)> {
        let mut ready = Vec::new();
        self.waiting.retain_mut(|w| match w.answer {
            Some(kr2) if kr2.level != KeyLevel::E2 || roll.has_hardened(&kr2.serial.0, kr2.epoch.0) => {
                ready.push((std::mem::take(&mut w.tickets), kr2));
                false
            }
            _ => true,
        });
        ready
    }
}

impl Gateway {
    /// A frame of type 6A of a device that is known.
    pub(super) fn take_key_part(
        &mut self,
        now: Millis,
        ticket: u64,
        arrival: &Arrival<'_>,
        at: usize,
    ) -> Result<Taken, Refusal> {
        let (sid, name) = self.admit(now, at)?;
        let of_device = |rejected| (rejected, Some(sid));
        if arrival.carrier == Carrier::Lorawan {
            return Err(of_device(NO_WAY_BACK));
        }
        if !self.classic.device(at).is_some_and(|device| device.is_hardened) {
            return Err(of_device(NOT_HARDENED));
        }
        let part = Part::parse(arrival.frame).map_err(|refusal| of_device(reason(refusal)))?;
        let (whole, gone) = self.key_parts.take(now, sid, &part).map_err(|refusal| of_device(reason(refusal)))?;
        if let Some(gone) = gone {
            self.count(CROWDED, Some(gone));
        }
        let Some(whole) = whole else { return Ok(Taken::Noted) };
        let kr1 = Kr1::parse(&whole).map_err(of_device)?;
        if kr1.header.serial.0 != part.serial {
            return Err(of_device(FOREIGN));
        }
        let message = MessageHash::of(&kr1);
        if let Some(waiting) = self.key_parts.waiting.iter_mut().find(|w| w.message == message) {
            // The same once more, while the first is with the cloud.
            if waiting.tickets.len() >= TICKETS {
                return Ok(Taken::Noted);
            }
            waiting.tickets.push(ticket);
            return Ok(Taken::Waits);
        }
        let of_node = self.classic.device_mut(at).is_some_and(|device| device.admits_key_message(now, OF_NODE));
        if !of_node || !self.key_parts.admits(now) {
            return Err(of_device(TOO_MANY));
        }
        let link = if arrival.carrier == Carrier::Xbee { self.module_class } else { LinkClass::None };
        let envelope = Envelope {
            seq: self.next_seq,
            received: now,
            kind: Kind::KeyMessage,
            bytes: &whole,
            originator: Originator::Classic(&name),
            rssi: arrival.rssi,
            lqi: None,
            opened: None,
            link,
            hops: None,
            key_index: None,
        };
        let header = kr1.header;
        let seq = self.store(&envelope).map_err(of_device)?;
        Ok(Taken::KeyMessage(Box::new(Passed { ticket, seq, header, message })))
    }

    /// A KR1 is durable: whoever brought it waits for its answer from now on.
    pub(in super::super) fn key_message_is_durable(&mut self, now: Millis, passed: Passed) {
        let Passed { ticket, seq, header, message } = passed;
        if self.key_parts.waiting.len() >= WAITING {
            return self.outputs.push_back(Output::Classic { ticket, done: ClassicDone::Stored });
        }
        let (tickets, until) = (vec![ticket], now.plus(PATIENCE));
        self.key_parts.waiting.push(Waiting { seq, header, message, tickets, until, answer: None });
    }

    /// KR2 from the cloud.
    ///
    /// # Errors
    /// `E5-08`: it is none.
    pub(in super::super) fn take_key_answer(&mut self, serial: &str, downlink: &Downlink<'_>) -> Result<(), Rejected> {
        let kr2 = Kr2::parse(downlink.bytes)?;
        let waiting = self.key_parts.waiting.iter_mut().find(|w| {
            let h = &w.header;
            downlink.seq == Some(w.seq)
                && h.serial.to_string() == serial
                && (h.serial, h.level, h.epoch, h.server) == (kr2.serial, kr2.level, kr2.epoch, kr2.server)
        });
        // Nobody waits any more, or the gateway started again: the node sends its message once more.
        if let Some(waiting) = waiting {
            waiting.answer = Some(kr2);
            self.release_key_answers();
        }
        Ok(())
    }

    /// Sends the answers whose time has come, behind what was written until now.
    pub(in super::super) fn release_key_answers(&mut self) {
        for (tickets, kr2) in self.key_parts.ready(&self.classic) {
            self.key_parts.id = self.key_parts.id.wrapping_add(1);
            let bytes = kr2.to_bytes();
            let mut frame = [0; LONGEST_FRAME];
            // 56 bytes: one frame on every radio.
            let cut = Cut::new(kr2.serial.0, self.key_parts.id, &bytes, LONGEST_FRAME);
            let len = cut.ok().and_then(|cut| cut.part(0)).and_then(|part| part.emit(&mut frame).ok());
            let frame = frame.get(..len.unwrap_or_default()).unwrap_or_default().into();
            self.after_persist(Then::KeyAnswer(Box::new(Answered { tickets, frame })));
        }
    }

    /// What had to be durable before it is.
    pub(in super::super) fn send_key_answer(&mut self, answered: Answered) {
        let Answered { tickets, frame } = answered;
        let outputs =
            tickets.into_iter().map(|ticket| Output::Classic { ticket, done: ClassicDone::Answer(frame.clone()) });
        self.outputs.extend(outputs);
    }

    /// Gives up what did not come in time: a message whose parts are missing, and waiting for an answer.
    pub(in super::super) fn expire_key_parts(&mut self, now: Millis) {
        while self.key_parts.unfinished.front().is_some_and(|u| now.since(u.since) >= PARTS_WITHIN) {
            let gone = self.key_parts.unfinished.pop_front().map(|u| u.sid);
            self.count(MISSING, gone);
        }
        let over = self.key_parts.waiting.extract_if(.., |w| w.until <= now).flat_map(|w| w.tickets);
        let stored = over.map(|ticket| Output::Classic { ticket, done: ClassicDone::Stored });
        let stored: Vec<_> = stored.collect();
        self.outputs.extend(stored);
    }

    /// The store failed: tickets of those whose answer is waited for.
    pub(super) fn abandon_key_messages(&mut self) -> Vec<u64> {
        self.key_parts.waiting.drain(..).flat_map(|w| w.tickets).collect()
    }
}

impl Passed {
    pub(super) const fn ticket(&self) -> u64 {
        self.ticket
    }
}

// What the parts can carry has room for every KR1.
const _: () = assert!(fivefold_core::wire::key_message::KR1_LONGEST <= fivefold_waspmote::key_message::LONGEST);
