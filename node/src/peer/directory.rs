//! Where each node is believed to listen.
//!
//! Fed from outside: by gossip, by the cluster's registry, by joining. All of it is hints, put right by the hello of
//! whoever answers. What is not in here is not dialled, and a node that is taken out loses its links.

use std::collections::HashMap;
use std::sync::Arc;

use callboard_types::NodeId;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Addresses of one node.
const ADDRESSES: usize = 8;
/// Nodes. One more is not taken in.
const NODES: usize = 4_096;

/// Node id -> addresses; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Directory {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    nodes: RwLock<HashMap<NodeId, Entry>>,
    /// Rises with every change.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Entry {
    /// `host:port`, best first.
    addresses: Vec<String>,
    /// Cancelled when the node is taken out.
    gone: CancellationToken,
}

impl Directory {
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces what is known of a node, best address first. Beyond eight they are left out.
    pub fn set(&self, node: NodeId, mut addresses: Vec<String>) {
        addresses.truncate(ADDRESSES);
        self.change(node, |known| {
            let differs = *known != addresses;
            if differs {
                *known = addresses;
            }
            differs
        });
    }

    /// Puts an address first; the others stay behind it.
    pub fn learn(&self, node: NodeId, address: String) {
        self.change(node, |known| {
            if known.first() == Some(&address) {
                return false;
            }
            known.retain(|other| *other != address);
            known.insert(0, address);
            known.truncate(ADDRESSES);
            true
        });
    }

    /// The node is not there; somebody else is.
    pub fn forget(&self, node: NodeId, address: &str) {
        let mut nodes = self.inner.nodes.write();
        if let Some(entry) = nodes.get_mut(&node) {
            entry.addresses.retain(|other| other != address);
        }
    }

    /// Takes a node out. Calls that were sent to it are still answered; none is sent to it any more.
    pub fn remove(&self, node: NodeId) {
        if let Some(entry) = self.inner.nodes.write().remove(&node) {
            entry.gone.cancel();
        }
    }

    pub fn addresses(&self, node: NodeId) -> Vec<String> {
        self.inner.nodes.read().get(&node).map(|entry| entry.addresses.clone()).unwrap_or_default()
    }

    pub fn nodes(&self) -> Vec<NodeId> {
        let mut nodes: Vec<_> = self.inner.nodes.read().keys().copied().collect();
        nodes.sort();
        nodes
    }

    /// Cancelled when the node is taken out; `None` for one that is not in here.
    pub(super) fn presence(&self, node: NodeId) -> Option<CancellationToken> {
        self.inner.nodes.read().get(&node).map(|entry| entry.gone.clone())
    }

    /// Tells when an address was added.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    fn change(&self, node: NodeId, change: impl FnOnce(&mut Vec<String>) -> bool) {
        let changed = {
            let mut nodes = self.inner.nodes.write();
            if nodes.len() >= NODES && !nodes.contains_key(&node) {
                tracing::warn!(%node, "the directory of nodes is full");
                return;
            }
            change(&mut nodes.entry(node).or_default().addresses)
        };
        if changed {
            self.inner.changes.send_modify(|changes| *changes += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_is_learned_comes_first_and_what_is_forgotten_is_gone() {
        let directory = Directory::new();
        directory.set(NODE, strings(&["a:1", "b:2"]));
        directory.learn(NODE, "b:2".to_owned());
        directory.learn(NODE, "c:3".to_owned());
        assert_eq!(directory.addresses(NODE), ["c:3", "b:2", "a:1"]);
        directory.forget(NODE, "b:2");
        directory.forget(NodeId(2), "b:2");
        assert_eq!(directory.addresses(NODE), ["c:3", "a:1"]);
        assert_eq!(directory.nodes(), [NODE]);
    }

    #[test]
    fn only_a_change_is_told() {
        let directory = Directory::new();
        let mut changes = directory.changes();
        directory.set(NODE, strings(&["a:1"]));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        directory.set(NODE, strings(&["a:1"]));
        directory.learn(NODE, "a:1".to_owned());
        assert!(!changes.has_changed().unwrap());
    }

    #[test]
    fn a_node_that_returns_is_another_entry() {
        let directory = Directory::new();
        assert!(directory.presence(NODE).is_none());
        directory.set(NODE, strings(&["a:1"]));
        let first = directory.presence(NODE).unwrap();
        directory.remove(NODE);
        directory.set(NODE, strings(&["a:1"]));
        assert!(first.is_cancelled());
        assert!(!directory.presence(NODE).unwrap().is_cancelled());
    }

    #[test]
    fn the_directory_is_bounded() {
        let directory = Directory::new();
        directory.set(NODE, (0..20).map(|n| format!("a:{n}")).collect());
        assert_eq!(directory.addresses(NODE).len(), ADDRESSES);
        for n in 0..2 * NODES as u64 {
            directory.learn(NodeId(n), "a:1".to_owned());
        }
        assert_eq!(directory.nodes().len(), NODES);
    }
}
