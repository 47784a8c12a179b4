//! Finds and holds the folder a node keeps its data in.
//!
//! Held by an exclusive `flock` on `<dir>/lock` for the life of the process: the kernel lets go of it however the
//! process ends, so a crash never leaves a folder locked. The file's text (pid and command) only serves the error
//! message of the next one who wants it. A folder belongs to one cluster for good; its name is in `<dir>/cluster`.
//!
//! An explicit folder is held or is an error. The default is the node's name, then `-2`, `-3` and so on while they are
//! locked: several nodes of one app on one machine each find their own data again, in the order they start.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::holder;

/// A process that was killed holds its lock for a moment longer.
const PATIENCE: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// One that drains is waited for, this long at most.
const DRAIN_PATIENCE: Duration = Duration::from_secs(30);
/// Ends the lock file's text while its holder drains.
const DRAINING: &str = "draining";
/// Nodes of one name on one machine.
const MAX_SAME_NAME: u32 = 64;

/// Where the user wants the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// `--data-dir`, or the default folder of an explicit `--node-name`.
    Explicit(PathBuf),
    /// The first of `<folder>/<name>`, `<folder>/<name>-2`, ... that nobody holds.
    Default { folder: PathBuf, name: String },
    /// A temporary folder, removed at exit.
    Ephemeral,
}

/// A folder that nobody else uses while this lives.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    /// The last part of a default path; `None` when the folder does not name the node.
    name: Option<String>,
    /// Dropping it unlocks.
    _lock: File,
    /// Dropping it removes the folder.
    _temporary: Option<tempfile::TempDir>,
}

impl Held {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The node's name, when the folder decided it.
    pub fn node_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Tells whoever wants the folder that it will soon be free. Best effort: otherwise they are refused.
    pub fn drains(&self) {
        let mut lock = &self._lock;
        let _ = lock.seek(SeekFrom::End(0)).and_then(|_| writeln!(lock, "{DRAINING}"));
    }

    /// Whether the folder ends with this value.
    pub fn is_ephemeral(&self) -> bool {
        self._temporary.is_some()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("--data-dir {path}: in use by {by}; stop it or give another folder", path = .path.display())]
    Taken { path: PathBuf, by: String },
    #[error("--data-dir {path}: belongs to cluster {found:?}, not {wanted:?}; give --cluster {found} or another folder", path = .path.display())]
    OtherCluster { path: PathBuf, found: String, wanted: String },
    #[error("{MAX_SAME_NAME} nodes named {name:?} run on this machine already; give --node-name or --data-dir")]
    TooMany { name: String },
    #[error("--data-dir {path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Takes the folder of `choice` for a node of `cluster`.
///
/// # Errors
///
/// It is in use, belongs to another cluster, or cannot be written.
pub fn hold(choice: &Choice, cluster: &str) -> Result<Held, Error> {
    match choice {
        Choice::Explicit(path) => hold_path(path, cluster, None),
        Choice::Default { folder, name } => hold_default(folder, name, cluster),
        Choice::Ephemeral => {
            let io = |source| Error::Io { path: std::env::temp_dir(), source };
            let temporary = tempfile::Builder::new().prefix("callboard-").tempdir().map_err(io)?;
            let held = hold_path(temporary.path(), cluster, None)?;
            Ok(Held { _temporary: Some(temporary), ..held })
        }
    }
}

fn hold_default(folder: &Path, name: &str, cluster: &str) -> Result<Held, Error> {
    for number in 1..=MAX_SAME_NAME {
        let name = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
        match hold_path(&folder.join(&name), cluster, Some(name)) {
            Err(Error::Taken { .. }) => {}
            other => return other,
        }
    }
    Err(Error::TooMany { name: name.to_owned() })
}

fn hold_path(path: &Path, cluster: &str, name: Option<String>) -> Result<Held, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    fs::create_dir_all(path).map_err(io)?;
    let path = path.canonicalize().map_err(io)?;
    let io = |source| Error::Io { path: path.clone(), source };
    let mut lock =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join("lock")).map_err(io)?;
    let (mut patience, mut drain) = (PATIENCE, DRAIN_PATIENCE);
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {
                let by = signature(&mut lock);
                if patience.is_zero() && (drain.is_zero() || !by.ends_with(DRAINING)) {
                    return Err(Error::Taken { path, by });
                }
                // Without the wait, a node restarted right after a kill, or while it drains, would take the next free
                // name, and another store.
                std::thread::sleep(LOOK_AGAIN);
                patience = patience.saturating_sub(LOOK_AGAIN);
                drain = drain.saturating_sub(LOOK_AGAIN);
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
    }
    sign(&mut lock).map_err(io)?;
    check_cluster(&path, cluster)?;
    Ok(Held { path, name, _lock: lock, _temporary: None })
}

