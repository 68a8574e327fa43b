//! What is waived, what is not, and what grades come of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::Path;

use fivefold_audit::facts::{Classic, Context, Device, Facts, Gateway, KeySeen, KeySince, Network, Seen};
use fivefold_audit::grade::Grade;
use fivefold_audit::rule::Subject;
use fivefold_audit::waiver::Waivers;
use fivefold_audit::{Audit, Outcome};
use fivefold_core::id::Sid;
use fivefold_core::profile::{Overrides, Policy, Profile};

/// 2026-09-21.
const NOW: u64 = 1_790_000_000;

fn network(name: &str, profile: Profile) -> Network {
    Network {
        name: name.into(),
        profile,
        keys: None,
        key_since: Some(KeySince::Made(NOW)),
        rotation: None,
        is_local: false,
    }
}

fn facts() -> Facts {
    let mut facts = Facts::at(NOW);
    facts.networks = vec![network("dams", Profile::ToCloud), network("open", Profile::DangerLinkOnly)];
    facts.is_searched = true;
    facts
}

fn classic() -> Classic {
    Classic {
        name: "387264539".into(),
        network: "dams".into(),
        sid: Sid(0x0a20),
        is_hardened: false,
        keys: vec![KeySeen { what: "its key".into(), print: None, weak: None }],
        has_key_messages: false,
        signer: None,
        revoked_at: None,
    }
}

fn waiver(rule: &str, subject: &str) -> String {
    format!(
        "[[waiver]]\nrule = \"{rule}\"\nsubject = \"{subject}\"\nowner = \"M\"\nreason = \"r\"\nuntil = \"2027-03-31\"\n"
    )
}

/// A waiver for the one finding of a rule.
fn exact(facts: &Facts, rule: &str) -> String {
    let open = audit(facts, "");
    let finding = open.findings.iter().find(|f| f.rule.id == rule).unwrap();
    waiver(rule, &finding.subject.to_string()) + &format!("finding = \"{}\"\n", finding.subject.part)
}

fn audit(facts: &Facts, waivers: &str) -> Audit {
    Audit::of(facts, &Waivers::parse(waivers, Path::new("w.toml"), NOW).unwrap())
}

fn whole(audit: &Audit) -> Grade {
    audit.grades.whole.unwrap()
}

fn grade(audit: &Audit, network: &str) -> Grade {
    audit.grades.networks.iter().find(|n| n.network == network).unwrap().grade.unwrap()
}

#[test]
fn what_is_waived_stays_listed_and_lets_the_audit_pass() {
    let facts = facts();
    let open = audit(&facts, "");
    assert_eq!((open.findings.len(), open.waived.len(), open.outcome()), (1, 0, Outcome::Findings));
    let waived = audit(&facts, &waiver("AR-01", "network open"));
    assert_eq!((waived.findings.len(), waived.waived.len(), waived.outcome()), (0, 1, Outcome::Clean));
    let text = fivefold_audit::report::text(&waived);
    assert!(text.contains("waived until 2027-03-31 by M (r)") && text.contains("AR-01"), "{text}");
    assert!(text.contains("F  network open, with 1 waived (never better than F: E1 alone)"), "{text}");
    let json = fivefold_audit::report::json(&waived);
    assert_eq!(json["waived"][0]["waiver"]["owner"], "M");
}

#[test]
fn e1_alone_is_f_and_ecb_is_d_whatever_is_waived() {
    let mut facts = facts();
    facts.classic.push(classic());
    let none = audit(&facts, "");
    assert_eq!((grade(&none, "open"), grade(&none, "dams"), whole(&none)), (Grade::F, Grade::F, Grade::F));
    let all = waiver("AR-01", "network open") + &waiver("AR-09", "network dams") + &waiver("AR-10", "network dams");
    let waived = audit(&facts, &all);
    assert!(waived.findings.is_empty());
    assert_eq!((grade(&waived, "open"), grade(&waived, "dams"), whole(&waived)), (Grade::F, Grade::D, Grade::F));
    facts.networks.pop();
    facts.classic.clear();
    assert_eq!((grade(&audit(&facts, ""), "dams"), whole(&audit(&facts, ""))), (Grade::A, Grade::A));
}

