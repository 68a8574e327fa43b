//! The stations of docs/protocol.md 16.4: a device, the relay beside it, and what they hold.

use fivefold_core::counter::{Counter, Lease};
use fivefold_core::e1_link::{
    E1, FixedNeighbours, Identity, LeaseWrite, Link, LinkKeys, LinkPolicy, Received, Station,
};
use fivefold_core::e2_gateway::{E2, E2Secret, Nesting, seal_both};
use fivefold_core::e3_cloud::{E3, E3Secret};
use fivefold_core::id::{Did, Epoch, Sid};
use fivefold_core::key::Key;
use fivefold_core::oscore::{Context, PartialIv, RequestId};
use fivefold_core::suite::Alg;
use fivefold_core::time::Millis;
use fivefold_core::wire::ieee802154::{Ack, MAX_FRAME, Pan};
use fivefold_core::wire::mesh;
use fivefold_core::wire::tiny::{Inner, KidLength, Layers, Tiny, Wants, Within};

use crate::fail;

/// Largest frame.
pub const FRAME: usize = MAX_FRAME;
/// The 40-byte message of all measurements.
pub const READING: &[u8; 40] = &[0x42; 40];
/// Its number at E2 and E3.
pub const NUMBER: u32 = 300;

/// Master salt of C2 and C3.
pub const SALT: [u8; 8] = [0x9e, 0x7c, 0xa9, 0x22, 0x23, 0x78, 0x63, 0x40];
/// Who sends readings.
pub const DEVICE: (Did, Sid) = (Did([0xac, 0xde, 0x48, 0, 0, 0, 0, 1]), Sid(0x0a17));
/// Who passes them on.
pub const RELAY: (Did, Sid) = (Did([0x70, 0xb3, 0xd5, 0x49, 0x90, 0x00, 0x0a, 0xbc]), Sid(0x0b02));
/// Short address of the gateway.
pub const GATEWAY: Sid = Sid(1);
const EPOCH: Epoch = Epoch(5);

/// E1 of one station with two neighbours at most.
pub type Station2 = Link<FixedNeighbours<2>, 2>;

/// Bytes that count up.
pub fn ascending<const N: usize>(first: u8) -> [u8; N] {
    core::array::from_fn(|i| first + i as u8)
}

fn link(me: (Did, Sid), station: Station, counter: u32, seed: u8) -> Station2 {
    let mut keys = LinkKeys::new();
    if keys.install(1, &Key::<E1, 16>::new(ascending(0xc0)), counter).is_err() {
        fail("the network key is refused");
    }
    keys.extend_lease(LeaseWrite { key_index: 1, bound: counter + 1024 });
    let identity = Identity { did: me.0, sid: me.1, pan: Pan(0x4321), station };
    Link::new(identity, LinkPolicy::default(), keys, FixedNeighbours::new(), [seed; 32])
}

/// A station that knows its neighbour.
fn station(me: (Did, Sid), other: (Did, Sid), counter: u32, heard: u32, seed: u8) -> Station2 {
    let mut link = link(me, Station::Node, counter, seed);
    if link.danger_assume_synced(other.0, other.1, 1, heard).is_err() {
        fail("the neighbour is refused");
    }
    link
}

/// A station that knows nobody.
#[inline(never)]
pub fn greeting(me: (Did, Sid)) -> Station2 {
    link(me, Station::Node, 0, 3)
}

/// A gateway that knows nobody.
#[inline(never)]
pub fn gateway() -> Station2 {
    link((Did([0x00, 0x13, 0xa2, 0x00, 0x41, 0xb2, 0xc3, 0xd4]), GATEWAY), Station::Gateway, 0, 4)
}

/// The device, next frame counter 5.
#[inline(never)]
pub fn device() -> Station2 {
    station(DEVICE, RELAY, 5, 0, 1)
}

/// The relay, next frame counter 77.
#[inline(never)]
pub fn relay() -> Station2 {
    station(RELAY, DEVICE, 77, 0, 2)
}

/// C3 of the device.
#[inline(never)]
pub fn c3() -> Context<E3> {
    let Some(secret) = E3Secret::new(&ascending::<32>(0), &SALT) else { fail("MS3 is refused") };
    let Ok(context) = secret.context_for_device(DEVICE.1, EPOCH, None, Alg::AesCcm16_64_256) else { fail("no C3") };
    context
}

/// C2 of the device.
#[inline(never)]
pub fn c2() -> Context<E2> {
    let secret = E2Secret::new(ascending(0x20), SALT);
    let Ok(context) = secret.context_for_device(DEVICE.1, EPOCH, None, Alg::AesCcm16_64_256) else { fail("no C2") };
    context
}

/// A sender number.
pub fn number(n: u32) -> Counter {
    let mut lease = Lease::resume(n, n + 1);
    lease.extend(n + 1);
    let Ok(counter) = lease.take() else { fail("no number") };
    counter
}

/// Puts a tiny frame into an E1 frame for the relay.
#[inline(never)]
pub fn frame(link: &mut Station2, tiny: &[u8], out: &mut [u8]) -> usize {
    let header = mesh::Header { hops: 5, originator: DEVICE.1, destination: GATEWAY };
    let Ok(len) = link.seal(RELAY.1, Ack::Request, Some(header), tiny, out) else { fail("E1 does not seal") };
    len
}

