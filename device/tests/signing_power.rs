//! Power is cut at every byte of every write while readings are signed: number and prev of a statement are on flash before its
//! signature leaves, so that no two statements ever bear one number.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;

use fivefold_core::e3_cloud::E3;
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::oscore::judge_tiny_request;
use fivefold_core::profile::{Profile, Radio, Sign as Signs};
use fivefold_core::proof::{KeyName, Sign, SignAlg, SignError, Signature};
use fivefold_core::suite::sha256;
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{Outer, Protected};
use fivefold_core::wire::control::{Batch, Uplink};
use fivefold_device::evidence::{Downlink, Signing};
use fivefold_device::renewal::NoCurve;
use fivefold_device::storage::RECORD;
use fivefold_device::{Entropy, Node, Output, Slots};
use world::{ALG, Flash, e3};

const SID: Sid = Sid(0x0a17);
const READINGS: u8 = 4;

/// Signs with what stands for a signature, and notes which statement it stands for.
struct Notary<'n>(&'n RefCell<BTreeMap<[u8; 64], Vec<u8>>>);

impl Sign for Notary<'_> {
    fn alg(&self) -> SignAlg {
        SignAlg::Ed25519
    }

    fn key_name(&self) -> KeyName {
        KeyName([7; 8])
    }

    fn sign(&self, message: &[&[u8]]) -> Result<Signature, SignError> {
        let statement = message.last().unwrap();
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&sha256(&[statement]));
        self.0.borrow_mut().insert(signature, statement.to_vec());
        Ok(Signature(signature))
    }
}

/// What one life comes to: the flash it leaves, and the signatures that left, by number.
struct Life {
    flash: Flash,
    writes: usize,
    said: Vec<(u64, [u8; 64])>,
}

/// A life on this flash. The power goes after `power` bytes of writes.
fn live(flash: Flash, seed: u8, power: Option<usize>, notes: &RefCell<BTreeMap<[u8; 64], Vec<u8>>>) -> Life {
    let mut settings = world::settings(SID, Profile::ToCloud);
    (settings.policy.radio, settings.policy.sign, settings.policy.batch) = (Radio::Ip, Signs::Batch, 2);
    let (mut slots, record) = Slots::open(Flash { power, writes: 0, ..flash }).unwrap();
    let entropy = Entropy::check(core::array::from_fn(|n| (n as u8).wrapping_mul(5) ^ seed)).unwrap();
    let evidence = Signing::<_, 16>::new(Notary(notes), Downlink::Heard);
    let secrets = world::secrets(SID, Epoch(1));
    let mut node: Node<8, NoCurve, _> =
        Node::boot_signing(Millis(0), settings, &secrets, (None, evidence), record, &entropy).unwrap();
    let c3 = e3(SID, Epoch(1)).context_for_peer(SID, Epoch(1), None, ALG).unwrap();
    let (mut said, mut taken, mut now) = (Vec::new(), 0, Millis(0));
    'life: while now < Millis(30_000) {
        node.handle_timeout(now);
        while let Some(output) = node.poll() {
            match output {
                Output::Persist(record) if slots.write(&record).is_err() => break 'life,
                Output::Datagram(datagram) => {
                    let request = Protected::parse_request(&datagram, Outer::Strict).unwrap();
                    let mut plain = [0; 160];
                    let piv = request.option.piv.unwrap();
                    let opened = c3.open_request(piv, request.ciphertext, &mut plain).unwrap();
                    let payload = judge_tiny_request::<E3>(opened.plaintext()).unwrap();
                    if let Ok(Uplink { batch: Some(Batch::Signature { number, signature, .. }), .. }) =
                        Uplink::parse(payload)
                    {
                        said.push((number, *signature));
                    }
                }
                _ => {}
            }
        }
        if taken < READINGS && node.send(now, &[0x82, 0x01, taken]).is_ok() {
            taken += 1;
        }
        now = now.plus(1_000);
    }
    let flash = slots.into_storage();
    Life { writes: flash.writes, flash: Flash { power: None, ..flash }, said }
}

/// Which numbers left; each may have left more than once.
fn numbers(said: &[(u64, [u8; 64])]) -> Vec<u64> {
    let mut numbers: Vec<u64> = said.iter().map(|s| s.0).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[test]
fn no_number_bears_two_statements_wherever_the_power_goes() {
    let notes = RefCell::new(BTreeMap::new());
    let whole = live(Flash::default(), 1, None, &notes);
    assert_eq!(numbers(&whole.said), [1, 2]);
    let (mut cuts, mut lost) = (0, 0);
    for power in 0..=whole.writes * RECORD {
        notes.borrow_mut().clear();
        let first = live(Flash::default(), 1, Some(power), &notes);
        let second = live(first.flash, 2, None, &notes);
        let mut statements = BTreeMap::new();
        for (number, signature) in first.said.iter().chain(&second.said) {
            let before = statements.insert(*number, *signature);
            assert!(before.is_none_or(|b| b == *signature), "two statements under {number}, cut after {power} bytes");
        }
        // Each life goes on, and each statement names one that was made before it, or none.
        assert_eq!(numbers(&second.said).len(), 2, "cut after {power} bytes");
        let notes = notes.borrow();
        for signature in statements.values() {
            let statement = &notes[signature];
            let previous = &statement[statement.len() - 32..];
            let known = |s: &Vec<u8>| sha256(&[s]) == previous;
            assert!(previous == [0; 32] || notes.values().any(known), "cut after {power} bytes");
        }
        cuts += 1;
        lost += usize::from(numbers(&first.said).len() < 2);
    }
    println!("{cuts} cuts, {lost} of them before all was said");
    assert!(lost > 0 && lost < cuts);
}
