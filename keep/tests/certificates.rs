//! Who is certified, and who is not: every rule of docs/protocol.md 10.1 over a book on disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use fivefold_core::e4_channel::GatewayName;
use fivefold_core::id::{Did, Sid};
use fivefold_core::profile::Profile;
use fivefold_core::time::Millis;
use fivefold_keep::ca::{Authority, Role, SpkiHash};
use fivefold_keep::enrol::{Keys, Refused, Request, Token};
use fivefold_keep::registry::{
    Deed, Event, Gateway, IssuedTo, NotIssued, ReceiptSigner, Registry, RegistryError, Word,
};
use fivefold_keep::sign::SigningKey;
use fivefold_keep::tls::{Anchor, Identity, Serial};
use fivefold_keep::vault::Vault;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const NOW: u64 = 1_790_000_000;
const DAY: u64 = 86_400;
const HOUR: u64 = 3600;

fn by_operator(at: u64) -> Word<'static> {
    Word { who: "operator", at }
}

struct Book {
    registry: Registry,
    ca: Anchor,
    authority: Authority,
    issuing: Authority,
    gateways: Vec<Gateway>,
    _folder: tempfile::TempDir,
}

impl Book {
    /// Two gateways of one network, and the issuing key that a cloud would have.
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
        let ca = Anchor::from_pem(authority.certificate().as_bytes()).unwrap();
        let (certificate, key) = authority.create_issuer(NOW, 3650).unwrap();
        let issuing = Authority::load(&certificate, &key).unwrap();
        let mut gateways = Vec::new();
        for (i, name) in ["north", "south"].into_iter().enumerate() {
            let (gateway, sid) = registry.next_gateway(net).unwrap();
            let (did, primary) = (Did([2 + i as u8; 8]), i == 0);
            let gateway = Gateway {
                gateway,
                net,
                name: name.into(),
                sid: Sid(sid.0),
                did,
                primary,
                receipt_keys: Vec::new(),
                revoked_at: None,
            };
            registry.add_gateway(&gateway).unwrap();
            gateways.push(gateway);
        }
        Self { registry, ca, authority, issuing, gateways, _folder: folder }
    }

    fn invite(&mut self, which: usize) -> Token {
        self.registry.invite_gateway(&self.gateways[which], NOW + 72 * HOUR, by_operator(NOW)).unwrap()
    }

    fn enrol(&mut self, token: &Token, request: &Request, at: u64) -> Result<IssuedTo, NotIssued> {
        self.registry.enrol_gateway(&self.issuing, token, request, at)
    }

    fn renew(&mut self, serial: &Serial, request: &Request, at: u64) -> Result<IssuedTo, NotIssued> {
        self.registry.renew_gateway(&self.issuing, serial, request, at)
    }

    /// A gateway that is enrolled: its keys, and the serial number of its certificate.
    fn enrolled(&mut self, which: usize) -> (Keys, Serial) {
        let token = self.invite(which);
        let (keys, request) = asks(self.gateways[which].certified_as());
        let issued = self.enrol(&token, &request, NOW).unwrap();
        let serial = identity(&issued, &keys).serial().clone();
        (keys, serial)
    }

    fn in_force(&self, serial: &Serial) -> bool {
        self.registry.roll().unwrap().is_in_force(serial)
    }

    fn deeds(&self) -> Vec<(String, Deed)> {
        self.registry.history().unwrap().into_iter().map(|e| (e.who, e.deed)).collect()
    }
}

fn asks(name: GatewayName) -> (Keys, Request) {
    let keys = Keys::draw().unwrap();
    let request = Request::parse(keys.request(name).unwrap().as_bytes()).unwrap();
    (keys, request)
}

fn identity(issued: &IssuedTo, keys: &Keys) -> Identity {
    Identity::from_pkcs8(issued.chain.as_bytes(), &keys.tls).unwrap()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, NotIssued>) -> Refused {
    match outcome.unwrap_err() {
        NotIssued::Refused(refused) => refused,
        other => panic!("{other}"),
    }
}

