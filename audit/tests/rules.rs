//! Every rule has a good fixture, in which none finds anything, and bad ones, in each of which it alone does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use fivefold_audit::facts::{
    Bare, Certificate, Classic, Config, Context, Device, Facts, Gateway, KeySeen, KeySince, Live, Network,
    PolicyReport, Print, Reported, Rsa, Seen, ShareSeen, Sharer, SignerSeen, TokenSeen, VaultSeen, Weakness, Wrap,
};
use fivefold_audit::rule::{Severity, Sight, Subject};
use fivefold_audit::rules;
use fivefold_audit::waiver::Waivers;
use fivefold_audit::{Audit, Outcome};
use fivefold_core::id::{Net, Sid};
use fivefold_core::profile::{Overrides, Policy, Profile, Radio, Sign};
use fivefold_core::suite::{Alg, sha256};
use fivefold_keep::registry::{KeyOrigin, Scope};
use fivefold_keep::rotation::Rotation;
use fivefold_keep::share::{CloudSettings, GatewaySettings, parse_config};

const NOW: u64 = 1_790_000_000;
const DAY: u64 = 86_400;
const GATEWAY: &str = r#"
name = "north"
id = "00000001"
net = "00000001"
group = "00000001"
[link]
did = "acde4800000000a1"
sid = "0001"
pan = "4321"
bind = "127.0.0.1:17754"
air = []
[uplink]
cloud = "https://cloud.example:8443"
[store]
path = "store.db"
max_mib = 256
[metrics]
bind = "127.0.0.1:9464"
[insecure_http]
bind = "127.0.0.1:8080"
[lorawan]
kind = "chirpstack"
broker = "mqtts://broker.example:8883"
application = "a"
activation = "otaa"
"#;
const CLOUD: &str = r#"
registry = "../registry.db"
vault = ".."
store = "store.db"
[ingest]
bind = "127.0.0.1:8443"
[api]
bind = "127.0.0.1:8444"
[[log.witnesses]]
url = "https://one.example"
vkey = "one"
[[log.witnesses]]
url = "https://two.example"
vkey = "two"
"#;

fn gateway(text: &str) -> Option<Config<GatewaySettings>> {
    let path = Path::new("farm/gateways/north/gateway.toml");
    Some(Config::new(path, text, parse_config(path, text).unwrap()))
}

fn cloud(text: &str) -> Option<Config<CloudSettings>> {
    let path = Path::new("farm/cloud/cloud.toml");
    Some(Config::new(path, text, parse_config(path, text).unwrap()))
}

fn key(what: &'static str, n: u8) -> KeySeen {
    KeySeen { what: what.into(), print: Some(Print(sha256(&[what.as_bytes(), &[n]]))), weak: None }
}

fn weak() -> Option<Weakness> {
    Some(Weakness { why: "printable text".into(), severity: Severity::Critical })
}

fn device(n: u8) -> Device {
    Device {
        name: format!("acde48000000000{n}"),
        network: "dams".into(),
        sid: Sid(0x0a10 + u16::from(n)),
        place: None,
        policy: Policy::new(Profile::ToCloud),
        overrides: Overrides::NONE,
        revoked_at: None,
        keys: Some(vec![key("MS3", n), key("root_psk", n)]),
        context: Context::Agreed(NOW - DAY),
        signer: None,
        share: Some(ShareSeen { path: format!("farm/nodes/{n}/node.toml").into(), differs: None }),
        reported: None,
    }
}

fn modulus(seed: u8, bytes: usize) -> Vec<u8> {
    let mut all: Vec<u8> = (0..bytes.div_ceil(32)).flat_map(|i| sha256(&[&[seed, i as u8]])).take(bytes).collect();
    all[0] |= 0x80;
    *all.last_mut().unwrap() |= 1;
    all
}

fn rsa(seed: u8) -> Rsa {
    // A prime of its own (65537 is one of another kind: nobody's modulus has it): two random odd numbers may share a factor.
    Rsa {
        subject: Subject::file(Path::new(&format!("farm/rsa-{seed}.pem"))),
        modulus: modulus(seed, 256),
        exponent: vec![1, 0, 1],
    }
}

