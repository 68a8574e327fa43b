//! What a bundle proves, and which step refuses one that is broken in one way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod sample;

use std::collections::BTreeSet;

use fivefold_core::id::BootContext;
use fivefold_core::proof::statement::SignedLevel;
use fivefold_evidence::cosignature::Rule;
use fivefold_evidence::trust::Trust;
use fivefold_evidence::verify::{Report, Verdict, Verifier, verify_file};
use fivefold_evidence::words;
use sample::broken::cases;
use sample::{Dice, NOW, Owned, SEEN, Village};

fn one(bundle: &Owned, trust: &Trust) -> Report {
    let mut said = verify_file(&bundle.bytes(), trust);
    assert_eq!(said.len(), 1);
    said.remove(0)
}

#[test]
fn what_a_proven_bundle_says() {
    let mut village = Village::new(40);
    let batch = village.batch(0, SignedLevel::Cloud, Some(BootContext([0xB0; 8])), 5, &[0, 1]);
    let said = one(&village.bundle(&batch, 1), &village.trust());
    assert_eq!((said.verdict, said.step), (Verdict::Proven, None), "{:?}", said.reason);
    assert_eq!(said.device.as_deref(), Some("acde480000000001"));
    assert_eq!(
        (said.epoch, said.piv, said.batch, said.order, said.of),
        (Some(5), Some(302), Some(1), Some(1), Some(5))
    );
    // Three are needed, so the third to have seen it tells the time, in whatever order their lines stand.
    assert_eq!(said.existed_before, Some(NOW + 30));
    let times: Vec<_> = said.witnesses.iter().map(|w| (w.name.as_str(), w.time, w.pq)).collect();
    let [one, two, three] = ["witness.example/one", "witness.example/two", "witness.example/three"];
    assert_eq!(times, [(one, SEEN[0], false), (three, SEEN[2], true), (two, SEEN[1], false)]);
    assert_eq!(said.heard.iter().map(|h| h.gateway.as_str()).collect::<Vec<_>>(), ["000000a1", "000000a2"]);
    assert_eq!(said.values.len(), 1, "{:?}", said.values);
    let text = words::report(&said, 1, 1);
    for needed in [
        "PROVEN",
        "device acde480000000001",
        "level = 49.75 m",
        "number 302 of key epoch 5, boot b0b0b0b0b0b0b0b0; 2 of 5 in signed batch 1",
        "existed before 2026-09-21T14:13:50Z",
        "by gateway 000000a1 of network 00000007 at 2026-09-21T14:14:20Z (its claim)",
        "that the key lived only in the sensor",
        "no newer list of revoked keys",
    ] {
        assert!(text.contains(needed), "{needed} is not in:\n{text}");
    }
}

#[test]
fn fewer_witnesses_are_needed_where_the_trust_file_says_so() {
    let mut village = Village::new(40);
    let batch = village.batch(0, SignedLevel::Gateway, None, 4, &[0]);
    let text = village.trust_text();
    let two: Trust = text.replace("need = 3", "need = 2").parse().unwrap();
    let bundle = village.bundle(&batch, 0);
    assert_eq!(one(&bundle, &two).existed_before, Some(SEEN[0]), "the second to have seen it");
    let checkpoint = village.log.publish(village.log.entries.len(), &[0, SEEN[1], SEEN[2]]);
    let fewer = village.bundle_in(&batch, 0, &checkpoint);
    assert_eq!(one(&fewer, &two).verdict, Verdict::Proven);
    assert_eq!(one(&fewer, &village.trust()).step, Some("enrolment"), "the first proof of it that is looked at");
    let classical = village.log.publish(village.log.entries.len(), &[SEEN[0], SEEN[1], 0]);
    assert_eq!(one(&village.bundle_in(&batch, 0, &classical), &two).verdict, Verdict::Refused, "pq_need is 1");
    let relaxed: Trust = text.replace("need = 3", "need = 2").replace("pq_need = 1", "pq_need = 0").parse().unwrap();
    assert_eq!(one(&village.bundle_in(&batch, 0, &classical), &relaxed).verdict, Verdict::Proven);
}

#[test]
fn each_broken_bundle_is_refused_by_the_step_that_it_breaks() {
    let (mut steps, mut names, mut tried) = (BTreeSet::new(), BTreeSet::new(), 0);
    for seed in 0..6 {
        let mut village = Village::new(40);
        let trust = village.trust();
        let all = Verifier::new(&trust);
        for case in cases(&mut village, &mut Dice(seed)) {
            let said = verify_file(&case.bytes, &trust);
            assert_eq!(all.file(&case.bytes), said, "what it knows of others changes no answer");
            let (step, reason) = (said[0].step, said[0].reason.clone());
            assert_eq!(step, case.step.map(|s| s.as_str()), "seed {seed}, {}: {reason:?}", case.name);
            assert_eq!(said.len(), 1);
            steps.extend(step);
            names.insert(case.name);
            tried += 1;
        }
    }
    println!("{tried} bundles, {} ways to break one, refused at {steps:?}", names.len());
    assert_eq!(steps.len(), 12, "all steps but that of timestamps: {steps:?}");
}

