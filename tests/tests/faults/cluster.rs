//! Three nodes, one of which dies again and again under writes through the two others.

use std::time::{Duration, Instant};

use callboard_tests::cluster::{Cluster, Told, Writers, acknowledged, ids, until_written};

use crate::ledger::KIND;
use crate::{ROUNDS, dose};

/// The promise is 3 s, on a machine that is not busy with anything else.
const ANSWERED_AGAIN: Duration = Duration::from_secs(9);

#[tokio::test(flavor = "multi_thread")]
async fn however_often_a_node_is_killed_every_acknowledged_write_is_there_and_all_actors_answer_again() {
    let rounds = dose(ROUNDS, 2);
    let mut cluster = Cluster::of(3, &[KIND]).await;
    let actors = ids("answer", 32);
    let mut told = Told::fresh(16);
    for round in 1..=rounds {
        let victim = rand::random_range(0..cluster.len());
        let others: Vec<_> = (0..cluster.len()).filter(|at| *at != victim).collect();
        cluster.all_answer(&others, KIND, &actors, Instant::now()).await;
        let before = (acknowledged(&told), told[0].attempted);
        let writers = Writers::start(&cluster, &others, KIND, told);
        until_written(&cluster, others[0], KIND, "writer-0", before.1 + 3).await;
        let killed = cluster.kill(victim);
        let longest = cluster.all_answer(&others, KIND, &actors, killed).await;
        told = writers.stop().await;
        let wrong = cluster.check(&others, KIND, &told).await;
        assert!(wrong.is_empty(), "round {round}, node {victim}: {wrong:#?}");
        assert!(longest < ANSWERED_AGAIN, "round {round}, node {victim}: answers after {longest:?}");
        let overlaps = cluster.overlaps(KIND);
        assert!(overlaps.is_empty(), "round {round}, node {victim}: {overlaps:#?}");
        let written = acknowledged(&told) - before.0;
        println!("round {round}/{rounds}: node {victim} killed, {written} acknowledged, answers after {longest:?}");
        cluster.node_mut(victim).restart_ready().await;
        cluster.settled().await;
    }
}
