//! Evidence for strangers: only what is signed, logged and witnessed gets a bundle, and the rest is named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::signer::{Signer, malleated, signature_item, signing_world_by};
use common::*;
use fivefold_cloud::evidence::{Exported, Missing, export};
use fivefold_cloud::log::{Logging, Serving, WitnessConfig};
use fivefold_cloud::store::{LogRecord, Write};
use fivefold_core::id::{Did, Sid};
use fivefold_core::profile::{Mode, Policy, Profile};
use fivefold_core::proof::{Header, Sign1, SignAlg};
use fivefold_core::time::Millis;
use fivefold_evidence::bundle::{Bundle, Bundles, Heard};
use fivefold_evidence::checkpoint::LogKey;
use fivefold_evidence::cosignature::CosigningKey;
use fivefold_evidence::log::EntryKind;
use fivefold_evidence::note::Kind;
use fivefold_evidence::record::{Configured, Enrolment, Made, Revocations};
use fivefold_evidence::trust::{self, Trust};
use fivefold_evidence::verify::{Report, Verdict, verify_file};
use fivefold_keep::ca::{Authority, chain_der};
use fivefold_keep::device_key::DeviceAlg;
use fivefold_keep::registry::{ReceiptCertificate, ReceiptSigner, RegisteredTemplate};
use zeroize::Zeroizing;

const NOW_S: u64 = NOW.0 / 1000;

struct Station {
    world: World,
    node: Node,
    signer: Signer,
    logging: Logging,
    witnesses: [CosigningKey; 2],
    authority: Authority,
    _folder: tempfile::TempDir,
}

impl Station {
    fn new(witnesses: usize) -> Self {
        Self::by(witnesses, DeviceAlg::P256)
    }

    fn by(witnesses: usize, alg: DeviceAlg) -> Self {
        let (mut world, node, signer) = signing_world_by(Profile::ToCloud, Mode::Persistent, alg);
        let (authority, _) = Authority::create("operator").unwrap();
        signer.certify(&mut world, &authority);
        let folder = tempfile::tempdir().unwrap();
        let key = |n: u8| CosigningKey::from_seed(&format!("w{n}"), Kind::Witness, &Zeroizing::new([n; 32])).unwrap();
        let keys = [key(1), key(2)];
        let config = |k: &CosigningKey| WitnessConfig {
            url: "http://127.0.0.1:1".into(),
            keys: vec![k.vkey().clone()],
            ca: None,
        };
        let configs: Vec<_> = keys.iter().take(witnesses).map(config).collect();
        let log = LogKey::from_seed("fivefold.00000000/log", &Zeroizing::new([5; 32])).unwrap();
        let logging = Logging::open(folder.path(), log, &configs, Serving::ToNobody, world.cloud.memory()).unwrap();
        Self { world, node, signer, logging, witnesses: keys, authority, _folder: folder }
    }

    /// What the service queues of the operator's book.
    fn records(&self) {
        let device = &self.world.source.devices[0];
        let (did, net, sid) = (device.did, device.net, device.sid);
        let spki = &self.world.source.signers[0].spki;
        let enrolled = Enrolment { did, net, sid, spki, made: Made::OnDevice }.emit().unwrap();
        self.queue(EntryKind::Revocation, None, Revocations::default().emit().unwrap());
        self.queue(EntryKind::Enrolment, Some(did), enrolled);
        self.configured();
    }

    /// The same of the device's policy and its templates.
    fn configured(&self) {
        let device = &self.world.source.devices[0];
        let mut policy = [0; Policy::LONGEST];
        let len = device.policy.emit(&mut policy).unwrap();
        let templates = self.world.cloud.book().templates.hashes(device.net);
        let configured = Configured { did: device.did, policy: &policy[..len], templates }.emit().unwrap();
        self.queue(EntryKind::Policy, Some(device.did), configured);
    }

    fn queue(&self, kind: EntryKind, did: Option<Did>, record: Vec<u8>) {
        let mut write = Write::default();
        write.log.records = vec![LogRecord { kind, did, record }];
        self.world.cloud.memory().store().commit_now(write).unwrap();
    }

