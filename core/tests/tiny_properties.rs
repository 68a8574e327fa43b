//! Properties of docs/protocol.md 6: what is written is read, what is expanded is compressed, and no bytes panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_core::e2_gateway::E2;
use fivefold_core::e3_cloud::E3;
use fivefold_core::error::Code;
use fivefold_core::id::{BootContext, Sid};
use fivefold_core::oscore::{Id, OscoreOption, PartialIv, Plaintext, judge_answer, judge_request, judge_tiny_request};
use fivefold_core::time::Millis;
use fivefold_core::wire::coap::{Message, Outer, Protected};
use fivefold_core::wire::tiny::{
    Fragments, Inner, KidLength, Layers, REASSEMBLY_TIMEOUT, Reassembly, Tiny, Wants, Way, Within,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn layers() -> impl Strategy<Value = Layers> {
    prop_oneof![Just(Layers::C3), Just(Layers::C2), Just(Layers::C2OverC3)]
}

fn number() -> impl Strategy<Value = PartialIv> {
    prop_oneof![0u32..300, 0xFF00..0x1_0100u32, 0u32..0x100_0000].prop_map(PartialIv::from_value)
}

fn ciphertext() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 9..100)
}

fn kid_length() -> impl Strategy<Value = KidLength> {
    prop_oneof![Just(KidLength::None), Just(KidLength::Two)]
}

