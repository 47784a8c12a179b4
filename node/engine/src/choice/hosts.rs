//! Which node's app runs a new activation.
//!
//! The state lies with the owner, so the shortest road is the owner's own app. But there are fewer partitions than there
//! may be app instances, and with 16 partitions 30 instances would leave 14 without a single actor. The rule takes both:
//! every owner keeps its actors as long as that gives its app no more than 1.25 of a fair share, and hands the rest to
//! those who have less.
//!
//! With n hosts of the type and P partitions, of which the table gives l(h) to h as their leader:
//!
//! ```text
//!   fair      = P / n
//!   keep(h)   = min(1, 1.25 fair / l(h))             1 when h leads nothing
//!   weight(h) = max(0, 1.25 fair - keep(h) l(h))     all zero: all equal
//!   host of an actor = the owner,      if it hosts the type and u(actor) < keep(owner)
//!                    = by rendezvous,  over the other hosts and their weights
//! ```
//!
//! The weights add up to what is handed out plus a quarter of P, so nobody is given more than fills its 1.25 shares. On a
//! small cluster, where everybody leads about a fair share, keep is 1 and every turn runs where its state is. Rendezvous
//! moves an actor only to a host whose weight grew or away from one whose weight shrank.
//!
//! The owner alone chooses, and remembers by the activation: two owners, or two versions of this file, that choose
//! differently cost a move, not a promise. So plain floating point is good enough here.
//!
//! *Who counts as a host* is slower than gossip where that saves moves ([`Arrivals`]): one that withdraws is out at once;
//! one that arrives counts after [`STABLE`], unless nobody else counts, for otherwise a rolling restart would scatter the
//! actors and call them back. When nothing has changed for [`REBALANCE`] the owner may also move idle activations to where
//! the rule would put them today.

use std::collections::BTreeMap;
use std::time::Duration;

use callboard_types::{ActorKey, NodeId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::Instant;
use crate::partition::key_hash;

/// How long a host must have offered a type before it counts beside others.
pub const STABLE: Duration = Duration::from_secs(2);

/// How long the hosts must have been the same before idle activations follow them.
pub const REBALANCE: Duration = Duration::from_secs(10);

/// A host is filled up to this multiple of its fair share.
const FILL: f64 = 1.25;

const KEEP_SEED: u64 = 0x686f_7374_6b65_6570; // "hostkeep"
const PICK_SEED: u64 = 0x686f_7374_7069_636b; // "hostpick"

/// Since when each host of one type counts.
#[derive(Debug, Clone, Default)]
pub struct Arrivals {
    counts_from: BTreeMap<NodeId, Instant>,
    /// When those who count last became others.
    changed: Instant,
}

impl Arrivals {
    /// Takes in who offers the type at `now`. Those of the first look count at once.
    pub fn observe(&mut self, now: Instant, hosts: impl IntoIterator<Item = NodeId>) {
        let before = std::mem::take(&mut self.counts_from);
        let offered: Vec<_> = hosts.into_iter().collect();
        let stays = |node: &NodeId| offered.contains(node);
        let somebody_counts = before.iter().any(|(node, from)| stays(node) && *from <= now);
        if before.iter().any(|(node, from)| !stays(node) && *from <= now) {
            self.changed = now;
        }
        let arrival = if somebody_counts { now.saturating_add(STABLE) } else { now };
        for node in offered {
            let from = before.get(&node).copied().filter(|from| somebody_counts || *from <= now).unwrap_or(arrival);
            self.changed = self.changed.max(from);
            self.counts_from.insert(node, from);
        }
    }

    /// Who counts.
    pub fn hosts(&self, now: Instant) -> impl Iterator<Item = NodeId> + '_ {
        self.counts_from.iter().filter(move |(_, from)| **from <= now).map(|(node, _)| *node)
    }

    /// When the next host begins to count.
    pub fn next_change(&self, now: Instant) -> Option<Instant> {
        self.counts_from.values().copied().filter(|from| *from > now).min()
    }

    /// From when on idle activations may follow the hosts, if nothing else changes.
    pub fn rebalance_from(&self) -> Instant {
        self.changed.saturating_add(REBALANCE)
    }
}

/// The hosts of one type and what each keeps and takes; immutable, made anew when they or the table change.
#[derive(Debug, Clone)]
pub struct Hosts {
    hosts: Vec<Host>,
}

#[derive(Debug, Clone, Copy)]
struct Host {
    node: NodeId,
    keep: f64,
    weight: f64,
}