    fn reading(&mut self, n: u8) {
        let sent = self.sealed(n);
        self.world.post(&[sent.envelope()]);
    }

    fn sealed(&mut self, n: u8) -> Sent {
        self.signer.reading(&mut self.node, &[0x82, 0x01, 0x18, 0x64 + n])
    }

    /// Keys for receipts of both gateways get a certificate.
    fn certify_gateways(&mut self) {
        for gateway in [&self.world.gateway, &self.world.second] {
            let (name, spki) = (gateway.proven.name(), gateway.key.spki().to_vec());
            let certified = self.authority.certify_receipts(name, &spki, NOW_S - 60, 90).unwrap();
            let (not_before, not_after) = (certified.not_before, certified.not_after);
            let certificate = ReceiptCertificate { not_before, not_after, chain: chain_der(&certified.chain) };
            let (gateway, certificates) = (name.gateway, vec![certificate]);
            self.world.source.receipt_signers.push(ReceiptSigner { gateway, spki, certificates, revoked_at: None });
        }
        self.world.reload();
    }

    /// What a stranger believes: the operator's CA, the log's key and two witnesses.
    fn trust(&self) -> Trust {
        let witnesses: Vec<_> = self.witnesses.iter().map(|k| k.vkey().clone()).collect();
        let ca = self.authority.certificate().to_owned();
        let text = trust::write(&[ca], self.logging.log().vkey(), &witnesses, (2, 0), &[]).unwrap();
        text.parse().unwrap()
    }

    /// Who heard each reading, once all are proven.
    fn heard(&self) -> Vec<Vec<String>> {
        let exported = self.export();
        assert_eq!(exported.missing, Missing::default());
        let reports = verify_file(&exported.bundles, &self.trust());
        let who = |report: &Report| {
            assert_eq!((report.verdict, report.step), (Verdict::Proven, None), "{:?}", report.reason);
            assert!(report.heard.iter().all(|h| h.at_ms == NOW.0 && h.net == "00000007"));
            report.heard.iter().map(|h| h.gateway.clone()).collect()
        };
        reports.iter().map(who).collect()
    }

    fn sign(&mut self) {
        let carrier = self.node.send(&signature_item(&self.signer.close()));
        self.world.post(&[carrier.envelope()]);
    }

    fn write(&self) {
        self.logging.write(self.world.cloud.memory()).unwrap();
    }

    /// A head that so many witnesses cosign.
    fn head(&self, witnesses: usize, at: u64) {
        let log = self.logging.log();
        let mut signed = log.sign().unwrap();
        let head = signed.unverified().clone();
        for key in self.witnesses.iter().take(witnesses) {
            signed.add(key.danger_cosign(at, &head).unwrap()).unwrap();
        }
        log.show(&signed).unwrap();
    }

    fn export(&self) -> Exported {
        let did = self.world.source.devices[0].did;
        let book = self.world.cloud.book();
        self.world
            .cloud
            .memory()
            .read(|r| Ok(export(r, &book, &self.logging, did, Millis(0), NOW.plus(1_000_000)).unwrap()))
            .unwrap()
    }
}

