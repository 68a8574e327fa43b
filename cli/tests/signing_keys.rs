//! Signing keys of devices, from the node that makes one to the book that says until when it counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::fs;
use std::path::Path;
use std::process::Command;

use farm::{Farm, answer, refused, says};
use fivefold_audit::facts::Facts;
use fivefold_audit::waiver::Waivers;
use fivefold_audit::{Audit, gather};
use fivefold_core::id::Did;
use fivefold_core::profile::Sign as Signs;
use fivefold_core::proof::Signature;
use fivefold_core::proof::possession::{Possession, SigningPublic};
use fivefold_core::suite::agreement::Agree as _;
use fivefold_core::wire::enrolment::{Answer, Request, SigningRequest, TEXT_LONGEST, emit_text, parse_text};
use fivefold_keep::device_key::{DeviceAlg, DeviceSigningKey};
use fivefold_keep::registry::{Registry, draw_key};
use fivefold_keep::share::{NodeShare, SIGNING_KEY_FILE, signing_key};
use fivefold_keep::vault::Vault;
use serde_json::Value;

struct Site {
    farm: Farm,
}

impl Site {
    fn new() -> Self {
        Self { farm: Farm::new() }
    }

    fn at(&self, name: &str) -> String {
        self.farm.folder.path().join(name).display().to_string()
    }

    fn node(&self) -> String {
        self.farm.path(&format!("nodes/{}", self.farm.did))
    }

    fn say(&self, what: &str, more: &[&str]) -> Vec<String> {
        let words: Vec<&str> = what.split(' ').collect();
        [&words[..], &["--dir", &self.farm.path("")], more].concat().into_iter().map(str::to_owned).collect()
    }

