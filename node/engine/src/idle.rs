//! Which activation becomes idle next.
//!
//! A deadline moves with every turn, and there may be a million activations; moving an entry of an ordered set on every
//! turn would be most of a turn's cost. So an entry stays where it is while turns come and go, and is looked at only
//! when it comes up: it is a lower bound of the true deadline, and is put back at the true one. An activation that is
//! used without pause costs one look per idle timeout, whatever the number of its turns.
//!
//! Invariants: at most one entry per slot; an entry is never later than the last deadline told for its slot, so
//! nothing is found idle late. "Never" ([`Instant::MAX`]) has no entry.

use std::collections::BTreeSet;

use crate::Instant;

/// Lower bounds of the idle deadlines of a table's slots.
#[derive(Debug, Default)]
pub struct IdleQueue {
    order: BTreeSet<(Instant, usize)>,
    /// The entry of each slot, by slot number: these are small and dense.
    of_slot: Vec<Option<Instant>>,
}

impl IdleQueue {
    /// The actor of `slot` is at rest, and idle at `deadline`.
    pub fn rest(&mut self, slot: usize, deadline: Instant) {
        if self.of_slot.len() <= slot {
            self.of_slot.resize(slot + 1, None);
        }
        match self.of_slot[slot] {
            Some(entry) if entry <= deadline => {}
            Some(_) | None => {
                self.remove(slot);
                if deadline < Instant::MAX {
                    self.of_slot[slot] = Some(deadline);
                    self.order.insert((deadline, slot));
                }
            }
        }
    }

    /// The activation of `slot` is over.
    pub fn remove(&mut self, slot: usize) {
        if let Some(entry) = self.of_slot.get_mut(slot).and_then(Option::take) {
            assert!(self.order.remove(&(entry, slot)), "an entry of the idle queue stands in both its parts");
        }
    }

    /// Takes a slot whose entry has come up. The caller looks at its true deadline, and tells `rest` if that is later.
    pub fn pop(&mut self, now: Instant) -> Option<usize> {
        let &(entry, slot) = self.order.first()?;
        if entry > now {
            return None;
        }
        self.remove(slot);
        Some(slot)
    }

    /// When to look next: never later than the earliest deadline, sometimes earlier.
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|&(entry, _)| entry)
    }

    pub fn clear(&mut self) {
        self.order.clear();
        self.of_slot.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_come_up_in_the_order_of_their_deadlines_and_not_before() {
        let mut idle = IdleQueue::default();
        idle.rest(3, Instant(30));
        idle.rest(1, Instant(10));
        idle.rest(2, Instant(20));
        assert_eq!(idle.next(), Some(Instant(10)));
        assert_eq!(idle.pop(Instant(9)), None);
        assert_eq!(idle.pop(Instant(20)), Some(1));
        assert_eq!(idle.pop(Instant(20)), Some(2));
        assert_eq!(idle.pop(Instant(20)), None);
        assert_eq!(idle.next(), Some(Instant(30)));
    }

    #[test]
    fn a_later_deadline_leaves_the_entry_and_an_earlier_one_moves_it() {
        let mut idle = IdleQueue::default();
        idle.rest(0, Instant(10));
        idle.rest(0, Instant(50));
        assert_eq!(idle.next(), Some(Instant(10)));
        idle.rest(0, Instant(5));
        assert_eq!(idle.pop(Instant(5)), Some(0));
        assert_eq!(idle.next(), None);
    }

    #[test]
    fn what_is_removed_or_never_idle_does_not_come_up() {
        let mut idle = IdleQueue::default();
        idle.rest(0, Instant(10));
        idle.rest(1, Instant::MAX);
        idle.remove(0);
        idle.remove(7);
        assert_eq!(idle.next(), None);
        assert_eq!(idle.pop(Instant::MAX), None);
    }
}
