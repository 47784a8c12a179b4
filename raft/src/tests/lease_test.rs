//! Who may act as owner among several voters: never two at once.

use std::collections::BTreeSet;
use std::time::Instant;

use callboard_machine::partition::Response;

use super::cluster::{Cluster, P0, cluster_config, eventually, node};
use super::*;
use crate::ProposeError;

/// The lease less drift.
fn usable() -> Duration {
    cluster_config(node(1)).election_max * 3 / 4
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_stops_itself_before_another_one_owns() {
    let cluster = Cluster::of_voters(3).await;
    let (leader, tenure) = cluster.claim().await;
    tenure.check().unwrap();
    cluster.mesh.isolate(node(leader), (1..=3).map(node));
    let cut = Instant::now();
    let rest: Vec<u64> = (1..=3).filter(|number| *number != leader).collect();
    let lapse = {
        let tenure = tenure.clone();
        tokio::spawn(async move {
            while tenure.check().is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Instant::now()
        })
    };
    let next = cluster.leader_among(P0, &rest).await;
    let claimed = cluster.partition(next).claim(2, NOW, Duration::from_secs(1)).await.unwrap();
    let owned = Instant::now();
    let lapsed = lapse.await.unwrap();
    assert!(lapsed < owned, "two owners for {:?}", lapsed - owned);
    assert!(lapsed - cut <= usable() + Duration::from_millis(150), "{:?}", lapsed - cut);
    assert!(claimed.epoch() > tenure.epoch());
    // Heard again, the deposed one's tenure is over for good.
    cluster.mesh.heal();
    tokio::time::timeout(Duration::from_secs(30), tenure.ended()).await.expect("the tenure ends");
    assert!(tenure.check().is_err());
    let late = command(tenure.epoch(), actor("tom"), vec![upsert("key-0", "fish")]);
    let outcome = cluster.partition(leader).propose(late).await;
    assert!(!matches!(outcome, Ok(Response::Done)), "{outcome:?}");
    claimed.check().unwrap();
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lapsed_lease_comes_back_with_the_quorum_if_nobody_else_was_elected() {
    let cluster = Cluster::of_voters(3).await;
    let (leader, tenure) = cluster.claim().await;
    // Heartbeats arrive, so nobody campaigns; what is answered does not come back.
    for other in (1..=3).filter(|number| *number != leader) {
        cluster.mesh.cut(node(other), node(leader));
    }
    eventually("the lease lapses", || tenure.check().is_err().then_some(())).await;
    let over = tokio::time::timeout(Duration::from_millis(200), tenure.ended()).await;
    assert!(over.is_err(), "it has ended");
    cluster.mesh.heal();
    eventually("the lease is back", || tenure.check().ok()).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_never_give_one_epoch_twice() {
    let mut cluster = Cluster::of_voters(3).await;
    let mut epochs = Vec::new();
    for round in 0..3 {
        let (leader, tenure) = cluster.claim().await;
        epochs.push(tenure.epoch());
        // A claim that is on its way while the leader is cut off.
        cluster.mesh.isolate(node(leader), (1..=3).map(node));
        let stray = {
            let partition = cluster.partition(leader);
            tokio::spawn(async move { partition.claim(99, NOW, Duration::from_secs(1)).await })
        };
        let rest: Vec<u64> = (1..=3).filter(|number| *number != leader).collect();
        let next = cluster.leader_among(P0, &rest).await;
        epochs.push(cluster.partition(next).claim(round, NOW, Duration::from_secs(1)).await.unwrap().epoch());
        cluster.mesh.heal();
        match stray.await.unwrap() {
            Ok(tenure) => epochs.push(tenure.epoch()),
            Err(ProposeError::Unknown | ProposeError::NotReady { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        if round == 1 {
            let leader = cluster.leader(P0).await;
            cluster.kill(leader);
            cluster.restart(leader).await;
        }
    }
    let distinct: BTreeSet<_> = epochs.iter().collect();
    assert_eq!(distinct.len(), epochs.len(), "{epochs:?}");
    assert!(epochs.is_sorted(), "{epochs:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_ends_the_tenure_before_the_next_leader_owns() {
    let cluster = Cluster::of_voters(3).await;
    let (leader, tenure) = cluster.claim().await;
    let to = (1..=3).find(|number| *number != leader).unwrap();
    // The old leader hears nothing more of the others: it learns of the next one late or never.
    let began = Instant::now();
    let target = cluster.replica(to, P0);
    let groups = cluster.groups(leader).clone();
    let transfer = tokio::spawn(async move { groups.transfer_leader(P0, target).await });
    tenure.ended().await;
    assert!(tenure.check().is_err());
    transfer.await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let (next, claimed) = cluster.claim().await;
    assert_eq!(next, to);
    claimed.check().unwrap();
    assert!(tenure.check().is_err());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_a_transfer_overtakes_owns_nothing() {
    let cluster = Cluster::of_voters(3).await;
    let leader = cluster.leader(P0).await;
    let to = (1..=3).find(|number| *number != leader).unwrap();
    let target = cluster.replica(to, P0);
    cluster.caught_up(P0, target).await;
    // The next leader hears nothing, so this one leads on for a while; and its disk stands still.
    cluster.mesh.cut(node(leader), node(to));
    let memory = cluster.nodes[&node(leader)].memory.clone();
    memory.hold_commits();
    let partition = cluster.partition(leader);
    let last = cluster.status(leader, P0).unwrap().last_log;
    let claim = tokio::spawn(async move { partition.claim(1, NOW, Duration::from_secs(1)).await });
    eventually("the claim stands in the log", || (cluster.status(leader, P0)?.last_log > last).then_some(())).await;
    let groups = cluster.groups(leader).clone();
    let transfer = tokio::spawn(async move { groups.transfer_leader(P0, target).await });
    eventually("the transfer is under way", || cluster.status(leader, P0)?.transferring.then_some(())).await;
    memory.release_commits();
    let claimed = claim.await.unwrap();
    assert!(matches!(claimed, Err(ProposeError::NotReady { .. } | ProposeError::Unknown)), "it owns");
    cluster.mesh.heal();
    transfer.await.unwrap().ok();
    cluster.claim().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_that_nobody_hears_ends_the_tenure_all_the_same_and_the_group_goes_on() {
    let cluster = Cluster::of_voters(3).await;
    let (leader, tenure) = cluster.claim().await;
    let to = (1..=3).find(|number| *number != leader).unwrap();
    let target = cluster.replica(to, P0);
    cluster.caught_up(P0, target).await;
    let term = cluster.status(leader, P0).unwrap().term;
    cluster.mesh.isolate(node(leader), (1..=3).map(node));
    let groups = cluster.groups(leader).clone();
    let transfer = tokio::spawn(async move { groups.transfer_leader(P0, target).await });
    tenure.ended().await;
    assert!(tenure.check().is_err());
    // Long before anybody else could lead.
    let status = cluster.status(leader, P0).unwrap();
    assert_eq!((status.is_leader(), status.term, status.transferring), (true, term, true));
    let outcome = transfer.await.unwrap();
    assert!(outcome.is_err(), "it was heard");
    cluster.mesh.heal();
    let (_, claimed) = cluster.claim().await;
    assert!(claimed.epoch() > tenure.epoch());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sole_voter_hands_its_vote_over_and_with_it_what_it_owned() {
    let mut cluster = Cluster::form(2, 1).await;
    let (_, tenure) = cluster.claim().await;
    cluster.write(0..10).await;
    let (_, tenure_now) = cluster.claim().await;
    let heir = cluster.add_learner(P0, 2).await;
    let change = cluster.groups(1).change_voters(P0, BTreeSet::from([heir])).await;
    assert!(tenure.check().is_err() && tenure_now.check().is_err(), "{change:?}");
    assert_eq!(cluster.leader(P0).await, 2);
    let (_, claimed) = cluster.claim().await;
    claimed.check().unwrap();
    let former = cluster.replica(1, P0);
    eventually("the former voter is a learner", || (cluster.status(2, P0)?.learners() == [former]).then_some(())).await;
    cluster.groups(2).remove_learner(P0, former).await.unwrap();
    cluster.groups(1).drop_replica(P0, former).await.unwrap();
    cluster.write(10..20).await;
    assert_eq!(cluster.has(2, 0..20), 20);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_vote_leads_until_it_hands_over() {
    let mut cluster = Cluster::form(4, 1).await;
    cluster.spread(P0, [1, 2, 3]).await;
    let (leader, tenure) = cluster.claim().await;
    let fresh = cluster.add_learner(P0, 4).await;
    let rest: Vec<u64> = (1..=3).filter(|number| *number != leader).collect();
    let voters = rest.iter().map(|number| cluster.replica(*number, P0)).chain([fresh]).collect();
    cluster.groups(leader).change_voters(P0, voters).await.unwrap();
    eventually("its lease is the quorum's of the others", || tenure.check().ok()).await;
    let write = command(tenure.epoch(), actor("tom"), vec![upsert("key-0", "fish")]);
    assert_eq!(cluster.partition(leader).propose(write).await.unwrap(), Response::Done);
    cluster.groups(leader).transfer_leader(P0, fresh).await.unwrap();
    assert!(tenure.check().is_err());
    assert_eq!(cluster.leader(P0).await, 4);
    let former = cluster.replica(leader, P0);
    cluster.groups(4).remove_learner(P0, former).await.unwrap();
    cluster.write(1..5).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_restarts_gives_no_vote_before_the_lease_it_may_have_given_is_over() {
    let mut cluster = Cluster::of_voters(3).await;
    let (leader, tenure) = cluster.claim().await;
    let rest: Vec<u64> = (1..=3).filter(|number| *number != leader).collect();
    let [restarts, campaigns] = rest[..] else { panic!("two others") };
    // One voter has not heard of the leader for long and would campaign; the other one has just acknowledged it.
    cluster.mesh.isolate(node(campaigns), [node(leader)]);
    eventually("the lease of the one that hears nothing is over", || {
        let heard = cluster.status(leader, P0)?.heard;
        (*heard.get(&cluster.replica(campaigns, P0))? > Duration::from_millis(1_200)).then_some(())
    })
    .await;
    tenure.check().unwrap();
    cluster.kill(restarts);
    cluster.mesh.isolate(node(restarts), [node(leader)]);
    cluster.restart(restarts).await;
    let restarted = Instant::now();
    let lease = cluster_config(node(1)).election_max;
    while restarted.elapsed() < lease {
        cluster.groups(campaigns).campaign(P0).await.unwrap();
        assert!(!cluster.status(campaigns, P0).unwrap().is_leader(), "after {:?}", restarted.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(tenure.check().is_err());
    cluster.leader_among(P0, &rest).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_that_was_not_proposed_leaves_the_leadership_as_it_was() {
    let mut cluster = Cluster::form(2, 1).await;
    let (_, tenure) = cluster.claim().await;
    let heir = cluster.add_learner(P0, 2).await;
    // Another change is under way, and cannot come to an end.
    let (memory, raft) = (cluster.nodes[&node(1)].memory.clone(), cluster.partition(1).replica().raft.clone());
    memory.hold_commits();
    let other = {
        let raft = raft.clone();
        tokio::spawn(async move { raft.add_learner(77, crate::type_config::Member::default(), false).await })
    };
    let begun = |metrics: &openraft::RaftMetrics<_>| metrics.membership_config.nodes().count() == 3;
    raft.wait(Some(Duration::from_secs(30))).metrics(begun, "the other change has begun").await.unwrap();
    let outcome = cluster.groups(1).change_voters(P0, BTreeSet::from([heir])).await;
    assert_eq!(outcome, Err(crate::ChangeError::Busy(P0)));
    memory.release_commits();
    other.await.unwrap().unwrap();
    tenure.check().unwrap();
    let (leader, claimed) = cluster.claim().await;
    assert_eq!(leader, 1);
    claimed.check().unwrap();
    assert!(claimed.epoch() > tenure.epoch());
    cluster.shutdown().await;
}