    fn done(&self, what: &str, more: &[&str]) -> Value {
        answer(&self.say(what, more).iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn refused(&self, what: &str, more: &[&str], words: &[&str]) {
        says(&refused(&self.say(what, more)), words);
    }

    fn show(&self, did: &str) -> Value {
        self.done("device show", &[did])
    }

    fn book(&self) -> Registry {
        Registry::open_read_only(Path::new(&self.farm.path("registry.db"))).unwrap()
    }

    fn findings(&self) -> Vec<String> {
        let mut facts = Facts::at(fivefold::clock::now().unwrap());
        gather::book(&self.book(), &mut facts).unwrap();
        let found = Audit::of(&facts, &Waivers::NONE).findings.into_iter();
        let found = found.filter(|f| ["AR-25", "AR-26"].contains(&f.rule.id));
        found.map(|f| format!("{} {}", f.rule.id, f.sentence)).collect()
    }
}

fn text(emit: impl FnOnce(&mut [u8]) -> usize) -> String {
    let (mut bytes, mut out) = ([0; 512], vec![0; TEXT_LONGEST]);
    let len = emit(&mut bytes);
    let len = emit_text(&bytes[..len], &mut out).unwrap();
    out.truncate(len);
    String::from_utf8(out).unwrap()
}

fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = vec![0; Answer::LONGEST];
    let len = parse_text(text.as_bytes(), &mut bytes).unwrap().unwrap();
    bytes.truncate(len);
    bytes
}

#[test]
fn a_device_that_is_in_the_book_gets_its_key_certified_replaced_and_revoked() {
    let site = Site::new();
    let (did, node, file) = (site.farm.did.as_str(), site.node(), site.at("signs.request"));
    assert_eq!(site.show(did)["signing"]["key"], Value::Null);
    let asked = answer(&["node", "signing-request", "--dir", &node, "--request-file", &file]);
    let again = answer(&["node", "signing-request", "--dir", &node]);
    assert_eq!((&asked["key"], &asked["fingerprint"]), (&again["key"], &again["fingerprint"]), "its key stays");
    assert!(Path::new(&node).join(SIGNING_KEY_FILE).exists());
    // Its record demands nothing yet; then it does, and the operator hears what is missing.
    site.done("device set", &[did, "--sign", "batch:8"]);
    let shown = site.show(did);
    assert_eq!((&shown["sign"], &shown["signing"]["finding"]), (&"batch:8".into(), &"AR-25".into()));
    assert!(site.findings().iter().any(|f| f.starts_with("AR-25") && f.contains(did)), "{:?}", site.findings());

    site.refused(
        "device certify",
        &[did, "--request", &file, "--fingerprint", "0000-0000"],
        &["fingerprint", "changed"],
    );
    let fingerprint = asked["fingerprint"].as_str().unwrap();
    let certified = site.done("device certify", &[did, "--request", &file, "--fingerprint", fingerprint]);
    assert_eq!((&certified["key"], &certified["origin"]), (&asked["key"], &1.into()));
    let years = certified["not_after"].as_u64().unwrap() - certified["certified_at"].as_u64().unwrap();
    assert!((4 * 365 * 86_400..=5 * 365 * 86_400).contains(&years));
    let leaf = site.at("device.pem");
    fs::write(&leaf, certified["certificate"].as_str().unwrap()).unwrap();
    let ca = site.farm.path("ca.pem");
    let openssl = Command::new("openssl").args(["verify", "-x509_strict", "-CAfile", &ca, &leaf]).output().unwrap();
    assert!(openssl.status.success(), "{}", String::from_utf8_lossy(&openssl.stderr));
    let shown = site.show(did);
    assert_eq!((&shown["signing"]["key"]["key"], &shown["signing"]["finding"]), (&asked["key"], &Value::Null));
    assert!(site.findings().is_empty());
    // The same text again is the same key; what the operator knows better is taken over.
    let text = asked["request"].as_str().unwrap();
    assert_eq!(site.done("device certify", &[did, "--request", text, "--secure-element"])["origin"], 2);

    let new = answer(&["node", "signing-request", "--dir", &node, "--new", "--request-file", &file]);
    assert_ne!(new["key"], asked["key"]);
    site.refused("device certify", &[did, "--request", &file], &["another signing key in force", "--replace"]);
    let replaced = site.done("device certify", &[did, "--request", &file, "--replace"]);
    assert_eq!((&replaced["key"], &replaced["replaced"]), (&new["key"], &asked["key"]));
    site.refused("device certify", &[did, "--request", text, "--replace"], &["counts for nothing", "--new"]);

    // The key alone, and then the device.
    site.done("device revoke", &[did, "--signing-key"]);
    let shown = site.show(did);
    assert_eq!((&shown["revoked_at"], shown["signing"]["revoked"].as_array().unwrap().len()), (&Value::Null, 2));
    assert_eq!(shown["signing"]["finding"], "AR-25");
    site.refused("device revoke", &[did, "--signing-key"], &["no signing key in force"]);
    answer(&["node", "signing-request", "--dir", &node, "--new", "--request-file", &file]);
    site.done("device certify", &[did, "--request", &file]);
    site.done("device revoke", &[did]);
    let signers = site.book().signers().unwrap();
    assert_eq!((signers.len(), signers.iter().all(|s| s.revoked_at.is_some())), (3, true));
    site.refused("device certify", &[did, "--request", &file], &["revoked"]);
    site.refused("device set", &[did, "--sign", "none"], &["revoked"]);
}

#[test]
fn a_device_may_sign_by_ed25519_if_it_is_told_to_before_its_key_is_made() {
    let site = Site::new();
    let (did, node, file) = (site.farm.did.as_str(), site.node(), site.at("signs.request"));
    let asked = answer(&["node", "signing-request", "--dir", &node, "--ed25519", "--request-file", &file]);
    let again = answer(&["node", "signing-request", "--dir", &node]);
    assert_eq!((&asked["key"], &asked["fingerprint"]), (&again["key"], &again["fingerprint"]), "its key stays");
    let certified = site.done("device certify", &[did, "--request", &file]);
    assert_eq!(certified["key"], asked["key"]);
    assert!(certified["spki"].as_str().unwrap().starts_with("302a300506032b6570032100"));
    let leaf = site.at("device.pem");
    fs::write(&leaf, certified["certificate"].as_str().unwrap()).unwrap();
    let ca = site.farm.path("ca.pem");
    let openssl = Command::new("openssl").args(["verify", "-x509_strict", "-CAfile", &ca, &leaf]).output().unwrap();
    assert!(openssl.status.success(), "{}", String::from_utf8_lossy(&openssl.stderr));
    // A key is not turned into another kind but by a word for that.
    let p256 = answer(&["node", "signing-request", "--dir", &node, "--new", "--request-file", &file]);
    assert_ne!(p256["key"], asked["key"]);
    let anew = ["node", "signing-request", "--dir", &node, "--ed25519"].map(String::from);
    says(&refused(&anew), &["already", "--new --ed25519"]);
    site.done("device certify", &[did, "--request", &file, "--replace"]);
    // Under a key of small order one signature is good for everything: whoever has no key at all proves it.
    let good = SigningRequest::parse(&bytes(&fs::read_to_string(&file).unwrap())).unwrap();
    let (mut neutral, mut proof) = ([0; 32], [0; 64]);
    (neutral[0], proof[0]) = (1, 1);
    let signing = Possession { key: SigningPublic::Ed25519(neutral), proof: Signature(proof) };
    fs::write(site.at("bad"), text(|out| SigningRequest { signing, ..good }.emit(out).unwrap())).unwrap();
    site.refused("device certify", &[did, "--request", &site.at("bad"), "--replace"], &["small order"]);
    // At its enrolment, too.
    let (dir, request) = (site.at("s"), site.at("s.request"));
    answer(&["node", "join", "--dir", &dir, "--sign", "--ed25519", "--request-file", &request]);
    let asked = Request::parse(&bytes(&fs::read_to_string(&request).unwrap())).unwrap();
    assert!(matches!(asked.signing.unwrap().key, SigningPublic::Ed25519(_)));
    site.done("device enrol", &["--net", "one", &request, "--answer-file", &site.at("s.answer")]);
}

#[test]
fn a_device_that_is_installed_anew_keeps_its_signing_key_or_nothing_is_changed() {
    let site = Site::new();
    let (did, node, file) = (site.farm.did.as_str(), site.node(), site.at("signs.request"));
    let asked = answer(&["node", "signing-request", "--dir", &node, "--request-file", &file]);
    site.done("device certify", &[did, "--request", &file]);
    let epoch = site.done("device enrol-again", &[did])["epoch"].as_u64().unwrap();
    let again = answer(&["node", "signing-request", "--dir", &node]);
    assert_eq!(again["key"], asked["key"], "it is certified, and signs as before");
    assert_eq!(u64::from(NodeShare::read(Path::new(&node)).unwrap().epoch.0), epoch);
    // Locked away by somebody before: nothing is changed, neither in the book nor in the folder.
    let vault = Path::new(&node).join("vault.toml");
    let kept = Path::new(&node).join("kept.toml");
    fs::rename(&vault, &kept).unwrap();
    site.refused("device enrol-again", &[did], &["signing key", "nothing was changed", "bring back vault.toml"]);
    assert_eq!(site.show(did)["epoch"], epoch);
    fs::rename(&kept, &vault).unwrap();
    assert_eq!(answer(&["node", "signing-request", "--dir", &node])["key"], asked["key"]);
}

#[test]
fn what_does_not_prove_its_own_key_is_refused_by_name_and_changes_nothing() {
    let site = Site::new();
    let (did, node, file) = (site.farm.did.as_str(), site.node(), site.at("signs.request"));
    answer(&["node", "signing-request", "--dir", &node, "--request-file", &file]);
    let good = SigningRequest::parse(&bytes(&fs::read_to_string(&file).unwrap())).unwrap();
    let (thief, _) = DeviceSigningKey::generate(DeviceAlg::P256).unwrap();
    let own = |did, x| Possession::prove(&thief, thief.public(), did, x).unwrap();
    let stranger = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 9]);
    let spare = draw_key().unwrap().0.public_x();
    let mut bent = good.signing;
    bent.proof = Signature([0x11; 64]);
    let cases = [
        (SigningRequest { signing: bent, ..good }, "does not prove"),
        // Somebody else's key under his proof, and his under somebody else's.
        (
            SigningRequest {
                signing: Possession { proof: own(good.did, good.x.as_ref()).proof, ..good.signing },
                ..good
            },
            "not prove",
        ),
        (SigningRequest { signing: Possession { key: thief.public(), ..good.signing }, ..good }, "not prove"),
        (SigningRequest { signing: own(stranger, good.x.as_ref()), ..good }, "does not prove"),
        (SigningRequest { x: Some(spare), signing: own(good.did, Some(&spare)), ..good }, "another DH key"),
        (SigningRequest { x: None, signing: own(good.did, None), ..good }, "another DH key"),
        (SigningRequest { did: stranger, ..good }, "this request is of device acde480000000009"),
        (SigningRequest { made: good.made.map(|at| at - 8 * 86_400), ..good }, "7 days"),
    ];
    for (request, why) in cases {
        fs::write(site.at("bad"), text(|out| request.emit(out).unwrap())).unwrap();
        site.refused("device certify", &[did, "--request", &site.at("bad")], &[why]);
    }
    site.refused("device certify", &["acde480000000009", "--request", &file], &["this request is of device"]);
    site.refused("device certify", &[did, "--request", "FV1:abc"], &["not base45"]);
    site.refused("device certify", &[did, "--request", &site.at("nothing")], &["cannot read"]);
    let enrols = Request { did: good.did, x: spare, made: None, signing: None };
    let enrols = text(|out| enrols.emit(out).unwrap());
    site.refused("device certify", &[did, "--request", &enrols], &["a request for enrolment"]);
    assert_eq!(site.book().signers().unwrap(), []);
}