/// What the holder has written into the lock file.
fn signature(lock: &mut File) -> String {
    let mut by = String::new();
    let read = lock.seek(SeekFrom::Start(0)).and_then(|_| lock.read_to_string(&mut by));
    let by = by.trim();
    if read.is_ok() && !by.is_empty() { by.to_owned() } else { "another process".to_owned() }
}

/// Says in the lock file who holds it.
fn sign(lock: &mut File) -> io::Result<()> {
    let pid = std::process::id();
    let holder = holder::Holder { pid, command: holder::command_of(pid) };
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    writeln!(lock, "{holder}")
}

fn check_cluster(path: &Path, cluster: &str) -> Result<(), Error> {
    let file = path.join("cluster");
    let io = |source| Error::Io { path: path.to_owned(), source };
    match fs::read_to_string(&file) {
        Ok(found) if found.trim() == cluster => Ok(()),
        // A crash between creating and writing the file leaves it empty: the folder holds nothing yet.
        Ok(found) if !found.trim().is_empty() => Err(Error::OtherCluster {
            path: path.to_owned(),
            found: found.trim().to_owned(),
            wanted: cluster.to_owned(),
        }),
        Ok(_) => write_cluster(&file, cluster).map_err(io),
        Err(error) if error.kind() == io::ErrorKind::NotFound => write_cluster(&file, cluster).map_err(io),
        Err(source) => Err(io(source)),
    }
}

fn write_cluster(file: &Path, cluster: &str) -> io::Result<()> {
    let mut file = File::create(file)?;
    writeln!(file, "{cluster}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default(folder: &Path) -> Choice {
        Choice::Default { folder: folder.to_owned(), name: "shop".into() }
    }

    #[test]
    fn a_held_folder_is_refused_naming_its_holder_and_free_after_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let choice = Choice::Explicit(dir.path().join("data"));
        let held = hold(&choice, "default").unwrap();
        let error = hold(&choice, "default").unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        hold(&choice, "default").unwrap();
    }

    #[test]
    fn a_folder_whose_holder_drains_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let held = hold(&default(dir.path()), "default").unwrap();
        held.drains();
        let folder = dir.path().to_owned();
        let next = std::thread::spawn(move || hold(&default(&folder), "default").unwrap());
        std::thread::sleep(PATIENCE * 2);
        assert!(!next.is_finished(), "it took another folder");
        drop(held);
        assert_eq!(next.join().unwrap().node_name(), Some("shop"));
    }

    #[test]
    fn a_second_node_of_a_name_gets_a_numbered_folder_and_each_finds_its_own_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = hold(&default(dir.path()), "default").unwrap();
        let second = hold(&default(dir.path()), "default").unwrap();
        let third = hold(&default(dir.path()), "default").unwrap();
        let names = [&first, &second, &third].map(|held| held.node_name().unwrap().to_owned());
        assert_eq!(names, ["shop", "shop-2", "shop-3"]);
        drop(second);
        assert_eq!(hold(&default(dir.path()), "default").unwrap().node_name(), Some("shop-2"));
    }

    #[test]
    fn a_folder_belongs_to_one_cluster_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let choice = Choice::Explicit(dir.path().to_owned());
        drop(hold(&choice, "blue").unwrap());
        drop(hold(&choice, "blue").unwrap());
        let error = hold(&choice, "green").unwrap_err();
        assert!(matches!(&error, Error::OtherCluster { found, .. } if found == "blue"), "{error}");
    }

    #[test]
    fn a_folder_of_another_cluster_is_an_error_and_not_a_reason_to_take_the_next_name() {
        let dir = tempfile::tempdir().unwrap();
        drop(hold(&default(dir.path()), "blue").unwrap());
        assert!(matches!(hold(&default(dir.path()), "green"), Err(Error::OtherCluster { .. })));
    }

    #[test]
    fn an_ephemeral_folder_is_gone_afterwards() {
        let held = hold(&Choice::Ephemeral, "default").unwrap();
        let path = held.path().to_owned();
        assert!(held.is_ephemeral() && path.join("lock").exists());
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn a_cluster_file_cut_short_by_a_crash_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cluster"), "").unwrap();
        drop(hold(&Choice::Explicit(dir.path().to_owned()), "blue").unwrap());
        assert_eq!(fs::read_to_string(dir.path().join("cluster")).unwrap(), "blue\n");
    }

    #[test]
    fn a_path_that_is_a_file_is_reported_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = hold(&Choice::Explicit(file), "default").unwrap_err().to_string();
        assert!(error.contains("--data-dir"), "{error}");
    }
}
