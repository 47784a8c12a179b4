//! The table: which nodes hold and lead each partition.
//!
//! The ring says where a partition would like to be, but a few large partitions fall unevenly on any ring, and the ring
//! knows no zones. So its wish is the last of five, in this order; an earlier one is never given up for a later:
//!
//! 1. No seat on a node that cannot take it: a silent one is given nothing while others can, a lost one keeps nothing.
//! 2. Nobody holds more than a tenth above the fair share, or less than a tenth below it ([`shares`](super::shares)), of
//!    replicas and of leaders. The upper bound protects nodes; the lower one is why a node that joins gets its part.
//! 3. What is there stays.
//! 4. What moves anyway evens the numbers out.
//! 5. The preferred leader has the data already.
//! 6. The ring's order.
//!
//! The spread over zones stands outside the order: it is built into the network that the seats flow through, and holds
//! exactly, always. Both assignments, of seats and then of leaders among a row's seats, are cheapest flows
//! ([`flow`](super::flow)) whose prices are the list above. Hence a proposal from its own answer changes nothing, and a
//! node that joins or leaves moves what the bounds demand and no more.
//!
//! Leaders keep to their bounds whenever the seats do: a row has at least as many nodes to choose from as a leader's
//! share is smaller than a holder's (Hall's condition holds with the same tenth on both). Only in zones of very unequal
//! size may the leaders' bound give way to the seats'.

use std::collections::BTreeMap;

use callboard_types::{NodeId, PartitionId};

use super::flow::{ArcId, Flow};
use super::shares::{self, Band};
use super::{Member, Replica, ReplicaRole, Row, Standing, Table};
use crate::ring::{MAX_WEIGHT, Ring, partition_key};

/// Places in the ring's order that differ in price; beyond it, all are the same.
const RANKS: i64 = 32;

/// Partitions times replicas: far above what settings allow, and within what prices can be told apart.
const MAX_SEATS: u32 = 1_280;

/// How many voters a group has on this many registered storage nodes: odd, and at most the replication factor.
pub fn voter_count(nodes: usize, replication_factor: u32) -> usize {
    let replicas = nodes.min(replication_factor as usize).max(1);
    if replicas.is_multiple_of(2) { replicas - 1 } else { replicas }
}

/// The table that the members should have, given the one they do. Without a storage node it stays as it is.
///
/// The order of the members does not matter; each node is given once.
pub fn propose(members: &[Member], current: &Table, partitions: u32, replication_factor: u32) -> Table {
    let Some(cluster) = Cluster::of(members, partitions, replication_factor) else { return current.clone() };
    let rows: Vec<_> = (0..partitions).map(|number| Wishes::of(&cluster, current, PartitionId(number))).collect();
    let seats = cluster.seats(&rows);
    let leaders = cluster.leaders(&rows, &seats);
    let placed = rows.iter().zip(&seats).zip(leaders);
    Table { rows: placed.map(|((wishes, seats), leader)| Some(cluster.row(wishes, seats, leader))).collect() }
}

/// A node that may hold replicas; in what follows it is its index.
struct Candidate {
    node: NodeId,
    zone: usize,
    weight: u32,
    standing: Standing,
}

struct Cluster {
    candidates: Vec<Candidate>,
    ring: Ring<NodeId>,
    partitions: u32,
    /// Of each row.
    replicas: u32,
    voters: usize,
    prices: Prices,
}

/// One row's view of the candidates.
struct Wishes {
    /// All candidates, as the ring has them.
    order: Vec<usize>,
    held: Vec<bool>,
    voted: Vec<bool>,
    led: Option<usize>,
}

/// What a unit pays; each price outweighs everything below it, over all rows together.
#[derive(Debug, Clone, Copy)]
struct Prices {
    /// Per unit that makes the numbers less even, up to three times; the ring's ranks are below it.
    uneven: i64,
    /// Per move of what was elsewhere.
    moved: i64,
    /// Per unit outside of a band.
    unfair: i64,
    /// Per unit on a node that should not have it.
    unfit: i64,
}

impl Prices {
    fn of(units: u32) -> Self {
        let units = i64::from(units) + 1;
        let uneven = units * 2 * RANKS;
        let moved = units * 4 * uneven;
        let unfair = units * 2 * moved;
        // A unit can be outside of the bands twice over: above one, and missing in another.
        Self { uneven, moved, unfair, unfit: units * 3 * unfair }
    }
}