#[test]
fn a_device_that_makes_its_own_keys_asks_for_both_at_once() {
    let site = Site::new();
    let dir = site.at("s");
    let [request, file] = ["s.request", "s.answer"].map(|f| site.at(f));
    site.done("network set", &["one", "--sign", "batch:16"]);
    let joined = answer(&["node", "join", "--dir", &dir, "--sign", "--request-file", &request]);
    let did = joined["did"].as_str().unwrap();
    let again = answer(&["node", "join", "--dir", &dir, "--request-file", &request]);
    assert_eq!(joined["fingerprint"], again["fingerprint"], "once made, the key is asked for each time");
    let asked = Request::parse(&bytes(&fs::read_to_string(&request).unwrap())).unwrap();
    // On its way, somebody puts his own signing key into it.
    let (thief, _) = DeviceSigningKey::generate(DeviceAlg::P256).unwrap();
    let signing = Possession::prove(&thief, thief.public(), asked.did, Some(&asked.x)).unwrap();
    let theirs = Request { signing: Some(signing), ..asked };
    fs::write(site.at("theirs"), text(|out| theirs.emit(out).unwrap())).unwrap();
    let fingerprint = joined["fingerprint"].as_str().unwrap();
    let enrol = ["--net", "one", "--answer-file", &file, "--fingerprint", fingerprint];
    site.refused("device enrol", &[&enrol[..], &[&site.at("theirs")]].concat(), &["fingerprint", "changed"]);
    // And somebody else's without the proof.
    let signing = Some(Possession { key: thief.public(), ..asked.signing.unwrap() });
    fs::write(site.at("theirs"), text(|out| Request { signing, ..asked }.emit(out).unwrap())).unwrap();
    let unwatched = ["--net", "one", "--answer-file", &file, &site.at("theirs")];
    site.refused("device enrol", &unwatched, &["does not prove"]);

    let enrolled = site.done("device enrol", &[&enrol[..], &[request.as_str()]].concat());
    assert_eq!((&enrolled["sign"], &enrolled["signing"]["key"]["origin"]), (&"batch:16".into(), &1.into()));
    let repeated = site.done("device enrol", &[&enrol[..], &[request.as_str()]].concat());
    assert_eq!(
        (&repeated["repeated"], &repeated["signing"]["key"]["key"]),
        (&true.into(), &enrolled["signing"]["key"]["key"])
    );
    let (bind, air) = (site.farm.node.to_string(), site.farm.radio.to_string());
    answer(&["node", "join", "--dir", &dir, "--answer-file", &file, "--bind", &bind, "--air", &air]);
    let share = NodeShare::read(Path::new(&dir)).unwrap();
    assert_eq!((share.policy.sign, share.policy.batch), (Signs::Batch, 16));
    let key = signing_key(&Vault::open_folder(Path::new(&dir)).unwrap(), Path::new(&dir)).unwrap().unwrap();
    assert_eq!(hex::encode(&*key.public().spki()), enrolled["signing"]["key"]["spki"].as_str().unwrap());
    // Another device with the same signing key.
    let x = draw_key().unwrap().0.public_x();
    let id = Did([0xAC, 0xDE, 0x48, 0, 0, 0, 0, 3]);
    let signing = Some(Possession::prove(&key, key.public(), id, Some(&x)).unwrap());
    fs::write(site.at("twin"), text(|out| Request { did: id, x, made: None, signing }.emit(out).unwrap())).unwrap();
    let twin = ["--net", "one", "--answer-file", &file, &site.at("twin")];
    site.refused("device enrol", &twin, &[did, "AR-07"]);
    assert_eq!(site.book().known_device(id).unwrap(), None);
    // It lost its state, and brings new keys of both kinds.
    let anew = site.at("anew");
    let again = answer(&["node", "join", "--dir", &anew, "--sign", "--did", did, "--request-file", &request]);
    let enrolled = site.done("device enrol", &["--net", "one", &request, "--answer-file", &file, "--again"]);
    assert_eq!(again["fingerprint"], enrolled["fingerprint"]);
    assert_eq!(enrolled["signing"]["revoked"].as_array().unwrap().len(), 1);
    // Folders of both kinds are sealed again with the vault's next key.
    for folder in [&dir, &anew] {
        answer(&["vault", "rekey", "--dir", folder]);
        let vault = Vault::open_folder(Path::new(folder)).unwrap();
        assert!(signing_key(&vault, Path::new(folder)).unwrap().is_some());
    }
}