/// A deployment in which nothing is wrong.
fn good() -> Facts {
    let rotation = Rotation {
        net: Net(1),
        previous: 1,
        index: 2,
        started_at: NOW - 10 * DAY,
        switched_at: Some(NOW - 9 * DAY),
        rolled_back_at: None,
        retired_at: Some(NOW - 2 * DAY),
        is_paused: false,
        is_urgent: false,
        starts_over: false,
    };
    let mut signs = device(2);
    signs.policy.sign = Sign::Batch;
    signs.signer = Some(SignerSeen { origin: Some(KeyOrigin::Device), is_dh_key: false });
    let mut gone = device(3);
    gone.revoked_at = Some(NOW - 20 * DAY);
    let mut facts = Facts::at(NOW);
    facts.has_book = true;
    facts.wanted = Some(Profile::ToCloud);
    facts.networks.push(Network {
        name: "dams".into(),
        profile: Profile::ToCloud,
        keys: Some(vec![key("its key under index 2", 0)]),
        key_since: Some(KeySince::Made(NOW - 10 * DAY)),
        rotation: Some(rotation),
        is_local: false,
    });
    facts.devices = vec![device(1), signs, gone];
    facts.classic.push(Classic {
        name: "387264539".into(),
        network: "dams".into(),
        sid: Sid(0x0a20),
        is_hardened: true,
        keys: vec![key("its key for the cloud", 9)],
        has_key_messages: false,
        signer: None,
        revoked_at: None,
    });
    facts.gateways.push(Gateway {
        name: "north".into(),
        network: "dams".into(),
        sid: Sid(1),
        is_primary: true,
        is_revoked: false,
        certificate: Some((NOW - 30 * DAY, NOW + 60 * DAY)),
        config: gateway(GATEWAY),
        strange: Some(vec![]),
        link_keys: None,
    });
    let token = |name: &str, made, ends| TokenSeen { name: name.into(), scope: Scope::Operate, made, ends: Some(ends) };
    // The second one has ended: it opens nothing any more.
    facts.tokens = vec![token("shop", NOW - DAY, NOW + 364 * DAY), token("old", NOW - 900 * DAY, NOW)];
    facts.cloud = cloud(CLOUD);
    facts.vaults.push(VaultSeen {
        subject: Subject::deployment(),
        folder: "farm".into(),
        wrap: Wrap::Held("the systemd credential `farm`".into()),
    });
    facts.certificates.push(Certificate { path: "farm/ca.pem".into(), broken: None });
    facts.rsa.push(rsa(1));
    facts.is_searched = true;
    facts
}

fn config(facts: &mut Facts, from: &str, to: &str) {
    assert!(GATEWAY.contains(from));
    facts.gateways[0].config = gateway(&GATEWAY.replace(from, to));
}

type Break = fn(&mut Facts);

fn report(at: u64, is_as_in_book: Option<bool>) -> Option<PolicyReport> {
    Some(PolicyReport { at, is_as_in_book })
}

/// What a running cloud sees beside, all of it good, and what is wrong then.
fn live(facts: &mut Facts, break_it: Break) {
    for device in facts.devices.iter_mut().filter(|d| d.revoked_at.is_none()) {
        let policy = report(NOW - DAY, Some(true));
        device.reported = Some(Reported { enrolled: NOW - 20 * DAY, heard: Some(NOW - 60), policy, unsigned: None });
    }
    let cosigned = vec![Some(NOW - 60), Some(NOW - 120)];
    facts.live = Some(Live { started: NOW - 10 * DAY, cosigned, strays: 0, is_restored: false });
    break_it(facts);
}