#[test]
fn a_reading_gets_its_bundle_once_it_is_signed_logged_and_witnessed() {
    let mut station = Station::new(2);
    station.records();
    station.write();
    station.head(2, NOW_S - 60);
    station.reading(0);
    station.reading(1);
    let only = |missing: Missing| Exported { missing, ..Exported::default() };
    assert_eq!(station.export(), only(Missing { unsigned: 2, ..Missing::default() }));
    station.sign();
    assert_eq!(station.export(), only(Missing { unlogged: 2, ..Missing::default() }), "what carried it is no reading");
    station.write();
    assert_eq!(station.export(), only(Missing { unwitnessed: 2, ..Missing::default() }));
    station.head(1, NOW_S);
    assert_eq!(station.export(), only(Missing { unwitnessed: 2, ..Missing::default() }), "two are needed");
    station.reading(2);
    station.write();
    station.head(2, NOW_S + 60);
    let exported = station.export();
    assert_eq!((exported.proven, exported.missing), (2, Missing { unsigned: 1, ..Missing::default() }));
    let bundles: Vec<Bundle<'_>> = Bundles::new(&exported.bundles).unwrap().map(Result::unwrap).collect();
    assert_eq!(bundles.len(), 2);
    for (n, bundle) in bundles.iter().enumerate() {
        assert_eq!((bundle.path.index, bundle.path.size, bundle.chain.len()), (n as u64, 2, 1));
        assert!(bundle.tbs.ends_with(&[0x82, 0x01, 0x18, 0x64 + n as u8]));
        // Although an earlier head has them, the records are proven under that of the batch: one checkpoint for all.
        let note = |proof: &str| proof.split_once("\n\n").unwrap().1.to_owned();
        for logged in [bundle.enrolment, bundle.policy, bundle.revocations] {
            assert_eq!(note(logged.proof), note(bundle.proof));
        }
    }
    let trust = station.trust();
    for (n, report) in verify_file(&exported.bundles, &trust).iter().enumerate() {
        assert_eq!((report.verdict, report.step), (Verdict::Proven, None), "{:?}", report.reason);
        assert_eq!((report.batch, report.order, report.piv), (Some(1), Some(n as u64), Some(n as u64)));
    }
    // Nobody's authority but that one.
    station.authority = Authority::create("other").unwrap().0;
    let refused = verify_file(&exported.bundles, &station.trust());
    assert_eq!((refused[0].verdict, refused[0].step), (Verdict::Refused, Some("chain")));
}

#[test]
fn a_device_that_signs_by_ed25519_gets_a_bundle_that_holds_with_that_algorithm_alone() {
    let mut station = Station::by(2, DeviceAlg::Ed25519);
    station.records();
    station.reading(0);
    station.reading(1);
    station.sign();
    assert!(station.world.readings().iter().take(2).all(|r| r.origin.as_str() == "signed"));
    station.write();
    station.head(2, NOW_S);
    let (exported, trust) = (station.export(), station.trust());
    assert_eq!((exported.proven, exported.missing), (2, Missing::default()));
    assert!(verify_file(&exported.bundles, &trust).iter().all(|report| report.verdict == Verdict::Proven));
    let bundle = Bundles::new(&exported.bundles).unwrap().next().unwrap().unwrap();
    let signed = Sign1::parse(bundle.signed).unwrap();
    assert_eq!(signed.header.alg, SignAlg::Ed25519);
    let again = |header: Header, signature: &[u8]| {
        let mut out = vec![0; bundle.signed.len()];
        let len = Sign1::of(header, signed.danger_payload(), signature).emit(&mut out).unwrap();
        let altered = Bundle { signed: &out[..len], ..bundle.clone() }.emit().unwrap();
        let report = verify_file(&altered, &trust).remove(0);
        (report.verdict, report.step)
    };
    let refused = (Verdict::Refused, Some("signature"));
    assert_eq!(again(Header { alg: SignAlg::Esp256, ..signed.header }, signed.signature), refused, "another algorithm");
    assert_eq!(again(signed.header, &malleated(signed.signature)), refused, "S + L");
    assert_eq!(again(signed.header, signed.signature), (Verdict::Proven, None));
}

