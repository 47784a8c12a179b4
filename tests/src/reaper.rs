//! Ends the processes of a test run that ends without unwinding.
//!
//! A test that panics drops its nodes and so ends them. A test binary that is killed, or leaves statics behind, drops
//! nothing. One shell per test binary therefore reads the ids of process groups from a pipe; when the pipe closes,
//! whatever the reason, it kills those still listed.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use parking_lot::Mutex;

const SCRIPT: &str = r#"
listed=" "
while read -r word id; do
  case $word in
    add) listed="$listed$id " ;;
    # Without the test, an id that is not listed would double the list.
    gone) case $listed in *" $id "*) listed="${listed%% $id *} ${listed#* $id }" ;; esac ;;
  esac
done
for id in $listed; do kill -s KILL -- "-$id" 2>/dev/null; done
"#;

fn shell() -> &'static Mutex<Child> {
    static SHELL: OnceLock<Mutex<Child>> = OnceLock::new();
    SHELL.get_or_init(|| {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("start the reaper shell");
        Mutex::new(shell)
    })
}

fn say(word: &str, group: u32) {
    let mut shell = shell().lock();
    let pipe = shell.stdin.as_mut().expect("the pipe was asked for");
    // A reaper that is gone only costs the clean-up after a killed run.
    let _ = writeln!(pipe, "{word} {group}");
}

/// Lists a process group for the end.
pub fn add(group: u32) {
    say("add", group);
}

/// Takes a group off the list: it has ended, its id may be given to others.
pub fn gone(group: u32) {
    say("gone", group);
}
