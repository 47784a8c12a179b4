//! The app under measurement, as a program of its own: what `callboard bench --self` starts beside its node.

use std::process::ExitCode;

fn main() -> ExitCode {
    callboard::bench::app_main(std::env::args_os())
}