#[test]
fn a_token_enrols_its_gateway_once_and_a_lost_answer_is_given_again() {
    let mut b = Book::new();
    let name = b.gateways[0].certified_as();
    let token = b.invite(0);
    let before = b.registry.version().unwrap();
    let (keys, request) = asks(name);
    let issued = b.enrol(&token, &request, NOW).unwrap();
    let identity = identity(&issued, &keys);
    assert_eq!(identity.gateway().unwrap(), name);
    identity.check_chain(&b.ca, Millis(NOW * 1000)).unwrap();
    assert!(b.in_force(identity.serial()));
    assert_eq!(b.registry.gateway("north").unwrap().receipt_keys, [request.receipts_spki()]);
    assert_eq!(b.registry.version().unwrap(), before, "gateways are pushed nothing for it");
    // The same request again, even later: the same answer. Any other: none.
    assert_eq!(b.enrol(&token, &request, NOW + 80 * HOUR).unwrap().chain, issued.chain);
    let (_, other) = asks(name);
    assert_eq!(refused(b.enrol(&token, &other, NOW)), Refused::TokenUsed);
    // The same TLS key with another key for receipts is another request.
    let mixed = Keys { tls: keys.tls.clone(), ..Keys::draw().unwrap() };
    let mixed = Request::parse(mixed.request(name).unwrap().as_bytes()).unwrap();
    assert_eq!(refused(b.enrol(&token, &mixed, NOW)), Refused::TokenUsed);
    assert!(b.in_force(identity.serial()), "nothing was lost");
    let grant = b.registry.grant(&issued, b.authority.certificate()).unwrap();
    assert_eq!((grant.name.as_str(), grant.id.as_str(), grant.sid.as_str()), ("north", "00000001", "0001"));
}

#[test]
fn a_token_that_is_too_old_unknown_or_another_gateways_is_refused_by_name() {
    let mut b = Book::new();
    let (north, south) = (b.gateways[0].certified_as(), b.gateways[1].certified_as());
    let token = b.invite(0);
    let (_, request) = asks(north);
    assert_eq!(refused(b.enrol(&token, &request, NOW + 72 * HOUR)), Refused::TokenExpired);
    assert_eq!(refused(b.enrol(&Token::draw(north).unwrap(), &request, NOW)), Refused::TokenUnknown);
    let (_, foreign) = asks(south);
    assert_eq!(refused(b.enrol(&token, &foreign, NOW)), Refused::Name);
    let elsewhere = GatewayName { net: fivefold_core::id::Net(99), ..north };
    assert_eq!(refused(b.enrol(&token, &asks(elsewhere).1, NOW)), Refused::Name);
    // A token of another deployment is unknown here.
    let other = Book::new().invite(0);
    assert_eq!(refused(b.enrol(&other, &request, NOW)), Refused::TokenUnknown);
    // None of that used it up. A newer one replaces it.
    let newer = b.invite(0);
    assert_eq!(refused(b.enrol(&token, &request, NOW)), Refused::TokenUnknown);
    b.enrol(&newer, &request, NOW).unwrap();
}

#[test]
fn the_book_keeps_no_token() {
    let mut b = Book::new();
    let token = b.invite(0);
    let text = token.danger_text().to_owned();
    let secret = text.rsplit('_').next().unwrap().to_owned();
    drop(b.registry);
    for entry in std::fs::read_dir(b._folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()));
    }
}

#[test]
fn enrolling_again_revokes_what_the_gateway_had() {
    let mut b = Book::new();
    let (_, old) = b.enrolled(0);
    let (_, south) = b.enrolled(1);
    let (_, new) = b.enrolled(0);
    assert!(!b.in_force(&old) && b.in_force(&new) && b.in_force(&south));
    assert_eq!(b.registry.gateway("north").unwrap().receipt_keys.len(), 1, "receipts under the old key too");
}

#[test]
fn a_gateway_renews_with_new_keys_while_old_and_new_are_valid_together() {
    let mut b = Book::new();
    let name = b.gateways[0].certified_as();
    let (_, serial) = b.enrolled(0);
    let (keys, request) = asks(name);
    let at = NOW + 60 * DAY;
    let issued = b.renew(&serial, &request, at).unwrap();
    let next = identity(&issued, &keys).serial().clone();
    assert!(next != serial && b.in_force(&serial) && b.in_force(&next));
    assert_eq!(b.registry.gateway("north").unwrap().receipt_keys.len(), 2);
    assert_eq!(b.renew(&serial, &request, at + HOUR).unwrap().chain, issued.chain, "a lost answer, again");
    // From the new one on, as from the old one.
    let (_, third) = asks(name);
    b.renew(&next, &third, at + DAY).unwrap();
}