/// What breaks each rule that looks at files. More than one where it has more than one way to be broken.
const BAD: &[(&str, Severity, Break)] = &[
    ("AR-01", Severity::Critical, |f| f.networks[0].profile = Profile::DangerLinkOnly),
    ("AR-01", Severity::Critical, |f| f.devices[0].policy.profile = Profile::DangerLinkOnly),
    ("AR-02", Severity::High, |f| f.devices[0].policy.radio = Radio::XbeeEe),
    ("AR-02", Severity::High, |f| f.devices[0].overrides.danger_no_link = true),
    ("AR-03", Severity::High, |f| config(f, "[uplink]", "minimum_level = 4\n[uplink]")),
    ("AR-04", Severity::Critical, |f| f.networks[0].keys.as_mut().unwrap()[0].weak = weak()),
    ("AR-05", Severity::Critical, |f| f.gateways[0].strange = Some(vec!["farm/gateways/north/registry.db".into()])),
    ("AR-06", Severity::High, |f| f.networks[0].profile = Profile::ToGateway),
    ("AR-07", Severity::Critical, |f| f.devices[0].keys = f.devices[1].keys.clone().map(|k| k[..1].to_vec())),
    ("AR-07", Severity::Critical, |f| {
        let sharer = |name: &str| Sharer { name: name.into(), network: "dams".into(), is_revoked: false };
        f.sharers.push(vec![sharer("387264539"), sharer("387264540")]);
    }),
    ("AR-08", Severity::Critical, |f| f.devices[0].keys.as_mut().unwrap()[0].weak = weak()),
    ("AR-08", Severity::Critical, |f| f.classic[0].keys[0].weak = weak()),
    ("AR-11", Severity::High, |f| f.certificates[0].broken = Some("SHA-1")),
    ("AR-12", Severity::Critical, |f| f.rsa[0].modulus = modulus(1, 128)),
    ("AR-12", Severity::Critical, |f| f.rsa[0].modulus = modulus(1, 64)),
    ("AR-13", Severity::Medium, |f| f.classic[0].has_key_messages = true),
    ("AR-14", Severity::Critical, |f| f.rsa[0].exponent = vec![3]),
    ("AR-14", Severity::Critical, |f| f.rsa.extend([f.rsa[0].clone()])),
    ("AR-16", Severity::Medium, |f| f.devices[0].policy.alg = Alg::AesCcm16_64_128),
    ("AR-17", Severity::Medium, |f| f.devices[0].context = Context::Agreed(NOW - 40 * DAY)),
    ("AR-17", Severity::High, |f| f.devices[0].context = Context::Agreed(NOW - 91 * DAY)),
    ("AR-18", Severity::Medium, |f| f.networks[0].key_since = Some(KeySince::Made(NOW - 91 * DAY))),
    ("AR-18", Severity::High, |f| f.networks[0].key_since = Some(KeySince::Made(NOW - 181 * DAY))),
    ("AR-18", Severity::Medium, |f| f.networks[0].key_since = Some(KeySince::InUse(NOW - 91 * DAY))),
    ("AR-19", Severity::Critical, |f| f.networks[0].rotation = None),
    ("AR-19", Severity::Critical, |f| f.networks[0].rotation.as_mut().unwrap().retired_at = None),
    ("AR-19", Severity::Critical, |f| f.devices[2].revoked_at = Some(NOW - DAY)),
    ("AR-20", Severity::Medium, |f| f.gateways[0].certificate = Some((NOW - DAY, NOW + 399 * DAY))),
    ("AR-20", Severity::Medium, |f| f.gateways[0].certificate = Some((NOW - 80 * DAY, NOW + 10 * DAY))),
    ("AR-21", Severity::High, |f| {
        let believed =
            "[[link.danger_synced]]\ndid = \"acde480000000001\"\nsid = \"0a11\"\nkey_index = 1\ncounter = 0\n[uplink]";
        config(f, "[uplink]", believed);
    }),
    ("AR-24", Severity::Low, |f| f.devices[0].policy.mode = fivefold_core::profile::Mode::Random),
    ("AR-25", Severity::High, |f| f.devices[1].signer = None),
    ("AR-26", Severity::Medium, |f| f.devices[1].signer.as_mut().unwrap().origin = Some(KeyOrigin::Elsewhere)),
    ("AR-26", Severity::Medium, |f| f.devices[1].signer.as_mut().unwrap().is_dh_key = true),
    ("AR-26", Severity::Medium, |f| {
        f.classic[0].signer = Some(SignerSeen { origin: Some(KeyOrigin::Elsewhere), is_dh_key: false });
    }),
    ("AR-27", Severity::High, |f| f.cloud = cloud(CLOUD.split("[[log").next().unwrap())),
    ("AR-28", Severity::Critical, |f| {
        let mut second = f.gateways[0].clone();
        (second.name, second.sid) = ("south".into(), Sid(2));
        f.gateways.push(second);
    }),
    ("AR-29", Severity::Medium, |f| f.devices[0].policy.pq_mix = false),
    ("AR-30", Severity::High, |f| config(f, "[store]", "insecure_allow_x25519 = true\n[store]")),
    ("AR-30", Severity::High, |f| config(f, "https://", "http://")),
    ("AR-30", Severity::High, |f| config(f, "activation", "insecure_mqtt = true\nactivation")),
    ("AR-30", Severity::High, |f| f.cloud = cloud(&CLOUD.replace("[api]", "insecure_allow_x25519 = true\n[api]"))),
    ("AR-31", Severity::Critical, |f| config(f, "127.0.0.1:9464", "0.0.0.0:9464")),
    ("AR-31", Severity::High, |f| config(f, "127.0.0.1:8080", "[::]:8080")),
    ("AR-32", Severity::Medium, |f| config(f, "\"store.db\"", "\"/dev/shm/store.db\"")),
    ("AR-32", Severity::Medium, |f| config(f, "max_mib = 256", "max_mib = 1")),
    ("AR-36", Severity::High, |f| f.vaults[0].wrap = Wrap::Beside("farm/passphrase".into())),
    ("AR-36", Severity::Medium, |f| f.vaults[0].wrap = Wrap::Elsewhere("/media/passphrase".into())),
    ("AR-36", Severity::High, |f| {
        let why = "holds a private key in the clear".into();
        f.bare.push(Bare { path: PathBuf::from("farm/x.pem"), why, cure: "shred -u farm/x.pem".into() });
    }),
    ("AR-37", Severity::Medium, |f| config(f, "[metrics]", "[limits]\nmessages_a_minute = 65535\n[metrics]")),
    ("AR-37", Severity::Medium, |f| config(f, "\"127.0.0.1:8080\"", "\"127.0.0.1:8080\"\nrequests_a_minute = 1000000")),
    ("AR-38", Severity::Critical, |f| f.devices[0].sid = f.devices[1].sid),
    ("AR-38", Severity::Critical, |f| f.classic[0].sid = f.devices[1].sid),
    ("AR-38", Severity::Critical, |f| f.devices[0].sid = Sid(0xE205)),
    ("AR-38", Severity::Critical, |f| f.gateways[0].sid = f.devices[1].sid),
    ("AR-38", Severity::Critical, |f| f.gateways[0].sid = Sid(0)),
    ("AR-39", Severity::High, |f| config(f, "\"otaa\"", "\"abp\"")),
    ("AR-39", Severity::High, |f| config(f, "\"otaa\"", "\"otaa\"\nabp = [\"0004a30b001c0530\"]")),
    ("AR-41", Severity::Critical, |f| {
        f.devices[0].share.as_mut().unwrap().differs = Some("alg is 10 there and 11 in the book".into());
    }),
    ("AR-25", Severity::High, |f| live(f, |f| f.devices[1].reported.as_mut().unwrap().unsigned = Some(NOW - 3 * DAY))),
    ("AR-27", Severity::High, |f| live(f, |f| f.live.as_mut().unwrap().cosigned[0] = Some(NOW - 2 * DAY))),
    ("AR-27", Severity::High, |f| live(f, |f| f.live.as_mut().unwrap().cosigned[1] = None)),
    ("AR-40", Severity::Critical, |f| live(f, |f| f.live.as_mut().unwrap().strays = 1)),
    ("AR-41", Severity::Critical, |f| {
        live(f, |f| f.devices[0].reported.as_mut().unwrap().policy = report(NOW - DAY, Some(false)));
    }),
    ("AR-41", Severity::Critical, |f| {
        live(f, |f| f.devices[0].reported.as_mut().unwrap().policy = report(NOW - 3 * DAY, Some(true)));
    }),
    ("AR-41", Severity::Critical, |f| live(f, |f| f.devices[0].reported.as_mut().unwrap().policy = None)),
    ("AR-45", Severity::Medium, |f| f.tokens[0].ends = None),
    ("AR-45", Severity::Medium, |f| f.tokens[0].ends = Some(NOW + 400 * DAY)),
    ("AR-45", Severity::Low, |f| f.tokens[0].scope = Scope::Admin),
    ("AR-43", Severity::Medium, |f| f.devices[0].context = Context::Installed(NOW - 8 * DAY)),
];

