//! Devices that make their own key: enrolled by file, over a serial line and by CSV; and what goes wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use farm::{Daemon, Farm, answer, fivefold, refused, says};
use fivefold_core::id::{Did, Sid};
use fivefold_core::suite::agreement::{Agree as _, PublicX};
use fivefold_core::wire::enrolment::{Answer, Request, TEXT_LONGEST, emit_text, parse_text};
use fivefold_device::enrolment::Enrolment;
use fivefold_keep::registry::draw_key;
use fivefold_keep::share::NodeShare;
use fivefold_keep::sign::AgreementKey;
use serde_json::Value;

#[expect(clippy::disallowed_methods, reason = "requests say when they were written")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

struct Site {
    farm: Farm,
}

impl Site {
    fn new() -> Self {
        Self { farm: Farm::new() }
    }

    /// A path beside the operator's folder.
    fn at(&self, name: &str) -> String {
        self.farm.folder.path().join(name).display().to_string()
    }

    fn join(&self, node: &str, more: &[&str]) -> Vec<String> {
        let dir = self.at(node);
        [&["node", "join", "--dir", &dir], more].concat().into_iter().map(str::to_owned).collect()
    }

    fn enrol(&self, more: &[&str]) -> Vec<String> {
        let dir = self.farm.path("");
        [&["device", "enrol", "--dir", &dir], more].concat().into_iter().map(str::to_owned).collect()
    }

    /// Where the node's radio is, and who hears it.
    fn radio(&self) -> [String; 4] {
        ["--bind".into(), self.farm.node.to_string(), "--air".into(), self.farm.radio.to_string()]
    }

    /// Takes an answer as a file.
    fn take(&self, node: &str, file: &str) -> Vec<String> {
        [self.join(node, &["--answer-file", &self.at(file)]), self.radio().to_vec()].concat()
    }

    /// A request of these, written as text.
    fn request(&self, file: &str, request: &Request) {
        fs::write(self.at(file), text(request)).unwrap();
    }

    fn devices(&self) -> usize {
        answer(&["device", "list", "--dir", &self.farm.path("")]).as_array().unwrap().len()
    }
}

