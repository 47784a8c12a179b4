//! Many reminders on one node: registered, listed, fired on time, and what they cost in memory.

use std::collections::HashMap;
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
/// Registrations per second that the start of the firings is put off for.
const REGISTER: f64 = 1_500.0;
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

    let first = Utc::now() + seconds(count as f64 / REGISTER + 5.0);
    let due = move |n: usize| first + seconds(n as f64 / RATE);
    let begun = Instant::now();
    let address = node.http();
    let registering: Vec<_> = (0..CONNECTIONS)
        .map(|connection| {
            tokio::spawn(async move {
                let mut session = Session::new(address);
                for n in (connection..count).step_by(CONNECTIONS) {
                    let path = format!("/v1.0/actors/bell/{}/reminders/{n}", actor(n));
                    let body = json!({"dueTime": due(n).to_rfc3339_opts(SecondsFormat::Nanos, true), "data": n});
                    let answer = session.send(request(address, "PUT", &path).json(&body)).await.expect("an answer");
                    answer.expect_empty();
                }
            })
        })
        .collect();
    for registering in registering {
        registering.await.expect("registered");
    }
    let took = begun.elapsed();
    println!("{count} reminders registered in {took:.1?}: {:.0}/s", count as f64 / took.as_secs_f64());

    let early = seen.lock().len();
    if early == 0 {
        let begun = Instant::now();
        let listed = list(address).await;
        println!("{listed} reminders listed in {:.1?}", begun.elapsed());
        assert_eq!(listed, count);
    } else {
        println!("registering took so long that {early} had fired: listing is not compared");
    }
    println!("memory: {} MiB empty, {} MiB with {count} reminders", empty >> 20, resident(node.id()) >> 20);

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

/// The number of reminders, by the pages of actors and the list of each.
async fn list(node: std::net::SocketAddr) -> usize {
    let mut session = Session::new(node);
    let mut after = String::new();
    let mut listed = 0;
    loop {
        let path = format!("/cluster/v1/actors?type=bell&limit=100{after}");
        let page = session.send(request(node, "GET", &path)).await.expect("an answer").expect(200).json();
        let actors = page["actors"].as_array().expect("a list of actors").clone();
        for entry in &actors {
            let path = format!("/v1.0/actors/bell/{}/reminders", entry["id"].as_str().expect("an id"));
            let reminders = session.send(request(node, "GET", &path)).await.expect("an answer").expect(200).json();
            let entries = reminders.as_array().or_else(|| reminders["reminders"].as_array());
            listed += entries.expect("a list of reminders").len();
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => {
                after = format!(
                    "&after={}",
                    next.replace('%', "%25").replace('|', "%7C").replace('&', "%26").replace('+', "%2B")
                )
            }
            None => return listed,
        }
    }
}
