//! Bundles of evidence from villages whose nodes sign, for verifiers to agree on.
//!
//! `SEED.toml` is what to believe of one village; `NNNN.evb` are the bundles; `expected.json` says of each whose it is, its
//! verdict, the step that must refuse it, and what is wrong with it. A bundle that is called proven has the bytes that the
//! device was given to send, by what the simulator saw.

mod alter;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context as _, bail, ensure};
use fivefold_core::proof::statement::Subject;
use fivefold_evidence::bundle::Bundle;
use fivefold_evidence::record::Enrolment;
use fivefold_evidence::verify::{Step, verify_file};
use fivefold_sim::deployment::Deployment;
use fivefold_sim::family::{did, wall};
use fivefold_sim::watch::{Name, Watch};
use fivefold_sim::{Plan, World};
use serde_json::json;

/// Bundles from one village, at most: many villages are looked at.
const OF_ONE: usize = 40;
/// Of these, so many have a key that was revoked.
const REVOKED: usize = 4;
/// Of ten, so many are made to be refused.
const REFUSED_OF_TEN: usize = 3;
/// Villages in which nobody signs give nothing; so many in a row, and something is wrong.
const IN_VAIN: u64 = 100;

/// A bundle, and what must be said of it: `None` if it is proven.
struct Sample {
    what: &'static str,
    step: Option<Step>,
    bytes: Vec<u8>,
}

struct Village {
    trust: String,
    samples: Vec<Sample>,
}

/// What threads share.
#[derive(Default)]
struct Work {
    next: u64,
    samples: usize,
    in_vain: u64,
    villages: BTreeMap<u64, Village>,
    error: Option<anyhow::Error>,
}

/// Writes so many bundles, from this seed on.
pub(crate) fn run(folder: &Path, number: usize, start: u64, jobs: usize) -> ExitCode {
    match villages(number, start, jobs).and_then(|all| write(folder, number, &all)) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

fn villages(number: usize, start: u64, jobs: usize) -> anyhow::Result<BTreeMap<u64, Village>> {
    let work = Mutex::new(Work { next: start, ..Work::default() });
    let next = || {
        let mut work = work.lock().ok()?;
        if work.samples >= number || work.error.is_some() {
            return None;
        }
        work.next += 1;
        Some(work.next - 1)
    };
    let done = |seed: u64, village: anyhow::Result<Village>| {
        let Ok(mut work) = work.lock() else { return };
        match village {
            Ok(village) => {
                work.in_vain = if village.samples.is_empty() { work.in_vain + 1 } else { 0 };
                work.samples += village.samples.len();
                work.villages.insert(seed, village);
                if work.in_vain > IN_VAIN {
                    work.error = Some(anyhow::anyhow!("in {IN_VAIN} villages up to seed {seed} nothing was proven"));
                }
            }
            Err(error) => work.error = Some(error.context(format!("seed {seed}"))),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(seed) = next() {
                    done(seed, village(seed));
                }
            });
        }
    });
    let work = work.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    work.error.map_or(Ok(work.villages), Err)
}

/// Runs one village to its end and puts its evidence together.
fn village(seed: u64) -> anyhow::Result<Village> {
    let mut world = World::new(Plan::signing(seed))?;
    world.storm(world.plan.storm)?;
    world.heal()?;
    if let Err(broken) = world.finish()? {
        bail!("it broke promise {}", broken.what);
    }
    let deployment = Deployment::over(&mut world)?;
    let seen = wall(world.now).0 / 1000;
    deployment.publish(&world.cloud, seen)?;
    let signers: Vec<_> = world.cloud.signers().map(|s| s.did).collect();
    let mut each = Vec::new();
    for did in &signers {
        each.extend(deployment.export(&world.cloud, *did)?);
    }
    let trust = deployment.trust.clone();
    let bundles: Vec<Bundle<'_>> = each.iter().map(|bytes| parse(bytes)).collect::<anyhow::Result<_>>()?;
    let mut samples = Vec::new();
    let take = bundles.len().min(OF_ONE - REVOKED);
    // Kinds take turns over all villages.
    let mut kinds = alter::KINDS.iter().cycle().skip(seed as usize % alter::KINDS.len());
    let gateway = world.gateways.first().context("no gateway")?;
    // Evenly from the first reading to the last.
    for n in 0..take {
        let Some(bundle) = bundles.get(n * bundles.len() / take) else { break };
        was_sent(&world.watch, bundle)?;
        let wrong = (n % 10 >= 10 - REFUSED_OF_TEN).then(|| {
            let case = alter::Case { bundle, all: &bundles, deployment: &deployment, gateway };
            kinds.by_ref().take(alter::KINDS.len()).find_map(|kind| case.made(kind).transpose())
        });
        samples.push(match wrong.flatten().transpose()? {
            Some(sample) => sample,
            None => Sample { what: "as exported", step: None, bytes: bundle.emit()? },
        });
    }
    // A key that was revoked is worth nothing from that moment on, and what witnesses saw before stays proven.
    if let Some(did) = signers.first() {
        let (what, since, step) = match seed % 2 {
            0 => ("its key was revoked before the witness time", seen, Some(Step::Revocation)),
            _ => ("its key was revoked after the witness time", seen + 3600, None),
        };
        deployment.revoke(&mut world, *did, since)?;
        deployment.publish(&world.cloud, seen + 7200)?;
        for bytes in deployment.export(&world.cloud, *did)?.into_iter().take(REVOKED) {
            was_sent(&world.watch, &parse(&bytes)?)?;
            samples.push(Sample { what, step, bytes });
        }
    }
    look_at(&trust, &samples)?;
    Ok(Village { trust, samples })
}