impl Hosts {
    /// Hosts, each once, and how many of the `partitions` the table gives each as their leader.
    pub fn new(leads: impl IntoIterator<Item = (NodeId, u32)>, partitions: u32) -> Self {
        let leads: BTreeMap<_, _> = leads.into_iter().collect();
        let full = FILL * f64::from(partitions) / leads.len().max(1) as f64;
        let host = |(node, leads): (NodeId, u32)| {
            let leads = f64::from(leads);
            let keep = if leads > full { full / leads } else { 1.0 };
            Host { node, keep, weight: (full - keep * leads).max(0.0) }
        };
        Self { hosts: leads.into_iter().map(host).collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// The host of an actor whose owner is `owner`. `None`: nobody hosts the type.
    pub fn choose(&self, owner: NodeId, actor: &ActorKey) -> Option<NodeId> {
        let actor = key_hash(&actor.namespace, &actor.actor_type, &actor.actor_id);
        let own = self.hosts.iter().find(|host| host.node == owner);
        if own.is_some_and(|host| unit(xxh3_64_with_seed(&actor.to_le_bytes(), KEEP_SEED)) < host.keep) {
            return Some(owner);
        }
        self.rendezvous(owner, actor).or(own.map(|host| host.node))
    }

    /// The one whose draw is smallest: exponential of rate `weight`, so that each wins in proportion to it.
    fn rendezvous(&self, owner: NodeId, actor: u64) -> Option<NodeId> {
        let others = || self.hosts.iter().filter(|host| host.node != owner);
        let all_full = others().all(|host| host.weight == 0.0);
        let draw = |host: &Host| {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&actor.to_le_bytes());
            bytes[8..].copy_from_slice(&host.node.0.to_le_bytes());
            let weight = if all_full { 1.0 } else { host.weight };
            -unit(xxh3_64_with_seed(&bytes, PICK_SEED)).ln() / weight
        };
        others().map(|host| (draw(host), host.node)).min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, node)| node)
    }
}

