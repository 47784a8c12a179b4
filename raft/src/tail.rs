//! The end of one group's log in memory.
//!
//! Decides which entries a reader finds without the disk: everything not yet synced, always, because an appended entry
//! must be readable at once; and synced ones as far as the group's share of the node's byte budget allows, because the
//! state machine and followers read what was just written.
//!
//! Invariants: the entries are contiguous and end at the last index of the log; an unsynced entry is never evicted; a
//! truncated entry is never returned, whatever is still on disk.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::type_config::{Entry, LogId, Vote};

/// Bytes of synced entries that all tails of a node may hold, shared evenly.
pub struct TailBudget {
    bytes: usize,
    groups: AtomicUsize,
}

impl TailBudget {
    pub fn new(bytes: usize) -> Self {
        Self { bytes, groups: AtomicUsize::new(0) }
    }

    fn share(&self) -> usize {
        self.bytes / self.groups.load(Ordering::Relaxed).max(1)
    }
}

/// What a read of `range` finds in memory.
#[derive(Debug, PartialEq)]
pub struct Found {
    /// Entries that are only on disk; they come before `entries`. Empty: none.
    pub on_disk: Range<u64>,
    pub entries: Vec<Entry>,
    /// Value of [`Tail::generation`] at the read.
    pub generation: u64,
}

pub struct Tail {
    budget: Arc<TailBudget>,
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    /// Every entry below is on disk.
    synced: u64,
    /// Rises with each truncation: completions and reads of before do not speak of what came after.
    generation: u64,
    /// Lowest index that the log may hold.
    first: u64,
    last: Option<LogId>,
    purged: Option<LogId>,
    pub vote: Option<Vote>,
    /// Known to be committed; `saved_committed` is what the disk says.
    pub committed: Option<LogId>,
    pub saved_committed: Option<LogId>,
}

impl Tail {
    /// Of a log whose entries, if it has any, begin at `first`.
    pub fn new(budget: Arc<TailBudget>, first: u64, last: Option<LogId>, purged: Option<LogId>) -> Self {
        budget.groups.fetch_add(1, Ordering::Relaxed);
        Self {
            budget,
            entries: VecDeque::new(),
            bytes: 0,
            synced: last.map_or(0, |id| id.index + 1),
            generation: 0,
            first: first.max(next(purged)),
            last: last.max(purged),
            purged,
            vote: None,
            committed: None,
            saved_committed: None,
        }
    }

    pub fn last(&self) -> Option<LogId> {
        self.last
    }

    pub fn purged(&self) -> Option<LogId> {
        self.purged
    }

