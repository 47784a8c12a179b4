//! Rules of the source that a compiler does not hold: which crate may reach which, what may be called where, what
//! every module begins with. They are tests so that breaking one fails at once and says which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Lines of a file of the product; more is a sign of two files in one.
const LONGEST_SOURCE: usize = 500;
/// Lines of a file of tests, which is a list of cases more than a thing of its own.
const LONGEST_TEST: usize = 720;

/// Who may depend on whom, directly. Dev-dependencies are free: a test may look wherever it likes.
const EDGES: [(&str, &[&str]); 8] = [
    ("callboard-types", &[]),
    ("callboard-proto", &["callboard-types"]),
    ("callboard-machine", &["callboard-types"]),
    ("callboard-engine", &["callboard-types"]),
    ("callboard-storage", &["callboard-types"]),
    ("callboard-raft", &["callboard-types", "callboard-proto", "callboard-machine", "callboard-storage"]),
    (
        "callboard",
        &[
            "callboard-types",
            "callboard-proto",
            "callboard-machine",
            "callboard-engine",
            "callboard-storage",
            "callboard-raft",
        ],
    ),
    ("callboard-tests", &["callboard-types", "callboard-proto", "callboard"]),
];

/// What the pure crates never reach, not even through others.
const IMPURE: [&str; 9] = ["tokio", "tonic", "openraft", "chitchat", "rocksdb", "hyper", "mio", "socket2", "async-std"];
const PURE: [&str; 3] = ["callboard-types", "callboard-machine", "callboard-engine"];

/// Names that one crate alone may depend on.
const SINGLE_OWNERS: [(&str, &str); 2] = [("rocksdb", "callboard-storage"), ("openraft", "callboard-raft")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace holds this crate").to_owned()
}

fn metadata(arguments: &[&str]) -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", &host()])
        .args(arguments)
        .output()
        .expect("run cargo metadata");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

/// The platform of this machine: libraries of others need not be there.
fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().expect("run rustc");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host").to_owned()
}

/// Own packages: name -> names of normal and build dependencies.
fn direct() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata(&["--no-deps"]);
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let normal = dependencies.iter().filter(|one| one["kind"] != "dev");
            let names = normal.map(|one| one["name"].as_str().expect("a name").to_owned()).collect();
            (package["name"].as_str().expect("a name").to_owned(), names)
        })
        .collect()
}

#[test]
fn crates_depend_only_along_the_drawn_edges() {
    let direct = direct();
    let drawn: BTreeMap<_, _> = EDGES.into_iter().collect();
    assert_eq!(direct.keys().map(String::as_str).collect::<Vec<_>>(), drawn.keys().copied().collect::<Vec<_>>());
    for (name, dependencies) in &direct {
        for dependency in dependencies.iter().filter(|dependency| dependency.starts_with("callboard")) {
            assert!(drawn[name.as_str()].contains(&dependency.as_str()), "{name} depends on {dependency}");
        }
    }
}

#[test]
fn rocksdb_and_openraft_have_one_owner_each() {
    for (name, dependencies) in direct() {
        for (library, owner) in SINGLE_OWNERS {
            let found = dependencies
                .iter()
                .any(|dependency| dependency == library || dependency.starts_with(&format!("{library}-")));
            assert!(!found || name == owner, "{name} depends on {library}, which is {owner}'s");
        }
    }
}

#[test]
fn pure_crates_reach_neither_runtime_nor_io() {
    let metadata = metadata(&[]);
    let id_names: BTreeMap<&str, &str> = metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| (package["id"].as_str().expect("an id"), package["name"].as_str().expect("a name")))
        .collect();
    let edges: BTreeMap<&str, Vec<&str>> = metadata["resolve"]["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .map(|node| {
            let used = node["deps"].as_array().expect("deps").iter().filter(|dependency| {
                dependency["dep_kinds"].as_array().expect("kinds").iter().any(|kind| kind["kind"].is_null())
            });
            (node["id"].as_str().expect("an id"), used.map(|one| one["pkg"].as_str().expect("an id")).collect())
        })
        .collect();
    for pure in PURE {
        let start = id_names.iter().find(|(_, name)| **name == pure).expect("an own crate").0;
        let mut seen = BTreeSet::new();
        let mut open = vec![*start];
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                open.extend(&edges[id]);
            }
        }
        for id in seen {
            assert!(!IMPURE.contains(&id_names[id]), "{pure} reaches {}", id_names[id]);
        }
    }
}

/// Every file of the project with these endings, by path from the root.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    fn walk(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("read a folder of the project") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() {
                if !["target", ".git", "node_modules", "__pycache__"].contains(&name.as_str()) {
                    walk(&path, endings, found);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut found = Vec::new();
    walk(&root, endings, &mut found);
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).expect("read a file of the project"))
        })
        .collect()
}

/// The part of a file before its own tests.
fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]").map_or(text, |at| &text[..at])
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("_test.rs") || path.contains("/tests/") || path.ends_with("/tests.rs")
}

#[test]
fn every_module_begins_with_what_it_is_for() {
    let without: Vec<_> =
        files(&[".rs"]).into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(without.is_empty(), "without a `//!` at the top: {without:#?}");
}

#[test]
fn no_file_is_longer_than_its_limit() {
    let long = files(&[".rs"]).into_iter().filter_map(|(path, text)| {
        let (lines, limit) = (text.lines().count(), if is_test(&path) { LONGEST_TEST } else { LONGEST_SOURCE });
        (lines > limit).then(|| format!("{path} has {lines} lines, {limit} are its limit"))
    });
    let long: Vec<_> = long.collect();
    assert!(long.is_empty(), "{long:#?}");
}

