//! Parquet files of three days. Where `FIVEFOLD_LAKE` names a folder they are left there, with what is in them as JSON: `./ci.sh
//! reports` compares the two with pyarrow.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::{bring, reading, sink};
use fivefold_core::e4_channel::Origin;
use fivefold_core::id::{BootContext, GatewayId};
use fivefold_core::profile::LinkClass;
use fivefold_sinks::{About, Outbound, Quantity, Scalar};

fn of_three_days() -> Vec<Arc<Outbound>> {
    let names = ["temperature", "a b", "grün €", "a\"b\\c", "", "urn:dev:mac:1:x"];
    let one = |n: u64| {
        let mut one = reading((n % 3) as u8 + 1, n);
        one.ingested = one.ingested.plus((n / 40) * 86_400_000);
        one.values[0].name = names[n as usize % names.len()].into();
        let time = one.values[0].time;
        let more = |name: &str, value, sum| Quantity { name: name.into(), unit: None, value, sum, time };
        one.values.push(more("bytes", Some(Scalar::Bytes(vec![0, 255, n as u8])), None));
        one.values.push(more("sum", None, Some(n as f64 / 8.0)));
        one.values.push(more("most", Some(Scalar::Integer(i64::MIN + n as i64)), None));
        if n.is_multiple_of(7) {
            one.values.clear();
        }
        if n.is_multiple_of(5) {
            (one.proof, one.e1, one.insecure) = (Origin::Gateway(GatewayId(1)), LinkClass::None, true);
            (one.bctx, one.hops, one.lqi) = (Some(BootContext([n as u8; 8])), None, Some(255));
        }
        one
    };
    let mut all: Vec<_> = (0..120).map(one).collect();
    all[5].number = u64::MAX;
    all.push(Outbound { about: About::Label, proof: Origin::Signed, ..all[8].clone() });
    all.into_iter().map(Arc::new).collect()
}

#[tokio::test]
async fn every_reading_of_three_days_is_in_a_file_of_its_day() {
    let temporary = tempfile::tempdir().unwrap();
    let given = std::env::var_os("FIVEFOLD_LAKE").map(PathBuf::from);
    let folder = given.as_deref().unwrap_or_else(|| temporary.path());
    std::fs::create_dir_all(folder.join("lake")).unwrap();
    let readings = of_three_days();
    let words = "name = \"p\"\nparquet = \"lake\"\nreadings = 50\nevery_s = 0";
    assert!(bring(&mut *sink(folder, words, None), &readings).await.is_empty());
    let expected: Vec<_> = readings.iter().map(|r| r.json()).collect();
    std::fs::write(folder.join("expected.json"), serde_json::to_vec(&expected).unwrap()).unwrap();
    let mut files = Vec::new();
    for day in std::fs::read_dir(folder.join("lake")).unwrap() {
        let day = day.unwrap();
        let inside = std::fs::read_dir(day.path()).unwrap().count();
        files.push((day.file_name().into_string().unwrap(), inside));
    }
    files.sort();
    let of = |day: &str, n| (format!("day={day}"), n);
    // Batches of 50: the first ends in the second day, the last is a label of the first.
    assert_eq!(files, [of("2026-09-21", 2), of("2026-09-22", 2), of("2026-09-23", 2)]);
}
