//! The controller against a world of groups that elect, copy and lose nodes, while it is itself stopped and started.
//!
//! A step takes a while and has visible halves: a replica is handed out before the membership names it, a change of voters
//! stands joint before it is done. When the controller dies, what it had begun stays where it is. It keeps nothing but the
//! table.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::Instant;

const NODES: u64 = 7;
const PARTITIONS: u32 = 6;
const LIMITS: MoveLimits = MoveLimits { moves: 3, per_node: 2, transfers: 1, caught_up: 5 };
const LIVENESS: LivenessConfig =
    LivenessConfig { lost_after: std::time::Duration::from_secs(30), settle: std::time::Duration::from_secs(3) };
/// Entries that a learner receives per second.
const COPIED: u64 = 40;

#[derive(Debug, Clone)]
enum Event {
    Pass(u8),
    Crash(u64),
    Restart(u64),
    Join(u64),
    Leave(u64),
    ControllerDies,
    Elect { partition: u32, node: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    let node = 1..=NODES;
    prop_oneof![
        12 => (1..12_u8).prop_map(Event::Pass),
        3 => node.clone().prop_map(Event::Crash),
        4 => node.clone().prop_map(Event::Restart),
        3 => node.clone().prop_map(Event::Join),
        2 => node.clone().prop_map(Event::Leave),
        2 => Just(Event::ControllerDies),
        3 => (0..PARTITIONS, node).prop_map(|(partition, node)| Event::Elect { partition, node }),
    ]
}

#[derive(Debug)]
struct Sim {
    group: Group,
    log: u64,
    has: BTreeMap<NodeId, u64>,
    /// What the controller has begun, and how many seconds ago.
    begun: Option<(Step, u32)>,
}

struct World {
    now: u64,
    up: BTreeSet<NodeId>,
    storage: BTreeSet<NodeId>,
    liveness: Liveness,
    table: Table,
    groups: BTreeMap<PartitionId, Sim>,
    steps: usize,
}

fn majority_in(voters: &[NodeId], up: &BTreeSet<NodeId>) -> bool {
    2 * voters.iter().filter(|voter| up.contains(voter)).count() > voters.len()
}

impl Sim {
    fn has_quorum(&self, up: &BTreeSet<NodeId>) -> bool {
        majority_in(&self.group.voters, up)
            && self.group.incoming.as_ref().is_none_or(|incoming| majority_in(incoming, up))
    }

    fn is_voter(&self, node: NodeId) -> bool {
        self.group.voters.contains(&node) || self.group.incoming.as_ref().is_some_and(|voters| voters.contains(&node))
    }

    fn members(&self) -> BTreeSet<NodeId> {
        let incoming = self.group.incoming.iter().flatten();
        self.group.voters.iter().chain(&self.group.learners).chain(incoming).copied().collect()
    }

    fn pass_second(&mut self, up: &BTreeSet<NodeId>) {
        let leads = |node: &NodeId| up.contains(node) && self.is_voter(*node);
        if !self.has_quorum(up) {
            self.group.leader = self.group.leader.filter(leads);
            return;
        }
        if self.group.leader.filter(leads).is_none() {
            let electable = self.members().into_iter().filter(leads);
            self.group.leader = electable.max_by_key(|node| (self.has.get(node).copied().unwrap_or(0), *node));
        }
        self.log += 3;
        for node in self.members().intersection(up) {
            let has = self.has.entry(*node).or_default();
            *has = self.log.min(*has + COPIED);
        }
        let leader = self.group.leader.expect("a living majority elects");
        self.has.insert(leader, self.log);
        self.group.behind =
            self.members().iter().map(|node| (*node, self.log - self.has.get(node).unwrap_or(&0))).collect();
    }

