//! Signing keys of devices, over a book on disk: which are taken, and what becomes of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::process::Command;

use fivefold_core::id::{Did, Net};
use fivefold_core::profile::{Overrides, Policy, Profile, Sign};
use fivefold_core::proof::possession::{SigningPoint, SigningPublic};
use fivefold_core::suite::agreement::{Agree as _, PublicX};
use fivefold_keep::ca::{Authority, DEVICE_DAYS};
use fivefold_keep::device_key::{DeviceAlg, DeviceSigningKey};
use fivefold_keep::registry::{DeviceKey, FirstContexts, KeyOrigin, NewDevice, Registry, Replaces, Signer, draw_key};
use fivefold_keep::sign::{AgreementKey, SigningKey};
use fivefold_keep::vault::Vault;

const NOW: u64 = 1_790_000_000;

struct Book {
    registry: Registry,
    vault: Vault,
    authority: Authority,
    net: Net,
    folder: tempfile::TempDir,
}

impl Book {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::create(folder.path()).unwrap();
        let mut registry = Registry::create(
            &folder.path().join("registry.db"),
            fivefold_keep::registry::By::new("test", "here", "test", 1),
        )
        .unwrap();
        let net = registry.add_network(&vault, "n", Profile::ToCloud, None).unwrap().net;
        let (authority, _) = Authority::create("test").unwrap();
        Self { registry, vault, authority, net, folder }
    }

    fn device(&mut self, sign: Sign) -> (Did, PublicX) {
        let x = draw_key().unwrap().0.public_x();
        (self.device_with(sign, x), x)
    }

    fn device_with(&mut self, sign: Sign, x: PublicX) -> Did {
        let policy = Policy { sign, ..Policy::new(Profile::ToCloud) };
        let key = Some(DeviceKey { x, first: FirstContexts::Agreed });
        let (net, overrides) = (self.net, Overrides::NONE);
        let new = NewDevice { did: None, sid: None, net, policy, overrides, words: None, key };
        self.registry.add_device(&self.vault, &new, NOW).unwrap().0.did
    }

    fn signer(&self, did: Did, key: &SigningPublic, at: u64) -> Signer {
        let certified = self.authority.certify_device(did, key, at, DEVICE_DAYS).unwrap();
        Signer::new(did, key, KeyOrigin::Device, &certified, at)
    }

    fn enter(&mut self, did: Did, key: &SigningPublic, replaces: Replaces, at: u64) -> Result<Signer, String> {
        let signer = self.signer(did, key, at);
        self.registry.enter_signer(&signer, replaces).map_err(|e| e.to_string())
    }
}

fn point() -> SigningPublic {
    SigningPublic::from_spki(SigningKey::generate().unwrap().0.spki()).unwrap()
}

#[test]
fn a_key_stays_in_the_book_for_ever_and_one_of_them_is_in_force() {
    let mut b = Book::new();
    let (did, _) = b.device(Sign::Batch);
    let (first, second) = (point(), point());
    let entered = b.enter(did, &first, Replaces::Nothing, NOW).unwrap();
    assert_eq!((entered.spki.as_slice(), entered.revoked_at), (&first.spki()[..], None));
    // The same request once more, years later: a newer certificate for the same key.
    let again = b.enter(did, &first, Replaces::Nothing, NOW + 400 * 86_400).unwrap();
    assert_eq!((again.certified_at, again.not_after), (NOW, entered.not_after + 400 * 86_400));
    let refused = b.enter(did, &second, Replaces::Nothing, NOW + 5).unwrap_err();
    assert!(refused.contains("--replace"), "{refused}");
    b.enter(did, &second, Replaces::TheOneInForce, NOW + 6).unwrap();
    let all = b.registry.signers_of(did).unwrap();
    assert_eq!(all.iter().map(|s| s.revoked_at).collect::<Vec<_>>(), [Some(NOW + 6), None]);
    let refused = b.enter(did, &first, Replaces::TheOneInForce, NOW + 7).unwrap_err();
    assert!(refused.contains("counts for nothing any more"), "{refused}");
    assert_eq!(b.registry.revoke_signer(did, NOW + 8).unwrap().spki, second.spki()[..]);
    assert_eq!(b.registry.signer(did).unwrap(), None);
    assert!(b.registry.revoke_signer(did, NOW + 9).is_err());
    assert_eq!(b.registry.device(did).unwrap().revoked_at, None, "a key is revoked alone");
}

