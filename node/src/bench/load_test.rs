//! The loops against servers that behave, stall, refuse and vanish.

use std::net::TcpListener as StdListener;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::bench::http;

/// A server on a thread of its own. `answer` is asked before each answer, by the number of the request: how long the
/// whole server stands still, and what it says then; `None` closes the connection.
fn serve(answer: impl Fn(u64) -> (Duration, Option<&'static str>) + Send + 'static) -> SocketAddr {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let answer = Rc::new(answer);
            let requests = Rc::new(AtomicU64::new(0));
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (answer, requests) = (Rc::clone(&answer), Rc::clone(&requests));
                tokio::task::spawn_local(async move {
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                        let (stall, text) = answer(requests.fetch_add(1, Ordering::Relaxed));
                        std::thread::sleep(stall);
                        let Some(text) = text else { return };
                        stream.write_all(text.as_bytes()).await.unwrap();
                    }
                });
            }
        });
    });
    address
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";

fn plan(to: SocketAddr, connections: usize, arrival: Arrival) -> Plan {
    Plan {
        to,
        requests: Arc::from([http::request("GET", "/", "x", &[], b"")]),
        connections,
        arrival,
        warm_up: Duration::from_millis(50),
        duration: Duration::from_millis(600),
        repeat: Repeat::Forever,
    }
}

/// Stands still once, for `stall`, at request `at`.
fn stalling(at: u64, stall: Duration) -> SocketAddr {
    serve(move |number| (if number == at { stall } else { Duration::ZERO }, Some(OK)))
}

#[test]
fn a_stall_costs_every_request_that_was_due_in_it() {
    let stall = Duration::from_millis(300);
    let open = run(&plan(stalling(200, stall), 4, Arrival::Open(1_000.0))).unwrap();
    assert_eq!(open.errors(), 0);
    assert_eq!(open.latencies.len(), 600, "every request that was due is counted");
    // Half of the time the server stood still: a third of all requests and more waited at least 100 ms.
    let summary = open.latencies.summary();
    assert!(summary.max >= 299e3, "{summary:?}");
    assert!(summary.p90 >= 150e3, "{summary:?}");

    let closed = Plan { warm_up: Duration::ZERO, ..plan(stalling(200, stall), 4, Arrival::Closed) };
    let closed = run(&closed).unwrap();
    let summary = closed.latencies.summary();
    assert!(summary.max >= 250e3, "{summary:?}");
    assert!(summary.p90 < 100e3, "the closed loop asked nothing while it waited: {summary:?}");
}

#[test]
fn the_open_loop_keeps_its_rate_and_not_more() {
    let outcome = run(&plan(serve(|_| (Duration::ZERO, Some(OK))), 8, Arrival::Open(500.0))).unwrap();
    assert_eq!(outcome.latencies.len(), 300);
    assert_eq!(outcome.errors(), 0);
}

#[test]
fn the_closed_loop_uses_every_connection_and_counts_after_the_warm_up() {
    let plan = plan(serve(|_| (Duration::from_millis(5), Some(OK))), 3, Arrival::Closed);
    let outcome = run(&plan).unwrap();
    // One server thread, 5 ms each: at most 120 answers in 600 ms, and each of three callers waits for the two others.
    assert!((50..=125).contains(&outcome.latencies.len()), "{}", outcome.latencies.len());
    assert!(outcome.latencies.summary().p50 >= 9e3, "{:?}", outcome.latencies.summary());
    assert!(outcome.throughput() <= 210.0, "{}", outcome.throughput());
}

#[test]
fn refusals_and_broken_connections_are_errors_and_the_next_request_is_sent_all_the_same() {
    let server = serve(|number| match number % 3 {
        0 => (Duration::ZERO, Some(OK)),
        1 => (Duration::ZERO, Some(BUSY)),
        _ => (Duration::ZERO, None),
    });
    let outcome = run(&plan(server, 2, Arrival::Open(300.0))).unwrap();
    assert_eq!(outcome.latencies.len() + outcome.errors(), 180);
    assert!((50..=70).contains(&outcome.refused[&503]), "{:?}", outcome.refused);
    assert!((50..=70).contains(&outcome.broken), "{}", outcome.broken);
}

#[test]
fn a_server_that_is_not_there_is_all_errors_and_no_hang() {
    let address = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let outcome = run(&plan(address, 2, Arrival::Closed)).unwrap();
    assert!(outcome.latencies.is_empty() && outcome.broken > 0);
    assert_eq!(outcome.throughput(), 0.0);
}

#[test]
fn requests_are_sent_in_turn_and_connections_start_apart() {
    let plan = Plan {
        requests: (0..8).map(|n| Bytes::from(vec![n])).collect::<Vec<_>>().into(),
        ..plan("127.0.0.1:1".parse().unwrap(), 4, Arrival::Closed)
    };
    let starts: Vec<_> = (0..4).map(|number| Caller::new(&plan, number).at).collect();
    assert_eq!(starts, [0, 2, 4, 6]);
}

#[test]
fn what_is_sent_once_is_sent_by_one_connection_only() {
    let requests: Vec<_> = (0..100).map(|_| http::request("GET", "/", "x", &[], b"")).collect();
    let plan = Plan {
        requests: requests.into(),
        repeat: Repeat::Once,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(60),
        ..plan(serve(|_| (Duration::ZERO, Some(OK))), 7, Arrival::Closed)
    };
    assert_eq!(run(&plan).unwrap().latencies.len(), 100);
}
