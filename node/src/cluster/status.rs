//! The cluster as people ask for it: what is registered, what gossip says, and what each node says of itself, taken
//! together by whichever node is asked.
//!
//! Nothing decides on it. What other nodes say is asked for when somebody asks, and waited for shortly: a node that is
//! silent is named, and what only it knows is left open.

mod lines;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::view::View;
use callboard_machine::meta::MetaState;
use callboard_proto::calls as wire;
use callboard_raft::Groups;
use callboard_types::{GroupId, NodeId, PartitionId, Timestamp};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;

use super::Running;
use crate::actors::Owners;
use crate::calls::report::{self, GroupReport, Report};
use crate::clock;
use crate::links::Errand;
use crate::tasks::Tasks;

pub use lines::{GroupLine, MoveLine, NodeLine, NodeState, ReplicaLine, Seat, Summary};

/// A node says what it has to say of itself within this time.
const REPORT_LIMIT: Duration = Duration::from_secs(1);
/// Nodes asked at a time.
const ASKED_AT_ONCE: usize = 64;

/// What is known of the cluster at one moment.
pub struct Survey {
    pub me: NodeId,
    pub state: Arc<MetaState>,
    pub view: Arc<View>,
    /// What nodes say of themselves, this one among them.
    pub reports: BTreeMap<NodeId, Report>,
    /// Nodes that are up and have not said anything.
    pub silent: BTreeSet<NodeId>,
    /// When this node first saw that a group is on its way.
    pub since: BTreeMap<GroupId, Timestamp>,
}

impl Running {
    /// Asks everybody.
    pub async fn survey(&self) -> Survey {
        let placing = &self.placing;
        let (me, view, state) = (placing.node, placing.view.borrow().clone(), placing.meta.state());
        let others: Vec<_> = state.nodes.keys().copied().filter(|node| *node != me && view.is_up(*node)).collect();
        let asked = stream::iter(others).map(|node| async move {
            let answer = placing.links.send(node, Errand::Report, Bytes::new(), REPORT_LIMIT).await;
            let message = answer.ok().and_then(|body| wire::Report::decode(body).ok());
            (node, message.and_then(|message| report::get(message).ok()))
        });
        let answers: Vec<_> = asked.buffer_unordered(ASKED_AT_ONCE).collect().await;
        let mut reports = BTreeMap::from([(me, of_this_node(&placing.groups, &placing.owners))]);
        let mut silent = BTreeSet::new();
        for (node, report) in answers {
            match report {
                Some(report) => drop(reports.insert(node, report)),
                None => drop(silent.insert(node)),
            }
        }
        Survey { me, state, view, reports, silent, since: self.moves.since() }
    }
}

/// What this node says of itself.
pub fn of_this_node(groups: &Groups, owners: &Owners) -> Report {
    let epoch = |group| match group {
        GroupId::Meta => None,
        GroupId::Partition(partition) => owners.get(partition)?.reign().ok().map(|reign| reign.epoch()),
    };
    let groups = groups.statuses().iter().map(|status| GroupReport::of(status, epoch(status.group))).collect();
    Report { version: env!("CARGO_PKG_VERSION").to_owned(), groups }
}

/// Groups on their way to another place, and when this node first saw each of them so. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Moves {
    seen: Arc<Mutex<BTreeMap<GroupId, (u64, Timestamp)>>>,
}

impl Moves {
    /// Watches the table until the tasks stop.
    pub async fn follow(self, mut meta: watch::Receiver<Arc<MetaState>>, tasks: Tasks) {
        loop {
            let state = meta.borrow_and_update().clone();
            self.look(&state, clock::wall());
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                changed = meta.changed() => if changed.is_err() { return },
            }
        }
    }

    /// A row that has moved on to another version is another move.
    fn look(&self, state: &MetaState, now: Timestamp) {
        let mut seen = self.seen.lock();
        let moving: BTreeMap<_, _> = state
            .placement_rows()
            .filter(|(_, row)| !row.is_settled())
            .map(|(group, row)| (group, row.version))
            .collect();
        seen.retain(|group, (version, _)| moving.get(group) == Some(version));
        for (group, version) in moving {
            seen.entry(group).or_insert((version, now));
        }
    }

    pub fn count(&self) -> usize {
        self.seen.lock().len()
    }

    fn since(&self) -> BTreeMap<GroupId, Timestamp> {
        self.seen.lock().iter().map(|(group, (_, since))| (*group, *since)).collect()
    }
}

/// A group, for people: its partition's number, or `meta`.
pub fn group_name(group: GroupId) -> String {
    match group {
        GroupId::Meta => "meta".to_owned(),
        GroupId::Partition(PartitionId(number)) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use callboard_machine::meta::PartitionRecord;

    use super::*;

    #[test]
    fn a_move_begins_when_it_is_first_seen_and_another_one_begins_anew() {
        let row = |version, settled| PartitionRecord { version, settled, ..PartitionRecord::default() };
        let state = |version, settled| MetaState {
            partitions: BTreeMap::from([(PartitionId(0), row(version, settled))]),
            ..MetaState::default()
        };
        let at = Timestamp::from_secs;
        let moves = Moves::default();
        let look = |version, settled, now| {
            moves.look(&state(version, settled), at(now));
            moves.since().get(&GroupId::Partition(PartitionId(0))).copied()
        };
        assert_eq!(look(2, 2, 1), None);
        assert_eq!(look(3, 2, 2), Some(at(2)));
        assert_eq!(look(3, 2, 5), Some(at(2)));
        assert_eq!(look(4, 2, 6), Some(at(6)));
        assert_eq!(look(4, 4, 7), None);
    }
}
