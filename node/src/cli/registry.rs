//! Which nodes of this user run on this machine: what `list`, `stop` and `invoke` go by.
//!
//! One JSON file per node in a per-user folder, written when its ports are bound and removed when it ends. A file whose
//! process is gone, or whose pid belongs to a younger process, is stale: it is ignored and removed. The folder is a
//! convenience of one machine and never an input of the cluster.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::env::Env;
use super::holder;

/// A running node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub app_id: String,
    pub node_name: String,
    pub namespace: String,
    pub cluster: String,
    pub pid: u32,
    /// Ticks since boot at which the process started.
    pub started_ticks: u64,
    /// Seconds since 1970 at which it started.
    pub created: u64,
    pub http_port: u16,
    pub grpc_port: u16,
    pub peer_port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_port: Option<u16>,
    /// An address of the HTTP API that answers on this machine.
    pub http_address: String,
    /// The app's command line; empty when the node started none.
    pub command: String,
    pub data_dir: PathBuf,
    pub max_body: u64,
}

/// The folder of entries.
#[derive(Debug, Clone)]
pub struct Registry {
    dir: PathBuf,
}

/// An entry's file; it goes when this is dropped.
#[derive(Debug)]
pub struct Registered {
    path: PathBuf,
}

impl Drop for Registered {
    fn drop(&mut self) {
        // A file that is gone already is as good.
        let _ = fs::remove_file(&self.path);
    }
}

impl Registry {
    /// The user's own: `$XDG_RUNTIME_DIR/callboard`, or `/tmp/callboard-<uid>`.
    pub fn of_user(env: &Env) -> Self {
        let runtime = env.get("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute() && dir.is_dir());
        let dir = match runtime {
            Some(dir) => dir.join("callboard"),
            None => std::env::temp_dir().join(format!("callboard-{}", rustix::process::getuid().as_raw())),
        };
        Self { dir }
    }

    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Makes `entry` visible until the answer is dropped.
    ///
    /// # Errors
    ///
    /// The folder cannot be written or belongs to somebody else.
    pub fn register(&self, entry: &Entry) -> io::Result<Registered> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        self.check_owner()?;
        let path = self.dir.join(format!("{}.json", entry.pid));
        let part = self.dir.join(format!("{}.part", entry.pid));
        fs::write(&part, serde_json::to_vec_pretty(entry)?)?;
        fs::rename(&part, &path)?;
        Ok(Registered { path })
    }

    /// The nodes that run, oldest first.
    pub fn running(&self) -> Vec<Entry> {
        let Ok(files) = fs::read_dir(&self.dir) else { return Vec::new() };
        if self.check_owner().is_err() {
            return Vec::new();
        }
        let files =
            files.flatten().map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
        let mut entries: Vec<_> = files.filter_map(|path| read(&path)).collect();
        entries.sort_by_key(|entry| (entry.created, entry.pid));
        entries
    }

    /// In a shared folder such as `/tmp` somebody else may have made ours.
    fn check_owner(&self) -> io::Result<()> {
        let owner = fs::symlink_metadata(&self.dir)?.uid();
        if owner == rustix::process::getuid().as_raw() {
            return Ok(());
        }
        Err(io::Error::other(format!("{} belongs to user {owner}", self.dir.display())))
    }
}

impl Entry {
    /// Whether the process that wrote the entry still runs.
    pub fn is_running(&self) -> bool {
        holder::started(self.pid) == Some(self.started_ticks)
    }
}

fn read(path: &Path) -> Option<Entry> {
    let entry: Entry = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    if entry.is_running() {
        return Some(entry);
    }
    // Somebody else may have removed it in the meantime.
    let _ = fs::remove_file(path);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(app_id: &str, pid: u32) -> Entry {
        Entry {
            app_id: app_id.into(),
            node_name: app_id.into(),
            namespace: "default".into(),
            cluster: "default".into(),
            pid,
            started_ticks: holder::started(pid).unwrap_or(7),
            created: 1,
            http_port: 3500,
            grpc_port: 50001,
            peer_port: 50002,
            metrics_port: None,
            app_port: Some(80),
            http_address: "127.0.0.1:3500".into(),
            command: String::new(),
            data_dir: PathBuf::from("/data"),
            max_body: 4,
        }
    }

    #[test]
    fn a_node_is_listed_while_it_is_registered() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path().join("run"));
        assert_eq!(registry.running(), []);
        let own = entry("shop", std::process::id());
        let registered = registry.register(&own).unwrap();
        assert_eq!(registry.running(), [own]);
        drop(registered);
        assert_eq!(registry.running(), []);
    }

    #[test]
    fn an_entry_of_a_dead_or_reused_pid_is_ignored_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path());
        let reused = Entry { started_ticks: 0, ..entry("old", std::process::id()) };
        std::mem::forget(registry.register(&reused).unwrap());
        std::mem::forget(registry.register(&entry("dead", u32::MAX - 1)).unwrap());
        assert_eq!(registry.running(), []);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_no_entry_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.json"), "{").unwrap();
        assert_eq!(Registry::at(dir.path()).running(), []);
    }

    #[test]
    fn only_the_user_can_enter_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path().join("run"));
        let _registered = registry.register(&entry("shop", std::process::id())).unwrap();
        assert_eq!(fs::metadata(dir.path().join("run")).unwrap().mode() & 0o777, 0o700);
    }
}
