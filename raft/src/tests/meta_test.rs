//! The meta group with several replicas, and the nodes that follow it without one.

use std::collections::BTreeSet;

use callboard_machine::meta::{MetaCommand, MetaResponse};
use callboard_types::{GroupId, NodeId};

use super::cluster::{Cluster, P0, eventually, node};
use super::*;
use crate::{MetaAt, ProposeError, Storable};

const META: GroupId = GroupId::Meta;

fn register(name: &str) -> MetaCommand {
    let (namespace, app_id) = ("default".to_owned(), "zoo".to_owned());
    MetaCommand::RegisterTypes { namespace, app_id, types: vec![name.to_owned()] }
}

/// Proposes where the group is led.
async fn propose(cluster: &Cluster, command: MetaCommand) {
    loop {
        let leader = cluster.leader(META).await;
        match cluster.groups(leader).meta().propose(command.clone()).await {
            Ok(response) => return assert_eq!(response, MetaResponse::Done),
            Err(ProposeError::NotReady { .. } | ProposeError::Unknown) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// One step of a node that follows another, over the wire.
async fn follow(cluster: &Cluster, from: u64, to: u64) -> bool {
    let update = cluster.groups(from).meta_update(cluster.groups(to).meta_at(), Duration::ZERO).await;
    let update = Storable::decode(&update.encode()).unwrap();
    let before = cluster.groups(to).meta_at();
    cluster.groups(to).meta_feed(update).unwrap() > before
}

fn knows(cluster: &Cluster, number: u64, name: &str) -> bool {
    let state = cluster.groups(number).meta().state();
    state.types.contains_key(&("default".to_owned(), name.to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrapped_cluster_has_a_settled_row_for_every_group() {
    let cluster = Cluster::form(1, 4).await;
    let state = cluster.groups(1).meta().state();
    assert_eq!(state.placement_rows().count(), 5);
    for (group, row) in state.placement_rows() {
        assert_eq!((row.version, row.is_settled()), (1, true), "{group}");
        let placed = row.on(node(1)).unwrap();
        assert_eq!(placed.replica, cluster.replica(1, group), "{group}");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_replica_follows_by_entries_and_survives_a_restart_alone() {
    let mut cluster = Cluster::form(2, 1).await;
    let mut watch = cluster.groups(2).meta().watch();
    watch.mark_unchanged();
    propose(&cluster, register("cat")).await;
    assert!(follow(&cluster, 1, 2).await);
    assert!(watch.has_changed().unwrap() && knows(&cluster, 2, "cat"));
    assert!(!follow(&cluster, 1, 2).await);
    cluster.groups(2).flush().await.unwrap();
    propose(&cluster, register("dog")).await;
    assert!(follow(&cluster, 1, 2).await);
    // What no flush has reached is gone after a crash, and the rest is there although nobody else is.
    cluster.kill(1);
    cluster.kill(2);
    cluster.restart(2).await;
    assert!(!cluster.groups(2).is_empty());
    assert!(knows(&cluster, 2, "cat") && !knows(&cluster, 2, "dog"));
    let refused = cluster.groups(2).meta().propose(register("cow")).await;
    assert!(matches!(refused, Err(ProposeError::NotReady { group: META, leader: None })), "{refused:?}");
    cluster.restart(1).await;
    assert!(follow(&cluster, 1, 2).await && knows(&cluster, 2, "dog"));
    assert_eq!(cluster.groups(1).meta().state(), cluster.groups(2).meta().state());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_joining_node_takes_over_is_on_disk() {
    let mut cluster = Cluster::form(1, 1).await;
    cluster.join(2).await;
    // At once, whatever happens next.
    cluster.kill(2);
    cluster.restart(2).await;
    assert!(!cluster.groups(2).is_empty());
    let (first, joined) = (cluster.groups(1).meta().state(), cluster.groups(2).meta().state());
    assert_eq!((joined.cluster, &joined.settings), (first.cluster, &first.settings));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_for_long_is_sent_the_whole_state() {
    let mut cluster = Cluster::form(2, 1).await;
    propose(&cluster, register("cat")).await;
    // A source that has just started has no entries at hand.
    cluster.kill(1);
    cluster.restart(1).await;
    propose(&cluster, register("dog")).await;
    assert!(follow(&cluster, 1, 2).await);
    assert_eq!(cluster.groups(1).meta().state(), cluster.groups(2).meta().state());
    cluster.groups(2).flush().await.unwrap();
    cluster.kill(2);
    cluster.restart(2).await;
    assert!(knows(&cluster, 2, "dog"));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_meta_group_survives_the_node_that_formed_it() {
    let mut cluster = Cluster::form(4, 1).await;
    cluster.spread(META, [1, 2, 3]).await;
    let follower = (2..=3).find(|number| !cluster.status(*number, META).unwrap().is_leader()).unwrap();
    let refused = cluster.groups(follower).meta().propose(register("cat")).await;
    let leader: Option<NodeId> = Some(node(cluster.leader(META).await));
    assert!(matches!(refused, Err(ProposeError::NotReady { leader: told, .. }) if told == leader), "{refused:?}");
    propose(&cluster, register("cat")).await;
    for number in 2..=3 {
        eventually("every replica knows", || knows(&cluster, number, "cat").then_some(())).await;
    }
    cluster.kill(1);
    propose(&cluster, register("dog")).await;
    let source = cluster.leader(META).await;
    assert!(follow(&cluster, source, 4).await && knows(&cluster, 4, "dog"));
    // Followers serve followers: the fourth tells the first, which has its replica but not heard yet.
    cluster.restart(1).await;
    follow(&cluster, 4, 1).await;
    assert!(knows(&cluster, 1, "dog"));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_gives_its_meta_replica_up_keeps_what_it_knew() {
    let mut cluster = Cluster::form(2, 1).await;
    propose(&cluster, register("cat")).await;
    let heir = cluster.add_learner(META, 2).await;
    cluster.groups(1).change_voters(META, BTreeSet::from([heir])).await.ok();
    assert_eq!(cluster.leader(META).await, 2);
    cluster.change_voters(META, BTreeSet::from([heir])).await;
    propose(&cluster, register("dog")).await;
    let former = cluster.replica(1, META);
    eventually("the former leader knows", || knows(&cluster, 1, "dog").then_some(())).await;
    cluster.groups(2).remove_learner(META, former).await.unwrap();
    cluster.groups(1).drop_replica(META, former).await.unwrap();
    assert!(knows(&cluster, 1, "dog"));
    cluster.kill(1);
    cluster.restart(1).await;
    assert!(!cluster.groups(1).is_empty() && knows(&cluster, 1, "dog"));
    assert_eq!(cluster.status(1, META), None);
    // Its partition is here still, and it follows from here on.
    assert!(cluster.status(1, P0).is_some());
    propose(&cluster, register("cow")).await;
    assert!(follow(&cluster, 2, 1).await && knows(&cluster, 1, "cow"));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_fresh_meta_replica_never_forgets_the_table() {
    let mut cluster = Cluster::form(2, 1).await;
    propose(&cluster, register("cat")).await;
    assert!(follow(&cluster, 1, 2).await);
    let at = cluster.groups(2).meta_at();
    let mut watch = cluster.groups(2).meta().watch();
    watch.mark_unchanged();
    let replica = cluster.hold(META, 2).await;
    assert_eq!((cluster.groups(2).meta_at(), watch.has_changed().unwrap()), (at, false));
    // Without its group it starts with the copy.
    cluster.groups(2).flush().await.unwrap();
    cluster.kill(2);
    cluster.restart(2).await;
    assert!(knows(&cluster, 2, "cat"));
    cluster.admit(META, 2, replica).await;
    propose(&cluster, register("dog")).await;
    eventually("the replica tells", || knows(&cluster, 2, "dog").then_some(())).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_made_cluster_is_not_taken_for_one_that_was_joined() {
    let cluster = Cluster::form(2, 1).await;
    // The second node forms nothing, whatever the table lacks.
    assert!(!cluster.groups(2).is_empty());
    let empty = open(Memory::new().open()).await;
    assert!(empty.is_empty() && empty.meta_at() == MetaAt::default());
    empty.shutdown().await;
    cluster.shutdown().await;
}
