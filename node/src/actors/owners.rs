//! The partitions of this node, each with its owner, as they come and go.

use std::collections::BTreeMap;
use std::sync::Arc;

use callboard_machine::partition::Effect;
use callboard_raft::{Held, Observer, Partition};
use callboard_types::PartitionId;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::owner::{Common, Owner, Reign};
use crate::tasks::{Kind, Tasks};

/// Handle of the map; clones share it. Also brings what the log applied to the owners.
#[derive(Clone, Default)]
pub struct Owners {
    by_partition: Arc<RwLock<BTreeMap<PartitionId, Arc<Owner>>>>,
}

impl Owners {
    pub fn get(&self, partition: PartitionId) -> Option<Arc<Owner>> {
        self.by_partition.read().get(&partition).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Owner>> {
        self.by_partition.read().values().cloned().collect()
    }

    /// Everything this node owns at the moment.
    pub fn reigns(&self) -> Vec<Arc<Reign>> {
        self.by_partition.read().values().filter_map(|owner| owner.reign().ok()).collect()
    }

    /// Keeps the map in step with the replicas that the node holds.
    pub async fn keep(self, mut held: watch::Receiver<Held>, common: Common, tasks: Tasks) {
        loop {
            let now = held.borrow_and_update().clone();
            self.follow(now.values().cloned(), &common, &tasks);
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                changed = held.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Brings the map in step with the replicas that the node holds.
    pub fn follow(&self, held: impl IntoIterator<Item = Partition>, common: &Common, tasks: &Tasks) {
        let mut fresh: BTreeMap<_, _> = held.into_iter().map(|partition| (partition.id(), partition)).collect();
        let mut map = self.by_partition.write();
        map.retain(|id, owner| {
            // Another replica of the same partition is another matter.
            let stays = fresh.get(id).is_some_and(|partition| partition.replica_id() == owner.replica_id());
            if stays {
                fresh.remove(id);
            } else {
                owner.retire();
            }
            stays
        });
        for (id, partition) in fresh {
            let owner = Owner::new(partition, common.clone());
            map.insert(id, owner.clone());
            tasks.spawn(Kind::Work, "owner", owner.run_until_retired());
        }
    }
}

impl Observer for Owners {
    fn applied(&self, partition: PartitionId, effects: &[Effect]) {
        if effects.is_empty() {
            return;
        }
        if let Some(owner) = self.get(partition) {
            owner.applied(effects);
        }
    }
}