#[test]
fn a_csv_file_may_bring_signing_keys_and_what_is_wrong_with_one_is_named_by_its_line() {
    let site = Site::new();
    let id = |n: u8| Did([0xAC, 0xDE, 0x48, 0, 0, 0, 1, n]);
    let x: Vec<_> = (0..4).map(|_| draw_key().unwrap().0.public_x()).collect();
    let keys: Vec<DeviceSigningKey> = (0..2).map(|_| DeviceSigningKey::generate(DeviceAlg::P256).unwrap().0).collect();
    let asks = |n: u8, key: &DeviceSigningKey, dh: usize| {
        let signing = Possession::prove(key, key.public(), id(n), Some(&x[dh])).unwrap();
        let request = SigningRequest { did: id(n), x: Some(x[dh]), made: None, signing };
        text(|out| request.emit(out).unwrap())
    };
    let rows = [
        format!("{},{},{},batch:4", id(1), x[0], asks(1, &keys[0], 0)),
        format!("{},{},,", id(2), x[1]),
        format!("{},{},{},", id(3), x[2], asks(3, &keys[0], 2)),
        format!("{},{},{},", id(4), x[3], asks(5, &keys[1], 3)),
        format!("{},{},{},each", id(4), x[3], asks(4, &keys[1], 3)),
    ];
    let (csv, answers) = (site.at("devices.csv"), site.at("answers.csv"));
    fs::write(&csv, format!("did,key,signing_request,sign\n{}\n", rows.join("\n"))).unwrap();
    let enrol = ["--net", "one", "--csv", &csv, "--answers-file", &answers, "--skip-bad"];
    let told = site.done("device enrol", &enrol);
    let refused: Vec<String> = told["refused"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert_eq!((told["enrolled"].as_u64(), refused.len()), (Some(2), 3), "{told:#}");
    for (refused, words) in
        refused.iter().zip(["line 2 has the signing key", "signing_request is of", "none, batch, or"])
    {
        assert!(refused.contains(words), "{refused}: {words}");
    }
    let shown = site.show(&id(1).to_string());
    assert_eq!((&shown["sign"], &shown["signing"]["key"]["origin"]), (&"batch:4".into(), &1.into()));
    assert_eq!(site.show(&id(2).to_string())["signing"]["key"], Value::Null);
}

#[test]
fn networks_say_whether_their_devices_sign_and_each_device_may_be_told_otherwise() {
    let site = Site::new();
    assert_eq!(site.done("network add", &["dams", "--sign", "batch"])["sign"], "batch:32");
    let (bind, air) = (site.farm.node.to_string(), site.farm.radio.to_string());
    let place = ["--net", "dams", "--bind", &bind, "--air", &air];
    let add = |more: &[&str]| site.done("device add", &[&place[..], more].concat());
    assert_eq!(add(&[])["sign"], "batch:32");
    assert_eq!(add(&["--no-downlink"])["sign"], "batch:8");
    assert_eq!(add(&["--sign", "none"])["sign"], "none");
    assert_eq!(add(&["--sign", "batch:64"])["sign"], "batch:64");
    let refused = |more: &[&str], words: &[&str]| site.refused("device add", &[&place[..], more].concat(), words);
    refused(&["--sign", "batch:9", "--no-downlink"], &["at most 8"]);
    assert_eq!(site.findings().iter().filter(|f| f.starts_with("AR-25")).count(), 3);
    site.done("network set", &["dams", "--sign", "none"]);
    assert_eq!(add(&[])["sign"], "none");
    let listed = site.done("network list", &[]);
    assert!(listed.as_array().unwrap().iter().all(|n| n["sign"] == "none"), "{listed}");
    let weak = ["bench", "--levels", "e1", "--danger-link-only", "a bench, and nobody minds", "--sign", "batch"];
    site.refused("network add", &weak, &["E1 alone has none"]);
}