#[test]
fn whoever_revokes_a_device_revokes_its_signing_key_in_the_same_second() {
    let mut b = Book::new();
    let (did, _) = b.device(Sign::None);
    let key = point();
    b.enter(did, &key, Replaces::Nothing, NOW).unwrap();
    let version = b.registry.version().unwrap();
    b.registry.revoke_device(did, NOW + 3).unwrap();
    assert_eq!(b.registry.version().unwrap(), version + 1);
    b.registry.revoke_device(did, NOW + 9).unwrap();
    assert_eq!(b.registry.signers().unwrap()[0].revoked_at, Some(NOW + 3));
    let refused = b.enter(did, &point(), Replaces::TheOneInForce, NOW + 10).unwrap_err();
    assert!(refused.contains("revoked"), "{refused}");
}

#[test]
fn a_key_with_another_use_of_another_device_or_that_anybody_guesses_is_refused_by_name() {
    let mut b = Book::new();
    let (used, gauge) = (point(), SigningKey::generate().unwrap().0);
    let gauge = SigningPublic::from_spki(gauge.spki()).unwrap();
    let (one, _) = b.device(Sign::None);
    b.enter(one, &used, Replaces::Nothing, NOW).unwrap();
    // A DH key whose point is known: it is looked at by x, whatever its y.
    let did = b.device_with(Sign::None, gauge.coordinate());
    let (other, _) = b.device(Sign::None);
    let mut off: [u8; 64] = point().as_bytes().try_into().unwrap();
    off[63] ^= 1;
    let off = SigningPublic::P256(SigningPoint(off));
    let zero = SigningPublic::P256(SigningPoint([0; 64]));
    // Of Ed25519: another device's, its negative, and one of order 2, under which anybody signs.
    let seal = DeviceSigningKey::generate(DeviceAlg::Ed25519).unwrap().0.public();
    b.enter(one, &seal, Replaces::TheOneInForce, NOW + 1).unwrap();
    let mut negative: [u8; 32] = seal.as_bytes().try_into().unwrap();
    negative[31] ^= 0x80;
    let mut second_order = [0xFF; 32];
    (second_order[0], second_order[31]) = (0xEC, 0x7F);
    // Whatever y: half of a key is enough to know it by.
    let weak = |scalar: [u8; 32]| {
        let x = AgreementKey::from_random(&scalar).unwrap().public_x();
        let mut key = [0x77; 64];
        key[..32].copy_from_slice(&x.0);
        SigningPublic::P256(SigningPoint(key))
    };
    let mut three = [0; 32];
    three[31] = 3;
    for (whose, key, why) in [
        (did, gauge, "is its DH key: a key has one use"),
        (other, gauge, "is the DH key of device"),
        (other, used, "has this signing key already"),
        (other, off, "no point of the curve"),
        (other, zero, "infinity"),
        (other, seal, "has this signing key already"),
        (other, SigningPublic::Ed25519(negative), "has this signing key already"),
        (other, SigningPublic::Ed25519(second_order), "bytes of this key are not random"),
        (other, weak(three), "AR-08"),
        (other, weak([0x42; 32]), "AR-08"),
    ] {
        let refused = b.enter(whose, &key, Replaces::Nothing, NOW).unwrap_err();
        assert!(refused.contains(why), "`{refused}`: `{why}`");
        assert_eq!(b.registry.signer(whose).unwrap(), None);
    }
    // Nor does a signing key become the DH key of a device.
    let key = Some(DeviceKey { x: used.coordinate(), first: FirstContexts::Agreed });
    let (net, policy) = (b.net, Policy::new(Profile::ToCloud));
    let new = NewDevice { did: None, sid: None, net, policy, overrides: Overrides::NONE, words: None, key };
    let refused = b.registry.add_device(&b.vault, &new, NOW).unwrap_err().to_string();
    assert!(refused.contains("AR-26"), "{refused}");
    let refused = b.registry.enrol_again(&b.vault, other, key.as_ref(), NOW).unwrap_err().to_string();
    assert!(refused.contains("AR-26"), "{refused}");
}

