//! Nodes that die, all of them at once too, and nodes that stand still.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use callboard_tests::cluster::{Cluster, Told, Writers, acknowledged, ids, until_written};
use callboard_tests::http::{Session, request};
use callboard_tests::wait::{PATIENCE, eventually};
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::json;

use crate::CAT;

/// The promise is 3 s, on a machine that is not busy with anything else.
const ANSWERED_AGAIN: Duration = Duration::from_secs(9);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn a_killed_node_costs_no_acknowledged_write_and_its_actors_answer_again_soon() {
    let mut cluster = Cluster::of(3, &[CAT]).await;
    let actors = ids("answer", 32);
    let mut told = Told::fresh(8);
    for victim in [2, 0, 1] {
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
#[ignore = "the full dose: make faults"]
async fn while_a_node_joins_and_takes_its_share_no_call_is_lost() {
    let mut cluster = Cluster::of(3, &[CAT]).await;
    let stop = AtomicBool::new(false);
    let (made, lost) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let addresses: Vec<_> = (0..3).map(|at| cluster.node(at).http()).collect();
    let callers = join_all((0..16).map(|n| {
        let (stop, made, lost, to) = (&stop, &made, &lost, addresses[n % 3]);
        async move {
            let mut session = Session::new(to);
            while !stop.load(Ordering::SeqCst) {
                let path = format!("/v1.0/actors/{CAT}/call-{n}/method/who");
                match session.send(request(to, "POST", &path)).await {
                    Ok(answer) if answer.status == 200 => drop(made.fetch_add(1, Ordering::SeqCst)),
                    Ok(answer) => lost.lock().push(format!("{path}: {} {}", answer.status, answer.text())),
                    Err(error) => lost.lock().push(format!("{path}: {error}")),
                }
            }
        }
    }));
    let joining = async {
        let at = cluster.join(json!({"entities": [CAT]})).await;
        cluster.settled().await;
        assert_eq!(at, 3);
        stop.store(true, Ordering::SeqCst);
    };
    tokio::join!(callers, joining);
    println!("{} calls", made.load(Ordering::SeqCst));
    assert!(lost.lock().is_empty(), "{:#?} of {}", lost.lock(), made.load(Ordering::SeqCst));
    assert!(cluster.overlaps(CAT).is_empty(), "{:#?}", cluster.overlaps(CAT));
    assert!(cluster.moved(CAT).is_empty(), "{:#?}", cluster.moved(CAT));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_all_nodes_were_killed_at_once_everything_acknowledged_is_there_and_reminders_go_on() {
    let mut cluster = Cluster::of(3, &[CAT]).await;
    cluster.node(1).remind(CAT, "alarm", "r", json!({"dueTime": "1s", "period": "1s"})).await;
    let fired = |cluster: &Cluster| -> usize {
        (0..3).map(|at| cluster.app(at).count(&format!("/actors/{CAT}/alarm/method/remind/r"))).sum()
    };
    let writers = Writers::start(&cluster, &[0, 1, 2], CAT, Told::fresh(8));
    until_written(&cluster, 0, CAT, "writer-0", 5).await;
    eventually(PATIENCE, "the reminder fires", async || (fired(&cluster) > 0).then_some(())).await;
    cluster.kill_all();
    let told = writers.stop().await;
    let before = fired(&cluster);
    cluster.restart_all().await;
    cluster.settled().await;
    assert!(acknowledged(&told) > 0);
    let wrong = cluster.check(&[0, 1, 2], CAT, &told).await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    eventually(PATIENCE, "the reminder goes on", async || (fired(&cluster) > before + 1).then_some(())).await;
    assert!(cluster.overlaps(CAT).is_empty(), "{:#?}", cluster.overlaps(CAT));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
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
    for id in &theirs {
        let path = format!("/actors/{CAT}/{id}");
        let first = eventually(PATIENCE, "the app that stood still lets the actor go", async || {
            let calls = cluster.app(2).calls_to(&path);
            calls
                .into_iter()
                .find(|call| call.begun >= resumed && (call.path == path || call.path.starts_with(&format!("{path}/"))))
        })
        .await;
        assert_eq!(first.method, "DELETE", "{id}: {}", first.path);
    }
    cluster.all_answer(&all, CAT, &theirs, resumed).await;
    assert!(cluster.overlaps(CAT).is_empty(), "{:#?}", cluster.overlaps(CAT));
}
