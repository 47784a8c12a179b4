//! Tables of command lines under each of the three names.

use super::*;

fn argv(line: &str) -> Vec<OsString> {
    line.split_whitespace().map(OsString::from).collect()
}

fn run_of(line: &str, persona: Persona) -> Run {
    match parse(&argv(line), persona) {
        Ok(Action::Run(run)) => run,
        other => panic!("{line}: not a run: {other:?}"),
    }
}

fn app_of(run: &Run) -> Vec<&str> {
    run.app.iter().map(|word| word.to_str().unwrap()).collect()
}

#[test]
fn daprd_takes_one_dash_or_two_and_a_value_with_or_without_equals() {
    for line in [
        "daprd --app-id shop --app-port 8080",
        "daprd --app-id=shop --app-port=8080",
        "daprd -app-id shop -app-port 8080",
        "daprd -app-id=shop -app-port=8080",
    ] {
        let run = run_of(line, Persona::Daprd);
        assert_eq!(run.given.text("app-id"), Some("shop"), "{line}");
        assert_eq!(run.given.text("app-port"), Some("8080"), "{line}");
        assert!(run.mistakes.is_empty(), "{line}");
    }
}

#[test]
fn switches_follow_go() {
    let given = |flag: &str| run_of(&format!("daprd --app-id a {flag}"), Persona::Daprd).given;
    assert_eq!(given("-enable-metrics=false").text("enable-metrics"), Some("false"));
    assert_eq!(given("--enable-api-logging").text("enable-api-logging"), Some("true"));
    assert_eq!(given("").text("enable-api-logging"), None);
    assert_eq!(given("--log-as-json --app-port 1").text("app-port"), Some("1"));
}

#[test]
fn a_negative_number_is_a_value() {
    let run = run_of("daprd -app-id a -app-max-concurrency -1 -dapr-http-port -1", Persona::Daprd);
    assert_eq!(run.given.text("app-max-concurrency"), Some("-1"));
    assert_eq!(run.given.text("dapr-http-port"), Some("-1"));
}

#[test]
fn the_whole_command_line_that_an_injector_writes_is_accepted() {
    let line = "daprd --dapr-http-port 3500 --dapr-grpc-port 50001 --dapr-internal-grpc-port 50002 \
                --dapr-listen-addresses [::1],127.0.0.1 --dapr-public-port 3501 --app-id shop --app-protocol http \
                --log-level info --dapr-graceful-shutdown-seconds 5 --mode kubernetes --control-plane-address x:443 \
                --sentry-address y:443 --control-plane-trust-domain cluster.local --control-plane-namespace dapr \
                --placement-host-address z:50005 --scheduler-host-address s:50006 --scheduler-job-streams 3 \
                --enable-mtls --enable-profiling=false --profile-port 7777 --actors-service placement:z --reminders-service \
                default --hot-reload-reconcile-interval 60s --actors-disseminate-timeout 30s --config appconfig \
                --app-max-concurrency -1 --max-body-size 4Mi --metrics-port 9090 --enable-metrics=true";
    let run = run_of(line, Persona::Daprd);
    assert!(run.mistakes.is_empty(), "{}", run.mistakes);
    assert_eq!(run.given.list("dapr-listen-addresses"), ["[::1]", "127.0.0.1"]);
}

#[test]
fn repeated_paths_are_all_kept_and_other_flags_are_overridden_by_the_last() {
    let run = run_of(
        "daprd --app-id a --app-id b --resources-path x --components-path y --config c --config d",
        Persona::Daprd,
    );
    assert_eq!(run.given.list("resources-path"), ["x", "y"]);
    assert_eq!(run.given.list("config"), ["c", "d"]);
    assert_eq!(run.given.text("app-id"), Some("b"));
}

#[test]
fn dapr_run_takes_an_app_with_or_without_the_separator() {
    for line in
        ["dapr run --app-id shop -p 80 -- python app.py --x", "dapr run -a shop --app-port=80 python app.py --x"]
    {
        let run = run_of(line, Persona::Dapr);
        assert_eq!(app_of(&run), ["python", "app.py", "--x"], "{line}");
        assert_eq!(run.given.text("app-id"), Some("shop"), "{line}");
        assert_eq!(run.given.text("app-port"), Some("80"), "{line}");
    }
}

