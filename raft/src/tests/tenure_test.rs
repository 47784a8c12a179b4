//! Who may write, and how a tenure ends.

use std::collections::BTreeSet;

use callboard_machine::partition::Response;
use callboard_types::GroupId;

use super::*;
use crate::ProposeError;
use crate::type_config::Member;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_claim_ends_the_tenure_and_fences_its_proposals() {
    let groups = start_in(&Memory::new(), 1).await;
    let partition = first(&groups);
    let old = claim(&partition).await;
    old.check().unwrap();
    let ended = {
        let old = old.clone();
        tokio::spawn(async move { old.ended().await })
    };
    let current = claim(&partition).await;
    ended.await.unwrap();
    assert!(old.check().is_err());
    current.check().unwrap();
    let stray = command(old.epoch(), actor("tom"), vec![upsert("food", "fish")]);
    assert_eq!(partition.propose(stray).await.unwrap(), Response::Fenced { current: current.epoch() });
    assert_eq!(partition.reader().state(&actor("tom"), "food", NOW).unwrap(), None);
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenure_that_was_given_up_is_over() {
    let groups = start_in(&Memory::new(), 1).await;
    let partition = first(&groups);
    let tenure = claim(&partition).await;
    let ended = {
        let tenure = tenure.clone();
        tokio::spawn(async move { tenure.ended().await })
    };
    tenure.resign();
    ended.await.unwrap();
    assert!(tenure.check().is_err());
    // Leadership that stays must be claimed again.
    claim(&partition).await.check().unwrap();
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_tenure_of_a_sole_voter_outlives_its_lease() {
    let mut config = config();
    (config.heartbeat, config.election_min, config.election_max) =
        (Duration::from_millis(5), Duration::from_millis(20), Duration::from_millis(30));
    let groups = open_with(config, Memory::new().open()).await.unwrap();
    groups.bootstrap(settings(1), node_record(), NOW).await.unwrap();
    let tenure = claim(&first(&groups)).await;
    let lapse = tokio::time::timeout(Duration::from_millis(300), tenure.ended()).await;
    assert!(lapse.is_err(), "it ended");
    tenure.check().unwrap();
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenure_ends_with_its_group() {
    let groups = start_in(&Memory::new(), 1).await;
    let (partition, mut leading) = (first(&groups), first(&groups).leading());
    let tenure = claim(&partition).await;
    assert!(*leading.borrow_and_update());
    groups.shutdown().await;
    tenure.ended().await;
    assert!(tenure.check().is_err());
    let late = partition.propose(command(tenure.epoch(), actor("tom"), vec![])).await;
    assert!(matches!(late, Err(ProposeError::Stopped(_) | ProposeError::NotReady { .. })), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_beyond_the_bound_are_refused_and_abandoned_ones_keep_their_place() {
    let memory = Memory::new();
    let mut config = config();
    config.max_proposals = 2;
    let groups = open_with(config, memory.open()).await.unwrap();
    groups.bootstrap(settings(1), node_record(), NOW).await.unwrap();
    let partition = first(&groups);
    let tenure = claim(&partition).await;
    memory.hold_commits();
    let write = |key: &str| command(tenure.epoch(), actor("tom"), vec![upsert(key, "fish")]);
    // Two are in flight; their callers leave.
    for key in ["a", "b"] {
        let proposal = partition.propose(write(key));
        tokio::select! {
            biased;
            outcome = proposal => panic!("{outcome:?} before the commit"),
            () = tokio::task::yield_now() => {}
        }
    }
    let third = partition.propose(write("c")).await;
    assert!(
        matches!(third, Err(ProposeError::NotReady { group: GroupId::Partition(PartitionId(0)), leader: None })),
        "{third:?}"
    );
    memory.release_commits();
    // Both took effect without a caller, and made room.
    let reader = partition.reader();
    loop {
        match partition.propose(write("d")).await {
            Ok(response) => break assert_eq!(response, Response::Done),
            Err(ProposeError::NotReady { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
    for key in ["a", "b", "d"] {
        assert_eq!(reader.state(&actor("tom"), key, NOW).unwrap(), Some(value("fish")), "{key}");
    }
    assert_eq!(reader.state(&actor("tom"), "c", NOW).unwrap(), None);
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_costs_microseconds() {
    let groups = start_in(&Memory::new(), 1).await;
    let tenure = claim(&first(&groups)).await;
    // The best of several rounds: other work on the machine only adds.
    let best = (0..20).map(|_| {
        let start = std::time::Instant::now();
        (0..1_000).for_each(|_| tenure.check().unwrap());
        start.elapsed()
    });
    let best = best.min().unwrap();
    assert!(best < Duration::from_millis(20), "1000 checks took {best:?}");
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_no_quorum_extends_lapses_without_ending_the_tenure() {
    let groups = start_in(&Memory::new(), 1).await;
    let partition = first(&groups);
    let tenure = claim(&partition).await;
    let raft = partition.replica().raft.clone();
    // A second voter that never answers.
    raft.add_learner(2, Member::default(), false).await.unwrap();
    let change = {
        let raft = raft.clone();
        tokio::spawn(async move { raft.change_membership(BTreeSet::from([1, 2]), false).await })
    };
    let both = |metrics: &openraft::RaftMetrics<_>| metrics.membership_config.voter_ids().count() == 2;
    raft.wait(Some(Duration::from_secs(10))).metrics(both, "two voters").await.unwrap();
    while tenure.check().is_ok() {
        tokio::task::yield_now().await;
    }
    let over = tokio::time::timeout(Duration::from_millis(50), tenure.ended()).await;
    assert!(over.is_err(), "it ended");
    change.abort();
    groups.shutdown().await;
}
