//! A trust file is read, or one sentence says what is wrong with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod sample;

use fivefold_evidence::cosignature::Rule;
use fivefold_evidence::trust::{NotTrust, Trust};
use sample::{NOW, Village};

#[test]
fn a_trust_file_is_read_as_it_was_written() {
    let village = Village::new(40);
    let trust = village.trust();
    let keys: Vec<_> = village.log.witnesses.iter().map(|w| w.vkey().clone()).collect();
    assert_eq!(Ok(&trust.rule), Rule::new(keys, 3, 1).as_ref());
    assert_eq!(trust.operators.len(), 1);
    assert_eq!(&trust.log, village.log.key.vkey());
    assert_eq!(trust.operators[0].der(), village.ca.der);
}

#[test]
fn each_mistake_has_its_sentence() {
    let (village, other) = (Village::new(40), Village::new(90));
    let text = village.trust_text();
    let log = village.log.key.vkey().to_string();
    let [first, second, third] = [0, 1, 2].map(|n| village.log.witnesses[n].vkey().to_string());
    let device = &village.devices[0];
    let leaf = village.ca.certify(device.key.spki(), &["urn:dev:mac:acde480000000001"], |p| {
        sample::lives(p, NOW, NOW + 1);
    });
    let leaf = rcgen_pem(&leaf);
    let pem = village.ca.pem.as_str();
    let mistakes: Vec<(String, &str)> = vec![
        (text.replace("[log]", "[log"), "cannot be read"),
        (text.replace("vkey = ", "key = "), "unknown field `key`"),
        (text.replace("need = 3", "need = 3\nmore = 1"), "unknown field `more`"),
        (format!("{text}\n[extra]\n"), "unknown field `extra`"),
        (text.replace("need = 3", "need = 0"), "witnesses.need is 0"),
        (text.replace("need = 3", "need = 4"), "witnesses.need is 4"),
        (text.replace("need = 3", "need = -1"), "cannot be read"),
        (text.replace("pq_need = 1", "pq_need = 2"), "only 1 of the witnesses have an ML-DSA-44 key"),
        (text.replace(&second, &first), "twice"),
        (text.replace(&log, &first), "it is the key of a witness, not of a log"),
        (text.replace(&first, &log), "it is the key of a log, not of a witness"),
        (text.replace(&third, &third[..third.len() - 4]), "no key of its kind"),
        (text.replace(&log, &log.replace("fivefold.", "fivefald.")), "number does not belong"),
        (text.replace(pem, "nothing"), "no block of PEM"),
        (text.replace(pem, &format!("{pem}{}", other.ca.pem)), "more than one block of PEM"),
        (text.replace(pem, &leaf), "no CA bit"),
        (text.replace(pem, &pem.replace("CERTIFICATE", "PRIVATE KEY")), "another kind of PEM"),
        (format!("{text}\n[timestamps]\nca = []\n"), "names nobody in timestamps.ca"),
        (" ".repeat((1 << 20) + 1), "larger than 1 MiB"),
        (String::new(), "missing field"),
    ];
    for (wrong, sentence) in mistakes {
        assert_ne!(wrong, text, "the mistake for `{sentence}` was not made");
        match wrong.parse::<Trust>() {
            Ok(_) => panic!("taken, although: {sentence}"),
            Err(e) => {
                let said = e.to_string();
                assert!(said.contains(sentence) && !said.contains('\n'), "`{said}` does not say `{sentence}`");
            }
        }
    }
    let nobody = text.split("vkeys = [").next().unwrap().to_owned() + "vkeys = []\n";
    assert!(matches!(nobody.parse::<Trust>(), Err(NotTrust::Nobody("witnesses.vkeys"))));
}

fn rcgen_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|c| std::str::from_utf8(c).unwrap()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
