//! Around the SDK's engines: a rim in RAM, and the gateway and the cloud that answer.

use fivefold_core::e1_link::Received;
use fivefold_core::e2_gateway::E2Secret;
use fivefold_core::e3_cloud::E3Secret;
use fivefold_core::error::Rejected;
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::key::Key;
use fivefold_core::oscore::{AnswerNumber, judge_tiny_request};
use fivefold_core::profile::{Policy, Profile};
use fivefold_core::suite::Alg;
use fivefold_core::time::Millis;
use fivefold_core::wire::ieee802154::{Ack, Pan};
use fivefold_core::wire::mesh;
use fivefold_core::wire::tiny::{Inner, KidLength, Layers, Tiny, Within};
use fivefold_device::storage::{RECORD, Slot, Storage};
use fivefold_device::{Entropy, Secrets, Settings};

use crate::fail;
use crate::scene::{DEVICE, FRAME, GATEWAY, SALT, Station2, ascending};

/// What the device tells: 40 bytes, one template row of 20 values.
#[rustfmt::skip]
pub const ROW: &[u8; 40] = &[
    0x94, 0x01, 0x18, 100, 0x18, 101, 0x18, 102, 0x18, 103, 0x18, 104, 0x18, 105, 0x18, 106, 0x18, 107, 0x18, 108,
    0x18, 109, 0x18, 110, 0x18, 111, 0x18, 112, 0x18, 113, 0x18, 114, 0x18, 115, 0x18, 116, 0x18, 117, 0x18, 118,
];

/// How a control map begins that is about a signed batch.
const ITEM_1: &[u8] = &[0xA1, 0x01];

const EPOCH: Epoch = Epoch(1);
const E2_SECRET: [u8; 32] = [0x22; 32];
const E3_SECRET: [u8; 32] = [0x33; 32];

/// Two flash pages. A real one erases, writes and reads back.
pub struct Pages([[u8; RECORD]; 2]);

impl Pages {
    /// Pages that were never written.
    pub const fn blank() -> Self {
        Self([[0xFF; RECORD]; 2])
    }

    fn page(&mut self, slot: Slot) -> &mut [u8; RECORD] {
        let [a, b] = &mut self.0;
        match slot {
            Slot::A => a,
            Slot::B => b,
        }
    }
}

impl Storage for Pages {
    type Error = ();

    fn read(&mut self, slot: Slot, out: &mut [u8; RECORD]) -> Result<(), ()> {
        *out = *self.page(slot);
        Ok(())
    }

    fn write(&mut self, slot: Slot, bytes: &[u8; RECORD]) -> Result<(), ()> {
        *self.page(slot) = *bytes;
        Ok(())
    }
}

fn e2() -> E2Secret {
    E2Secret::new(E2_SECRET, SALT)
}

fn e3() -> E3Secret {
    let Some(secret) = E3Secret::new(&E3_SECRET, &SALT) else { fail("the E3 secret is refused") };
    secret
}

/// A device or relay one hop from its gateway, all of whose levels are on.
pub fn settings(who: (fivefold_core::id::Did, Sid)) -> Settings {
    Settings::new(who.0, who.1, Pan(0x4321), Policy::new(Profile::ToBoth), EPOCH)
}

/// Its secrets.
pub fn secrets() -> Secrets {
    let mut secrets = Secrets { e2: Some(e2()), e3: Some(e3()), ..Secrets::default() };
    if secrets.link.push((1, Key::new(ascending(0xc0)))).is_err() {
        fail("no room for the network key");
    }
    secrets
}

/// Randomness of one boot. QEMU has none; hardware has a generator.
pub fn entropy() -> Entropy {
    let Ok(entropy) = Entropy::check(ascending(7)) else { fail("the randomness is refused") };
    entropy
}

/// Bytes of the air.
pub type Air = [u8; FRAME];

/// Gives the station's HELLO or its answer to `hear`, until there is none.
pub fn speak(station: &mut Station2, now: Millis, air: &mut Air, mut hear: impl FnMut(&mut [u8])) {
    while let Some(frame) = station.poll_control(now, air) {
        hear(air.get_mut(..frame.len).unwrap_or_default());
    }
}

