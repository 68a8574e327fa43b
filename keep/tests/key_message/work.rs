//! Equal work for every cause, counted; how long it takes is measured by examples/key_message_timing.rs.

use std::sync::{Arc, Mutex};

use fivefold_core::wire::key_message::{Auth, KeyLen, KeyLevel, RsaSize};
use fivefold_keep::key_message::{
    DRAIN_MS, Decrypt, KeyMessages, Proof, ServerKey, SignatureRefused, Undecryptable, VerifyPss, refusal,
};

use crate::book::{BOOK, HOUR, NOW, SERIAL, accepted, device, h, proof, refused, server_key};

/// What was done with a key, in order: `verify`, or the ciphertext that was decrypted.
type Log = Arc<Mutex<Vec<Vec<u8>>>>;

struct Watched<T: ?Sized>(Box<T>, Log);

impl Decrypt for Watched<dyn Decrypt> {
    fn decrypt(&self, label: &[u8], c: &[u8], m: &mut [u8; RsaSize::LONGEST]) -> Result<usize, Undecryptable> {
        self.1.lock().unwrap().push(c.to_vec());
        self.0.decrypt(label, c, m)
    }
}

impl VerifyPss for Watched<dyn VerifyPss> {
    fn size(&self) -> RsaSize {
        self.0.size()
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureRefused> {
        self.1.lock().unwrap().push(b"verify".to_vec());
        self.0.verify(message, signature)
    }
}

/// The usual server, watched, and the ciphertext of its decoy.
fn watched() -> (KeyMessages, Log, Vec<u8>) {
    let log = Log::default();
    let (public, private, mut decoy) = server_key(2048).danger_into_parts();
    let ciphertext = decoy.ciphertext.clone();
    decoy.key = Box::new(Watched(decoy.key, Arc::clone(&log)));
    let private = Box::new(Watched(private, Arc::clone(&log)));
    let mut server = KeyMessages::new(KeyLevel::E3, DRAIN_MS);
    server.add_key(ServerKey::danger_foreign(public, private, decoy).unwrap()).unwrap();
    let Proof::Signature(key) = proof(RsaSize::Rsa2048, Auth::Signature) else { panic!() };
    let key = Box::new(Watched(key, Arc::clone(&log)));
    server.enrol(SERIAL, device(Proof::Signature(key), KeyLen::B32));
    log.lock().unwrap().clear();
    (server, log, ciphertext)
}

#[test]
fn every_refusal_costs_one_check_and_one_private_operation_and_c_is_decrypted_only_when_it_deserves_it() {
    let (mut server, log, decoy) = watched();
    let mut hour = NOW;
    let mut decrypted = 0;
    for case in BOOK["refused"].as_array().unwrap() {
        hour = hour.plus(HOUR);
        let message = h(&case["kr1"]);
        let reason = refused(&mut server, hour, &message);
        let done = std::mem::take(&mut *log.lock().unwrap());
        let [verify, ciphertext] = &done[..] else { panic!("{}: {} operations", case["id"], done.len()) };
        assert_eq!(verify, b"verify", "{}", case["id"]);
        // C that is no ordinary number is refused unread, and only after S.
        let ordinary = !case["id"].as_str().unwrap().starts_with("c-");
        let deserved =
            ordinary && [refusal::CIPHERTEXT.reason, "M has another length than keylen says"].contains(&reason.reason);
        assert_eq!(ciphertext[..], if deserved { message[24..280].to_vec() } else { decoy.clone() }, "{}", case["id"]);
        decrypted += usize::from(deserved);
    }
    assert_eq!(decrypted, 11);
}

#[test]
fn a_repeat_and_one_too_many_cost_the_same_and_are_not_decrypted() {
    let (mut server, log, decoy) = watched();
    let message = h(&BOOK["accepted"][0]["kr1"]);
    let unsaved = accepted(&mut server, NOW, &message);
    let _ = server.handle_durable(unsaved);
    assert_eq!(*log.lock().unwrap(), [b"verify".to_vec(), message[24..280].to_vec()]);
    for _ in 0..8 {
        log.lock().unwrap().clear();
        let _ = server.handle_message(NOW, &message);
        assert_eq!(*log.lock().unwrap(), [b"verify".to_vec(), decoy.clone()]);
    }
}
