//! `fivefold range`: what it lists, what it lets be permitted, and that without a permit nothing is attacked. What it obtains is
//! compared in `./ci.sh range`, against a deployment that runs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod farm;

use std::net::UdpSocket;
use std::time::Duration;

use farm::{Farm, answer, refused, says};
use fivefold::clock;
use serde_json::Value;

fn day(days: u64) -> String {
    clock::text(clock::now().unwrap() + days * 86_400)[..10].to_owned()
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|w| (*w).to_owned()).collect()
}

#[test]
fn every_attack_is_listed_with_level_property_and_what_the_page_states() {
    let listed = answer(&["range", "list"]);
    let listed = listed.as_array().unwrap();
    assert!(listed.len() >= 47);
    for attack in listed {
        assert!(attack["property"].as_str().unwrap().len() > 10, "{attack}");
        assert!(["E1", "E2", "E3", "E4", "E5", "at rest", "classic"].contains(&attack["level"].as_str().unwrap()));
        assert_eq!(attack["stated"].as_object().unwrap().len(), 4, "{attack}");
    }
    let insider = listed.iter().find(|a| a["attack"] == "insider-reads").unwrap();
    assert_eq!((&insider["stated"]["e1 only"][0], &insider["level"]), (&Value::from("reads"), &Value::from("E2")));
}

#[test]
fn an_operator_permits_what_is_his_own_and_for_a_week_at_most() {
    let farm = Farm::new();
    let dir = farm.path("");
    let permit = |more: &[&str]| words(&[&["range", "permit", "--dir", &dir][..], more].concat());
    says(&refused(&permit(&["--until", &day(9)])), &["7 days"]);
    says(&refused(&permit(&["--until", &day(0), "--attack", "no-such"])), &["no-such", "fivefold range list"]);
    says(
        &refused(&permit(&["--until", &day(0), "--address", "192.0.2.1:5683"])),
        &["192.0.2.1:5683", "no config file"],
    );
    let made = answer(&["range", "permit", "--dir", &dir, "--until", &day(2)]);
    // Both gateways have one radio here; node, ingest and API are the others.
    assert_eq!((made["addresses"].as_u64(), made["left_out"].as_array().unwrap().len()), (Some(4), 0));
    assert!(made["attacks"].as_u64().unwrap() >= 47);
    // What listens elsewhere is permitted by its name alone.
    let path = farm.path("gateways/south/gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(&farm.radio.to_string(), "192.0.2.7:17754")).unwrap();
    let made = answer(&["range", "permit", "--dir", &dir, "--until", &day(2)]);
    assert_eq!((&made["addresses"], &made["left_out"][0]), (&Value::from(4), &Value::from("192.0.2.7:17754")));
    let made = answer(&["range", "permit", "--dir", &dir, "--until", &day(2), "--address", "192.0.2.7:17754"]);
    assert_eq!((&made["addresses"], made["left_out"].as_array().unwrap().len()), (&Value::from(5), 0));
}

#[test]
fn without_a_permit_that_names_them_nobody_is_attacked() {
    let farm = Farm::new();
    let (dir, token) = (farm.path(""), farm.token.display().to_string());
    let run = words(&["range", "run", "--dir", &dir, "--token-file", &token]);
    says(&refused(&run), &["no permit", "fivefold range permit"]);
    answer(&["range", "permit", "--dir", &dir, "--until", &day(1), "--attack", "recorder-flips"]);
    // Permitted, but nothing runs.
    says(&refused(&run), &["the cloud does not run on this machine"]);
    let another = [&run[..], &words(&["--attack", "recorder-reads"])].concat();
    says(&refused(&another), &["the permit does not name the attack recorder-reads"]);
    // Somebody else's API is no target, whatever the config says since.
    let victim = UdpSocket::bind("127.0.0.1:0").unwrap();
    let path = farm.path("cloud/cloud.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(&farm.api.to_string(), &victim.local_addr().unwrap().to_string())).unwrap();
    says(&refused(&run), &["which is not in the permit", "nothing was sent"]);
    victim.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(victim.recv(&mut [0; 8]).is_err());
    // A permit of another operator, and one with an address more.
    let other = Farm::new();
    let permit = farm.path("range-permit.toml");
    let own = std::fs::read_to_string(&permit).unwrap();
    answer(&["range", "permit", "--dir", &other.path(""), "--until", &day(1)]);
    std::fs::copy(other.path("range-permit.toml"), &permit).unwrap();
    says(&refused(&run), &["this deployment's operator did not sign it"]);
    std::fs::write(&permit, own.replace("addresses = [", "addresses = [\"192.0.2.1:1\", ")).unwrap();
    says(&refused(&run), &["it was altered"]);
}