proptest! {
    #[test]
    fn a_request_is_read_expanded_and_compressed_as_it_was(
        layers in layers(), answer in any::<bool>(), piv in number(), bctx in option::of(any::<[u8; 8]>()),
        sid in any::<u16>(), k in kid_length(), ciphertext in ciphertext(),
    ) {
        let kid = (k == KidLength::Two).then_some(Sid(sid));
        let wants = if answer { Wants::Answer } else { Wants::Nothing };
        let tiny = Tiny::Request { layers, wants, piv, bctx: bctx.map(BootContext), kid, ciphertext: &ciphertext };
        let mut frame = [0; 256];
        let len = tiny.emit(&mut frame).unwrap();
        prop_assert_eq!(Tiny::parse(&frame[..len], k), Ok(tiny));
        prop_assert_eq!(len, tiny.emitted_len());

        let mut message = [0; 256];
        let len = tiny.expand(Some(Id::from(Sid(sid))), &mut message).unwrap();
        let protected = Protected::parse_request(&message[..len], Outer::Strict).unwrap();
        prop_assert_eq!(protected.option.piv, Some(piv));
        prop_assert_eq!(Tiny::compress(&protected, layers, Way::Up(k)), Some(tiny));
    }

    #[test]
    fn answers_and_downlink_requests_are_read_expanded_and_compressed_as_they_were(
        layers in layers(), token in any::<u8>(), piv in number(), own in option::of(number()),
        ciphertext in ciphertext(),
    ) {
        let ciphertext = &ciphertext[..];
        for (tiny, way) in [
            (Tiny::Answer { layers, token, piv: own, ciphertext }, Way::Down),
            (Tiny::Downlink { layers, token, piv, ciphertext }, Way::Down),
            (Tiny::DeviceAnswer { layers, token, ciphertext }, Way::Up(KidLength::None)),
        ] {
            let mut frame = [0; 256];
            let len = tiny.emit(&mut frame).unwrap();
            prop_assert_eq!(Tiny::parse(&frame[..len], KidLength::None), Ok(tiny));
            let mut message = [0; 256];
            let len = tiny.expand(Id::new(&[0xE2, 5]), &mut message).unwrap();
            let protected = match tiny {
                Tiny::Downlink { .. } => Protected::parse_request(&message[..len], Outer::Strict),
                _ => Protected::parse_answer(&message[..len]),
            }.unwrap();
            prop_assert_eq!(Tiny::compress(&protected, layers, way), Some(tiny));
        }
    }

    #[test]
    fn an_inner_rule_is_read_as_it_was_written(
        piv in number(), bctx in option::of(any::<[u8; 8]>()), ct3 in ciphertext(), code in any::<u8>(),
    ) {
        let ct3 = &ct3[..];
        let mut out = [0; 256];
        for (inner, within) in [
            (Inner::Same { ct3 }, Within::DeviceAnswer),
            (Inner::Explicit { piv, bctx: bctx.map(BootContext), ct3 }, Within::Request),
            (Inner::Explicit { piv, bctx: None, ct3 }, Within::Downlink),
            (Inner::Own { code, payload: ct3 }, Within::Answer),
        ] {
            let len = inner.emit(&mut out).unwrap();
            prop_assert_eq!(Inner::parse(&out[..len], within), Ok(inner));
        }
    }

    #[test]
    fn no_bytes_panic_and_what_parses_is_emitted_as_it_was(
        mut bytes in vec(any::<u8>(), 0..80), first in 0u8..0x40, steer in any::<bool>(), k in kid_length(),
    ) {
        if let (true, Some(rule)) = (steer, bytes.first_mut()) {
            *rule = first;
        }
        let mut out = [0; 256];
        if let Ok(tiny) = Tiny::parse(&bytes, k) {
            let len = tiny.emit(&mut out).unwrap();
            prop_assert_eq!(&out[..len], &bytes[..]);
            let _ = tiny.expand(Some(Id::from(Sid(1))), &mut out);
        }
        for within in [Within::Answer, Within::DeviceAnswer, Within::Downlink, Within::Request] {
            if let Ok(inner) = Inner::parse(&bytes, within) {
                let len = inner.emit(&mut out).unwrap();
                prop_assert_eq!(&out[..len], &bytes[..]);
            }
        }
        if let Ok(option) = OscoreOption::parse(&bytes) {
            let len = option.emit(&mut out).unwrap();
            prop_assert_eq!(&out[..len], &bytes[..]);
        }
        if let Some(inner) = Plaintext::parse(&bytes) {
            let len = inner.emit(&mut out).unwrap();
            prop_assert_eq!(&out[..len], &bytes[..]);
        }
        let _ = (judge_request::<E2>(&bytes), judge_request::<E3>(&bytes));
        let _ = (judge_tiny_request::<E3>(&bytes), judge_answer::<E3>(&bytes));
    }

    #[test]
    fn no_coap_bytes_panic_and_what_parses_is_emitted_as_it_was(
        mut bytes in vec(any::<u8>(), 4..80), token in 0u8..9, post in any::<bool>(),
    ) {
        bytes[0] = 0x40 | bytes[0] & 0x30 | token;
        if post {
            bytes[1] = 2;
        }
        let mut out = [0; 256];
        if let Ok(message) = Message::parse(&bytes) {
            let len = message.emit(&mut out).unwrap();
            prop_assert_eq!(&out[..len], &bytes[..]);
        }
        for outer in [Outer::Strict, Outer::StockClient] {
            if let Ok(protected) = Protected::parse_request(&bytes, outer) {
                let len = protected.emit(&mut out).unwrap();
                prop_assert_eq!(Protected::parse_request(&out[..len], Outer::Strict), Ok(protected));
            }
        }
        let _ = Protected::parse_answer(&bytes);
    }

    #[test]
    fn fragments_in_any_order_with_repeats_make_the_datagram(
        datagram in vec(any::<u8>(), 1..300), size in 1usize..100, seed in any::<u64>(),
    ) {
        prop_assume!(datagram.len().div_ceil(size) <= 128);
        let mut parts: Vec<_> = Fragments::new(&datagram, 7, size).unwrap().collect();
        let mut order = seed;
        for i in (1..parts.len()).rev() {
            order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            parts.swap(i, (order >> 33) as usize % (i + 1));
        }
        let mut reassembly = Reassembly::<300>::new();
        let count = parts.len();
        for (i, part) in parts.into_iter().enumerate() {
            let Tiny::Fragment { tag, index, last, bytes } = part else { panic!() };
            let whole = reassembly.take(Millis(0), tag, index, last, bytes).unwrap().map(<[u8]>::to_vec);
            if i + 1 == count {
                prop_assert_eq!(whole, Some(datagram.clone()));
            } else {
                prop_assert_eq!(whole, None);
                let repeat = reassembly.take(Millis(0), tag, index, last, bytes).unwrap();
                prop_assert_eq!(repeat, None);
            }
        }
    }

    #[test]
    fn no_fragments_panic(parts in vec((0u8..3, 0u8..128, any::<bool>(), vec(any::<u8>(), 0..40)), 1..40)) {
        let mut reassembly = Reassembly::<64>::new();
        for (tag, index, last, bytes) in parts {
            match reassembly.take(Millis(0), tag, index, last, &bytes) {
                Ok(Some(whole)) => prop_assert!(!whole.is_empty() && whole.len() <= 64),
                Ok(None) => {}
                Err(no) => prop_assert_eq!(no.code, Code::FragmentLost),
            }
        }
    }
}

