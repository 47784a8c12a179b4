//! Which route a verb and path lead to, and what is refused on the way.

use super::*;

fn actor(actor_type: &str, actor_id: &str) -> ActorPath {
    ActorPath { actor_type: actor_type.into(), actor_id: actor_id.into() }
}

fn routed(verb: &str, path: &str) -> Route {
    route(&verb.parse().unwrap(), path).unwrap()
}

#[test]
fn each_listed_verb_of_each_actor_route_is_that_route() {
    let a = || actor("cat", "7");
    let name = || "n".to_owned();
    let table: Vec<(&[&str], &str, ActorRoute)> = vec![
        (&["GET", "POST", "PUT", "DELETE"], "method/n", ActorRoute::Method { actor: a(), method: name() }),
        (&["POST", "PUT"], "state", ActorRoute::SaveState { actor: a() }),
        (&["GET"], "state/n", ActorRoute::GetState { actor: a(), key: name() }),
        (&["POST", "PUT"], "reminders/n", ActorRoute::PutReminder { actor: a(), name: name() }),
        (&["GET"], "reminders/n", ActorRoute::GetReminder { actor: a(), name: name() }),
        (&["DELETE"], "reminders/n", ActorRoute::DeleteReminder { actor: a(), name: name() }),
        (&["GET"], "reminders", ActorRoute::ListReminders { actor: a() }),
        (&["POST", "PUT"], "timers/n", ActorRoute::PutTimer { actor: a(), name: name() }),
        (&["DELETE"], "timers/n", ActorRoute::DeleteTimer { actor: a(), name: name() }),
    ];
    for (verbs, rest, expected) in &table {
        let others = table.iter().filter(|(_, other, _)| other == rest).flat_map(|(verbs, _, _)| verbs.iter());
        let known: Vec<_> = others.collect();
        for verb in ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "BREW"] {
            let path = format!("/v1.0/actors/cat/7/{rest}");
            if verbs.contains(&verb) {
                assert_eq!(routed(verb, &path), Route::Actor(expected.clone()), "{verb} {path}");
            } else if !known.contains(&&verb) {
                assert_eq!(routed(verb, &path), Route::Invoke, "{verb} {path}");
            }
        }
    }
    assert_eq!(routed("DELETE", "/v1.0/actors/cat/7"), Route::Actor(ActorRoute::DeleteActor { actor: a() }));
    assert_eq!(routed("GET", "/v1.0/actors/cat/7"), Route::Invoke);
}

#[test]
fn fixed_routes_answer_their_verb_only() {
    for (verb, path, expected) in [
        ("GET", "/v1.0/metadata", Route::Metadata),
        ("POST", "/v1.0/metadata", Route::Invoke),
        ("PUT", "/v1.0/metadata/a+b%2Fc", Route::MetadataKey { key: "a b/c".into() }),
        ("GET", "/v1.0/metadata/a", Route::Invoke),
        ("GET", "/v1.0/healthz", Route::Healthz),
        ("HEAD", "/v1.0/healthz", Route::Invoke),
        ("GET", "/v1.0/healthz/outbound", Route::HealthzOutbound),
        ("POST", "/v1.0/shutdown", Route::Shutdown),
        ("GET", "/v1.0/shutdown", Route::Invoke),
        ("GET", "/v1.0/nothing", Route::Invoke),
        ("GET", "/v1.0/invoke/app/method/m", Route::Invoke),
        ("GET", "/", Route::Invoke),
        ("OPTIONS", "*", Route::Invoke),
        ("CONNECT", "", Route::Invoke),
        ("GET", "/V1.0/metadata", Route::Invoke),
    ] {
        assert_eq!(routed(verb, path), expected, "{verb} {path}");
    }
}

#[test]
fn the_path_is_cleaned_before_it_is_routed() {
    for path in [
        "//v1.0//metadata",
        "/v1.0/./metadata",
        "/v1.0/actors/../metadata",
        "/../v1.0/metadata",
        "/v1.0/metadata/",
        "/v1.0/invoke/app/method/../../../metadata",
    ] {
        assert_eq!(routed("GET", path), Route::Metadata, "{path}");
    }
}

#[test]
fn encoded_dots_and_slashes_neither_climb_nor_split() {
    assert_eq!(
        routed("PUT", "/v1.0/actors/t/i/method/%2E%2E%2F..%2Fsecret"),
        Route::Actor(ActorRoute::Method { actor: actor("t", "i"), method: "../../secret".into() })
    );
}

