//! Turns: calls, reminders and timers of one actor follow one another, those of different actors do not wait.

use std::sync::Arc;
use std::time::Duration;

use callboard_tests::app::{App, Call, Reply};
use callboard_tests::node::{Node, Setup};
use callboard_tests::wait::{Gate, PATIENCE, eventually, stays};
use serde_json::json;

use crate::stage::{BRIEF, CAT, Stage, at, gives_back, settled, stage, unique};

/// Makes every turn of an actor wait at a gate.
fn hold(stage: &Stage, id: &str) -> Arc<Gate> {
    let gate = Arc::new(Gate::closed());
    let door = gate.clone();
    stage.app.on(&at(CAT, id), move |_| {
        let door = door.clone();
        async move {
            door.enter().await;
            Reply::ok()
        }
    });
    gate
}

/// True when no two of these turns were under way at the same time.
fn one_after_another(mut turns: Vec<Call>) -> bool {
    turns.sort_by_key(|turn| turn.begun);
    turns.windows(2).all(|pair| pair[0].ended.is_some_and(|ended| ended <= pair[1].begun))
}

/// actors/lock/call/local/http.go (twin of grpc.go)
#[tokio::test]
async fn a_second_call_to_an_actor_waits_for_the_first() {
    let stage = stage().await;
    let id = unique("turn");
    let gate = hold(stage, &id);
    let url = format!("/v1.0/actors/{CAT}/{id}/method/foo");
    let first = tokio::spawn(stage.node.post(&url).send());
    stage.app.wait_for(1, &at(CAT, &id), PATIENCE).await;
    let second = tokio::spawn(stage.node.post(&url).send());
    stays(Duration::from_secs(1), "the number of turns", 1, async || stage.app.count(&at(CAT, &id))).await;
    gate.let_through(1);
    first.await.expect("sent").expect(200);
    stage.app.wait_for(2, &at(CAT, &id), PATIENCE).await;
    gate.let_through(1);
    second.await.expect("sent").expect(200);
    assert!(one_after_another(stage.app.calls_to(&at(CAT, &id))));
}

/// actors/lock/call/local/chain/http.go (twin of chain/grpc.go)
#[tokio::test]
async fn an_actor_that_waits_holds_up_no_other() {
    let stage = stage().await;
    let (one, other) = (unique("chain"), unique("chain"));
    let gates = [hold(stage, &one), hold(stage, &other)];
    let call = |id: &str| tokio::spawn(stage.node.post(&format!("/v1.0/actors/{CAT}/{id}/method/foo")).send());
    let first = call(&one);
    stage.app.wait_for(1, &at(CAT, &one), PATIENCE).await;
    let second = call(&other);
    stage.app.wait_for(1, &at(CAT, &other), PATIENCE).await;
    let third = call(&one);
    stays(Duration::from_secs(1), "the number of turns", 1, async || stage.app.count(&at(CAT, &one))).await;
    gates.iter().for_each(|gate| gate.let_through(1));
    stage.app.wait_for(2, &at(CAT, &one), PATIENCE).await;
    gates[0].let_through(1);
    for sent in [first, second, third] {
        sent.await.expect("sent").expect(200);
    }
}

