//! Which node is asked.

use std::path::PathBuf;

use super::*;

fn node(app_id: &str, name: &str, port: u16) -> Entry {
    Entry {
        app_id: app_id.into(),
        node_name: name.into(),
        namespace: "default".into(),
        cluster: "default".into(),
        pid: 1,
        started_ticks: 1,
        created: 1,
        http_port: port,
        grpc_port: 2,
        peer_port: 3,
        metrics_port: None,
        app_port: None,
        http_address: format!("127.0.0.1:{port}"),
        command: String::new(),
        data_dir: PathBuf::from("/data"),
        max_body: 4,
    }
}

fn asked(flag: &str, value: &str) -> Asked {
    let value = Some(value.to_owned());
    match flag {
        "app-id" => Asked { app_id: value, address: None },
        _ => Asked { address: value, app_id: None },
    }
}

fn found(asked: &Asked, port: Option<&str>, running: &[Entry]) -> (String, Option<String>) {
    let chosen = choose(asked, port, running).unwrap_or_else(|error| panic!("{error:#}"));
    (chosen.endpoint.authority, chosen.because)
}

fn refused(asked: &Asked, running: &[Entry]) -> String {
    format!("{:#}", choose(asked, None, running).unwrap_err())
}

#[test]
fn a_node_that_is_named_is_asked_without_a_word() {
    let running = [node("shop", "shop", 3500), node("cart", "cart", 3501)];
    assert_eq!(found(&asked("app-id", "cart"), Some("9"), &running), ("127.0.0.1:3501".into(), None));
    assert_eq!(found(&asked("address", "1.2.3.4:5"), Some("9"), &running), ("1.2.3.4:5".into(), None));
}

#[test]
fn a_node_that_is_not_named_is_told() {
    let one = [node("shop", "shop", 3500)];
    let (at, because) = found(&Asked::default(), None, &one);
    assert_eq!(at, "127.0.0.1:3500");
    assert!(because.is_some_and(|because| because.contains("app id shop")));
    let several = [node("shop", "shop", 3500), node("cart", "cart", 3501)];
    let (at, because) = found(&Asked::default(), Some("3501"), &several);
    assert_eq!(at, "127.0.0.1:3501");
    assert!(because.is_some_and(|because| because.contains("DAPR_HTTP_PORT")));
}

#[test]
fn of_several_none_is_chosen_and_each_is_listed_with_the_flag_that_names_it() {
    let running = [node("shop", "shop", 3500), node("shop", "shop-2", 3502), node("cart", "cart", 3501)];
    let text = refused(&Asked::default(), &running);
    for line in [
        "3 nodes run here; say which one is meant:",
        "  --address 127.0.0.1:3500  (node shop of app id shop)",
        "  --address 127.0.0.1:3502  (node shop-2 of app id shop)",
        "  --app-id cart  (node cart at 127.0.0.1:3501)",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not in\n{text}");
    }
    let text = refused(&asked("app-id", "shop"), &running);
    assert!(text.starts_with("--app-id shop: 2 nodes") && text.contains("--address 127.0.0.1:3502"), "{text}");
    assert!(!text.contains("cart"), "{text}");
    let text = refused(&asked("app-id", "none"), &running);
    assert!(text.starts_with("--app-id none: no such node") && text.contains("cart (127.0.0.1:3501)"), "{text}");
    assert!(refused(&Asked::default(), &[]).contains("callboard run"));
}