    pub fn first(&self) -> u64 {
        self.first
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn first_in_memory(&self) -> u64 {
        self.entries.front().map_or_else(|| next(self.last), |(entry, _)| entry.log_id.index)
    }

    /// Appends an entry of `bytes` encoded bytes. A gap cannot be: it would be read as the end of the log.
    pub fn push(&mut self, entry: Entry, bytes: usize) {
        let index = entry.log_id.index;
        if self.first >= next(self.last) {
            // An empty log begins where its first entry is.
            self.first = index;
            self.synced = index;
        } else {
            assert_eq!(index, next(self.last), "the log has no gaps");
        }
        self.last = Some(entry.log_id);
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
    }

    /// The disk holds everything below `upto`, if nothing was truncated since `generation`.
    pub fn synced(&mut self, upto: u64, generation: u64) {
        if generation == self.generation {
            self.synced = self.synced.max(upto);
            self.evict();
        }
    }

    fn evict(&mut self) {
        let share = self.budget.share();
        while self.bytes > share && self.entries.front().is_some_and(|(entry, _)| entry.log_id.index < self.synced) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some((_, bytes)) = self.entries.pop_front() {
            self.bytes -= bytes;
        }
    }

    /// Forgets every entry above `keep`.
    pub fn truncate(&mut self, keep: Option<LogId>) {
        self.generation += 1;
        let end = next(keep);
        while self.entries.back().is_some_and(|(entry, _)| entry.log_id.index >= end) {
            if let Some((_, bytes)) = self.entries.pop_back() {
                self.bytes -= bytes;
            }
        }
        self.synced = self.synced.min(end);
        if end < next(self.last) {
            self.last = keep.max(self.purged);
        }
    }

    /// Forgets every entry up to `upto`.
    pub fn purge(&mut self, upto: LogId) {
        while self.entries.front().is_some_and(|(entry, _)| entry.log_id.index <= upto.index) {
            self.pop_front();
        }
        self.purged = self.purged.max(Some(upto));
        self.first = self.first.max(next(self.purged));
        if self.last.is_none_or(|last| last.index < upto.index) {
            self.last = Some(upto);
            self.synced = upto.index + 1;
        }
    }

    /// What is known of `range`, which is cut to what the log holds.
    pub fn find(&self, range: Range<u64>) -> Found {
        let start = range.start.max(self.first);
        let end = range.end.min(next(self.last));
        let memory = self.first_in_memory();
        let on_disk = start..end.min(memory);
        let skip = usize::try_from(start.saturating_sub(memory)).unwrap_or(usize::MAX);
        let wanted = usize::try_from(end.saturating_sub(start.max(memory))).unwrap_or(0);
        let entries = self.entries.iter().skip(skip).take(wanted).map(|(entry, _)| entry.clone()).collect();
        Found { on_disk, entries, generation: self.generation }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.budget.groups.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Index after an optional log id.
pub fn next(id: Option<LogId>) -> u64 {
    id.map_or(0, |id| id.index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::type_config::{Payload, log_id};

    fn entry(term: u64, index: u64) -> Entry {
        Entry { log_id: log_id(term, index), payload: Payload::Blank }
    }

    fn tail(budget: usize) -> Tail {
        Tail::new(Arc::new(TailBudget::new(budget)), 0, None, None)
    }

    fn indexes(found: &Found) -> Vec<u64> {
        found.entries.iter().map(|entry| entry.log_id.index).collect()
    }

    #[test]
    fn an_appended_entry_is_found_before_it_is_synced() {
        let mut tail = tail(0);
        (0..3).for_each(|index| tail.push(entry(1, index), 10));
        let found = tail.find(1..9);
        assert_eq!((found.on_disk.is_empty(), indexes(&found)), (true, vec![1, 2]));
    }

    #[test]
    fn synced_entries_beyond_the_budget_are_left_to_the_disk() {
        let mut tail = tail(20);
        (0..4).for_each(|index| tail.push(entry(1, index), 10));
        assert_eq!(indexes(&tail.find(0..9)), [0, 1, 2, 3]);
        tail.synced(3, 0);
        let found = tail.find(0..9);
        assert_eq!((found.on_disk.clone(), indexes(&found)), (0..2, vec![2, 3]));
    }

    #[test]
    fn an_unsynced_entry_is_never_evicted() {
        let mut tail = tail(0);
        (0..3).for_each(|index| tail.push(entry(1, index), 10));
        tail.synced(1, 0);
        assert_eq!(indexes(&tail.find(0..9)), [1, 2]);
    }

    #[test]
    fn a_completion_of_before_a_truncation_does_not_speak_of_what_came_after() {
        let mut tail = tail(0);
        (0..4).for_each(|index| tail.push(entry(1, index), 10));
        let before = tail.generation();
        tail.truncate(Some(log_id(1, 1)));
        (2..4).for_each(|index| tail.push(entry(2, index), 10));
        tail.synced(4, before);
        assert_eq!(indexes(&tail.find(0..9)), [0, 1, 2, 3]);
        assert_eq!(tail.last(), Some(log_id(2, 3)));
    }

    #[test]
    fn a_truncated_entry_is_not_looked_for_on_disk() {
        let mut tail = tail(0);
        (0..4).for_each(|index| tail.push(entry(1, index), 10));
        tail.synced(4, 0);
        tail.truncate(Some(log_id(1, 1)));
        let found = tail.find(0..9);
        assert_eq!((found.on_disk, found.entries), (0..2, vec![]));
    }

    #[test]
    fn a_purge_beyond_the_end_makes_the_log_begin_there() {
        let mut tail = tail(100);
        tail.push(entry(1, 0), 10);
        tail.purge(log_id(3, 7));
        assert_eq!((tail.last(), tail.purged()), (Some(log_id(3, 7)), Some(log_id(3, 7))));
        tail.push(entry(3, 8), 10);
        assert_eq!(indexes(&tail.find(0..99)), [8]);
    }
}