#[test]
fn a_renewal_with_a_key_that_was_certified_before_is_refused() {
    let mut b = Book::new();
    let (north, south) = (b.gateways[0].certified_as(), b.gateways[1].certified_as());
    let (keys, serial) = b.enrolled(0);
    let (_, serial_of_south) = b.enrolled(1);
    let at = NOW + 60 * DAY;
    let again = |keys: &Keys, name| Request::parse(keys.request(name).unwrap().as_bytes()).unwrap();
    assert_eq!(refused(b.renew(&serial, &again(&keys, north), at)), Refused::KeyUsed, "its own old keys");
    let fresh = Keys::draw().unwrap();
    let half = Keys { receipts: keys.receipts.clone(), tls: fresh.tls.clone() };
    assert_eq!(refused(b.renew(&serial, &again(&half, north), at)), Refused::KeyUsed, "the old key for receipts");
    let crossed = Keys { receipts: keys.tls.clone(), tls: fresh.tls.clone() };
    assert_eq!(
        refused(b.renew(&serial, &again(&crossed, north), at)),
        Refused::KeyUsed,
        "the old TLS key as the other"
    );
    assert_eq!(refused(b.renew(&serial_of_south, &again(&keys, south), at)), Refused::KeyUsed, "another gateway's");
    assert!(b.in_force(&serial) && b.in_force(&serial_of_south));
    b.renew(&serial, &again(&fresh, north), at).unwrap();
}

#[test]
fn a_renewal_for_another_name_or_too_often_is_refused() {
    let mut b = Book::new();
    let (north, south) = (b.gateways[0].certified_as(), b.gateways[1].certified_as());
    let (_, serial) = b.enrolled(0);
    let at = NOW + 60 * DAY;
    assert_eq!(refused(b.renew(&serial, &asks(south).1, at)), Refused::Name);
    assert_eq!(refused(b.renew(&Serial(vec![7; 16]), &asks(north).1, at)), Refused::Gateway, "nobody's certificate");
    for _ in 0..4 {
        b.renew(&serial, &asks(north).1, at).unwrap();
    }
    assert_eq!(refused(b.renew(&serial, &asks(north).1, at)), Refused::TooMany);
    b.renew(&serial, &asks(north).1, at + DAY + 1).unwrap();
}

#[test]
fn a_certificate_that_has_ended_is_renewed_by_the_operators_word_and_once() {
    let mut b = Book::new();
    let north = b.gateways[0].certified_as();
    let (_, serial) = b.enrolled(0);
    let late = NOW + 200 * DAY;
    assert_eq!(refused(b.renew(&serial, &asks(north).1, late)), Refused::Gateway);
    let gateway = b.gateways[0].clone();
    b.registry.allow_late_renewal(&gateway, late + DAY, by_operator(late)).unwrap();
    assert_eq!(refused(b.renew(&serial, &asks(north).1, late + 2 * DAY)), Refused::Gateway, "the word has run out");
    let (_, request) = asks(north);
    let issued = b.renew(&serial, &request, late).unwrap();
    assert_eq!(b.renew(&serial, &request, late).unwrap().chain, issued.chain, "a lost answer, again");
    assert_eq!(refused(b.renew(&serial, &asks(north).1, late)), Refused::Gateway, "the word is used up");
    assert_eq!(b.deeds().iter().map(|(_, d)| *d).filter(|d| *d == Deed::LateAllowed).count(), 1);
}

#[test]
fn nothing_certifies_a_revoked_gateway() {
    let mut b = Book::new();
    let north = b.gateways[0].certified_as();
    let (_, serial) = b.enrolled(0);
    let token = b.invite(0);
    let gateway = b.gateways[0].clone();
    b.registry.allow_late_renewal(&gateway, NOW + DAY, by_operator(NOW)).unwrap();
    let before = b.registry.history_version().unwrap();
    let revoked = b.registry.revoke_gateway("north", by_operator(NOW + 5)).unwrap();
    assert_eq!(revoked.revoked_at, Some(NOW + 5));
    assert!(!b.in_force(&serial) && b.registry.history_version().unwrap() > before);
    assert_eq!(refused(b.enrol(&token, &asks(north).1, NOW)), Refused::TokenUnknown);
    assert_eq!(refused(b.renew(&serial, &asks(north).1, NOW)), Refused::Gateway);
    let signed = b.registry.sign_gateway(&b.authority, &asks(north).1, by_operator(NOW));
    assert_eq!(refused(signed), Refused::Gateway);
    assert!(matches!(b.registry.invite_gateway(&revoked, NOW, by_operator(NOW)), Err(RegistryError::Refused(_))));
    assert!(b.registry.allow_late_renewal(&revoked, NOW, by_operator(NOW)).is_err());
    let lines = b.registry.history_version().unwrap();
    b.registry.revoke_gateway("north", by_operator(NOW + 9)).unwrap();
    assert_eq!(b.registry.history_version().unwrap(), lines, "twice is once");
}