    /// The second half of what was begun, once it can be committed.
    fn carry_on(&mut self, up: &BTreeSet<NodeId>) {
        let Some((step, age)) = self.begun.take() else { return };
        if !self.has_quorum(up) || !self.group.leader.is_some_and(|leader| up.contains(&leader)) {
            // The call fails; what is visible of it stays.
            return;
        }
        if age < 2 {
            self.begun = Some((step, age + 1));
            return;
        }
        let group = &mut self.group;
        match step {
            Step::AddLearner(node) => {
                if !group.voters.contains(&node) && !group.learners.contains(&node) {
                    group.learners.push(node);
                }
            }
            Step::ChangeVoters(voters) => {
                group.learners.extend(group.voters.iter().filter(|node| !voters.contains(node)));
                group.learners.retain(|node| !voters.contains(node));
                group.voters = voters;
                group.incoming = None;
            }
            Step::TransferLeader(node) => group.leader = Some(node).filter(|node| up.contains(node)).or(group.leader),
            Step::RemoveLearner(node) => group.learners.retain(|learner| *learner != node),
            Step::DropReplica(node) => {
                group.holders.retain(|holder| *holder != node);
                self.has.remove(&node);
            }
        }
    }

    /// The first half, and all that must hold when it begins.
    fn begin(&mut self, step: &Step, row: &Row, up: &BTreeSet<NodeId>) {
        assert_eq!(self.begun, None, "two steps in one group");
        let leader = self.group.leader.expect("a step has a leader");
        match step {
            Step::AddLearner(node) => {
                assert!(up.contains(node) && row.role_of(*node).is_some() && !self.members().contains(node));
                if !self.group.holders.contains(node) {
                    self.group.holders.push(*node);
                }
            }
            Step::ChangeVoters(voters) => self.begin_change(voters, leader, row, up),
            Step::TransferLeader(node) => {
                assert!(self.group.voters.contains(node) && up.contains(node) && *node != leader);
                assert!(self.group.behind[node] <= LIMITS.caught_up);
            }
            Step::RemoveLearner(node) => {
                assert!(self.group.learners.contains(node) && !self.is_voter(*node) && row.role_of(*node).is_none());
                assert_eq!(self.group.incoming, None, "a change is finished first");
            }
            Step::DropReplica(node) => {
                assert!(!self.members().contains(node) && row.role_of(*node).is_none());
            }
        }
        self.begun = Some((step.clone(), 0));
    }

    fn begin_change(&mut self, voters: &[NodeId], leader: NodeId, row: &Row, up: &BTreeSet<NodeId>) {
        assert_eq!(voters.len() % 2, 1, "voters are odd");
        if let Some(incoming) = &self.group.incoming {
            assert_eq!(voters, incoming, "a joint membership is finished as it was begun");
            return;
        }
        assert!(majority_in(voters, up), "{voters:?} of {up:?} would have no majority");
        for voter in voters.iter().filter(|voter| !self.group.voters.contains(voter)) {
            assert!(self.group.learners.contains(voter) && self.group.behind[voter] <= LIMITS.caught_up);
            assert!(row.voters().any(|wanted| wanted == *voter));
        }
        let sole = self.group.voters.len() == 1 && voters.len() == 1;
        assert!(voters.contains(&leader) || sole, "the leader {leader} is off before its vote goes");
        self.group.incoming = Some(voters.to_vec());
    }
}

impl World {
    fn new(initial: u64) -> Self {
        let storage: BTreeSet<_> = (1..=initial).map(NodeId).collect();
        let mut world = Self {
            now: 0,
            up: storage.clone(),
            storage,
            liveness: Liveness::new(LIVENESS),
            table: Table::default(),
            groups: BTreeMap::new(),
            steps: 0,
        };
        world.propose();
        for (partition, row) in (0..).map(PartitionId).zip(world.table.rows.iter().flatten()) {
            // As at formation: the voters are there, learners are added.
            let voters: Vec<_> = row.voters().collect();
            let group = Group { holders: voters.clone(), voters, ..Group::default() };
            world.groups.insert(partition, Sim { group, log: 200, has: BTreeMap::new(), begun: None });
        }
        world
    }

