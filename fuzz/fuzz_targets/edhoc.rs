//! EDHOC from outside: payloads for a server and for a device, and arbitrary plaintexts by whoever has the keys of a run.
//! The curve is a stand-in, for speed: the shared secret is the two public keys added up, byte by byte.
#![no_main]

use fivefold_core::e3_cloud::E3;
use fivefold_core::e5_renewal::{
    Announce, Credential, ErrorMessage, Identity, Initiator, Message, PeerKid, Responder, ToServer,
};
use fivefold_core::id::{Epoch, Sid};
use fivefold_core::suite::agreement::{Agree, PointRefused, PublicX, SharedX};
use fivefold_core::suite::{AeadSchedule, Alg, hkdf_expand, hkdf_expand_into, hkdf_extract, sha256};
use libfuzzer_sys::fuzz_target;

const SID: Sid = Sid(0x0A17);
const EPOCH: Epoch = Epoch(5);

struct Sum([u8; 32]);

fn sum(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    core::array::from_fn(|i| a[i].wrapping_add(b[i]))
}

impl Agree for Sum {
    fn from_random(random: &[u8; 32]) -> Option<Self> {
        Some(Self(*random))
    }

    fn public_x(&self) -> PublicX {
        PublicX(self.0)
    }

    fn agree(&self, peer: &PublicX) -> Result<SharedX, PointRefused> {
        if peer.0[0] == 0xFF { Err(PointRefused) } else { Ok(SharedX::new(sum(&self.0, &peer.0))) }
    }
}

fn info(label: u8, th: &[u8; 32], length: u8) -> Vec<u8> {
    let mut info = vec![label, 0x58, 0x20];
    info.extend(th);
    if length >= 24 {
        info.push(0x18);
    }
    info.push(length);
    info
}

/// message_2 with any plaintext of up to 255 bytes, as somebody makes it who hears message_1: TH_2 and PRK_2e need no
/// static key.
fn message_2(h_message_1: &[u8; 32], g_x: &[u8; 32], plaintext: &[u8]) -> Vec<u8> {
    let g_y = [4; 32];
    let th_2 = sha256(&[&[0x58, 0x20], &g_y, &[0x58, 0x20], h_message_1]);
    let prk_2e = hkdf_extract(&th_2, &sum(g_x, &g_y));
    let mut ciphertext = vec![0; plaintext.len()];
    let info = info(0, &th_2, plaintext.len() as u8);
    hkdf_expand_into(&prk_2e, &[&info], &mut ciphertext).expect("short enough");
    ciphertext.iter_mut().zip(plaintext).for_each(|(c, p)| *c ^= p);
    let len = 32 + plaintext.len();
    let head = if len < 256 { vec![0x58, len as u8] } else { vec![0x59, (len >> 8) as u8, len as u8] };
    [&head[..], &g_y, &ciphertext].concat()
}

/// message_3 with any plaintext, as whoever made message_1 can make it.
fn message_3(prk_3e2m: &[u8; 32], th_3: &[u8; 32], plaintext: &[u8]) -> Vec<u8> {
    let key: [u8; 16] = hkdf_expand(prk_3e2m, &[&info(3, th_3, 16)]);
    let nonce: [u8; 13] = hkdf_expand(prk_3e2m, &[&info(4, th_3, 13)]);
    let aad = [&b"\x83\x68Encrypt0\x40\x58\x20"[..], th_3].concat();
    let mut body = plaintext.to_vec();
    let tag = AeadSchedule::new(Alg::AesCcm16_64_128, &key).seal(&nonce, &aad, &mut body);
    let len = body.len() + 8;
    let head = match len {
        0..24 => vec![0x40 | len as u8],
        24..256 => vec![0x58, len as u8],
        _ => vec![0x59, (len >> 8) as u8, len as u8],
    };
    [&head[..], &body, &tag].concat()
}

