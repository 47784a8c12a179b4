//! Many reminders on one node: registered for later, listed, registered again for soon, fired on time, and what they cost
//! in memory.
//!
//! The list is looked at while nothing is due, so that it must hold every reminder, however slow the machine is; how
//! long the first registration took then says when the second one will be over and the firing may begin.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use callboard_tests::app::{App, Reply};
use callboard_tests::http::{Session, request};
use callboard_tests::node::Setup;
use callboard_tests::process::resident;
use callboard_tests::wait::eventually;
use chrono::{DateTime, SecondsFormat, Utc};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{REMINDERS, dose};

const PER_ACTOR: usize = 100;
const CONNECTIONS: usize = 64;
/// Firings per second that the due times are spread for.
const RATE: f64 = 1_000.0;
/// How much longer than the first registration the second may take before the first of them is due.
const MARGIN: f64 = 1.5;
/// Half of the firings are no later than this on any machine that keeps up.
const MEDIAN_LATE: Duration = Duration::from_secs(2);

type Seen = Arc<Mutex<HashMap<String, Vec<DateTime<Utc>>>>>;

#[tokio::test(flavor = "multi_thread")]
async fn many_reminders_are_registered_listed_and_fired_on_time() {
    let count = dose(REMINDERS, 2_000);
    let app = App::hosting(&["bell"]).await;
    let seen: Seen = Arc::default();
    let record = seen.clone();
    app.on("/actors/bell/", move |call| {
        record.lock().entry(call.path).or_default().push(Utc::now());
        async { Reply::ok() }
    });
    let node = Setup::default().app(&app).ready().await;
    let empty = resident(node.id());

    let address = node.http();
    let begun = Instant::now();
    let far = Utc::now() + chrono::Duration::hours(12);
    register(address, count, move |_| far).await;
    let took = begun.elapsed();
    println!("{count} reminders registered in {took:.1?}: {:.0}/s", count as f64 / took.as_secs_f64());
    println!("memory: {} MiB empty, {} MiB with {count} reminders", empty >> 20, resident(node.id()) >> 20);

    let begun = Instant::now();
    let listed = list(address).await;
    println!("{} reminders listed in {:.1?}", listed.len(), begun.elapsed());
    let mut missing = (0..count).collect::<BTreeSet<_>>();
    for (actor_id, name) in listed {
        let n = name.parse().expect("a number");
        assert!(missing.remove(&n), "{name} is listed twice, or was never registered");
        assert_eq!(actor_id, actor(n));
    }
    assert!(missing.is_empty(), "{} are not listed, {:?} among them", missing.len(), missing.first());
    assert!(seen.lock().is_empty(), "what is due in hours has fired");

    let first = Utc::now() + seconds(took.as_secs_f64() * MARGIN + 5.0);
    let due = move |n: usize| first + seconds(n as f64 / RATE);
    register(address, count, due).await;

    let bound = (due(count) - Utc::now()).to_std().unwrap_or_default() + Duration::from_secs(120);
    eventually(bound, "every reminder has fired", async || (seen.lock().len() >= count).then_some(())).await;
    let seen = seen.lock();
    let mut late: Vec<f64> = Vec::with_capacity(count);
    for n in 0..count {
        let fired = &seen[&format!("/actors/bell/{}/method/remind/{n}", actor(n))];
        let lateness = (fired[0] - due(n)).num_microseconds().expect("not years") as f64 / 1e6;
        assert!(lateness >= 0.0, "reminder {n} fired {:.6} s early", -lateness);
        assert_eq!(fired.len(), 1, "reminder {n} fired more than once");
        late.push(lateness);
    }
    late.sort_by(f64::total_cmp);
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    println!(
        "lateness: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms; memory {} MiB after all fired",
        at(0.5) * 1e3,
        at(0.99) * 1e3,
        at(1.0) * 1e3,
        resident(node.id()) >> 20
    );
    assert!(at(0.5) <= MEDIAN_LATE.as_secs_f64(), "half of the firings are later than {MEDIAN_LATE:?}");
}

fn actor(n: usize) -> String {
    format!("b{}", n / PER_ACTOR)
}

fn seconds(count: f64) -> chrono::Duration {
    chrono::Duration::microseconds((count * 1e6) as i64)
}

/// Registers all reminders, over many connections at once.
async fn register(node: SocketAddr, count: usize, due: impl Fn(usize) -> DateTime<Utc> + Copy + Send + 'static) {
    let registering: Vec<_> = (0..CONNECTIONS)
        .map(|connection| {
            tokio::spawn(async move {
                let mut session = Session::new(node);
                for n in (connection..count).step_by(CONNECTIONS) {
                    let path = format!("/v1.0/actors/bell/{}/reminders/{n}", actor(n));
                    let body = json!({"dueTime": due(n).to_rfc3339_opts(SecondsFormat::Nanos, true), "data": n});
                    let answer = session.send(request(node, "PUT", &path).json(&body)).await.expect("an answer");
                    answer.expect_empty();
                }
            })
        })
        .collect();
    for registering in registering {
        registering.await.expect("registered");
    }
}

/// Actor and name of every reminder, by the pages of actors and the list of each.
async fn list(node: SocketAddr) -> Vec<(String, String)> {
    let mut session = Session::new(node);
    let mut after = String::new();
    let mut listed = Vec::new();
    loop {
        let path = format!("/cluster/v1/actors?type=bell&limit=100{after}");
        let page = session.send(request(node, "GET", &path)).await.expect("an answer").expect(200).json();
        for entry in page["actors"].as_array().expect("a list of actors") {
            let id = entry["id"].as_str().expect("an id");
            let path = format!("/v1.0/actors/bell/{id}/reminders");
            let reminders = session.send(request(node, "GET", &path)).await.expect("an answer").expect(200).json();
            let entries = reminders.as_array().or_else(|| reminders["reminders"].as_array());
            let names = entries.expect("a list of reminders").iter().map(|entry| entry["name"].as_str());
            listed.extend(names.map(|name| (id.to_owned(), name.expect("a name").to_owned())));
        }
        match page.get("next").and_then(Value::as_str) {
            // A cursor is of letters that a query carries as they are.
            Some(next) => after = format!("&after={next}"),
            None => return listed,
        }
    }
}