    fn propose(&mut self) {
        let now = Instant(self.now * 1_000_000);
        let up = self.up.clone();
        self.liveness.observe(now, (1..=NODES).map(NodeId), |node| up.contains(&node));
        let member = |node: u64| {
            let id = NodeId(node);
            let standing = if self.storage.contains(&id) { self.liveness.standing(id, now) } else { Standing::Out };
            Member { node: id, zone: format!("z{}", node % 3).into(), weight: 1, standing }
        };
        let members: Vec<_> = (1..=NODES).map(member).collect();
        self.table = propose(&members, &self.table, PARTITIONS, 3);
    }

    /// Groups that occupy a place, as an onlooker counts them, and copies under way by node.
    fn under_way(&self) -> (usize, BTreeMap<NodeId, usize>) {
        let (mut groups, mut copies) = (0, BTreeMap::new());
        for (partition, sim) in &self.groups {
            let row = self.table.row(*partition).expect("placed");
            let Some(leader) = sim.group.leader.filter(|leader| self.up.contains(leader)) else { continue };
            let lags = |node: &NodeId| sim.group.behind.get(node).is_none_or(|behind| *behind > LIMITS.caught_up);
            let mut copied: BTreeSet<_> = sim.group.learners.iter().copied().filter(lags).collect();
            copied.extend(sim.begun.iter().filter_map(|(step, _)| match step {
                Step::AddLearner(node) => Some(*node),
                Step::ChangeVoters(_) | Step::TransferLeader(_) | Step::RemoveLearner(_) | Step::DropReplica(_) => None,
            }));
            copied.retain(|node| self.up.contains(node) && row.role_of(*node).is_some());
            groups += usize::from(sim.begun.is_some() || sim.group.incoming.is_some() || !copied.is_empty());
            for node in copied.into_iter().flat_map(|node| [node, leader]) {
                *copies.entry(node).or_default() += 1;
            }
        }
        (groups, copies)
    }

    fn pass_second(&mut self) {
        self.now += 1;
        let up = self.up.clone();
        for sim in self.groups.values_mut() {
            let quorum = sim.has_quorum(&up);
            sim.carry_on(&up);
            assert!(!quorum || sim.has_quorum(&up), "a step took the majority away");
            sim.pass_second(&up);
            assert!(sim.group.incoming.is_some() || sim.group.voters.len() % 2 == 1, "voters are odd");
            assert!(sim.members().iter().all(|node| sim.group.holders.contains(node)), "members hold replicas");
        }
        self.control();
    }

    fn control(&mut self) {
        self.propose();
        let seen = |sim: &Sim| Group { begun: sim.begun.as_ref().map(|(step, _)| step.clone()), ..sim.group.clone() };
        let seen: BTreeMap<_, _> = self.groups.iter().map(|(partition, sim)| (*partition, seen(sim))).collect();
        let now = Instant(self.now * 1_000_000);
        for one in moves::next(&self.table, &seen, &self.liveness, &LIMITS, now) {
            self.steps += 1;
            let (before, _) = self.under_way();
            let row = self.table.row(one.partition).expect("placed").clone();
            let up = self.up.clone();
            self.groups.get_mut(&one.partition).expect("known").begin(&one.step, &row, &up);
            let (after, copies) = self.under_way();
            assert!(after <= LIMITS.moves.max(before), "{before} groups under way, then {after}");
            if let Step::AddLearner(receiver) = one.step {
                let sender = self.groups[&one.partition].group.leader.expect("it leads");
                assert!([sender, receiver].iter().all(|node| copies[node] <= LIMITS.per_node), "{copies:?}");
            }
        }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Pass(seconds) => (0..seconds).for_each(|_| self.pass_second()),
            Event::Crash(node) => {
                self.up.remove(&NodeId(node));
            }
            Event::Restart(node) | Event::Join(node) if self.storage.contains(&NodeId(node)) => {
                self.up.insert(NodeId(node));
            }
            Event::Join(node) => {
                self.storage.insert(NodeId(node));
                self.up.insert(NodeId(node));
            }
            Event::Leave(node) if self.storage.len() > 1 => {
                self.storage.remove(&NodeId(node));
            }
            Event::Restart(_) | Event::Leave(_) => {}
            Event::ControllerDies => {
                self.liveness = Liveness::new(LIVENESS);
                self.groups.values_mut().for_each(|sim| sim.begun = None);
            }
            Event::Elect { partition, node } => {
                let sim = self.groups.get_mut(&PartitionId(partition)).expect("known");
                if sim.is_voter(NodeId(node)) && self.up.contains(&NodeId(node)) && sim.has_quorum(&self.up) {
                    sim.group.leader = Some(NodeId(node));
                }
            }
        }
    }