fuzz_target!(|bytes: &[u8]| {
    let (device_key, cloud_key) = (Sum([1; 32]), Sum([2; 32]));
    let device = Credential::device(SID, device_key.public_x());
    let cloud = Credential::peer(PeerKid::new(7).expect("below 18"), cloud_key.public_x());
    let on_device = Identity { key: &device_key, credential: &device };
    let at_cloud = Identity { key: &cloud_key, credential: &cloud };

    // As it comes.
    if let Ok(ToServer::Offer(offer)) = ToServer::parse(bytes) {
        assert_eq!(offer.as_bytes(), &bytes[1..]);
        if let Ok((session, message)) = Responder::<E3, _>::answer(&offer, Sum([4; 32]), SID, &at_cloud) {
            assert_eq!(session.epoch(), offer.epoch());
            assert!(message.as_bytes().len() == 47);
        }
    }
    if let Ok(error) = ErrorMessage::parse(bytes) {
        assert!(ErrorMessage::parse(error.to_message().as_bytes()).is_ok());
    }
    if let Ok(credential) = Credential::parse(bytes) {
        let mut out = [0; 4096];
        let n = credential.emit(&mut out).expect("it fits");
        assert_eq!(&out[..n], bytes);
    }
    if let Some(message) = Message::new(bytes) {
        assert_eq!(message.as_bytes(), bytes);
    }

    // To a device that waits, as it comes and as a plaintext.
    let offer = || Initiator::<E3, _>::offer(Sum([3; 32]), SID, EPOCH, Announce::Nothing).expect("an epoch like any");
    let (waiting, m1) = offer();
    if let Err(refused) = waiting.handle_message_2(bytes, &on_device, &cloud) {
        let _ = refused.session.map(|s| s.handle_message_2(bytes, &on_device, &cloud));
    }
    let h_message_1 = sha256(&[&m1.as_bytes()[1..]]);
    if bytes.len() < 200 {
        let forged = message_2(&h_message_1, &[3; 32], bytes);
        assert!(offer().0.handle_message_2(&forged, &on_device, &cloud).is_err());
    }

    // To a server that waits: what does not open costs nothing, and the true one is taken afterwards.
    let Ok(ToServer::Offer(read)) = ToServer::parse(m1.as_bytes()) else { panic!("our own message") };
    let (session, m2) = Responder::<E3, _>::answer(&read, Sum([4; 32]), SID, &at_cloud).expect("our own message");
    let refused = session.handle_message_3(bytes).expect_err("nobody has the key");
    let session = refused.session.expect("anybody can send this");
    let (waiting, m3) = offer().0.handle_message_2(m2.as_bytes(), &on_device, &cloud).expect("our own message");
    let Ok(ToServer::Proof { message_3: m3, .. }) = ToServer::parse(m3.as_bytes()) else { panic!("our own message") };
    let claimed = session.handle_message_3(m3).expect("our own message");
    let (_, m4) = claimed.verify(&device).expect("our own message");
    match waiting.handle_message_4(bytes) {
        Ok(_) => panic!("nobody has the key"),
        Err(refused) => {
            let _ = refused.session.map(|s| s.handle_message_4(m4.as_bytes()).expect("our own message"));
        }
    }

    // The same with any plaintext in message_3: the holder of message_1 without the device's key.
    let th_2 = sha256(&[&[0x58, 0x20], &[4; 32], &[0x58, 0x20], &h_message_1]);
    let prk_2e = hkdf_extract(&th_2, &sum(&[3; 32], &[4; 32]));
    let salt: [u8; 32] = hkdf_expand(&prk_2e, &[&info(1, &th_2, 32)]);
    let prk_3e2m = hkdf_extract(&salt, &sum(&[2; 32], &[3; 32]));
    let mut plaintext_2 = m2.as_bytes()[34..].to_vec();
    let mut keystream = vec![0; plaintext_2.len()];
    hkdf_expand_into(&prk_2e, &[&info(0, &th_2, 13)], &mut keystream).expect("short enough");
    plaintext_2.iter_mut().zip(keystream).for_each(|(p, k)| *p ^= k);
    let mut ccs = [0; Credential::LONGEST];
    let n = cloud.emit(&mut ccs).expect("it fits");
    let th_3 = sha256(&[&[0x58, 0x20], &th_2, &plaintext_2, &ccs[..n]]);
    let (session, _) = Responder::<E3, _>::answer(&read, Sum([4; 32]), SID, &at_cloud).expect("our own message");
    match session.handle_message_3(&message_3(&prk_3e2m, &th_3, bytes)) {
        Ok(claimed) => assert!(claimed.verify(&device).is_err()),
        // It opened; what is inside was no claim, or longer than is taken.
        Err(refused) => assert!(refused.session.is_none() || bytes.len() > 96),
    }
});
