//! Faults at random, and what must hold through all of them: one owner at a time, and nothing acknowledged is lost.
//!
//! Each node claims whenever it leads and acts for as long as its tenure's check allows. Afterwards the times at which
//! the checks passed are laid side by side. The seed of a failed run is in its message.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use callboard_machine::partition::Response;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::cluster::{Cluster, P0, node};
use super::*;

const ROUNDS: usize = 5;

/// One epoch, as its owner saw it.
#[derive(Debug, Clone, Copy)]
struct Reign {
    number: u64,
    epoch: Epoch,
    /// The claim had been answered.
    since: Instant,
    /// The check passed for the last time, or a moment later.
    until: Instant,
}

/// What the owners did.
#[derive(Default)]
struct Record {
    reigns: Mutex<Vec<Reign>>,
    acknowledged: Mutex<Vec<u64>>,
    next: AtomicU64,
    over: AtomicBool,
}

/// Owns the partition whenever it can, until the test is over or the node is.
async fn own(number: u64, partition: Partition, record: Arc<Record>) {
    let mut leading = partition.leading();
    while !record.over.load(Ordering::Acquire) {
        let wait = tokio::time::timeout(Duration::from_millis(50), leading.wait_for(|leading| *leading));
        match wait.await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return,
            Err(_) => continue,
        }
        let claim = partition.claim(number, NOW, Duration::from_secs(1));
        let Ok(Ok(tenure)) = tokio::time::timeout(Duration::from_secs(5), claim).await else { continue };
        let since = Instant::now();
        let mut reign = Reign { number, epoch: tenure.epoch(), since, until: since };
        let writer = tokio::spawn(write(partition.clone(), tenure.clone(), record.clone()));
        // A lapse is no end: the check may pass again.
        while !record.over.load(Ordering::Acquire) && !writer.is_finished() {
            let now = Instant::now();
            if tenure.check().is_ok() {
                reign.until = now;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        record.reigns.lock().push(reign);
    }
}

async fn write(partition: Partition, tenure: Tenure, record: Arc<Record>) {
    let ended = tenure.ended();
    let mut ended = std::pin::pin!(ended);
    while !record.over.load(Ordering::Acquire) {
        let key = record.next.fetch_add(1, Ordering::Relaxed);
        let command = command(tenure.epoch(), actor("tom"), vec![upsert(&format!("key-{key}"), "fish")]);
        tokio::select! {
            biased;
            () = &mut ended => return,
            outcome = partition.propose(command) => match outcome {
                Ok(Response::Done) => record.acknowledged.lock().push(key),
                Ok(_) => return,
                Err(_) => {}
            },
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn disturb(cluster: &mut Cluster, random: &mut StdRng, record: &Arc<Record>) {
    // Mostly whoever leads: others are missed by nobody.
    let leader = (1..=3).find(|number| cluster.status(*number, P0).is_some_and(|status| status.is_leader()));
    let of = leader.filter(|_| random.random_bool(0.7)).unwrap_or_else(|| random.random_range(1..=3));
    let other = 1 + (of + random.random_range(0..2)) % 3;
    match random.random_range(0..8) {
        0..3 => cluster.mesh.isolate(node(of), (1..=3).map(node)),
        3 => cluster.mesh.cut(node(of), node(other)),
        4 => cluster.mesh.drop_answers(node(of), node(other)),
        5 => cluster.mesh.delay(node(of), node(other), Duration::from_millis(random.random_range(1..120))),
        6 => {
            cluster.kill(of);
            tokio::time::sleep(Duration::from_millis(random.random_range(0..900))).await;
            cluster.restart(of).await;
            tokio::spawn(own(of, cluster.partition(of), record.clone()));
        }
        _ => {
            let target = cluster.replica(other, P0);
            // Whether it is possible or not.
            drop(cluster.groups(of).transfer_leader(P0, target).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_any_faults_there_is_one_owner_at_a_time_and_nothing_acknowledged_is_lost() {
    let seed = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::of_voters(3).await;
    let record = Arc::<Record>::default();
    for number in 1..=3 {
        tokio::spawn(own(number, cluster.partition(number), record.clone()));
    }
    for _ in 0..ROUNDS {
        disturb(&mut cluster, &mut random, &record).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(1_000..4_000))).await;
        if random.random_bool(0.6) {
            cluster.mesh.heal();
        }
    }
    cluster.mesh.heal();
    let before = record.acknowledged.lock().len();
    super::cluster::eventually("the group goes on", || (record.acknowledged.lock().len() > before + 10).then_some(()))
        .await;
    record.over.store(true, Ordering::Release);
    let acknowledged = record.acknowledged.lock().clone();
    for number in 1..=3 {
        for key in &acknowledged {
            cluster.await_keys(number, *key..*key + 1).await;
        }
    }
    cluster.shutdown().await;
    let reigns: BTreeMap<Epoch, Vec<Reign>> = record.reigns.lock().iter().fold(BTreeMap::new(), |mut reigns, reign| {
        reigns.entry(reign.epoch).or_default().push(*reign);
        reigns
    });
    assert!(reigns.values().all(|same| same.len() == 1), "seed {seed}: an epoch was given twice: {reigns:?}");
    let reigns: Vec<Reign> = reigns.into_values().flatten().collect();
    let mut owner: Option<Reign> = None;
    for reign in reigns {
        if let Some(owner) = owner {
            assert!(
                owner.until < reign.since,
                "seed {seed}: node {} and node {}: {owner:?} {reign:?}",
                owner.number,
                reign.number
            );
        }
        owner = owner.filter(|owner| owner.until > reign.until).or(Some(reign));
    }
}