/// E1 alone around a reading.
#[inline(never)]
pub fn seal_plain(link: &mut Station2, reading: &[u8], out: &mut [u8]) -> usize {
    let tiny = Tiny::Plain { piv: PartialIv::from_value(NUMBER), kid: None, payload: reading };
    let mut bytes = [0; 64];
    let Ok(len) = tiny.emit(&mut bytes) else { fail("no tiny frame") };
    frame(link, bytes.get(..len).unwrap_or_default(), out)
}

fn plaintext<'b>(reading: &[u8], out: &'b mut [u8; 48]) -> &'b [u8] {
    let len = 2 + reading.len();
    if let Some(([code, marker], body)) = out.get_mut(..len).and_then(|o| o.split_first_chunk_mut::<2>()) {
        (*code, *marker) = (0x02, 0xFF);
        body.copy_from_slice(reading);
    }
    out.get(..len).unwrap_or_default()
}

fn frame_request(link: &mut Station2, layers: Layers, ciphertext: &[u8], out: &mut [u8]) -> usize {
    let piv = PartialIv::from_value(NUMBER);
    let tiny = Tiny::Request { layers, wants: Wants::Nothing, piv, bctx: None, kid: None, ciphertext };
    let mut bytes = [0; 80];
    let Ok(len) = tiny.emit(&mut bytes) else { fail("no tiny frame") };
    frame(link, bytes.get(..len).unwrap_or_default(), out)
}

/// E3, then E1.
#[inline(never)]
pub fn seal_e3(link: &mut Station2, c3: &Context<E3>, n: Counter, reading: &[u8], out: &mut [u8]) -> usize {
    let (mut plain, mut sealed) = ([0; 48], [0; 64]);
    let Ok((_, len)) = c3.seal_request(n, plaintext(reading, &mut plain), &mut sealed) else {
        fail("E3 does not seal")
    };
    frame_request(link, Layers::C3, sealed.get(..len).unwrap_or_default(), out)
}

/// E3, then E2 around it, then E1.
#[inline(never)]
pub fn seal_e2_e3(
    link: &mut Station2,
    c2: &Context<E2>,
    c3: &Context<E3>,
    n: Counter,
    reading: &[u8],
    out: &mut [u8],
) -> usize {
    let (mut plain, mut inner, mut sealed) = ([0; 48], [0; 64], [0; 72]);
    let plain = plaintext(reading, &mut plain);
    let Ok(both) = seal_both(c2, c3, n, plain, Nesting::Tiny, &mut inner, &mut sealed) else {
        fail("E2 does not seal")
    };
    frame_request(link, Layers::C2OverC3, sealed.get(..both.len).unwrap_or_default(), out)
}

/// What a relay does with a frame: opens it, and seals it for the next hop.
#[inline(never)]
pub fn pass_on(link: &mut Station2, frame: &mut [u8], out: &mut [u8]) -> usize {
    let Ok(Received::Forward(f)) = link.receive(Millis(0), frame) else { fail("the relay does not forward") };
    let Ok(len) = link.seal(GATEWAY, Ack::Request, Some(f.mesh), f.payload, out) else {
        fail("the relay does not seal")
    };
    len
}

/// Opens a frame for us.
#[inline(never)]
pub fn open_frame<'b>(link: &mut Station2, frame: &'b mut [u8]) -> &'b [u8] {
    let Ok(Received::Deliver(d)) = link.receive(Millis(0), frame) else { fail("the device does not open E1") };
    d.payload
}

fn request() -> RequestId {
    let Some(kid) = fivefold_core::oscore::Id::new(&DEVICE.1.to_bytes()) else { fail("no kid") };
    RequestId { kid, piv: PartialIv::from_value(NUMBER) }
}

fn answer<'b>(tiny: &'b [u8], layers: Layers) -> &'b [u8] {
    match Tiny::parse(tiny, KidLength::None) {
        Ok(Tiny::Answer { layers: l, ciphertext, .. }) if l == layers => ciphertext,
        _ => fail("no answer"),
    }
}

/// Opens an answer of the cloud; returns its code.
#[inline(never)]
pub fn open_answer_e3(link: &mut Station2, c3: &Context<E3>, frame: &mut [u8]) -> u8 {
    let ciphertext = answer(open_frame(link, frame), Layers::C3);
    code(c3, ciphertext)
}

fn code(c3: &Context<E3>, ciphertext: &[u8]) -> u8 {
    let mut plain = [0; 48];
    let Ok(opened) = c3.open_answer(&request(), None, ciphertext, &mut plain) else { fail("E3 does not open") };
    opened.plaintext().first().copied().unwrap_or(0)
}

/// Opens an answer of the cloud inside one of the gateway; returns its code.
#[inline(never)]
pub fn open_answer_e2_e3(link: &mut Station2, c2: &Context<E2>, c3: &Context<E3>, frame: &mut [u8]) -> u8 {
    let ciphertext = answer(open_frame(link, frame), Layers::C2OverC3);
    let mut plain = [0; 64];
    let Ok(opened) = c2.open_answer(&request(), None, ciphertext, &mut plain) else { fail("E2 does not open") };
    let Ok(Inner::Same { ct3 }) = Inner::parse(opened.plaintext(), Within::Answer) else { fail("no inner rule 01") };
    code(c3, ct3)
}
