//! The binary: everything is in the library.

use std::process::ExitCode;

/// Requests allocate and free many small values on several threads; the C library's allocator is slow at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    callboard::cli::main()
}
