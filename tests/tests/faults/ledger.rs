//! Writers that remember what was acknowledged, and the check that it is there.
//!
//! Each writer has an actor of its own and writes transaction n as one unit: keys `a`, `b`, `c` and `k<n>` all get the
//! value n. What it was told is its ledger: every one of `acknowledged` is durable by promise, up to `attempted` may be
//! there, and whatever is there is there whole. What a check has found is promised from then on as well, so that each
//! check asks for everything that any round before it has left behind.

use std::collections::{BTreeMap, BTreeSet};
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
/// Rows in a page of the listing.
const PAGE: usize = 1_000;

#[derive(Debug, Clone, Default)]
pub struct Ledger {
    pub actor: String,
    pub attempted: u64,
    /// The whole set, not its newest: one lost between two that are there is a loss.
    pub acknowledged: BTreeSet<u64>,
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
            Ok(answer) if answer.status == 204 => {
                ledger.acknowledged.insert(n);
            }
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
    let listed = list(&mut session, node).await;
    let nothing = BTreeMap::new();
    for ledger in ledgers {
        let base = format!("/v1.0/actors/{KIND}/{}", ledger.actor);
        let rows = listed.get(&ledger.actor).unwrap_or(&nothing);
        let found = compare(ledger, rows, &mut verdict);
        // What the listing shows is what the actor itself reads.
        for key in ["a", "b", "c"] {
            let value = read(&mut session, node, &format!("{base}/state/{key}")).await;
            if value != rows.get(key).copied() {
                verdict.torn.push(format!("{}: {key} reads {value:?}, listed {:?}", ledger.actor, rows.get(key)));
            }
        }
        for name in &ledger.reminders {
            let answer = session.send(request(node.http(), "GET", &format!("{base}/reminders/{name}"))).await;
            if answer.as_ref().map(|answer| answer.status).ok() != Some(200) {
                verdict.lost.push(format!("{}: reminder {name}", ledger.actor));
            }
        }
        ledger.acknowledged = found;
    }
    verdict
}

/// Compares all rows of one writer with its ledger; the answer is the transactions that are there.
fn compare(ledger: &Ledger, rows: &BTreeMap<String, u64>, verdict: &mut Verdict) -> BTreeSet<u64> {
    let Ledger { actor, attempted, acknowledged, .. } = ledger;
    let [a, b, c] = ["a", "b", "c"].map(|key| rows.get(key).copied());
    if a != b || b != c {
        verdict.torn.push(format!("{actor}: a, b, c are {a:?}, {b:?}, {c:?}"));
    }
    let newest = a.unwrap_or(0);
    if newest > *attempted {
        verdict.torn.push(format!("{actor}: {newest} is there, {attempted} attempted"));
    }
    let mut found = BTreeSet::new();
    for (key, value) in rows {
        let Some(n) = key.strip_prefix('k').and_then(|n| n.parse::<u64>().ok()) else { continue };
        if n != *value || n > newest {
            verdict.torn.push(format!("{actor}: {key} is {value}, a is {newest}"));
        }
        found.insert(n);
    }
    if newest > 0 && !found.contains(&newest) {
        verdict.torn.push(format!("{actor}: a is {newest} but k{newest} is absent"));
    }
    if let Some(last) = acknowledged.last().filter(|last| newest < **last) {
        verdict.lost.push(format!("{actor}: {newest} is there, {last} was acknowledged"));
    }
    verdict.lost.extend(acknowledged.difference(&found).map(|n| format!("{actor}: k{n} was acknowledged")));
    found
}

/// Every value of every writer, by actor and key, from the listing page by page.
async fn list(session: &mut Session, node: &Node) -> BTreeMap<String, BTreeMap<String, u64>> {
    let prefix = format!("{}||{KIND}||", node.app_id());
    let mut listed: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    let mut after = String::new();
    loop {
        let path = format!("/cluster/v1/state?prefix={}&limit={PAGE}{after}", prefix.replace('|', "%7C"));
        let answer = session.send(request(node.http(), "GET", &path)).await;
        let text = answer.unwrap_or_else(|error| panic!("{path}: {error}")).expect(200).text();
        let mut cursor = None;
        for line in text.lines() {
            let row: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            cursor = Some(row["cursor"].as_str().expect("a cursor on each line").to_owned());
            // A page may end with a line that says only where to go on.
            let Some(name) = row["key"].as_str() else { continue };
            let rest = name.strip_prefix(&prefix).unwrap_or_else(|| panic!("{name} is not below {prefix}"));
            let (actor, key) = rest.split_once("||").expect("an id and a key");
            let value = row["value"].as_u64().unwrap_or_else(|| panic!("no number: {line}"));
            let twice = listed.entry(actor.to_owned()).or_default().insert(key.to_owned(), value);
            assert!(twice.is_none(), "listed twice: {name}");
        }
        let Some(cursor) = cursor else { return listed };
        after = format!("&after={}", escaped(&cursor));
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
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
    ledgers.iter().map(|ledger| ledger.acknowledged.len() as u64).sum()
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

/// The check itself: any one that is missing is a loss, also between two that are there.
#[test]
fn one_lost_transaction_before_the_newest_is_a_loss_and_a_part_of_one_is_torn() {
    let ledger = Ledger {
        actor: "writer".to_owned(),
        attempted: 4,
        acknowledged: BTreeSet::from([1, 2, 4]),
        ..Ledger::default()
    };
    let rows = |rows: &[(&str, u64)]| rows.iter().map(|(key, n)| ((*key).to_owned(), *n)).collect::<BTreeMap<_, _>>();
    let judged = |there: &[(&str, u64)]| {
        let mut verdict = Verdict::default();
        compare(&ledger, &rows(there), &mut verdict);
        (verdict.lost.len(), verdict.torn.len())
    };
    let newest = [("a", 4), ("b", 4), ("c", 4), ("k4", 4), ("k1", 1)];
    assert_eq!(judged(&[&newest[..], &[("k2", 2)]].concat()), (0, 0));
    assert_eq!(judged(&[&newest[..], &[("k2", 2), ("k3", 3)]].concat()), (0, 0), "not acknowledged, and there");
    assert_eq!(judged(&newest), (1, 0), "k2 is lost");
    assert_eq!(judged(&[&newest[..], &[("k2", 1)]].concat()), (0, 1), "k2 has another's value");
    assert_eq!(judged(&[("a", 4), ("b", 4), ("c", 2), ("k1", 1), ("k2", 2), ("k4", 4)]), (0, 1));
    assert_eq!(judged(&[("a", 2), ("b", 2), ("c", 2), ("k1", 1), ("k2", 2)]), (2, 0), "the newest is lost");
    assert_eq!(judged(&[]).0, 4, "all are lost");
}
