//! Other people's configuration, as it lies on a disk: each file says in its first lines what it breaks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fivefold_audit::facts::Facts;
use fivefold_audit::foreign::{Disk, Seen, System, Unread, examine};
use fivefold_audit::gather;
use fivefold_audit::grade::Grade;
use fivefold_audit::rule::Severity;
use fivefold_audit::waiver::Waivers;
use fivefold_audit::{Audit, Outcome};
use fivefold_keep::share::SIGNING_KEY_FILE;

const SYSTEMS: [System; 5] = [System::Chirpstack, System::Mosquitto, System::PgHba, System::Sshd, System::Unit];

fn fixtures(system: System) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(system.as_str());
    let files = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    files.filter(|p| p.is_file()).collect()
}

/// The rules that a file says it breaks; none in a good one.
fn said(path: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find(|l| l.contains("breaks")).unwrap_or_default();
    line.split([' ', '"', ',']).filter(|w| w.starts_with("FX-") || w.starts_with("AR-")).map(str::to_owned).collect()
}

fn looked_at(system: System, path: &Path) -> Vec<Seen> {
    examine(system, path, &mut Disk).unwrap().into_vec()
}

#[test]
fn each_file_breaks_what_it_says_and_nothing_else() {
    for system in SYSTEMS {
        for path in fixtures(system) {
            let seen = looked_at(system, &path);
            let found: BTreeSet<String> = seen.iter().map(|s| s.rule.to_owned()).collect();
            assert_eq!(found, said(&path), "{}: {seen:#?}", path.display());
        }
    }
}

#[test]
fn each_rule_about_a_file_is_broken_by_one_and_kept_by_another() {
    let all: Vec<PathBuf> = SYSTEMS.into_iter().flat_map(fixtures).collect();
    for system in SYSTEMS {
        for rule in system.rules() {
            // A service whose secrets everybody reads needs a file with a mode, which a checkout does not keep: below.
            let is_broken = *rule == "FX-35" || all.iter().any(|path| said(path).contains(*rule));
            assert!(is_broken, "nothing breaks {rule}");
            assert!(
                fixtures(system).iter().any(|path| !said(path).contains(*rule)),
                "no {} keeps {rule}",
                system.as_str()
            );
            assert!(fivefold_audit::rules::named(rule).is_some(), "{rule} is in no table");
        }
    }
}

#[test]
fn what_is_seen_is_a_finding_at_its_line_and_makes_the_grade() {
    let path = fixtures(System::Chirpstack).into_iter().find(|p| p.ends_with("bad.toml")).unwrap();
    let mut facts = Facts::at(1_800_000_000);
    gather::beside(System::Chirpstack, &path, &mut facts);
    let audit = Audit::of(&facts, &Waivers::NONE);
    let secret = audit.open().find(|f| f.rule.id == "FX-11").unwrap();
    assert_eq!(secret.severity, Severity::Critical);
    assert_eq!(secret.subject.place.as_ref().unwrap().line, Some(10));
    assert_eq!(audit.grades.whole, Some(Grade::F));
    let judged = audit.rules.iter().find(|j| j.rule.id == "AR-39").unwrap();
    assert_eq!(judged.good, 0, "it cannot say anything of ABP");
    let ssh = audit.rules.iter().find(|j| j.rule.id == "AR-44").unwrap();
    assert_eq!((ssh.good, ssh.unknown.len()), (0, 1), "nobody named one, and it never passes then");
}

#[test]
fn what_a_file_cannot_show_is_not_good_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let good = |system, name: &str, text: &str, rule: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mut facts = Facts::at(1_800_000_000);
        gather::beside(system, &path, &mut facts);
        assert!(facts.unread.is_empty(), "{:?}", facts.unread);
        Audit::of(&facts, &Waivers::NONE).rules.into_iter().find(|j| j.rule.id == rule).unwrap().good
    };
    let (device, profile) = ("{\"skipFcntCheck\":false}", "{\"supportsOtaa\":true}");
    let both = format!("[{device},{profile}]");
    for (text, rule, expected) in [
        ("{}", "AR-39", 0),
        (device, "AR-39", 0),
        (profile, "AR-39", 0),
        (both.as_str(), "AR-39", 1),
        (both.as_str(), "FX-11", 0),
        ("[api]\nsecret=\"$SECRET\"", "FX-11", 1),
        ("[api]\nsecret=\"$SECRET\"", "AR-39", 0),
    ] {
        assert_eq!(good(System::Chirpstack, "c", text, rule), expected, "{text} {rule}");
    }
    let unit = |more: &str| format!("[Service]\nDynamicUser=yes\n{more}");
    assert_eq!(good(System::Unit, "a.service", &unit(""), "FX-35"), 1);
    assert_eq!(good(System::Unit, "a.service", &unit("EnvironmentFile=/nowhere/at-all"), "FX-35"), 0);
}

#[test]
fn the_key_of_a_node_without_a_book_is_not_said_to_be_made_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = "did = \"acde480000000001\"\nsid = \"0a17\"\nnet = \"0000beef\"\npan = \"4321\"\ngroup = \"0000e205\"\nepoch = 1\n\
                [policy]\nprofile = \"e1+e3+e4\"\nalg = 11\nmode = \"P\"\nkid_length = 0\nack_every = 1\nradio = \"802.15.4\"\n\
                renew_days = 30\n[link]\nbind = \"127.0.0.1:1\"\nair = []\n";
    std::fs::write(folder.path().join("node.toml"), text).unwrap();
    std::fs::write(folder.path().join(SIGNING_KEY_FILE), "").unwrap();
    let mut facts = Facts::at(1_800_000_000);
    gather::node(folder.path(), &mut facts);
    let audit = Audit::of(&facts, &Waivers::NONE);
    let judged = audit.rules.iter().find(|j| j.rule.id == "AR-26").unwrap();
    assert_eq!((judged.good, judged.unknown.iter().any(|u| u.subject.name == "acde480000000001")), (0, true));
}

