//! Where the binary under test is.
//!
//! `CALLBOARD_BIN` names it; otherwise it is the one cargo has put beside this test: same target folder, same profile.
//! It is never searched for on the PATH, where an older one could answer for it.

use std::env;
use std::path::PathBuf;

pub const VARIABLE: &str = "CALLBOARD_BIN";

/// The path of `callboard`. Panics with what to do when there is none.
pub fn callboard() -> PathBuf {
    if let Some(named) = env::var_os(VARIABLE) {
        let path = PathBuf::from(named);
        assert!(path.is_file(), "{VARIABLE} names {}, which is not a file", path.display());
        return path;
    }
    let own = env::current_exe().expect("know the own executable");
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("callboard")).find(|path| path.is_file());
    beside.unwrap_or_else(|| {
        panic!(
            "no callboard binary beside {}: build it with `cargo build -p callboard` (`make test` does), or name one in {VARIABLE}",
            own.display()
        )
    })
}