#[test]
fn a_request_that_was_carried_to_the_operator_is_signed_by_the_ca_itself() {
    let mut b = Book::new();
    let north = b.gateways[0].certified_as();
    let (keys, request) = asks(north);
    let issued = b.registry.sign_gateway(&b.authority, &request, by_operator(NOW)).unwrap();
    let identity = identity(&issued, &keys);
    identity.check_chain(&b.ca, Millis(NOW * 1000)).unwrap();
    assert!(b.in_force(identity.serial()));
    let again = b.registry.sign_gateway(&b.authority, &request, by_operator(NOW + 1)).unwrap();
    assert_eq!(again.chain, issued.chain);
    let nobody = GatewayName { gateway: fivefold_core::id::GatewayId(77), ..north };
    let signed = b.registry.sign_gateway(&b.authority, &asks(nobody).1, by_operator(NOW));
    assert_eq!(refused(signed), Refused::Gateway);
}

#[test]
fn every_deed_leaves_a_line_with_who_when_serial_and_key() {
    let mut b = Book::new();
    let north = b.gateways[0].certified_as();
    let (keys, serial) = b.enrolled(0);
    let (_, request) = asks(north);
    b.renew(&serial, &request, NOW + 60 * DAY).unwrap();
    b.registry.revoke_gateway("north", by_operator(NOW + 61 * DAY)).unwrap();
    let history = b.registry.history().unwrap();
    let first = Request::parse(keys.request(north).unwrap().as_bytes()).unwrap();
    let (old, new) = (SpkiHash::of(first.tls_spki()), SpkiHash::of(request.tls_spki()));
    let line = |e: &Event| (e.at - NOW, e.who.split(' ').next().unwrap().to_owned(), e.deed, e.spki);
    assert_eq!(
        history.iter().map(line).collect::<Vec<_>>(),
        [
            (0, "operator".to_owned(), Deed::Invited, None),
            (0, "token".to_owned(), Deed::Issued, Some(old)),
            (60 * DAY, "certificate".to_owned(), Deed::Renewed, Some(new)),
            (61 * DAY, "operator".to_owned(), Deed::Revoked, Some(old)),
            (61 * DAY, "operator".to_owned(), Deed::Revoked, Some(new)),
        ]
    );
    assert_eq!(history[2].who, format!("certificate {serial}"));
    assert!(history.iter().all(|e| e.gateway == Some(north.gateway)));
    let certificates = b.registry.certificates().unwrap();
    assert_eq!(certificates.len(), 2);
    assert!(certificates.iter().all(|c| c.revoked_at == Some(NOW + 61 * DAY)));
    assert_eq!(history[1].serial.as_ref(), Some(&certificates[0].serial));
}

#[test]
fn a_revoked_certificate_of_the_cloud_is_pushed_under_a_new_version() {
    let mut b = Book::new();
    let issue = |b: &Book| b.authority.issue(&Role::Cloud(vec!["localhost".into()]), NOW, 90).unwrap().certified;
    let (one, two) = (issue(&b), issue(&b));
    for certified in [&one, &two] {
        b.registry.enter_certificate(None, certified, by_operator(NOW)).unwrap();
    }
    assert!(b.registry.revoked_of_cloud().unwrap().is_empty());
    let before = b.registry.version().unwrap();
    b.registry.revoke_cloud_certificate(&one.serial, by_operator(NOW)).unwrap();
    assert_eq!(b.registry.version().unwrap(), before + 1);
    let revoked = b.registry.revoked_of_cloud().unwrap();
    assert_eq!(revoked.iter().map(ToString::to_string).collect::<Vec<_>>(), std::slice::from_ref(&one.serial));
    for wrong in [one.serial.as_str(), "77"] {
        let error = b.registry.revoke_cloud_certificate(wrong, by_operator(NOW)).unwrap_err();
        assert!(error.to_string().contains("fivefold cloud certificates"), "{error}");
    }
    // A gateway's certificate is no certificate of the cloud.
    let (_, serial) = b.enrolled(0);
    assert!(b.registry.revoke_cloud_certificate(&serial.to_string(), by_operator(NOW)).is_err());
    assert!(b.in_force(&serial));
}

