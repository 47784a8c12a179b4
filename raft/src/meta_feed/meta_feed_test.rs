//! What a follower is told, and what it takes.

use callboard_machine::meta::{NodeRecord, Role, Settings};
use callboard_types::{ClusterId, NodeId, Timestamp};

use super::*;

fn bootstrap() -> Arc<MetaCommand> {
    let settings = Settings {
        name: "default".to_owned(),
        partitions: 1,
        replicas: 1,
        hash_version: 1,
        ring_version: 1,
        host_lease_ms: 600,
        max_clock_offset_ms: 1_000,
        ephemeral: false,
    };
    Arc::new(MetaCommand::Bootstrap { cluster: ClusterId(9), settings, now: Timestamp(0) })
}

fn put(node: u64, name: &str) -> Arc<MetaCommand> {
    let (name, zone, address) = (name.to_owned(), String::new(), String::new());
    let record = NodeRecord { name, role: Role::Storage, zone, incarnation: 1, address, leaving: false };
    Arc::new(MetaCommand::PutNode { node: NodeId(node), record })
}

fn raise(generation: u64) -> Arc<MetaCommand> {
    Arc::new(MetaCommand::RaiseGeneration { generation })
}

/// A node with a replica of the group: what it applies goes to its board.
#[derive(Default)]
struct Source {
    board: Board,
    state: MetaState,
}

impl Source {
    fn apply(&mut self, upto: u64, commands: &[(u64, Arc<MetaCommand>)]) {
        for (_, command) in commands {
            self.state.apply(command);
        }
        self.board.applied(upto, commands.to_vec(), || Arc::new(self.state.clone()));
    }

    fn update(&self, after: MetaAt) -> Option<MetaUpdate> {
        self.board.known.lock().update(after)
    }
}

fn source() -> Source {
    let mut source = Source::default();
    source.apply(2, &[(1, bootstrap()), (2, put(1, "a"))]);
    source
}

fn at(generation: u64, index: u64) -> MetaAt {
    MetaAt { generation, index }
}

#[test]
fn a_follower_comes_by_entries_to_where_its_source_is() {
    let mut source = source();
    let follower = Board::default();
    let update = source.update(follower.at()).unwrap();
    assert!(matches!(&update, MetaUpdate::Entries { entries, upto: 2, .. } if entries.len() == 2), "{update:?}");
    let fed = follower.feed(update.clone()).unwrap().unwrap();
    assert_eq!((fed.before, fed.at), (at(0, 0), at(0, 2)));
    assert_eq!(*follower.state(), source.state);
    // Told again, it is known already; and there is nothing more to tell.
    assert!(follower.feed(update).unwrap().is_none());
    assert_eq!(source.update(follower.at()), None);
    // An entry without a command moves the position alone.
    let watch = follower.watch();
    source.apply(5, &[]);
    follower.feed(source.update(follower.at()).unwrap()).unwrap();
    assert_eq!((follower.at(), watch.has_changed().unwrap()), (at(0, 5), false));
    source.apply(6, &[(6, put(2, "b"))]);
    follower.feed(source.update(follower.at()).unwrap()).unwrap();
    assert_eq!((*follower.state() == source.state, watch.has_changed().unwrap()), (true, true));
    // And passes on what it was told.
    let next = Board::default();
    next.feed(follower.known.lock().update(next.at()).unwrap()).unwrap();
    assert_eq!((next.at(), &*next.state()), (at(0, 6), &source.state));
}

#[test]
fn a_follower_that_is_far_behind_is_sent_the_whole_state() {
    let mut source = source();
    for index in 3..=(TAIL_COMMANDS as u64 + 10) {
        source.apply(index, &[(index, put(1, &format!("name-{index}")))]);
    }
    let follower = Board::default();
    let update = source.update(at(0, 2)).unwrap();
    assert!(matches!(update, MetaUpdate::Snapshot { .. }));
    let fed = follower.feed(update).unwrap().unwrap();
    assert!(fed.dirty.is_none());
    assert_eq!((follower.at(), &*follower.state()), (source.board.at(), &source.state));
    // Just within reach, it is sent entries.
    let reach = source.board.known.lock().from;
    assert!(matches!(source.update(at(0, reach)), Some(MetaUpdate::Entries { .. })));
    assert!(matches!(source.update(at(0, reach - 1)), Some(MetaUpdate::Snapshot { .. })));
}

