//! The attacks of `vectors/waspmote/attacks.json` and of docs/threats.md, "Flaw by flaw", against a running gateway and cloud. What
//! each obtains is compared with the table of that page, both ways: no row without an attack, no attack without a row.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod deployment;
mod fleet;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use fivefold_audit::facts::Facts;
use fivefold_audit::waiver::Waivers;
use fivefold_audit::{Audit, gather};
use fivefold_waspmote::{ClassicKey, EncryptedType, Frame, KeyBits, Weak};
use fleet::*;
use serde_json::{Value, json};

const OPEN: &str = "aaaa000000000001";
const HELD: &str = "aaaa000000000002";
const ZERO: &str = "aaaa000000000003";
const WORD: &str = "aaaa000000000004";
const KEPT: &str = "aaaa000000000005";
const ENDS: &str = "aaaa000000000006";
const CAUGHT: &str = "aaaa000000000007";
const CLOCK: &str = "aaaa000000000008";
const NAMED: &str = "881025682e12a2fa";

const HELD_KEY: &str = "Qx7vN2mLk9RtYw4sBz8cHd1fGj6pVa3e";
const KEPT_KEY: &str = "Lm4kS9dXq2ZtVb7wCn1hRf8yPg5jTa6u";
const ENDS_KEY: &str = "Wd3nJ8xKv5QpZr1mTb9cYs6hFg2lEa7o";
const CAUGHT_KEY: &str = "Hb6tR1zMy8VqXk4wNc9pLs3dJf7gUa2i";
const WORD_KEY: &str = "password";
const WORDS: &str = "its sketch cannot be reached";

/// What an attack obtained, how the reading is labelled that came of it, and what tells the operator.
type Outcome = (String, String, String);

fn outcome(obtained: &str, label: &str, alarm: &str) -> Outcome {
    (obtained.into(), label.into(), alarm.into())
}

/// Whatever was handed in is the attacker's: a reading is one that he made.
fn forged(verdict: &Verdict) -> Outcome {
    let obtained = if verdict.reading.is_some() { "forges" } else { "nothing" };
    outcome(obtained, verdict.label(), &verdict.code())
}

/// A reading that nothing is against, for nobody can tell: what the book says of all such devices is the alarm.
fn standing(verdict: &Verdict, obtained: &str, rule: &str) -> Outcome {
    let reading = verdict.reading.as_ref().unwrap_or_else(|| panic!("{verdict:?}"));
    assert_eq!(reading["flags"], json!([]), "{verdict:?}");
    outcome(obtained, verdict.label(), rule)
}

/// The table of docs/threats.md.
fn table() -> BTreeMap<String, Outcome> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/threats.md")).unwrap();
    let (_, rest) = page.split_once("<!-- classic:begin -->").unwrap();
    let (rows, _) = rest.split_once("<!-- classic:end -->").unwrap();
    let rows = rows.lines().filter(|l| l.starts_with('|')).skip(2);
    rows.map(|row| {
        let cells: Vec<&str> = row.trim().trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 6, "{row}");
        (cells[0].to_owned(), outcome(cells[3], cells[4], cells[5]))
    })
    .collect()
}

/// Time in which a node makes another frame, as far as the cloud thinks: what comes sooner is in haste.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(1_500)).await;
}

/// Whether anything below a folder holds these bytes.
fn holds(folder: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, needle);
        }
        std::fs::read(&path).unwrap_or_default().windows(needle.len()).any(|w| w == needle)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_each_attack_on_classic_nodes_obtains_is_what_the_page_says() {
    let fleet = Fleet::new(&[
        Node::keyed(VICTIM, Holder::Gateway, KEY),
        Node::plain(OPEN),
        Node::keyed(HELD, Holder::Cloud, HELD_KEY),
        Node { serial: ZERO, key: Some((Holder::Gateway, "", Some(WORDS))) },
        Node { serial: WORD, key: Some((Holder::Gateway, WORD_KEY, Some(WORDS))) },
        Node::keyed(KEPT, Holder::Cloud, KEPT_KEY),
        Node::keyed(ENDS, Holder::Cloud, ENDS_KEY),
        Node::keyed(CAUGHT, Holder::Cloud, CAUGHT_KEY),
        Node::plain(CLOCK),
        Node::plain(NAMED),
    ])
    .await;
    let mut found = BTreeMap::new();
    let mut note = |name: &str, outcome: Outcome| assert!(found.insert(name.to_owned(), outcome).is_none(), "{name}");

    on_the_ciphertext(&fleet, &mut note).await;
    with_a_key(&fleet, &mut note).await;
    without_a_key(&fleet, &mut note).await;
    on_what_surrounds_it(&fleet, &mut note).await;

    let expected = table();
    assert_eq!(found, expected, "docs/threats.md, \"Flaw by flaw\", says otherwise");
    the_alarms_are_told(&fleet, &expected).await;
}