#[test]
fn the_flags_of_dapr_run_with_one_letter_are_those_of_dapr() {
    let run = run_of("dapr run -a i -p 1 -P grpc -H 2 -G 3 -I 4 -M 5 -d r -c f -u s", Persona::Dapr);
    let get = |name| run.given.text(name);
    assert_eq!(get("app-protocol"), Some("grpc"));
    assert_eq!(get("dapr-http-port"), Some("2"));
    assert_eq!(get("dapr-grpc-port"), Some("3"));
    assert_eq!(get("dapr-internal-grpc-port"), Some("4"));
    assert_eq!(get("metrics-port"), Some("5"));
    assert_eq!(get("resources-path"), Some("r"));
    assert_eq!(get("config"), Some("f"));
    assert_eq!(get("unix-domain-socket"), Some("s"));
}

#[test]
fn callboard_run_wants_the_separator_so_that_a_typing_error_is_not_a_command() {
    let run = run_of("callboard run --app-id shop -- node app.js -- x", Persona::Callboard);
    assert_eq!(app_of(&run), ["node", "app.js", "--", "x"]);
    assert!(parse(&argv("callboard run app-id shop"), Persona::Callboard).is_err());
}

fn mistakes_of(words: &[&str]) -> Vec<(String, String)> {
    let argv: Vec<_> = words.iter().map(OsString::from).collect();
    match parse(&argv, Persona::Callboard) {
        Err(Stop::Mistakes(found)) => found.iter().map(|m| (m.subject.clone(), m.problem.clone())).collect(),
        other => panic!("{words:?}: {other:?}"),
    }
}

#[test]
fn a_forgotten_separator_is_told_with_the_line_that_works() {
    for (line, stray, works) in [
        ("callboard run --app-id x python app.py", "python", "callboard run --app-id x -- python app.py"),
        (
            "callboard run --app-id python python app.py --port 1",
            "python",
            "callboard run --app-id python -- python app.py --port 1",
        ),
        ("/opt/callboard run --ephemeral npm start", "npm", "/opt/callboard run --ephemeral -- npm start"),
        ("callboard run app-id shop", "app-id", "callboard run -- app-id shop"),
    ] {
        let found = mistakes_of(&line.split(' ').collect::<Vec<_>>());
        assert_eq!(found.len(), 1, "{line}: {found:?}");
        assert_eq!(found[0].0, stray, "{line}");
        assert!(found[0].1.ends_with(&format!("put -- before it: {works}")), "{line}: {found:?}");
        assert!(parse(&argv(works), Persona::Callboard).is_ok(), "{works}");
    }
    let found = mistakes_of(&["callboard", "run", "sh", "-c", "echo it's $HOME"]);
    assert!(found[0].1.ends_with(r"callboard run -- sh -c 'echo it'\''s $HOME'"), "{found:?}");
    let found = mistakes_of(&["callboard", "run", "--no-such", "1", "python", "app.py"]);
    assert_eq!(found.iter().map(|(subject, _)| subject.as_str()).collect::<Vec<_>>(), ["--no-such", "python"]);
    // Where no command is taken, clap's own words are the better ones.
    assert!(matches!(parse(&argv("callboard list python"), Persona::Callboard), Err(Stop::Clap(_))));
    assert!(matches!(parse(&argv("daprd --app-id x python"), Persona::Daprd), Err(Stop::Clap(_))));
}

#[test]
fn what_is_missing_beside_an_unknown_flag_is_named_whole() {
    let found = mistakes_of(&["callboard", "invoke", "--no-such", "1", "--app-id", "a"]);
    let expected = [("--no-such", "unknown; --help lists the flags"), ("--method <PATH>", "missing")];
    assert_eq!(found, expected.map(|(subject, problem)| (subject.to_owned(), problem.to_owned())));
    let found = mistakes_of(&["callboard", "actors", "--no-such=1", "--limit", "x"]);
    assert!(found.len() == 2 && found[1].1.contains("'x'") && found[1].1.contains("--limit"), "{found:?}");
}

