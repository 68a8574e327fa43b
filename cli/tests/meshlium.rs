//! A Meshlium's dump is taken over: with everything named that is not to be trusted, and whole however often it is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod meshlium_dump;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use fivefold_keep::registry::{ClassicDevice, Registry};
use fivefold_waspmote::Weak;
use meshlium_dump::farm::Farm;
use meshlium_dump::{Dump, Shape, make, node, one, report};
use serde_json::Value;

/// Lines of a report, as those that were expected are written.
fn lines(said: &Value) -> Vec<String> {
    let notes = said["notes"].as_array().unwrap().iter();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let mut lines: Vec<String> =
        notes.map(|n| one(n["line"].as_u64().unwrap(), &text(&n["table"]), &text(&n["reason"]))).collect();
    lines.sort();
    lines
}

fn checked(farm: &Farm, dump: &Dump, said: &Value, takes_weak: bool) {
    assert_eq!(lines(said), report(dump));
    assert_eq!(farm.count("SELECT count(*) FROM imported_value"), dump.readings);
    assert_eq!(farm.count("SELECT count(DISTINCT row) FROM imported_value"), dump.readings);
    assert_eq!(farm.count("SELECT count(*) FROM imported_cloud"), dump.frames);
    assert_eq!(said["stored"].as_u64(), Some((dump.readings + dump.frames) as u64));
    assert_eq!(farm.count("SELECT count(*) FROM reading"), 0, "none of it is in the ledger");
    let devices = &said["devices"];
    assert_eq!(devices["added"].as_u64().unwrap() + devices["known"].as_u64().unwrap(), dump.devices as u64);
    let registry = Registry::open(
        &farm.folder.path().join("farm/registry.db"),
        fivefold_keep::registry::By::new("test", "here", "test", 1),
    )
    .unwrap();
    let known = registry.classic_devices().unwrap();
    let weak = |d: &&ClassicDevice| d.gateway_key.unwrap().weakness.is_some_and(|w| w != Weak::Printable);
    let keys: Vec<_> = known.iter().filter(|d| d.gateway_key.is_some()).collect();
    assert_eq!((known.len(), keys.len()), (dump.devices, dump.keys - if takes_weak { 0 } else { dump.weak_keys }));
    assert_eq!(keys.into_iter().filter(weak).count(), if takes_weak { dump.weak_keys } else { 0 });
    let texts = said["notes"].to_string();
    assert!(!texts.contains('\u{1b}') && !texts.contains("AAAAbbbbCCCCdddd") && !texts.contains("'pa7"), "{texts}");
}

#[test]
fn a_dump_of_a_thousand_nodes_is_taken_over_whole_however_often_it_is_killed() {
    let farm = Farm::new();
    let dump = make(Shape::Late, 1000, 100_000);
    let path = farm.dump(&dump.text);
    let words = [&farm.import(&path)[..], &["--danger-weak-keys", "they hang on poles"]].concat();
    let (mut kills, mut stored, mut draw) = (0, 0, 7u64);
    let said = loop {
        let mut child = farm.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        if kills < 8 {
            // Somewhere after it made more durable than there was: at another moment of its work each time.
            let more = || {
                PathBuf::from(farm.at("farm/cloud/readings.db")).exists().then(|| {
                    let rows = farm
                        .store()
                        .query_row("SELECT sum(stored) FROM import_run", [], |r| r.get::<_, Option<i64>>(0));
                    rows.ok().flatten().unwrap_or(0)
                })
            };
            let deadline = 2400;
            let came = (0..deadline).any(|_| {
                std::thread::sleep(Duration::from_millis(25));
                more().unwrap_or(0) > stored || child.try_wait().unwrap().is_some()
            });
            assert!(came, "it does not go on");
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            std::thread::sleep(Duration::from_micros(draw >> 48));
            let _ = child.kill();
        }
        let done = child.wait_with_output().unwrap();
        if done.status.signal() == Some(9) {
            kills += 1;
            stored = farm.count("SELECT sum(stored) FROM import_run") as i64;
            continue;
        }
        assert_eq!(done.status.code(), Some(1), "{}", String::from_utf8_lossy(&done.stderr));
        break serde_json::from_slice::<Value>(&done.stdout).unwrap();
    };
    assert!(kills >= 3, "killed {kills} times only: it is too fast for this test");
    assert!(said["began_at"].as_u64().unwrap() > 0, "the last one went on where the one before was");
    assert_eq!(said["repeated"], 0, "no row was looked at twice");
    checked(&farm, &dump, &said, true);
    // Once more: nothing is new, and the report is the same.
    let again = farm.answer(1, &words);
    assert_eq!((&again["stored"], &again["repeated"]), (&said["stored"], &said["repeated"]));
    checked(&farm, &dump, &again, true);
}

#[test]
fn an_early_dump_is_taken_over_too() {
    let farm = Farm::new();
    let dump = make(Shape::Early, 40, 12_000);
    let path = farm.dump(dump.text.replace('\n', "\r\n"));
    let (report, sensors) = (farm.at("report"), farm.at("sensors.json"));
    let mut words = farm.import(&path).to_vec();
    words.extend(["--report", &report, "--sensors-file", &sensors]);
    let said = farm.answer(1, &words);
    checked(&farm, &dump, &said, false);
    let lines: Vec<Value> =
        fs::read_to_string(report).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(&Value::Array(lines), &said["notes"]);
    let written: Value = serde_json::from_str(&fs::read_to_string(&sensors).unwrap()).unwrap();
    assert_eq!((&written["sensor"][0]["tag"], written["sensor"].as_array().unwrap().len()), (&"SNOW".into(), 1));
    // What was written is what a network takes.
    assert_eq!(farm.answer(0, &["network", "set", "yard", "--sensors", &sensors])["sensors"], 1);
    // A value in another character set than the dump says.
    let value: String =
        farm.store().query_row("SELECT value FROM imported_value WHERE value LIKE '22.5%'", [], |r| r.get(0)).unwrap();
    assert_eq!(value, "22.5°C");
}

