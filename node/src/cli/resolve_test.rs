//! Flags and environment into settings: defaults, precedence, and every mistake.

use std::net::IpAddr;

use super::*;

fn home() -> Env {
    Env::from([("HOME", "/home/u")])
}

fn given(pairs: &[(&'static str, &str)]) -> Given {
    let mut given = Given::default();
    for (name, value) in pairs {
        given.set(name, *value);
    }
    given
}

fn launch_as(persona: Persona, pairs: &[(&'static str, &str)], env: &Env) -> Launch {
    resolve(given(pairs), env, persona, None).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn launch(pairs: &[(&'static str, &str)]) -> Launch {
    launch_as(Persona::Callboard, pairs, &home())
}

fn mistakes(pairs: &[(&'static str, &str)]) -> Vec<String> {
    match resolve(given(pairs), &home(), Persona::Callboard, None) {
        Ok(launch) => panic!("accepted: {launch:?}"),
        Err(mistakes) => mistakes.iter().map(|m| format!("{}: {}", m.subject, m.problem)).collect(),
    }
}

#[test]
fn nothing_given_is_a_node_on_the_loopback_address_with_ports_that_may_move() {
    let launch = launch(&[]);
    let config = &launch.config;
    assert_eq!((config.app_id.as_str(), config.namespace.as_str()), ("app", "default"));
    assert!(config.app.is_none());
    assert_eq!(config.ports.http, Port::preferred(3500));
    assert_eq!(config.ports.metrics, Some(Port::preferred(9090)));
    assert_eq!(config.http.listen, config::loopback());
    assert_eq!((config.http.max_body, config.http.read_buffer), (4 << 20, 4 << 10));
    assert!(config.http.h2c && config.sync_log);
    assert_eq!((config.bootstrap.partitions, config.bootstrap.replicas), (16, 3));
    assert_eq!(
        launch.data,
        data_dir::Choice::Default { folder: "/home/u/.local/share/callboard/default".into(), name: "app".into() }
    );
    assert_eq!(launch.log.output, logging::Output::Stderr);
}

#[test]
fn daprd_has_fixed_ports_on_all_interfaces_and_insists_on_an_app_id() {
    let launch = launch_as(Persona::Daprd, &[("app-id", "shop")], &home());
    let ports = &launch.config.ports;
    assert_eq!(ports.http, Port::fixed(3500));
    assert_eq!(ports.grpc, Port::fixed(50001));
    assert_eq!(ports.metrics, Some(Port::fixed(9090)));
    assert!(!ports.peer.explicit && DAPRD_PEER_PORTS.contains(&ports.peer.number));
    assert_eq!(ports.peer, launch_as(Persona::Daprd, &[("app-id", "shop")], &home()).config.ports.peer);
    assert_eq!(launch.config.http.listen, config::all_interfaces());
    assert_eq!(launch.log.output, logging::Output::Stdout);
    let error = resolve(Given::default(), &home(), Persona::Daprd, None).unwrap_err();
    assert!(error.to_string().contains("--app-id"), "{error}");
}

#[test]
fn a_name_that_is_given_and_empty_never_stands_for_the_default() {
    for flag in ["app-id", "data-dir", "cluster", "node-name"] {
        for value in ["", " "] {
            let found = mistakes(&[(flag, value)]);
            assert!(found.len() == 1 && found[0].starts_with(&format!("--{flag}: empty")), "{flag}: {found:?}");
        }
        // The last one counts, as everywhere.
        let (first, last) = if flag == "data-dir" { ("", "/d") } else { ("", "name") };
        launch(&[(flag, first), (flag, last)]);
    }
    let error = resolve(given(&[("app-id", "")]), &home(), Persona::Daprd, None).unwrap_err();
    assert!(error.to_string().starts_with("--app-id: "), "{error}");
}

#[test]
fn a_port_given_is_fixed_and_zero_or_minus_one_is_any() {
    let config = launch(&[("dapr-http-port", "8000"), ("dapr-grpc-port", "0"), ("metrics-port", "-1")]).config;
    assert_eq!(config.ports.http, Port::fixed(8000));
    assert_eq!(config.ports.grpc, Port::preferred(0));
    assert_eq!(config.ports.metrics, Some(Port::preferred(0)));
    assert_eq!(launch(&[("enable-metrics", "false")]).config.ports.metrics, None);
}

#[test]
fn the_app_is_described_in_full() {
    let config = launch(&[
        ("app-port", "8080"),
        ("app-protocol", "H2C"),
        ("app-channel-address", "10.0.0.1"),
        ("app-max-concurrency", "7"),
        ("enable-app-health-check", "true"),
        ("app-health-check-path", "live"),
        ("app-health-probe-interval", "2"),
        ("app-health-probe-timeout", "100"),
        ("app-health-threshold", "9"),
        ("disable-init-endpoints", "config,subscribe"),
    ])
    .config;
    let app = config.app.unwrap();
    assert_eq!((app.port, app.address.as_str(), app.protocol), (8080, "10.0.0.1", AppProtocol::H2c));
    assert_eq!(app.max_concurrency, Some(7));
    assert!(!app.read_config);
    let health = app.health.unwrap();
    assert_eq!((health.path.as_str(), health.threshold), ("/live", 9));
    assert_eq!((health.interval, health.timeout), (Duration::from_secs(2), Duration::from_millis(100)));
}

#[test]
fn no_app_port_or_one_that_is_not_positive_is_no_app() {
    for port in ["", "0", "-1"] {
        assert!(launch(&[("app-port", port)]).config.app.is_none(), "{port:?}");
    }
    assert_eq!(launch(&[("app-port", "1"), ("app-max-concurrency", "-1")]).config.app.unwrap().max_concurrency, None);
}

#[test]
fn the_older_flags_mean_what_they_meant() {
    let config = launch(&[("dapr-http-max-request-size", "16"), ("dapr-http-read-buffer-size", "8")]).config;
    assert_eq!((config.http.max_body, config.http.read_buffer), (16_000_000, 8_000));
    let config = launch(&[("max-body-size", "1Mi"), ("dapr-http-max-request-size", "16")]).config;
    assert_eq!(config.http.max_body, 1 << 20, "the flag of today wins");
    assert_eq!(launch(&[("dapr-http-max-request-size", "-1")]).config.http.max_body, 4 << 20);
    let app = launch(&[("app-port", "1"), ("app-ssl", "true"), ("app-protocol", "http")]).config.app.unwrap();
    assert_eq!(app.protocol, AppProtocol::Https);
}

#[test]
fn an_app_that_speaks_grpc_is_refused_and_without_an_app_the_protocol_means_nothing() {
    for (protocol, tls) in [("grpc", "false"), ("GRPCS", "false"), ("grpc", "true")] {
        let found = mistakes(&[("app-port", "1"), ("app-protocol", protocol), ("app-ssl", tls)]);
        assert_eq!(found.len(), 1, "{found:#?}");
        let told = found[0].starts_with(&format!("--app-protocol {protocol}: ")) && found[0].contains("the gRPC API");
        assert!(told, "{found:#?}");
        assert!(launch(&[("app-protocol", protocol), ("app-ssl", tls)]).config.app.is_none());
    }
}

#[test]
fn addresses_are_listed_once_and_an_unspecified_one_stands_for_its_family() {
    let listen = |list: &str| launch(&[("dapr-listen-addresses", list)]).config.http.listen;
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(listen("[::1],127.0.0.1,::1"), [ip("::1"), ip("127.0.0.1")]);
    assert_eq!(listen("localhost"), config::loopback());
    assert_eq!(listen("0.0.0.0,127.0.0.1,::1"), [ip("0.0.0.0"), ip("::1")]);
    let config = launch(&[("dapr-listen-addresses", "127.0.0.1"), ("metrics-listen-address", "0.0.0.0")]).config;
    assert_eq!(config.peer_listen, [ip("127.0.0.1")]);
    assert_eq!(config.metrics_listen, [ip("0.0.0.0")]);
}

#[test]
fn the_public_port_serves_on_all_interfaces_unless_told_otherwise() {
    let public = launch(&[("dapr-public-port", "3501")]).config.http.public;
    assert_eq!(public.len(), 2);
    assert!(public.iter().all(|address| address.port() == 3501 && address.ip().is_unspecified()));
    let public =
        launch(&[("dapr-public-port", "3501"), ("dapr-public-listen-address", "127.0.0.1")]).config.http.public;
    assert_eq!(public, ["127.0.0.1:3501".parse::<SocketAddr>().unwrap()]);
}

#[test]
fn the_environment_gives_namespace_tokens_and_transport() {
    let env = Env::from([
        ("HOME", "/h"),
        ("NAMESPACE", "prod"),
        ("DAPR_API_TOKEN", "in"),
        ("APP_API_TOKEN", "out"),
        ("DAPR_HTTP_DISABLE_H2C", "true"),
        ("DAPR_HOST_IP", "10.1.1.1"),
        ("CALLBOARD_LOG", "debug"),
    ]);
    let launch = launch_as(Persona::Callboard, &[], &env);
    let config = launch.config;
    assert_eq!(config.namespace, "prod");
    assert_eq!((config.api_token.as_deref(), config.app_token.as_deref()), (Some("in"), Some("out")));
    assert!(!config.http.h2c);
    assert_eq!(config.advertise.as_deref(), Some("10.1.1.1"));
    assert_eq!(launch.log.filter.as_deref(), Some("debug"));
}

#[test]
fn a_flag_comes_before_the_environment_which_comes_before_the_default() {
    let env = Env::from([
        ("HOME", "/h"),
        ("CALLBOARD_PARTITIONS", "4"),
        ("CALLBOARD_DATA_DIR", "/from-env"),
        ("DAPR_HOST_IP", "1.1.1.1"),
    ]);
    let from_env = launch_as(Persona::Callboard, &[], &env);
    assert_eq!(from_env.config.bootstrap.partitions, 4);
    assert_eq!(from_env.data, data_dir::Choice::Explicit("/from-env".into()));
    let flags = [("partitions", "8"), ("data-dir", "/from-flag"), ("advertise", "me")];
    let from_flag = launch_as(Persona::Callboard, &flags, &env);
    assert_eq!(from_flag.config.bootstrap.partitions, 8);
    assert_eq!(from_flag.data, data_dir::Choice::Explicit("/from-flag".into()));
    assert_eq!(from_flag.config.advertise.as_deref(), Some("me"));
    assert_eq!(launch(&[]).config.bootstrap.partitions, 16);
}

#[test]
fn the_data_folder_follows_the_users_own_and_a_node_name_given_is_not_numbered() {
    let env = Env::from([("HOME", "/h"), ("XDG_DATA_HOME", "/xdg")]);
    let folder = |launch: Launch| launch.data;
    assert_eq!(
        folder(launch_as(Persona::Callboard, &[("app-id", "a b"), ("cluster", "blue")], &env)),
        data_dir::Choice::Default { folder: "/xdg/callboard/blue".into(), name: "a_b".into() }
    );
    assert_eq!(
        folder(launch_as(Persona::Callboard, &[("node-name", "n1")], &env)),
        data_dir::Choice::Explicit("/xdg/callboard/default/n1".into())
    );
    let relative = Env::from([("HOME", "/h"), ("XDG_DATA_HOME", "xdg")]);
    assert!(matches!(folder(launch_as(Persona::Callboard, &[], &relative)),
        data_dir::Choice::Default { folder, .. } if folder.starts_with("/h/.local/share")));
}

#[test]
fn an_ephemeral_node_says_what_it_does_not_promise() {
    let launch = launch(&[("ephemeral", "true")]);
    assert_eq!(launch.data, data_dir::Choice::Ephemeral);
    let said = launch.notices.join("\n");
    assert!(said.contains("acknowledged writes do not survive") && !said.contains("P2"), "{said}");
}

#[test]
fn flags_without_effect_are_named_once_together() {
    let launch = launch(&[("placement-host-address", "x"), ("mode", "kubernetes"), ("mode", "standalone")]);
    assert_eq!(launch.notices.len(), 1);
    assert!(launch.notices[0].contains("--placement-host-address") && launch.notices[0].contains("--mode"));
}

#[test]
fn every_mistake_is_reported_at_once_with_its_flag() {
    let found = mistakes(&[
        ("app-id", "a.b"),
        ("app-port", "70000"),
        ("app-protocol", "soap"),
        ("dapr-http-port", "x"),
        ("max-body-size", "big"),
        ("dapr-block-shutdown-duration", "soon"),
        ("reads", "never"),
        ("partitions", "0"),
        ("replicas", "2"),
        ("log-level", "loud"),
        ("dapr-listen-addresses", "here"),
        ("enable-metrics", "maybe"),
        ("cluster", "../up"),
    ]);
    assert_eq!(found.len(), 13, "{found:#?}");
    for flag in [
        "--app-id a.b",
        "--app-port 70000",
        "--app-protocol soap",
        "--dapr-http-port x",
        "--max-body-size big",
        "--dapr-block-shutdown-duration soon",
        "--reads never",
        "--partitions 0",
        "--replicas 2",
        "--log-level loud",
        "--dapr-listen-addresses here",
        "--enable-metrics maybe",
        "--cluster \"../up\"",
    ] {
        assert!(found.iter().any(|mistake| mistake.starts_with(flag)), "{flag} is not in {found:#?}");
    }
}

#[test]
fn what_excludes_each_other_is_a_mistake() {
    let one = |pairs: &[(&'static str, &str)], words: &str| {
        let found = mistakes(pairs);
        assert!(found.len() == 1 && found[0].contains(words), "{pairs:?}: {found:?}");
    };
    one(&[("app-port", "3600"), ("dapr-http-port", "3600")], "the same as --dapr-http-port");
    one(&[("dapr-grpc-port", "3600"), ("dapr-http-port", "3600")], "the same as --dapr-http-port");
    one(&[("metrics-port", "3600"), ("dapr-public-port", "3600")], "the same as --metrics-port");
    one(&[("ephemeral", "true"), ("data-dir", "/d")], "--ephemeral");
    one(&[("app-ssl", "true"), ("app-protocol", "h2c")], "https");
    one(
        &[
            ("enable-app-health-check", "true"),
            ("app-health-probe-interval", "1"),
            ("app-health-probe-timeout", "2000"),
        ],
        "longer than",
    );
}

#[test]
fn a_default_port_equal_to_the_apps_is_no_mistake_except_for_daprd() {
    assert!(launch(&[("app-port", "3500")]).config.app.is_some());
    let error = resolve(given(&[("app-id", "a"), ("app-port", "3500")]), &home(), Persona::Daprd, None).unwrap_err();
    assert!(error.to_string().contains("--app-port 3500"), "{error}");
}

#[test]
fn a_place_in_a_cluster_is_taken_as_it_is_given() {
    for (pairs, words) in [([("bootstrap-expect", "3")], "one node"), ([("role", "king")], "storage or gateway")] {
        let found = mistakes(&pairs);
        assert!(found.len() == 1 && found[0].contains(words), "{found:?}");
    }
    let config = launch(&[("join", "a:1,b:2"), ("role", "gateway"), ("bootstrap-expect", "1")]).config;
    assert_eq!(
        (config.join.as_slice(), config.role),
        (["a:1".to_owned(), "b:2".to_owned()].as_slice(), Some(NodeRole::Gateway))
    );
    let config = launch(&[("standalone", "true")]).config;
    assert!(config.standalone && config.join.is_empty() && config.role.is_none());
}

#[test]
fn without_a_home_the_user_must_say_where_data_goes() {
    let error = resolve(Given::default(), &Env::default(), Persona::Callboard, None).unwrap_err();
    assert!(error.to_string().contains("--data-dir"), "{error}");
    launch_as(Persona::Callboard, &[("data-dir", "/d")], &Env::default());
}

#[test]
fn shutdown_times_are_read_in_their_units() {
    let shutdown =
        launch(&[("dapr-graceful-shutdown-seconds", "9"), ("dapr-block-shutdown-duration", "2s")]).config.shutdown;
    assert_eq!(shutdown.grace, Duration::from_secs(9));
    assert_eq!(shutdown.block, Some(Duration::from_secs(2)));
}

#[test]
fn a_node_that_does_not_sync_says_so() {
    let launch = launch(&[("unsafe-no-sync", "true")]);
    assert!(!launch.config.sync_log);
    assert!(launch.notices.iter().any(|notice| notice.contains("power cut")));
}
