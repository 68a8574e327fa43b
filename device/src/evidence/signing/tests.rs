//! Batches without a node around them.

use super::engine::Engine as _;
use super::*;
use core::cell::Cell;
use fivefold_core::id::Did;
use fivefold_core::proof::statement::SignedLevel;
use fivefold_core::proof::{KeyName, SignAlg, SignError};
use fivefold_core::suite::sha256;
use fivefold_core::wire::control::{Batch, Uplink};

const SUBJECT: Subject = Subject { level: SignedLevel::Cloud, did: Did([1; 8]), epoch: Epoch(1), bctx: None };

/// Signs as long as it works.
struct Key<'w>(&'w Cell<bool>);

impl Sign for Key<'_> {
    fn alg(&self) -> SignAlg {
        SignAlg::Ed25519
    }

    fn key_name(&self) -> KeyName {
        KeyName([0; 8])
    }

    fn sign(&self, message: &[&[u8]]) -> Result<Signature, SignError> {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&sha256(message));
        if self.0.get() { Ok(Signature(signature)) } else { Err(SignError::SignerFailed) }
    }
}

struct Device<'w> {
    evidence: Signing<Key<'w>, 16>,
    chain: Chain,
    now: Millis,
}

impl<'w> Device<'w> {
    fn new(works: &'w Cell<bool>, downlink: Downlink, every: u8) -> Self {
        let mut evidence = Signing::new(Key(works), downlink);
        evidence.sign_every(every);
        evidence.blind_with(Some(BlindKey::new([3; 32])));
        Self { evidence, chain: Chain::NONE, now: Millis(0) }
    }

    fn tend(&mut self, close: Close, waiting: &[u64]) {
        let on_its_way = (|_, piv| waiting.contains(&piv), |_| false);
        let made = self.evidence.tend(self.now, close, self.chain, on_its_way);
        self.chain = made.unwrap_or(self.chain);
    }

    fn read(&mut self, piv: u32) {
        self.tend(Close::Before(piv), &[]);
        self.evidence.sealed(self.now, &SUBJECT, self.chain.number + 1, piv, b"reading");
        self.tend(Close::WhenDue, &[]);
    }

