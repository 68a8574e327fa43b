//! `fivefold frame decode` over every vector: what opens, what is refused and under which code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fivefold_core::id::{Net, Sid};
use fivefold_core::profile::LinkClass;
use fivefold_core::time::Millis;
use fivefold_core::wire::envelope::{Envelope, Kind, Originator};
use serde_json::{Value, json};

/// The verdict of one vector, as an exit code and the two values that decide.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Opened: what the application gets, or the E1 plaintext where E1 alone decides.
    Opens(String),
    /// Refused under this code.
    Refused(String),
}

struct Bench {
    folder: tempfile::TempDir,
    wrong: Vec<String>,
    judged: usize,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), wrong: Vec::new(), judged: 0 }
    }

    fn keys(&self, name: &str, keys: &Value) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, keys.to_string()).unwrap();
        path
    }

    fn judge(&mut self, id: &Value, keys: &Path, args: &[&str], expected: Verdict) {
        self.judged += 1;
        let output = decode(keys, args);
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let found = match output.status.code() {
            Some(0) if told["application"].is_string() => Verdict::Opens(text(&told["application"])),
            Some(0) => Verdict::Opens(text(&told["layers"][0]["plaintext"])),
            Some(1) if told["reason"].is_string() => Verdict::Refused(text(&told["code"])),
            code => Verdict::Refused(format!("exit {code:?}: {}", String::from_utf8_lossy(&output.stderr))),
        };
        if found != expected {
            self.wrong.push(format!("{id}: expected {expected:?}, found {found:?}: {}", told["reason"]));
        }
    }

    fn report(self, at_least: usize) {
        assert!(self.wrong.is_empty(), "{} of {}:\n{}", self.wrong.len(), self.judged, self.wrong.join("\n"));
        assert!(self.judged >= at_least, "only {} were judged", self.judged);
    }
}

fn fivefold(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fivefold")).args(args).output().unwrap()
}

fn decode(keys: &Path, args: &[&str]) -> Output {
    let mut all = vec!["frame", "decode", "-o", "json", "--keys", keys.to_str().unwrap()];
    all.extend_from_slice(args);
    fivefold(&all)
}

