//! RSA key messages a second at the server, from bytes to the answer after a durable write that costs nothing, beside the
//! library's bare private operation on the same ciphertexts, in turn and in one run.
//!
//! `cargo bench -p fivefold-keep --bench key_message -- SECONDS`: so long for each line.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use fivefold_core::e5_renewal::key_message::{EnrolmentKey, FreshKey};
use fivefold_core::id::Serial;
use fivefold_core::time::Millis;
use fivefold_core::wire::key_message::{Auth, HEADER, KeyEpoch, KeyLen, KeyLevel, RsaSize};
use fivefold_keep::key_message::{
    Chain, DRAIN_MS, Device, DeviceKey, DeviceSide, Identity, KeyMessages, Outcome, Proof, ServerKey,
};

const SERIAL: Serial = Serial([1; 8]);
/// Messages of a pass, each for the next epoch.
const MESSAGES: u32 = 256;
/// Messages that one side handles before it is the other's turn.
const TURN: usize = 32;
const HOUR_MS: u64 = 3_600_000;

fn enrolment_key() -> EnrolmentKey {
    EnrolmentKey::new([7; 32])
}

fn spki(pkcs8: &[u8]) -> Vec<u8> {
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    let key = PrivateDecryptingKey::from_pkcs8(pkcs8).unwrap().public_key();
    let spki: PublicKeyX509Der<'static> = key.as_der().unwrap();
    spki.as_ref().to_vec()
}

fn measure(size: RsaSize, auth: Auth, seconds: f64) {
    let (key, server_pkcs8) = ServerKey::generate(size).unwrap();
    let (_, device_pkcs8) = ServerKey::generate(size).unwrap();
    let identity = match auth {
        Auth::Mac => Identity::mac(enrolment_key()),
        Auth::Signature => Identity::signing(&device_pkcs8).unwrap(),
    };
    let side = DeviceSide::new(SERIAL, KeyLevel::E3, identity, &spki(&server_pkcs8)).unwrap();
    let offer = |epoch| side.offer(KeyEpoch(epoch), FreshKey::new(&[3; 16], &[epoch as u8; 32]).unwrap()).unwrap().0;
    let messages: Vec<Vec<u8>> = (1..=MESSAGES).map(offer).collect();

    let mut server = KeyMessages::new(KeyLevel::E3, DRAIN_MS);
    server.add_key(key).unwrap();
    let bare = OaepPrivateDecryptingKey::new(PrivateDecryptingKey::from_pkcs8(&server_pkcs8).unwrap()).unwrap();

    let (mut ours, mut theirs, mut count) = (Duration::ZERO, Duration::ZERO, 0u32);
    let mut ratios = Vec::new();
    while (ours + theirs).as_secs_f64() < seconds {
        let proof = match auth {
            Auth::Mac => Proof::Mac { key: enrolment_key(), size },
            Auth::Signature => Proof::Signature(Box::new(DeviceKey::from_spki(&spki(&device_pkcs8)).unwrap())),
        };
        server.enrol(SERIAL, Device { proof, keylen: KeyLen::B32, rsa1024_until: None, chain: Chain::new() });
        for (turn, messages) in messages.chunks(TURN).enumerate() {
            let began = Instant::now();
            for (at, message) in messages.iter().enumerate() {
                let epoch = (turn * TURN + at + 1) as u32;
                let now = Millis(u64::from(epoch) * HOUR_MS);
                let Outcome::Persist(unsaved) = server.handle_message(now, message) else { panic!("refused") };
                black_box(server.handle_durable(unsaved).to_bytes());
                let switch = server.handle_frame(now, SERIAL, KeyEpoch(epoch)).unwrap().unwrap();
                server.handle_switched(SERIAL, &switch);
                server.handle_timeout(now);
            }
            let own = began.elapsed();
            let began = Instant::now();
            for message in messages {
                let (label, rest) = message.split_at(HEADER);
                let mut m = [0; RsaSize::LONGEST];
                let c = &rest[..size.bytes()];
                black_box(bare.decrypt(&OAEP_SHA256_MGF1SHA256, c, &mut m, Some(label)).unwrap());
            }
            let other = began.elapsed();
            ratios.push(own.as_secs_f64() / other.as_secs_f64());
            (ours, theirs, count) = (ours + own, theirs + other, count + messages.len() as u32);
        }
    }
    ratios.sort_by(f64::total_cmp);
    let a_second = |time: Duration| f64::from(count) / time.as_secs_f64();
    let kind = match auth {
        Auth::Mac => "MAC",
        Auth::Signature => "signed",
    };
    println!(
        "RSA-{} {kind:6}: {:7.0} key messages a second; {:7.0} bare private operations; {:.3} times bare (median of {} turns)",
        size.bits(),
        a_second(ours),
        a_second(theirs),
        ratios[ratios.len() / 2],
        ratios.len(),
    );
}

fn main() {
    let seconds = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(5.0);
    for size in [RsaSize::Rsa2048, RsaSize::Rsa3072] {
        for auth in [Auth::Signature, Auth::Mac] {
            measure(size, auth, seconds);
        }
    }
}
