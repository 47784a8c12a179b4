//! Call chains that come back to the actor they started from.

use std::sync::Arc;
use std::time::Duration;

use callboard_tests::app::Reply;
use callboard_tests::http::Answer;
use callboard_tests::wait::{Gate, PATIENCE, stays};
use tokio::task::JoinHandle;

use crate::stage::{CAT, DEEP, LOOP, LOW, PLAIN, Stage, at, stage, unique};

const HEADER: &str = "dapr-reentrancy-id";

fn hold(stage: &Stage, kind: &str, id: &str) -> Arc<Gate> {
    let gate = Arc::new(Gate::closed());
    let door = gate.clone();
    stage.app.on(&at(kind, id), move |_| {
        let door = door.clone();
        async move {
            door.enter().await;
            Reply::ok()
        }
    });
    gate
}

fn enter(stage: &Stage, kind: &str, id: &str, chain: Option<&str>) -> JoinHandle<Answer> {
    let mut request = stage.node.post(&format!("/v1.0/actors/{kind}/{id}/method/foo"));
    if let Some(chain) = chain {
        request = request.header(HEADER, chain);
    }
    tokio::spawn(request.send())
}

/// Makes one call and gives the id of the chain it began.
async fn begin(stage: &Stage, kind: &str, id: &str) -> (JoinHandle<Answer>, String) {
    let first = enter(stage, kind, id, None);
    let calls = stage.app.wait_for(1, &at(kind, id), PATIENCE).await;
    let chain = calls[0].header(HEADER).expect("a reentrant actor's call carries the id").to_owned();
    assert!(!chain.is_empty());
    (first, chain)
}

