//! The folder of one cluster name: who may use it, and the files of nodes in it.
//!
//! A file is made under a passing name, locked, written, and renamed to the name its process keeps: what others see is
//! complete and held. A change is another file renamed over it, and only then is the older one let go. So a file that
//! is free while its name still leads to it belongs to nobody.

use std::cmp::Reverse;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use callboard_types::Timestamp;

use super::{Entry, Error};
use crate::clock;

const MADE: &str = "node";
const IN_THE_MAKING: &str = "part";
/// What is in the making for longer will never be made.
const MAKING_ENDS: Duration = Duration::from_secs(60);
/// Nodes of one cluster on one machine that are looked at.
const MAX_NODES: usize = 256;
/// Files that are looked at for them: some are left from nodes that are gone.
const MAX_FILES: usize = 4 * MAX_NODES;
const MAX_FILE: u64 = 16 << 10;
const MAX_NAME: usize = 64;

/// Where the folders of this user are; the same place `callboard list` goes by.
pub(super) fn of_user() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match runtime.filter(|folder| folder.is_absolute() && folder.is_dir()) {
        Some(folder) => folder.join("callboard"),
        None => std::env::temp_dir().join(format!("callboard-{}", own_user())),
    }
}

fn own_user() -> u32 {
    rustix::process::getuid().as_raw()
}

/// A folder that only this user can enter.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn open(base: &Path, cluster: &str) -> Result<Self, Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if cluster.is_empty() || cluster.len() > MAX_NAME || cluster.starts_with('.') || !cluster.chars().all(plain) {
            return Err(Error::Name(cluster.to_owned()));
        }
        private(base)?;
        let path = base.join(cluster);
        private(&path)?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn register(&self, entry: &Entry) -> Result<Registration, Error> {
        let process: u64 = rand::random();
        let stem = self.path.join(format!("{}.{}-{process:016x}", entry.node, entry.pid));
        let path = stem.with_added_extension(MADE);
        let held = self.make(&path, entry)?;
        let in_use = File::open(&self.path).ok().filter(|folder| folder.try_lock_shared().is_ok());
        Ok(Registration { folder: self.clone(), path, held, _in_use: in_use })
    }

    /// Puts a file that is locked and says `entry` at `path`.
    fn make(&self, path: &Path, entry: &Entry) -> Result<File, Error> {
        let part = path.with_extension(IN_THE_MAKING);
        let made = || {
            // The user may have emptied the runtime directory.
            DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
            file.lock()?;
            file.write_all(&entry.encode())?;
            fs::rename(&part, path)?;
            Ok(file)
        };
        made().map_err(|source| Error::Io { path: path.to_owned(), source })
    }

    /// The nodes that run, in the order of their ids.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let Ok(files) = fs::read_dir(&self.path) else { return Vec::new() };
        let mut found = Vec::new();
        for path in files.flatten().map(|file| file.path()).take(MAX_FILES) {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(MADE) => found.extend(held(&path).ok().flatten().and_then(|text| Entry::decode(&text))),
                Some(IN_THE_MAKING) => sweep(&path),
                Some(_) | None => {}
            }
        }
        // Of two processes of one node the younger one counts: the other is about to end.
        found.sort_by_key(|entry| (entry.node, Reverse(entry.started)));
        found.dedup_by_key(|entry| entry.node);
        found.truncate(MAX_NODES);
        found
    }
}

/// Makes `path` a folder that this user alone can enter.
fn private(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Io { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    // In a shared folder such as `/tmp` somebody else may have made it, or a link in its place.
    let found = fs::symlink_metadata(path).map_err(failed)?;
    if !found.is_dir() {
        return Err(Error::NoFolder { path: path.to_owned() });
    }
    if found.uid() != own_user() {
        return Err(Error::Foreign { path: path.to_owned(), owner: found.uid() });
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

/// The text of a file whose process lives. One that nobody holds is removed.
fn held(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = File::open(path)?;
    match file.try_lock_shared() {
        Ok(()) => {
            // Free because its process has ended, or because that has just put another file in its place.
            let (own, named) = (file.metadata()?, fs::metadata(path)?);
            if (own.dev(), own.ino()) == (named.dev(), named.ino()) {
                fs::remove_file(path)?;
                return Ok(None);
            }
        }
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text)?;
    Ok(Some(text))
}

/// Removes what a process left that ended while it made its file.
fn sweep(path: &Path) {
    let changed = fs::metadata(path).map(|found| Timestamp::from_secs(found.mtime()));
    if changed.is_ok_and(|changed| clock::wall().saturating_since(changed) > MAKING_ENDS) {
        let _ = fs::remove_file(path);
    }
}

/// A node's file; it goes when this is dropped.
#[derive(Debug)]
pub struct Registration {
    folder: Folder,
    /// Of this process alone: no other one ever has a file of this name.
    path: PathBuf,
    /// Dropping it unlocks.
    held: File,
    /// Keeps services that clean up old temporary files out of the folder.
    _in_use: Option<File>,
}

impl Registration {
    /// Shows `entry` in place of what was shown.
    ///
    /// # Errors
    ///
    /// The folder cannot be written; the older entry stays.
    pub fn update(&mut self, entry: &Entry) -> Result<(), Error> {
        self.held = self.folder.make(&self.path, entry)?;
        Ok(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // A file that is gone already is as good.
        let _ = fs::remove_file(&self.path);
    }
}