/// A classic device that is not hardened breaks both of these.
const TOGETHER: [&str; 2] = ["AR-09", "AR-10"];

fn broken(facts: &Facts) -> Vec<(&'static str, Severity)> {
    let mut all: Vec<_> = Audit::of(facts, &Waivers::NONE).findings.iter().map(|f| (f.rule.id, f.severity)).collect();
    all.dedup();
    all
}

#[test]
fn in_the_good_fixture_no_rule_finds_anything() {
    let audit = Audit::of(&good(), &Waivers::NONE);
    let found: Vec<_> = audit.findings.iter().map(|f| (f.rule.id, &f.sentence)).collect();
    assert!(found.is_empty(), "{found:?}");
    // Those about other people's files say nothing where there are none.
    for judged in audit.rules.iter().filter(|j| j.rule.id.starts_with("AR-")) {
        let said = judged.good + judged.unknown.len();
        let is_code = matches!(judged.rule.sight, Sight::Code(_));
        assert!(is_code || said > 0, "{} says nothing of what it is about", judged.rule.id);
    }
}

#[test]
fn each_bad_fixture_is_found_by_its_rule_and_by_no_other() {
    for (n, (rule, severity, break_it)) in BAD.iter().enumerate() {
        let mut facts = good();
        break_it(&mut facts);
        // E1 alone breaks what stands on E3 as well: that is another rule's to say, not these.
        assert_eq!(broken(&facts), [(*rule, *severity)], "fixture {n}");
    }
    let mut facts = good();
    facts.classic[0].is_hardened = false;
    assert_eq!(broken(&facts), [("AR-10", Severity::Critical), ("AR-09", Severity::High)]);
}

