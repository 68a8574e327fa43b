//! The engine under every course of answers, with a cloud that is killed wherever it may be.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use common::reading;
use fivefold_alarm::LONGEST_PAUSE;
use fivefold_core::id::Did;
use fivefold_core::time::Millis;
use fivefold_sinks::engine::{AHEAD, Engine, Next, Outcome, Place, Queue};
use fivefold_sinks::{Answer, Most, Outbound, Verdict};
use proptest::prelude::*;

const MOST: Most = Most { readings: 16, bytes: 1 << 20 };
const NOW: Millis = Millis(1_790_000_000_000);

fn place(row: i64) -> Place {
    Place { queue: Queue::Reading, row }
}

/// Rows 1, 2, … of three devices in turn.
fn row(n: i64) -> (Place, Outbound) {
    (place(n), reading((n % 3) as u8, (n / 3) as u64))
}

fn loaded(count: i64) -> Engine {
    let mut engine = Engine::new(MOST);
    engine.load((1..=count).map(row));
    engine
}

fn sent(engine: &mut Engine, now: Millis) -> Vec<Arc<Outbound>> {
    match engine.next(now) {
        Next::Send(batch) => batch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_that_is_wrong_is_found_by_halves_and_the_rest_goes_on() {
    let mut engine = loaded(16);
    let wrong = row(11).1.id;
    let (mut settled, mut batches) = (Vec::new(), 0);
    while let Next::Send(batch) = engine.next(NOW) {
        batches += 1;
        let answer =
            if batch.iter().any(|r| r.id == wrong) { Answer::Refused("type conflict".into()) } else { Answer::Taken };
        settled.extend(engine.answered(answer, NOW, 0).places);
    }
    assert_eq!(engine.next(NOW), Next::Load, "nothing waited for");
    let expected: Vec<_> = (1..=16)
        .map(|n| (place(n), if n == 11 { Outcome::Dead("type conflict".into()) } else { Outcome::Taken }))
        .collect();
    settled.sort_by_key(|(place, _)| place.row);
    assert_eq!(settled, expected);
    assert!(batches <= 12, "{batches}");
}

#[test]
fn pauses_grow_from_half_a_second_to_five_minutes_and_a_yes_ends_them() {
    let mut engine = loaded(16);
    let (mut now, mut pauses) = (NOW, Vec::new());
    for _ in 0..14 {
        sent(&mut engine, now);
        let settled = engine.answered(Answer::away("connection refused"), now, 0);
        assert_eq!((settled.places.len(), settled.failed.as_deref()), (0, Some("connection refused")));
        let Next::Wait(until) = engine.next(now) else { panic!("it does not wait") };
        pauses.push(until.since(now));
        now = until;
    }
    assert_eq!(pauses[..3], [500, 1000, 2000]);
    assert_eq!(pauses[13], LONGEST_PAUSE);
    assert_eq!(sent(&mut engine, now).len(), 1, "who was away is asked with little first");
    assert_eq!(engine.answered(Answer::Taken, now, 0).places.len(), 1);
    assert_eq!(sent(&mut engine, now).len(), 2);
    engine.answered(Answer::away("again"), now, 255);
    assert!(matches!(engine.next(now), Next::Wait(until) if until.since(now) < 600), "it begins anew");
}

#[test]
fn a_sink_may_ask_for_a_pause_but_for_none_longer_than_ours_and_a_person_ends_it() {
    for (asked, given) in [(Duration::from_secs(20), 20_000), (Duration::MAX, LONGEST_PAUSE), (Duration::ZERO, 500)] {
        let mut engine = loaded(1);
        sent(&mut engine, NOW);
        engine.answered(Answer::Away { said: "busy".into(), after: Some(asked) }, NOW, 0);
        assert_eq!(engine.next(NOW), Next::Wait(NOW.plus(given)));
        engine.hurry();
        assert!(matches!(engine.next(NOW), Next::Send(_)));
    }
    let mut engine = loaded(1);
    sent(&mut engine, NOW);
    engine.answered(Answer::away("away"), NOW, 0);
    let Next::Wait(until) = engine.next(Millis(0)) else { panic!("it does not wait") };
    assert!(until.0 < 2 * LONGEST_PAUSE, "a clock that was put back does not hold it for years");
}

#[test]
fn what_refuses_everything_is_asked_seldom() {
    let mut engine = Engine::new(Most { readings: 1, bytes: 1 << 20 });
    let mut now = NOW;
    for n in 1..=40 {
        engine.load([row(n)]);
        if let Next::Wait(until) = engine.next(now) {
            now = until;
        }
        sent(&mut engine, now);
        assert_eq!(engine.answered(Answer::Refused("no".into()), now, 0).places.len(), 1);
    }
    assert!(now.since(NOW) > 10 * LONGEST_PAUSE, "{}", now.since(NOW));
}

#[test]
fn a_batch_is_bounded_by_bytes_and_one_that_is_larger_goes_alone() {
    let one = row(1).1.weight();
    let mut engine = Engine::new(Most { readings: 16, bytes: 3 * one });
    engine.load((1..=9).map(row));
    assert_eq!(sent(&mut engine, NOW).len(), 3);
    let mut engine = Engine::new(Most { readings: 16, bytes: 1 });
    engine.load((1..=9).map(row));
    assert_eq!(sent(&mut engine, NOW).len(), 1);
}

#[test]
fn what_an_answer_does_not_speak_of_comes_again_and_what_it_makes_up_is_not_heard() {
    let mut engine = loaded(4);
    sent(&mut engine, NOW);
    let settled = engine.answered(Answer::Each(vec![Verdict::Done]), NOW, 0);
    assert_eq!((settled.places, settled.again), (vec![(place(1), Outcome::Taken)], 3));
    let Next::Wait(now) = engine.next(NOW) else { panic!("it does not wait") };
    assert_eq!(sent(&mut engine, now).len(), 3);
    let settled = engine.answered(Answer::Each(vec![Verdict::Done; 100]), now, 0);
    assert_eq!((settled.places.len(), settled.again), (3, 0));
    assert_eq!(engine.answered(Answer::Taken, now, 0).places, [], "nothing was sent");
}

#[test]
fn who_holds_up_the_rest_is_named() {
    let mut engine = loaded(4);
    let batch = sent(&mut engine, NOW);
    let verdicts = [Verdict::Done, Verdict::Retry("no right".into()), Verdict::Done, Verdict::Done];
    let settled = engine.answered(Answer::Each(verdicts.into()), NOW, 0);
    assert_eq!(settled.failed, Some(format!("no right (device {})", batch[1].did)));
}

/// What a sink answers that has no right for one device.
fn but(did: Did, batch: &[Arc<Outbound>]) -> Answer {
    let of = |r: &Arc<Outbound>| if r.did == did { Verdict::Retry("no right".into()) } else { Verdict::Done };
    Answer::Each(batch.iter().map(of).collect())
}

#[test]
fn a_device_that_is_not_taken_from_holds_up_no_other_but_its_own() {
    let (mut engine, mut now, mut loaded) = (Engine::new(MOST), NOW, 0);
    let (held, said) = (row(1).1.did, format!("no right (device {})", row(1).1.did));
    let (mut got, mut tries, mut failed, mut places) = (Vec::new(), 0, None, Vec::new());
    while got.len() < 200 {
        match engine.next(now) {
            Next::Wait(until) => now = until,
            Next::Load => {
                assert_eq!(loaded, 0, "the page is never through");
                engine.load((1..=16).map(row));
                loaded = 16;
            }
            Next::More => {
                engine.extend((loaded + 1..=loaded + 16).map(row));
                loaded += 16;
            }
            Next::Send(batch) => {
                tries += batch.iter().filter(|r| r.did == held).count();
                got.extend(batch.iter().filter(|r| r.did != held).cloned());
                let settled = engine.answered(but(held, &batch), now, 0);
                assert_eq!(settled.reading, None, "the first of all is not settled");
                assert!(settled.places.iter().all(|(place, _)| row(place.row).1.did != held));
                places.extend(settled.places.into_iter().map(|(place, _)| place.row));
                failed = settled.failed.or(failed);
            }
        }
    }
    assert_eq!(failed.as_deref(), Some(&*said));
    assert!(now.since(NOW) < 10_000 && tries < 40, "{tries} tries in {} ms", now.since(NOW));
    // It is taken from again: what it had comes in order, and all of the page is settled.
    let (mut upto, mut own) = (None, Vec::new());
    while places.len() < loaded as usize {
        match engine.next(now) {
            Next::Wait(until) => now = until,
            Next::Send(batch) => {
                own.extend(batch.iter().filter(|r| r.did == held).map(|r| r.number));
                let settled = engine.answered(Answer::Taken, now, 0);
                assert!(settled.reading >= upto, "it never goes back");
                upto = settled.reading;
                places.extend(settled.places.into_iter().map(|(place, _)| place.row));
            }
            _ => now = now.plus(250),
        }
    }
    places.sort_unstable();
    assert_eq!((places, upto), ((1..=loaded).collect(), Some(loaded)), "each once");
    assert!(own.is_sorted() && own.len() == (1..=loaded).filter(|n| row(*n).1.did == held).count());
    assert_eq!(engine.next(now), Next::Load);
}

#[test]
fn the_others_go_on_so_far_and_no_further() {
    let (mut engine, mut now, mut loaded) = (Engine::new(Most { readings: 4096, ..MOST }), NOW, 0);
    let held = row(1).1.did;
    engine.load((1..=16).map(row));
    loop {
        match engine.next(now) {
            Next::Wait(until) => now = until,
            Next::Load => panic!("it is not through"),
            Next::More if !engine.has_room() => break,
            Next::More => {
                loaded += 4096;
                engine.extend((loaded - 4096 + 17..=loaded + 16).map(row));
            }
            Next::Send(batch) => drop(engine.answered(but(held, &batch), now, 0)),
        }
        assert!(loaded < AHEAD as i64 + 4096, "it loads without end");
    }
    assert!(loaded >= AHEAD as i64 / 2, "{loaded}");
}

#[test]
fn a_device_that_is_alone_in_its_batch_holds_up_no_other_either() {
    // After a while without an answer a batch is one reading; and of 16 in a row of one device no batch has another.
    for away in [8, 0] {
        let (mut engine, mut now, mut others) = (Engine::new(MOST), NOW, 0);
        let of = |n: i64| (place(n), reading(u8::from(n > 16), n as u64));
        engine.load((1..=16).map(of));
        let (held, mut loaded, mut left) = (of(1).1.did, 16, away);
        while others < 16 {
            match engine.next(now) {
                Next::Wait(until) => now = until,
                Next::Load => panic!("it is not through"),
                Next::More => {
                    engine.extend((loaded + 1..=loaded + 16).map(of));
                    loaded += 16;
                }
                Next::Send(batch) if left > 0 => {
                    left -= 1;
                    engine.answered(Answer::away("restarts"), now, 0);
                    assert!(!batch.is_empty());
                }
                Next::Send(batch) => {
                    others += batch.iter().filter(|r| r.did != held).count();
                    engine.answered(but(held, &batch), now, 0);
                }
            }
            assert!(now.since(NOW) < 1000 * 1000, "{others} of the others");
        }
    }
}

#[test]
fn behind_one_that_is_held_what_is_put_aside_or_sent_again_is_known_at_once_and_labels_move_on() {
    let (mut engine, mut now) = (Engine::new(MOST), NOW);
    let held = row(1).1.did;
    let letter = |row| Place { queue: Queue::Again, row };
    let label = |row| Place { queue: Queue::Label, row };
    engine.load([row(1), row(2), row(3)]);
    let mut came = Vec::new();
    let mut hear = |engine: &mut Engine, now: &mut Millis, wanted: usize| {
        came.clear();
        let mut upto = (None, None);
        while came.len() < wanted {
            match engine.next(*now) {
                Next::Wait(until) => *now = until,
                Next::Send(batch) => {
                    let of = |r: &Arc<Outbound>| match r.did {
                        did if did == held => Verdict::Retry("no right".into()),
                        did if did == row(2).1.did => Verdict::Dead("too large".into()),
                        _ => Verdict::Done,
                    };
                    let settled = engine.answered(Answer::Each(batch.iter().map(of).collect()), *now, 0);
                    upto = (settled.reading.or(upto.0), settled.label.or(upto.1));
                    came.extend(settled.places);
                }
                next => panic!("{next:?}"),
            }
        }
        (came.clone(), upto)
    };
    let dead = || Outcome::Dead("too large".into());
    assert_eq!(hear(&mut engine, &mut now, 2), (vec![(place(2), dead()), (place(3), Outcome::Taken)], (None, None)));
    while !matches!(engine.next(now), Next::More) {
        let Next::Send(batch) = engine.next(now) else {
            now = now.plus(100);
            continue;
        };
        engine.answered(but(held, &batch), now, 0);
    }
    // A person sends two letters again, one of them of the device that is held; labels are raised.
    engine.extend([
        (letter(7), row(3).1),
        (letter(8), row(1).1),
        (label(4), row(3).1),
        (label(5), row(2).1),
        (label(6), row(1).1),
        (label(9), row(3).1),
    ]);
    let (came, upto) = hear(&mut engine, &mut now, 4);
    let expected =
        [(letter(7), Outcome::Taken), (label(4), Outcome::Taken), (label(5), dead()), (label(9), Outcome::Taken)];
    assert_eq!((&*came, upto), (&expected[..], (None, Some(5))), "labels are settled as far as the first that is held");
}

#[test]
fn what_there_was_no_time_for_comes_at_once_in_a_batch_that_is_no_larger_and_nothing_is_wrong() {
    let mut engine = Engine::new(Most { readings: 128, bytes: 1 << 20 });
    engine.load((1..=128).map(row));
    assert_eq!(sent(&mut engine, NOW).len(), 128);
    let half = |taken: usize| Answer::Each([vec![Verdict::Done; taken], vec![Verdict::Later; 200]].concat());
    let settled = engine.answered(half(20), NOW, 0);
    assert_eq!((settled.places.len(), settled.again, settled.failed), (20, 0, None));
    for batch in [20, 22, 24] {
        assert_eq!(sent(&mut engine, NOW).len(), batch, "by addition, and without a pause");
        engine.answered(Answer::Taken, NOW, 0);
    }
    assert_eq!(sent(&mut engine, NOW).len(), 26);
    let settled = engine.answered(half(0), NOW, 0);
    assert_eq!((settled.places.len(), settled.again), (0, 26));
    assert!(settled.failed.is_some() && matches!(engine.next(NOW), Next::Wait(_)), "nothing is no progress");
}

/// What the sink does with a batch.
#[derive(Clone, Debug)]
enum Course {
    Takes,
    /// It has so many of it, and nobody hears of it.
    Breaks(usize),
    /// It answers for each by these bits: it may not take of a device what lies behind what it has not taken.
    Answers(u16),
    /// It has so many of it, and had no time for more.
    Slow(usize),
    /// The cloud is killed behind the sink's yes, before that is noted.
    Killed,
}

fn course() -> impl Strategy<Value = Course> {
    prop_oneof![
        3 => Just(Course::Takes),
        3 => (0usize..17).prop_map(Course::Breaks),
        3 => any::<u16>().prop_map(Course::Answers),
        2 => (0usize..17).prop_map(Course::Slow),
        1 => Just(Course::Killed),
    ]
}

proptest! {
    #[test]
    fn everything_arrives_in_order_of_each_device_whatever_sink_and_cloud_do(
        courses in proptest::collection::vec(course(), 0..60), wrong in proptest::collection::btree_set(1i64..100, 0..5),
        random in any::<u8>(),
    ) {
        let wrong_ids: BTreeSet<String> = wrong.iter().map(|n| row(*n).1.id).collect();
        let (mut cursor, mut loaded, mut dead, mut done) = (0, 0, BTreeSet::new(), BTreeSet::new());
        let (mut got, mut now) = (Vec::<Arc<Outbound>>::new(), NOW);
        let mut engine = Engine::new(MOST);
        let mut courses = courses.into_iter();
        loop {
            let batch = match engine.next(now) {
                Next::Wait(until) => {
                    prop_assert!(until > now && until.since(now) <= LONGEST_PAUSE * 9 / 8);
                    now = until;
                    continue;
                }
                Next::Load if cursor == 99 => break,
                Next::Load => {
                    loaded = 99.min(cursor + engine.page() as i64);
                    engine.load((cursor + 1..=loaded).map(row));
                    continue;
                }
                Next::More => {
                    let before = loaded;
                    loaded = 99.min(before + engine.page() as i64);
                    engine.extend((before + 1..=loaded).map(row));
                    now = now.plus(250);
                    continue;
                }
                Next::Send(batch) => batch,
            };
            prop_assert!(!batch.is_empty() && batch.len() <= MOST.readings);
            let is_wrong = |r: &Arc<Outbound>| wrong_ids.contains(&r.id);
            let answer = match courses.next().unwrap_or(Course::Takes) {
                Course::Breaks(count) => {
                    let good = batch.iter().take(count).take_while(|r| !is_wrong(r));
                    got.extend(good.cloned());
                    Answer::away("broken")
                }
                Course::Answers(bits) => {
                    let mut waits = BTreeSet::new();
                    Answer::Each(batch.iter().enumerate().map(|(i, r)| {
                        if is_wrong(r) {
                            Verdict::Dead("wrong".into())
                        } else if bits & (1 << i) == 0 || waits.contains(&r.did) {
                            waits.insert(r.did);
                            Verdict::Retry("not now".into())
                        } else {
                            got.push(r.clone());
                            Verdict::Done
                        }
                    }).collect())
                }
                Course::Slow(count) => Answer::Each(batch.iter().enumerate().map(|(i, r)| {
                    if i >= count {
                        Verdict::Later
                    } else if is_wrong(r) {
                        Verdict::Dead("wrong".into())
                    } else {
                        got.push(r.clone());
                        Verdict::Done
                    }
                }).collect()),
                Course::Takes | Course::Killed if batch.iter().any(is_wrong) => Answer::Refused("wrong".into()),
                Course::Takes => {
                    got.extend(batch);
                    Answer::Taken
                }
                Course::Killed => {
                    got.extend(batch);
                    engine = Engine::new(MOST);
                    continue;
                }
            };
            let settled = engine.answered(answer, now, random);
            for (at, outcome) in settled.places {
                prop_assert!(at.row > cursor, "nothing is settled twice");
                done.insert(at.row);
                if let Outcome::Dead(_) = outcome {
                    dead.insert(at.row);
                } else {
                    prop_assert!(got.contains(&Arc::new(row(at.row).1)), "and nothing that the sink has not");
                }
            }
            cursor = settled.reading.unwrap_or(cursor);
            prop_assert!((1..=cursor).all(|n| done.contains(&n)), "the cursor leaves nothing out");
        }
        prop_assert_eq!(&dead, &wrong, "put aside is what is wrong, and nothing else");
        let mut last = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for reading in got.iter().filter(|r| seen.insert(r.id.clone())) {
            let before = last.insert(reading.did, reading.number);
            prop_assert!(before.is_none_or(|before| before < reading.number), "in order: {:?}", reading.id);
        }
        prop_assert_eq!(seen.len() + dead.len(), 99, "everything arrives, or is put aside");
    }
}