impl Wishes {
    fn of(cluster: &Cluster, current: &Table, partition: PartitionId) -> Self {
        let index: BTreeMap<_, _> = cluster.candidates.iter().enumerate().map(|(at, one)| (one.node, at)).collect();
        let order = cluster.ring.walk(&partition_key(partition)).map(|node| index[&node]).collect();
        let row = current.row(partition);
        let role = |one: &Candidate| row.and_then(|row| row.role_of(one.node));
        Self {
            order,
            held: cluster.candidates.iter().map(|one| role(one).is_some()).collect(),
            voted: cluster.candidates.iter().map(|one| role(one) == Some(ReplicaRole::Voter)).collect(),
            led: row.and_then(|row| index.get(&row.leader).copied()),
        }
    }

    fn rank(&self, candidate: usize) -> i64 {
        let at = self.order.iter().take(RANKS as usize - 1).position(|&one| one == candidate);
        at.map_or(RANKS - 1, |at| at as i64)
    }
}

impl Cluster {
    fn of(members: &[Member], partitions: u32, replication_factor: u32) -> Option<Self> {
        let mut registered: Vec<_> = members.iter().filter(|member| member.standing != Standing::Out).collect();
        registered.sort_unstable_by_key(|member| member.node);
        registered.dedup_by_key(|member| member.node);
        let replicas = registered.len().min(replication_factor.max(1) as usize);
        let voters = voter_count(registered.len(), replication_factor);
        let found = registered.iter().filter(|member| member.standing != Standing::Lost).count();
        // Lost nodes keep seats only where there are not enough others.
        registered.retain(|member| found < replicas || member.standing != Standing::Lost);
        assert!(partitions.saturating_mul(replicas as u32) <= MAX_SEATS, "the settings of a cluster are bounded");
        let zones: BTreeMap<_, _> = registered.iter().map(|member| (&member.zone, ())).collect();
        let zones: BTreeMap<_, _> = zones.into_keys().zip(0..).collect();
        let candidate = |member: &&Member| Candidate {
            node: member.node,
            zone: zones[&member.zone],
            weight: member.weight.clamp(1, MAX_WEIGHT),
            standing: member.standing,
        };
        let candidates: Vec<_> = registered.iter().map(candidate).collect();
        (!candidates.is_empty()).then(|| Self {
            ring: Ring::new(candidates.iter().map(|one| (one.node, one.weight))),
            candidates,
            partitions,
            replicas: replicas as u32,
            voters,
            prices: Prices::of(partitions * replicas as u32),
        })
    }

    fn weights(&self) -> Vec<(usize, u32)> {
        self.candidates.iter().map(|one| (one.zone, one.weight)).collect()
    }

    /// The nodes of each row.
    fn seats(&self, rows: &[Wishes]) -> Vec<Vec<usize>> {
        let shares = shares::replicas(&self.weights(), self.partitions, self.replicas);
        let (mut flow, source, sink, nodes) = self.network(&shares.bands);
        let mut taken: Vec<Vec<(usize, ArcId)>> = Vec::with_capacity(rows.len());
        for wishes in rows {
            let row = flow.point();
            flow.arc(source, row, self.replicas, 0);
            let mut gates = Vec::with_capacity(shares.seats.len());
            for &seats in shares.seats.values() {
                let gate = flow.point();
                flow.arc(row, gate, seats, 0);
                gates.push(gate);
            }
            let arc = |&one: &usize| {
                let price = self.seat_price(one, wishes.held[one]) + wishes.rank(one) * i64::from(!wishes.held[one]);
                (one, flow.arc(gates[self.candidates[one].zone], nodes[one], 1, price))
            };
            taken.push(wishes.order.iter().map(arc).collect());
        }
        let sent = flow.send(source, sink, self.partitions * self.replicas);
        assert_eq!(sent, self.partitions * self.replicas, "every zone has its seats, and every node room for all rows");
        let used =
            |arcs: Vec<(usize, ArcId)>| arcs.into_iter().filter(|(_, arc)| flow.used(*arc) > 0).map(|(one, _)| one);
        taken.into_iter().map(|arcs| used(arcs).collect()).collect()
    }