fn done(arguments: &[String]) -> Value {
    answer(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn text(request: &Request) -> String {
    let (mut bytes, mut out) = ([0; Request::LONGEST], vec![0; TEXT_LONGEST]);
    let len = request.emit(&mut bytes).unwrap();
    let len = emit_text(&bytes[..len], &mut out).unwrap();
    out.truncate(len);
    String::from_utf8(out).unwrap()
}

fn did(n: u16) -> Did {
    let [a, b] = n.to_be_bytes();
    Did([0xAC, 0xDE, 0x48, 0, 0, 0, a, b])
}

#[test]
fn a_node_is_enrolled_by_file_agrees_its_first_keys_by_edhoc_and_its_readings_arrive() {
    let site = Site::new();
    let farm = &site.farm;
    let request = site.at("s.request");
    let made = done(&site.join("s", &["--request-file", &request, "--ca-file", &farm.path("ca.pem")]));
    let again = done(&site.join("s", &["--request-file", &request]));
    assert_eq!((&made["did"], &made["fingerprint"]), (&again["did"], &again["fingerprint"]), "its key stays");
    let file = site.at("s.answer");
    let asked =
        ["--net", "one", &request, "--answer-file", &file, "--fingerprint", made["fingerprint"].as_str().unwrap()];
    let enrolled = done(&site.enrol(&asked));
    assert_eq!(
        (&enrolled["renewal"]["first_contexts"], &enrolled["renewal"]["agreed_at"]),
        (&"agreed".into(), &Value::Null)
    );
    // The paper was lost: the same request has the same answer once more, and there is no second device.
    let repeated = done(&site.enrol(&asked));
    assert_eq!((&enrolled["repeated"], &repeated["repeated"]), (&false.into(), &true.into()));
    assert_eq!((&enrolled["sid"], site.devices()), (&repeated["sid"], 2));
    assert_ne!(enrolled["answer"], repeated["answer"], "no ephemeral key is used twice");
    let joined = done(&site.take("s", "s.answer"));
    assert_eq!((&joined["did"], &joined["sid"]), (&made["did"], &enrolled["sid"]));
    assert!(NodeShare::read(Path::new(&site.at("s"))).unwrap().secrets.e3.is_none(), "no contexts lie in a file");

    let _cloud = Daemon::start(&farm.cloud(), 0);
    assert_eq!(farm.stored(), 0, "the cloud is there");
    let _gateway = Daemon::start(&farm.gateway(), 0);
    // Six runs of a device are taken in an hour: on a slow machine too, it must not begin many.
    let run = ["node", "run", "--dir", &site.at("s"), "--every", "0.2", "--count", "3", "--wait", "120"];
    let ran = fivefold(&[&run[..], &["--renew-resend", "5", "--renew-pause", "5"]].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{said}\n{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.lines().any(|l| l.contains("\"renewed\"") && l.contains("\"epoch\":1")), "{said}");
    assert!(farm.stored() >= 3);
    let shown = answer(&["device", "show", "--dir", &farm.path(""), made["did"].as_str().unwrap()]);
    assert_eq!(shown["renewal"]["highest_epoch"], 1);
    assert!(shown["renewal"]["agreed_at"].as_u64().is_some());
    says(&refused(&site.enrol(&asked)), &["was used", "--again"]);
    // It lost its state: new keys under the same name, above what was agreed.
    let anew = ["--request-file", &request, "--did", made["did"].as_str().unwrap()];
    done(&site.join("s2", &anew));
    let again = ["--net", "one", &request, "--answer-file", &file];
    says(&refused(&site.enrol(&again)), &["another key", "--again"]);
    let again = done(&site.enrol(&[&again[..], &["--again"]].concat()));
    assert_eq!((&again["epoch"], &again["sid"]), (&2.into(), &enrolled["sid"]));
    assert_eq!(done(&site.take("s2", "s.answer"))["epoch"], 2);
}

#[test]
fn every_mistake_is_one_sentence_and_changes_nothing() {
    let site = Site::new();
    let before = site.devices();
    let request = site.at("s.request");
    done(&site.join("s", &["--request-file", &request]));
    let file = site.at("s.answer");
    let enrol = |request: &str, more: &[&str]| site.enrol(&[&[request, "--answer-file", &file], more].concat());
    // Files that are none, or the wrong ones.
    fs::write(site.at("hello"), "hello").unwrap();
    says(&refused(&enrol(&site.at("hello"), &["--net", "one"])), &["hello", "not a request"]);
    says(&refused(&enrol(&site.at("nothing"), &["--net", "one"])), &["cannot read", "nothing"]);
    let cut = fs::read_to_string(&request).unwrap();
    fs::write(site.at("cut"), &cut[..cut.len() - 3]).unwrap();
    says(&refused(&enrol(&site.at("cut"), &["--net", "one"])), &["cut"]);
    says(&refused(&enrol(&request, &["--net", "nowhere"])), &["fivefold network list"]);
    says(
        &refused(&enrol(&request, &["--net", "one", "--fingerprint", "0000-0000-0000-0000"])),
        &["fingerprint", "changed"],
    );
    says(&refused(&enrol(&request, &["--net", "one", "--again"])), &["leave out --again"]);
    says(&refused(&enrol(&request, &["--net", "one", "--sid", "e201"])), &["AR-38"]);
    says(&refused(&site.enrol(&[&request, "--net", "one"])), &["--answer-file", "--qr"]);
    // Too old, not yet, a weak key, a key that another has, a group's address.
    let key = |n: u8| AgreementKey::from_random(&[n; 32]).unwrap().public_x();
    let good = draw_key().unwrap().0.public_x();
    for (made, x, id, words) in [
        (Some(now() - 8 * 86_400), good, did(1), ["7 days", "new one"]),
        (Some(now() + 86_400), good, did(1), ["yet to come", "clock"]),
        (None, key(7), did(1), ["private half", "AR-08"]),
        (None, PublicX([0; 32]), did(1), ["infinity", "secret"]),
        (None, good, Did([1, 2, 3, 4, 5, 6, 7, 8]), ["no single device", "0102030405060708"]),
    ] {
        site.request("bad", &Request { did: id, x, made, signing: None });
        says(&refused(&enrol(&site.at("bad"), &["--net", "one"])), &words);
    }
    assert_eq!((site.devices(), Path::new(&file).exists()), (before, false));

    // The right one; then what may not come after it.
    done(&enrol(&request, &["--net", "one"]));
    says(&refused(&enrol(&request, &["--net", "two"])), &["is in network"]);
    says(&refused(&enrol(&request, &["--net", "one", "--sid", "0999"])), &["leave out --sid"]);
    says(&refused(&enrol(&request, &["--net", "one", "--again"])), &["this key already"]);
    says(&refused(&enrol(&request, &["--net", "one", "--alg", "10"])), &["other options", "device show"]);
    let same = Request::parse(&bytes(&fs::read_to_string(&request).unwrap())).unwrap();
    site.request("same", &Request { did: did(1), ..same });
    says(&refused(&enrol(&site.at("same"), &["--net", "one"])), &["AR-07", &same.did.to_string()]);

    // At the node: the wrong file, another node's, another operator's, keys made anew.
    says(&refused(&site.take("s", "s.request")), &["a request for enrolment"]);
    says(&refused(&site.take("other", "s.answer")), &["no key yet", "--request-file"]);
    done(&site.join("other", &["--request-file", &site.at("other.request")]));
    says(&refused(&site.take("other", "s.answer")), &["E5-03", "another device"]);
    done(&site.join("anew", &["--request-file", &site.at("anew.request"), "--did", &same.did.to_string()]));
    says(&refused(&site.take("anew", "s.answer")), &["E5-02", "keys that this device had before"]);
    let strange = site.at("strange");
    answer(&["init", &strange]);
    let ca = format!("{strange}/ca.pem");
    says(
        &refused(&[site.take("s", "s.answer"), vec!["--ca-file".into(), ca]].concat()),
        &["E5-03", "another operator"],
    );
    says(&refused(&site.join("s", &["--answer-file", &file])), &["--bind", "--air"]);
    says(
        &refused(&["node".into(), "run".into(), "--dir".into(), site.at("s")]),
        &["waits to be enrolled", "--answer-file"],
    );
    says(&refused(&site.join("s", &["--request-file", &request, "--did", "acde480000000009"])), &["was made for"]);
    // That CA is remembered: it was said in so many words. Another folder, without it, takes the answer.
    says(&refused(&site.take("s", "s.answer")), &["another operator"]);
    assert!(!Path::new(&site.at("s/node.toml")).exists());
}

#[test]
fn a_node_whose_power_went_while_it_joined_goes_on_and_joins_once() {
    let site = Site::new();
    let [request, file] = ["s.request", "s.answer"].map(|f| site.at(f));
    done(&site.join("s", &["--request-file", &request]));
    done(&site.enrol(&["--net", "one", &request, "--answer-file", &file]));
    let [identity, secrets] = ["s/identity.sealed", "s/secrets.sealed"].map(|f| site.at(f));
    let kept = fs::read(&identity).unwrap();
    done(&site.take("s", "s.answer"));
    assert!(!Path::new(&identity).exists(), "one place for its key");
    // Power went after the first file of its share.
    farm::private(Path::new(&identity), "");
    fs::write(&identity, &kept).unwrap();
    fs::remove_file(&secrets).unwrap();
    done(&site.take("s", "s.answer"));
    // And after the last one: it is enrolled, and what was left over goes.
    let share = fs::read(&secrets).unwrap();
    farm::private(Path::new(&identity), "");
    fs::write(&identity, &kept).unwrap();
    says(&refused(&site.take("s", "s.answer")), &["enrolled already", "fivefold node run"]);
    assert_eq!((fs::read(&secrets).unwrap(), Path::new(&identity).exists()), (share, false));
}

fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = vec![0; Answer::LONGEST];
    let len = parse_text(text.as_bytes(), &mut bytes).unwrap().unwrap();
    bytes.truncate(len);
    bytes
}

#[test]
fn a_csv_file_is_looked_at_whole_and_every_bad_row_is_named_by_its_line() {
    let site = Site::new();
    let before = site.devices();
    let keys: Vec<AgreementKey> = (0..4).map(|_| draw_key().unwrap().0).collect();
    let x = |n: usize| keys[n].public_x();
    let known = &site.farm.did;
    let asked = done(&site.join("s", &["--request-file", &site.at("s.request")]));
    let rows = [
        ("did,key,net,sid,alg,radio,danger_no_link".to_owned(), ""),
        (format!("{},{},,,,,", did(1), x(0)), ""),
        (format!("{},02{},two,0a17,10,,", did(2), x(1)), ""),
        (format!("{},{},,,,,", did(1), x(2)), "is there twice: line 2"),
        (format!("{},{},,,,,", did(3), x(1)), "line 3 has this DH key"),
        (format!("{},{},two,0a17,,,", did(4), x(2)), "sid 0a17 is there twice in this network: line 3"),
        (format!("{known},{},,,,,", draw_key().unwrap().0.public_x()), "exists already"),
        (format!("{},{},nowhere,,,,", did(5), x(3)), "no network nowhere"),
        (format!("{},{},,,12,,", did(6), x(3)), "expected 11 or 10"),
        (format!("{},{},,,,ip,", did(7), x(3)), "--danger-no-link"),
        (format!("{},{},,,,,", did(8), "a5".repeat(32)), "not random"),
        (format!("{},{},,,,,", did(9), "ab".repeat(31)), "31 bytes"),
        (format!("{},00,,,,,", did(10)), "infinity"),
        (format!("{},,,,,,", did(11)), "key is missing"),
        (format!("12345,{},,,,,", x(3)), "16 hex digits"),
        (format!("{},{}", did(12), x(3)), "2 fields, and the head has 7"),
        (format!("{},{},,fffe,,,", did(13), draw_key().unwrap().0.public_x()), "reserved"),
        (format!("{},{},,,,ip,\"a fence, and a dog\"", did(14), x(3)), ""),
    ];
    let csv = rows.iter().map(|(row, _)| format!("{row}\n")).collect::<String>();
    fs::write(site.at("devices.csv"), csv).unwrap();
    let answers = site.at("answers.csv");
    let enrol_to = |csv: &str, file: &str| site.enrol(&["--net", "one", "--csv", csv, "--answers-file", file]);
    let enrol = |csv: &str| enrol_to(csv, &answers);
    let run = |arguments: &[String]| {
        let done = fivefold(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
        (done.status.code(), serde_json::from_slice::<Value>(&done.stdout).unwrap())
    };
    let (code, told) = run(&enrol(&site.at("devices.csv")));
    let refused_rows = told["refused"].as_array().unwrap();
    assert_eq!((code, &told["enrolled"], &told["rows"]), (Some(1), &0.into(), &17.into()));
    let bad: Vec<_> = rows.iter().enumerate().filter(|(at, (_, why))| *at > 0 && !why.is_empty()).collect();
    assert_eq!(bad.len(), refused_rows.len(), "{told:#}");
    for ((at, (_, why)), refused) in bad.iter().zip(refused_rows) {
        assert_eq!(refused["line"].as_u64(), Some(*at as u64 + 1), "{refused}");
        assert!(refused["error"].as_str().unwrap().contains(why), "{refused}: {why}");
    }
    assert_eq!((site.devices(), Path::new(&answers).exists()), (before, false), "nothing was registered");

    // In so many words, the good ones.
    let (code, told) = run(&[enrol(&site.at("devices.csv")), vec!["--skip-bad".into()]].concat());
    assert_eq!((code, &told["enrolled"]), (Some(0), &3.into()));
    assert_eq!(site.devices(), before + 3);
    let letters = fs::read_to_string(&answers).unwrap();
    for (line, n, sid) in [(1, 0, None), (2, 1, Some(Sid(0x0a17)))] {
        let fields: Vec<&str> = letters.lines().nth(line).unwrap().splitn(5, ',').collect();
        let id: Did = fields[0].parse().unwrap();
        let granted = Enrolment::new(id, AgreementKey::from_random(&scalar(&keys[n])).unwrap(), None)
            .accept(&bytes(fields[4]))
            .unwrap();
        assert_eq!((id, fields[1]), (did(n as u16 + 1), granted.sid.to_string().as_str()));
        assert!(sid.is_none_or(|sid| sid == granted.sid));
    }

    // By the requests themselves; and what is no such file.
    let request = fs::read_to_string(site.at("s.request")).unwrap();
    fs::write(site.at("requests.csv"), format!("request\n{request}\n")).unwrap();
    says(&refused(&enrol(&site.at("requests.csv"))), &["answers.csv exists already"]);
    let answers = site.at("more.csv");
    let (code, told) = run(&enrol_to(&site.at("requests.csv"), &answers));
    assert_eq!((code, &told["enrolled"]), (Some(0), &1.into()), "{told}");
    let letters = fs::read_to_string(&answers).unwrap();
    let enrol = |csv: &str| enrol_to(csv, &site.at("none.answers"));
    let row: Vec<&str> = letters.lines().nth(1).unwrap().splitn(5, ',').collect();
    assert_eq!((row[0], row[3]), (asked["did"].as_str().unwrap(), asked["fingerprint"].as_str().unwrap()));
    fs::write(site.at("s.answer"), row[4]).unwrap();
    done(&site.take("s", "s.answer"));
    for (csv, words) in [
        ("did,key,colour\n", ["line 1", "colour"]),
        ("did,key,did\n", ["line 1", "twice"]),
        ("did\n", ["line 1", "did and key"]),
        ("did,key\n", ["no rows", "wrong.csv"]),
    ] {
        fs::write(site.at("wrong.csv"), csv).unwrap();
        says(&refused(&enrol(&site.at("wrong.csv"))), &words);
    }
    says(&refused(&enrol(&site.at("none.csv"))), &["cannot read", "none.csv"]);
}

fn scalar(key: &AgreementKey) -> [u8; 32] {
    key.danger_scalar().unwrap().as_slice().try_into().unwrap()
}

/// Two ends of a serial line, and what lies between them.
mod wire {
    use std::fs::File;
    use std::io::{Read as _, Write as _};
    use std::thread;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    /// Opens a pseudo terminal: this end, and the path of the other one, held open so that the line stays up.
    fn end() -> (File, String, File) {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&near).unwrap();
        unlockpt(&near).unwrap();
        let path = ptsname(&near, Vec::new()).unwrap().into_string().unwrap();
        let held = File::options().read(true).write(true).open(&path).unwrap();
        let mut mode = rustix::termios::tcgetattr(&held).unwrap();
        mode.make_raw();
        rustix::termios::tcsetattr(&held, rustix::termios::OptionalActions::Now, &mode).unwrap();
        (File::from(near), path, held)
    }

    /// Paths of both ends. What goes over is changed by `noise`, which is told the number of the piece.
    pub(super) fn between(noise: fn(usize, &mut Vec<u8>)) -> (String, String, [File; 2]) {
        let (a, path_a, held_a) = end();
        let (b, path_b, held_b) = end();
        for (mut from, mut to) in [(a.try_clone().unwrap(), b.try_clone().unwrap()), (b, a)] {
            thread::spawn(move || {
                let mut bytes = [0; 1024];
                for piece in 0.. {
                    let Ok(n) = from.read(&mut bytes) else { return };
                    let mut said = bytes[..n].to_vec();
                    noise(piece, &mut said);
                    if n == 0 || to.write_all(&said).is_err() {
                        return;
                    }
                }
            });
        }
        (path_a, path_b, [held_a, held_b])
    }
}

#[test]
fn a_serial_line_carries_request_and_answer_in_one_visit_also_a_bad_one() {
    let site = Site::new();
    // Each way, the first pieces are damaged, and the device's console talks.
    let (operator, device, _held) = wire::between(|piece, said| match piece {
        0 => said.iter_mut().for_each(|b| *b ^= 0x20),
        1 => said.truncate(said.len() / 2),
        n if n % 3 == 0 => said.splice(0..0, *b"[  1.5] FV boot\r\n").for_each(drop),
        _ => {}
    });
    let join = [site.join("s", &["--serial", &device]), site.radio().to_vec()].concat();
    let node = fivefold(&join.iter().map(String::as_str).collect::<Vec<_>>())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let enrolled = done(&site.enrol(&["--net", "one", "--serial", &operator]));
    let node = node.wait_with_output().unwrap();
    assert!(node.status.success(), "{}", String::from_utf8_lossy(&node.stderr));
    let joined: Value = serde_json::from_slice(&node.stdout).unwrap();
    assert_eq!((&joined["did"], &joined["sid"]), (&enrolled["did"], &enrolled["sid"]));
    assert!(NodeShare::read(Path::new(&site.at("s"))).unwrap().cloud.is_some());
    assert_eq!(enrolled["renewal"]["first_contexts"], "agreed");
}

#[test]
fn who_says_no_on_a_serial_line_is_heard_at_the_other_end() {
    let site = Site::new();
    let strange = site.at("strange");
    answer(&["init", &strange]);
    let ca = format!("{strange}/ca.pem");
    let (operator, device, _held) = wire::between(|_, _| {});
    let join = [site.join("s", &["--serial", &device, "--ca-file", &ca]), site.radio().to_vec()].concat();
    let node = std::thread::spawn(move || refused(&join));
    says(
        &refused(&site.enrol(&["--net", "one", "--serial", &operator])),
        &["the device refuses", "E5-03", "another operator"],
    );
    says(&node.join().unwrap(), &["E5-03", "another operator"]);
    assert!(!Path::new(&site.at("s/node.toml")).exists());

    // The operator's no reaches the device.
    let before = site.devices();
    let (operator, device, _held) = wire::between(|_, _| {});
    let join = [site.join("t", &["--serial", &device]), site.radio().to_vec()].concat();
    let node = std::thread::spawn(move || refused(&join));
    let no = site.enrol(&["--net", "one", "--serial", &operator, "--sid", "e201"]);
    says(&refused(&no), &["AR-38"]);
    says(&node.join().unwrap(), &["the operator refuses", "AR-38"]);
    assert_eq!(site.devices(), before);

    // Nobody is there; and what is no line.
    let (operator, _device, _held) = wire::between(|_, _| {});
    says(&refused(&site.enrol(&["--net", "one", "--serial", &operator, "--wait", "2"])), &["no device asks"]);
    fs::write(site.at("file"), "x").unwrap();
    says(&refused(&site.enrol(&["--net", "one", "--serial", &site.at("file")])), &["is no serial line"]);
}
