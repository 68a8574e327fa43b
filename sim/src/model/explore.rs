//! The explorer: every sequence of moves up to a depth, the shortest first, each state once.
//!
//! Engines are not copied, so a state is a list of moves: it is made again from the beginning whenever it is needed. Two
//! lists are one state when each party has been through the same and the same is on its way
//! ([`State::fingerprint`]); nothing is assumed about what an engine keeps.

use std::collections::{HashSet, VecDeque};
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A world that is made of moves.
pub trait State: Sized {
    /// What it begins with.
    type Plan: Sync;
    /// What may happen.
    type Move: Copy + Debug + Send + Sync;

    /// The beginning. With `telling`, the world writes its story.
    ///
    /// # Errors
    /// When this machine cannot make it.
    fn start(plan: &Self::Plan, telling: bool) -> anyhow::Result<Self>;

    /// What may happen now, with nothing breaking in the middle.
    fn moves(&self) -> Vec<Self::Move>;

    /// It happens.
    ///
    /// # Errors
    /// When this machine cannot go on.
    fn step(&mut self, to: Self::Move) -> anyhow::Result<()>;

    /// The move that just happened, with something breaking in the middle of it, in every way.
    fn inside(&self, last: Self::Move) -> Vec<Self::Move>;

    /// The first promise that was broken.
    fn broken(&self) -> Option<&str>;

    /// Equal only for states from which the same can follow.
    fn fingerprint(&self) -> u128;

    /// From here on nothing breaks any more: what must come to pass does, within a bound.
    ///
    /// # Errors
    /// When this machine cannot go on.
    fn fair(&mut self) -> anyhow::Result<()>;

    /// What happened so far, if it was to be told.
    fn story(&self) -> &[String];
}

/// How far to look.
#[derive(Clone, Copy, Debug)]
pub struct Reach {
    /// Moves in a row.
    pub depth: usize,
    /// Threads.
    pub threads: usize,
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub what: String,
    /// How many moves it takes; none is shorter.
    pub moves: usize,
    /// How it came to that, line by line.
    pub story: Vec<String>,
}

/// What was looked at.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// Different states.
    pub states: usize,
    /// Moves that were tried.
    pub moves: usize,
    /// States first reached by so many moves, by depth.
    pub levels: Vec<usize>,
    /// What is wrong.
    pub violation: Option<Violation>,
}

type Trace<M> = Box<[M]>;

struct Level<M> {
    next: Vec<Trace<M>>,
    /// Where in the level, so that the same one is told whatever the threads do.
    wrong: Option<(usize, Trace<M>, Wrong)>,
}

#[derive(Clone, Copy)]
enum Wrong {
    Here,
    Fair,
}

