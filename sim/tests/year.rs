//! Short years of renewals, and years with a mistake built in, which must be found.
#![allow(clippy::unwrap_used)]

use fivefold_core::suite::set_seal_witness;
use fivefold_sim::watch::sealed;
use fivefold_sim::year::plan::{DAY, Flaw, Trouble, YearPlan};
use fivefold_sim::year::{Broken, Summary, run};

fn came_to(plan: &YearPlan) -> Result<Summary, Box<Broken>> {
    set_seal_witness(sealed);
    run(plan, |_, _| {}).unwrap()
}

fn kept(plan: &YearPlan) -> Summary {
    match came_to(plan) {
        Ok(summary) => summary,
        Err(broken) => panic!("SIM_SEED={} broke promise {}\n{}", broken.seed, broken.what, broken.story.join("\n")),
    }
}

/// Which promise a year breaks that has a mistake in it.
fn broken(plan: YearPlan, flaw: Flaw) -> String {
    let plan = YearPlan { flaw: Some(flaw), ..plan };
    match came_to(&plan) {
        Ok(summary) => panic!("{flaw:?} was not found: {summary:?}"),
        Err(broken) => broken.what,
    }
}

/// Ten devices, two in each network; everything breaks more often than in a year, so that little time is enough.
fn dense(seed: u64, days: u64) -> YearPlan {
    let plan = YearPlan::new(seed, 10, days);
    let trouble = Trouble { node: 2 * DAY, gateway: DAY, cloud: DAY / 4, ..plan.trouble };
    YearPlan { trouble, every: DAY / 3, ..plan }
}

#[test]
fn a_seed_comes_to_the_same_twice() {
    let plan = dense(1, 6);
    let first = kept(&plan);
    assert!(first.finished >= 3, "{first:?}");
    assert!(first.seals_watched && first.readings.stored > 0 && first.broke.len() >= 5, "{first:?}");
    assert_eq!(kept(&plan), first);
}

#[test]
fn message_4_before_the_context_is_durable_is_found() {
    let what = broken(dense(4, 30), Flaw::EarlyMessage4);
    assert!(what.starts_with("1: device") && what.contains("which the cloud has not durable"), "{what}");
}

#[test]
fn a_flash_that_lies_is_found() {
    let what = broken(dense(5, 60), Flaw::LyingFlash);
    assert!(what.starts_with("1: ") || what.starts_with("4: ") || what.starts_with("6: "), "{what}");
}

#[test]
fn a_thief_that_nobody_revoked_is_found() {
    let what = broken(dense(6, 22), Flaw::ForgottenThief);
    assert!(what.starts_with("5: device"), "{what}");
}
