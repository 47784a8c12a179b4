//! Replicas come, get the vote, lose it and go.

use std::collections::BTreeSet;

use callboard_storage::{LogSlot, Table, keyspace};
use callboard_types::{GroupId, ReplicaId};

use super::cluster::{Cluster, P0, eventually, node};
use super::*;
use crate::{ChangeError, HoldError, ReplicaRole};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_voter_becomes_three_without_ending_the_tenure() {
    let mut cluster = Cluster::form(3, 1).await;
    let (leader, tenure) = cluster.claim().await;
    assert_eq!(leader, 1);
    cluster.spread(P0, [1, 2, 3]).await;
    let status = cluster.status(1, P0).unwrap();
    assert_eq!((status.role, status.voters.len(), status.learners()), (ReplicaRole::Leader, 1, vec![]));
    assert_eq!(status.voters[0].len(), 3);
    // The lease of a quorum takes the place of the sole voter's own.
    eventually("the lease is a quorum's", || tenure.check().ok()).await;
    assert!(cluster.status(1, P0).unwrap().heard.len() == 2);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_replica_waits_for_its_group_and_never_campaigns() {
    let mut cluster = Cluster::form(2, 1).await;
    let replica = cluster.hold(P0, 2).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let status = cluster.status(2, P0).unwrap();
    assert_eq!((status.role, status.term, status.leader, status.last_log), (ReplicaRole::Learner, 0, None, 0));
    cluster.groups(2).campaign(P0).await.unwrap();
    assert_eq!(cluster.status(2, P0).unwrap().term, 0);
    cluster.admit(P0, 2, replica).await;
    cluster.write(0..5).await;
    cluster.await_keys(2, 0..5).await;
    // A learner whose leader is gone does not campaign either.
    let term = cluster.status(2, P0).unwrap().term;
    cluster.kill(1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    cluster.groups(2).campaign(P0).await.unwrap();
    let status = cluster.status(2, P0).unwrap();
    assert_eq!((status.role, status.term), (ReplicaRole::Learner, term));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_of_a_purged_log_gets_the_state_and_then_the_vote() {
    let mut cluster = Cluster::form(3, 1).await;
    cluster.write(0..300).await;
    cluster.groups(1).flush().await.unwrap();
    let purged = || cluster.nodes[&node(1)].memory.open().log.entries(P0, 0..1, 1).unwrap().is_empty();
    eventually("the log is purged", || purged().then_some(())).await;
    for number in [2, 3] {
        cluster.add_learner(P0, number).await;
        cluster.await_keys(number, 0..300).await;
    }
    cluster.spread(P0, [1, 2, 3]).await;
    cluster.write(300..310).await;
    cluster.kill(1);
    let leader = cluster.leader(P0).await;
    cluster.await_keys(leader, 0..310).await;
    cluster.write(310..320).await;
    // What came as a snapshot survives a restart.
    (2..=3).for_each(|number| cluster.kill(number));
    for number in [2, 3] {
        cluster.restart(number).await;
    }
    cluster.write(320..330).await;
    for number in [2, 3] {
        cluster.await_keys(number, 0..330).await;
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_while_a_snapshot_is_on_its_way() {
    let mut cluster = Cluster::form(2, 1).await;
    let (_, tenure) = cluster.claim().await;
    let partition = cluster.partition(1);
    for key in 0..60 {
        let large = vec![key; 100 << 10];
        let write = command(tenure.epoch(), actor("kim"), vec![upsert(&format!("large-{key}"), large)]);
        partition.propose(write).await.unwrap();
    }
    cluster.groups(1).flush().await.unwrap();
    cluster.mesh.delay(node(1), node(2), Duration::from_millis(20));
    let writer = tokio::spawn(async move {
        for key in 0..200 {
            let write = command(tenure.epoch(), actor("tom"), vec![upsert(&format!("key-{key}"), "fish")]);
            partition.propose(write).await.unwrap();
        }
    });
    cluster.add_learner(P0, 2).await;
    writer.await.unwrap();
    cluster.await_keys(2, 0..200).await;
    let reader = cluster.partition(2).reader();
    assert!((0..60).all(|key| reader.state(&actor("kim"), &format!("large-{key}"), NOW).unwrap().is_some()));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_was_cut_off_leaves_nothing_and_comes_again() {
    let mut cluster = Cluster::form(2, 1).await;
    let (_, tenure) = cluster.claim().await;
    for key in 0..40 {
        let large = vec![key; 400 << 10];
        let write = command(tenure.epoch(), actor("tom"), vec![upsert(&format!("key-{key}"), large)]);
        cluster.partition(1).propose(write).await.unwrap();
    }
    cluster.groups(1).flush().await.unwrap();
    let replica = cluster.hold(P0, 2).await;
    cluster.mesh.delay(node(1), node(2), Duration::from_millis(20));
    cluster.groups(1).add_learner(P0, replica, node(2), String::new()).await.unwrap();
    let rows = || {
        let state = cluster.nodes[&node(2)].memory.open().state;
        keyspace::incarnations(&*state).unwrap().into_iter().filter(move |incarnation| {
            let range = keyspace::incarnation_range(*incarnation);
            !state.scan(Table::State, range, 1).unwrap().is_empty()
        })
    };
    let sent = |count: usize| {
        let mesh = cluster.mesh.clone();
        eventually("chunks are on their way", move || {
            (mesh.count(node(1), node(2), crate::Lane::Bulk).messages >= count).then_some(())
        })
    };
    sent(5).await;
    // An answer that is lost ends the transfer; the next one begins anew and ends the former's rows.
    cluster.mesh.swallow(node(1), node(2), 1);
    cluster.mesh.delay(node(1), node(2), Duration::ZERO);
    cluster.caught_up(P0, replica).await;
    cluster.await_keys(2, 0..40).await;
    eventually("one set of rows is left", || (rows().count() == 1).then_some(())).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_is_replaced_and_leaves_nothing_behind() {
    let mut cluster = Cluster::form(4, 1).await;
    cluster.spread(P0, [1, 2, 3]).await;
    cluster.write(0..20).await;
    let gone = cluster.replica(2, P0);
    if cluster.leader(P0).await == 2 {
        cluster.groups(2).transfer_leader(P0, cluster.replica(1, P0)).await.unwrap();
    }
    let fresh = cluster.add_learner(P0, 4).await;
    let voters = [1, 3].map(|number| cluster.replica(number, P0)).into_iter().chain([fresh]).collect();
    cluster.change_voters(P0, voters).await;
    let leader = cluster.leader(P0).await;
    assert_eq!(cluster.status(leader, P0).unwrap().learners(), [gone]);
    cluster.groups(leader).remove_learner(P0, gone).await.unwrap();
    cluster.groups(leader).remove_learner(P0, gone).await.unwrap();
    let held = cluster.groups(2).held();
    assert_eq!(held.borrow().len(), 1);
    cluster.groups(2).drop_replica(P0, gone).await.unwrap();
    cluster.groups(2).drop_replica(P0, gone).await.unwrap();
    assert_eq!((held.borrow().len(), cluster.status(2, P0)), (0, None));
    let stores = cluster.nodes[&node(2)].memory.open();
    assert_eq!(stores.log.groups().unwrap(), []);
    assert_eq!(keyspace::incarnations(&*stores.state).unwrap().len(), 1, "the copy of the meta state alone");
    cluster.write(20..30).await;
    cluster.await_keys(4, 0..30).await;
    // Neither an old table nor a restart brings it back.
    let again = cluster.groups(2).hold(P0, gone).await;
    assert!(matches!(again, Err(HoldError::Used { .. })), "{again:?}");
    cluster.kill(2);
    cluster.restart(2).await;
    assert_eq!(cluster.status(2, P0), None);
    for used in [gone, ReplicaId(gone.0 - 1)] {
        let again = cluster.groups(2).hold(P0, used).await;
        assert!(matches!(again, Err(HoldError::Used { .. })), "{again:?}");
    }
    cluster.add_learner(P0, 2).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_to_go_when_the_power_went_is_gone_after_it() {
    let mut cluster = Cluster::form(2, 1).await;
    cluster.write(0..20).await;
    let replica = cluster.add_learner(P0, 2).await;
    // The mark is on disk; what follows is not.
    let state = cluster.nodes[&node(2)].memory.open().state;
    let pointer = keyspace::pointer(P0);
    let record = crate::convert::ReplicaRecord {
        replica: replica.0,
        incarnation: cluster.partition(2).replica().state.incarnation(),
        dropped: true,
    };
    let mut batch = callboard_storage::StateBatch::default();
    batch.put(Table::System, pointer, crate::convert::Storable::encode(&record));
    state.write(batch).unwrap();
    state.flush().unwrap();
    cluster.kill(2);
    assert!(cluster.nodes[&node(2)].memory.open().log.slot(P0, LogSlot::Vote).unwrap().is_some());
    cluster.restart(2).await;
    assert_eq!(cluster.status(2, P0), None);
    let stores = cluster.nodes[&node(2)].memory.open();
    assert_eq!(stores.log.groups().unwrap(), []);
    assert_eq!(keyspace::incarnations(&*stores.state).unwrap().len(), 1);
    let again = cluster.groups(2).hold(P0, replica).await;
    assert!(matches!(again, Err(HoldError::Used { .. })), "{again:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_holds_one_replica_of_a_group() {
    let mut cluster = Cluster::form(2, 1).await;
    let held = cluster.hold(P0, 2).await;
    cluster.groups(2).hold(P0, held).await.unwrap();
    let second = cluster.groups(2).hold(P0, ReplicaId(held.0 + 1)).await;
    assert!(matches!(second, Err(HoldError::Taken { held: taken, .. }) if taken == held), "{second:?}");
    // One that is not here needs no dropping.
    cluster.groups(2).drop_replica(P0, ReplicaId(held.0 + 1)).await.unwrap();
    cluster.groups(2).drop_replica(GroupId::Meta, ReplicaId(7)).await.unwrap();
    assert_eq!(cluster.replica(2, P0), held);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_its_leader_did_not_finish_is_finished_by_the_next() {
    let mut cluster = Cluster::form(4, 1).await;
    cluster.spread(P0, [1, 2, 3]).await;
    cluster.write(0..10).await;
    let leader = cluster.leader(P0).await;
    let fresh = cluster.add_learner(P0, 4).await;
    let dropped = (1..=3).rev().find(|number| *number != leader).unwrap();
    let staying: Vec<u64> = (1..=3).filter(|number| *number != dropped).collect();
    let voters: BTreeSet<_> = staying.iter().map(|number| cluster.replica(*number, P0)).chain([fresh]).collect();
    // The leader proposes, and is heard by nobody.
    for other in 1..=4 {
        cluster.mesh.cut(node(leader), node(other));
    }
    let change = cluster.groups(leader).change_voters(P0, voters.clone()).await;
    assert!(matches!(change, Err(ChangeError::TimedOut(_) | ChangeError::NotLeader { .. })), "{change:?}");
    cluster.mesh.heal();
    cluster.change_voters(P0, voters.clone()).await;
    let leader = cluster.leader(P0).await;
    let status = cluster.status(leader, P0).unwrap();
    assert_eq!((status.voters, status.agreed), (vec![voters.into_iter().collect()], true));
    cluster.write(10..20).await;
    cluster.await_keys(4, 0..20).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused() {
    let mut cluster = Cluster::form(3, 1).await;
    cluster.spread(P0, [1, 2, 3]).await;
    let leader = cluster.leader(P0).await;
    let groups = cluster.groups(leader);
    let (own, stranger) = (cluster.replica(leader, P0), ReplicaId(77));
    let refused = |outcome: Result<(), ChangeError>| matches!(outcome, Err(ChangeError::Refused { .. }));
    assert!(refused(groups.change_voters(P0, BTreeSet::new()).await));
    assert!(refused(groups.change_voters(P0, BTreeSet::from([own, stranger])).await));
    assert!(refused(groups.remove_learner(P0, own).await));
    let follower = (1..=3).find(|number| *number != leader).unwrap();
    assert!(refused(groups.remove_learner(P0, cluster.replica(follower, P0)).await));
    assert!(refused(groups.transfer_leader(P0, stranger).await));
    // What is so already is done, and a follower says who leads.
    groups.remove_learner(P0, stranger).await.unwrap();
    groups.transfer_leader(P0, own).await.unwrap();
    let replica = cluster.replica(follower, P0);
    groups.add_learner(P0, replica, node(follower), String::new()).await.unwrap();
    let elsewhere = cluster.groups(follower).remove_learner(P0, stranger).await;
    assert_eq!(elsewhere, Err(ChangeError::NotLeader { group: P0, leader: Some(node(leader)) }));
    let nowhere = groups.transfer_leader(GroupId::Partition(PartitionId(9)), own).await;
    assert!(matches!(nowhere, Err(ChangeError::NotLeader { leader: None, .. })), "{nowhere:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_after_a_snapshot_stays_until_its_receiver_has_followed() {
    let mut cluster = Cluster::form(2, 1).await;
    cluster.write(0..50).await;
    cluster.groups(1).flush().await.unwrap();
    let purged = || cluster.nodes[&node(1)].memory.open().log.slot(P0, LogSlot::Purged).unwrap();
    eventually("the log is purged", || purged().is_some().then_some(())).await;
    let learner = cluster.hold(P0, 2).await;
    cluster.mesh.stall(node(1), node(2), crate::Lane::Bulk);
    cluster.groups(1).add_learner(P0, learner, node(2), String::new()).await.unwrap();
    let pins = cluster.partition(1).replica().pins.clone();
    let at = eventually("the snapshot is on its way", || pins.lowest(std::time::Instant::now())).await;
    cluster.write(50..80).await;
    cluster.groups(1).flush().await.unwrap();
    // What the flush has asked for is done before the next two questions are answered.
    let replica = cluster.partition(1).replica().clone();
    for _ in 0..2 {
        replica.raft.with_raft_state(|_| ()).await.unwrap();
    }
    assert_eq!(replica.log.purged().map(|purged| purged.index), Some(at));
    cluster.mesh.heal();
    cluster.caught_up(P0, learner).await;
    cluster.await_keys(2, 0..80).await;
    cluster.shutdown().await;
}
