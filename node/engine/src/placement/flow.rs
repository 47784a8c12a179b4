//! The cheapest way to send units through a network of bounded arcs.
//!
//! Assigning replicas within bounds is a flow: a unit per seat runs from its row through a zone to a node, and every arc
//! has a capacity and a price. An exact answer instead of a pass that fills greedily is worth its hundred lines: where an
//! assignment within the bounds exists it is found, one that moves less does not exist, and a table that is already
//! within its bounds is its own answer.
//!
//! The method is the primal-dual one (successive shortest paths with potentials): as long as units are left, find the
//! price of the cheapest path, then send units along all paths of that price. Prices are not negative, so the potentials
//! begin at zero. The answer depends on nothing but the order in which arcs were added.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Names an arc that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArcId(u32);

#[derive(Debug, Clone)]
struct Arc {
    to: u32,
    /// Units that may still pass.
    left: u32,
    price: i64,
}

/// A network, and the flow through it.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Each arc stands beside its reverse: that of `i` is `i ^ 1`.
    arcs: Vec<Arc>,
    /// The arcs that leave each point.
    from: Vec<Vec<u32>>,
    potential: Vec<i64>,
}

impl Flow {
    /// A network of this many points and no arcs.
    pub fn new(points: usize) -> Self {
        Self { arcs: Vec::new(), from: vec![Vec::new(); points], potential: vec![0; points] }
    }

    /// One more point.
    pub fn point(&mut self) -> usize {
        self.from.push(Vec::new());
        self.potential.push(0);
        self.from.len() - 1
    }

    pub fn arc(&mut self, from: usize, to: usize, capacity: u32, price: i64) -> ArcId {
        assert!(price >= 0, "the potentials begin at zero");
        let id = self.arcs.len() as u32;
        self.arcs.push(Arc { to: to as u32, left: capacity, price });
        self.arcs.push(Arc { to: from as u32, left: 0, price: -price });
        self.from[from].push(id);
        self.from[to].push(id + 1);
        ArcId(id)
    }

    /// Units that pass an arc.
    pub fn used(&self, arc: ArcId) -> u32 {
        self.arcs[(arc.0 ^ 1) as usize].left
    }

    /// Sends up to `units` as cheaply as possible; how many found a way.
    pub fn send(&mut self, source: usize, sink: usize, units: u32) -> u32 {
        let mut sent = 0;
        while sent < units && self.price_paths(source, sink) {
            let before = sent;
            sent += self.send_along_cheapest(source, sink, units - sent);
            assert!(sent > before, "the cheapest path has room");
        }
        sent
    }

    /// Dijkstra over the reduced prices; afterwards arcs of a cheapest path have a reduced price of zero. False: the
    /// sink cannot be reached.
    fn price_paths(&mut self, source: usize, sink: usize) -> bool {
        let mut distance = vec![i64::MAX; self.from.len()];
        let mut heap = BinaryHeap::from([Reverse((0, source))]);
        distance[source] = 0;
        while let Some(Reverse((reached, point))) = heap.pop() {
            if reached > distance[point] {
                continue;
            }
            if point == sink {
                break;
            }
            for &id in &self.from[point] {
                let arc = &self.arcs[id as usize];
                let to = arc.to as usize;
                if arc.left == 0 {
                    continue;
                }
                let through = reached + arc.price + self.potential[point] - self.potential[to];
                if through < distance[to] {
                    distance[to] = through;
                    heap.push(Reverse((through, to)));
                }
            }
        }
        let cheapest = distance[sink];
        if cheapest == i64::MAX {
            return false;
        }
        for (potential, distance) in self.potential.iter_mut().zip(distance) {
            *potential += distance.min(cheapest);
        }
        true
    }

    /// Fills the paths of reduced price zero, depth first, one after the other.
    fn send_along_cheapest(&mut self, source: usize, sink: usize, units: u32) -> u32 {
        let mut next = vec![0; self.from.len()];
        let mut on_path = vec![false; self.from.len()];
        let mut sent = 0;
        while sent < units {
            let Some(path) = self.path(source, sink, &mut next, &mut on_path) else { break };
            let room = path.iter().map(|&id| self.arcs[id as usize].left).min().unwrap_or(0).min(units - sent);
            for id in path {
                self.arcs[id as usize].left -= room;
                self.arcs[(id ^ 1) as usize].left += room;
            }
            sent += room;
        }
        sent
    }

