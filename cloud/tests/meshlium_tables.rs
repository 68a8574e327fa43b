//! The tables that scripts on a Meshlium read (W14, W15), on the store of a running cloud.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::classic::*;
use common::{NOW, World};
use fivefold_core::error::Code;
use fivefold_core::time::Millis;
use fivefold_waspmote::EncryptedType;
use rusqlite::Connection;

const MINUTE: u64 = 60_000;

fn at(minutes: u64) -> Millis {
    NOW.plus(minutes * MINUTE)
}

fn outside(w: &World) -> Connection {
    Connection::open(&w.path).unwrap()
}

fn ascii(count: u8, sequence: u8, fields: &[u8]) -> Vec<u8> {
    let mut frame = b"<=>\x86".to_vec();
    frame.push(count);
    frame.extend_from_slice(format!("#{}#node_01#{sequence}#", SERIAL.to_uppercase()).as_bytes());
    frame.extend_from_slice(fields);
    frame
}

fn rows(db: &Connection, sql: &str) -> Vec<Vec<String>> {
    let mut statement = db.prepare(sql).unwrap();
    let columns = statement.column_count();
    let row = |r: &rusqlite::Row<'_>| {
        (0..columns).map(|i| r.get::<_, rusqlite::types::Value>(i)).collect::<rusqlite::Result<Vec<_>>>()
    };
    let text = |v: rusqlite::types::Value| match v {
        rusqlite::types::Value::Integer(i) => i.to_string(),
        rusqlite::types::Value::Text(t) => t,
        other => format!("{other:?}"),
    };
    let all = statement.query_map([], row).unwrap();
    all.map(|r| r.unwrap().into_iter().map(text).collect()).collect()
}

#[test]
fn each_value_is_a_row_in_the_columns_and_the_form_of_meshlium() {
    let mut w = world(vec![Classic::plain(SERIAL, 1)]);
    bring(&mut w, &ascii(4, 7, b"BAT:80#TCA:21.50#ACC:996;-250;-100#TIME:9-5-7+1#"), NOW);
    // BAT 81, TCA 21.25 (as text with two decimals), and the same accelerations.
    let fields = [&[52, 81, 74][..], &21.25_f32.to_le_bytes(), &[63, 0xE4, 3, 6, 0xFF, 0x9C, 0xFF]].concat();
    bring(&mut w, &binary(SERIAL, "node_01", 8, &fields), at(1));
    let db = outside(&w);
    let statement = db.prepare("SELECT * FROM sensorParser").unwrap();
    let columns: Vec<_> = statement.column_names().collect();
    assert_eq!(
        columns,
        [
            "id",
            "id_wasp",
            "id_secret",
            "frame_type",
            "frame_number",
            "sensor",
            "value",
            "timestamp",
            "sync",
            "raw",
            "parser_type",
            "MeshliumID"
        ]
    );
    let got = rows(
        &db,
        "SELECT id_wasp, id_secret, frame_type, frame_number, sensor, value, sync, raw, parser_type,
                         MeshliumID FROM sensorParser ORDER BY id",
    );
    let row = |kind: &str, number: &str, sensor: &str, value: &str| {
        ["node_01", "111FFD1B3E500F56", kind, number, sensor, value, "0", "noraw", "0", "local"]
            .map(str::to_owned)
            .to_vec()
    };
    assert_eq!(
        got,
        [
            row("134", "7", "BAT", "80"),
            row("134", "7", "TCA", "21.50"),
            row("134", "7", "ACC", "996;-250;-100"),
            row("134", "7", "TIME", "9-5-7+1"),
            row("6", "8", "BAT", "81"),
            row("6", "8", "TC", "21.25"),
            row("6", "8", "ACC", "996;-250;-100"),
        ]
    );
    let times = rows(&db, "SELECT DISTINCT timestamp FROM sensorParser ORDER BY timestamp");
    assert_eq!(times, [["2026-09-21 14:13:20"], ["2026-09-21 14:14:20"]]);
    let last = rows(&db, "SELECT * FROM last_data WHERE id_wasp = 'node_01' AND sensor = 'BAT'");
    assert_eq!(last, [["node_01", "BAT", "81", "2026-09-21 14:14:20"]]);
}

