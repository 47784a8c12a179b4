//! Port selection on real sockets.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use super::*;
use crate::config::AppConfig;

fn on_v4() -> Config {
    let mut config = Config::new("ports");
    let v4 = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    config.http.listen = v4.clone();
    config.peer_listen = v4.clone();
    config.metrics_listen = v4;
    let any = Port::preferred(0);
    config.ports = crate::config::Ports { http: any, grpc: any, peer: any, metrics: Some(any) };
    config
}

fn taken() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A port that nobody has, outside the range the kernel hands out to the tests beside this one.
fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = u16::try_from(20_000 + std::process::id() % 10_000).unwrap();
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn all(bound: &Bound) -> Vec<u16> {
    vec![bound.ports.http, bound.ports.grpc, bound.ports.peer, bound.ports.metrics.unwrap()]
}

#[test]
fn every_door_gets_its_own_free_port_and_accepts() {
    let bound = bind(&on_v4()).unwrap();
    let mut ports = all(&bound);
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 4);
    for port in ports {
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
    assert_eq!(bound.moved, [], "a port that may be any has not moved");
}

#[test]
fn an_explicit_port_that_is_taken_is_an_error_naming_its_holder() {
    let (_held, port) = taken();
    let mut config = on_v4();
    config.ports.http = Port::fixed(port);
    let error = bind(&config).unwrap_err().to_string();
    assert!(error.contains(&format!("--dapr-http-port {port}")), "{error}");
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
}

#[test]
fn a_default_port_that_is_taken_moves_and_is_reported() {
    let (_held, port) = taken();
    let mut config = on_v4();
    config.ports.grpc = Port::preferred(port);
    let bound = bind(&config).unwrap();
    assert_ne!(bound.ports.grpc, port);
    assert_eq!(bound.moved, [Moved { flag: "dapr-grpc-port", from: port, to: bound.ports.grpc }]);
}

#[test]
fn a_default_never_takes_the_port_of_the_app() {
    let port = free();
    let mut config = on_v4();
    config.app = Some(AppConfig::new(port));
    config.ports.http = Port::preferred(port);
    assert_ne!(bind(&config).unwrap().ports.http, port);
}

#[test]
fn explicit_ports_are_bound_before_defaults_that_want_the_same() {
    let port = free();
    let mut config = on_v4();
    config.ports.http = Port::preferred(port);
    config.ports.metrics = Some(Port::fixed(port));
    let bound = bind(&config).unwrap();
    assert_eq!(bound.ports.metrics, Some(port));
    assert_ne!(bound.ports.http, port);
}

#[test]
fn one_number_serves_all_addresses_of_an_api() {
    let mut config = on_v4();
    config.http.listen = vec!["127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap()];
    let bound = bind(&config).unwrap();
    assert_eq!(bound.http.len(), 2);
    for listener in &bound.http {
        assert_eq!(listener.local_addr().unwrap().port(), bound.ports.http);
    }
}

#[test]
fn a_number_taken_on_one_address_is_not_used_on_the_other() {
    let held = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let mut config = on_v4();
    config.http.listen = vec!["127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap()];
    config.ports.http = Port::preferred(port);
    let bound = bind(&config).unwrap();
    assert_ne!(bound.ports.http, port);
    assert_eq!(bound.http.len(), 2);
}

#[test]
fn an_address_the_machine_lacks_is_skipped_beside_others_and_refused_alone() {
    let mut config = on_v4();
    config.http.listen = vec!["127.0.0.1".parse().unwrap(), "192.0.2.1".parse().unwrap()];
    assert_eq!(bind(&config).unwrap().http.len(), 1);
    config.http.listen = vec!["192.0.2.1".parse().unwrap()];
    assert!(matches!(bind(&config), Err(Error::NoAddress { flag: "dapr-http-port", .. })));
}

#[test]
fn metrics_switched_off_bind_nothing() {
    let mut config = on_v4();
    config.ports.metrics = None;
    let bound = bind(&config).unwrap();
    assert!(bound.metrics.is_empty());
    assert_eq!(bound.ports.metrics, None);
}

#[test]
fn a_unix_socket_left_by_a_crash_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dapr-ports-http.socket");
    drop(UnixListener::bind(&path).unwrap());
    let mut config = on_v4();
    config.http.unix_dir = Some(dir.path().to_owned());
    let bound = bind(&config).unwrap();
    assert_eq!(bound.http_unix.as_ref().unwrap().path(), path);
    UnixStream::connect(&path).unwrap();
    assert!(matches!(bind(&config), Err(Error::Unix { .. })));
    drop(bound);
    assert!(!path.exists());
}