    /// One path from source to sink. `next` remembers which arcs of a point lead nowhere.
    fn path(&self, source: usize, sink: usize, next: &mut [usize], on_path: &mut [bool]) -> Option<Vec<u32>> {
        on_path.fill(false);
        on_path[source] = true;
        let (mut path, mut at): (Vec<u32>, usize) = (Vec::new(), source);
        while at != sink {
            let Some(&id) = self.from[at].get(next[at]) else {
                // A dead end: back, and past the arc that led here.
                let last = path.pop()?;
                on_path[at] = false;
                at = self.arcs[(last ^ 1) as usize].to as usize;
                next[at] += 1;
                continue;
            };
            let arc = &self.arcs[id as usize];
            let to = arc.to as usize;
            let free = arc.left > 0 && arc.price + self.potential[at] == self.potential[to];
            if free && !on_path[to] {
                path.push(id);
                on_path[to] = true;
                at = to;
            } else {
                next[at] += 1;
            }
        }
        Some(path)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_take_the_cheapest_ways_first() {
        let mut flow = Flow::new(4);
        let cheap = flow.arc(0, 1, 2, 1);
        let dear = flow.arc(0, 2, 5, 3);
        flow.arc(1, 3, 9, 0);
        flow.arc(2, 3, 9, 0);
        assert_eq!(flow.send(0, 3, 4), 4);
        assert_eq!((flow.used(cheap), flow.used(dear)), (2, 2));
    }

    #[test]
    fn a_unit_gives_way_where_that_lets_another_pass() {
        // Taking 0-1-2-3 first, which is cheapest, would block the second unit; its middle is given back.
        let mut flow = Flow::new(4);
        let arcs = [
            flow.arc(0, 1, 1, 0),
            flow.arc(1, 2, 1, 0),
            flow.arc(2, 3, 1, 0),
            flow.arc(0, 2, 1, 5),
            flow.arc(1, 3, 1, 5),
        ];
        assert_eq!(flow.send(0, 3, 2), 2);
        assert_eq!(arcs.map(|arc| flow.used(arc)), [1, 0, 1, 1, 1]);
    }

    #[test]
    fn what_has_no_way_stays() {
        let mut flow = Flow::new(3);
        flow.arc(0, 1, 7, 0);
        flow.arc(1, 2, 3, 0);
        assert_eq!(flow.send(0, 2, 9), 3);
        assert_eq!(Flow::new(2).send(0, 1, 1), 0);
    }

    /// The cheapest assignment of rows to columns, each column up to its capacity, by trying all.
    fn brute(prices: &[Vec<i64>], room: &mut [u32], row: usize) -> Option<i64> {
        let Some(choices) = prices.get(row) else { return Some(0) };
        let mut best = None;
        for (column, price) in choices.iter().enumerate() {
            if room[column] > 0 {
                room[column] -= 1;
                if let Some(rest) = brute(prices, room, row + 1) {
                    best = Some(best.unwrap_or(i64::MAX).min(price + rest));
                }
                room[column] += 1;
            }
        }
        best
    }

    proptest! {
        #[test]
        fn no_assignment_is_cheaper(
            prices in prop::collection::vec(prop::collection::vec(0..9_i64, 3), 1..6),
            room in prop::collection::vec(0..4_u32, 3),
        ) {
            let rows = prices.len();
            let mut flow = Flow::new(rows + 5);
            let (source, sink) = (rows + 3, rows + 4);
            let mut arcs = Vec::new();
            for (row, choices) in prices.iter().enumerate() {
                flow.arc(source, row, 1, 0);
                arcs.extend(choices.iter().enumerate().map(|(column, &price)| (flow.arc(row, rows + column, 1, price), price)));
            }
            for (column, &room) in room.iter().enumerate() {
                flow.arc(rows + column, sink, room, 0);
            }
            let sent = flow.send(source, sink, rows as u32);
            let paid: i64 = arcs.iter().map(|&(arc, price)| i64::from(flow.used(arc)) * price).sum();
            match brute(&prices, &mut room.clone(), 0) {
                Some(best) => prop_assert_eq!((sent as usize, paid), (rows, best)),
                None => prop_assert_eq!(sent, room.iter().sum::<u32>()),
            }
        }
    }
}