#[test]
fn a_running_cloud_passes_what_it_saw_and_nothing_else() {
    let looked = |break_it: Break, id: &str| {
        let mut facts = good();
        live(&mut facts, break_it);
        let audit = Audit::of(&facts, &Waivers::NONE);
        assert!(audit.findings.is_empty(), "{:?}", audit.findings);
        let judged = audit.rules.iter().find(|j| j.rule.id == id).unwrap();
        (judged.good > 0, judged.unknown.len())
    };
    for id in ["AR-25", "AR-27", "AR-40", "AR-41"] {
        assert_eq!(looked(|_| {}, id), (true, 0), "{id}");
    }
    assert_eq!(looked(|_| {}, "AR-42"), (false, 1), "nobody looks for repeats yet");
    // One that has just begun has seen no head, and was told nothing yet.
    let begun: Break = |f| {
        let live = f.live.as_mut().unwrap();
        (live.started, live.cosigned) = (NOW - 60, vec![None, None]);
        f.devices.iter_mut().for_each(|d| d.share = None);
        f.devices.iter_mut().filter_map(|d| d.reported.as_mut()).for_each(|r| {
            (r.heard, r.policy) = (None, None);
        });
    };
    assert_eq!(looked(begun, "AR-27"), (false, 1));
    assert_eq!(looked(begun, "AR-41"), (false, 2));
    assert_eq!(looked(|f| f.devices[0].reported.as_mut().unwrap().policy = report(NOW, None), "AR-41"), (true, 1));
    let restored: Break = |f| (f.live.as_mut().unwrap().strays, f.live.as_mut().unwrap().is_restored) = (7, true);
    assert_eq!(looked(restored, "AR-40"), (true, 0));
}

