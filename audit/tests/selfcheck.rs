//! What a daemon makes of an audit of itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::path::Path;

use fivefold_audit::facts::{Facts, Gateway, Live, PolicyReport, Reported, Seen};
use fivefold_audit::gather::{self, live};
use fivefold_audit::rule::{Kind, Severity, Subject};
use fivefold_audit::selfcheck::{self, Standing, WAIVERS_FILE};
use fivefold_audit::waiver::Waivers;
use fivefold_audit::{Audit, grade::Grade, report};
use fivefold_core::id::{Did, GatewayGroup, Net, Sid};
use fivefold_core::profile::{Overrides, Policy, Profile};
use fivefold_core::wire::cbor::List;
use fivefold_core::wire::state::{Device, NetworkKey, Part, Phase, State};

const NOW: u64 = 1_790_000_000;

fn facts() -> Facts {
    let mut facts = Facts::at(NOW);
    facts.gateways.push(Gateway {
        name: "north".into(),
        network: "0000beef".into(),
        sid: Sid(1),
        is_primary: false,
        is_revoked: false,
        certificate: Some((NOW - 1000, NOW + 80 * 86_400)),
        config: None,
        strange: Some(vec![]),
        link_keys: None,
    });
    facts
}

fn state(profile: Profile, keys: &[(u8, [u8; 16], Phase)]) -> Box<[Box<[u8]>]> {
    let policy = Policy::new(profile);
    let overrides = if profile == Profile::DangerLinkOnly {
        Overrides { danger_link_only: true, ..Overrides::NONE }
    } else {
        Overrides::NONE
    };
    let device = [Device { sid: Sid(7), did: Did([7; 8]), policy, overrides }];
    let keys: Vec<_> =
        keys.iter().map(|(index, key, phase)| NetworkKey { index: *index, key, phase: *phase }).collect();
    let state = State {
        version: 1,
        net: Net(0xBEEF),
        group: GatewayGroup(1),
        part: Part::WHOLE,
        devices: List::of(&device),
        contexts: List::default(),
        keys: List::of(&keys),
        revoked: List::default(),
        revoked_serials: List::default(),
        local: List::default(),
        classic: List::default(),
    };
    let mut out = vec![0; 4096];
    let len = state.emit(&mut out).unwrap();
    vec![out[..len].into()].into_boxed_slice()
}

fn audit(facts: &Facts) -> Audit {
    Audit::of(facts, &Waivers::NONE)
}

fn rules(audit: &Audit) -> Vec<&'static str> {
    audit.findings.iter().map(|f| f.rule.id).collect()
}

#[test]
fn a_key_that_can_be_guessed_stops_a_gateway_until_it_is_told_another() {
    let weak = live::network_key(1, b"Libelium-Dam-Key", "0000beef");
    let mut seen = facts();
    live::gateway(std::slice::from_ref(&weak), None, &mut seen);
    let folder = Path::new("north");
    let refused = selfcheck::may_start(&audit(&seen), Kind::Gateway, folder).unwrap_err().to_string();
    for words in [
        "AR-04",
        "printable text",
        "fivefold key rotate",
        "waivers.toml in its folder",
        "finding = \"its network key under index 1\"",
    ] {
        assert!(refused.contains(words), "{words} in {refused}");
    }
    let good = fivefold_core::suite::sha256(&[b"drawn"]);
    let good: [u8; 16] = good[..16].try_into().unwrap();
    let told = state(Profile::ToCloud, &[(1, *b"Libelium-Dam-Key", Phase::Retire), (2, good, Phase::Switch)]);
    let mut seen = facts();
    live::gateway(&[weak], Some(&told), &mut seen);
    selfcheck::may_start(&audit(&seen), Kind::Gateway, folder).unwrap();
    assert_eq!(rules(&audit(&seen)), Vec::<&str>::new());
    assert_eq!(audit(&seen).grades.whole, Some(Grade::A), "it knows its devices");
}

#[test]
fn what_is_critical_about_a_network_is_told_and_stops_nobody() {
    let told = state(Profile::DangerLinkOnly, &[]);
    let mut seen = facts();
    live::gateway(&[], Some(&told), &mut seen);
    let found = audit(&seen);
    assert_eq!((rules(&found), found.grades.whole), (vec!["AR-01"], Some(Grade::F)));
    selfcheck::may_start(&found, Kind::Gateway, Path::new("north")).unwrap();
    let standing = Standing::default();
    assert_eq!((standing.grade(), standing.open().len()), (None, 0));
    assert_eq!(standing.take(found.clone()).critical.len(), 1);
    assert_eq!(standing.take(found).critical.len(), 0, "what was told is not told again");
    assert_eq!(standing.grade(), Some(4));
    assert!(standing.open().into_iter().eq([(("AR-01", Severity::Critical), 1)]));
}

