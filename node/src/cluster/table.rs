//! The placement table, carried out: what this node must hold, and where the groups that it leads must go.
//!
//! Three loops, none of which remembers anything; whoever takes over reads the same and goes on.
//!
//! - *hold*: this node holds a replica of each group whose row names it, and drops one that no settled row names.
//! - *lead*: the leader of a group takes the next step towards its row (`callboard_engine::placement::step`), and says
//!   when it is there.
//! - *plan*: the leader of the meta group turns what the nodes are into the table that should be, a few rows at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use callboard_engine::placement::{
    Group, Liveness, LivenessConfig, Member, MoveLimits, Next, Replica, ReplicaRole, Row, Sight, Standing, Step, Table,
    propose, step,
};
use callboard_engine::view::{NodeReport, Presence, View};
use callboard_engine::voters;
use callboard_machine::meta::{MetaCommand, MetaState, PartitionRecord, Placement, Role};
use callboard_proto::calls as wire;
use callboard_raft::{GroupStatus, Groups};
use callboard_types::{Epoch, GroupId, NodeId, PartitionId, ReplicaId};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;

use super::meta::Meta;
use crate::actors::Owners;
use crate::clock;
use crate::links::{Errand, Links};
use crate::tasks::{Kind, Tasks};

/// The loops look again at least this often.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// A replica that answered this lately can lead at once.
const HEARD_LATELY: Duration = Duration::from_millis(500);
/// The next owner is told of a hand-over within this time, or its activations do not live on.
const HANDING_LIMIT: Duration = Duration::from_millis(500);

/// What the loops look at.
#[derive(Clone)]
pub struct Placing {
    pub node: NodeId,
    pub groups: Groups,
    pub meta: Meta,
    pub view: watch::Receiver<Arc<View>>,
    pub owners: Owners,
    pub links: Arc<dyn Links>,
    pub limits: MoveLimits,
    pub lost_after: Duration,
    pub tasks: Tasks,
}

impl Placing {
    pub fn start(self) {
        let tasks = self.tasks.clone();
        tasks.spawn(Kind::Service, "hold", self.clone().hold());
        tasks.spawn(Kind::Service, "lead", self.clone().lead());
        tasks.spawn(Kind::Service, "plan", self.plan());
    }

    /// Waits for something to change, a while at most. False: the node stops.
    async fn look_again(&self, changes: &mut watch::Receiver<u64>) -> bool {
        let mut meta = self.meta.watch();
        meta.mark_unchanged();
        tokio::select! {
            biased;
            () = self.tasks.stopping() => false,
            _ = changes.changed() => true,
            _ = meta.changed() => true,
            () = tokio::time::sleep(LOOK_AGAIN) => true,
        }
    }

    async fn hold(self) {
        let mut changes = self.groups.changes();
        loop {
            let state = self.meta.state();
            for (group, row) in rows(&state) {
                let named = row.replicas.iter().find(|placed| placed.node == self.node).map(|placed| placed.replica);
                let held = self.groups.status(group).map(|status| status.replica);
                // Ids rise and are never used twice: a table that has not handed an id out yet is older than its replica,
                // and says nothing about it. A node that starts reads such a table until it has caught up.
                let is_known = |held: ReplicaId| held.0 < state.next_replica;
                let done = match (held, named) {
                    (Some(held), Some(named)) if held == named => Ok(()),
                    // One of before, which the row has given up for another.
                    (Some(held), Some(named)) if held < named => self.groups.drop_replica(group, held).await,
                    (Some(held), None) if row.is_settled() && is_known(held) => {
                        self.groups.drop_replica(group, held).await
                    }
                    (None, Some(named)) => self.groups.hold(group, named).await,
                    (Some(_), Some(_)) | (Some(_) | None, None) => Ok(()),
                };
                if let Err(error) = done {
                    tracing::warn!(%group, %error, "the table is not followed yet");
                }
            }
            if !self.look_again(&mut changes).await {
                return;
            }
        }
    }