/// A number between 0 and 1, neither of them.
fn unit(hash: u64) -> f64 {
    ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::partition::partition_of_key;

    const SECOND: u64 = 1_000_000;

    fn actors(count: u32) -> impl Iterator<Item = ActorKey> {
        (0..count).map(|number| ActorKey::new("default", "Cat", format!("cat-{number}")))
    }

    /// Partitions over nodes 0.., one after the other.
    fn leads(hosts: u64, storage: u64, partitions: u32) -> Vec<(NodeId, u32)> {
        let of = |node: u64| (0..u64::from(partitions)).filter(|partition| partition % storage == node).count() as u32;
        (0..hosts).map(|node| (NodeId(node), if node < storage { of(node) } else { 0 })).collect()
    }

    /// Owner -> host, of every actor.
    fn places(hosts: &Hosts, storage: u64, partitions: u32, count: u32) -> Vec<(NodeId, NodeId)> {
        let place = |actor: ActorKey| {
            let owner = NodeId(u64::from(partition_of_key(&actor, partitions).0) % storage);
            (owner, hosts.choose(owner, &actor).expect("there are hosts"))
        };
        actors(count).map(place).collect()
    }

    fn loads(places: &[(NodeId, NodeId)], hosts: u64) -> Vec<u32> {
        (0..hosts).map(|node| places.iter().filter(|(_, host)| host.0 == node).count() as u32).collect()
    }

    #[test]
    fn thirty_instances_over_sixteen_partitions_all_host_and_none_much_more_than_its_share() {
        const ACTORS: u32 = 30_000;
        // All of them storage nodes; half of them; and owners that host nothing, beside hosts that own nothing.
        for (hosts, storage) in [(30, 16), (30, 8), (30, 30)] {
            let chosen = Hosts::new(leads(hosts, storage, 16), 16);
            let loads = loads(&places(&chosen, storage, 16, ACTORS), hosts);
            let mean = f64::from(ACTORS) / hosts as f64;
            let share = |load: &u32| f64::from(*load) / mean;
            let (most, least) =
                (loads.iter().map(share).fold(0.0, f64::max), loads.iter().map(share).fold(9.0, f64::min));
            println!("{hosts} hosts, {storage} owners: {least:.2} to {most:.2} of the mean");
            assert!(most < 1.5 && least > 0.5, "{loads:?}");
        }
        let gateways = Hosts::new((100..130).map(|node| (NodeId(node), 0)), 16);
        let places = places(&gateways, 3, 16, ACTORS);
        let loads: Vec<_> = (100..130).map(|node| places.iter().filter(|(_, host)| host.0 == node).count()).collect();
        assert!(loads.iter().all(|load| (850..1_150).contains(load)), "{loads:?}");
    }

    #[test]
    fn a_host_more_or_less_moves_about_its_share() {
        const ACTORS: u32 = 15_000;
        for (hosts, storage) in [(30, 16), (12, 12), (4, 3), (100, 16)] {
            let before = places(&Hosts::new(leads(hosts, storage, 16), 16), storage, 16, ACTORS);
            let after = places(&Hosts::new(leads(hosts + 1, storage, 16), 16), storage, 16, ACTORS);
            let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
            let share = f64::from(ACTORS) / (hosts + 1) as f64;
            println!("{hosts} hosts and one more: {moved} of {ACTORS} actors move, its share is {share:.0}");
            assert!(moved as f64 <= 2.0 * share);
            assert!(loads(&after, hosts + 1)[hosts as usize] > 0);
        }
    }

    #[test]
    fn small_clusters_run_turns_where_the_state_is() {
        for nodes in 1..=4 {
            let hosts = Hosts::new(leads(nodes, nodes, 16), 16);
            assert!(places(&hosts, nodes, 16, 5_000).iter().all(|(owner, host)| owner == host), "{nodes} nodes");
        }
    }

    #[test]
    fn an_owner_that_does_not_host_hands_everything_out() {
        let hosts = Hosts::new([(NodeId(1), 0), (NodeId(2), 0)], 16);
        let places: Vec<_> = actors(100).map(|actor| hosts.choose(NodeId(9), &actor)).collect();
        assert!(places.contains(&Some(NodeId(1))) && places.contains(&Some(NodeId(2))));
        assert_eq!(Hosts::new([], 16).choose(NodeId(9), &ActorKey::new("n", "t", "i")), None);
    }

    #[test]
    fn an_overloaded_owner_alone_keeps_all() {
        // More than there are: the table and the setting disagree.
        let hosts = Hosts::new([(NodeId(1), 64)], 16);
        assert!(actors(100).all(|actor| hosts.choose(NodeId(1), &actor) == Some(NodeId(1))));
    }

    #[test]
    fn full_others_share_equally() {
        // The owner is no host; all hosts lead more than their part of it all.
        let hosts = Hosts::new([(NodeId(1), 16), (NodeId(2), 16)], 16);
        let first = actors(1_000).filter(|actor| hosts.choose(NodeId(9), actor) == Some(NodeId(1))).count();
        assert!((400..600).contains(&first), "{first} of 1000");
    }

    #[test]
    fn a_new_host_counts_when_it_has_stayed_and_a_withdrawn_one_is_out_at_once() {
        let (a, b, c) = (NodeId(1), NodeId(2), NodeId(3));
        let at = |millis: u64| Instant(millis * SECOND / 1_000);
        let hosts = |arrivals: &Arrivals, millis| arrivals.hosts(at(millis)).collect::<Vec<_>>();
        let mut arrivals = Arrivals::default();
        arrivals.observe(at(1_000), [a, b]);
        assert_eq!(hosts(&arrivals, 1_000), [a, b], "those of the first look");
        arrivals.observe(at(5_000), [a, b, c]);
        assert_eq!((hosts(&arrivals, 6_999), hosts(&arrivals, 7_000)), (vec![a, b], vec![a, b, c]));
        assert_eq!((arrivals.next_change(at(5_000)), arrivals.next_change(at(7_000))), (Some(at(7_000)), None));
        assert_eq!(arrivals.rebalance_from(), at(17_000));
        arrivals.observe(at(8_000), [b, c]);
        assert_eq!((hosts(&arrivals, 8_000), arrivals.rebalance_from()), (vec![b, c], at(18_000)));
        arrivals.observe(at(9_000), [b, c]);
        assert_eq!(arrivals.rebalance_from(), at(18_000), "nothing changed");
        // It flaps: every arrival begins anew, and nothing that counted changes.
        arrivals.observe(at(10_000), [a, b, c]);
        arrivals.observe(at(11_000), [b, c]);
        arrivals.observe(at(11_500), [a, b, c]);
        assert_eq!((hosts(&arrivals, 13_499), hosts(&arrivals, 13_500)), (vec![b, c], vec![a, b, c]));
    }

    #[test]
    fn a_host_counts_at_once_where_nobody_else_does_and_goes_on_counting() {
        let (a, b) = (NodeId(1), NodeId(2));
        let mut arrivals = Arrivals::default();
        arrivals.observe(Instant(0), []);
        arrivals.observe(Instant(SECOND), [a]);
        arrivals.observe(Instant(2 * SECOND), [a, b]);
        assert_eq!(arrivals.hosts(Instant(3 * SECOND)).collect::<Vec<_>>(), [a]);
        arrivals.observe(Instant(3 * SECOND), [b]);
        assert_eq!(arrivals.hosts(Instant(3 * SECOND)).collect::<Vec<_>>(), [b], "before its two seconds are over");
    }

    proptest! {
        #[test]
        fn expected_loads_stay_below_a_quarter_above_the_share(
            leads in prop::collection::vec(0..9_u32, 1..40), homeless in 0..9_u32,
        ) {
            let partitions = leads.iter().sum::<u32>() + homeless;
            prop_assume!(partitions > 0);
            let hosts = Hosts::new((0..).map(NodeId).zip(leads.iter().copied()), partitions).hosts;
            let full = FILL * f64::from(partitions) / hosts.len() as f64;
            let kept: Vec<_> = hosts.iter().zip(&leads).map(|(host, leads)| host.keep * f64::from(*leads)).collect();
            let handed_out = f64::from(partitions) - kept.iter().sum::<f64>();
            let weights: f64 = hosts.iter().map(|host| host.weight).sum();
            prop_assert!(handed_out < 1e-9 || weights >= handed_out);
            for (host, kept) in hosts.iter().zip(kept) {
                prop_assert!((0.0..=1.0).contains(&host.keep));
                let load = kept + if handed_out < 1e-9 { 0.0 } else { handed_out * host.weight / weights };
                prop_assert!(load <= full + 1e-9, "{load} of {full}");
            }
        }
    }
}