/// Lines of one sort, and then one of another sort that must not be passed over for them.
#[test]
fn what_there_is_too_much_of_hides_nothing_and_makes_the_whole_unreadable() {
    let folder = tempfile::tempdir().unwrap();
    let many = |line: &str, count: usize| (0..count).map(|_| format!("{line}\n")).collect::<String>();
    let unit = |count| format!("[Service]\n{}User=root\n", many("Environment=A=b", count));
    let cases = [
        (System::PgHba, many("nonsense", 1001) + "host all all 10.0.0.0/8 trust\n", Some("FX-21"), "findings of FX-01"),
        (System::Mosquitto, many("listener 1883", 1001), Some("FX-03"), "more listeners than are looked at, by 1"),
        (System::Mosquitto, many("connection a", 1002), Some("FX-07"), "more connections than are looked at, by 2"),
        (System::Unit, unit(512), None, "more settings than are looked at, by 1"),
    ];
    for (system, text, rule, says) in cases {
        let path = folder.path().join("a.conf");
        std::fs::write(&path, text).unwrap();
        let mut facts = Facts::at(1_800_000_000);
        gather::beside(system, &path, &mut facts);
        assert!(facts.unread.iter().any(|u| u.contains(says)), "{says}: {:?}", facts.unread);
        assert!(rule.is_none_or(|rule| facts.seen.iter().any(|s| s.rule == rule)), "{rule:?} is hidden");
        assert_eq!(Audit::of(&facts, &Waivers::NONE).outcome(), Outcome::Unreadable);
    }
    let unit = folder.path().join("a.service");
    std::fs::write(&unit, format!("[Service]\nDynamicUser=yes\nEnvironment={}PASSWORD=x\n", "A=b ".repeat(300)))
        .unwrap();
    assert_eq!(looked_at(System::Unit, &unit).iter().map(|s| s.rule).collect::<Vec<_>>(), ["FX-34"]);
}

#[test]
fn a_secret_of_a_service_that_everybody_reads_is_found_by_its_mode() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    let unit = folder.path().join("a.service");
    let text = format!("[Service]\nDynamicUser=yes\nEnvironmentFile={}\n", secret.display());
    std::fs::write(&unit, text).unwrap();
    std::fs::write(&secret, "A=b").unwrap();
    for (mode, found) in [(0o644, 1), (0o600, 0)] {
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(looked_at(System::Unit, &unit).len(), found, "{mode:o}");
    }
}

#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| examine(System::Sshd, path, &mut Disk).unwrap_err();
    assert_eq!(refused(&folder.path().join("none")), Unread::Missing);
    assert!(matches!(refused(folder.path()), Unread::Failed(_)));
    assert!(matches!(refused(Path::new("/dev/zero")), Unread::Failed(_)));
}

#[test]
fn a_node_is_compared_with_the_book_or_judged_by_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    let config = |radio: &str, more: &str| {
        format!(
            "did = \"acde480000000001\"\nsid = \"0a17\"\nnet = \"0000beef\"\npan = \"4321\"\ngroup = \"0000e205\"\nepoch = 1\n\
             [policy]\nprofile = \"e1+e3+e4\"\nalg = 11\nmode = \"P\"\nkid_length = 0\nack_every = 1\nradio = \"{radio}\"\n\
             renew_days = 30\n{more}\n[link]\nbind = \"127.0.0.1:1\"\nair = []\n"
        )
    };
    let rules =
        |facts: &Facts| -> BTreeSet<&str> { Audit::of(facts, &Waivers::NONE).open().map(|f| f.rule.id).collect() };
    let looked_at = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let mut facts = Facts::at(1_800_000_000);
        gather::node(folder.path(), &mut facts);
        facts
    };
    let good = looked_at(&config("802.15.4", ""));
    assert!(good.unread.is_empty(), "{:?}", good.unread);
    assert_eq!((good.devices.len(), rules(&good)), (1, BTreeSet::new()));
    let bad = looked_at(&config("ip", "danger_no_link = true"));
    assert!(rules(&bad).contains("AR-02"), "{:?}", rules(&bad));
    assert_eq!(looked_at("did = 1").unread.len(), 1);
    assert_eq!(looked_at(&config("ip", "")).unread.len(), 1, "no override: it would not start");

    // The book that `good` stands for has another record.
    std::fs::write(&path, config("xbee", "")).unwrap();
    let mut facts = good;
    facts.has_book = true;
    gather::node(&path, &mut facts);
    assert!(rules(&facts).contains("AR-41"), "{:?}", rules(&facts));

    // Two that are no book for each other.
    let mut two = looked_at(&config("802.15.4", ""));
    std::fs::write(&path, config("xbee", "").replace("0000000001", "0000000002").replace("0a17", "0a18")).unwrap();
    gather::node(&path, &mut two);
    assert_eq!((two.networks.len(), two.devices.len(), rules(&two)), (1, 2, BTreeSet::new()));
    std::fs::write(&path, config("xbee", "").replace("e1+e3+e4", "e1+e2+e4")).unwrap();
    gather::node(&path, &mut two);
    assert_eq!((two.networks.len(), two.devices.len()), (2, 3), "a network of other levels is seen as one");
    assert!(rules(&two).contains("AR-38"), "two nodes with one id: {:?}", rules(&two));
    std::fs::write(folder.path().join("started"), "").unwrap();
    assert!(rules(&looked_at(&config("802.15.4", ""))).contains("FX-51"));
}