/// What the gateway makes of a frame: opens E1 and E2, has the cloud open E3, and answers. `None` for HELLOs.
///
/// The reading must be [`ROW`], but for messages about a signed batch.
#[inline(never)]
pub fn gateway(station: &mut Station2, now: Millis, frame: &[u8], out: &mut Air) -> Option<usize> {
    let mut heard = [0; FRAME];
    let heard = heard.get_mut(..frame.len())?;
    heard.copy_from_slice(frame);
    let (from, originator, payload) = match station.receive(now, heard) {
        Ok(Received::Deliver(d)) => (d.from, d.originator, d.payload),
        Ok(_) => return None,
        Err(refused) => unexpected("the gateway refuses a frame", refused),
    };
    let Ok(Tiny::Request { layers: Layers::C2OverC3, piv, ciphertext, .. }) = Tiny::parse(payload, KidLength::None)
    else {
        fail("no request of both levels")
    };
    let Ok(c2) = e2().context_for_peer(originator, EPOCH, None, Alg::AesCcm16_64_256) else { fail("no C2") };
    let (mut outer, mut inner, mut answer) = ([0; FRAME], [0; 32], [0; 48]);
    let Ok(opened) = c2.open_request(piv, ciphertext, &mut outer) else { fail("the gateway does not open E2") };
    let Ok(Inner::Same { ct3 }) = Inner::parse(opened.plaintext(), Within::Request) else { fail("no inner rule 01") };
    let len = cloud(originator, piv, ct3, &mut answer);
    let ct3 = answer.get(..len)?;
    let Ok(len) = (Inner::Same { ct3 }).emit(&mut inner) else { fail("no inner answer") };
    let plain = inner.get(..len)?;
    let request = opened.request();
    let number = AnswerNumber::Unnumbered(opened.unnumbered());
    let mut sealed = [0; 48];
    let Ok(len) = c2.seal_answer(&request, number, plain, &mut sealed) else { fail("the gateway does not answer") };
    let token = piv.value() as u8;
    let tiny = Tiny::Answer { layers: Layers::C2OverC3, token, piv: None, ciphertext: sealed.get(..len)? };
    let mut bytes = [0; 56];
    let Ok(len) = tiny.emit(&mut bytes) else { fail("no tiny answer") };
    let header = mesh::Header { hops: 5, originator: GATEWAY, destination: originator };
    let Ok(len) = station.seal(from, Ack::Request, Some(header), bytes.get(..len)?, out) else {
        fail("the gateway does not seal E1")
    };
    Some(len)
}

/// The cloud opens the reading and confirms it: 2.04.
#[inline(never)]
fn cloud(sid: Sid, piv: fivefold_core::oscore::PartialIv, ct3: &[u8], out: &mut [u8]) -> usize {
    let Ok(c3) = e3().context_for_peer(sid, EPOCH, None, Alg::AesCcm16_64_256) else { fail("no C3") };
    let mut plain = [0; FRAME];
    let Ok(opened) = c3.open_request(piv, ct3, &mut plain) else { fail("the cloud does not open E3") };
    let Ok(reading) = judge_tiny_request::<fivefold_core::e3_cloud::E3>(opened.plaintext()) else {
        fail("the cloud has no use for what is inside")
    };
    // A node's first message says that it booted, behind the reading.
    if !reading.starts_with(ROW) && !reading.starts_with(ITEM_1) {
        fail("the cloud has another reading than the device sent");
    }
    let request = opened.request();
    let number = AnswerNumber::Unnumbered(opened.unnumbered());
    let Ok(len) = c3.seal_answer(&request, number, &[0x44], out) else { fail("the cloud does not answer") };
    len
}

/// Ends the program, with the code of what was refused.
pub fn unexpected(what: &str, refused: Rejected) -> ! {
    crate::print(refused.reason);
    crate::print("\n");
    fail(what)
}

/// Who sends readings.
pub const NODE: (fivefold_core::id::Did, Sid) = DEVICE;
