//! The meta state as rows, so that the shell persists only what a command changed.
//!
//! A command's dirty keys are written by [`MetaState::row`]: a row is put, its absence deleted. Starting and installing
//! a snapshot are [`MetaState::load`] of all rows; writing a snapshot is [`MetaState::rows`].
//!
//! # Invariants
//!
//! - `MetaState::load(state.rows()) == state` for every state that `apply` can make.
//! - A state and the rows written for its dirty keys, command by command, are the same.

use callboard_types::{ClusterId, NodeId, PartitionId};

use super::state::{MetaState, NodeRecord, PartitionRecord, Settings};

/// Names a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetaKey {
    /// The facts that are one of a kind: absent until bootstrap.
    Cluster,
    Node(NodeId),
    Partition(PartitionId),
    Type {
        namespace: String,
        actor_type: String,
    },
    /// The meta group's own row of the placement table: absent until it is placed.
    Meta,
}

/// A row: its key and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetaRow {
    Cluster { cluster: ClusterId, settings: Settings, next_replica: u64, generation: u64 },
    Node(NodeId, NodeRecord),
    Partition(PartitionId, PartitionRecord),
    Type { namespace: String, actor_type: String, app_id: String },
    Meta(PartitionRecord),
}

impl MetaRow {
    pub fn key(&self) -> MetaKey {
        match self {
            MetaRow::Cluster { cluster: _, settings: _, next_replica: _, generation: _ } => MetaKey::Cluster,
            MetaRow::Node(node, _) => MetaKey::Node(*node),
            MetaRow::Partition(partition, _) => MetaKey::Partition(*partition),
            MetaRow::Type { namespace, actor_type, app_id: _ } => {
                MetaKey::Type { namespace: namespace.clone(), actor_type: actor_type.clone() }
            }
            MetaRow::Meta(_) => MetaKey::Meta,
        }
    }
}

impl MetaState {
    /// The state that the rows make. Their order does not matter.
    pub fn load(rows: impl IntoIterator<Item = MetaRow>) -> Self {
        let mut state = Self::default();
        for row in rows {
            match row {
                MetaRow::Cluster { cluster, settings, next_replica, generation } => {
                    state.cluster = Some(cluster);
                    state.settings = Some(settings);
                    state.next_replica = next_replica;
                    state.generation = generation;
                }
                MetaRow::Node(node, record) => {
                    state.nodes.insert(node, record);
                }
                MetaRow::Partition(partition, record) => {
                    state.partitions.insert(partition, record);
                }
                MetaRow::Type { namespace, actor_type, app_id } => {
                    state.types.insert((namespace, actor_type), app_id);
                }
                MetaRow::Meta(record) => state.meta = record,
            }
        }
        state
    }

    /// The row under `key`; `None`: there is none.
    pub fn row(&self, key: &MetaKey) -> Option<MetaRow> {
        match key {
            MetaKey::Cluster => {
                let (cluster, settings) = self.cluster.zip(self.settings.clone())?;
                let (next_replica, generation) = (self.next_replica, self.generation);
                Some(MetaRow::Cluster { cluster, settings, next_replica, generation })
            }
            MetaKey::Node(node) => self.nodes.get(node).map(|record| MetaRow::Node(*node, record.clone())),
            MetaKey::Partition(partition) => {
                self.partitions.get(partition).map(|record| MetaRow::Partition(*partition, record.clone()))
            }
            MetaKey::Type { namespace, actor_type } => {
                let key = (namespace.clone(), actor_type.clone());
                self.types.get(&key).map(|app_id| MetaRow::Type {
                    namespace: key.0.clone(),
                    actor_type: key.1.clone(),
                    app_id: app_id.clone(),
                })
            }
            MetaKey::Meta => (self.meta.version > 0).then(|| MetaRow::Meta(self.meta.clone())),
        }
    }

    /// Every row, in key order.
    pub fn rows(&self) -> impl Iterator<Item = MetaRow> {
        std::iter::once(MetaKey::Cluster)
            .chain(self.nodes.keys().copied().map(MetaKey::Node))
            .chain(self.partitions.keys().copied().map(MetaKey::Partition))
            .chain(self.types.keys().cloned().map(|(namespace, actor_type)| MetaKey::Type { namespace, actor_type }))
            .chain(std::iter::once(MetaKey::Meta))
            .filter_map(|key| self.row(&key))
    }
}