#[test]
fn frames_in_the_clear_and_what_belongs_to_no_network_cap_the_grade_too() {
    let mut facts = facts();
    facts.networks.pop();
    facts.classic.push(Classic { keys: vec![], ..classic() });
    let plain = audit(&facts, &waiver("AR-10", "network dams"));
    assert_eq!((plain.findings.len(), grade(&plain, "dams"), whole(&plain)), (0, Grade::D, Grade::D));
    facts.classic.clear();
    for (rule, most) in [("AR-09", Grade::D), ("AR-01", Grade::F)] {
        let subject = Subject::file(Path::new("dump.sql"));
        facts.seen = vec![Seen { rule, subject, sentence: "it is bad".into(), cure: String::new(), severity: None }];
        let waived = audit(&facts, &exact(&facts, rule));
        assert_eq!((waived.findings.len(), grade(&waived, "dams"), whole(&waived)), (0, Grade::A, most));
        let text = fivefold_audit::report::text(&waived);
        assert!(text.contains(&format!("the whole, with 1 waived (never better than {most}")), "{text}");
    }
}

#[test]
fn there_is_no_grade_of_what_nobody_read_but_f() {
    let none = |facts: &Facts| {
        let audit = audit(facts, "");
        let report = fivefold_audit::report::json(&audit);
        let text = fivefold_audit::report::text(&audit);
        assert!(report["grade"].is_null() && text.contains("-  the whole") && !text.contains("A  "), "{text}");
    };
    none(&Facts::at(NOW));
    let mut facts = facts();
    facts.unread.push("cannot read registry.db".into());
    let open = audit(&facts, "");
    assert_eq!((whole(&open), grade(&open, "open")), (Grade::F, Grade::F), "what is open is known all the same");
    assert_eq!(open.grades.networks.iter().find(|n| n.network == "dams").unwrap().grade, None);
    facts.networks.pop();
    none(&facts);

    let mut gateway = Facts::at(NOW);
    gateway.is_searched = true;
    gateway.gateways.push(Gateway {
        name: "north".into(),
        network: "00000001".into(),
        sid: Sid(1),
        is_primary: false,
        is_revoked: false,
        certificate: Some((NOW, NOW + 86_400 * 60)),
        config: None,
        strange: Some(vec![]),
        link_keys: None,
    });
    none(&gateway);
}

#[test]
fn a_grade_is_that_of_the_worst_and_medium_ones_add_up() {
    let mut facts = facts();
    facts.networks.pop();
    let device = |n: u16| {
        let mut policy = Policy::new(Profile::ToCloud);
        policy.pq_mix = false;
        Device {
            name: format!("acde48000000000{n}"),
            network: "dams".into(),
            sid: Sid(0x0a10 + n),
            place: None,
            policy,
            overrides: Overrides::NONE,
            revoked_at: None,
            keys: Some(vec![]),
            context: Context::Agreed(NOW),
            signer: None,
            share: None,
            reported: None,
        }
    };
    let mut grades = Vec::new();
    for n in 0..4 {
        grades.push(whole(&audit(&facts, "")));
        facts.devices.push(device(n));
    }
    facts.devices[0].overrides.danger_no_link = true;
    grades.push(whole(&audit(&facts, "")));
    assert_eq!(grades, [Grade::A, Grade::B, Grade::B, Grade::C, Grade::D]);
}

