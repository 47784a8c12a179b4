//! The process between the node and the app: starts the app, and ends its group when either of the two ends.
//!
//! A node that is killed cannot tell its app to end. The supervisor can: it waits on both through `pidfd`s. It is the
//! leader of the app's process group and stays alive through the group's signals, so that the group's number is not
//! given away while anybody might still signal it. It holds no state and speaks to nobody.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpgrp, getpid, getppid, kill_current_process_group, pidfd_open, setpgid,
};

/// First argument that turns the binary into a supervisor: `<binary> <SUBCOMMAND> <pid of the node> <program> <args>`.
pub const SUBCOMMAND: &str = "__supervise";

/// Time the app has to end once the node is gone.
const GRACE: Duration = Duration::from_secs(2);
/// Without `pidfd` (old kernels, some sandboxes) both ends are looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Exit codes of a shell for a program that cannot be run, or found.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Runs the app to its end. `args` is what follows [`SUBCOMMAND`].
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args = args.into_iter();
    let node = args.next().and_then(|pid| pid.to_str()?.parse().ok()).and_then(Pid::from_raw);
    let (Some(node), Some(program)) = (node, args.next()) else {
        eprintln!("callboard: {SUBCOMMAND} is internal; use `callboard run -- <command>`");
        return ExitCode::from(CANNOT_RUN);
    };
    let parent = Parent::of(node);
    // Whoever started this: what it ends must never be a group that others are in.
    if getpgrp() != getpid() && setpgid(None, None).is_err() {
        eprintln!("callboard: cannot give the app a process group of its own");
        return ExitCode::from(CANNOT_RUN);
    }
    if let Err(error) = outlive_signals() {
        eprintln!("callboard: cannot set up signals for the app: {error}");
        return ExitCode::from(CANNOT_RUN);
    }
    match Command::new(&program).args(args).spawn() {
        Ok(child) => ExitCode::from(supervise(child, &parent)),
        Err(error) => {
            eprintln!("callboard: cannot start {}: {error}", program.to_string_lossy());
            ExitCode::from(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN })
        }
    }
}

/// Signals to the group are meant for the app. A handler, other than "ignore", does not pass on to the app.
fn outlive_signals() -> io::Result<()> {
    let seen = Arc::new(AtomicBool::new(false));
    for signal in [libc_signal(Signal::TERM), libc_signal(Signal::INT), libc_signal(Signal::HUP)] {
        signal_hook::flag::register(signal, Arc::clone(&seen))?;
    }
    Ok(())
}

fn libc_signal(signal: Signal) -> i32 {
    signal.as_raw()
}

fn supervise(mut child: Child, parent: &Parent) -> u8 {
    let child_fd = i32::try_from(child.id()).ok().and_then(Pid::from_raw).and_then(watch);
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            // What the app has left behind ends with it.
            let _ = kill_current_process_group(Signal::TERM);
            let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
            return code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        }
        if parent.is_gone() {
            end_group(child_fd.as_ref());
        }
        let fds: Vec<_> = [child_fd.as_ref(), parent.fd.as_ref()].into_iter().flatten().collect();
        let wait = if fds.len() == 2 { None } else { Some(LOOK_EVERY) };
        wait_for(&fds, wait);
    }
}

/// Ends this process too: it is part of the group.
fn end_group(child_fd: Option<&OwnedFd>) {
    let _ = kill_current_process_group(Signal::TERM);
    match child_fd {
        Some(fd) => wait_for(&[fd], Some(GRACE)),
        None => std::thread::sleep(GRACE),
    }
    let _ = kill_current_process_group(Signal::KILL);
}

/// Returns when one of `fds` is readable, after `timeout`, or for a signal: the caller looks again in any case.
fn wait_for(fds: &[&OwnedFd], timeout: Option<Duration>) {
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)).collect();
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    let _ = poll(&mut polled, timeout.as_ref());
}

fn watch(pid: Pid) -> Option<OwnedFd> {
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// The node, watched from before the app exists.
struct Parent {
    pid: Pid,
    fd: Option<OwnedFd>,
}

impl Parent {
    fn of(pid: Pid) -> Self {
        Self { pid, fd: watch(pid) }
    }

    /// A process whose parent ends is given another one.
    fn is_gone(&self) -> bool {
        getppid() != Some(self.pid)
    }
}