/// Looks at everything within reach, and stops after the depth at which something is wrong.
///
/// # Errors
/// When this machine cannot go on.
pub fn explore<S: State>(plan: &S::Plan, reach: Reach) -> anyhow::Result<Looked> {
    let mut start = S::start(plan, false)?;
    let mut looked = Looked { states: 1, levels: vec![1], ..Looked::default() };
    let seen = Mutex::new(HashSet::from([start.fingerprint()]));
    if start.broken().is_none() {
        start.fair()?;
    }
    if let Some(what) = start.broken() {
        looked.violation = Some(Violation { what: what.into(), moves: 0, story: start.story().to_vec() });
        return Ok(looked);
    }
    drop(start);
    let mut frontier: Vec<Trace<S::Move>> = vec![Box::default()];
    for _ in 0..reach.depth {
        let level = Mutex::new(Level { next: Vec::new(), wrong: None });
        let (place, tried) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let results: Vec<anyhow::Result<()>> = std::thread::scope(|threads| {
            let work = || -> anyhow::Result<()> {
                loop {
                    let at = place.fetch_add(1, Ordering::Relaxed);
                    let Some(trace) = frontier.get(at) else { return Ok(()) };
                    tried.fetch_add(expand::<S>(plan, at, trace, &seen, &level)?, Ordering::Relaxed);
                }
            };
            let spawned: Vec<_> = (0..reach.threads.max(1)).map(|_| threads.spawn(work)).collect();
            spawned.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread died")))).collect()
        });
        results.into_iter().collect::<anyhow::Result<()>>()?;
        let level = level.into_inner().unwrap_or_else(PoisonError::into_inner);
        looked.moves += tried.into_inner();
        looked.states += level.next.len();
        looked.levels.push(level.next.len());
        if let Some((_, trace, wrong)) = level.wrong {
            looked.violation = Some(tell::<S>(plan, &trace, wrong)?);
            return Ok(looked);
        }
        frontier = level.next;
    }
    Ok(looked)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes every move from the state of `trace`; how many there were.
fn expand<S: State>(
    plan: &S::Plan,
    at: usize,
    trace: &[S::Move],
    seen: &Mutex<HashSet<u128>>,
    level: &Mutex<Level<S::Move>>,
) -> anyhow::Result<usize> {
    let first = replay::<S>(plan, trace, false)?;
    let mut moves: VecDeque<_> = first.moves().into_iter().map(|m| (m, true)).collect();
    let mut spare = Some(first);
    let mut tried = 0;
    while let Some((to, whole)) = moves.pop_front() {
        let mut world = match spare.take() {
            Some(world) => world,
            None => replay::<S>(plan, trace, false)?,
        };
        world.step(to)?;
        tried += 1;
        if whole {
            moves.extend(world.inside(to).into_iter().map(|m| (m, false)));
        }
        let further: Trace<_> = trace.iter().copied().chain([to]).collect();
        let wrong = if world.broken().is_some() {
            Some(Wrong::Here)
        } else if lock(seen).insert(world.fingerprint()) {
            lock(level).next.push(further.clone());
            world.fair()?;
            world.broken().is_some().then_some(Wrong::Fair)
        } else {
            None
        };
        if let Some(wrong) = wrong {
            let mut level = lock(level);
            if level.wrong.as_ref().is_none_or(|(before, ..)| at < *before) {
                level.wrong = Some((at, further, wrong));
            }
            break;
        }
    }
    Ok(tried)
}

fn replay<S: State>(plan: &S::Plan, trace: &[S::Move], telling: bool) -> anyhow::Result<S> {
    let mut world = S::start(plan, telling)?;
    trace.iter().try_for_each(|m| world.step(*m))?;
    Ok(world)
}

fn tell<S: State>(plan: &S::Plan, trace: &[S::Move], wrong: Wrong) -> anyhow::Result<Violation> {
    let mut world = replay::<S>(plan, trace, true)?;
    if matches!(wrong, Wrong::Fair) {
        world.fair()?;
    }
    let what = world.broken().unwrap_or("it does not happen again: the world is not made of its moves alone");
    Ok(Violation { what: what.into(), moves: trace.len(), story: world.story().to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two counters that go up to 3; together they must not come to 5.
    struct Counters(u8, u8, Vec<String>, Option<String>);

    impl State for Counters {
        type Plan = u8;
        type Move = bool;
        fn start(_: &u8, _: bool) -> anyhow::Result<Self> {
            Ok(Self(0, 0, Vec::new(), None))
        }
        fn moves(&self) -> Vec<bool> {
            [(self.0 < 3).then_some(false), (self.1 < 3).then_some(true)].into_iter().flatten().collect()
        }
        fn step(&mut self, to: bool) -> anyhow::Result<()> {
            *(if to { &mut self.1 } else { &mut self.0 }) += 1;
            self.2.push(format!("{to}"));
            if self.0 + self.1 == 5 {
                self.3 = Some("five".into());
            }
            Ok(())
        }
        fn inside(&self, _: bool) -> Vec<bool> {
            Vec::new()
        }
        fn broken(&self) -> Option<&str> {
            self.3.as_deref()
        }
        fn fingerprint(&self) -> u128 {
            u128::from(self.0) << 8 | u128::from(self.1)
        }
        fn fair(&mut self) -> anyhow::Result<()> {
            Ok(())
        }
        fn story(&self) -> &[String] {
            &self.2
        }
    }

    #[test]
    fn each_state_is_seen_once_and_the_shortest_way_to_a_broken_promise_is_told() {
        for threads in [1, 2] {
            let looked = explore::<Counters>(&0, Reach { depth: 4, threads }).unwrap();
            assert_eq!((looked.states, looked.levels), (13, vec![1, 2, 3, 4, 3]));
            let looked = explore::<Counters>(&0, Reach { depth: 9, threads }).unwrap();
            let violation = looked.violation.unwrap();
            assert_eq!((violation.what.as_str(), violation.moves, violation.story.len()), ("five", 5, 5));
        }
    }
}