    /// What goes out, one control map after the other.
    fn says(&mut self, room: usize, mut hear: impl FnMut(&Uplink<'_>)) -> usize {
        let mut out = [0; 101];
        let mut count = 0;
        while let Some(item) = self.evidence.item(self.now, room, |_| false, &mut out) {
            assert!(item.len <= room);
            hear(&Uplink::parse(&out[..item.len]).unwrap());
            self.evidence.item_sealed(item);
            count += 1;
        }
        count
    }

    fn events(&mut self) -> heapless::Vec<Event, EVENTS> {
        core::iter::from_fn(|| self.evidence.event()).collect()
    }
}

#[test]
fn while_a_reading_is_on_its_way_nothing_is_signed_again() {
    let works = Cell::new(true);
    let mut device = Device::new(&works, Downlink::Heard, 3);
    (7..10).for_each(|piv| device.read(piv));
    assert_eq!(device.says(84, |_| {}), 1);
    let first = device.chain;
    let lacks = BatchState::SignAgain { number: 1, bitmap: &[0b011] };
    device.evidence.told(&lacks);
    device.tend(Close::WhenDue, &[9]);
    assert_eq!((device.chain, device.says(84, |_| {})), (first, 0));
    // It came: the other side has all, and needs nothing.
    device.evidence.delivered(Epoch(1), 9);
    device.tend(Close::WhenDue, &[]);
    assert_eq!((device.chain, device.says(84, |_| {})), (first, 0));
    // Under another epoch that number is another message.
    device.evidence.told(&lacks);
    device.evidence.delivered(Epoch(2), 9);
    device.tend(Close::WhenDue, &[]);
    assert_ne!(device.chain.statement, first.statement);
    assert_eq!(device.says(84, |said| assert!(matches!(said.batch, Some(Batch::Signature { number: 1, .. })))), 1);
}

#[test]
fn a_signer_that_fails_is_asked_again_and_its_readings_wait() {
    let works = Cell::new(false);
    let mut device = Device::new(&works, Downlink::Heard, 2);
    device.read(1);
    device.read(2);
    assert_eq!(device.events()[..], [Event::SignerFailed]);
    assert_eq!((device.chain, device.says(84, |_| {})), (Chain::NONE, 0));
    assert_eq!(device.evidence.closes_at(), Some(Millis(RETRY)));
    works.set(true);
    device.read(3);
    assert_eq!(device.chain, Chain::NONE, "not before its time");
    device.now = Millis(RETRY);
    device.tend(Close::WhenDue, &[]);
    assert_eq!(device.events()[..], [Event::BatchSigned { number: 1, readings: 3 }]);
}

#[test]
fn a_signer_that_never_works_costs_readings_their_signatures_and_nothing_else() {
    let works = Cell::new(false);
    let mut device = Device::new(&works, Downlink::Heard, 2);
    (0..40).for_each(|piv| device.read(piv));
    works.set(true);
    device.now = Millis(RETRY);
    device.tend(Close::WhenDue, &[]);
    // Of the last 16 leaf hashes those that stand in one batch.
    assert_eq!(device.events().last(), Some(&Event::BatchSigned { number: 1, readings: 8 }));
}

#[test]
fn a_number_too_far_from_the_first_begins_another_batch() {
    let works = Cell::new(true);
    let mut device = Device::new(&works, Downlink::Heard, 16);
    [5, 68, 69].into_iter().for_each(|piv| device.read(piv));
    assert_eq!(device.events()[..], [Event::BatchSigned { number: 1, readings: 2 }]);
}

#[test]
fn without_downlink_leaf_hashes_go_first_and_where_none_fits_the_signature_alone() {
    for (room, hashes) in [(84, 8), (30, 0)] {
        let works = Cell::new(true);
        let mut device = Device::new(&works, Downlink::None, 32);
        (0..8).for_each(|piv| device.read(piv));
        let (mut given, mut pieces) = (0, 0);
        device.says(room, |said| match (&said.leaves, &said.batch) {
            (Some(leaves), None) => {
                assert_eq!((usize::from(leaves.first_index), pieces), (given, 0));
                given += leaves.iter().count();
            }
            (None, Some(_)) => pieces += 1,
            other => panic!("{other:?}"),
        });
        assert_eq!((given, pieces), (hashes, if room > 80 { 1 } else { 4 }));
    }
}

#[test]
fn pieces_of_one_size_make_the_whole_and_begin_anew_when_the_room_shrinks() {
    let works = Cell::new(true);
    let mut device = Device::new(&works, Downlink::Heard, 4);
    (0..4).for_each(|piv| device.read(piv));
    let mut out = [0; 101];
    let item = device.evidence.item(Millis(0), 47, |_| false, &mut out).unwrap();
    device.evidence.item_sealed(item);
    let mut whole = heapless::Vec::<u8, 101>::new();
    whole.extend_from_slice(&[0xA1, 0x01]).unwrap();
    let mut next = 0;
    device.says(38, |said| {
        let Some(Batch::Chunk { number: 1, index, count: 3, bytes }) = said.batch else { panic!("{said:?}") };
        assert_eq!(index, next);
        whole.extend_from_slice(bytes).unwrap();
        next += 1;
    });
    let said = Uplink::parse(&whole).unwrap();
    assert!(matches!(said.batch, Some(Batch::Signature { number: 1, first_piv: 0, bitmap: [0x0F], .. })));
}

#[test]
fn readings_wait_while_four_batches_have_something_left_to_say() {
    let works = Cell::new(true);
    let mut device = Device::new(&works, Downlink::Heard, 1);
    (0..4).for_each(|piv| device.read(piv));
    assert!(device.evidence.is_full());
    assert_eq!(device.says(84, |_| {}), 4);
    assert!(!device.evidence.is_full());
    device.evidence.told(&BatchState::Complete { number: 2 });
    assert_eq!(device.events().last(), Some(&Event::BatchComplete(2)));
}
