//! A child process in a group of its own, with its output in a file, that does not outlive its handle.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::reaper;
use crate::wait::eventually;

/// How much of a log a failed test shows.
const TAIL: usize = 12_000;

pub struct Process {
    child: Child,
    group: u32,
    log: PathBuf,
    ended: Option<ExitStatus>,
    left: bool,
}

impl Process {
    /// Starts `command` with stdout and stderr appended to `log`, stdin empty.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("open the log file");
        let copy = file.try_clone().expect("share the log file");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::from(file))
            .stderr(Stdio::from(copy))
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("start {:?}: {error}", command.get_program()));
        let group = child.id();
        reaper::add(group);
        Self { child, group, log: log.to_owned(), ended: None, left: false }
    }

    pub fn id(&self) -> u32 {
        self.group
    }

    /// Everything it has printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("ask for the end of an own child");
            if self.ended.is_some() {
                reaper::gone(self.group);
            }
        }
        self.ended
    }

    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Waits for its end, at most `within`.
    pub async fn wait_end(&mut self, within: Duration) -> ExitStatus {
        eventually(within, "the process ends", async || self.ended()).await
    }

    /// Sends a signal to the process itself.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(pid(self.group), signal).expect("signal an own child");
    }

    /// Lets it run on by itself: neither this handle nor the end of this program ends it.
    pub fn leave(mut self) {
        reaper::gone(self.group);
        self.left = true;
    }

    /// Kills the whole group at once and collects the child: nothing of it is left when this returns.
    pub fn kill(&mut self) {
        // Once collected, its number may already be another's.
        if self.ended().is_none() {
            let _ = rustix::process::kill_process_group(pid(self.group), Signal::KILL);
            self.ended = self.child.wait().ok();
            reaper::gone(self.group);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let start = (log.len().saturating_sub(TAIL)..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            eprintln!("---- end of {} ----\n{}", self.log.display(), &log[start..]);
        }
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id as i32).expect("ids of processes are positive")
}

/// Resident memory of a process, in bytes.
pub fn resident(id: u32) -> u64 {
    kibibytes(id, "VmRSS:")
}

/// The most resident memory a process has had since [`forget_peak`], in bytes.
pub fn peak(id: u32) -> u64 {
    kibibytes(id, "VmHWM:")
}

/// Lets the peak of a process begin again at what it holds at this moment, which is the answer.
pub fn forget_peak(id: u32) -> u64 {
    // proc_pid_clear_refs(5): 5 resets the peak.
    fs::write(format!("/proc/{id}/clear_refs"), "5").expect("reset the peak of an own child");
    peak(id)
}

fn kibibytes(id: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).expect("read the status of an own child");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a live process has a size");
    let kib = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a size in kB");
    kib * 1024
}

/// Open descriptors of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// Listening ones included.
    pub sockets: usize,
    /// Of its store, its pipes and the like.
    pub others: usize,
}

pub fn descriptors(id: u32) -> Descriptors {
    let folder = fs::read_dir(format!("/proc/{id}/fd")).expect("list descriptors of an own child");
    // One may be closed while the list is read.
    let targets = folder.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let (sockets, others): (Vec<_>, Vec<_>) =
        targets.partition(|target| target.to_string_lossy().starts_with("socket:"));
    Descriptors { sockets: sockets.len(), others: others.len() }
}

/// Threads of a process.
pub fn threads(id: u32) -> usize {
    fs::read_dir(format!("/proc/{id}/task")).expect("list threads of an own child").count()
}