#[test]
fn no_rule_is_without_a_fixture_and_none_is_missing() {
    let ids: Vec<&str> = rules::all().map(|r| r.id).filter(|id| id.starts_with("AR-")).collect();
    let wanted: Vec<String> = (1..=45).map(|n| format!("AR-{n:02}")).collect();
    assert_eq!(ids, wanted);
    for rule in rules::all().filter(|r| r.id.starts_with("AR-")) {
        let has = BAD.iter().any(|(id, ..)| *id == rule.id) || TOGETHER.contains(&rule.id);
        let is_blind = matches!(rule.sight, Sight::Code(_) | Sight::Given(_)) || rule.id == "AR-42";
        assert!(has || is_blind, "{} has no bad fixture", rule.id);
        for text in [rule.title, rule.why, rule.cure, rule.source] {
            assert!(!text.trim().is_empty(), "{}", rule.id);
        }
    }
}

#[test]
fn what_somebody_else_saw_is_a_finding_of_its_rule_and_what_nobody_saw_is_not_good() {
    for rule in rules::all() {
        let mut facts = good();
        let subject = Subject::file(Path::new("/etc/x.conf"));
        facts.seen.push(Seen {
            rule: rule.id,
            subject,
            sentence: "it is bad".into(),
            cure: String::new(),
            severity: None,
        });
        let audit = Audit::of(&facts, &Waivers::NONE);
        let [finding] = audit.findings.as_slice() else { panic!("{}: {:?}", rule.id, audit.findings) };
        assert_eq!((finding.rule.id, finding.cure.as_str()), (rule.id, rule.cure));
        let is_blind = matches!(rule.sight, Sight::Given(_) | Sight::Live(_));
        let unknown = |facts: &Facts| {
            let audit = Audit::of(facts, &Waivers::NONE);
            let judged = audit.rules.into_iter().find(|j| j.rule.id == rule.id).unwrap();
            judged.unknown.iter().any(|u| u.subject == Subject::deployment())
        };
        if is_blind {
            assert!(unknown(&facts), "{}", rule.id);
            facts.examined.push(rule.id);
            assert!(!unknown(&facts), "{}", rule.id);
        }
    }
}

#[test]
fn a_rule_without_its_facts_says_so() {
    let mut facts = good();
    facts.gateways[0].config = None;
    facts.gateways[0].strange = None;
    facts.cloud = None;
    facts.networks[0].keys = None;
    facts.networks[0].key_since = None;
    facts.wanted = None;
    facts.networks[0].profile = Profile::ToGateway;
    facts.devices.iter_mut().for_each(|d| (d.keys, d.context) = (None, Context::AtGateway));
    facts.is_searched = false;
    let audit = Audit::of(&facts, &Waivers::NONE);
    assert!(audit.findings.is_empty());
    for id in [
        "AR-03", "AR-04", "AR-05", "AR-06", "AR-07", "AR-08", "AR-17", "AR-18", "AR-21", "AR-27", "AR-30", "AR-31",
        "AR-32", "AR-36", "AR-37", "AR-39", "AR-43",
    ] {
        let judged = audit.rules.iter().find(|j| j.rule.id == id).unwrap();
        assert!(!judged.unknown.is_empty(), "{id} passes what it did not see");
    }
}

#[test]
fn a_clock_that_is_behind_passes_no_age_and_no_waiver() {
    let mut facts = good();
    facts.devices[1].context = Context::Installed(NOW - DAY);
    assert_eq!(Audit::of(&facts, &Waivers::NONE).outcome(), Outcome::Clean);
    facts.now = DAY;
    let audit = Audit::of(&facts, &Waivers::NONE);
    assert_eq!(audit.outcome(), Outcome::Unreadable);
    assert!(audit.unread[0].contains("the clock is"), "{:?}", audit.unread);
    assert_eq!(audit.grades.whole, None);
    for id in ["AR-17", "AR-18", "AR-20", "AR-43"] {
        let judged = audit.rules.iter().find(|j| j.rule.id == id).unwrap();
        assert!(!judged.unknown.is_empty(), "{id}");
        assert!(judged.good == 0 || id == "AR-43" && judged.good == 1, "{id} passes by a clock that is behind");
    }
    // The clocks of two machines differ a little.
    facts.now = NOW - 10 * DAY;
    facts.devices.iter_mut().for_each(|d| d.context = Context::Agreed(NOW - 10 * DAY + 60));
    assert_eq!(facts.clock_is_behind(), None);
}

