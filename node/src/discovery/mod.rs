//! How the nodes of one user on one machine find each other with nothing typed: a folder that all of them know.
//!
//! Each cluster name has a folder below the user's runtime directory. A node keeps one file there, locked for the life
//! of its process, that says where its peers reach it and which cluster it belongs to. The kernel lets go of a lock
//! however the process ends, so a file that nobody holds is left from a node that is gone: whoever sees it removes it.
//!
//! A node that has no data asks for the *forming* lock first. Whoever holds it looks at the others: if one of them has
//! a cluster it joins that one, otherwise it makes the cluster and lets go once its own file names it. So exactly one
//! node makes the cluster, and the others find it made.
//!
//! The folder is what happens to run here, never what the cluster is: it is empty after a reboot, and what was formed
//! lives in data directories. Deliberately absent: other machines, and other users of this one; a folder that belongs
//! to somebody else is refused.

mod entry;
mod folder;
mod forming;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use entry::Entry;
pub use folder::Registration;
pub use forming::FormingGuard;

use crate::tasks::{Kind, Tasks};
use folder::Folder;

/// How often the folder is looked at for changes.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cluster {0:?} cannot name a folder: give letters, digits, '-', '_' and '.', not beginning with '.', 64 at most"
    )]
    Name(String),
    #[error("{path} belongs to user {owner}; remove it or set XDG_RUNTIME_DIR", path = .path.display())]
    Foreign { path: PathBuf, owner: u32 },
    #[error("{path} is not a folder; remove it or set XDG_RUNTIME_DIR", path = .path.display())]
    NoFolder { path: PathBuf },
    #[error("{path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("process {by} has been forming the cluster for longer than {waited:?}; stop it or give --standalone")]
    StillForming { by: String, waited: Duration },
}

/// The nodes of one cluster name, of this user, on this machine. Clones share the folder.
#[derive(Debug, Clone)]
pub struct Local {
    folder: Folder,
}

impl Local {
    /// The folder of `cluster` below `$XDG_RUNTIME_DIR/callboard`, or below `callboard-<uid>` in the temporary folder.
    ///
    /// # Errors
    ///
    /// It cannot be made, or somebody else made it.
    pub fn open(cluster: &str) -> Result<Self, Error> {
        Self::below(&folder::of_user(), cluster)
    }

    /// The same below a folder of one's own.
    ///
    /// # Errors
    ///
    /// As for [`Local::open`].
    pub fn below(base: &Path, cluster: &str) -> Result<Self, Error> {
        Ok(Self { folder: Folder::open(base, cluster)? })
    }

    /// Shows `entry` to the others until the answer is dropped or the process ends.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn register(&self, entry: &Entry) -> Result<Registration, Error> {
        self.folder.register(entry)
    }

    /// The nodes that run, this one included once it is registered, in the order of their ids.
    pub fn peers(&self) -> Vec<Entry> {
        self.folder.entries()
    }

    /// Waits, `patience` at most, until no other process forms the cluster.
    ///
    /// # Errors
    ///
    /// Another one still does, or the folder cannot be written.
    pub async fn forming(&self, patience: Duration) -> Result<FormingGuard, Error> {
        forming::take(self.folder.path(), patience).await
    }

    /// The nodes that run, looked up again all the time until `tasks` stop.
    pub fn watch(&self, tasks: &Tasks) -> watch::Receiver<Arc<Vec<Entry>>> {
        let (sender, receiver) = watch::channel(Arc::new(self.peers()));
        let (local, stop) = (self.clone(), tasks.clone());
        tasks.spawn(Kind::Service, "local-nodes", async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.stopping() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                let folder = local.folder.clone();
                // A panic of the look is one look less.
                let Ok(found) = tokio::task::spawn_blocking(move || folder.entries()).await else { continue };
                sender.send_if_modified(|known| {
                    let changed = **known != found;
                    if changed {
                        *known = Arc::new(found);
                    }
                    changed
                });
            }
        });
        receiver
    }
}

#[cfg(test)]
mod discovery_test;