fn parse(bytes: &[u8]) -> anyhow::Result<Bundle<'_>> {
    Bundle::parse(bytes).map_err(|e| anyhow::anyhow!("a bundle: {}", e.reason))
}

/// Its reading, by the name that the watch knows it by, and its payload.
fn reading<'b>(bundle: &Bundle<'b>) -> anyhow::Result<(Name, &'b [u8])> {
    let (subject, piv, payload) = Subject::parse_tbs(bundle.tbs).map_err(|e| anyhow::anyhow!(e.reason))?;
    let record = bundle.enrolment.record;
    let sid = Enrolment::parse(record).map_err(|e| anyhow::anyhow!(e.reason))?.sid;
    ensure!(did(sid) == subject.did, "{sid} is not {}", subject.did);
    Ok(((sid, subject.epoch, subject.bctx.map(|b| b.0), piv), payload))
}

fn was_sent(watch: &Watch, bundle: &Bundle<'_>) -> anyhow::Result<()> {
    let (name, payload) = reading(bundle)?;
    watch.was_sent(&name, payload).map_err(|why| anyhow::anyhow!("evidence of {name:?} was exported, which {why}"))
}

/// Our own verifier says what each was made for.
fn look_at(trust: &str, samples: &[Sample]) -> anyhow::Result<()> {
    let trust = trust.parse()?;
    for sample in samples {
        let (what, step) = (sample.what, sample.step.map(Step::as_str));
        let said = verify_file(&sample.bytes, &trust);
        let [report] = said.as_slice() else { bail!("{what}: {} verdicts of one bundle", said.len()) };
        ensure!(report.step == step, "{what}: expected {step:?}, said {:?}: {:?}", report.step, report.reason);
    }
    Ok(())
}

fn write(folder: &Path, number: usize, villages: &BTreeMap<u64, Village>) -> anyhow::Result<String> {
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let (mut expected, mut counts, mut from) = (Vec::new(), BTreeMap::<_, usize>::new(), 0);
    for (seed, village) in villages {
        let trust = format!("{seed}.toml");
        let rest = number - expected.len();
        if rest == 0 || village.samples.is_empty() {
            continue;
        }
        from += 1;
        put(&trust, village.trust.as_bytes())?;
        for Sample { what, step, bytes } in village.samples.iter().take(rest) {
            let file = format!("{:04}.evb", expected.len());
            put(&file, bytes)?;
            let verdict = match step {
                None => "proven",
                Some(Step::Decode) => "unreadable",
                Some(_) => "refused",
            };
            *counts.entry(verdict).or_default() += 1;
            let step = step.map(Step::as_str);
            expected.push(json!({"file": file, "trust": trust, "what": what, "verdict": verdict, "step": step}));
        }
    }
    put("expected.json", serde_json::to_string_pretty(&expected)?.as_bytes())?;
    let counts: Vec<String> = counts.iter().map(|(verdict, n)| format!("{n} {verdict}")).collect();
    Ok(format!("{} bundles from {from} villages: {}", expected.len(), counts.join(", ")))
}