    /// The preferred leader of each row, among its seats.
    fn leaders(&self, rows: &[Wishes], seats: &[Vec<usize>]) -> Vec<usize> {
        let bands = shares::leaders(&self.weights(), self.partitions);
        let (mut flow, source, sink, nodes) = self.network(&bands);
        let mut taken: Vec<Vec<(usize, ArcId)>> = Vec::with_capacity(rows.len());
        for (wishes, seats) in rows.iter().zip(seats) {
            let row = flow.point();
            flow.arc(source, row, 1, 0);
            let arc = |&one: &usize| {
                let led = wishes.led == Some(one);
                let empty = RANKS * i64::from(!wishes.held[one]);
                let price = self.seat_price(one, led) + (wishes.rank(one) + empty) * i64::from(!led);
                (one, flow.arc(row, nodes[one], 1, price))
            };
            taken.push(seats.iter().map(arc).collect());
        }
        let sent = flow.send(source, sink, self.partitions);
        assert_eq!(sent, self.partitions, "every row has a seat, and every node room for all rows");
        let used = |arcs: &Vec<(usize, ArcId)>| arcs.iter().find(|(_, arc)| flow.used(*arc) > 0).map(|&(one, _)| one);
        taken.iter().map(|arcs| used(arcs).expect("each row sent its unit")).collect()
    }

    /// A source, a sink, and a point for each node with its band before the sink.
    fn network(&self, bands: &[Band]) -> (Flow, usize, usize, Vec<usize>) {
        let (mut flow, source, sink) = (Flow::new(2), 0, 1);
        let Prices { uneven, unfair, moved: _, unfit: _ } = self.prices;
        let mut nodes = Vec::with_capacity(bands.len());
        for (band, one) in bands.iter().zip(&self.candidates) {
            let point = flow.point();
            // A lost node is owed nothing; a silent one what it has.
            let low = if one.standing == Standing::Lost { 0 } else { band.low };
            let steps = [
                (low, 0),
                (band.below, unfair + uneven),
                (band.above, unfair + 2 * uneven),
                (band.high, unfair + 3 * uneven),
                (self.partitions.max(band.high), 2 * unfair + 3 * uneven),
            ];
            let mut from = 0;
            for (to, price) in steps {
                flow.arc(point, sink, to - from, price);
                from = to;
            }
            nodes.push(point);
        }
        (flow, source, sink, nodes)
    }

    /// What having it costs on this node, and what moving it there does.
    fn seat_price(&self, candidate: usize, present: bool) -> i64 {
        let unfit = match (self.candidates[candidate].standing, present) {
            (Standing::Live, _) | (Standing::Down, true) => 0,
            (Standing::Down, false) | (Standing::Lost, _) | (Standing::Out, _) => self.prices.unfit,
        };
        unfit + if present { 0 } else { self.prices.moved }
    }

    /// The leader votes; the others who do are those who can, in zones that have no voter yet, who did before.
    fn row(&self, wishes: &Wishes, seats: &[usize], leader: usize) -> Row {
        let mut voters = vec![leader];
        while voters.len() < self.voters.min(seats.len()) {
            let urgency = |&one: &usize| {
                let candidate = &self.candidates[one];
                let zone_votes = voters.iter().filter(|&&voter| self.candidates[voter].zone == candidate.zone).count();
                (candidate.standing == Standing::Lost, zone_votes, !wishes.voted[one])
            };
            let open = wishes.order.iter().copied().filter(|one| seats.contains(one) && !voters.contains(one));
            voters.extend(open.min_by_key(urgency));
        }
        let others = wishes.order.iter().copied().filter(|&one| one != leader && seats.contains(&one));
        let (voting, learning): (Vec<_>, Vec<_>) = others.partition(|one| voters.contains(one));
        let replica = |role| move |one: usize| Replica { node: self.candidates[one].node, role };
        let voting = std::iter::once(leader).chain(voting).map(replica(ReplicaRole::Voter));
        let replicas = voting.chain(learning.into_iter().map(replica(ReplicaRole::Learner))).collect();
        Row { replicas, leader: self.candidates[leader].node }
    }
}
