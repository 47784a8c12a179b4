//! Nodes that die, and nodes that stand still.

use std::time::{Duration, Instant};

use callboard_tests::cluster::{Cluster, Told, Writers, acknowledged, ids, until_written};

use super::CAT;

/// The promise is 3 s, on a machine that is not busy with anything else.
const ANSWERED_AGAIN: Duration = Duration::from_secs(9);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_costs_no_acknowledged_write_and_its_actors_answer_again_soon() {
    let mut cluster = Cluster::of(3, &[CAT]).await;
    let actors = ids("answer", 32);
    let mut told = Told::fresh(8);
    for victim in [2, 1, 2] {
        let others: Vec<_> = (0..3).filter(|at| *at != victim).collect();
        cluster.all_answer(&others, CAT, &actors, Instant::now()).await;
        let before = (acknowledged(&told), told[0].attempted);
        let writers = Writers::start(&cluster, &others, CAT, told);
        until_written(&cluster, others[0], CAT, "writer-0", before.1 + 5).await;
        let killed = cluster.kill(victim);
        let longest = cluster.all_answer(&others, CAT, &actors, killed).await;
        told = writers.stop().await;
        println!("node {victim}: {} acknowledged, answers again after {longest:?}", acknowledged(&told) - before.0);
        let wrong = cluster.check(&others, CAT, &told).await;
        assert!(wrong.is_empty(), "node {victim}: {wrong:#?}");
        assert!(longest < ANSWERED_AGAIN, "node {victim}: the last actor answers after {longest:?}");
        cluster.node_mut(victim).restart_ready().await;
        cluster.settled().await;
    }
    let wrong = cluster.check(&[0, 1, 2], CAT, &told).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(cluster.overlaps(CAT).is_empty(), "{:#?}", cluster.overlaps(CAT));
}

#[tokio::test(flavor = "multi_thread")]
async fn actors_of_a_node_that_stands_still_run_elsewhere_and_its_app_lets_them_go_first() {
    let cluster = Cluster::of(3, &[CAT]).await;
    let actors = ids("still", 32);
    let all = [0, 1, 2];
    cluster.all_answer(&all, CAT, &actors, Instant::now()).await;
    let last_host = |id: &String| {
        let seen = cluster.seen(CAT);
        seen[id].iter().rev().find(|(_, call)| call.method != "DELETE").map(|(at, _)| *at)
    };
    let theirs: Vec<_> = actors.into_iter().filter(|id| last_host(id) == Some(2)).collect();
    assert!(!theirs.is_empty(), "node 2 hosts some of 32 actors");
    let paused = Instant::now();
    cluster.node(2).pause();
    let longest = cluster.all_answer(&[0, 1], CAT, &theirs, paused).await;
    // At least as long as every lease and election.
    tokio::time::sleep(Duration::from_secs(2).saturating_sub(paused.elapsed())).await;
    for id in &theirs {
        assert!(last_host(id).is_some_and(|at| at != 2), "{id} runs elsewhere");
    }
    let resumed = Instant::now();
    cluster.node(2).resume();
    println!("{} actors answered elsewhere after {longest:?}", theirs.len());
    for _ in 0..3 {
        cluster.all_answer(&all, CAT, &theirs, Instant::now()).await;
    }
    let seen = cluster.seen(CAT);
    for id in &theirs {
        let first = seen[id].iter().find(|(at, call)| *at == 2 && call.begun >= resumed);
        assert!(
            first.is_none_or(|(_, call)| call.method == "DELETE"),
            "{id}: a turn before the app let it go: {first:?}"
        );
    }
    assert!(cluster.overlaps(CAT).is_empty(), "{:#?}", cluster.overlaps(CAT));
}
