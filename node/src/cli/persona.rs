//! Which command the user believes to have called: the binary answers to three names.

use std::ffi::OsStr;
use std::path::Path;

/// The name in `argv[0]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persona {
    /// Own flags, subcommands and defaults.
    Callboard,
    /// The launcher of Dapr: `dapr run`, `stop`, `list`, `invoke`.
    Dapr,
    /// The sidecar of Dapr: no subcommands, Go's flags, fixed ports.
    Daprd,
}

impl Persona {
    /// By the last part of the path the program was called by.
    pub fn of(argv0: &OsStr) -> Self {
        match Path::new(argv0).file_name().and_then(OsStr::to_str) {
            Some("dapr") => Self::Dapr,
            Some("daprd") => Self::Daprd,
            Some(_) | None => Self::Callboard,
        }
    }
}