#[test]
fn a_key_that_was_in_use_of_late_may_be_an_old_one() {
    let mut facts = good();
    facts.networks[0].key_since = Some(KeySince::InUse(NOW - 10 * DAY));
    let audit = Audit::of(&facts, &Waivers::NONE);
    let judged = audit.rules.iter().find(|j| j.rule.id == "AR-18").unwrap();
    assert_eq!((audit.findings.len(), judged.good, judged.unknown.len()), (0, 0, 1));
}

#[test]
fn a_gateways_folder_alone_passes_nothing_that_stands_in_the_book() {
    let all = good();
    let mut facts = Facts::at(NOW);
    facts.gateways = all.gateways;
    facts.gateways[0].certificate = None;
    config(&mut facts, "[uplink]", "minimum_level = 5\n[uplink]");
    let audit = Audit::of(&facts, &Waivers::NONE);
    assert!(audit.findings.is_empty());
    for judged in audit.rules.iter().filter(|j| j.rule.sight == Sight::Book) {
        assert_eq!((judged.good, judged.unknown.is_empty()), (0, false), "{} passes without a book", judged.rule.id);
    }
    for id in ["AR-01", "AR-02", "AR-03", "AR-06", "AR-09", "AR-10", "AR-20", "AR-32", "AR-38"] {
        assert_eq!(rules::named(id).unwrap().sight, Sight::Book, "{id}");
    }
}

#[test]
fn a_gateway_with_two_faults_of_one_rule_is_told_of_both() {
    let mut facts = good();
    let open = GATEWAY.replace("127.0.0.1:9464", "0.0.0.0:9464").replace("127.0.0.1:8080", "[::]:8080");
    facts.gateways[0].config = gateway(&open);
    assert_eq!(broken(&facts), [("AR-31", Severity::Critical), ("AR-31", Severity::High)]);
    let faults = [
        ("\"127.0.0.1:8080\"", "\"127.0.0.1:8080\"\nrequests_a_minute = 1000000"),
        ("[metrics]", "[limits]\nmessages_a_minute = 65535\n[metrics]"),
        ("\"otaa\"", "\"abp\"\nabp = [\"0004a30b001c0530\"]"),
    ];
    let text = faults.into_iter().fold(GATEWAY.to_owned(), |text, (from, to)| text.replace(from, to));
    facts.gateways[0].config = gateway(&text);
    facts.gateways[0].certificate = Some((NOW - 395 * DAY, NOW + 5 * DAY));
    let audit = Audit::of(&facts, &Waivers::NONE);
    let found: Vec<&str> = audit.findings.iter().map(|f| f.rule.id).collect();
    assert_eq!(found, ["AR-39", "AR-39", "AR-20", "AR-20", "AR-37", "AR-37"]);
}

#[test]
fn what_no_setting_breaks_is_not_named_as_held_where_a_dump_breaks_it() {
    let mut facts = good();
    let held = |facts: &Facts| {
        let text = fivefold_audit::report::text(&Audit::of(facts, &Waivers::NONE));
        text.lines().find(|line| line.starts_with("No setting breaks these")).unwrap().to_owned()
    };
    assert!(held(&facts).contains("AR-15"));
    let subject = Subject::file(Path::new("dump.sql"));
    facts.seen.push(Seen {
        rule: "AR-15",
        subject,
        sentence: "no padding".into(),
        cure: String::new(),
        severity: None,
    });
    assert!(!held(&facts).contains("AR-15") && held(&facts).contains("AR-22"));
}

#[test]
fn a_finding_in_a_config_names_the_line() {
    let mut facts = good();
    config(&mut facts, "127.0.0.1:9464", "0.0.0.0:9464");
    let audit = Audit::of(&facts, &Waivers::NONE);
    let place = audit.findings[0].subject.place.as_ref().unwrap();
    let line = GATEWAY.lines().position(|l| l.contains("9464")).unwrap() + 1;
    assert_eq!(place.line, Some(line));
}