#[test]
fn a_row_of_a_registered_template_gets_its_definition_once_the_log_has_it() {
    let mut station = Station::new(2);
    station.records();
    station.reading(0);
    station.sign();
    station.write();
    station.head(2, NOW_S);
    let shown = |station: &Station| {
        let exported = station.export();
        assert_eq!(exported.proven, 1);
        let bundles = Bundles::new(&exported.bundles).unwrap();
        bundles.map(|b| b.unwrap().template.map(|t| (t.id, t.definition.to_vec()))).next().unwrap()
    };
    assert_eq!(shown(&station), None);
    // [1, ["level", "m"]]: registered when the batch was logged already.
    let definition = hex::decode("82018265".to_owned() + "6c6576656c616d").unwrap();
    let one = |definition: &[u8]| RegisteredTemplate { net: NET, id: 1, definition: definition.to_vec(), added_at: 1 };
    station.world.source.templates = vec![one(&definition)];
    station.world.reload();
    assert_eq!(shown(&station), None, "no record of the log names it");
    station.configured();
    station.write();
    assert_eq!(shown(&station), None, "no witness saw that record");
    station.head(2, NOW_S + 60);
    assert_eq!(shown(&station), Some((1, definition.clone())));
    let exported = station.export();
    let witnesses: Vec<_> = station.witnesses.iter().map(|k| k.vkey().clone()).collect();
    let ca = station.authority.certificate().to_owned();
    let text = trust::write(&[ca], station.logging.log().vkey(), &witnesses, (2, 0), &[]).unwrap();
    let reports = verify_file(&exported.bundles, &text.parse().unwrap());
    assert_eq!((reports[0].verdict, reports[0].step), (Verdict::Proven, None), "{:?}", reports[0].reason);
    let values: Vec<_> = reports[0].values.iter().map(|v| (v.name.as_str(), v.unit.as_deref())).collect();
    assert_eq!(values, [("level", Some("m"))]);
    // A definition with another number of columns fits no row: then nothing is said of its columns.
    station.world.source.templates = vec![one(&hex::decode("8301826161f6826162f6").unwrap())];
    station.world.reload();
    assert_eq!(shown(&station), None);
}

#[test]
fn without_a_witness_or_a_record_nothing_is_proven() {
    let mut station = Station::new(0);
    station.records();
    station.reading(0);
    station.sign();
    station.write();
    station.head(2, NOW_S);
    assert_eq!(station.export().missing, Missing { unwitnessed: 1, ..Missing::default() }, "nobody is asked");
    let mut station = Station::new(1);
    station.reading(0);
    station.sign();
    station.write();
    station.head(1, NOW_S);
    assert_eq!(station.export().missing, Missing { unrecorded: 1, ..Missing::default() });
    station.records();
    station.write();
    station.head(1, NOW_S + 60);
    assert_eq!((station.export().proven, station.export().missing), (1, Missing::default()));
}

const BOTH: [&str; 2] = ["00000001", "00000002"];

/// Three readings among others: one that both gateways brought, and one that each brought alone.
fn heard_station() -> Station {
    let mut station = Station::new(2);
    station.certify_gateways();
    station.records();
    let sent: Vec<Sent> = (0..3).map(|n| station.sealed(n)).collect();
    let stranger = Sent { sid: Sid(0x0bad), ..sent[0].clone() };
    let by_first = [stranger.envelope(), sent[0].envelope(), stranger.envelope(), sent[1].envelope()];
    station.world.post(&by_first);
    station.world.post_second(&[sent[0].envelope(), sent[2].envelope(), stranger.envelope()]);
    station.sign();
    station.write();
    station.head(2, NOW_S + 60);
    station
}

#[test]
fn a_reading_is_shown_with_every_gateway_that_brought_it() {
    let mut station = heard_station();
    assert_eq!(station.heard(), [&BOTH[..], &BOTH[..1], &BOTH[1..]]);
    // A gateway that sends again what it sent, alone or with more, says nothing new.
    let again = station.sealed(3);
    let first = station.world.readings()[0].clone();
    assert_eq!((first.piv, first.gateway), (0, station.world.gateway.proven.gateway()));
    station.world.post(&[again.envelope(), again.envelope()]);
    station.world.post(&[again.envelope()]);
    station.sign();
    station.write();
    station.head(2, NOW_S + 120);
    assert_eq!(station.heard(), [&BOTH[..], &BOTH[..1], &BOTH[1..], &BOTH[..1]]);
    // A restart forgets nothing of it.
    station.world = station.world.restart();
    assert_eq!(station.heard().concat().len(), 5);
    // What nobody without the key can see of the message is said.
    let reports = verify_file(&station.export().bundles, &station.trust());
    let said = |sentence: &String| sentence.ends_with("neither key generation nor content");
    assert!(reports[0].not_proven.iter().any(said), "{:?}", reports[0].not_proven);
}