/// `attacks.json`, and what a jammer adds.
async fn on_the_ciphertext(fleet: &Fleet, note: &mut impl FnMut(&str, Outcome)) {
    let cases = vectors("attacks");
    let case = |id: &str| cases["cases"].as_array().unwrap().iter().find(|c| c["id"] == id).unwrap().clone();
    for id in ["type-relabel-0x60-to-0x64", "bit-flip-in-block-1", "outer-serial-swap"] {
        note(id, forged(&fleet.try_frame(VICTIM, &unhex(&case(id)["frame_hex"])).await));
    }
    // At once, so that no boot explains what is out of its turn.
    let paste = case("ecb-cut-and-paste");
    let captured: Vec<_> = paste["captured"].as_array().unwrap().iter().map(unhex).collect();
    assert_eq!(unhex(&case("replay")["frames"][2]), captured[0]);
    let (spliced, aside) = (unhex(&paste["forged_hex"]), fleet.aside(VICTIM).await.len());
    for frame in [&captured[0], &captured[1], &spliced, &captured[0]] {
        assert_eq!(fleet.post(frame).0, 200);
    }
    let mut kept = Vec::new();
    for _ in 0..1200 {
        kept = fleet.aside(VICTIM).await;
        if kept.len() >= aside + 2 {
            break;
        }
        a_while().await;
    }
    let readings = fleet.readings(VICTIM).await;
    let sequences: Vec<_> = readings.iter().map(|r| r["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, [11, 10], "the node's own; {kept:#?}");
    note("replay", outcome("nothing", "-", kept[0]["code"].as_str().unwrap()));
    note("ecb-cut-and-paste", outcome("nothing", "-", kept[1]["code"].as_str().unwrap()));

    // Without any key: which blocks of two frames are equal.
    let equal: Vec<_> = case("ecb-equality-leak")["frames"].as_array().unwrap().iter().map(unhex).collect();
    let blocks = |frame: &[u8]| frame[13..].chunks(16).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let seen = blocks(&equal[0]).iter().zip(&blocks(&equal[1])).filter(|(a, b)| a == b).count();
    assert_eq!(seen, 2);
    fleet.try_frame(VICTIM, &equal[0]).await;
    let second = fleet.try_frame(VICTIM, &equal[1]).await;
    assert!(second.reading.as_ref().unwrap()["equal_blocks"].as_u64().unwrap() > 0, "{second:?}");
    note("ecb-equality-leak", outcome("reads", second.label(), "AR-09"));

    // The second frame never arrives as it was: its values are replaced by the first one's.
    let first =
        sealed(EncryptedType::Cloud, CAUGHT_KEY, CAUGHT, 4, &[52, 80, 74, 0, 0, 0xAC, 0x41, 76, 0, 0, 0xF0, 0x41]);
    let second =
        sealed(EncryptedType::Cloud, CAUGHT_KEY, CAUGHT, 5, &[52, 20, 74, 0, 0, 0xAC, 0x42, 76, 0, 0, 0xF0, 0x42]);
    assert!(fleet.try_frame(CAUGHT, &first).await.reading.is_some());
    a_while().await;
    let block = first.len() - 16;
    note(
        "cut-in-flight",
        standing(&fleet.try_frame(CAUGHT, &[&second[..block], &first[block..]].concat()).await, "forges", "AR-10"),
    );

    // Jammed and recorded, and handed in when the attacker likes, before anything else comes.
    assert!(fleet.try_frame(HELD, &sealed(EncryptedType::Cloud, HELD_KEY, HELD, 1, FIELDS)).await.reading.is_some());
    let jammed = sealed(EncryptedType::Cloud, HELD_KEY, HELD, 2, &[52, 81]);
    a_while().await;
    note("held-back", standing(&fleet.try_frame(HELD, &jammed).await, "withholds", "AR-10"));
}

/// Keys that are guessed, stolen or old.
async fn with_a_key(fleet: &Fleet, note: &mut impl FnMut(&str, Outcome)) {
    let frame = sealed(EncryptedType::Gateway, "", VICTIM, 90, FIELDS);
    note("zero-key-guess", forged(&fleet.try_frame(VICTIM, &frame).await));
    for (name, serial, key) in [("zero-key", ZERO, ""), ("dictionary-key", WORD, WORD_KEY)] {
        // The node speaks once, and whoever hears it searches.
        let heard = sealed(EncryptedType::Gateway, key, serial, 1, FIELDS);
        let Ok(Frame::Encrypted(sealed_one)) = Frame::parse(&heard) else { panic!() };
        let of = |text: &&str| ClassicKey::from_text(text.as_bytes(), KeyBits::Aes256).unwrap();
        let guessed = ["", "libelium", "waspmote", "password"].into_iter().find(|t| sealed_one.open(&of(t)).is_ok());
        let guessed = guessed.expect("a word that everybody tries");
        let verdict = fleet.try_frame(serial, &sealed(EncryptedType::Gateway, guessed, serial, 1, &[52, 5])).await;
        note(name, standing(&verdict, "forges, reads", "CL-13"));
    }
    // The book takes such a key in words only.
    let mut operator = fleet.farm.operator();
    let weak = operator.registry.rekey_classic(&operator.vault, KEPT.parse().unwrap(), &keys(Holder::Cloud, ""), None);
    assert!(weak.unwrap_err().to_string().contains("CL-13"));
    assert_eq!(keys(Holder::Cloud, WORD_KEY).cloud.unwrap().weakness(), Some(Weak::Dictionary));

    let stolen = sealed(EncryptedType::Cloud, HELD_KEY, KEPT, 1, FIELDS);
    note("stolen-node-others", forged(&fleet.try_frame(KEPT, &stolen).await));
    let stolen = sealed(EncryptedType::Cloud, KEPT_KEY, KEPT, 1, FIELDS);
    note("stolen-node-itself", standing(&fleet.try_frame(KEPT, &stolen).await, "itself", "AR-10"));
    let other = keys(Holder::Cloud, "Zt5wK8qRb2XmVn6cJy1dHs9fPg4lUa7e");
    operator.registry.rekey_classic(&operator.vault, KEPT.parse().unwrap(), &other, None).unwrap();
    // The cloud looks at the book every now and then.
    let mut verdict = fleet.try_frame(KEPT, &sealed(EncryptedType::Cloud, KEPT_KEY, KEPT, 2, FIELDS)).await;
    for sequence in 3..120 {
        if verdict.reading.is_none() {
            break;
        }
        a_while().await;
        verdict = fleet.try_frame(KEPT, &sealed(EncryptedType::Cloud, KEPT_KEY, KEPT, sequence, FIELDS)).await;
    }
    note("old-key", forged(&verdict));
}

/// Nothing was ever checked there.
async fn without_a_key(fleet: &Fleet, note: &mut impl FnMut(&str, Outcome)) {
    let lie = plain(VICTIM, b"node_01", 12, FIELDS);
    note("plain-for-encrypted", forged(&fleet.try_frame(VICTIM, &lie).await));
    let lie = plain(OPEN, b"node_02", 1, FIELDS);
    note("plain-for-plain", standing(&fleet.try_frame(OPEN, &lie).await, "forges", "AR-10"));
    // Too long to be encrypted, so the node sends it as it is: whoever listens reads it, and the operator hears of it.
    let long = [&[65, 230][..], &[b'x'; 230]].concat();
    let verdict = fleet.try_frame(VICTIM, &plain(VICTIM, b"node_01", 13, &long)).await;
    assert!(verdict.reading.is_none(), "{verdict:?}");
    note("clear-after-failed-encryption", outcome("reads", verdict.label(), &verdict.code()));
    // A bit of the value, flipped under the link's counter mode: the frame arrives changed and well formed.
    let mut flipped = plain(OPEN, b"node_02", 2, FIELDS);
    *flipped.last_mut().unwrap() ^= 0x02;
    a_while().await;
    note("link-bit-flip", standing(&fleet.try_frame(OPEN, &flipped).await, "forges", "AR-10"));
}

/// What stands around the frames: key messages, seeds, clocks, programs, keys at rest, texts, and the listener itself.
async fn on_what_surrounds_it(fleet: &Fleet, note: &mut impl FnMut(&str, Outcome)) {
    let head = |kind: u8, body: &[u8]| {
        let serial = hex::decode(VICTIM).unwrap();
        [&b"<=>"[..], &[kind, (8 + body.len()) as u8], &serial, body].concat()
    };
    // A key under textbook RSA is a cube, and anybody can take its root: no such key is ever taken.
    let rsa = vectors("rsa");
    let cube = unhex(&rsa["cases"].as_array().unwrap().last().unwrap()["encrypt_output_text"]);
    note("textbook-rsa", forged(&fleet.try_frame(VICTIM, &head(0x6A, &cube)).await));
    // Epoch 1, number 1, the first seed of the node's list, and what the attacker makes of it without the key.
    let seed = [0, 0, 0, 1, 0, 0, 0, 1, 0x5C, 0xB8, 0x14, 0x70];
    note("constant-seed", forged(&fleet.try_frame(VICTIM, &head(0x68, &[&seed[..], &[7; 40]].concat())).await));
    // Whoever answers the node's question sets its clock. What it then says of the time is a value like others.
    let verdict = fleet.try_frame(CLOCK, &plain(CLOCK, b"n", 1, &[123, 1, 0, 0, 0, 52, 80])).await;
    let reading = verdict.reading.as_ref().unwrap();
    let late = deployment::now() - reading["received_ms"].as_u64().unwrap() / 1000;
    assert!(late < 600, "received when the gateway says: {reading}");
    note("false-time", outcome("nothing", verdict.label(), "AR-10"));
    note("over-the-air", forged(&fleet.try_frame(VICTIM, b"<=>\x7E\x01ABCDEFGH").await));

    let farm = fleet.farm.path("farm");
    let filled = [KEY.as_bytes(), KEPT_KEY.as_bytes(), WORD_KEY.as_bytes()];
    assert!(holds(&farm, b"field-7"), "the search finds what is there");
    let found = filled.iter().any(|key| holds(&farm, key) || holds(&farm, hex::encode(key).as_bytes()));
    note("keys-at-rest", outcome(if found { "reads" } else { "nothing" }, "-", "-"));

    // The last value is a zero, and looks like what fills the block.
    let frame = sealed(EncryptedType::Cloud, ENDS_KEY, ENDS, 1, &[74, 0, 0, 0, 0, 52, 0]);
    let verdict = fleet.try_frame(ENDS, &frame).await;
    let values: Vec<_> = verdict.reading.as_ref().unwrap()["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["values"][0].as_f64())
        .collect();
    assert_eq!(values, [Some(0.0), Some(0.0)], "{verdict:?}");
    note("trailing-zero", standing(&verdict, "nothing", "AR-10"));

    text_that_is_code(fleet, note).await;
    strangers_and_floods(fleet, note).await;
}

async fn text_that_is_code(fleet: &Fleet, note: &mut impl FnMut(&str, Outcome)) {
    let cases = vectors("malformed");
    let markup = cases["cases"].as_array().unwrap().iter().find(|c| c["id"] == "ascii-node-id-markup").unwrap();
    let verdict = fleet.try_frame(NAMED, &unhex(&markup["frame_hex"])).await;
    assert_eq!(verdict.reading.as_ref().unwrap()["node_id"], "<script>alert(1)");
    // STR, in ASCII: a statement, and what a terminal obeys.
    let text = "'); DROP TABLE reading;--\x1b[2J\x07";
    let frame = [&b"<=>\x86\x01#881025682E12A2FA#n\x1b[1m#212#STR:"[..], text.as_bytes(), b"#"].concat();
    a_while().await;
    let verdict = fleet.try_frame(NAMED, &frame).await;
    let reading = verdict.reading.as_ref().unwrap_or_else(|| panic!("{verdict:?}"));
    assert_eq!(reading["fields"][0]["values"][0], text);
    let token = fleet.farm.path("token");
    fivefold_keep::files::write(&token, fivefold_keep::files::Readers::Owner, fleet.farm.token.as_bytes()).unwrap();
    let mut list = std::process::Command::new(env!("CARGO_BIN_EXE_fivefold"));
    list.args(["reading", "list", "--dir", &fleet.farm.farm(), "--device", &did(NAMED)]);
    let shown = list.arg("--token-file").arg(&token).output().unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    assert!(!shown.stdout.is_empty() && !shown.stdout.contains(&0x1B), "{}", String::from_utf8_lossy(&shown.stdout));
    assert_eq!(fleet.readings(NAMED).await.len(), 2, "the table is there");
    note("text-that-is-code", outcome("nothing", verdict.label(), "-"));
}

async fn strangers_and_floods(fleet: &Fleet, note: &mut impl FnMut(&str, Outcome)) {
    const STRANGER: &str = "bbbb000000000001";
    let said = fleet.post(&plain(STRANGER, b"who", 1, FIELDS));
    assert_eq!(said.0, 403);
    let mut unknown = json!([]);
    for _ in 0..1200 {
        unknown = fleet.farm.ask("/v1/classic/unknown").await;
        if unknown.as_array().is_some_and(|u| u.iter().any(|u| u["serial"] == STRANGER)) {
            break;
        }
        a_while().await;
    }
    assert!(unknown.as_array().unwrap().iter().any(|u| u["serial"] == STRANGER), "the operator sees who is there");
    note("stranger", outcome("nothing", "-", "CL-07"));

    let bridge = format!("GET /hw/ps?frame={} HTTP/1.0\r\n\r\n", hex::encode(plain(OPEN, b"n", 3, FIELDS)));
    assert!(fleet.ask(bridge.as_bytes()).starts_with("HTTP/1.1 401"));
    note("no-token", outcome("nothing", "-", "CL-11"));

    // Whatever is not well formed, each in its way; a field of an ASCII frame that is empty, and markup, make no frame wrong.
    let mut refused = 0;
    for case in vectors("malformed")["cases"].as_array().unwrap() {
        if case["expect"] != "reject"
            || case["why"] == "outer serial differs from inner serial (or no key is known for it)"
        {
            continue;
        }
        let frame = case["frame_hex"].as_str().or(case["frame_parameter"].as_str()).unwrap();
        let request = format!("GET /getpost_frame_parser.php?frame={frame} HTTP/1.0\r\n\r\n");
        let said = fleet.ask(request.as_bytes());
        let status = said.split(' ').nth(1).unwrap_or_default();
        // Where the outer frame is whole, its serial is looked at first, and nobody knows it.
        assert!(["400", "403"].contains(&status), "{}: {said}", case["id"]);
        refused += 1;
    }
    assert!(refused >= 9);
    note("malformed", outcome("nothing", "-", "CL-01"));

    // Half-open connections, as many as one address gets and more, beside somebody who has something to say.
    let held: Vec<_> = (0..40).map(|_| fleet.connect()).collect();
    fleet.wait_for("what one address tried", || fleet.counted("CL-10") >= 32).await;
    drop(held);
    fleet
        .wait_for("the listener serves", || {
            let frame = hex::encode(plain(STRANGER, b"who", 2, FIELDS));
            let request = format!("GET /getpost_frame_parser.php?frame={frame} HTTP/1.0\r\n\r\n");
            std::net::TcpStream::connect(fleet.http).is_ok()
                && fleet.ask(request.as_bytes()).starts_with("HTTP/1.1 403")
        })
        .await;
    note("flood", outcome("nothing", "-", "CL-10"));
}

/// Each alarm of the table is where the operator looks: among what was refused or flagged, or among the findings of the book.
async fn the_alarms_are_told(fleet: &Fleet, expected: &BTreeMap<String, Outcome>) {
    let mut facts = Facts::at(fivefold::clock::now().unwrap());
    gather::book(&fleet.farm.operator().registry, &mut facts).unwrap();
    let findings = Audit::of(&facts, &Waivers::NONE).findings;
    let found = |code: &str| findings.iter().any(|f| f.rule.id == code || f.sentence.contains(code));
    for (name, (_, _, alarm)) in expected {
        if alarm == "-" || found(alarm) {
            continue;
        }
        let mut rejections = Value::Null;
        let mut is_counted = false;
        for _ in 0..300 {
            rejections = fleet.farm.ask("/v1/rejections").await;
            is_counted = rejections.as_array().unwrap().iter().any(|r| r["code"] == alarm.as_str());
            if is_counted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert!(is_counted, "{name}: {alarm} is nowhere: {rejections:#}");
    }
}
