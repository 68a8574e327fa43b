//! What is to happen, in order: by time, and at one time in the order in which it was planned, so that a seed gives one
//! course of events.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Events with the milliseconds at which they are due.
#[derive(Debug)]
pub struct Agenda<E> {
    queue: BinaryHeap<Reverse<Due<E>>>,
    planned: u64,
}

#[derive(Debug)]
struct Due<E> {
    at: u64,
    order: u64,
    event: E,
}

impl<E> Agenda<E> {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self { queue: BinaryHeap::new(), planned: 0 }
    }

    /// `event` is due at `at`.
    pub fn plan(&mut self, at: u64, event: E) {
        self.planned += 1;
        self.queue.push(Reverse(Due { at, order: self.planned, event }));
    }

    /// When the next one is due.
    pub fn next_at(&self) -> Option<u64> {
        self.queue.peek().map(|due| due.0.at)
    }

    /// Takes the next one out.
    pub fn pop(&mut self) -> Option<(u64, E)> {
        self.queue.pop().map(|Reverse(due)| (due.at, due.event))
    }
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_together_happens_in_the_order_of_planning() {
        let mut agenda = Agenda::new();
        for (at, event) in [(5, "c"), (3, "a"), (5, "d"), (3, "b")] {
            agenda.plan(at, event);
        }
        assert_eq!(agenda.next_at(), Some(3));
        let all: Vec<_> = std::iter::from_fn(|| agenda.pop()).collect();
        assert_eq!(all, [(3, "a"), (3, "b"), (5, "c"), (5, "d")]);
    }
}