#[test]
fn what_surrounds_a_reading_in_a_batch_costs_the_store_no_more_than_a_path() {
    for around in [1, 6, 37, 300] {
        let mut station = Station::new(2);
        station.certify_gateways();
        station.records();
        let sent: Vec<Sent> = (0..2).map(|n| station.sealed(n)).collect();
        let stranger = Sent { sid: Sid(0x0bad), ..sent[0].clone() };
        let mut envelopes = vec![stranger.envelope(); around];
        envelopes.insert(around / 3, sent[0].envelope());
        envelopes.push(sent[1].envelope());
        station.world.post(&envelopes);
        station.sign();
        station.write();
        station.head(2, NOW_S + 60);
        let one = &BOTH[..1];
        assert_eq!(station.heard(), [one, one], "{around}");
        let db = rusqlite::Connection::open(&station.world.path).unwrap();
        let bytes = |sql: &str| db.query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap();
        let others = bytes("SELECT coalesce(max(length(others)), 0) FROM receipt");
        let paths = bytes("SELECT coalesce(max(length(path)), 0) FROM heard");
        assert!(others + 2 * paths <= (around as i64 * 32).min(2 * 10 * 32), "{around}: {others}, {paths}");
        if paths > 0 {
            db.execute("UPDATE heard SET path = zeroblob(length(path)) WHERE idx = ?", [around as i64 / 3]).unwrap();
            assert_eq!(station.heard(), [&[][..], one], "what leads elsewhere is not shown");
        }
    }
}

#[test]
fn no_altered_part_of_a_receipt_passes() {
    let station = heard_station();
    let (bundles, trust) = (station.export().bundles, station.trust());
    let bundle = Bundles::new(&bundles).unwrap().next().unwrap().unwrap();
    let all = Bundles::new(&bundles).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!(verify_file(&bundle.emit().unwrap(), &trust)[0].verdict, Verdict::Proven);
    let turned = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let refused = |heard: Heard<'_>, what: &str| {
        for at in 0..bundle.receipts.len() {
            let mut receipts = bundle.receipts.clone();
            receipts[at] = heard.clone();
            let altered = Bundle { receipts, ..bundle.clone() }.emit().unwrap();
            let report = &verify_file(&altered, &trust)[0];
            assert_eq!((report.verdict, report.step), (Verdict::Refused, Some("receipts")), "{what}");
        }
    };
    let own = &bundle.receipts[0];
    for at in (0..own.receipt.len()).step_by(7) {
        refused(Heard { receipt: &turned(own.receipt, at), ..own.clone() }, "receipt");
    }
    for at in (0..own.envelope.len()).step_by(7) {
        refused(Heard { envelope: &turned(own.envelope, at), ..own.clone() }, "envelope");
    }
    let mut path = own.path.clone();
    path.hashes[0].0[0] ^= 1;
    refused(Heard { path, ..own.clone() }, "path");
    refused(Heard { proof: bundle.receipts[1].proof, ..own.clone() }, "proof of another receipt");
    refused(Heard { chain: bundle.receipts[1].chain.clone(), ..own.clone() }, "certificate of another gateway");
    refused(Heard { chain: bundle.chain.clone(), ..own.clone() }, "certificate of the device");
    refused(all[1].receipts[0].clone(), "receipt of another reading");
}