#[test]
fn unknown_flags_are_reported_together_with_what_was_meant() {
    let run = run_of("callboard run --app-prot 80 --nonsense=1 --dapr-http-port 70000 --app-id a", Persona::Callboard);
    let subjects: Vec<_> = run.mistakes.iter().map(|mistake| mistake.subject.as_str()).collect();
    assert_eq!(subjects, ["--app-prot", "--nonsense"]);
    let first = run.mistakes.iter().next().unwrap();
    assert!(first.problem.contains("--app-port") || first.problem.contains("--app-protocol"), "{}", first.problem);
    assert_eq!(run.given.text("app-id"), Some("a"));
}

#[test]
fn words_after_the_separator_keep_their_dashes_under_daprd_too() {
    let mut ended = false;
    let words: Vec<_> = argv("-app-id x -1 -h -- -keep").iter().map(|word| double_dash(word, &mut ended)).collect();
    assert_eq!(words, argv("--app-id x -1 -h -- -keep"));
}

#[test]
fn help_and_version_are_not_failures() {
    for (line, persona) in [
        ("callboard --help", Persona::Callboard),
        ("callboard run --help", Persona::Callboard),
        ("callboard --version", Persona::Callboard),
        ("dapr --version", Persona::Dapr),
        ("daprd -version", Persona::Daprd),
        ("daprd --help", Persona::Daprd),
    ] {
        match parse(&argv(line), persona) {
            Err(Stop::Clap(error)) => assert_eq!(error.exit_code(), 0, "{line}: {error}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn the_help_of_run_shows_no_flag_without_effect() {
    let Err(Stop::Clap(help)) = parse(&argv("callboard run --help"), Persona::Callboard) else { panic!() };
    let help = help.to_string();
    for flag in flags::FLAGS {
        let shown = help.contains(&format!("--{} ", flag.name)) || help.contains(&format!("--{}[", flag.name));
        let visible = !matches!(flag.group, flags::Group::Hidden | flags::Group::Ignored);
        assert_eq!(shown, visible, "--{} in\n{help}", flag.name);
    }
}

#[test]
fn errands_of_both_names_are_understood() {
    for (line, persona) in [
        ("dapr stop --app-id shop", Persona::Dapr),
        ("dapr stop shop cart", Persona::Dapr),
        ("dapr list -o json", Persona::Dapr),
        ("dapr invoke --app-id a --method m --verb GET", Persona::Dapr),
        ("dapr invoke -a a -m m -v PUT -d {}", Persona::Dapr),
        ("callboard list --json", Persona::Callboard),
        ("callboard actors --type cart --prefix a --limit 3 --json", Persona::Callboard),
        ("callboard reminders --address 127.0.0.1:3500", Persona::Callboard),
        ("callboard state get a||t||i||k", Persona::Callboard),
        ("callboard state get k --type t --id i||j", Persona::Callboard),
        ("callboard state get --type t --id i --key k", Persona::Callboard),
        ("callboard actors --app-id shop", Persona::Callboard),
        ("callboard reminders -a shop", Persona::Callboard),
        ("callboard state get a||t||i||k --app-id shop", Persona::Callboard),
        ("callboard state export --app-id shop", Persona::Callboard),
        ("callboard state export a||t||", Persona::Callboard),
    ] {
        assert!(matches!(parse(&argv(line), persona), Ok(Action::Client(_))), "{line}");
    }
    assert!(matches!(parse(&argv("dapr init --slim"), Persona::Dapr), Ok(Action::Print(_))));
    assert!(matches!(parse(&argv("dapr run -f ."), Persona::Dapr), Ok(Action::RunMany(_))));
}

#[test]
fn an_errand_that_lacks_something_says_what() {
    for (line, word) in [
        ("callboard stop", "--app-id"),
        ("callboard invoke --app-id a", "--method"),
        ("callboard state get a||b", "app||type||id||key"),
        ("callboard actors --limit x", "--limit"),
        ("callboard state get", "app||type||id||key"),
        ("callboard state get --type t --id i", "--key"),
        ("callboard state get k --key k", "--key"),
        ("callboard state get k --type t", "--id"),
        ("callboard actors --app-id a --address 1", "--address"),
    ] {
        match parse(&argv(line), Persona::Callboard) {
            Err(Stop::Clap(error)) => assert!(error.to_string().contains(word), "{line}: {error}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn the_grammar_of_each_name_holds_together() {
    for persona in [Persona::Callboard, Persona::Dapr, Persona::Daprd] {
        grammar(persona).debug_assert();
    }
}