#[test]
fn a_waiver_covers_what_it_names_and_nothing_that_comes_later_or_is_worse() {
    let mut facts = facts();
    facts.networks.pop();
    let seen = |what: &str| Seen {
        rule: "FX-03",
        subject: Subject::file(Path::new("m.conf")),
        sentence: what.into(),
        cure: String::new(),
        severity: None,
    };
    facts.seen = vec![seen("listener 1883 is open")];
    let one = exact(&facts, "FX-03");
    assert_eq!((audit(&facts, &one).findings.len(), audit(&facts, &one).waivers.len()), (0, 0));
    facts.seen.push(seen("listener 1884 is open"));
    let later = audit(&facts, &one);
    assert_eq!((later.findings.len(), later.waived.len(), later.waivers.len()), (1, 1, 0));
    facts.seen.remove(0);
    let other = audit(&facts, &one);
    let named = format!("finding = \"{}\"", other.findings[0].subject.part);
    assert!(other.waivers[0].sentence.contains(&named), "{}", other.waivers[0].sentence);

    // The key of a network is an old one, and is not changed.
    facts.seen.clear();
    facts.networks[0].key_since = Some(KeySince::Made(NOW - 100 * 86_400));
    let medium = waiver("AR-18", "network dams");
    assert_eq!(audit(&facts, &medium).findings.len(), 0);
    facts.networks[0].key_since = Some(KeySince::Made(NOW - 200 * 86_400));
    let worse = audit(&facts, &medium);
    assert_eq!((worse.findings.len(), worse.outcome()), (1, Outcome::Findings));
    assert!(worse.waivers[0].sentence.contains("severity = \"high\""), "{}", worse.waivers[0].sentence);
    assert_eq!(audit(&facts, &(medium.clone() + "severity = \"high\"\n")).outcome(), Outcome::Clean);
    assert_eq!(audit(&facts, &(medium + "severity = \"bad\"\n")).outcome(), Outcome::Findings);
}

#[test]
fn a_waiver_that_says_too_little_or_is_over_waives_nothing_and_is_a_finding() {
    let facts = facts();
    let whole = waiver("AR-01", "network open");
    for (from, to, why) in [
        ("owner = \"M\"", "", "no owner"),
        ("owner = \"M\"", "owner = \" \"", "no owner"),
        ("reason = \"r\"", "", "no reason"),
        ("until = \"2027-03-31\"", "", "no until"),
        ("subject = \"network open\"", "", "no subject"),
        ("2027-03-31", "2026-09-20", "it ended with 2026-09-20"),
        ("2027-03-31", "2027-02-29", "is no day"),
        ("2027-03-31", "2027-3-1", "is no day"),
        ("2027-03-31", "forever", "is no day"),
        ("AR-01", "AR-99", "no rule `AR-99`"),
    ] {
        let text = whole.replace(from, to);
        let audit = audit(&facts, &text);
        assert_eq!((audit.findings.len(), audit.waivers.len()), (1, 1), "{text}");
        assert!(audit.waivers[0].sentence.contains(why), "{} for {text}", audit.waivers[0].sentence);
        assert_eq!(audit.outcome(), Outcome::Findings);
    }
    let unknown = audit(&facts, &waiver("AR-01", "network shut"));
    assert!(unknown.waivers[0].sentence.contains("there is no network shut here"), "{}", unknown.waivers[0].sentence);
    // One whose subject is there and whose weakness is mended does no harm.
    assert!(audit(&facts, &waiver("AR-09", "network dams")).waivers.is_empty());
    assert!(audit(&facts, &waiver("AR-36", "file farm/old.key")).waivers.is_empty(), "it is gone, and that is well");
    // Its last day counts.
    assert_eq!(audit(&facts, &whole.replace("2027-03-31", "2026-09-21")).waived.len(), 1);
}

#[test]
fn a_file_that_is_no_file_of_waivers_is_refused_whole() {
    for text in ["waiver", "[[waiver]]\nrulle = \"AR-01\"\n", "[waivers]\n", "\u{0}\u{1}"] {
        let wrong = Waivers::parse(text, Path::new("w.toml"), NOW).unwrap_err().to_string();
        assert!(wrong.starts_with("w.toml:"), "{wrong}");
    }
    let many = "[[waiver]]\n".repeat(10_001);
    assert!(Waivers::parse(&many, Path::new("w.toml"), NOW).unwrap_err().to_string().contains("more than"));
}
