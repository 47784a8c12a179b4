//! Finds and holds the folder a node keeps its data in.
//!
//! Held by an exclusive `flock` on `<dir>/lock` for the life of the process: the kernel lets go of it however the
//! process ends, so a crash never leaves a folder locked. The file's text (pid and command) only serves the error
//! message of the next one who wants it. A folder belongs to one cluster for good; its name is in `<dir>/cluster`.
//!
//! An explicit folder is held or is an error. The default is the node's name, then `-2`, `-3` and so on while they are
//! locked: several nodes of one app on one machine each find their own data again, in the order they start.
//!
//! [`check`] foretells whether a folder can be held, and leaves no trace: a check may run while a node does.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Access;

use super::holder;

/// A process that was killed holds its lock for a moment longer.
const PATIENCE: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// One that drains is waited for, this long at most.
const DRAIN_PATIENCE: Duration = Duration::from_secs(30);
/// Ends the lock file's text while its holder drains.
const DRAINING: &str = "draining";
/// Held by the node that uses the folder.
const LOCK: &str = "lock";
/// Holds the cluster's name.
const CLUSTER: &str = "cluster";
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
    /// `why` is told here and is no cause of its own, which would be told again.
    #[error("data folder {path}: cannot {tried}: {why}; give another with --data-dir", path = .path.display())]
    Unusable { path: PathBuf, tried: String, why: io::Error },
}

impl Error {
    fn unusable(path: &Path, tried: impl Into<String>, why: io::Error) -> Self {
        Self::Unusable { path: path.to_owned(), tried: tried.into(), why }
    }
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
            let failed = |why| Error::unusable(&std::env::temp_dir(), "make a temporary folder in it", why);
            let temporary = tempfile::Builder::new().prefix("callboard-").tempdir().map_err(failed)?;
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
    let made = fs::create_dir_all(path).and_then(|()| path.canonicalize());
    let path = made.map_err(|why| Error::unusable(path, making(path), why))?;
    let file = path.join(LOCK);
    let failed = |tried: &str, why| Error::unusable(&path, format!("{tried} {}", file.display()), why);
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file);
    let mut lock = open.map_err(|why| failed("open", why))?;
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
            Err(TryLockError::Error(why)) => return Err(failed("lock", why)),
        }
    }
    sign(&mut lock).map_err(|why| failed("write", why))?;
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
    if found_cluster(path, cluster)?.is_some() {
        return Ok(());
    }
    let file = path.join(CLUSTER);
    write_cluster(&file, cluster).map_err(|why| Error::unusable(path, format!("write {}", file.display()), why))
}