    async fn lead(self) {
        let mut nodes = Liveness::new(LivenessConfig::default());
        let mut changes = self.groups.changes();
        // Groups whose last step has not ended: one that takes long holds up no other.
        let busy: Arc<Mutex<BTreeSet<GroupId>>> = Arc::default();
        loop {
            let state = self.meta.state();
            self.observe(&mut nodes, &state);
            let mut transfers = self.limits.transfers;
            for (group, row) in rows(&state) {
                let Some(status) = self.groups.status(group).filter(GroupStatus::is_leader) else { continue };
                let sight = Sight { nodes: &nodes, caught_up: self.limits.caught_up, now: clock::monotonic() };
                let step = match step::next(&wanted(row), &observed(&status, row), sight) {
                    // Of a row that is settled the leader may still be another than it prefers.
                    Next::Settled | Next::Prefer(_) if !row.is_settled() => None,
                    Next::Settled | Next::Waiting | Next::Blocked => continue,
                    // What it has just handed over does not come back to a node on its way out.
                    Next::Prefer(node) if transfers == 0 || self.is_leaving(node, &state) => continue,
                    Next::Prefer(node) => {
                        transfers -= 1;
                        Some(Step::TransferLeader(node))
                    }
                    Next::Step(step) => Some(step),
                };
                if busy.lock().insert(group) {
                    let (placing, row, busy) = (self.clone(), row.clone(), busy.clone());
                    self.tasks.spawn(Kind::Work, "step", async move {
                        match step {
                            Some(step) => placing.take(group, &row, &status, step).await,
                            None => {
                                let _ =
                                    placing.meta.propose(MetaCommand::Settled { group, version: row.version }).await;
                            }
                        }
                        busy.lock().remove(&group);
                    });
                }
            }
            if !self.look_again(&mut changes).await {
                return;
            }
        }
    }

    /// One step of a group that this node leads. What fails is seen again at the next look.
    async fn take(&self, group: GroupId, row: &PartitionRecord, status: &GroupStatus, step: Step) {
        tracing::debug!(%group, ?step, "towards the table");
        let replica_of = |node: NodeId| -> Option<ReplicaId> {
            let member = status.members.iter().find(|(_, member)| **member == node).map(|(replica, _)| *replica);
            member.or_else(|| row.replicas.iter().find(|placed| placed.node == node).map(|placed| placed.replica))
        };
        let done = match &step {
            Step::AddLearner(node) => {
                // Of a node that the row names with another id than the membership still does: that one goes first.
                let placed = row.replicas.iter().find(|placed| placed.node == *node);
                let Some(placed) = placed else { return };
                let address = self.meta.state().nodes.get(node).map_or_else(String::new, |node| node.address.clone());
                self.groups.add_learner(group, placed.replica, *node, address).await
            }
            Step::ChangeVoters(nodes) => {
                let voters: Option<BTreeSet<_>> = nodes.iter().map(|node| replica_of(*node)).collect();
                let Some(voters) = voters else { return };
                self.groups.change_voters(group, voters).await
            }
            Step::RemoveLearner(node) => {
                let Some(replica) = replica_of(*node) else { return };
                self.groups.remove_learner(group, replica).await
            }
            Step::TransferLeader(node) => {
                let Some(replica) = replica_of(*node) else { return };
                self.hand_over(group, *node, replica).await
            }
            // Its node sees by itself that no row names it.
            Step::DropReplica(_) => Ok(()),
        };
        if let Err(error) = done {
            tracing::debug!(%group, ?step, %error, "a step towards the table has failed");
        }
    }

    /// Makes another node the leader. A partition stands still first, so that its calls only wait.
    pub async fn hand_over(
        &self,
        group: GroupId,
        to: NodeId,
        replica: ReplicaId,
    ) -> Result<(), callboard_raft::ChangeError> {
        let transfer = self.groups.transfer_leader(group, replica);
        let owner = match group {
            GroupId::Meta => None,
            GroupId::Partition(partition) => self.owners.get(partition),
        };
        let Some(owner) = owner else { return transfer.await };
        let partition = owner.id();
        let announce = async |epoch: Epoch| {
            let message = wire::Handing { partition: partition.0, epoch: epoch.0 }.encode_to_vec();
            let told = self.links.send(to, Errand::Handing, message.into(), HANDING_LIMIT).await;
            if let Err(error) = told {
                tracing::info!(%partition, %error, "the next owner does not know of the hand-over: activations end");
            }
        };
        match owner.hand_over(announce, transfer).await {
            Ok(result) => result,
            // It does not serve: nothing has to stand still.
            Err(_not_serving) => self.groups.transfer_leader(group, replica).await,
        }
    }

