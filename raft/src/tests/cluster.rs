//! Several nodes over a [`Mesh`], each with a disk of its own that can lose its power.

use std::collections::{BTreeMap, BTreeSet};

use callboard_machine::meta::MetaCommand;
use callboard_machine::partition::Response;
use callboard_types::{GroupId, ReplicaId};

use super::*;
use crate::testing::{Mesh, Plug};
use crate::{ChangeError, GroupStatus, MetaAt, ProposeError};

pub const P0: GroupId = GroupId::Partition(PartitionId(0));

/// Far beyond anything that is waited for, for a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Node {
    pub memory: Memory,
    pub plug: Arc<Plug>,
    pub groups: Option<Groups>,
}

pub struct Cluster {
    pub mesh: Mesh,
    pub nodes: BTreeMap<NodeId, Node>,
    next_replica: u64,
}

pub fn node(number: u64) -> NodeId {
    NodeId(number)
}

/// Slow enough for two cores that run other tests too.
pub fn cluster_config(node: NodeId) -> GroupsConfig {
    GroupsConfig {
        node,
        heartbeat: Duration::from_millis(100),
        election_min: Duration::from_millis(600),
        election_max: Duration::from_millis(900),
        ..config()
    }
}

/// Waits until `found` is something.
pub async fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Cluster {
    /// `count` nodes, of which the first holds everything.
    pub async fn form(count: u64, partitions: u32) -> Self {
        let mut cluster = Self { mesh: Mesh::new(), nodes: BTreeMap::new(), next_replica: 1_000 };
        cluster.open(node(1), Memory::new()).await;
        cluster.groups(1).bootstrap(settings(partitions), node_record(), NOW).await.expect("the cluster forms");
        for number in 2..=count {
            cluster.join(number).await;
        }
        cluster
    }

    /// `count` nodes, each with a vote in partition 0.
    pub async fn of_voters(count: u64) -> Self {
        let mut cluster = Self::form(count, 1).await;
        cluster.spread(P0, 1..=count).await;
        cluster
    }

    async fn open(&mut self, id: NodeId, memory: Memory) {
        let plug = self.mesh.plug(id);
        let observer = Arc::new(Seen::default());
        let opened = Groups::open_with(cluster_config(id), eager(), memory.open(), observer, plug.clone()).await;
        let groups = opened.expect("the groups open");
        self.mesh.attach(id, groups.clone());
        self.nodes.insert(id, Node { memory, plug, groups: Some(groups) });
    }

    /// A node with an empty disk learns of the cluster from the first one.
    pub async fn join(&mut self, number: u64) {
        self.open(node(number), Memory::new()).await;
        let update = self.groups(1).meta_update(MetaAt::default(), Duration::ZERO).await;
        self.groups(number).adopt(update).await.expect("the node takes the state");
        let put = MetaCommand::PutNode { node: node(number), record: node_record() };
        self.groups(1).meta().propose(put).await.expect("the node is registered");
    }

    #[track_caller]
    pub fn groups(&self, number: u64) -> &Groups {
        self.nodes[&node(number)].groups.as_ref().expect("the node runs")
    }

    pub fn partition(&self, number: u64) -> Partition {
        first(self.groups(number))
    }

    pub fn status(&self, number: u64, group: GroupId) -> Option<GroupStatus> {
        self.nodes[&node(number)].groups.as_ref()?.status(group)
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.nodes.keys().map(|id| id.0).collect()
    }

    /// The replica id of `group` on a node.
    pub fn replica(&self, number: u64, group: GroupId) -> ReplicaId {
        self.status(number, group).expect("the node holds a replica").replica
    }

    /// The node that leads and is heard by a quorum.
    pub async fn leader(&self, group: GroupId) -> u64 {
        self.leader_among(group, &self.numbers()).await
    }

    pub async fn leader_among(&self, group: GroupId, numbers: &[u64]) -> u64 {
        eventually("a leader", || self.leader_now(group, numbers)).await
    }

    fn leader_now(&self, group: GroupId, numbers: &[u64]) -> Option<u64> {
        let leads = |number: &u64| {
            let status = self.status(*number, group)?;
            let heard = status.quorum_ack.is_some_and(|ack| ack < Duration::from_millis(300));
            (status.is_leader() && heard && !status.transferring).then_some((status.term, *number))
        };
        numbers.iter().filter_map(leads).max().map(|(_, number)| number)
    }

    /// Adds a fresh replica on a node, without a vote, and waits until it has the log.
    pub async fn add_learner(&mut self, group: GroupId, number: u64) -> ReplicaId {
        let replica = self.hold(group, number).await;
        self.admit(group, number, replica).await;
        replica
    }

    pub async fn hold(&mut self, group: GroupId, number: u64) -> ReplicaId {
        let replica = ReplicaId(self.next_replica);
        self.next_replica += 1;
        self.groups(number).hold(group, replica).await.expect("the node takes the replica");
        replica
    }

    pub async fn admit(&self, group: GroupId, number: u64, replica: ReplicaId) {
        let leader = self.leader(group).await;
        let address = format!("node-{number}");
        self.groups(leader).add_learner(group, replica, node(number), address).await.expect("it becomes a learner");
        self.caught_up(group, replica).await;
    }

    pub async fn caught_up(&self, group: GroupId, replica: ReplicaId) {
        eventually("the replica has the log", || {
            let leader = self.leader_now(group, &self.numbers())?;
            let status = self.status(leader, group)?;
            (status.lag(replica)? == 0).then_some(())
        })
        .await;
    }

    /// Gives the vote to the replicas on exactly these nodes, which are made where there are none.
    pub async fn spread(&mut self, group: GroupId, numbers: impl IntoIterator<Item = u64>) {
        let mut voters = BTreeSet::new();
        for number in numbers {
            let replica = match self.status(number, group) {
                Some(status) => status.replica,
                None => self.add_learner(group, number).await,
            };
            voters.insert(replica);
        }
        self.change_voters(group, voters).await;
    }

    pub async fn change_voters(&self, group: GroupId, voters: BTreeSet<ReplicaId>) {
        loop {
            let leader = self.leader(group).await;
            match self.groups(leader).change_voters(group, voters.clone()).await {
                Ok(()) => return,
                Err(ChangeError::NotLeader { .. } | ChangeError::Busy(_) | ChangeError::TimedOut(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The power of a node goes.
    pub fn kill(&mut self, number: u64) {
        let id = node(number);
        self.mesh.detach(id);
        let node = self.nodes.get_mut(&id).expect("the node is there");
        node.plug.pull();
        node.memory.crash();
        if let Some(groups) = node.groups.take() {
            // Threads and tasks of a process that is gone.
            tokio::spawn(groups.shutdown());
        }
    }

    /// A node comes back with what its disk has.
    pub async fn restart(&mut self, number: u64) {
        let id = node(number);
        let memory = self.nodes.remove(&id).expect("the node was there").memory;
        self.open(id, memory).await;
    }

    /// A node comes back with an empty disk.
    pub async fn restart_wiped(&mut self, number: u64) {
        self.nodes.remove(&node(number));
        self.open(node(number), Memory::new()).await;
    }

    pub async fn shutdown(mut self) {
        for (id, node) in &mut self.nodes {
            self.mesh.detach(*id);
            node.plug.pull();
        }
        let running = self.nodes.values_mut().filter_map(|node| node.groups.take());
        futures_util::future::join_all(running.map(Groups::shutdown)).await;
    }

    /// Claims partition 0 where it is led.
    pub async fn claim(&self) -> (u64, Tenure) {
        loop {
            let leader = self.leader(P0).await;
            match self.partition(leader).claim(leader, NOW, Duration::from_secs(1)).await {
                Ok(tenure) => return (leader, tenure),
                Err(ProposeError::NotReady { .. } | ProposeError::Unknown) => {}
                Err(error @ ProposeError::Stopped(_)) => panic!("{error}"),
            }
        }
    }

    /// Writes `keys` under a fresh claim.
    pub async fn write(&self, keys: std::ops::Range<u64>) -> u64 {
        let (leader, tenure) = self.claim().await;
        for key in keys {
            let write = command(tenure.epoch(), actor("tom"), vec![upsert(&format!("key-{key}"), "fish")]);
            assert_eq!(self.partition(leader).propose(write).await.unwrap(), Response::Done);
        }
        leader
    }

    /// Keys that a node's replica of partition 0 has applied.
    pub fn has(&self, number: u64, keys: std::ops::Range<u64>) -> usize {
        let reader = self.partition(number).reader();
        let present = |key: &u64| reader.state(&actor("tom"), &format!("key-{key}"), NOW).unwrap().is_some();
        keys.filter(present).count()
    }

    /// Waits until a node's replica has applied all of `keys`.
    pub async fn await_keys(&self, number: u64, keys: std::ops::Range<u64>) {
        let wanted = keys.clone().count();
        eventually("the entries are applied", || (self.has(number, keys.clone()) == wanted).then_some(())).await;
    }
}
