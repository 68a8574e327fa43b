//! On any computer, with an EEPROM that can lose its power between any two bytes.

use super::*;
use fivefold_waspmote::hardened::{Sealed, Window, Wish};
use fivefold_waspmote::key_message::Cut;

/// Loses its power after so many more bytes written.
struct Eeprom {
    cells: [u8; storage::BYTES as usize],
    left: usize,
}

impl Eeprom {
    fn new() -> Self {
        Self { cells: [0xFF; storage::BYTES as usize], left: usize::MAX }
    }
}

impl Storage for Eeprom {
    fn read(&mut self, offset: u16, bytes: &mut [u8]) -> Result<(), Broken> {
        let at = usize::from(offset);
        bytes.copy_from_slice(&self.cells[at..at + bytes.len()]);
        Ok(())
    }

    fn write(&mut self, offset: u16, bytes: &[u8]) -> Result<(), Broken> {
        for (cell, byte) in self.cells[usize::from(offset)..].iter_mut().zip(bytes) {
            self.left = self.left.checked_sub(1).ok_or(Broken)?;
            *cell = *byte;
        }
        Ok(())
    }
}

const SERIAL: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF];
const FRAME: &[u8] = b"<=>\x06\x0d\x01\x23\x45\x67\x89\xAB\xCD\xEFn#\x07\x34\x55";
const RENEWAL: Renewal<'static> = Renewal { server: [9; 4], enrolment_key: &[3; 32], random: &[0x5A; 80] };

fn boot(eeprom: &mut Eeprom) -> Node {
    Node::boot(eeprom, Peer::Gateway, SERIAL).unwrap()
}

fn sealed(node: &mut Node, eeprom: &mut Eeprom) -> Result<Vec<u8>, Fault> {
    let mut out = [0; 255];
    node.seal(eeprom, [1, 2, 3, 4], FRAME, &mut out).map(|len| out[..len].to_vec())
}

/// Stands for RSA: nothing here decrypts.
fn public(number: &mut [u8; 256]) -> Result<(), Fault> {
    number.iter_mut().for_each(|byte| *byte = !*byte);
    Ok(())
}

fn kr2(kr1: &[u8; KR1]) -> Vec<u8> {
    let kr1 = Kr1::parse(kr1).unwrap();
    let fresh = FreshKey::new(&[0x5A; 16], &[0x5A; 32]).unwrap();
    let message = fivefold_core::e5_renewal::key_message::MessageHash::of(&kr1);
    part(&fresh.accept(&kr1.header, &message).to_bytes())
}

fn part(message: &[u8]) -> Vec<u8> {
    let mut out = [0; 100];
    let len = Cut::new(SERIAL, 1, message, 100).unwrap().part(0).unwrap().emit(&mut out).unwrap();
    out[..len].to_vec()
}

#[test]
fn a_node_seals_what_its_peer_opens_and_takes_the_answer_once() {
    let mut eeprom = Eeprom::new();
    let mut node = boot(&mut eeprom);
    assert_eq!(sealed(&mut node, &mut eeprom), Err(Fault::NoKey));
    node.install(&mut eeprom, Epoch(4), &[7; 32]).unwrap();
    let frame = sealed(&mut node, &mut eeprom).unwrap();
    let key = Key::from_bytes([7; 32]);
    let opened = Sealed::parse(&frame).unwrap().open(&key).unwrap();
    assert_eq!((opened.frame(), opened.number().sequence), (FRAME, 0));
    let said = Answer { wish: Wish::Renew, time: 9 };
    let answer = said.seal(Peer::Gateway, &SERIAL, &opened, &key).unwrap();
    assert_eq!(node.open_answer(&frame), Err(Fault::Refused));
    assert_eq!(node.open_answer(&answer), Ok(said));
    assert_eq!(node.open_answer(&answer), Err(Fault::Unasked));
    assert_eq!(node.seal(&mut eeprom, [0; 4], &FRAME[..10], &mut [0; 255]), Err(Fault::Frame));
    assert_eq!(node.seal(&mut eeprom, [0; 4], FRAME, &mut [0; 30]), Err(Fault::Room));
}

#[test]
fn no_number_comes_twice_wherever_the_power_is_lost() {
    let (mut eeprom, mut window, mut seen) = (Eeprom::new(), Window::new(), 0);
    boot(&mut eeprom).install(&mut eeprom, Epoch(1), &[7; 32]).unwrap();
    for cut in 0..200 {
        let mut node = boot(&mut eeprom);
        eeprom.left = cut % 19;
        for _ in 0..cut {
            let Ok(frame) = sealed(&mut node, &mut eeprom) else { break };
            let opened = Sealed::parse(&frame).unwrap().open(&Key::from_bytes([7; 32])).unwrap();
            window.mark(window.check(opened.number().sequence).expect("a number came twice"));
            seen += 1;
        }
    }
    assert!(seen > 1000, "{seen} frames");
}