    /// Hands over everything this node leads to others that can lead at once. What has nobody else stays.
    pub async fn leave_all(&self) {
        let led = self.groups.statuses().into_iter().filter(GroupStatus::is_leader);
        futures_util::future::join_all(led.map(|status| self.leave(status))).await;
    }

    async fn leave(&self, status: GroupStatus) {
        let voters = status.voters.iter().flatten().filter(|replica| **replica != status.replica);
        let heard = |replica: &&ReplicaId| status.heard.get(replica).is_some_and(|heard| *heard < HEARD_LATELY);
        let next = voters.filter(heard).min_by_key(|replica| status.lag(**replica).unwrap_or(u64::MAX));
        let Some((replica, node)) = next.and_then(|next| Some((*next, *status.members.get(next)?))) else { return };
        if let Err(error) = self.hand_over(status.group, node, replica).await {
            tracing::warn!(group = %status.group, %error, "not handed over: its next owner is elected instead");
        }
    }

    async fn plan(self) {
        let mut nodes = Liveness::new(LivenessConfig { lost_after: self.lost_after, ..LivenessConfig::default() });
        let mut voting = Liveness::new(voters::LIVENESS);
        let mut changes = self.groups.changes();
        loop {
            let state = self.meta.state();
            self.observe(&mut nodes, &state);
            self.observe(&mut voting, &state);
            let status = self.groups.status(GroupId::Meta).filter(GroupStatus::is_leader);
            if let Some(status) = status {
                let now = clock::monotonic();
                let target = voters::target(
                    &members(&state, |node| voting.standing(node, now)),
                    &observed(&status, &state.meta),
                );
                let meta = target.and_then(|target| replaced(&state.meta, &target, state.next_replica));
                let next = match meta {
                    Some(replicas) if state.meta.is_settled() => {
                        Some(MetaCommand::PlaceMeta { version: state.meta.version + 1, replicas })
                    }
                    Some(_) | None => self.next_row(&state, &members(&state, |node| nodes.standing(node, now))),
                };
                if let Some(command) = next {
                    let answer = self.meta.propose(command).await;
                    tracing::debug!(?answer, "the table changes");
                    tokio::task::yield_now().await;
                    continue;
                }
            }
            if !self.look_again(&mut changes).await {
                return;
            }
        }
    }

    /// The first row that is not what it should be, while few enough are on their way.
    fn next_row(&self, state: &MetaState, members: &[Member]) -> Option<MetaCommand> {
        let settings = state.settings.as_ref()?;
        let moving = state.partitions.values().filter(|row| !row.is_settled()).count();
        if moving >= self.limits.moves {
            return None;
        }
        let table = propose(members, &table(state), settings.partitions, settings.replicas);
        state.partitions.iter().filter(|(_, row)| row.is_settled() && row.initialized).find_map(|(&partition, row)| {
            let replicas = replaced(row, table.row(partition)?, state.next_replica)?;
            Some(MetaCommand::Place { partition, version: row.version + 1, replicas })
        })
    }

    fn is_leaving(&self, node: NodeId, state: &MetaState) -> bool {
        let said = |report: &Arc<NodeReport>| report.presence == Presence::Leaving;
        state.nodes.get(&node).is_some_and(|record| record.leaving) || self.view.borrow().node(node).is_some_and(said)
    }

    fn observe(&self, nodes: &mut Liveness, state: &MetaState) {
        let view = self.view.borrow().clone();
        let is_live = |node: NodeId| node == self.node || view.is_up(node);
        nodes.observe(clock::monotonic(), state.nodes.keys().copied(), is_live);
    }
}

/// Every group and its row.
fn rows(state: &MetaState) -> impl Iterator<Item = (GroupId, &PartitionRecord)> {
    let partitions = state.partitions.iter().map(|(&partition, row)| (GroupId::Partition(partition), row));
    partitions.chain(std::iter::once((GroupId::Meta, &state.meta)))
}