#[test]
fn a_connector_takes_rows_newest_first_and_marks_them_with_its_bit() {
    let mut w = world(vec![Classic::plain(SERIAL, 1)]);
    for n in 0..5 {
        bring(&mut w, &binary(SERIAL, "n", n, &[52, 80 + n]), at(u64::from(n)));
    }
    let db = outside(&w);
    let poll = "SELECT id, value FROM sensorParser WHERE (sync & 4194304) = 0 ORDER BY timestamp DESC LIMIT 2";
    let mut sent = Vec::new();
    loop {
        let batch = rows(&db, poll);
        if batch.is_empty() {
            break;
        }
        for row in batch {
            let set = format!("UPDATE sensorParser SET sync = sync | 4194304 WHERE id = {}", row[0]);
            db.execute_batch(&set).unwrap();
            sent.push(row[1].clone());
        }
    }
    assert_eq!(sent, ["84", "83", "82", "81", "80"]);
    // Another connector has a bit of its own; the cloud goes on writing meanwhile.
    bring(&mut w, &binary(SERIAL, "n", 5, &[52, 85]), at(5));
    assert_eq!(rows(&db, poll).len(), 1);
    let other = "SELECT count(*) FROM sensorParser WHERE (sync & 64) = 0";
    assert_eq!(rows(&db, other), [["6"]]);
    // Nothing else can be written by these names.
    for sql in [
        "UPDATE sensorParser SET value = '0' WHERE id = 1",
        "UPDATE sensorParser SET sync = 1, value = '0' WHERE id = 1",
        "DELETE FROM sensorParser",
        "INSERT INTO sensorParser (id) VALUES (9)",
    ] {
        assert!(db.execute_batch(sql).is_err(), "{sql}");
    }
    assert_eq!(rows(&db, "SELECT value FROM sensorParser WHERE id = 1"), [["80"]]);
}

#[test]
fn frames_for_the_cloud_are_there_as_they_came() {
    let mut w = world(vec![Classic::to_cloud()]);
    let frame = sealed(EncryptedType::Cloud, 1, &[52, 80]);
    bring(&mut w, &frame, NOW);
    let db = outside(&w);
    let got = rows(&db, "SELECT timestamp, MeshliumID, sync, id_node, frame_type, raw FROM sensorCloud");
    let raw = hex::encode_upper(&frame);
    assert_eq!(got, [["2026-09-21 14:13:20", "local", "0", "111FFD1B3E500F56", "100", &raw]]);
    db.execute_batch("UPDATE sensorCloud SET sync = sync | 2").unwrap();
    assert_eq!(rows(&db, "SELECT sync FROM sensorCloud"), [["2"]]);
    assert!(db.execute_batch("UPDATE sensorCloud SET raw = ''").is_err());
    // What the cloud opened is there too.
    assert_eq!(rows(&db, "SELECT sensor, value FROM sensorParser"), [["BAT", "80"]]);
}

#[test]
fn what_is_kept_apart_is_in_none_of_them() {
    let mut w = world(vec![Classic::to_cloud()]);
    assert_eq!(bring(&mut w, &binary(SERIAL, "node_01", 1, &[52, 80]), NOW), Some(Code::ClassicRelabelled));
    let mut altered = sealed(EncryptedType::Cloud, 1, &[52, 80]);
    altered[20] ^= 1;
    assert_eq!(bring(&mut w, &altered, NOW), Some(Code::ClassicForged));
    let db = outside(&w);
    for table in ["sensorParser", "sensorCloud", "last_data"] {
        assert_eq!(rows(&db, &format!("SELECT count(*) FROM {table}")), [["0"]], "{table}");
    }
    assert_eq!(w.cloud.memory().read(|r| r.kept_aside(10)).unwrap().len(), 2);
}

#[test]
fn text_that_is_sql_html_or_a_command_to_a_terminal_stays_text() {
    let mut w = world(vec![Classic::plain(SERIAL, 1)]);
    let texts = ["'); DROP TABLE reading; --", "<script>alert(1)</script>", "\u{1b}]0;x\u{7}\u{1b}[2J", "%s%n\0"];
    for (n, text) in (0..).zip(texts) {
        let field = [b"STR:", text.as_bytes(), b"#"].concat();
        assert_eq!(bring(&mut w, &ascii(1, n, &field), at(u64::from(n))), None);
    }
    let db = outside(&w);
    let values: Vec<_> = rows(&db, "SELECT value FROM sensorParser ORDER BY id").concat();
    assert_eq!(values, texts);
    assert_eq!(w.readings().len(), 4);
    // The node id too.
    let mut named = binary(SERIAL, "'\"<b>\u{1b}[1m;--", 9, &[52, 1]);
    named[4] = (named.len() - 5) as u8;
    assert_eq!(bring(&mut w, &named, at(9)), None);
    assert_eq!(
        rows(&db, "SELECT DISTINCT id_wasp FROM sensorParser ORDER BY id DESC LIMIT 1"),
        [["'\"<b>\u{1b}[1m;--"]]
    );
}