/// dapr.md 4: strict FIFO.
#[tokio::test]
async fn waiting_calls_are_served_in_the_order_of_their_arrival() {
    // A node of its own: how many wait is told for all its actors together.
    let app = App::hosting(&[CAT]).await;
    let stage = Stage { node: Setup::default().app(&app).ready().await, app };
    let id = unique("fifo");
    let gate = hold(&stage, &id);
    let mut sent = Vec::new();
    for n in 0..10 {
        sent.push(tokio::spawn(stage.node.post(&format!("/v1.0/actors/{CAT}/{id}/method/m{n}")).send()));
        stage.app.wait_for(1, &at(CAT, &id), PATIENCE).await;
        eventually(PATIENCE, "it waits behind those before it", async || {
            (stage.node.metric("callboard_calls_waiting").await == n).then_some(())
        })
        .await;
    }
    gate.open();
    for sent in sent {
        sent.await.expect("sent").expect(200);
    }
    let turns = stage.app.calls_to(&at(CAT, &id));
    let order: Vec<_> = turns.iter().map(|turn| turn.path.rsplit('m').next().expect("a number").to_owned()).collect();
    assert_eq!(order, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(one_after_another(turns));
}

/// dapr.md 4: a waiter that leaves gives its place up and nothing else.
#[tokio::test]
async fn a_caller_that_leaves_the_queue_shifts_nobody() {
    let stage = stage().await;
    let id = unique("leaves");
    let gate = hold(stage, &id);
    let url = |n: usize| format!("/v1.0/actors/{CAT}/{id}/method/m{n}");
    let first = tokio::spawn(stage.node.post(&url(0)).send());
    stage.app.wait_for(1, &at(CAT, &id), PATIENCE).await;
    let leaving = stage.node.post(&url(1)).within(Duration::from_millis(200)).try_send().await;
    assert!(leaving.is_err(), "the actor is held");
    let rest: Vec<_> = (2..4).map(|n| tokio::spawn(stage.node.post(&url(n)).send())).collect();
    stays(Duration::from_millis(500), "the number of turns", 1, async || stage.app.count(&at(CAT, &id))).await;
    gate.open();
    first.await.expect("sent").expect(200);
    for sent in rest {
        sent.await.expect("sent").expect(200);
    }
    let turns = stage.app.calls_to(&at(CAT, &id));
    assert!(one_after_another(turns.clone()));
    assert!(turns.iter().all(|turn| !turn.path.ends_with("/m1")), "a call whose caller left was made");
}

/// DESIGN 2.4: a caller that times out frees itself, never the lock.
#[tokio::test]
async fn a_caller_that_leaves_a_running_turn_does_not_end_it() {
    let stage = stage().await;
    let id = unique("abandoned");
    let gate = hold(stage, &id);
    let url = format!("/v1.0/actors/{CAT}/{id}/method/foo");
    assert!(stage.node.post(&url).within(Duration::from_millis(300)).try_send().await.is_err());
    assert_eq!(stage.app.count(&at(CAT, &id)), 1);
    let second = tokio::spawn(stage.node.post(&url).send());
    stays(Duration::from_secs(1), "the number of turns", 1, async || stage.app.count(&at(CAT, &id))).await;
    gate.open();
    second.await.expect("sent").expect(200);
    assert!(one_after_another(stage.app.calls_to(&at(CAT, &id))));
}

/// actors/lock/reminders/local/http.go (twin of remote/grpc.go); dapr.md 5.2
#[tokio::test]
async fn a_reminder_takes_its_actors_turn_like_a_call() {
    let stage = stage().await;
    let id = unique("remindturn");
    let gate = hold(stage, &id);
    for name in ["one", "two"] {
        stage.node.remind(CAT, &id, name, json!({"dueTime": "0s"})).await;
    }
    stage.app.wait_for(1, &at(CAT, &id), PATIENCE).await;
    let call = tokio::spawn(stage.node.post(&format!("/v1.0/actors/{CAT}/{id}/method/foo")).send());
    stays(Duration::from_secs(1), "the number of turns", 1, async || stage.app.count(&at(CAT, &id))).await;
    gate.open();
    call.await.expect("sent").expect(200);
    let turns = stage.app.wait_answered(3, &at(CAT, &id), PATIENCE).await;
    assert_eq!(turns.len(), 3);
    assert!(one_after_another(turns));
}

/// actors/lock/timers/local.go (twin of remote.go); dapr.md 5.1
#[tokio::test]
async fn a_timer_takes_its_actors_turn_like_a_call() {
    let stage = stage().await;
    let id = unique("timerturn");
    let gate = hold(stage, &id);
    for name in ["one", "two"] {
        let path = format!("/v1.0/actors/{CAT}/{id}/timers/{name}");
        stage.node.post(&path).json(&json!({"dueTime": "0s"})).send().await.expect_empty();
    }
    stage.app.wait_for(1, &at(CAT, &id), PATIENCE).await;
    stays(Duration::from_secs(1), "the number of turns", 1, async || stage.app.count(&at(CAT, &id))).await;
    gate.let_through(1);
    stage.app.wait_for(2, &at(CAT, &id), PATIENCE).await;
    gate.let_through(1);
    let turns = stage.app.wait_answered(2, &at(CAT, &id), PATIENCE).await;
    assert!(one_after_another(turns));
}

/// dapr.md 5.1: timers of different actors run at the same time.
#[tokio::test]
async fn a_timer_that_blocks_delays_no_other_actor() {
    let stage = stage().await;
    let (held, free) = (unique("blocked"), unique("free"));
    let gate = hold(stage, &held);
    for id in [&held, &free] {
        let path = format!("/v1.0/actors/{CAT}/{id}/timers/t");
        stage.node.post(&path).json(&json!({"dueTime": "0s", "period": "100ms"})).send().await.expect_empty();
    }
    stage.app.wait_answered(3, &at(CAT, &free), PATIENCE).await;
    assert_eq!(stage.app.count(&at(CAT, &held)), 1, "ticks of one timer overlap");
    for id in [&held, &free] {
        stage.node.delete(&format!("/v1.0/actors/{CAT}/{id}/timers/t")).send().await.expect_empty();
    }
    gate.open();
}

/// Calls and fires reminders of actors of their own, and waits until each has had its one DELETE.
async fn round(node: &Node, app: &App, name: &str, actors: usize) {
    for n in 0..actors {
        node.call(BRIEF, &format!("{name}-c{n}"), "foo").await.expect(200);
        node.remind(BRIEF, &format!("{name}-r{n}"), "r", json!({"dueTime": "1ms"})).await;
    }
    for n in 0..actors {
        app.wait_for(1, &at(BRIEF, &format!("{name}-r{n}")), PATIENCE).await;
    }
    eventually(PATIENCE, "every actor has had its DELETE", async || {
        (app.count_of("DELETE", &format!("/actors/{BRIEF}/{name}-")) == 2 * actors).then_some(())
    })
    .await;
}

/// actors/lock/call/local/goroutines.go and actors/lock/reminders/local/goroutines.go: what they count in Go's tasks
/// is counted here in tasks, threads, descriptors and everything else a node lists. A round before the measured one
/// lets all come into being that lives on by design.
#[tokio::test]
async fn many_calls_and_reminders_leave_nothing_behind() {
    let app = App::configured(json!({"entities": [BRIEF], "actorIdleTimeout": "100ms"})).await;
    let node = Setup::default().app(&app).ready().await;
    round(&node, &app, "warm", 20).await;
    let before = settled(&node, &app).await;
    assert_eq!((before.requests, before.actors, before.turns, before.waiting, before.timers), (0, 0, 0, 0, 0));
    round(&node, &app, "many", 300).await;
    gives_back(&node, &app, &before).await;
}

/// P8: a full mailbox answers, it does not hang: 1,024 calls wait, one more is told to come back.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_mailbox_answers_429_and_serves_those_that_wait() {
    const CALLS: usize = 1_200;
    let stage = stage().await;
    let id = unique("full");
    let gate = hold(stage, &id);
    let url = format!("/v1.0/actors/{CAT}/{id}/method/foo");
    let sent: Vec<_> = (0..CALLS).map(|_| tokio::spawn(stage.node.post(&url).send())).collect();
    let refused = eventually(PATIENCE, "calls over the limit are answered", async || {
        let answered = sent.iter().filter(|call| call.is_finished()).count();
        (answered >= CALLS - 1_025).then_some(answered)
    })
    .await;
    assert_eq!(refused, CALLS - 1_025, "one runs, 1,024 wait");
    // Others are served while this one is full.
    stage.node.call(CAT, &unique("beside"), "foo").await.expect(200);
    gate.open();
    let mut served = 0;
    for call in sent {
        let answer = call.await.expect("sent");
        if answer.status == 200 {
            served += 1;
        } else {
            let answer = answer.expect(429);
            assert!(answer.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok()));
            assert!(answer.json()["errorCode"].is_string());
        }
    }
    assert_eq!(served, 1_025);
}