#[test]
fn a_datagram_that_stays_incomplete_is_given_up_after_a_minute() {
    let mut reassembly = Reassembly::<64>::new();
    assert_eq!(reassembly.deadline(), None);
    assert_eq!(reassembly.take(Millis(5), 1, 0, false, b"abc"), Ok(None));
    assert_eq!(reassembly.deadline(), Some(Millis(5 + REASSEMBLY_TIMEOUT)));
    assert!(reassembly.expire(Millis(4 + REASSEMBLY_TIMEOUT)).is_ok());
    assert_eq!(reassembly.expire(Millis(5 + REASSEMBLY_TIMEOUT)).unwrap_err().code, Code::FragmentLost);
    assert!(reassembly.expire(Millis(6 + REASSEMBLY_TIMEOUT)).is_ok());
}

#[test]
fn fragments_that_contradict_each_other_are_dropped() {
    let steps: [&[(u8, bool, &[u8])]; 6] = [
        &[(0, false, b"abc"), (0, false, b"abd")],
        &[(0, false, b"abc"), (1, false, b"ab")],
        &[(0, false, b"abc"), (1, true, b"abcd")],
        &[(1, true, b"a"), (2, false, b"abc")],
        &[(2, false, b"abc"), (1, true, b"abc")],
        &[(2, true, b"abcd"), (0, false, b"abc")],
    ];
    for (i, step) in steps.iter().enumerate() {
        let mut reassembly = Reassembly::<64>::new();
        let verdicts: Vec<_> =
            step.iter().map(|(index, last, part)| reassembly.take(Millis(0), 1, *index, *last, part).is_ok()).collect();
        assert_eq!(verdicts, [true, false], "step {i}");
        assert_eq!(reassembly.deadline(), None, "step {i}");
    }
}

#[test]
fn a_datagram_longer_than_the_receiver_takes_is_dropped() {
    let datagram = [7; 65];
    let mut reassembly = Reassembly::<64>::new();
    let refused = Fragments::new(&datagram, 1, 16).unwrap().any(|part| {
        let Tiny::Fragment { tag, index, last, bytes } = part else { panic!() };
        reassembly.take(Millis(0), tag, index, last, bytes).is_err()
    });
    assert!(refused);
}

#[test]
fn a_datagram_needs_at_most_128_fragments() {
    assert!(Fragments::new(&[0; 128], 0, 1).is_some());
    assert!(Fragments::new(&[0; 129], 0, 1).is_none());
    assert!(Fragments::new(&[], 0, 1).is_none());
}

#[test]
fn rule_ids_that_are_not_listed_are_refused() {
    let body = [0x01; 60];
    for rule in 0..=0xFFu8 {
        let mut frame = body;
        frame[0] = rule;
        let listed = matches!(rule, 0x01..=0x03 | 0x05..=0x07 | 0x09..=0x0B | 0x0D..=0x13 | 0x17 | 0x19..=0x1B | 0x1F | 0x20..=0x37);
        assert_eq!(Tiny::parse(&frame, KidLength::None).is_ok(), listed, "{rule:02x}");
    }
}