    /// Everything comes back and the faults end: all groups become what the table says, and then nothing is done.
    fn heal(&mut self) {
        // A node that has left runs on until it holds nothing.
        self.up = (1..=NODES).map(NodeId).collect();
        // Who has come back counts after a while.
        (0..5).for_each(|_| self.pass_second());
        for _ in 0..600 {
            self.pass_second();
            if self.groups.iter().all(|(partition, sim)| self.is_settled(*partition, sim)) {
                let steps = self.steps;
                (0..20).for_each(|_| self.pass_second());
                assert_eq!(self.steps, steps, "a settled cluster is left alone");
                return;
            }
        }
        let open: Vec<_> = self.groups.iter().filter(|(partition, sim)| !self.is_settled(**partition, sim)).collect();
        panic!("never settled: {open:#?} on the way to {:?}", self.table);
    }

    fn is_settled(&self, partition: PartitionId, sim: &Sim) -> bool {
        let row = self.table.row(partition).expect("placed");
        let set = |nodes: &[NodeId]| nodes.iter().copied().collect::<BTreeSet<_>>();
        sim.begun.is_none()
            && sim.group.incoming.is_none()
            && set(&sim.group.voters) == row.voters().collect()
            && set(&sim.group.learners) == row.learners().collect()
            && set(&sim.group.holders) == row.replicas.iter().map(|replica| replica.node).collect()
            && sim.group.leader == Some(row.leader)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_happens_every_group_arrives_and_none_falls_on_the_way(
        initial in 1..=NODES,
        events in prop::collection::vec(event(), 0..40),
    ) {
        let mut world = World::new(initial);
        for event in &events {
            world.apply(event);
        }
        world.heal();
    }
}

#[test]
fn a_dead_node_is_replaced_after_the_wait_and_not_before() {
    let mut world = World::new(4);
    world.heal();
    world.up = [1, 2, 3, 4].map(NodeId).into();
    let steps = world.steps;
    world.apply(&Event::Crash(2));
    (0..29).for_each(|_| world.pass_second());
    let copies = |world: &World| {
        world.groups.values().any(|sim| sim.begun.iter().any(|(step, _)| matches!(step, Step::AddLearner(_))))
    };
    assert!(!copies(&world) && world.table.holds(NodeId(2)) > 0);
    (0..300).for_each(|_| world.pass_second());
    assert_eq!(world.table.holds(NodeId(2)), 0);
    for (partition, sim) in &world.groups {
        assert!(!sim.members().contains(&NodeId(2)) && world.is_settled(*partition, sim), "{partition}: {sim:?}");
    }
    assert!(world.steps > steps);
}

#[test]
fn a_controller_that_dies_every_few_seconds_still_arrives() {
    let mut world = World::new(3);
    world.storage.extend((4..=NODES).map(NodeId));
    world.up = world.storage.clone();
    for _ in 0..120 {
        world.apply(&Event::Pass(4));
        world.apply(&Event::ControllerDies);
    }
    assert!(world.groups.iter().all(|(partition, sim)| world.is_settled(*partition, sim)));
}