#[test]
fn a_state_that_cannot_be_read_is_no_good_state() {
    let mut seen = facts();
    live::gateway(&[], Some(&[vec![0xFF, 1].into()]), &mut seen);
    let refused = selfcheck::may_start(&audit(&seen), Kind::Gateway, Path::new("north")).unwrap_err();
    assert!(refused.to_string().contains("the state that the cloud told"), "{refused}");
    assert_eq!(audit(&seen).grades.whole, None);
}

#[test]
fn a_clock_that_is_behind_stops_no_start_for_good() {
    let mut seen = facts();
    seen.unread.push("a waiver of a year that is far away".into());
    let refused = |seen: &Facts| selfcheck::may_start(&audit(seen), Kind::Gateway, Path::new("north")).unwrap_err();
    assert!(refused(&seen).is_lasting());
    seen.now -= 400 * 86_400;
    let refused = refused(&seen);
    assert!(!refused.is_lasting() && refused.to_string().contains("the clock is"), "{refused}");
}

#[test]
fn what_a_running_cloud_reports_is_found_here_too() {
    let mut seen = facts();
    live::gateway(&[], Some(&state(Profile::ToCloud, &[])), &mut seen);
    let name = seen.devices[0].name.clone();
    let policy = Some(PolicyReport { at: NOW - 60, is_as_in_book: Some(false) });
    let reported = HashMap::from([(name.clone(), Reported { policy, ..Reported::default() })]);
    live::cloud(Live::default(), reported, &mut seen);
    let sent = report::json(&audit(&seen));
    let mut here = Facts::at(NOW);
    gather::running(&sent, &mut here).unwrap();
    let found = audit(&here);
    let [finding] = found.findings.as_slice() else { panic!("{:?}", found.findings) };
    let subject = (finding.subject.to_string(), finding.subject.part.as_str());
    assert_eq!((finding.rule.id, subject), ("AR-41", (format!("device {name}"), "reported")));
    let judged = |id: &str| found.rules.iter().find(|j| j.rule.id == id).unwrap();
    assert_eq!((judged("AR-40").good, judged("AR-40").unknown.len()), (1, 0));
    assert!(judged("AR-42").good == 0 && !judged("AR-42").unknown.is_empty(), "what it does not know is not good");
    assert_eq!(judged("AR-05").good, 0, "what stands in files is looked at there");
    for no_report in ["{}", "[]", "null", "{\"findings\": 1}"] {
        gather::running(&no_report.parse().unwrap(), &mut here).unwrap_err();
    }
}

#[test]
fn what_is_waived_starts_until_the_last_day_and_what_is_no_waiver_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(WAIVERS_FILE);
    let may = |now: u64| {
        let mut seen = facts();
        (seen.now, seen.gateways[0].certificate) = (now, None);
        seen.seen.push(Seen {
            rule: "AR-05",
            subject: Subject::new(Kind::Gateway, "north"),
            sentence: "it has what it may not have".into(),
            cure: String::new(),
            severity: None,
        });
        let waivers = selfcheck::waivers(folder.path(), &mut seen);
        let found = Audit::of(&seen, &waivers);
        let part = found.findings.first().map(|f| f.subject.part.clone());
        (selfcheck::may_start(&found, Kind::Gateway, folder.path()).map_err(|e| e.to_string()), part, found)
    };
    let (refused, part, _) = may(NOW);
    assert!(refused.is_err());
    let waiver = format!(
        "[[waiver]]\nrule = \"AR-05\"\nsubject = \"gateway north\"\nfinding = \"{}\"\nowner = \"M\"\nreason = \"a test\"\nuntil = \"2026-12-31\"\n",
        part.unwrap()
    );
    std::fs::write(&file, &waiver).unwrap();
    let (may_start, _, found) = may(NOW);
    may_start.unwrap();
    let news = Standing::default().take(found);
    let lines: Vec<_> = news.lines().collect();
    assert!(lines[0].0 && lines[0].1.contains("waived until 2026-12-31 by M (a test)"), "{lines:?}");
    let (refused, ..) = may(NOW + 200 * 86_400);
    assert!(refused.unwrap_err().contains("it ended with 2026-12-31"));
    std::fs::write(&file, waiver.replace("owner", "over")).unwrap();
    assert!(may(NOW).0.unwrap_err().contains("waivers.toml:5"), "what is no waiver is not passed over");
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("nowhere", &file).unwrap();
    assert!(may(NOW).0.unwrap_err().contains("waivers.toml"), "nor is a link that leads nowhere");
}