#[test]
fn a_key_without_its_numbers_is_not_used() {
    let mut eeprom = Eeprom::new();
    boot(&mut eeprom).install(&mut eeprom, Epoch(3), &[7; 32]).unwrap();
    eeprom.cells[..16].fill(0);
    let mut node = boot(&mut eeprom);
    assert_eq!((sealed(&mut node, &mut eeprom), node.epoch()), (Err(Fault::NoKey), Epoch(3)));
    let mut kr1 = [0; KR1];
    node.offer(&mut eeprom, &RENEWAL, public, &mut kr1).unwrap();
    node.take_answer(&mut eeprom, &kr2(&kr1)).unwrap();
    assert!(sealed(&mut node, &mut eeprom).is_ok());
}

#[test]
fn a_key_message_is_sent_again_as_it_was_until_its_own_answer_comes() {
    let mut eeprom = Eeprom::new();
    let mut node = boot(&mut eeprom);
    let (mut first, mut again) = ([0; KR1], [0; KR1]);
    assert_eq!(node.take_answer(&mut eeprom, &part(&[1; 40])), Err(Fault::Unasked));
    node.offer(&mut eeprom, &RENEWAL, public, &mut first).unwrap();
    let other = Renewal { random: &[0xA5; 80], ..RENEWAL };
    boot(&mut eeprom).offer(&mut eeprom, &other, |_| panic!("made again"), &mut again).unwrap();
    assert_eq!(first, again);
    let mut node = boot(&mut eeprom);
    let answer = kr2(&first);
    for bit in 0..8 * answer.len() {
        let mut bad = answer.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // The id of a part is nobody's but the sender's.
        if bit / 8 != 13 {
            assert_eq!(node.take_answer(&mut eeprom, &bad), Err(Fault::Refused), "bit {bit}");
        }
    }
    assert_eq!(node.epoch(), Epoch(0));
    node.take_answer(&mut eeprom, &answer).unwrap();
    assert_eq!((node.epoch(), boot(&mut eeprom).epoch()), (Epoch(1), Epoch(1)));
    assert_eq!(node.take_answer(&mut eeprom, &answer), Err(Fault::Unasked));
    let opened =
        Sealed::parse(&sealed(&mut node, &mut eeprom).unwrap()).unwrap().open(&Key::from_bytes([0x5A; 32])).unwrap();
    assert_eq!(opened.number().epoch, Epoch(1));
    // The next one is for the next epoch.
    node.offer(&mut eeprom, &other, public, &mut again).unwrap();
    assert_eq!(Kr1::parse(&again).unwrap().header.epoch, KeyEpoch(2));
}

#[test]
fn the_power_may_go_at_any_byte_of_a_renewal() {
    for cut in 0..440 {
        let mut eeprom = Eeprom::new();
        let mut node = boot(&mut eeprom);
        eeprom.left = cut;
        let mut kr1 = [0; KR1];
        let sent = node.offer(&mut eeprom, &RENEWAL, public, &mut kr1).is_ok();
        let taken = sent && node.take_answer(&mut eeprom, &kr2(&kr1)).is_ok();
        eeprom.left = usize::MAX;
        let mut node = boot(&mut eeprom);
        if !taken {
            // What was sent is sent again, and answered again.
            let mut again = [0; KR1];
            node.offer(&mut eeprom, &RENEWAL, public, &mut again).unwrap();
            assert!(!sent || again == kr1, "cut at {cut}");
            // Also when the key was written and the node did not come to know.
            if node.epoch() == Epoch(0) {
                node.take_answer(&mut eeprom, &kr2(&again)).unwrap();
            }
        }
        assert_eq!(node.epoch(), Epoch(1), "cut at {cut}");
        assert!(sealed(&mut node, &mut eeprom).is_ok(), "cut at {cut}");
    }
}

#[test]
fn what_rsa_left_half_done_does_not_leave() {
    let mut eeprom = Eeprom::new();
    let mut kr1 = [0; KR1];
    let failed = boot(&mut eeprom).offer(&mut eeprom, &RENEWAL, |_| Err(Fault::Rsa), &mut kr1);
    assert_eq!((failed, &kr1[24..280]), (Err(Fault::Rsa), &[0; 256][..]));
}
