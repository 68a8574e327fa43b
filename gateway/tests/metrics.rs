//! What a gateway shows to Prometheus: numbers of its own and no device, and to its operator whom it refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::disallowed_types)]

mod common;

use common::*;
use fivefold_audit::selfcheck::Standing;
use fivefold_core::e1_link::ROTATE_AT;
use fivefold_core::error::Code;
use fivefold_core::metric::gateway as shown;
use fivefold_core::oscore::NUMBER_LIMIT;
use fivefold_core::profile::Profile;
use fivefold_core::proof::receipt::GatewayBoot;
use fivefold_core::time::Millis;
use fivefold_core::wire::state::Standing as InUse;
use fivefold_core::wire::tiny::Wants;
use fivefold_gateway::gateway::{Cloud, Limits, Setup};
use fivefold_gateway::metrics::{Beside, Page, Store};

const READING: &[u8] = &[0x84, 0x01, 0x18, 0xd7, 0x18, 0x2d, 0x18, 0x25];

fn shown(w: &World, page: Page, days_left: u64, store: Store) -> String {
    let certificate = (Millis(w.now.0 - 86_400_000), Millis(w.now.0 + days_left * 86_400_000));
    let beside = Beside { audit: &Standing::default(), certificate, oldest: w.spool.oldest().unwrap(), store };
    page.write(&w.gateway, w.now, &beside)
}

fn page(w: &World) -> String {
    shown(w, Page::Metrics, 1, Store::Writes)
}

/// The number behind a sample; `None` where there is no such sample.
fn number(page: &str, sample: &str) -> Option<u64> {
    page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn every_metric_of_the_table_has_a_number_and_every_code_a_count() {
    let mut d = Device::new(1, Profile::ToBoth);
    let mut w = World::of(&[&d]);
    let (tiny, _) = d.tiny(READING, Wants::Nothing);
    let frame = d.on_air(&tiny);
    w.frame(&frame);
    let page = page(&w);
    // What the audit found, cli/tests/metrics.rs looks for.
    for row in shown::ALL.iter().filter(|row| !row.name.contains("_audit_")) {
        let has = |line: &str| line.strip_prefix(row.name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        assert!(page.lines().any(has), "{} has no sample:\n{page}", row.name);
    }
    for code in Code::ALL {
        assert_eq!(number(&page, &format!("fivefold_gateway_rejected_total{{code=\"{code}\"}}")), Some(0), "{code}");
    }
    assert_eq!(number(&page, "fivefold_gateway_key_age_seconds{level=\"e4\"}"), Some(86_400));
    let ends = w.now.0 / 1000 + 86_400;
    assert_eq!(number(&page, "fivefold_gateway_certificate_expires_timestamp_seconds"), Some(ends));
}

#[test]
fn a_gateway_is_ready_while_its_store_writes_has_room_and_its_certificate_is_valid() {
    fn small(boot: GatewayBoot) -> Setup {
        Setup { limits: Limits { spool_bytes: 4096, ..Limits::default() }, ..setup(boot) }
    }
    let mut d = Device::new(1, Profile::ToGateway);
    let mut w = World::with(small);
    w.push(&state(1, &[&d], InUse::Active)).unwrap();
    w.greet(&[&d]);
    assert_eq!(shown(&w, Page::Ready, 1, Store::Writes), "ready", "the cloud may be away");
    w.gateway.handle_cloud(w.now, Cloud::Reachable);
    let ready = |w: &World, days, store| shown(w, Page::Ready, days, store);
    assert_eq!(ready(&w, 1, Store::Writes), "ready");
    assert_eq!(ready(&w, 0, Store::Writes), "certificate");
    assert_eq!([ready(&w, 1, Store::Full), ready(&w, 1, Store::Fails)], ["full", "store"]);
    assert_eq!(shown(&w, Page::Live, 0, Store::Fails), "live");
    // Until there is no room for the longest message.
    let mut taken = 0;
    while ready(&w, 1, Store::Writes) == "ready" {
        let (tiny, _) = d.tiny(READING, Wants::Nothing);
        let frame = d.on_air(&tiny);
        assert_eq!(w.frame(&frame).dropped, []);
        taken += 1;
    }
    assert_eq!((ready(&w, 1, Store::Writes).as_str(), taken > 3), ("full", true));
    w.deliver(u64::MAX, &[]);
    assert_eq!(ready(&w, 1, Store::Writes), "ready");
}

#[test]
fn numbers_fall_as_they_are_used_and_the_spool_ages_until_the_cloud_has_it() {
    let mut d = Device::new(1, Profile::ToGateway);
    let mut w = World::of(&[&d]);
    let before = page(&w);
    assert_eq!(number(&before, "fivefold_gateway_numbers_left{level=\"e2\"}"), Some(NUMBER_LIMIT.into()));
    assert_eq!(number(&before, "fivefold_gateway_spool_age_seconds"), Some(0));
    d.next = 1000;
    let (tiny, _) = d.tiny(READING, Wants::Nothing);
    let frame = d.on_air(&tiny);
    assert_eq!(w.frame(&frame).dropped, []);
    w.now = w.now.plus(90_000);
    let after = page(&w);
    assert_eq!(number(&after, "fivefold_gateway_numbers_left{level=\"e2\"}"), Some(u64::from(NUMBER_LIMIT) - 1001));
    assert_eq!(number(&after, "fivefold_gateway_spool_age_seconds"), Some(90));
    assert!(number(&after, "fivefold_gateway_spool_bytes") > Some(0));
    let left = number(&after, "fivefold_gateway_frame_numbers_left{key_index=\"1\"}").unwrap();
    assert!(left < ROTATE_AT.into() && left > u64::from(ROTATE_AT) - 10_000, "{left}");
    assert_eq!(number(&after, "fivefold_gateway_cloud_away_seconds"), Some(0));
    w.gateway.handle_cloud(w.now, Cloud::Away);
    w.now = w.now.plus(61_000);
    assert_eq!(number(&page(&w), "fivefold_gateway_cloud_away_seconds"), Some(61));
}

#[test]
fn whose_frame_was_refused_is_told_to_the_operator_and_not_to_prometheus() {
    let mut devices = [Device::new(1, Profile::ToGateway), Device::new(2, Profile::ToGateway)];
    let mut w = World::of(&[&devices[0], &devices[1]]);
    for d in &mut devices {
        let (mut tiny, _) = d.tiny(READING, Wants::Nothing);
        *tiny.last_mut().unwrap() ^= 1;
        let frame = d.on_air(&tiny);
        assert_eq!(w.frame(&frame).dropped.len(), 1);
    }
    let page = page(&w);
    assert_eq!(number(&page, "fivefold_gateway_rejected_total{code=\"E2-03\"}"), Some(2));
    for d in &devices {
        assert!(!page.contains(&d.sid.to_string()) && !page.contains(&d.did.to_string()), "{page}");
    }
    let certificate = (w.now, w.now);
    let beside = Beside { audit: &Standing::default(), certificate, oldest: None, store: Store::Writes };
    let told = Page::Rejections.write(&w.gateway, w.now, &beside);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let rows: Vec<_> = told.as_array().unwrap().iter().map(|r| (r["code"].as_str(), r["sid"].as_str())).collect();
    let sids = devices.map(|d| d.sid.to_string());
    assert_eq!(rows, [(Some("E2-03"), Some(sids[0].as_str())), (Some("E2-03"), Some(sids[1].as_str()))]);
    assert_eq!((told[0]["count"].as_u64(), told[0]["severity"].as_str()), (Some(1), Some("high")));
}
