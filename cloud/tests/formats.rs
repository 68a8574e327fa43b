//! The store in every format that it had (vectors/formats): each is brought to the present one with all that is in it, and is then
//! what a new store is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};

use fivefold_cloud::store::{Query, Store};
use rusqlite::Connection;

/// Formats that fixtures were made of, each from the SQL of its time.
fn fixtures() -> Vec<(i64, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/formats");
    let mut all: Vec<(i64, String)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter_map(|path| {
            let number = path.file_name()?.to_str()?.strip_prefix("store-")?.strip_suffix(".sql")?.parse().ok()?;
            Some((number, std::fs::read_to_string(path).unwrap()))
        })
        .collect();
    all.sort_by_key(|(number, _)| *number);
    assert!(all.iter().map(|(n, _)| *n).eq(1..=newest()), "a format has no fixture: vectors/formats/make.py stores");
    all
}

/// The format of this program.
fn newest() -> i64 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.db");
    drop(Store::open(&path).unwrap());
    format(&path)
}

fn put(folder: &Path, sql: &str) -> PathBuf {
    let path = folder.join("readings.db");
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    path
}

fn format(path: &Path) -> i64 {
    Connection::open(path).unwrap().pragma_query_value(None, "user_version", |r| r.get(0)).unwrap()
}

fn schema(path: &Path) -> Vec<(String, Option<String>)> {
    let db = Connection::open(path).unwrap();
    let mut query =
        db.prepare("SELECT name, sql FROM sqlite_schema WHERE name <> 'sqlite_sequence' ORDER BY name").unwrap();
    query.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap().map(Result::unwrap).collect()
}

/// Rows of the tables that every format has.
fn rows(path: &Path) -> Vec<i64> {
    let db = Connection::open(path).unwrap();
    ["reading", "context", "rejection", "receipt", "pushed"]
        .map(|table| db.query_row(&format!("SELECT count(*) FROM {table}"), [], |r| r.get(0)).unwrap())
        .to_vec()
}

/// What is in tables that came later, where this format has them.
fn later(path: &Path) -> Vec<Option<i64>> {
    let db = Connection::open(path).unwrap();
    let all = [
        "count(*) FROM token_use",
        "sum(n + bytes + measured + gone) FROM part WHERE name IN ('readings', 'ledger')",
        "count(*) FROM spared",
        "sum(reading + sent) FROM outbox",
        "count(*) FROM dead_letter",
    ];
    all.map(|what| db.query_row(&format!("SELECT {what}"), [], |r| r.get(0)).ok()).to_vec()
}

#[test]
fn the_manual_says_which_format_the_store_has_now() {
    let manual = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operate.md")).unwrap();
    let now = format!("| `readings.db` | `user_version` | the number of its migrations, {} now |", newest());
    assert!(manual.contains(&now), "the table of formats in docs/operate.md lacks: {now}");
}

#[test]
fn a_store_of_every_format_becomes_what_a_new_one_is_with_all_that_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("new.db");
    drop(Store::open(&new).unwrap());
    let mut shown = Vec::new();
    for (number, sql) in fixtures() {
        let folder = tempfile::tempdir().unwrap();
        let path = put(folder.path(), &sql);
        assert_eq!(format(&path), number);
        let (before, others) = (rows(&path), later(&path));
        let known = others.iter().filter(|n| n.is_some_and(|n| n > 0)).count();
        assert_eq!(known, [0, 3, 5][usize::from(number > 18) + usize::from(number > 19)], "{number}: {others:?}");
        assert!(before[0] > 10 && before[1] > 1, "{number}: {before:?}");
        let store = Store::open(&path).unwrap_or_else(|e| panic!("{number}: {e}"));
        let readings = store.reader().unwrap().readings(&Query { limit: 1000, ..Query::default() }).unwrap();
        assert_eq!(readings.len() as i64, before[0], "{number}");
        shown.push(readings.into_iter().map(|r| (r.did, r.epoch, r.piv, r.payload)).collect::<Vec<_>>());
        drop(store);
        assert_eq!((format(&path), rows(&path)), (format(&new), before), "{number}");
        let kept = others.iter().zip(later(&path)).filter(|(then, _)| then.is_some_and(|n| n > 0));
        kept.for_each(|(then, now)| assert_eq!(*then, now, "{number}"));
        assert_eq!(schema(&path), schema(&new), "{number}");
    }
    // One deployment made them all.
    assert!(shown.windows(2).all(|two| two[0] == two[1]));
}

#[test]
fn a_store_of_a_later_format_is_refused_in_one_sentence_and_left_as_it_is() {
    let (number, sql) = fixtures().pop().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = put(folder.path(), &sql);
    drop(Store::open(&path).unwrap());
    let known = format(&path);
    assert!(known >= number);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", known + 1).unwrap();
    let said = Store::open(&path).map(drop).unwrap_err().to_string();
    let end = format!(
        "readings.db has format {}, and this program knows up to format {known}; use the fivefold that wrote it, or a later one",
        known + 1
    );
    assert!(said.starts_with("the store ") && said.ends_with(&end), "{said}");
    assert_eq!(format(&path), known + 1);
}
