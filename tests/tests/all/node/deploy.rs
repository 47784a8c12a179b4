//! What `deploy` holds works with the binary of today.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use callboard_tests::binary::callboard;

const UNIT: &str = "systemd/callboard@.service";
/// Where the unit expects the binary.
const INSTALLED: &str = "/usr/local/bin/callboard";
/// Where `StateDirectory` is made.
const STATE: &str = "/var/lib/";
const INSTANCE: &str = "shop";
/// What `/etc/callboard/shop.env` may hold.
const ENVIRONMENT: [(&str, &str); 4] =
    [("APP_PORT", "8080"), ("DAPR_API_TOKEN", "in"), ("APP_API_TOKEN", "out"), ("NAMESPACE", "prod")];

fn deploy(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").join("deploy").join(file)
}

fn unit() -> String {
    std::fs::read_to_string(deploy(UNIT)).expect("read the unit")
}

/// The value of a setting that the unit has once.
fn setting(name: &str) -> String {
    let unit = unit();
    let found: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect();
    assert_eq!(found.len(), 1, "{name} stands {} times in the unit", found.len());
    assert!(!found[0].ends_with('\\'), "{name} goes on in the next line, which this test does not read");
    found[0].replace("%i", INSTANCE)
}

/// The words that systemd would start, with the state folder in `home`.
fn command_line(home: &Path) -> Vec<String> {
    let folder = format!("{STATE}{}", setting("StateDirectory"));
    let state = home.join(setting("StateDirectory"));
    std::fs::create_dir_all(&state).expect("make the state folder");
    let words = setting("ExecStart").split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert!(words.contains(&folder), "the node's data is not in the unit's state folder {folder}: {words:?}");
    let filled = words.into_iter().map(|word| {
        let variables =
            ENVIRONMENT.iter().fold(word, |word, (name, value)| word.replace(&format!("${{{name}}}"), value));
        variables.replace(&folder, &state.to_string_lossy())
    });
    filled.collect()
}

fn check(words: &[String], home: &Path) -> Output {
    let mut command = Command::new(callboard());
    command.args(words).arg("--check").env_clear().envs(ENVIRONMENT).env("XDG_RUNTIME_DIR", home);
    command.output().expect("run the check")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_units_command_line_is_one_that_the_binary_takes() {
    let home = tempfile::tempdir().expect("a folder");
    let words = command_line(home.path());
    assert_eq!(words[0], INSTALLED);
    assert!(words.iter().all(|word| !word.contains(['$', '%'])), "systemd fills in what this test does not: {words:?}");
    let output = check(&words[1..], home.path());
    assert!(output.status.success(), "{words:?}: {}", said(&output));
    assert_eq!(output.stdout, b"ok\n");
    let wrong = words.iter().map(|word| word.replace("8080", "eighty")).collect::<Vec<_>>();
    let output = check(&wrong[1..], home.path());
    assert_eq!(output.status.code(), Some(2), "the check finds nothing: {}", said(&output));
}

#[test]
fn the_unit_leaves_the_node_time_to_drain() {
    let seconds: u64 = setting("TimeoutStopSec").parse().expect("a number of seconds");
    // The default of --dapr-graceful-shutdown-seconds, and as much for an app that is a child.
    assert!(seconds >= 10, "{seconds} s");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let home = tempfile::tempdir().expect("a folder");
    // systemd wants the program to be there; and it says what it does not know, which is no failure to it.
    let text = unit().replace(INSTALLED, &callboard().to_string_lossy());
    let name = format!("callboard@{INSTANCE}.service");
    std::fs::write(home.path().join(&name), &text).expect("write the unit");
    let verify = |file: &str| {
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no", "--recursive-errors=no"]).arg(home.path().join(file)).output()
    };
    let output = match verify(&name) {
        Ok(output) => output,
        Err(error) if std::env::var_os("CALLBOARD_CI").is_none() => {
            eprintln!("skipped: systemd-analyze cannot be run: {error}");
            return;
        }
        Err(error) => panic!("systemd-analyze cannot be run: {error}"),
    };
    // What it says of other units of this machine is not ours.
    let about_ours = |output: &Output| said(output).lines().filter(|line| line.contains("callboard@")).count();
    assert!(output.status.success() && about_ours(&output) == 0, "{}", said(&output));
    let broken = "callboard@broken.service";
    std::fs::write(home.path().join(broken), text.replace("Restart=", "Restrat=")).expect("write a unit");
    assert!(about_ours(&verify(broken).expect("run it again")) > 0, "it finds nothing in a broken unit either");
}

#[test]
fn the_sample_resources_are_taken_without_a_word() {
    let home = tempfile::tempdir().expect("a folder");
    let data = home.path().join("data");
    let words = |folder: &Path| {
        let flags = [("--resources-path", folder), ("--data-dir", &data)];
        let flags = flags.into_iter().flat_map(|(flag, path)| [flag.to_owned(), path.to_string_lossy().into_owned()]);
        std::iter::once("run".to_owned()).chain(flags).collect::<Vec<_>>()
    };
    let output = check(&words(&deploy("resources")), home.path());
    assert!(output.status.success(), "{}", said(&output));
    // A resource that is ignored is named in the log.
    assert_eq!(said(&output), "ok\n");
    assert!(!data.exists(), "a check leaves a folder behind");
    let broken = home.path().join("broken");
    std::fs::create_dir(&broken).expect("make a folder");
    std::fs::write(broken.join("one.yaml"), "kind: Component\nmetadata: [").expect("write a resource");
    assert_ne!(said(&check(&words(&broken), home.path())), "ok\n", "a broken resource is passed over in silence");
}
