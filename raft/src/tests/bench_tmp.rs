use super::*;
use callboard_storage::rocks;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bench_tmp() {
    for (p, writers) in [(1usize, 1usize), (1, 64), (16, 64), (16, 256)] {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config();
        c.max_proposals = 1024;
        let groups = Groups::open(
            c,
            rocks::open(dir.path(), &rocks::OpenOptions::default()).unwrap(),
            Arc::new(Seen::default()),
        )
        .await
        .unwrap();
        groups.bootstrap(settings(p as u32), node_record(), NOW).await.unwrap();
        let mut t = vec![];
        for q in groups.partitions() {
            t.push((q.clone(), claim(&q).await));
        }
        let before = groups.writer_stats();
        let start = std::time::Instant::now();
        let n = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for w in 0..writers {
            let (q, tn) = t[w % p].clone();
            let n = n.clone();
            tasks.spawn(async move {
                let mut i = 0u64;
                while start.elapsed() < Duration::from_secs(3) {
                    i += 1;
                    tn.check().unwrap();
                    q.propose(command(
                        tn.epoch(),
                        actor(&format!("a{w}-{}", i % 100)),
                        vec![upsert("k", vec![1; 100])],
                    ))
                    .await
                    .unwrap();
                    n.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
        while tasks.join_next().await.is_some() {}
        let s = groups.writer_stats();
        let total = n.load(std::sync::atomic::Ordering::Relaxed);
        println!(
            "P={p} writers={writers}: {:.0}/s, per sync {:.1}, sync mean {} us",
            total as f64 / start.elapsed().as_secs_f64(),
            total as f64 / (s.syncs - before.syncs) as f64,
            (s.sync_micros - before.sync_micros) / (s.syncs - before.syncs).max(1)
        );
        groups.shutdown().await;
    }
}
