//! Coming to a cluster, being kept out of it, and coming back.

use callboard_tests::cluster::{Cluster, ids};
use callboard_tests::node::Setup;
use callboard_tests::wait::{PATIENCE, eventually};
use serde_json::{Value, json};

use crate::CAT;

/// Name, id and role of every registered node.
async fn registered(cluster: &Cluster, at: usize) -> Vec<(String, String)> {
    let answer = cluster.node(at).get("/cluster/v1/nodes").send().await.expect(200).json();
    let text = |node: &Value, name: &str| node[name].as_str().unwrap_or_default().to_owned();
    let mut nodes: Vec<_> =
        answer["nodes"].as_array().expect("nodes").iter().map(|node| (text(node, "id"), text(node, "role"))).collect();
    nodes.sort();
    nodes
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn a_node_of_another_cluster_is_refused_and_told_why() {
    let cluster = Cluster::of(1, &[CAT]).await;
    let mut stranger =
        Setup::new("stranger").arg(format!("--join={}", cluster.node(0).peer())).arg("--cluster=other").spawn();
    let said = eventually(PATIENCE, "the stranger is told", async || {
        let log = stranger.log();
        log.lines().find(|line| line.contains("other") && line.contains("default")).map(str::to_owned)
    })
    .await;
    assert!(said.contains("of cluster"), "{said}");
    assert_eq!(registered(&cluster, 0).await.len(), 1);
    let healthy = stranger.get("/v1.0/healthz/outbound").try_send().await;
    assert!(healthy.is_err() || healthy.is_ok_and(|answer| answer.status != 204), "it serves nothing");
    stranger.kill();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn a_node_that_comes_back_with_its_data_is_the_node_it_was() {
    let mut cluster = Cluster::of(3, &[CAT]).await;
    let before = registered(&cluster, 0).await;
    assert_eq!(before.iter().map(|(_, role)| role.as_str()).collect::<Vec<_>>(), ["storage"; 3]);
    for at in 0..3 {
        cluster.kill(at);
        cluster.node_mut(at).restart_ready().await;
        cluster.settled().await;
        assert_eq!(registered(&cluster, at).await, before, "after node {at} came back");
    }
    for (n, id) in ids("back", 16).iter().enumerate() {
        cluster.node(n % 3).call(CAT, id, "who").await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn a_node_without_actors_is_a_gateway_and_an_entrance() {
    let cluster = Cluster::each(&[json!({"entities": [CAT]}), json!({})]).await;
    let mut roles: Vec<_> = registered(&cluster, 1).await.into_iter().map(|(_, role)| role).collect();
    roles.sort();
    assert_eq!(roles, ["gateway", "storage"]);
    for id in ids("through", 16) {
        assert_eq!(cluster.node(1).call(CAT, &id, "who").await.expect(200).text(), "0");
    }
}