/// Words that stand in code outside comments.
fn uses(text: &str, word: &str) -> bool {
    without_tests(text).lines().any(|line| {
        let code = line.split("//").next().unwrap_or_default();
        code.contains(word)
    })
}

#[test]
fn tasks_are_spawned_in_one_place_per_crate() {
    const SPAWNERS: [&str; 2] = ["node/src/tasks.rs", "node/src/bench/"];
    let mut found = Vec::new();
    for (path, text) in files(&[".rs"]) {
        let allowed = is_test(&path) || path.starts_with("raft/") || SPAWNERS.iter().any(|own| path.starts_with(own));
        if !allowed && ["tokio::spawn(", "spawn_local(", "tokio::task::spawn("].iter().any(|call| uses(&text, call)) {
            found.push(path);
        }
    }
    assert!(found.is_empty(), "these spawn past node/src/tasks.rs: {found:#?}");
}

#[test]
fn the_clock_is_read_in_one_place() {
    // The commands are programs of their own: they look at the clock as a user does.
    const READERS: [&str; 3] = ["node/src/clock.rs", "node/src/bench/", "node/src/cli/"];
    let words = ["Instant::now(", "SystemTime::now(", "Utc::now(", "Local::now(", "OffsetDateTime::now"];
    let mut found = Vec::new();
    for (path, text) in files(&[".rs"]) {
        let ours = path.starts_with("node/") || path.starts_with("raft/machine/") || path.starts_with("proto/");
        let allowed = is_test(&path) || READERS.iter().any(|own| path.starts_with(own));
        if ours && !allowed && words.iter().any(|word| uses(&text, word)) {
            found.push(path);
        }
    }
    assert!(found.is_empty(), "these read the clock past node/src/clock.rs: {found:#?}");
}

#[test]
fn only_membership_names_the_gossip_library() {
    let of_gossip = |path: &str| path.starts_with("node/src/membership/") || path == "tests/tests/all/tidy.rs";
    let found: Vec<_> = files(&[".rs"])
        .into_iter()
        .filter(|(path, text)| !of_gossip(path) && text.contains("chitchat::"))
        .map(|(path, _)| path)
        .collect();
    assert!(found.is_empty(), "these name chitchat past node/src/membership: {found:#?}");
    let others: Vec<_> =
        direct().into_iter().filter(|(_, uses)| uses.contains("chitchat")).map(|(name, _)| name).collect();
    assert_eq!(others, ["callboard"]);
}

#[test]
fn there_is_no_unsafe_code_and_nothing_left_undone() {
    let words = ["unsafe ", "unsafe{", "todo!(", "unimplemented!(", "dbg!("];
    let mut found = Vec::new();
    for (path, text) in files(&[".rs"]) {
        let own = path == "tests/tests/all/tidy.rs";
        for word in words.iter().filter(|word| !own && uses(&text, word)) {
            found.push(format!("{path}: {word}"));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Nothing committed names a machine: where packages come from and where folders lie is the user's.
#[test]
fn no_file_names_a_registry_host_or_a_folder_of_some_machine() {
    let words = [
        ["registry.", "npmjs.org"].concat(),
        ["py", "pi.org"].concat(),
        ["files.python", "hosted.org"].concat(),
        ["static.crates", ".io"].concat(),
        ["/ro", "ot/"].concat(),
        ["/wo", "rk/"].concat(),
    ];
    let endings = [
        ".rs", ".toml", ".md", ".txt", ".json", ".py", ".js", ".sh", ".c", ".yml", ".yaml", ".proto", "Makefile",
        "run", ".lock",
    ];
    let mut found = Vec::new();
    for (path, text) in files(&endings) {
        for word in &words {
            // The user's home in an example of systemd or of a container is theirs.
            if text.contains(word.as_str()) && !path.starts_with("deploy/") {
                found.push(format!("{path}: {word}"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Every line of the map of conformance has a test that exists, or a reason that the map explains.
#[test]
fn every_conformance_line_has_a_test_that_exists_or_an_explained_reason() {
    let map = std::fs::read_to_string(root().join("tests/CONFORMANCE.md")).expect("read tests/CONFORMANCE.md");
    let sources: Vec<_> = files(&[".rs"]).into_iter().filter(|(path, _)| path.starts_with("tests/tests/")).collect();
    let italics = |text: &str| -> Vec<String> { text.split('*').skip(1).step_by(2).map(str::to_owned).collect() };
    let (head, lines) = map.split_once("\n## 1.").expect("sections");
    let explained: BTreeSet<String> = head
        .lines()
        .filter_map(|line| line.strip_prefix("| *")?.split_once("* |"))
        .flat_map(|(names, _)| italics(&format!("*{names}*")))
        .collect();
    let mut named = 0;
    let rows =
        lines.lines().filter(|line| line.starts_with('|') && !line.starts_with("| line") && !line.contains("---"));
    for line in rows {
        let (_, shown) = line.trim_matches('|').split_once('|').expect("two columns");
        let reasons = italics(shown);
        assert!(!reasons.is_empty() || shown.contains("::"), "CONFORMANCE.md: neither test nor reason: {line}");
        for reason in reasons {
            assert!(explained.contains(&reason), "CONFORMANCE.md does not explain {reason:?}: {line}");
        }
        for name in line.split('`').skip(1).step_by(2).filter(|name| name.contains("::")) {
            let (module, test) = name.rsplit_once("::").expect("a path");
            let file = format!("tests/tests/all/{}", module.replace("::", "/"));
            let found = sources.iter().any(|(path, text)| {
                (path == &format!("{file}.rs") || path == &format!("{file}/mod.rs"))
                    && text.contains(&format!("fn {test}("))
            });
            assert!(found, "CONFORMANCE.md names {name}, which is not there");
            named += 1;
        }
    }
    assert!(named > 50, "only {named} tests are named");
}