#[test]
fn a_person_sees_how_far_it_is() {
    use std::io::Read as _;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let farm = Farm::new();
    let path = farm.dump(make(Shape::Late, 40, 12_000).text);
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&near).unwrap();
    unlockpt(&near).unwrap();
    let screen =
        fs::File::options().read(true).write(true).open(ptsname(&near, Vec::new()).unwrap().to_str().unwrap()).unwrap();
    let mut child = farm.command(&farm.import(&path)).stdout(Stdio::null()).stderr(screen).spawn().unwrap();
    // It ends when the last one that writes there does.
    let (mut near, mut shown, mut part) = (fs::File::from(near), Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = near.read(&mut part) {
        shown.extend_from_slice(&part[..n]);
    }
    child.wait().unwrap();
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("% ") && shown.contains("MiB/"), "{shown}");
}

/// A dump with these rows of sensorParser.
fn small(rows: &[String]) -> String {
    format!(
        "CREATE TABLE sensorParser (id int, id_wasp text, id_secret text, frame_type int, frame_number int, sensor text, \
         value text, timestamp text);\nINSERT INTO sensorParser VALUES {};\n-- Dump completed\n",
        rows.join(",\n")
    )
}

fn row(id: u64, value: &str) -> String {
    let (serial, name) = node(3);
    format!("({id},'{name}','{serial}',134,{},'TCA','{value}','2026-10-01 12:00:{:02}')", id % 256, id % 60)
}

#[test]
fn a_second_dump_of_the_same_meshlium_adds_what_is_new_and_repeats_nothing() {
    let farm = Farm::new();
    let rows: Vec<String> = (1..=30).map(|id| row(id, "20.5")).collect();
    let said = farm.answer(0, &farm.import(&farm.dump(small(&rows[..20]))));
    assert_eq!((said["stored"].as_u64(), said["repeated"].as_u64()), (Some(20), Some(0)));
    let said = farm.answer(0, &farm.import(&farm.dump(small(&rows))));
    assert_eq!((said["stored"].as_u64(), said["repeated"].as_u64()), (Some(10), Some(20)));
    // Another Meshlium has the same ids for other rows.
    let others: Vec<String> = (1..=5).map(|id| row(id, "3.0")).collect();
    let path = farm.dump(small(&others));
    let said = farm.answer(1, &farm.import(&path));
    assert_eq!((&said["by_reason"]["id-conflict"], &said["stored"]), (&5.into(), &0.into()));
    let said = farm.answer(0, &[&farm.import(&path)[..], &["--from", "barn"]].concat());
    assert_eq!(said["stored"], 5);
    assert_eq!(farm.count("SELECT count(*) FROM imported_value"), 35);
    // What was imported into one network is not imported into another by the same name.
    farm.network("attic");
    let said = farm.answer(2, &["import", "meshlium", "--net", "attic", &path]);
    assert!(said["error"].as_str().unwrap().contains("--from"), "{said}");
}

#[test]
fn times_are_read_in_the_zone_that_the_dump_or_the_operator_says() {
    let at = |farm: &Farm| -> String {
        farm.store().query_row("SELECT timestamp FROM imported_value WHERE row = 1", [], |r| r.get(0)).unwrap()
    };
    let text = small(&[row(1, "20.5"), row(2, "20.5")]);
    for (dump, zone, expected) in [
        (text.clone(), None, "2026-10-01 12:00:01"),
        (format!("SET TIME_ZONE='+02:00';\n{text}"), None, "2026-10-01 10:00:01"),
        (text.clone(), Some("Europe/Madrid"), "2026-10-01 10:00:01"),
        (
            text.replace("2026-10-01 12:00:0", "202610011200 0").replace("1200 0", "12000"),
            Some("+01:00"),
            "2026-10-01 11:00:01",
        ),
    ] {
        let farm = Farm::new();
        let path = farm.dump(dump);
        let zone = zone.map_or_else(Vec::new, |zone| vec!["--time-zone", zone]);
        farm.answer(0, &[&farm.import(&path)[..], &zone].concat());
        assert_eq!(at(&farm), expected);
    }
}

#[test]
fn a_file_that_is_no_dump_is_named_for_what_it_is() {
    let farm = Farm::new();
    for (bytes, says) in
        [(&b"\x1F\x8B\x08"[..], "gunzip"), (b"\xFF\xFEI\0N\0", "--result-file"), (b"PK\x03\x04", "unzip")]
    {
        let said = farm.answer(2, &farm.import(&farm.dump(bytes)));
        assert!(said["error"].as_str().unwrap().contains(says), "{said}");
    }
    let said = farm.answer(2, &farm.import("/nowhere/x.sql"));
    assert!(said["error"].as_str().unwrap().contains("/nowhere/x.sql"), "{said}");
    // Anything else has no rows; that it is not complete is said.
    let noise: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for bytes in [&b""[..], b"hello", &noise] {
        let said = farm.command(&farm.import(&farm.dump(bytes))).output().unwrap();
        assert!(matches!(said.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&said.stderr));
        let said: Value = serde_json::from_slice(&said.stdout).unwrap();
        assert_eq!((&said["stored"], &said["by_reason"]["incomplete"]), (&0.into(), &1.into()));
    }
}