/// actors/grpc/reentrancy.go, its HTTP twin
#[tokio::test]
async fn each_top_level_call_gets_an_id_of_its_own() {
    let stage = stage().await;
    let id = unique("ids");
    for _ in 0..3 {
        stage.node.call(LOOP, &id, "foo").await.expect(200);
    }
    let mut ids: Vec<_> =
        stage.app.calls_to(&at(LOOP, &id)).iter().map(|call| call.header(HEADER).expect("an id").to_owned()).collect();
    assert!(ids.iter().all(|id| !id.is_empty()));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

/// actors/grpc/reentrancy_disabled.go (HTTP twin), actors/lock/call/reentry/disabled.go,
/// actors/lock/call/reentry/pertype/disabled.go
#[tokio::test]
async fn a_type_without_reentrancy_sends_no_id_also_when_it_is_on_for_others() {
    let stage = stage().await;
    for kind in [CAT, PLAIN] {
        let id = unique("none");
        stage.node.call(kind, &id, "foo").await.expect(200);
        assert_eq!(stage.app.calls_to(&at(kind, &id))[0].header(HEADER), None);
    }
}

/// dapr.md 4: without reentrancy the id opens nothing.
#[tokio::test]
async fn an_id_given_to_a_type_without_reentrancy_does_not_enter_a_running_turn() {
    let stage = stage().await;
    let id = unique("refused");
    let gate = hold(stage, CAT, &id);
    let first = enter(stage, CAT, &id, Some("chain"));
    stage.app.wait_for(1, &at(CAT, &id), PATIENCE).await;
    let second = enter(stage, CAT, &id, Some("chain"));
    stays(Duration::from_secs(1), "the number of turns", 1, async || stage.app.count(&at(CAT, &id))).await;
    gate.open();
    first.await.expect("sent").expect(200);
    second.await.expect("sent").expect(200);
}

/// actors/lock/call/reentry/local/http.go (twin of local/grpc.go)
#[tokio::test]
async fn a_call_with_the_id_of_the_running_turn_enters_at_once() {
    let stage = stage().await;
    let id = unique("reenter");
    let gate = hold(stage, LOOP, &id);
    let (first, chain) = begin(stage, LOOP, &id).await;
    let mut sent = vec![first];
    for depth in 2..=20 {
        sent.push(enter(stage, LOOP, &id, Some(&chain)));
        stage.app.wait_for(depth, &at(LOOP, &id), PATIENCE).await;
    }
    let stranger = enter(stage, LOOP, &id, Some("another-chain"));
    stays(Duration::from_millis(500), "the number of turns", 20, async || stage.app.count(&at(LOOP, &id))).await;
    gate.open();
    for sent in sent {
        sent.await.expect("sent").expect(200);
    }
    stranger.await.expect("sent").expect(200);
    let calls = stage.app.calls_to(&at(LOOP, &id));
    assert!(calls[..20].iter().all(|call| call.header(HEADER) == Some(chain.as_str())));
    assert_eq!(calls[20].header(HEADER), Some("another-chain"));
}

/// dapr.md 4: a call with an id that already waits joins that place in the queue.
#[tokio::test]
async fn a_call_with_the_id_of_a_waiting_call_joins_it() {
    let stage = stage().await;
    let id = unique("join");
    let gate = hold(stage, LOOP, &id);
    let (first, _) = begin(stage, LOOP, &id).await;
    let waiting = [enter(stage, LOOP, &id, Some("joint")), enter(stage, LOOP, &id, Some("joint"))];
    stays(Duration::from_millis(500), "the number of turns", 1, async || stage.app.count(&at(LOOP, &id))).await;
    gate.let_through(1);
    first.await.expect("sent").expect(200);
    // Both are inside together: neither has been let through.
    stage.app.wait_for(3, &at(LOOP, &id), PATIENCE).await;
    gate.open();
    for sent in waiting {
        sent.await.expect("sent").expect(200);
    }
}

/// Enters `limit` times, then once more and expects a refusal; the turn ends and the actor still serves.
async fn depth_is(kind: &str, limit: usize) {
    let stage = stage().await;
    let id = unique("depth");
    let gate = hold(stage, kind, &id);
    let (first, chain) = begin(stage, kind, &id).await;
    let mut sent = vec![first];
    for depth in 2..=limit {
        sent.push(enter(stage, kind, &id, Some(&chain)));
        stage.app.wait_for(depth, &at(kind, &id), PATIENCE).await;
    }
    for _ in 0..3 {
        let over = enter(stage, kind, &id, Some(&chain)).await.expect("sent");
        over.expect_error(500, "ERR_ACTOR_STACK_DEPTH", "maximum stack depth exceeded");
    }
    assert_eq!(stage.app.count(&at(kind, &id)), limit);
    gate.open();
    for sent in sent {
        sent.await.expect("sent").expect(200);
    }
    // A refused entry leaks nothing: the turn has ended for others.
    stage.node.call(kind, &id, "after").await.expect(200);
}

/// actors/lock/call/reentry/max/defaultmax.go; dapr.md 4
#[tokio::test]
async fn the_default_depth_is_32() {
    depth_is(LOOP, 32).await;
}

/// actors/lock/call/reentry/max/custommax.go
#[tokio::test]
async fn a_depth_of_23_refuses_the_24th_entry() {
    depth_is(DEEP, 23).await;
}

/// actors/lock/call/reentry/pertype/http.go (twin of pertype/grpc.go)
#[tokio::test]
async fn each_type_has_its_own_depth() {
    depth_is("shallow", 2).await;
    depth_is(LOW, 12).await;
}

/// Calls to other actors between the entries of one do not count for it.
async fn hops(kind: &str, limit: usize, entries: usize) {
    let stage = stage().await;
    let id = unique("hop");
    let gate = hold(stage, kind, &id);
    let (first, chain) = begin(stage, kind, &id).await;
    let mut sent = vec![first];
    let mut count = 1;
    for round in 1..limit {
        sent.push(enter(stage, kind, &id, Some(&chain)));
        stage.app.wait_for(round + 1, &at(kind, &id), PATIENCE).await;
        let other = format!("{id}x{round}");
        let between = hold(stage, kind, &other);
        between.open();
        enter(stage, kind, &other, Some(&chain)).await.expect("sent").expect(200);
        assert_eq!(stage.app.calls_to(&at(kind, &other))[0].header(HEADER), Some(chain.as_str()));
        count += 2;
    }
    assert_eq!(count, entries);
    let over = enter(stage, kind, &id, Some(&chain)).await.expect("sent");
    over.expect_error(500, "ERR_ACTOR_STACK_DEPTH", "maximum stack depth exceeded");
    gate.open();
    for sent in sent {
        sent.await.expect("sent").expect(200);
    }
}

/// actors/lock/call/reentry/max/hop/defaultmax.go, on one host
#[tokio::test]
async fn the_default_depth_counts_only_the_same_actor() {
    hops(LOOP, 32, 63).await;
}

/// actors/lock/call/reentry/max/hop/custommax.go, on one host
#[tokio::test]
async fn a_custom_depth_counts_only_the_same_actor() {
    hops(DEEP, 23, 45).await;
}

/// dapr.md 4: A calls B, B calls A.
#[tokio::test]
async fn a_chain_through_another_actor_comes_back() {
    let stage = stage().await;
    let (a, b) = (unique("there"), unique("back"));
    let node = stage.node.http();
    let (own, other) = (a.clone(), b.clone());
    stage.app.on(&format!("/actors/{LOOP}/{a}/method/start"), move |call| {
        let url = format!("/v1.0/actors/{LOOP}/{other}/method/middle");
        let chain = call.header(HEADER).unwrap_or_default().to_owned();
        async move {
            let answer = callboard_tests::http::request(node, "POST", &url).header(HEADER, &chain).send().await;
            Reply::status(answer.status).body(answer.body)
        }
    });
    stage.app.on(&format!("/actors/{LOOP}/{b}/method/middle"), move |call| {
        let url = format!("/v1.0/actors/{LOOP}/{own}/method/end");
        let chain = call.header(HEADER).unwrap_or_default().to_owned();
        async move {
            let answer = callboard_tests::http::request(node, "POST", &url).header(HEADER, &chain).send().await;
            Reply::status(answer.status).body(answer.body)
        }
    });
    stage.app.answers(&format!("/actors/{LOOP}/{a}/method/end"), 200, "came back");
    assert_eq!(stage.node.call(LOOP, &a, "start").await.expect(200).text(), "came back");
}
