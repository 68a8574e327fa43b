//! Evidence for strangers: only what is signed, logged and witnessed gets a bundle, and the rest is named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::signer::{Signer, signature_item, signing_world};
use common::*;
use fivefold_cloud::evidence::{Exported, Missing, export};
use fivefold_cloud::log::{Logging, Serving, WitnessConfig};
use fivefold_cloud::store::{LogRecord, Write};
use fivefold_core::id::Did;
use fivefold_core::profile::{Mode, Policy, Profile};
use fivefold_core::time::Millis;
use fivefold_evidence::bundle::{Bundle, Bundles};
use fivefold_evidence::checkpoint::LogKey;
use fivefold_evidence::cosignature::CosigningKey;
use fivefold_evidence::log::EntryKind;
use fivefold_evidence::note::Kind;
use fivefold_evidence::record::{Configured, Enrolment, Made, Revocations};
use fivefold_evidence::trust::{self, Trust};
use fivefold_evidence::verify::{Verdict, verify_file};
use fivefold_keep::ca::Authority;
use fivefold_keep::registry::RegisteredTemplate;
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
        let (mut world, node, signer) = signing_world(Profile::ToCloud, Mode::Persistent);
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
        let sent = self.signer.reading(&mut self.node, &[0x82, 0x01, 0x18, 0x64 + n]);
        self.world.post(&[sent.envelope()]);
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
    // As a stranger sees it: by the operator's CA, the log's key and two witnesses.
    let witnesses: Vec<_> = station.witnesses.iter().map(|k| k.vkey().clone()).collect();
    let ca = station.authority.certificate().to_owned();
    let text = trust::write(&[ca], station.logging.log().vkey(), &witnesses, (2, 0), &[]).unwrap();
    let trust: Trust = text.parse().unwrap();
    for (n, report) in verify_file(&exported.bundles, &trust).iter().enumerate() {
        assert_eq!((report.verdict, report.step), (Verdict::Proven, None), "{:?}", report.reason);
        assert_eq!((report.batch, report.order, report.piv), (Some(1), Some(n as u64), Some(n as u64)));
    }
    // Nobody's authority but that one.
    let (other, _) = Authority::create("other").unwrap();
    let text =
        trust::write(&[other.certificate().to_owned()], station.logging.log().vkey(), &witnesses, (2, 0), &[]).unwrap();
    let refused = verify_file(&exported.bundles, &text.parse().unwrap());
    assert_eq!((refused[0].verdict, refused[0].step), (Verdict::Refused, Some("chain")));
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