#[test]
fn what_does_not_follow_on_is_not_taken() {
    let follower = Board::default();
    let gap = MetaUpdate::Entries { after: 4, entries: vec![(5, bootstrap())], upto: 5 };
    assert!(matches!(follower.feed(gap), Err(FeedError::Gap { has: 0, needs: 4 })));
    assert_eq!((follower.at(), &*follower.state()), (at(0, 0), &MetaState::default()));
    // One that overlaps is taken from where it is new.
    follower.feed(source().update(at(0, 0)).unwrap()).unwrap();
    let overlap = MetaUpdate::Entries { after: 1, entries: vec![(2, put(7, "x")), (3, put(3, "c"))], upto: 3 };
    follower.feed(overlap).unwrap();
    assert_eq!(follower.state().nodes.keys().map(|node| node.0).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_recovered_cluster_replaces_what_was_seen_before_and_nothing_of_before_comes_back() {
    let mut source = source();
    let follower = Board::default();
    follower.feed(source.update(at(0, 0)).unwrap()).unwrap();
    // The follower has seen entries that the recovery took back.
    let lost = MetaUpdate::Entries { after: 2, entries: vec![(3, put(9, "lost")), (8, put(8, "lost"))], upto: 8 };
    follower.feed(lost).unwrap();
    source.apply(4, &[(4, raise(1))]);
    let update = source.update(follower.at()).unwrap();
    assert!(matches!(update, MetaUpdate::Snapshot { index: 4, .. }));
    follower.feed(update).unwrap();
    assert_eq!((follower.at(), &*follower.state()), (at(1, 4), &source.state));
    // A node that missed it all has nothing to tell, and its state is refused.
    let stale = Board::default();
    stale.load(99, Arc::new(self::source().state));
    assert_eq!(stale.known.lock().update(follower.at()), None);
    let snapshot = stale.known.lock().update(at(0, 0)).unwrap();
    assert!(matches!(follower.feed(snapshot), Err(FeedError::Generation { given: 0, seen: 1 })));
    assert_eq!(*follower.state(), source.state);
}

#[test]
fn a_replica_behind_the_board_changes_nothing_until_it_has_caught_up() {
    let mut ahead = source();
    ahead.apply(6, &[(5, put(2, "b")), (6, put(3, "c"))]);
    let board = Board::default();
    board.feed(ahead.update(at(0, 0)).unwrap()).unwrap();
    // A replica that was made here replays the log from its beginning.
    let mut replica = Source { board, state: MetaState::default() };
    replica.apply(2, &[(1, bootstrap()), (2, put(1, "a"))]);
    assert_eq!((replica.board.at(), &*replica.board.state()), (at(0, 6), &ahead.state));
    replica.apply(7, &[(5, put(2, "b")), (6, put(3, "c")), (7, put(4, "d"))]);
    assert_eq!(replica.board.at(), at(0, 7));
    assert_eq!(*replica.board.state(), replica.state);
    // Its tail has each command once.
    let Some(MetaUpdate::Entries { entries, .. }) = replica.update(at(0, 0)) else { panic!("entries") };
    assert_eq!(entries.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2, 5, 6, 7]);
}

#[test]
fn what_is_kept_for_followers_is_bounded_in_bytes_too() {
    let mut source = source();
    let types = |n: u64| (0..40).map(|of| format!("{n}-{of}-{}", "t".repeat(900))).collect();
    for index in 3..100 {
        let (namespace, app_id) = ("n".to_owned(), "a".to_owned());
        let register = MetaCommand::RegisterTypes { namespace, app_id, types: types(index) };
        source.apply(index, &[(index, Arc::new(register))]);
    }
    let known = source.board.known.lock();
    assert!(known.bytes <= TAIL_BYTES && known.tail.len() < 40 && !known.tail.is_empty());
    assert_eq!(known.bytes, known.tail.iter().map(|(_, _, bytes)| bytes).sum::<usize>());
}

#[tokio::test]
async fn a_follower_is_told_when_there_is_something_and_nothing_when_its_time_is_over() {
    let here = at(0, 2);
    let told = Arc::new(Board::default());
    told.load(here.index, Arc::new(source().state));
    assert!(told.update(here, Duration::from_millis(20)).await.is_empty());
    let waiting = {
        let told = told.clone();
        tokio::spawn(async move { told.update(here, Duration::from_secs(60)).await })
    };
    tokio::task::yield_now().await;
    told.feed(MetaUpdate::Entries { after: here.index, entries: vec![(3, put(2, "b"))], upto: 3 }).unwrap();
    let update = waiting.await.unwrap();
    assert!(matches!(&update, MetaUpdate::Entries { after: 2, upto: 3, entries } if entries.len() == 1), "{update:?}");
}