#[test]
fn what_was_made_elsewhere_stays_so_in_the_book() {
    let mut b = Book::new();
    let (did, _) = b.device(Sign::None);
    let mut signer = b.signer(did, &point(), NOW);
    signer.origin = KeyOrigin::Elsewhere;
    b.registry.enter_signer(&signer, Replaces::Nothing).unwrap();
    assert_eq!(b.registry.signers().unwrap()[0].origin, KeyOrigin::Elsewhere);
}

#[test]
fn a_book_of_before_has_no_signing_keys_until_it_is_opened_for_changes() {
    let mut b = Book::new();
    let (did, _) = b.device(Sign::None);
    let path = b.folder.path().join("registry.db");
    drop(b.registry);
    let sql = "DROP TABLE signing_keys; DROP TABLE network_signing; PRAGMA user_version = 2";
    rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let reader = Registry::open_read_only(&path).unwrap();
    assert_eq!((reader.signers().unwrap(), reader.network_signing(b.net).unwrap()), (Vec::new(), None));
    drop(reader);
    b.registry = Registry::open(&path, fivefold_keep::registry::By::new("test", "here", "test", 1)).unwrap();
    b.enter(did, &point(), Replaces::Nothing, NOW).unwrap();
    b.registry.set_network_signing("n", Some(8)).unwrap();
    assert_eq!(b.registry.network_signing(b.net).unwrap(), Some(8));
    b.registry.set_network_signing("n", None).unwrap();
    assert_eq!(b.registry.network_signing(b.net).unwrap(), None);
}

/// Somebody who has none of our code: OpenSSL, where it is installed (`./ci.sh` sees to that).
#[test]
fn openssl_verifies_a_devices_certificate_and_takes_it_for_no_party_of_tls() {
    let b = Book::new();
    let did = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 1]);
    let signer = b.signer(did, &point(), NOW);
    let (ca, leaf) = (b.folder.path().join("ca.pem"), b.folder.path().join("device.pem"));
    std::fs::write(&ca, b.authority.certificate()).unwrap();
    std::fs::write(&leaf, &signer.chain).unwrap();
    let openssl = |with: &[&str]| {
        Command::new("openssl").args(with).output().expect("openssl is needed for this test: apt install openssl")
    };
    let (at, ca, leaf) = ((NOW + 3600).to_string(), ca.to_str().unwrap(), leaf.to_str().unwrap());
    let verify =
        |at: &str, ca: &str| openssl(&["verify", "-x509_strict", "-attime", at, "-CAfile", ca, leaf]).status.success();
    assert!(verify(&at, ca));
    assert!(!verify(&(NOW + 6 * 365 * 86_400).to_string(), ca), "six years later");
    assert!(!verify(&at, leaf), "its own authority it is not");
    let text = String::from_utf8(openssl(&["x509", "-in", leaf, "-noout", "-text"]).stdout).unwrap();
    assert!(text.contains("URI:urn:dev:mac:acde480000000001"), "{text}");
    assert!(text.contains("Digital Signature") && !text.contains("Extended Key Usage"), "{text}");
    assert_eq!(signer.chain_der().len(), 1);
}
