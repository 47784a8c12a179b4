//! Looking at a cluster and taking nodes out of it: lists from any node, who is there, drain and leave.

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use callboard_tests::app::App;
use callboard_tests::binary::callboard;
use callboard_tests::cluster::{Cluster, ids};
use callboard_tests::http::{Session, request};
use callboard_tests::node::{Node, Setup};
use callboard_tests::wait::{PATIENCE, eventually};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::CAT;

/// Longer than the router looks for an owner.
const NO_OWNER: Duration = Duration::from_secs(40);
/// Everything of a node has moved to others.
const DRAINED: Duration = Duration::from_secs(60);

async fn asked(node: &Node, path: &str) -> Value {
    node.get(path).within(NO_OWNER).send().await.expect(200).json()
}

fn rows(answer: &Value, field: &str) -> Vec<Value> {
    answer[field].as_array().unwrap_or_else(|| panic!("no {field} in {answer}")).clone()
}

/// Gives an actor a value, from inside a turn of it, and a reminder that never fires here. Through a node that hosts it,
/// since registering a reminder needs that.
async fn furnish(cluster: &Cluster, entrance: usize, id: &str, value: &Value) {
    let operations = json!([{"operation": "upsert", "request": {"key": "k", "value": value}}]);
    let path = format!("/v1.0/actors/{CAT}/{id}/state");
    let answer = cluster.relay(entrance, (CAT, id), "PUT", &path, operations).await;
    assert_eq!(answer.status, 204, "{}", answer.text);
    cluster.node(entrance).remind(CAT, id, "r", json!({"dueTime": "1h"})).await;
}

/// All rows, page by page.
async fn paged(node: &Node, path: &str, field: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = asked(node, &format!("{path}?limit=7&type={CAT}{after}")).await;
        all.extend(rows(&page, field));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return all,
        }
    }
}