#[test]
fn what_a_revoked_gateway_claims_counts_if_it_was_seen_before() {
    let mut station = heard_station();
    let later = station.sealed(3);
    station.world.post(&[later.envelope()]);
    station.world.post_second(&[later.envelope()]);
    station.sign();
    station.write();
    station.head(2, NOW_S + 120);
    let everything = [&BOTH[..], &BOTH[..1], &BOTH[1..], &BOTH[..]];
    assert_eq!(station.heard(), everything);
    // The first gateway is revoked: what witnesses saw of it at that time or later is not shown, and the reading stays proven.
    let revoke = |station: &mut Station, number: u64, at: u64| {
        station.world.source.receipt_signers[0].revoked_at = Some(at);
        station.world.reload();
        let keys = station.world.cloud.book().revoked_keys();
        assert_eq!(keys, [(station.world.source.receipt_signers[0].name(), at)]);
        let mut write = Write::default();
        let record = Revocations { number, keys }.emit().unwrap();
        write.log.records = vec![LogRecord { kind: EntryKind::Revocation, did: None, record }];
        station.world.cloud.memory().store().commit_now(write).unwrap();
        station.write();
        station.head(2, NOW_S + 120 + number);
    };
    // A witness that is not known here may have seen it until there was a newer head: so long after those that are.
    revoke(&mut station, 1, NOW_S + 721);
    assert_eq!(station.heard(), everything);
    let before = station.export().bundles;
    revoke(&mut station, 2, NOW_S + 720);
    assert_eq!(station.heard(), [&BOTH[..], &BOTH[..1], &BOTH[1..], &BOTH[1..]]);
    revoke(&mut station, 3, NOW_S + 120);
    assert_eq!(station.heard(), [&BOTH[1..], &[], &BOTH[1..], &BOTH[1..]]);
    // With the newer list, what was shown before is refused.
    let (before, now) = (before, station.export().bundles);
    let of = |bundles: &'_ [u8]| Bundles::new(bundles).unwrap().count();
    assert_eq!((of(&before), of(&now)), (4, 4));
    let last = Bundles::new(&before).unwrap().last().unwrap().unwrap();
    let newer = Bundles::new(&now).unwrap().last().unwrap().unwrap();
    let mixed = Bundle { revocations: newer.revocations, ..last }.emit().unwrap();
    assert_eq!(verify_file(&mixed, &station.trust())[0].step, Some("receipts"));
    // A certificate that had ended by then shows nothing either.
    station.world.source.receipt_signers[1].certificates[0].not_after = NOW_S + 719;
    station.world.reload();
    assert_eq!(station.heard(), [&BOTH[1..], &[], &BOTH[1..], &[]]);
}

#[test]
fn a_receipt_is_left_out_whose_key_ends_before_any_witness_must_have_seen_it() {
    // What a verifier that pins a witness unknown here would refuse: with the whole bundle.
    for (ends, is_shown) in [(0, false), (599, false), (600, true)] {
        let mut station = heard_station();
        for signer in &mut station.world.source.receipt_signers {
            signer.certificates.iter_mut().for_each(|c| c.not_after = NOW_S + 60 + ends);
        }
        station.world.reload();
        assert_eq!(station.heard().concat().is_empty(), !is_shown, "{ends}");
    }
}

#[test]
fn receipts_of_a_store_without_paths_are_shown_as_before() {
    let mut station = heard_station();
    // In this form it kept the leaf hashes of what is not here, and these batches are small enough for it still.
    station.world = station.world.stopped(|path| older::take_back(path, 13));
    assert_eq!(station.heard(), [&BOTH[..], &BOTH[..1], &BOTH[1..]]);
    let later = station.sealed(3);
    station.world.post(&[later.envelope()]);
    station.sign();
    station.write();
    station.head(2, NOW_S + 120);
    assert_eq!(station.heard(), [&BOTH[..], &BOTH[..1], &BOTH[1..], &BOTH[..1]]);
}

#[test]
fn a_store_of_before_goes_on_without_receipts_and_a_damaged_one_shows_none_that_does_not_hold() {
    let mut station = heard_station();
    let change = |station: &mut Station, sql: &str| {
        let db = rusqlite::Connection::open(&station.world.path).unwrap();
        db.execute_batch(sql).unwrap();
    };
    change(&mut station, "UPDATE heard SET envelope = x'a0' WHERE gateway = 1 AND idx = 1");
    assert_eq!(station.heard(), [&BOTH[1..], &[], &BOTH[1..]], "the other leaf of that receipt is not there");
    change(&mut station, "UPDATE receipt SET others = NULL WHERE gateway = 2");
    assert_eq!(station.heard().concat(), Vec::<String>::new());
    // As the version before receipts left it.
    station.world = station.world.stopped(|path| older::take_back(path, 11));
    station.reading(3);
    station.sign();
    station.write();
    station.head(2, NOW_S + 120);
    assert_eq!(station.heard(), [&[][..], &[], &[], &BOTH[..1]]);
}
