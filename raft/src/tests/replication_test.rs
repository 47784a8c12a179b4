//! Several replicas of one partition: they agree, they survive, and they never answer for what they have forgotten.

use callboard_machine::partition::Response;
use callboard_proto::raft::message::Body;
use openraft::raft::VoteRequest;

use super::cluster::{Cluster, P0, eventually, node};
use super::*;
use crate::convert::peer::{Told, encode_message, vote_out};
use crate::type_config::{LeaderId, Vote, log_id};
use crate::{Lane, ProposeError, ReceiveError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_apply_what_one_of_them_accepts() {
    let cluster = Cluster::of_voters(3).await;
    let status = cluster.status(cluster.leader(P0).await, P0).unwrap();
    assert_eq!((status.voters.len(), status.voters[0].len(), status.agreed), (1, 3, true));
    cluster.write(0..50).await;
    for number in 1..=3 {
        cluster.await_keys(number, 0..50).await;
    }
    let epochs: Vec<_> = (1..=3).map(|number| cluster.status(number, P0).unwrap().leader).collect();
    assert!(epochs.iter().all(|leader| leader == &epochs[0] && leader.is_some()), "{epochs:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_within_the_bounds_and_no_acknowledged_write_is_lost() {
    let mut cluster = Cluster::of_voters(3).await;
    let killed = cluster.write(0..50).await;
    let began = std::time::Instant::now();
    cluster.kill(killed);
    let rest: Vec<u64> = cluster.numbers().into_iter().filter(|number| *number != killed).collect();
    let next = cluster.leader_among(P0, &rest).await;
    // The lease, the election timeout, a split vote, and a machine that does other things.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_ne!(next, killed);
    cluster.write(50..100).await;
    for number in rest {
        cluster.await_keys(number, 0..100).await;
    }
    // The one that was killed comes back with its data and catches up.
    cluster.restart(killed).await;
    cluster.await_keys(killed, 0..100).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_commits_nothing() {
    let cluster = Cluster::of_voters(3).await;
    let (leader, tenure) = cluster.claim().await;
    cluster.mesh.isolate(node(leader), (1..=3).map(node));
    let write = command(tenure.epoch(), actor("tom"), vec![upsert("key-0", "fish")]);
    let proposal = {
        let partition = cluster.partition(leader);
        tokio::spawn(async move { partition.propose(write).await })
    };
    let rest: Vec<u64> = (1..=3).filter(|number| *number != leader).collect();
    cluster.leader_among(P0, &rest).await;
    assert_eq!(cluster.has(leader, 0..1), 0);
    cluster.write(1..10).await;
    cluster.mesh.heal();
    // Its entry is gone, and its proposer is told that it does not know.
    let outcome = proposal.await.unwrap();
    assert!(matches!(outcome, Err(ProposeError::Unknown | ProposeError::NotReady { .. })), "{outcome:?}");
    cluster.await_keys(leader, 1..10).await;
    assert_eq!((1..=3).map(|number| cluster.has(number, 0..1)).sum::<usize>(), 0);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_at_once_may_lose_their_power() {
    let mut cluster = Cluster::of_voters(3).await;
    cluster.write(0..50).await;
    (1..=3).for_each(|number| cluster.kill(number));
    for number in 1..=3 {
        cluster.restart(number).await;
    }
    cluster.write(50..60).await;
    for number in 1..=3 {
        cluster.await_keys(number, 0..60).await;
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_neither_votes_nor_answers_under_its_old_id() {
    let mut cluster = Cluster::of_voters(3).await;
    let leader = cluster.write(0..10).await;
    let wiped = (1..=3).find(|number| *number != leader).unwrap();
    let old = cluster.replica(wiped, P0);
    cluster.kill(wiped);
    cluster.restart_wiped(wiped).await;
    // With the third one gone there is no quorum: the wiped one must not make it up.
    let third = (1..=3).find(|number| ![leader, wiped].contains(number)).unwrap();
    cluster.mesh.isolate(node(third), (1..=3).map(node));
    let partition = cluster.partition(leader);
    let tenure = partition.claim(9, NOW, Duration::from_secs(1));
    let claimed = tokio::time::timeout(Duration::from_secs(3), tenure).await;
    assert!(!matches!(claimed, Ok(Ok(_))), "two of three were claimed by one");
    assert_eq!(cluster.status(wiped, P0), None);
    cluster.mesh.heal();
    // It comes back as somebody else, and takes the place of what it was.
    let fresh = cluster.add_learner(P0, wiped).await;
    assert_ne!(fresh, old);
    let voters = [leader, third].map(|number| cluster.replica(number, P0)).into_iter().chain([fresh]);
    cluster.change_voters(P0, voters.collect()).await;
    let leader = cluster.leader(P0).await;
    cluster.groups(leader).remove_learner(P0, old).await.unwrap();
    assert!(!cluster.status(leader, P0).unwrap().members.contains_key(&old));
    cluster.await_keys(wiped, 0..10).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_do_not_hold_up_replication() {
    let cluster = Cluster::of_voters(3).await;
    let leader = cluster.write(0..10).await;
    for other in (1..=3).filter(|number| *number != leader) {
        cluster.mesh.swallow(node(leader), node(other), 5);
    }
    let (leader, tenure) = cluster.claim().await;
    let write = command(tenure.epoch(), actor("tom"), vec![upsert("key-10", "fish")]);
    assert_eq!(cluster.partition(leader).propose(write).await.unwrap(), Response::Done);
    for number in 1..=3 {
        cluster.await_keys(number, 0..11).await;
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_hears_but_is_not_heard_does_not_disturb_the_others() {
    let cluster = Cluster::of_voters(3).await;
    let (leader, tenure) = cluster.claim().await;
    let deaf = (1..=3).find(|number| *number != leader).unwrap();
    let term = cluster.status(leader, P0).unwrap().term;
    // It misses every heartbeat, and may ask for votes as it likes.
    cluster.mesh.cut(node(leader), node(deaf));
    tokio::time::sleep(Duration::from_secs(3)).await;
    tenure.check().unwrap();
    assert_eq!(cluster.status(leader, P0).unwrap().term, term);
    let write = command(tenure.epoch(), actor("tom"), vec![upsert("key-0", "fish")]);
    assert_eq!(cluster.partition(leader).propose(write).await.unwrap(), Response::Done);
    cluster.mesh.heal();
    cluster.await_keys(deaf, 0..1).await;
    tenure.check().unwrap();
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_entries_go_by_the_other_lane_and_in_bounded_messages() {
    let mut cluster = Cluster::form(2, 1).await;
    let (_, tenure) = cluster.claim().await;
    for key in 0..12 {
        let large = vec![key; 700 << 10];
        let write = command(tenure.epoch(), actor("tom"), vec![upsert(&format!("key-{key}"), large)]);
        assert_eq!(cluster.partition(1).propose(write).await.unwrap(), Response::Done);
    }
    cluster.add_learner(P0, 2).await;
    cluster.await_keys(2, 0..12).await;
    let (small, large) =
        (cluster.mesh.count(node(1), node(2), Lane::Raft), cluster.mesh.count(node(1), node(2), Lane::Bulk));
    assert!(small.largest <= 257 << 10, "{small:?}");
    assert!(large.largest <= (2 << 20) + 1_024 && large.messages >= 4, "{large:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_larger_than_a_message_still_arrives() {
    let mut cluster = Cluster::form(2, 1).await;
    let (_, tenure) = cluster.claim().await;
    let write = command(tenure.epoch(), actor("tom"), vec![upsert("key-0", vec![7; 5 << 20])]);
    assert_eq!(cluster.partition(1).propose(write).await.unwrap(), Response::Done);
    cluster.add_learner(P0, 2).await;
    cluster.await_keys(2, 0..1).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_link_slows_nobody_but_its_end() {
    let cluster = Cluster::of_voters(3).await;
    let (leader, tenure) = cluster.claim().await;
    let slow = (1..=3).find(|number| *number != leader).unwrap();
    cluster.mesh.delay(node(leader), node(slow), Duration::from_millis(40));
    for key in 0..20 {
        let write = command(tenure.epoch(), actor("tom"), vec![upsert(&format!("key-{key}"), "fish")]);
        assert_eq!(cluster.partition(leader).propose(write).await.unwrap(), Response::Done);
    }
    tenure.check().unwrap();
    eventually("the slow one has it too", || (cluster.has(slow, 0..20) == 20).then_some(())).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_no_message_that_is_meant_for_another() {
    let cluster = Cluster::of_voters(3).await;
    let (leader, _) = cluster.claim().await;
    let follower = (1..=3).find(|number| *number != leader).unwrap();
    let own = cluster.replica(follower, P0).0;
    let vote = Vote { leader_id: LeaderId { term: 99, voted_for: 1 }, committed: false };
    let ask = |to| encode_message(P0, to, Body::Vote(vote_out(&VoteRequest::new(vote, Some(log_id(99, 99))))));
    let groups = cluster.groups(follower);
    let refused = groups.receive(ask(own + 1)).await;
    assert!(matches!(refused, Err(ReceiveError::NotHere { group: P0, .. })), "{refused:?}");
    assert!(cluster.status(follower, P0).unwrap().term < 99);
    // The right one answers, though its leader's lease lets it grant nothing.
    let Ok(Told::Voted(answer)) = Told::decode(&groups.receive(ask(own)).await.unwrap()) else { panic!("a vote") };
    assert!(!answer.vote_granted);
    for garbage in [&b""[..], &[1], &[7, 7, 7]] {
        let refused = groups.receive(Bytes::from_static(garbage)).await;
        assert!(matches!(refused, Err(ReceiveError::Malformed(_))), "{refused:?}");
    }
    cluster.shutdown().await;
}