#[test]
fn a_trailing_slash_is_dropped_only_where_it_matches_nothing() {
    assert_eq!(
        routed("GET", "/v1.0/actors/t/i/method/m/"),
        Route::Actor(ActorRoute::Method { actor: actor("t", "i"), method: "m".into() })
    );
    assert_eq!(
        routed("POST", "/v1.0/actors/t/i/state/"),
        Route::Actor(ActorRoute::SaveState { actor: actor("t", "i") })
    );
    assert_eq!(routed("GET", "/v1.0/actors/t/i/state/"), Route::Invoke);
    assert_eq!(routed("GET", "/cluster/v1/nodes/"), Route::Admin(AdminPath(vec!["nodes".into(), String::new()])));
}

#[test]
fn parameters_are_decoded_once_as_a_query() {
    for (segment, decoded) in [
        ("a%20b", "a b"),
        ("a+b", "a b"),
        ("%C3%BC%2Fslash", "ü/slash"),
        ("q%3Fx%23y", "q?x#y"),
        ("pct%2541", "pct%41"),
        ("plus%2B", "plus+"),
        (";:@&=", ";:@&="),
        ("remind%7C%7Cme@now", "remind||me@now"),
    ] {
        assert_eq!(
            routed("GET", &format!("/v1.0/actors/t/{segment}/state/k")),
            Route::Actor(ActorRoute::GetState { actor: actor("t", decoded), key: "k".into() }),
            "{segment}"
        );
    }
}

#[test]
fn a_malformed_escape_names_the_parameter() {
    for (path, text) in [
        (
            "/v1.0/actors/t%zz/i/state/k",
            "failed to unescape request parameter \"actorType\". Error: invalid URL escape \"%zz\"",
        ),
        (
            "/v1.0/actors/t/i%/state/k",
            "failed to unescape request parameter \"actorId\". Error: invalid URL escape \"%\"",
        ),
        (
            "/v1.0/actors/t/i/state/k%4",
            "failed to unescape request parameter \"key\". Error: invalid URL escape \"%4\"",
        ),
        (
            "/v1.0/actors/t/%ff/state/k",
            "failed to unescape request parameter \"actorId\". Error: invalid UTF-8 in \"%ff\"",
        ),
    ] {
        assert_eq!(route(&Method::GET, path).unwrap_err().to_string(), text);
    }
    // A verb that is no route never looks at the parameters.
    assert_eq!(routed("PATCH", "/v1.0/actors/t%zz/i/method/m"), Route::Invoke);
}

#[test]
fn extra_or_empty_segments_match_no_route() {
    for path in ["/v1.0/actors/t/i/method/a/b", "/v1.0/actors/t/i/state/a/b", "/v1.0/actors/t", "/v1.0/actors/"] {
        assert_eq!(routed("GET", path), Route::Invoke, "{path}");
    }
}

#[test]
fn everything_below_cluster_is_admin() {
    assert_eq!(
        routed("BREW", "/cluster/v1/actors/a%7C%7Cb/x"),
        Route::Admin(AdminPath(vec!["actors".into(), "a||b".into(), "x".into()]))
    );
    assert_eq!(routed("GET", "/cluster/v2/actors"), Route::Invoke);
}

#[test]
fn cleaning_borrows_clean_paths() {
    assert!(matches!(clean("/v1.0/actors/t/i/method/m"), Cow::Borrowed(_)));
    for (path, cleaned) in [
        ("", "/"),
        ("/", "/"),
        ("*", "/*"),
        ("/a//b", "/a/b"),
        ("/a/./b/", "/a/b/"),
        ("/a/../../b", "/b"),
        ("/..", "/"),
        ("/.hidden", "/.hidden"),
        ("/a/..b/...", "/a/..b/..."),
    ] {
        assert_eq!(clean(path), cleaned, "{path}");
    }
}

#[test]
fn no_bytes_make_routing_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let alphabet: Vec<&[u8]> =
        vec![b"/", b"..", b".", b"%", b"%2F", b"+", b"v1.0", b"actors", b"a", b"\xff", b"?", b"state"];
    for _ in 0..20_000 {
        let mut data = vec![seed as u8];
        for _ in 0..12 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            data.extend_from_slice(alphabet[(seed >> 33) as usize % alphabet.len()]);
        }
        fuzz_route(&data);
    }
}