/// The registered nodes; `standing` says how those that may hold replicas are.
fn members(state: &MetaState, standing: impl Fn(NodeId) -> Standing) -> Vec<Member> {
    let member = |(&node, record): (&NodeId, &callboard_machine::meta::NodeRecord)| Member {
        node,
        zone: record.zone.as_str().into(),
        weight: 1,
        standing: match record.role {
            Role::Storage if !record.leaving => standing(node),
            Role::Storage | Role::Gateway => Standing::Out,
        },
    };
    state.nodes.iter().map(member).collect()
}

/// The committed table, as the engine has it.
pub fn table(state: &MetaState) -> Table {
    let count = state.settings.as_ref().map_or(0, |settings| settings.partitions);
    let row = |number| state.partitions.get(&PartitionId(number)).filter(|row| !row.replicas.is_empty()).map(wanted);
    Table { rows: (0..count).map(row).collect() }
}

/// A row as the engine has it.
fn wanted(row: &PartitionRecord) -> Row {
    let replica = |placed: &Placement| Replica {
        node: placed.node,
        role: if placed.learner { ReplicaRole::Learner } else { ReplicaRole::Voter },
    };
    let replicas: Vec<_> = row.replicas.iter().map(replica).collect();
    let leader = replicas.iter().find(|one| one.role == ReplicaRole::Voter).or(replicas.first());
    let leader = leader.map_or(NodeId(0), |one| one.node);
    Row { replicas, leader }
}

/// The placements that make `row` what it should be, those that stay under their ids. `None`: it is.
fn replaced(row: &PartitionRecord, target: &Row, next_replica: u64) -> Option<Vec<Placement>> {
    let mut fresh = next_replica;
    let mut ordered: Vec<&Replica> = target.replicas.iter().collect();
    // The preferred leader is the first voter.
    ordered.sort_by_key(|replica| (replica.role != ReplicaRole::Voter, replica.node != target.leader));
    let mut placement = |replica: &Replica| {
        let held = row.replicas.iter().find(|placed| placed.node == replica.node).map(|placed| placed.replica);
        let id = held.unwrap_or_else(|| {
            fresh += 1;
            ReplicaId(fresh - 1)
        });
        Placement { node: replica.node, replica: id, learner: replica.role == ReplicaRole::Learner }
    };
    let replicas: Vec<_> = ordered.into_iter().map(&mut placement).collect();
    let same = |a: &[Placement], b: &[Placement]| {
        let set = |row: &[Placement]| row.iter().map(|one| (one.node, one.learner)).collect::<BTreeSet<_>>();
        set(a) == set(b) && a.first().map(|one| one.node) == b.first().map(|one| one.node)
    };
    (!same(&replicas, &row.replicas)).then_some(replicas)
}

/// A group as its leader sees it, in nodes.
fn observed(status: &GroupStatus, row: &PartitionRecord) -> Group {
    let node = |replica: &ReplicaId| status.members.get(replica).copied();
    let nodes = |replicas: &[ReplicaId]| replicas.iter().filter_map(node).collect::<Vec<_>>();
    let mut sets = status.voters.iter();
    let voters = sets.next().map(|set| nodes(set)).unwrap_or_default();
    let incoming = sets.next().map(|set| nodes(set));
    let learners = nodes(&status.learners());
    // One that has never answered lacks everything, however short the log is.
    let answers = |replica: &ReplicaId| *replica == status.replica || status.heard.contains_key(replica);
    let behind: BTreeMap<_, _> = status
        .members
        .iter()
        .filter(|(replica, _)| answers(replica))
        .filter_map(|(replica, node)| Some((*node, status.lag(*replica)?)))
        .collect();
    let mut holders: Vec<_> = status.members.values().copied().collect();
    holders.extend(row.replicas.iter().map(|placed| placed.node));
    Group {
        voters,
        incoming,
        learners,
        leader: status.leader.map(|(_, node)| node),
        behind,
        holders,
        uncommitted: !status.agreed,
        begun: None,
    }
}