fn vectors(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/standards").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn list<'v>(of: &'v Value, name: &str) -> &'v [Value] {
    of[name].as_array().unwrap_or_else(|| panic!("no {name}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("null").to_owned()
}

/// A context of the vectors, as the key file writes it.
fn context(own: &Value, name: &str) -> Value {
    let c = list(own, "contexts").iter().find(|c| c["id"] == name).unwrap();
    let level = if c["layer"] == "C2" { 2 } else { 3 };
    json!({ "name": c["id"], "level": level, "alg": c["alg"], "master_secret": c["master_secret"],
        "master_salt": c["master_salt"], "id_context": c["id_context"], "device_id": c["device_id"],
        "peer_id": c["peer_id"] })
}

fn contexts(own: &Value, names: &[&str]) -> Value {
    json!({ "oscore": names.iter().map(|n| context(own, n)).collect::<Vec<_>>() })
}

/// The receiver that the refused frames of the vectors are for, as far as it is no state.
fn receiver(own: &Value) -> Value {
    let receiver = &own["receiver"];
    let keys = receiver["usable_keys"].as_object().unwrap();
    let e1: Vec<Value> = keys.iter().map(|(i, key)| json!({ "index": i.parse::<u8>().unwrap(), "key": key })).collect();
    let bare = |n: &Value| json!({ "short": n["short"], "eui64": n["eui64"] });
    let neighbours: Vec<Value> = list(receiver, "neighbours").iter().map(bare).collect();
    json!({ "e1": e1, "minimum_level": receiver["minimum_level"], "neighbours": neighbours })
}

#[test]
fn every_802_15_4_frame_of_the_vectors_opens_to_its_plaintext() {
    let own = vectors("ieee802154-ccm.json");
    let mut bench = Bench::new();
    for frame in list(&own, "frames") {
        let mut keys = json!({ "e1": [{ "index": frame["key_index"], "key": frame["key"] }] });
        if frame["source_short"].is_string() {
            keys["neighbours"] = json!([{ "short": frame["source_short"], "eui64": frame["source_eui64"] }]);
        }
        let path = bench.keys("frame", &keys);
        let expected = || match (frame["in_profile_4_1"].as_bool(), frame["id"].as_str()) {
            (Some(true), _) => Verdict::Opens(text(&frame["plaintext"])),
            _ => Verdict::Refused("E1-03".into()),
        };
        let plain = text(&frame["frame"]);
        bench.judge(&frame["id"], &path, &["--kind", "e1", &plain], expected());
        let checked = text(&frame["frame_with_fcs"]);
        bench.judge(&frame["id"], &path, &["--kind", "e1", "--fcs", &checked], expected());
    }
    for frame in list(&own, "frames_2015") {
        let keys = json!({ "e1": [{ "index": frame["key_index"], "key": frame["key"] }] });
        let path = bench.keys("frame", &keys);
        let plain = text(&frame["frame"]);
        bench.judge(&frame["id"], &path, &["--kind", "e1", &plain], Verdict::Refused("E1-11".into()));
    }
    bench.report(66);
}

#[test]
fn every_refused_802_15_4_frame_that_needs_no_state_gets_its_code() {
    let own = vectors("ieee802154-ccm.json");
    let mut bench = Bench::new();
    let path = bench.keys("receiver", &receiver(&own));
    for frame in list(&own, "accepted") {
        let expected = Verdict::Opens(text(&frame["plaintext"]));
        bench.judge(&frame["id"], &path, &["--kind", "e1", "--fcs", &text(&frame["frame_with_fcs"])], expected);
    }
    // PAN, own address and counters are the receiver's state: core's tests see these refused by the engine.
    let stateful = ["E1-02", "E1-06", "E1-07"];
    for frame in list(&own, "refused") {
        let code = text(&frame["code"]);
        if stateful.contains(&code.as_str()) {
            continue;
        }
        let bytes = text(&frame["frame_with_fcs"]);
        bench.judge(&frame["id"], &path, &["--kind", "e1", "--fcs", &bytes], Verdict::Refused(code));
    }
    bench.report(43);
}

#[test]
fn every_e1s_message_of_the_vectors_gets_its_verdict() {
    let own = vectors("ieee802154-ccm.json");
    let mut bench = Bench::new();
    for message in list(&own, "e1s") {
        let path = bench.keys("e1s", &json!({ "e1": [{ "index": message["key_index"], "key": message["key"] }] }));
        let source = text(&message["source_eui64"]);
        let args = ["--kind", "e1s", "--source-eui64", &source, &text(&message["frame"])];
        bench.judge(&message["id"], &path, &args, Verdict::Opens(text(&message["plaintext"])));
    }
    let path = bench.keys("receiver", &receiver(&own));
    for message in list(&own, "e1s_refused") {
        let source = text(&message["source_eui64"]);
        let args = ["--kind", "e1s", "--source-eui64", &source, &text(&message["frame"])];
        bench.judge(&message["id"], &path, &args, Verdict::Refused(text(&message["code"])));
    }
    bench.report(24);
}

#[test]
fn every_oscore_message_of_the_vectors_opens_to_its_payload() {
    let own = vectors("oscore-own.json");
    let mut bench = Bench::new();
    for message in list(&own, "messages") {
        let name = text(&message["context"]);
        let path = bench.keys("coap", &contexts(&own, &[&name]));
        let (from, piv, bytes) =
            (text(&message["from"]), text(&message["request_piv"]), text(&message["protected_coap"]));
        let args = ["--kind", "coap", "--from", &from, "--request-piv", &piv, &bytes];
        let expected = if message["inner_message"].is_string() {
            // The gateway has C2 alone: it hands on what is inside.
            let output = decode(&path, &args);
            let told: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(told["layers"][0]["plaintext"], message["plaintext"], "{}", message["id"]);
            assert_eq!(told["application"], Value::Null, "{}", message["id"]);
            assert_eq!(output.status.code(), Some(0));
            Verdict::Opens(text(&message["plaintext"]))
        } else if message["outside_profile"].is_string() {
            Verdict::Refused("E3-07".into())
        } else {
            Verdict::Opens(text(&message["payload"]))
        };
        bench.judge(&message["id"], &path, &args, expected);
    }
    for nested in list(&own, "nested_ip") {
        let find = |id: &Value| list(&own, "messages").iter().find(|m| &m["id"] == id).unwrap();
        let (outer, inner) = (find(&nested["outer"]), find(&nested["inner"]));
        let path = bench.keys("nested", &contexts(&own, &[&text(&outer["context"]), &text(&inner["context"])]));
        let args = ["--kind", "coap", &text(&outer["protected_coap"])];
        bench.judge(&nested["outer"], &path, &args, Verdict::Opens(text(&nested["application"])));
    }
    bench.report(60);
}

#[test]
fn every_tiny_message_of_the_vectors_opens_to_its_payload() {
    let own = vectors("oscore-own.json");
    let mut bench = Bench::new();
    for message in list(&own, "tiny") {
        let layers = list(message, "layers");
        let names: Vec<String> = layers.iter().map(|l| text(&l["context"])).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let path = bench.keys("tiny", &contexts(&own, &names));
        let kid_length = message["K"].as_u64().unwrap_or(0).to_string();
        let (piv, bytes) = (text(&layers[0]["request_piv"]), text(&message["tiny"]));
        let mut args = vec!["--kind", "tiny", "--kid-length", &kid_length, "--request-piv", &piv];
        let link_kid = text(&message["link_kid"]);
        if message["link_kid"].is_string() {
            args.extend(["--link-kid", &link_kid]);
        }
        args.push(&bytes);
        bench.judge(&message["id"], &path, &args, Verdict::Opens(text(&message["application"])));
    }
    for message in list(&own, "tiny_still_valid") {
        let path = bench.keys("tiny", &contexts(&own, &["C3-11", "C2-11"]));
        let args = ["--kind", "tiny", "--link-kid", "0a17", &text(&message["tiny"])];
        bench.judge(&message["id"], &path, &args, Verdict::Opens(text(&message["payload"])));
    }
    bench.report(74);
}

#[test]
fn every_malformed_message_of_the_vectors_gets_its_code() {
    let own = vectors("oscore-own.json");
    let mut bench = Bench::new();
    let path = bench.keys("own", &contexts(&own, &["C3-11", "C2-11"]));
    for message in list(&own, "malformed_tiny") {
        let (kid_length, link_kid) = (message["K"].to_string(), text(&message["link_kid"]));
        let bytes = text(&message["tiny"]);
        let args = ["--kind", "tiny", "--kid-length", &kid_length, "--link-kid", &link_kid, "--request-piv", "012c"];
        let args: Vec<&str> = args.into_iter().chain([bytes.as_str()]).collect();
        bench.judge(&message["id"], &path, &args, Verdict::Refused(text(&message["code"])));
    }
    for message in list(&own, "malformed_oscore") {
        let path = bench.keys("own-one", &contexts(&own, &[&text(&message["context"])]));
        let args = ["--kind", "coap", &text(&message["coap"])];
        bench.judge(&message["id"], &path, &args, Verdict::Refused(text(&message["code"])));
    }
    bench.report(85);
}

#[test]
fn a_flipped_bit_or_a_wrong_key_is_refused_under_a_named_code() {
    let own = vectors("oscore-own.json");
    let bench = Bench::new();
    let mut keys = contexts(&own, &["C3-11"]);
    let secret = text(&keys["oscore"][0]["master_secret"]);
    keys["oscore"][0]["master_secret"] = json!(format!("ff{}", &secret[2..]));
    let path = bench.keys("wrong", &keys);
    let output = decode(&path, &["--kind", "tiny", "--link-kid", "0a17", "22012c6b2efbb9e120be077d6dc0b1d4d9f5301d38"]);
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((told["code"].as_str(), told["reason"].as_str()), (Some("E3-03"), Some("tag failure")));
    assert_eq!(told["application"], Value::Null);
}

#[test]
fn a_person_reads_each_byte_and_the_verdict() {
    let own = vectors("oscore-own.json");
    let bench = Bench::new();
    let path = bench.keys("own", &contexts(&own, &["C3-11"]));
    let frame = "22 01:2c 6b2efbb9e120be07 7d6dc0b1d4d9f5301d38";
    let keys = path.to_str().unwrap();
    let output = fivefold(&["frame", "decode", "--kind", "tiny", "--link-kid", "0a17", "--keys", keys, frame]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("E3  Partial IV 012c: opened with C3-11"), "{told}");
    assert!(told.trim_end().ends_with("For the application: 840118d7182d1825"), "{told}");
    let refused = fivefold(&["frame", "decode", "--kind", "tiny", "00"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stdout).unwrap().contains("REFUSED  T-01"));
}

#[test]
fn bad_usage_is_one_sentence_and_exit_code_2() {
    let bench = Bench::new();
    let bad = bench.keys("bad", &json!({ "e1": [], "surprise": 1 }));
    let short = bench.keys("short", &json!({ "e1": [{ "index": 1, "key": "00" }] }));
    let (bad, short) = (bad.to_str().unwrap(), short.to_str().unwrap());
    let cases: [(&[&str], &str); 7] = [
        (&["--kind", "tiny", "xy"], "the frame is not hex"),
        (&["--kind", "tiny", "--fcs", "00"], "--fcs is for --kind e1"),
        (&["--kind", "tiny", "--keys", "/nowhere/keys", "00"], "cannot read the key file /nowhere/keys"),
        (&["--kind", "tiny", "--keys", bad, "00"], "unknown field `surprise`"),
        (&["--kind", "tiny", "--keys", short, "00"], "key of index 1 is not 16 bytes"),
        (&["--kind", "tiny", "22012c6b2efbb9e120be077d6dc0b1d4d9f5301d38"], "--link-kid HEX"),
        (&["--kind", "tiny", "--request-piv", "0005", "00"], "--request-piv: "),
    ];
    for (args, sentence) in cases {
        let all: Vec<&str> = ["frame", "decode"].into_iter().chain(args.iter().copied()).collect();
        let output = fivefold(&all);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
        assert!(told.contains(sentence) && told.trim_end().lines().count() == 1, "{args:?}: {told}");
    }
}

#[test]
fn an_envelope_is_explained_and_what_it_carries_is_opened() {
    let own = vectors("oscore-own.json");
    let bench = Bench::new();
    let path = bench.keys("own", &contexts(&own, &["C3-11"]));
    let message = list(&own, "messages").iter().find(|m| m["id"] == "req-00").unwrap();
    let coap = hex::decode(text(&message["protected_coap"])).unwrap();
    let envelope = Envelope {
        seq: 7,
        received: Millis(1_700_000_000_000),
        kind: Kind::CloudTiny,
        bytes: &coap,
        originator: Originator::Node { net: Net(0x4E37_0001), sid: Sid(0x0A17) },
        rssi: None,
        lqi: Some(200),
        opened: None,
        link: LinkClass::MacCcm,
        hops: Some(12),
        key_index: Some(1),
    };
    let mut out = [0; 256];
    let len = envelope.emit(&mut out).unwrap();
    let output = decode(&path, &["--kind", "envelope", &hex::encode(&out[..len])]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!((&told["layers"][0]["level"], &told["layers"][0]["seq"]), (&json!(4), &json!(7)));
    assert_eq!((&told["layers"][1]["level"], &told["application"]), (&json!(3), &message["payload"]));
    let fields = list(&told["layers"][0], "fields");
    let all: String = fields.iter().map(|f| text(&f["hex"])).collect();
    assert_eq!(all, hex::encode(&out[..len]), "every byte is in one field");
    let cut = decode(&path, &["--kind", "envelope", &hex::encode(&out[..len - 1])]);
    let told: Value = serde_json::from_slice(&cut.stdout).unwrap();
    assert_eq!((cut.status.code(), &told["code"]), (Some(1), &json!("T-01")));
}

/// The fenced blocks of a page in one language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).filter_map(|rest| rest.split("\n```").next()).map(str::to_owned).collect()
}

#[test]
fn the_page_for_tools_shows_what_the_commands_print() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tools.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("keys.json"), &blocks(&page, "json")[0]).unwrap();
    let (commands, shown) = (blocks(&page, "sh"), blocks(&page, "text"));
    assert_eq!((commands.len(), shown.len()), (6, 6));
    for (command, shown) in commands.iter().zip(shown) {
        let args: Vec<&str> = command.split_whitespace().skip(1).collect();
        let bin = env!("CARGO_BIN_EXE_fivefold");
        let output = Command::new(bin).args(args).current_dir(folder.path()).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let told: Vec<&str> = told.trim_end().lines().map(str::trim_end).collect();
        assert_eq!(told, shown.lines().collect::<Vec<_>>(), "{command}");
    }
}