/// The cluster's name in the folder, which is `cluster`; `None` when the folder has none yet.
fn found_cluster(path: &Path, cluster: &str) -> Result<Option<String>, Error> {
    let file = path.join(CLUSTER);
    match fs::read_to_string(&file) {
        // A crash between creating and writing the file leaves it empty: the folder holds nothing yet.
        Ok(found) if found.trim().is_empty() => Ok(None),
        Ok(found) if found.trim() == cluster => Ok(Some(found)),
        Ok(found) => Err(Error::OtherCluster {
            path: path.to_owned(),
            found: found.trim().to_owned(),
            wanted: cluster.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(Error::unusable(path, format!("read {}", file.display()), why)),
    }
}

fn write_cluster(file: &Path, cluster: &str) -> io::Result<()> {
    let mut file = File::create(file)?;
    writeln!(file, "{cluster}")?;
    file.sync_all()
}

/// Whether a node of `cluster` could take the folder of `choice`. Makes, locks and writes nothing. A folder in use is no
/// obstacle: its node may be the one that is about to be replaced.
///
/// # Errors
///
/// It belongs to another cluster, or cannot be made or written.
pub fn check(choice: &Choice, cluster: &str) -> Result<(), Error> {
    match choice {
        Choice::Explicit(path) => check_path(path, cluster),
        Choice::Default { folder, name } => check_path(&folder.join(name), cluster),
        Choice::Ephemeral => {
            let folder = std::env::temp_dir();
            allowed(&folder, Access::WRITE_OK | Access::EXEC_OK)
                .map_err(|why| Error::unusable(&folder, "make a temporary folder in it", why))
        }
    }
}

fn check_path(path: &Path, cluster: &str) -> Result<(), Error> {
    let folder = existing(path);
    if !folder.is_dir() {
        return Err(Error::unusable(path, making(path), io::ErrorKind::NotADirectory.into()));
    }
    allowed(&folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|why| {
        let tried = if folder == path { "write in it".to_owned() } else { making(path) };
        Error::unusable(path, tried, why)
    })?;
    for (name, access) in [(LOCK, Access::READ_OK | Access::WRITE_OK), (CLUSTER, Access::READ_OK)] {
        let file = path.join(name);
        match allowed(&file, access) {
            Ok(()) if file.is_dir() => {
                let tried = format!("open {}", file.display());
                return Err(Error::unusable(path, tried, io::ErrorKind::IsADirectory.into()));
            }
            Err(why) if why.kind() != io::ErrorKind::NotFound => {
                return Err(Error::unusable(path, format!("open {}", file.display()), why));
            }
            Ok(()) | Err(_) => {}
        }
    }
    found_cluster(path, cluster).map(drop)
}

fn allowed(path: &Path, access: Access) -> io::Result<()> {
    Ok(rustix::fs::access(path, access)?)
}

/// What was tried when a folder could not be made, with what stands in the way.
fn making(path: &Path) -> String {
    let folder = existing(path);
    match (folder == path, folder.is_dir()) {
        (true, true) => "open it".to_owned(),
        (true, false) => "use it, since it is not a folder".to_owned(),
        (false, true) => format!("make it in {}", folder.display()),
        (false, false) => format!("make it, since {} is not a folder", folder.display()),
    }
}

/// The path itself, or the nearest above it that is there.
fn existing(path: &Path) -> PathBuf {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let found = full.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok());
    match found {
        Some(found) if *found == *full => path.to_owned(),
        Some(found) => found.to_owned(),
        None => PathBuf::from("/"),
    }
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
    fn an_unusable_folder_is_one_line_with_the_path_what_was_tried_and_the_systems_reason_once() {
        let dir = tempfile::tempdir().unwrap();
        let (file, locked) = (dir.path().join("file"), dir.path().join("locked"));
        fs::write(&file, "").unwrap();
        fs::create_dir_all(locked.join(LOCK)).unwrap();
        for (path, tried) in [
            (file.clone(), "cannot use it, since it is not a folder: ".to_owned()),
            (file.join("a/b"), format!("cannot make it, since {} is not a folder: ", file.display())),
            (locked.clone(), format!("cannot open {}/lock: ", locked.display())),
            (PathBuf::from("/proc/nope/x"), "cannot make it in /proc: ".to_owned()),
        ] {
            let choice = Choice::Explicit(path.clone());
            let held = hold(&choice, "default").unwrap_err().to_string();
            let start = format!("data folder {}: {tried}", path.display());
            assert!(held.starts_with(&start), "{held:?} does not start with {start:?}");
            assert!(held.ends_with("; give another with --data-dir"), "{held}");
            assert!(held.matches("os error").count() == 1 && !held.contains('\n'), "{held}");
            // That a folder of the system cannot hold another is seen only by trying.
            if !path.starts_with("/proc") {
                let checked = check(&choice, "default").unwrap_err().to_string();
                assert!(checked.starts_with(&start), "{checked:?} does not start with {start:?}");
            }
        }
    }

    #[test]
    fn the_reason_is_no_cause_that_would_be_told_again() {
        use std::error::Error as _;
        let why = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = Error::unusable(Path::new("/d"), "make it in /", why);
        assert!(error.source().is_none());
        assert_eq!(
            error.to_string(),
            "data folder /d: cannot make it in /: permission denied; give another with --data-dir"
        );
    }

    #[test]
    fn a_check_makes_nothing_and_passes_a_folder_that_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let choice = Choice::Explicit(dir.path().join("a/b"));
        check(&choice, "default").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let _held = hold(&choice, "default").unwrap();
        check(&choice, "default").unwrap();
        assert!(matches!(check(&choice, "green"), Err(Error::OtherCluster { .. })));
        check(&default(dir.path()), "default").unwrap();
        check(&Choice::Ephemeral, "default").unwrap();
    }
}