async fn lines(node: &Node, query: &str) -> Vec<Value> {
    let answer = node.get(&format!("/cluster/v1/state?{query}")).within(NO_OWNER).send().await.expect(200);
    answer.text().lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn texts(rows: &[Value], field: &str) -> Vec<String> {
    rows.iter().map(|row| row[field].as_str().unwrap_or_else(|| panic!("no {field} in {row}")).to_owned()).collect()
}

async fn run(node: &Node, args: &[&str]) -> Output {
    let mut command = Command::new(callboard());
    command.args(args).args(["--address", &node.http().to_string()]).env("XDG_RUNTIME_DIR", node.setup().home());
    let ran = tokio::task::spawn_blocking(move || command.output());
    ran.await.expect("it does not panic").expect("run the command")
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn every_node_lists_what_all_partitions_hold_in_one_order() {
    let mut cluster = Cluster::of(3, &[CAT]).await;
    // It holds nothing, and lists all the same.
    cluster.join(json!({ "entities": [] })).await;
    let mut actors = ids("listed", 40);
    for (n, id) in actors.iter().enumerate() {
        furnish(&cluster, n % 3, id, &json!(n)).await;
    }
    actors.sort();
    for at in 0..4 {
        let node = cluster.node(at);
        assert_eq!(texts(&paged(node, "/cluster/v1/actors", "actors").await, "id"), actors, "node {at}");
        let reminders = paged(node, "/cluster/v1/reminders", "reminders").await;
        assert_eq!(texts(&reminders, "id"), actors, "node {at}");
        assert_eq!(texts(&lines(node, "prefix=&limit=1000").await, "id"), actors, "node {at}");
        assert_eq!(lines(node, "prefix=&limit=5").await.len(), 5, "node {at}");
        let listed = stdout(&run(node, &["actors", "--type", CAT]).await);
        assert!(actors.iter().all(|id| listed.contains(id)), "{listed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn values_that_do_not_fit_one_message_are_listed_whole_from_every_node() {
    let cluster = Cluster::of(3, &[CAT]).await;
    let large = "x".repeat(1_500_000);
    let mut actors = ids("large", 24);
    for (n, id) in actors.iter().enumerate() {
        furnish(&cluster, n % 3, id, &json!(large)).await;
    }
    actors.sort();
    for at in 0..3 {
        let found = lines(cluster.node(at), "prefix=&limit=1000").await;
        assert_eq!(texts(&found, "id"), actors, "node {at}");
        assert!(found.iter().all(|line| line["value"] == large), "node {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_names_all_nodes_and_where_every_partition_is() {
    let mut cluster = Cluster::of(3, &[CAT]).await;
    cluster.join(json!({ "entities": [] })).await;
    for at in 0..4 {
        let node = cluster.node(at);
        let answer = eventually(PATIENCE, "every node is heard", async || {
            let answer = asked(node, "/cluster/v1/nodes").await;
            let known =
                |line: &Value| line["state"] == "up" && line["version"].is_string() && line["app"]["healthy"] == true;
            (rows(&answer, "nodes").len() == 4 && rows(&answer, "nodes").iter().all(known)).then_some(answer)
        })
        .await;
        let nodes = rows(&answer, "nodes");
        assert_eq!(texts(&nodes, "name"), ["app-0", "app-1", "app-2", "app-3"]);
        assert_eq!(texts(&nodes, "role"), ["storage", "storage", "storage", "gateway"]);
        let this: Vec<_> = nodes.iter().map(|line| line["this"] == true).collect();
        assert_eq!(this, [0, 1, 2, 3].map(|other| other == at));
        assert_eq!(nodes[at]["app"]["id"], format!("app-{at}"));
        let count = |field: &str| nodes.iter().map(|line| line[field].as_u64().expect("a number")).collect::<Vec<_>>();
        assert_eq!(count("holds"), [16, 16, 16, 0], "three replicas of each on three nodes");
        assert_eq!(count("leads").iter().sum::<u64>(), 16);
        assert_eq!((&answer["mayFail"], &answer["storageNodes"], &answer["notes"]), (&json!(1), &json!(3), &json!([])));

        let answer = asked(node, "/cluster/v1/partitions").await;
        let partitions = rows(&answer, "partitions");
        assert_eq!(partitions.len(), 16);
        for partition in &partitions {
            assert_eq!(partition["owner"], partition["leader"], "{partition}");
            assert!(partition["epoch"].as_u64() > Some(0) && partition["leaseAgeMs"].is_number(), "{partition}");
            let replicas = rows(partition, "replicas");
            assert_eq!(texts(&replicas, "seat"), ["voter"; 3]);
            assert!(replicas.iter().all(|replica| replica["applied"].is_number()), "{partition}");
        }
        assert_eq!(asked(node, "/cluster/v1/moves").await, json!({ "moves": [] }));
        let status = asked(node, "/cluster/v1/status").await;
        assert_eq!(status["nodes"], json!({"storage": 3, "gateways": 1, "up": 4, "leaving": 0, "down": 0}));
        assert_eq!(status["partitions"], json!({"total": 16, "unowned": [], "withoutQuorum": []}));
        node.get("/cluster/v1/ready").send().await.expect_empty();
    }
    let shown = stdout(&run(cluster.node(3), &["nodes"]).await);
    assert!(shown.contains("app-3*") && shown.contains("One storage node may fail"), "{shown}");
    let shown = stdout(&run(cluster.node(3), &["partitions"]).await);
    assert_eq!(shown.lines().count(), 18, "a title, the partitions, and the meta group:\n{shown}");
    let shown: Value = serde_json::from_str(&stdout(&run(cluster.node(0), &["status", "--json"]).await)).expect("JSON");
    assert_eq!(shown["mayFail"], 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn the_metrics_tell_of_replicas_and_of_what_goes_to_other_nodes() {
    let cluster = Cluster::of(3, &[CAT]).await;
    for id in ids("metered", 32) {
        cluster.node(0).call(CAT, &id, "who").await.expect(200);
    }
    let node = cluster.node(0);
    assert!(node.metric("callboard_calls_forwarded_total").await > 0, "some of 32 actors live elsewhere");
    let taken = join_all([1, 2].map(|at| cluster.node(at).metric("callboard_calls_taken_total"))).await;
    assert!(taken.iter().sum::<u64>() > 0);
    assert_eq!(node.metric("callboard_turn_seconds_count").await, 32);
    assert_eq!(node.metric("callboard_moves_in_flight").await, 0);
    assert_eq!(node.metric("callboard_nodes_up").await, 3);
    assert!(node.metric("callboard_peer_frames_sent_total").await > 0);
    let text = request(node.metrics(), "GET", "/metrics").send().await.expect(200).text();
    for name in ["role", "applied_index"] {
        let of_each = text.lines().filter(|line| line.starts_with(&format!("callboard_partition_{name}{{"))).count();
        assert_eq!(of_each, 17, "{name} of each partition and of the meta group:\n{text}");
    }
    let count =
        |name: &str| text.lines().filter(|line| line.starts_with(&format!("callboard_partition_{name}{{"))).count();
    assert!(count("epoch") > 0 && count("epoch") == count("queue_depth"), "of those it owns:\n{text}");
    assert!(count("lease_age_seconds") >= count("epoch"), "of those it leads:\n{text}");
}

/// Calls of actors, a few at a time, through each of the given nodes.
struct Load {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    callers: Vec<tokio::task::JoinHandle<(Duration, Vec<String>)>>,
}

impl Load {
    fn start(cluster: &Cluster, entrances: &[usize]) -> Self {
        let (stop, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let callers = entrances.iter().map(|at| {
            let (to, stop, made, at) = (cluster.node(*at).http(), stop.clone(), made.clone(), *at);
            tokio::spawn(async move {
                let (mut longest, mut failed) = (Duration::ZERO, Vec::new());
                let mut session = Session::new(to);
                while !stop.load(Ordering::SeqCst) {
                    let actor = made.fetch_add(1, Ordering::SeqCst) % 40;
                    let path = format!("/v1.0/actors/{CAT}/busy-{actor}/method/who");
                    let begun = Instant::now();
                    match session.send(request(to, "POST", &path)).await {
                        Ok(answer) if answer.status == 200 => {}
                        Ok(answer) => failed.push(format!("through {at}: {} {}", answer.status, answer.text())),
                        Err(error) => failed.push(format!("through {at}: {error}")),
                    }
                    longest = longest.max(begun.elapsed());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                (longest, failed)
            })
        });
        Self { callers: callers.collect(), stop, made }
    }

    /// Waits until so many more calls have begun.
    async fn goes_on(&self, more: usize) {
        let before = self.made.load(Ordering::SeqCst);
        eventually(PATIENCE, "calls are answered", async || {
            (self.made.load(Ordering::SeqCst) >= before + more).then_some(())
        })
        .await;
    }

    /// How many calls there were, the longest of them, and what failed.
    async fn stop(self) -> (usize, Duration, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = join_all(self.callers).await.into_iter().map(|ended| ended.expect("a caller does not panic"));
        let (waits, failed): (Vec<_>, Vec<_>) = ended.unzip();
        (self.made.load(Ordering::SeqCst), waits.into_iter().max().unwrap_or_default(), failed.concat())
    }
}

async fn named(node: &Node, name: &str) -> Option<Value> {
    let answer = asked(node, "/cluster/v1/nodes").await;
    rows(&answer, "nodes").into_iter().find(|line| line["name"] == name)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn a_node_is_drained_under_load_and_no_call_fails() {
    let cluster = Cluster::of(3, &[CAT]).await;
    let load = Load::start(&cluster, &[0, 1, 2]);
    load.goes_on(60).await;
    let begun = cluster.node(1).post("/cluster/v1/drain?wait=0").send().await;
    assert!([200, 202].contains(&begun.status), "{}", begun.text());
    let drained = cluster.node(1).post("/cluster/v1/drain").within(DRAINED).send().await.expect(200).json();
    assert_eq!((&drained["done"], &drained["held"], &drained["placed"]), (&json!(true), &json!(0), &json!(0)));
    load.goes_on(60).await;
    let (calls, longest, failed) = load.stop().await;
    println!("{calls} calls, the longest {longest:?}");
    assert!(failed.is_empty(), "{failed:#?}");

    let line = named(cluster.node(0), "app-1").await.expect("it is still registered");
    assert_eq!((&line["state"], &line["holds"], &line["leads"]), (&json!("leaving"), &json!(0), &json!(0)));
    cluster.node(1).call(CAT, "entrance", "who").await.expect(200);
    cluster.node(1).get("/cluster/v1/ready").send().await.expect_empty();
    let status = asked(cluster.node(1), "/cluster/v1/status").await;
    assert_eq!((&status["mayFail"], &status["nodes"]["storage"]), (&json!(0), &json!(2)));
    let notes = texts_of(&status["notes"]);
    assert!(notes.contains("second disk") && notes.contains("three storage nodes"), "{notes}");
    assert!(cluster.overlaps(CAT).is_empty(), "{:#?}", cluster.overlaps(CAT));
}

fn texts_of(notes: &Value) -> String {
    notes.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn a_drained_node_that_starts_again_takes_its_share_again() {
    let mut cluster = Cluster::of(3, &[CAT]).await;
    cluster.node(2).post("/cluster/v1/drain").within(DRAINED).send().await.expect(200);
    cluster.node_mut(2).restart_ready().await;
    cluster.settled().await;
    let line = named(cluster.node(0), "app-2").await.expect("it is registered");
    assert_eq!((&line["state"], &line["holds"]), (&json!("up"), &json!(16)));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn a_node_that_leaves_stops_and_is_no_more_of_the_cluster_and_what_it_held_is_there() {
    let mut cluster = Cluster::of(3, &[CAT]).await;
    let actors = ids("kept", 20);
    for (n, id) in actors.iter().enumerate() {
        furnish(&cluster, n % 3, id, &json!(n)).await;
    }
    let load = Load::start(&cluster, &[1, 2]);
    load.goes_on(60).await;
    let left = run(cluster.node(0), &["leave"]).await;
    assert!(stdout(&left).contains("has left"), "{left:?}");
    let ended = cluster.node_mut(0).wait_end(PATIENCE).await;
    assert!(ended.success(), "{ended}");
    load.goes_on(60).await;
    let (calls, longest, failed) = load.stop().await;
    println!("{calls} calls, the longest {longest:?}");
    assert!(failed.is_empty(), "{failed:#?}");

    for at in [1, 2] {
        let answer = asked(cluster.node(at), "/cluster/v1/nodes").await;
        assert_eq!(texts(&rows(&answer, "nodes"), "name"), ["app-1", "app-2"], "as node {at} has it");
        let listed = texts(&paged(cluster.node(at), "/cluster/v1/actors", "actors").await, "id");
        assert!(actors.iter().all(|id| listed.contains(id)), "as node {at} has it: {listed:?}");
    }
    for (n, id) in actors.iter().enumerate() {
        assert_eq!(cluster.node(1 + n % 2).get_state(CAT, id, "k").await.expect(200).json(), json!(n));
    }
    assert!(cluster.overlaps(CAT).is_empty(), "{:#?}", cluster.overlaps(CAT));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn without_a_majority_lists_name_a_partition_and_the_node_is_not_ready_but_healthy() {
    let mut cluster = Cluster::of(3, &[CAT]).await;
    furnish(&cluster, 0, "one", &json!(1)).await;
    cluster.kill(1);
    cluster.kill(2);
    let node = cluster.node(0);
    eventually(PATIENCE, "the majority is missed", async || {
        let answer = node.get("/cluster/v1/ready").within(NO_OWNER).send().await;
        (answer.status == 503).then_some(())
    })
    .await;
    let answer = node.get("/cluster/v1/actors").within(NO_OWNER).send().await;
    let answer = answer.expect_error(503, "ERR_UNAVAILABLE", "has no owner that answers");
    assert!(answer.text().contains("partition "), "{}", answer.text());
    node.get("/v1.0/healthz").send().await.expect_empty();
    let status = asked(node, "/cluster/v1/status").await;
    assert_eq!((&status["mayFail"], &status["nodes"]["down"]), (&json!(0), &json!(2)));
    assert_eq!(rows(&status["partitions"], "withoutQuorum").len(), 17, "{status}");
    let notes = texts_of(&status["notes"]);
    assert!(notes.contains("no majority is up of: meta"), "{notes}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn the_only_storage_node_neither_drains_nor_leaves() {
    let mut cluster = Cluster::of(1, &[CAT]).await;
    for way in ["drain", "leave"] {
        let answer = cluster.node(0).post(&format!("/cluster/v1/{way}")).send().await;
        answer.expect_error(409, "ERR_CONFLICT", "no other storage node is up");
        let tried = run(cluster.node(0), &[way]).await;
        assert!(!tried.status.success() && String::from_utf8_lossy(&tried.stderr).contains("no other storage node"));
    }
    assert!(cluster.node_mut(0).is_running());
    assert_eq!(named(cluster.node(0), "app-0").await.expect("it is registered")["state"], "up");
    cluster.node(0).call(CAT, "still", "who").await.expect(200);
    for wrong in ["wait=x", "wait=-1", "wait=99999"] {
        cluster.node(0).post(&format!("/cluster/v1/drain?{wrong}")).send().await.expect(400);
    }
    cluster.node(0).get("/cluster/v1/drain").send().await.expect(404);
}

#[tokio::test]
async fn ready_is_of_the_node_and_never_of_its_app() {
    let gone = App::hosting(&[CAT]).await;
    let address = gone.address;
    gone.stop().await;
    let node = Setup::default().app_at(address).start().await;
    node.get("/v1.0/healthz").send().await.expect(500);
    eventually(PATIENCE, "the node is ready", async || {
        let answer = node.get("/cluster/v1/ready").send().await;
        (answer.status == 204).then_some(())
    })
    .await;
}

#[tokio::test]
async fn operating_a_cluster_needs_the_token_that_its_other_requests_need() {
    let node = Setup::default().env("DAPR_API_TOKEN", "secret").start().await;
    for (method, path) in [("GET", "status"), ("GET", "nodes"), ("GET", "ready"), ("POST", "drain"), ("POST", "leave")]
    {
        let path = format!("/cluster/v1/{path}");
        node.request(method, &path).send().await.expect(401);
    }
    node.get("/cluster/v1/status").header("dapr-api-token", "secret").send().await.expect(200);
}
