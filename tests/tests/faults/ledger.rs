//! Writers that remember what was acknowledged, and the check that it is there.
//!
//! Each writer has an actor of its own and writes transaction n as one unit: keys `a`, `b`, `c` and `k<n>` all get the
//! value n. What it was told is its ledger: `acknowledged` is durable by promise, up to `attempted` may be there,
//! and whatever is there is there whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use callboard_tests::http::{Session, request};
use callboard_tests::node::Node;
use rand::prelude::*;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

pub const KIND: &str = "cat";
/// Every this many transactions a writer registers a reminder.
const REMIND_EVERY: u64 = 7;
/// Unique keys looked at per actor and check.
const SAMPLES: usize = 25;

#[derive(Debug, Clone, Default)]
pub struct Ledger {
    pub actor: String,
    pub attempted: u64,
    pub acknowledged: u64,
    /// Names of reminders whose registration was acknowledged; due in an hour, so all are there.
    pub reminders: Vec<String>,
}

/// Writers at work; dropping the flag's other end does not stop them, [`Load::stop`] does.
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<Ledger>>,
}

pub fn fresh(writers: usize) -> Vec<Ledger> {
    (0..writers).map(|n| Ledger { actor: format!("writer-{n}"), ..Ledger::default() }).collect()
}

impl Load {
    pub fn start(node: &Node, ledgers: Vec<Ledger>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let address = node.http();
        let writers = ledgers
            .into_iter()
            .map(|ledger| {
                let stop = stop.clone();
                tokio::spawn(async move { write(address, ledger, stop).await })
            })
            .collect();
        Self { stop, writers }
    }

    /// Tells the writers that the node is gone and collects what they know.
    pub async fn stop(self) -> Vec<Ledger> {
        self.stop.store(true, Ordering::SeqCst);
        let mut ledgers = Vec::new();
        for writer in self.writers {
            ledgers.push(writer.await.expect("a writer does not panic"));
        }
        ledgers
    }
}

async fn write(node: std::net::SocketAddr, mut ledger: Ledger, stop: Arc<AtomicBool>) -> Ledger {
    let base = format!("/v1.0/actors/{KIND}/{}", ledger.actor);
    let mut session = Session::new(node);
    let mut active = false;
    while !stop.load(Ordering::SeqCst) {
        if !active {
            let answer = session.send(request(node, "POST", &format!("{base}/method/wake"))).await;
            active = answer.is_ok_and(|answer| answer.status == 200);
            continue;
        }
        let n = ledger.attempted + 1;
        ledger.attempted = n;
        let upsert = |key: &str| json!({"operation": "upsert", "request": {"key": key, "value": n}});
        let operations = json!([upsert("a"), upsert("b"), upsert(&format!("k{n}")), upsert("c")]);
        match session.send(request(node, "PUT", &format!("{base}/state")).json(&operations)).await {
            Ok(answer) if answer.status == 204 => ledger.acknowledged = n,
            // Not acknowledged: it may be there or not, and the actor may have to be woken again.
            Ok(_) | Err(_) => active = false,
        }
        if n.is_multiple_of(REMIND_EVERY) {
            let name = format!("r{n}");
            let body = json!({"dueTime": "1h", "data": n});
            let registered = session.send(request(node, "PUT", &format!("{base}/reminders/{name}")).json(&body)).await;
            if registered.is_ok_and(|answer| answer.status == 204) {
                ledger.reminders.push(name);
            }
        }
    }
    ledger
}

/// What a check found wrong.
#[derive(Debug, Default)]
pub struct Verdict {
    pub lost: Vec<String>,
    pub torn: Vec<String>,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.torn.is_empty()
    }
}

/// Compares the node with the ledgers, and sets them to what is there, so that writing can go on.
pub async fn check(node: &Node, ledgers: &mut [Ledger]) -> Verdict {
    let mut verdict = Verdict::default();
    let mut session = Session::new(node.http());
    for ledger in ledgers {
        let base = format!("/v1.0/actors/{KIND}/{}", ledger.actor);
        let mut values = Vec::new();
        for key in ["a", "b", "c"] {
            values.push(read(&mut session, node, &format!("{base}/state/{key}")).await);
        }
        let there = values[0].unwrap_or(0);
        if values.iter().any(|value| *value != values[0]) {
            verdict.torn.push(format!("{}: a, b, c are {values:?}", ledger.actor));
        }
        if there < ledger.acknowledged || there > ledger.attempted {
            let (acknowledged, attempted) = (ledger.acknowledged, ledger.attempted);
            verdict.lost.push(format!(
                "{}: {there} is there, {acknowledged} acknowledged, {attempted} attempted",
                ledger.actor
            ));
        }
        let mut samples: Vec<u64> =
            (0..SAMPLES).filter(|_| there > 0).map(|_| rand::rng().random_range(1..=there)).collect();
        samples.extend([there, ledger.acknowledged].into_iter().filter(|n| *n > 0));
        for n in samples {
            let value = read(&mut session, node, &format!("{base}/state/k{n}")).await;
            // One that was refused and never repeated is rightly absent; one below the newest acknowledged is judged by it.
            if value.is_some_and(|value| value != n) {
                verdict.torn.push(format!("{}: k{n} is {value:?}", ledger.actor));
            }
            if n == ledger.acknowledged && value.is_none() {
                verdict.lost.push(format!("{}: k{n} was acknowledged", ledger.actor));
            }
            if n == there && value.is_none() {
                verdict.torn.push(format!("{}: a is {there} but k{n} is absent", ledger.actor));
            }
        }
        for name in &ledger.reminders {
            let answer = session.send(request(node.http(), "GET", &format!("{base}/reminders/{name}"))).await;
            if answer.as_ref().map(|answer| answer.status).ok() != Some(200) {
                verdict.lost.push(format!("{}: reminder {name}", ledger.actor));
            }
        }
        ledger.attempted = ledger.attempted.max(there);
        ledger.acknowledged = there;
    }
    verdict
}

async fn read(session: &mut Session, node: &Node, path: &str) -> Option<u64> {
    let answer =
        session.send(request(node.http(), "GET", path)).await.unwrap_or_else(|error| panic!("{path}: {error}"));
    match answer.status {
        200 => Some(answer.json().as_u64().unwrap_or_else(|| panic!("{path}: {}", answer.text()))),
        204 => None,
        other => panic!("{path}: status {other}: {}", answer.text()),
    }
}

/// How many transactions were acknowledged in all.
pub fn acknowledged(ledgers: &[Ledger]) -> u64 {
    ledgers.iter().map(|ledger| ledger.acknowledged).sum()
}

/// A while in which the writers work, of random length.
pub async fn work_for_a_while() {
    let while_ = Duration::from_millis(rand::rng().random_range(400..1_500));
    tokio::time::sleep(while_).await;
}

/// The settings of reminders that fire soon: used to show that none is lost.
pub fn soon() -> Value {
    json!({"dueTime": "1s"})
}
