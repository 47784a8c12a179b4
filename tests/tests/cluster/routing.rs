//! Any node is an entrance: to every actor, its state, its reminders, and to every app.

use std::time::Duration;

use callboard_tests::app::Reply;
use callboard_tests::cluster::{Cluster, ids, relaying};
use callboard_tests::wait::{PATIENCE, eventually, stays};
use serde_json::{Value, json};

use crate::CAT;

const ALL: [usize; 3] = [0, 1, 2];
/// What a body may be on the way to another node and back.
const LARGE: usize = 1 << 20;

fn actor(id: &str) -> String {
    format!("/v1.0/actors/{CAT}/{id}")
}

async fn reads(cluster: &Cluster, id: &str, key: &str) -> Vec<(u16, String)> {
    let mut answers = Vec::new();
    for at in ALL {
        let answer = cluster.node(at).get_state(CAT, id, key).await;
        answers.push((answer.status, answer.text()));
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_through_each_of_three_nodes_reach_one_activation_of_each_actor() {
    let cluster = Cluster::of(3, &[CAT]).await;
    let actors = ids("one", 32);
    for _ in 0..3 {
        for at in ALL {
            for id in &actors {
                cluster.node(at).call(CAT, id, "who").await.expect(200);
            }
        }
    }
    let seen = cluster.seen(CAT);
    for id in &actors {
        let turns = seen[id].iter().filter(|(_, call)| call.method != "DELETE").count();
        assert_eq!(turns, 9, "{id}: each call is one turn");
    }
    assert!(cluster.moved(CAT).is_empty(), "{:#?}", cluster.moved(CAT));
    assert!(cluster.overlaps(CAT).is_empty(), "{:#?}", cluster.overlaps(CAT));
    let hosts = ALL.iter().filter(|at| cluster.app(**at).count(&format!("/actors/{CAT}/")) > 0).count();
    assert_eq!(hosts, 3, "every app has its share of 32 actors");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn state_written_through_one_node_is_read_through_all_and_expires_for_all() {
    let cluster = Cluster::of(3, &[CAT]).await;
    for (n, id) in ids("state", 6).iter().enumerate() {
        let operations = json!([
            {"operation": "upsert", "request": {"key": "k", "value": n}},
            {"operation": "upsert", "request": {"key": "short", "value": "v", "metadata": {"ttlInSeconds": "3"}}},
        ]);
        let written = cluster.relay(n % 3, (CAT, id), "PUT", &format!("{}/state", actor(id)), operations).await;
        assert_eq!(written.status, 204, "{written:?}");
        assert_eq!(reads(&cluster, id, "k").await, vec![(200, n.to_string()); 3], "{id}");
        eventually(PATIENCE, "the short-lived key is gone, for all", async || {
            (reads(&cluster, id, "short").await == vec![(204, String::new()); 3]).then_some(())
        })
        .await;
        assert_eq!(reads(&cluster, id, "k").await, vec![(200, n.to_string()); 3], "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn a_reminder_registered_through_one_node_is_shown_by_all_and_fires_once_and_not_early() {
    let cluster = Cluster::of(3, &[CAT]).await;
    let due = Duration::from_secs(2);
    for (n, id) in ids("remind", 6).iter().enumerate() {
        let begun = std::time::Instant::now();
        cluster.node(n % 3).remind(CAT, id, "r", json!({"dueTime": "2s", "data": n})).await;
        for at in ALL {
            let shown = cluster.node(at).get(&format!("{}/reminders/r", actor(id))).send().await;
            assert_eq!(shown.expect(200).json()["data"], n, "{id} through {at}");
            let listed = cluster.node(at).get(&format!("{}/reminders", actor(id))).send().await.expect(200).text();
            assert!(listed.contains("\"r\""), "{id} through {at}: {listed}");
        }
        let fired = || -> Vec<_> {
            let path = format!("/actors/{CAT}/{id}/method/remind/r");
            ALL.iter().flat_map(|at| cluster.app(*at).calls_to(&path)).collect()
        };
        let first = eventually(PATIENCE, "it fires", async || fired().pop()).await;
        let after = first.begun - begun;
        assert!(after >= due, "{id} fired after {after:?}");
        stays(Duration::from_millis(500), "the number of times it has fired", 1, async || fired().len()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn a_timer_ticks_where_its_actor_lives() {
    let cluster = Cluster::of(3, &[CAT]).await;
    for (n, id) in ids("timer", 6).iter().enumerate() {
        let body = json!({"dueTime": "100ms", "period": "100ms", "callback": "tick"});
        let set = cluster.relay(n % 3, (CAT, id), "POST", &format!("{}/timers/t", actor(id)), body).await;
        assert_eq!(set.status, 204, "{set:?}");
        let path = format!("/actors/{CAT}/{id}/method/timer/t");
        eventually(PATIENCE, "it ticks three times", async || {
            (ALL.iter().map(|at| cluster.app(*at).count(&path)).sum::<usize>() >= 3).then_some(())
        })
        .await;
    }
    assert!(cluster.moved(CAT).is_empty(), "{:#?}", cluster.moved(CAT));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn a_node_invokes_the_apps_of_other_nodes_with_status_headers_and_bodies_both_ways() {
    let cluster = Cluster::of(3, &[CAT]).await;
    for at in ALL {
        cluster.app(at).on("/echo", move |call| async move {
            let status = call.query.as_deref().and_then(|query| query.parse().ok()).unwrap_or(200);
            let (kind, asked) =
                (call.header("content-type").unwrap_or_default(), call.header("x-asked").unwrap_or_default());
            Reply::status(status)
                .header("content-type", kind)
                .header("x-answered", asked)
                .header("x-app", &at.to_string())
                .body(call.body.clone())
        });
    }
    for from in ALL {
        for to in ALL {
            for (status, size) in [(200, 0), (201, 1), (404, 70_000), (503, LARGE)] {
                let path = format!("/v1.0/invoke/app-{to}/method/echo?{status}");
                let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
                let request = cluster.node(from).post(&path).header("x-asked", "why").header("content-type", "a/b");
                let answer = eventually(PATIENCE, "the app is known", async || {
                    let answer = cluster.node(from).get(&format!("/v1.0/invoke/app-{to}/method/echo")).send().await;
                    (answer.status == 200).then_some(())
                });
                answer.await;
                let answer = request.body(body.clone()).send().await.expect(status);
                assert_eq!(answer.header("x-app"), Some(to.to_string().as_str()), "{from} to {to}");
                assert_eq!(answer.header("x-answered"), Some("why"), "{from} to {to}");
                assert_eq!(answer.header("content-type"), Some("a/b"), "{from} to {to}");
                assert!(answer.body == body, "{from} to {to}: {} of {size} bytes", answer.body.len());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the full dose: make faults"]
async fn an_app_that_no_node_has_is_refused_as_on_a_node_alone() {
    let cluster = Cluster::of(3, &[CAT]).await;
    let alone = Cluster::of(1, &[CAT]).await;
    let path = "/v1.0/invoke/nobody/method/x";
    let expected = alone.node(0).get(path).send().await;
    for at in ALL {
        let answer = cluster.node(at).get(path).send().await;
        assert_eq!((answer.status, answer.text()), (expected.status, expected.text()), "through {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_comes_back_over_another_node_enters_the_actor_it_began_at() {
    let hosting = |kind: &str| json!({"entities": [kind], "reentrancy": {"enabled": true}});
    let cluster = Cluster::each(&[hosting("a"), hosting("b"), json!({})]).await;
    for entrance in ALL {
        let id = format!("chain-{entrance}");
        let back = relaying("POST", &format!("/v1.0/actors/a/{id}/method/who"), Value::Null);
        let over = format!("/v1.0/actors/b/{id}/method/relay");
        let first = cluster.relay(entrance, ("a", &id), "POST", &over, back).await;
        assert_eq!(first.status, 200, "{first:?}");
        let second: Value = serde_json::from_str(&first.text).expect("the answer of b");
        assert_eq!((&second["at"], &second["status"], &second["text"]), (&json!(1), &json!(200), &json!("0")));
        let chains = |at: usize, kind: &str| -> Vec<_> {
            let calls = cluster.app(at).calls_to(&format!("/actors/{kind}/{id}/method/"));
            calls.iter().map(|call| call.header("dapr-reentrancy-id").expect("an id").to_owned()).collect()
        };
        let (a, b) = (chains(0, "a"), chains(1, "b"));
        assert_eq!((a.len(), b.len()), (2, 1));
        assert!(a.iter().all(|chain| *chain == b[0]), "one chain: {a:?}, {b:?}");
    }
}