#[test]
fn no_item_can_be_taken_from_another_bundle() {
    let mut village = Village::new(40);
    let batches = [0, 1].map(|d| village.batch(d, SignedLevel::Cloud, None, 6, &[d]));
    let (trust, first) = (village.trust(), village.log.publish(village.log.entries.len(), &SEEN));
    village.revoke(Vec::new());
    let later = village.log.publish(village.log.entries.len(), &SEEN.map(|at| at + 600));
    let (mine, theirs) = (village.bundle_in(&batches[0], 2, &later), village.bundle_in(&batches[1], 3, &first));
    let mut foreign = Village::new(90);
    let elsewhere = foreign.batch(0, SignedLevel::Cloud, None, 6, &[0]);
    let foreign = foreign.bundle(&elsewhere, 3);
    let all = Verifier::new(&trust);
    for b in [&mine, &theirs] {
        assert_eq!(all.file(&b.bytes())[0].verdict, Verdict::Proven);
    }
    type Take = fn(&mut Owned, &Owned);
    let swap: [(&str, Take); 12] = [
        ("tbs", |b, o| b.tbs = o.tbs.clone()),
        ("salt", |b, o| b.salt = o.salt),
        ("path", |b, o| b.path = o.path.clone()),
        ("signed", |b, o| b.signed = o.signed.clone()),
        ("chain", |b, o| b.chain = o.chain.clone()),
        ("enrolment", |b, o| b.enrolment = o.enrolment.clone()),
        ("proof", |b, o| b.proof = o.proof.clone()),
        ("receipts", |b, o| b.receipts = o.receipts.clone()),
        ("revocations", |b, o| b.revocations = o.revocations.clone()),
        ("record of revocations", |b, o| b.revocations.0 = o.revocations.0.clone()),
        ("policy", |b, o| b.policy = o.policy.clone()),
        ("record of the policy", |b, o| b.policy.0 = o.policy.0.clone()),
    ];
    let mut steps = Vec::new();
    for (name, take) in swap {
        for (whose, other) in [("another device", &theirs), ("another deployment", &foreign)] {
            let mut swapped = mine.clone();
            take(&mut swapped, other);
            if swapped.bytes() == mine.bytes() {
                continue;
            }
            let said = one(&swapped, &trust);
            assert_eq!(said.verdict, Verdict::Refused, "{name} of {whose}");
            assert_eq!(
                all.file(&swapped.bytes()),
                std::slice::from_ref(&said),
                "{name} of {whose}: it knows all parts to hold"
            );
            steps.push((name, whose, said.step.unwrap()));
        }
    }
    println!("{steps:?}");
    assert!(steps.len() >= 22);
    // A template is no one's own; one that the reading does not use is refused all the same.
    let mut swapped = theirs.clone();
    assert_eq!(swapped.template, None);
    swapped.template = mine.template.clone();
    assert_eq!(one(&swapped, &trust).step, Some("policy"));
}

#[test]
fn what_one_trusts_decides() {
    let mut village = Village::new(40);
    let batch = village.batch(0, SignedLevel::Cloud, None, 4, &[0]);
    let bundle = village.bundle(&batch, 0);
    let (mine, other) = (village.trust(), Village::new(90).trust());
    let with = |edit: &dyn Fn(&mut Trust)| {
        let mut trust = mine.clone();
        edit(&mut trust);
        one(&bundle, &trust).step
    };
    assert_eq!(with(&|_| {}), None);
    assert_eq!(with(&|t| t.operators = other.operators.clone()), Some("chain"));
    assert_eq!(with(&|t| t.operators.extend(other.operators.clone())), None, "one of two is enough");
    // The first proof that is looked at is that of the enrolment.
    assert_eq!(with(&|t| t.log = other.log.clone()), Some("enrolment"));
    assert_eq!(with(&|t| t.rule = other.rule.clone()), Some("enrolment"));
    let said = {
        let mut trust = mine.clone();
        trust.rule = Rule::new(mine.rule.keys()[..2].to_vec(), 2, 0).unwrap();
        one(&bundle, &trust)
    };
    assert_eq!((said.verdict, &said.ignored[..]), (Verdict::Proven, &["witness.example/three".to_owned()][..]));
}

#[test]
fn several_readings_are_several_answers_and_one_that_cannot_be_read_is_one() {
    let mut village = Village::new(40);
    let batch = village.batch(0, SignedLevel::Cloud, None, 4, &[]);
    let trust = village.trust();
    let mut file: Vec<u8> = (0..4).flat_map(|at| village.bundle(&batch, at).bytes()).collect();
    let said = verify_file(&file, &trust);
    assert_eq!(said.iter().map(|r| r.piv.unwrap()).collect::<Vec<_>>(), [300, 302, 304, 306]);
    file.push(0);
    let said = verify_file(&file, &trust);
    assert_eq!((said.len(), said[0].verdict), (1, Verdict::Unreadable));
    assert_eq!(verify_file(&[], &trust)[0].verdict, Verdict::Unreadable);
}