#[test]
fn every_key_for_receipts_is_certified_with_its_gateway_and_revoked_with_it() {
    let mut b = Book::new();
    let (first, serial) = b.enrolled(0);
    let spki = |keys: &Keys| SigningKey::from_pkcs8(&keys.receipts).unwrap().spki().to_vec();
    let (second, request) = asks(b.gateways[0].certified_as());
    b.renew(&serial, &request, NOW + 60 * DAY).unwrap();
    let signers = b.registry.receipt_signers().unwrap();
    let of = |signers: &[ReceiptSigner], keys: &Keys| signers.iter().find(|s| s.spki == spki(keys)).unwrap().clone();
    let [old, new] = [&first, &second].map(|keys| of(&signers, keys));
    assert_eq!((signers.len(), old.gateway, old.revoked_at), (2, b.gateways[0].gateway, None));
    assert!(old.certificate_over(NOW, NOW + 89 * DAY).is_some() && old.certificate_over(NOW, NOW + 91 * DAY).is_none());
    assert!(new.certificate_over(NOW, NOW + 61 * DAY).is_none(), "it was not certified then");
    assert_eq!(new.certificates[0].chain.len(), 2, "its own and the issuing key's");
    // Nothing of them is in the roll: no connection is made with one.
    let (_, x509) = X509Certificate::from_der(&new.certificates[0].chain[0]).unwrap();
    assert!(!b.in_force(&Serial(x509.raw_serial().to_vec())));
    assert_eq!(b.registry.certificates().unwrap().len(), 2);
    assert_eq!(b.registry.certify_receipts(&b.issuing, by_operator(NOW + 61 * DAY)).unwrap(), 0);
    // Who enrols again has lost the keys of before.
    let token = b.invite(0);
    let (third, request) = asks(b.gateways[0].certified_as());
    b.enrol(&token, &request, NOW + 2 * DAY).unwrap();
    let signers = b.registry.receipt_signers().unwrap();
    let revoked = [&first, &second, &third].map(|keys| of(&signers, keys).revoked_at);
    assert_eq!(revoked, [Some(NOW + 2 * DAY), Some(NOW + 2 * DAY), None]);
}

#[test]
fn keys_for_receipts_of_an_earlier_version_are_certified_once() {
    let mut b = Book::new();
    let mut spki = Vec::new();
    for (at, days) in [(0, 90), (1, 90), (1, 1)] {
        let name = b.gateways[at].certified_as();
        let tls = b.authority.issue(&Role::Gateway(name.net, name.gateway), NOW, days).unwrap().certified;
        spki.push(SigningKey::generate().unwrap().0.spki().to_vec());
        let owner = Some((name.gateway, spki.last().unwrap().as_slice()));
        b.registry.enter_certificate(owner, &tls, by_operator(NOW)).unwrap();
    }
    b.registry.revoke_gateway("north", by_operator(NOW)).unwrap();
    assert!(b.registry.receipt_signers().unwrap().is_empty());
    let version = b.registry.history_version().unwrap();
    let later = by_operator(NOW + 2 * DAY);
    assert_eq!(
        b.registry.certify_receipts(&b.issuing, later).unwrap(),
        1,
        "not of a revoked one, nor one that has ended"
    );
    let signers = b.registry.receipt_signers().unwrap();
    assert_eq!((signers.len(), &signers[0].spki), (1, &spki[1]));
    assert!(b.registry.history_version().unwrap() > version, "a cloud that runs hears of it");
    assert_eq!(b.registry.certify_receipts(&b.authority, later).unwrap(), 0);
    // The operator renews the certificate for TLS and leaves the key: it needs a certificate that lasts as long.
    let name = b.gateways[1].certified_as();
    let tls = b.authority.issue(&Role::Gateway(name.net, name.gateway), NOW + 60 * DAY, 90).unwrap().certified;
    b.registry.enter_certificate(Some((name.gateway, &spki[1])), &tls, by_operator(NOW + 60 * DAY)).unwrap();
    assert_eq!(b.registry.certify_receipts(&b.authority, by_operator(NOW + 60 * DAY)).unwrap(), 1);
    let signers = b.registry.receipt_signers().unwrap();
    assert_eq!((signers.len(), signers[0].certificates.len()), (1, 2));
    assert!(signers[0].certificate_over(NOW + 120 * DAY, NOW + 140 * DAY).is_some());
}
