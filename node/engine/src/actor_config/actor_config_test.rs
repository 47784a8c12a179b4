//! The configuration document, as each SDK writes it and as nobody should.

use proptest::prelude::*;

use super::*;

fn hosted(body: &str) -> HostedTypes {
    parse(body.as_bytes()).unwrap()
}

fn config(body: &str, name: &str) -> TypeConfig {
    hosted(body).types[name]
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[test]
fn the_document_of_each_sdk_is_understood() {
    let python = r#"{"actorIdleTimeout":"1h0m0s0ms0\u03bcs","actorScanInterval":"0h0m30s0ms0\u03bcs","drainRebalancedActors":true,"entitiesConfig":[{"entities":["DemoActor"],"reentrancy":{"enabled":true,"maxStackDepth":32}}],"entities":["DemoActor"]}"#;
    let reentrancy = Reentrancy { enabled: true, max_stack_depth: 32 };
    assert_eq!(config(python, "DemoActor"), TypeConfig { reentrancy, ..TypeConfig::default() });

    let go = r#"{"entities":["A"],"actorIdleTimeout":"","actorScanInterval":"","drainOngoingCallTimeout":"","drainRebalancedActors":false}"#;
    assert_eq!(config(go, "A"), TypeConfig { drain_rebalanced: false, ..TypeConfig::default() });
    let go_without_actors = hosted(r#"{"entities":null,"actorIdleTimeout":""}"#);
    assert_eq!((go_without_actors.types.len(), go_without_actors.warnings.len()), (0, 0));

    let java = r#"{"entities":["A"],"actorIdleTimeout":"0h0m20s0ms","drainOngoingCallTimeout":"0h1m0s0ms","drainBalancedActors":false,"actorScanInterval":null}"#;
    assert_eq!(
        config(java, "A"),
        TypeConfig {
            idle_timeout: secs(20),
            drain_timeout: secs(60),
            drain_rebalanced: false,
            ..TypeConfig::default()
        }
    );

    let dotnet = r#"{"entities":["A"],"reentrancy":{"enabled":false},"remindersStoragePartitions":7}"#;
    assert_eq!(config(dotnet, "A"), TypeConfig::default());

    let rust = hosted(r#"{"entities":["A","B"]}"#);
    assert_eq!(rust.types.keys().map(|name| &**name).collect::<Vec<_>>(), ["A", "B"]);
}

#[test]
fn the_defaults_are_daprs() {
    let default = config(r#"{"entities":["A"]}"#, "A");
    assert_eq!((default.idle_timeout, default.drain_timeout), (secs(3_600), secs(2)));
    assert_eq!(
        (default.drain_rebalanced, default.reentrancy),
        (true, Reentrancy { enabled: false, max_stack_depth: 32 })
    );
}

#[test]
fn a_block_replaces_and_does_not_merge() {
    let body = r#"{"entities":["A","B","C"],"actorIdleTimeout":"1s","drainOngoingCallTimeout":"7s","drainRebalancedActors":false,
        "reentrancy":{"enabled":true,"maxStackDepth":23},
        "entitiesConfig":[{"entities":["A","B"],"drainRebalancedActors":true},{"entities":["B"],"actorIdleTimeout":"4s","drainOngoingCallTimeout":"9s","reentrancy":{"enabled":true,"maxStackDepth":5}}]}"#;
    assert_eq!(config(body, "A"), TypeConfig { drain_rebalanced: false, ..TypeConfig::default() });
    assert_eq!(
        config(body, "B"),
        TypeConfig {
            idle_timeout: secs(4),
            drain_timeout: secs(9),
            drain_rebalanced: false,
            reentrancy: Reentrancy { enabled: true, max_stack_depth: 5 },
        }
    );
    assert_eq!(
        config(body, "C"),
        TypeConfig {
            idle_timeout: secs(1),
            drain_timeout: secs(7),
            drain_rebalanced: false,
            reentrancy: Reentrancy { enabled: true, max_stack_depth: 23 },
        }
    );
}

#[test]
fn a_bad_duration_at_the_top_fails_the_registration() {
    for (body, text) in [
        (r#"{"entities":["A"],"actorIdleTimeout":"1d"}"#, "invalid actorIdleTimeout: unsupported duration format: 1d"),
        (
            r#"{"entities":["A"],"actorIdleTimeout":"-1s"}"#,
            "invalid actorIdleTimeout: unsupported duration format: -1s",
        ),
        (
            r#"{"entities":["A"],"drainOngoingCallTimeout":"PT1S"}"#,
            "invalid drainOngoingCallTimeout: unsupported duration format: PT1S",
        ),
    ] {
        let error = parse(body.as_bytes()).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.class()), (text, Class::Rejected));
    }
}

#[test]
fn a_bad_duration_in_a_block_is_the_default_with_a_warning() {
    let body = r#"{"entities":["A"],"actorIdleTimeout":"1s","entitiesConfig":[{"entities":["A"],"actorIdleTimeout":"soon","drainOngoingCallTimeout":""}]}"#;
    let hosted = hosted(body);
    assert_eq!(hosted.types["A"], TypeConfig::default());
    assert_eq!(
        hosted.warnings,
        ["invalid actorIdleTimeout of A, the default holds: unsupported duration format: soon"]
    );
}

#[test]
fn what_is_no_document_hosts_nothing_and_warns() {
    for body in [
        "",
        "hello",
        "[]",
        "{",
        r#"{"entities":"A"}"#,
        r#"{"entities":["A"],"actorIdleTimeout":5}"#,
        r#"{"entities":["A"],"reentrancy":true}"#,
    ] {
        let hosted = hosted(body);
        assert_eq!((hosted.types.len(), hosted.warnings.len()), (0, 1), "{body}");
    }
    assert_eq!(hosted("null"), HostedTypes::none());
    assert_eq!(hosted("{}"), HostedTypes::none());
}

#[test]
fn ignored_members_may_hold_anything() {
    let body = r#"{"ENTITIES":["A"],"actorScanInterval":{"x":1},"remindersStoragePartitions":"many","other":[],"entitiesConfig":null}"#;
    let hosted = hosted(body);
    assert_eq!((hosted.types.len(), hosted.warnings.len()), (1, 0));
}

#[test]
fn a_block_for_an_unknown_type_and_an_unusable_name_are_warned_of() {
    let hosted = hosted(r#"{"entities":["A","","a/b","A"],"entitiesConfig":[{"entities":["B"]},{"entities":null}]}"#);
    assert_eq!(hosted.types.len(), 1);
    assert_eq!(
        hosted.warnings,
        [
            "an actor type of the app is not hosted: actor type cannot be empty",
            "an actor type of the app is not hosted: invalid actorType: actorType contains forbidden character: \"a/b\"",
            "entitiesConfig names \"B\", which entities does not",
        ]
    );
}

#[test]
fn a_stack_depth_below_one_is_the_default_with_a_warning() {
    for depth in ["0", "-1", "4294967296"] {
        let hosted =
            hosted(&format!(r#"{{"entities":["A"],"reentrancy":{{"enabled":true,"maxStackDepth":{depth}}}}}"#));
        assert_eq!(hosted.types["A"].reentrancy, Reentrancy { enabled: true, max_stack_depth: 32 });
        assert_eq!(hosted.warnings.len(), 1);
    }
}

#[test]
fn zero_and_tiny_durations_are_taken_as_given() {
    let body = r#"{"entities":["A"],"actorIdleTimeout":"1ns","drainOngoingCallTimeout":"0s"}"#;
    assert_eq!(config(body, "A").idle_timeout, Duration::from_nanos(1));
    assert_eq!(config(body, "A").drain_timeout, Duration::ZERO);
}

#[test]
fn types_and_warnings_have_a_limit() {
    let list = |count: usize, text: &str| vec![format!("\"{text}\""); count].join(",");
    let many: Vec<_> = (0..=MAX_TYPES).map(|n| format!("\"T{n}\"")).collect();
    let error = parse(format!("{{\"entities\":[{}]}}", many.join(",")).as_bytes()).unwrap_err();
    assert_eq!(error, Error::TooManyTypes(MAX_TYPES + 1));
    assert_eq!(hosted(&format!("{{\"entities\":[{}]}}", list(5_000, "a/b"))).warnings.len(), MAX_WARNINGS);
}

#[test]
fn the_digest_is_of_the_meaning_and_not_of_the_spelling() {
    let a = hosted(r#"{"entities":["A","B"],"actorIdleTimeout":"60m"}"#);
    let b = hosted(r#"{ "entities":["B","A"], "actorIdleTimeout":"1h0m0s0ms0\u00b5s", "actorScanInterval":"1s"}"#);
    assert_eq!(a.digest, b.digest);
    for other in [
        r#"{"entities":["A"]}"#,
        r#"{"entities":["A","C"]}"#,
        r#"{"entities":["A","B"],"actorIdleTimeout":"1m"}"#,
        r#"{"entities":["A","B"],"drainOngoingCallTimeout":"1m"}"#,
        r#"{"entities":["A","B"],"drainRebalancedActors":false}"#,
        r#"{"entities":["A","B"],"reentrancy":{"enabled":true}}"#,
        r#"{"entities":["A","B"],"reentrancy":{"maxStackDepth":5}}"#,
    ] {
        assert_ne!(hosted(other).digest, a.digest, "{other}");
    }
    assert_eq!(a.digest, DIGEST_OF_TWO_DEFAULTS, "gossiped between builds");
}

/// The digest of types A and B under the defaults.
const DIGEST_OF_TWO_DEFAULTS: u64 = 545_398_623_500_520_792;

proptest! {
    #[test]
    fn no_bytes_panic(data in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_config(&data);
    }

    #[test]
    fn no_object_panics(
        entities in r#"\["[A-C/]{0,2}"(,"[A-C]")?\]|null|5"#,
        field in "actorIdleTimeout|drainOngoingCallTimeout|reentrancy|entitiesConfig|drainBalancedActors",
        value in r#""[0-9]{0,3}[a-z]{0,2}"|null|true|\{"(enabled|maxStackDepth)":(true|-?[0-9]{1,12})\}|\[\{"entities":\["A"\],"reentrancy":\{\}\}\]"#,
    ) {
        fuzz_config(format!(r#"{{"entities":{entities},"{field}":{value}}}"#).as_bytes());
    }
}
