//! Which instance of an app answers a service call.
//!
//! Without a wish of the caller: the instance beside this node, since it costs no hop; else the less loaded of two drawn
//! at random. Two draws, not the least loaded of all: every entrance sees loads that are a moment old, and if all of them
//! sent to the same least loaded one it would not be that for long. With a hash key: the first healthy instance from the
//! key's place on the ring of *all* instances, so that one that is unhealthy for a moment changes its own keys' place and
//! no other's.
//!
//! An instance that is not healthy gets nothing. When none is, the caller is told; a guess would only add a time-out.

use callboard_types::NodeId;
use xxhash_rust::xxh3::xxh3_64;

use crate::ring::{Ring, RingId};

/// One running copy of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub u64);

impl InstanceId {
    /// Of an instance that no node stands beside, by its name in the registry.
    pub fn named(name: &str) -> Self {
        Self(xxh3_64(name.as_bytes()))
    }
}

impl From<NodeId> for InstanceId {
    /// The app that this node is the sidecar of.
    fn from(node: NodeId) -> Self {
        Self(node.0)
    }
}

impl RingId for InstanceId {
    fn to_u64(self) -> u64 {
        self.0
    }
}

/// An instance as an entrance sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance {
    pub id: InstanceId,
    /// Beside this node.
    pub local: bool,
    pub healthy: bool,
    /// Calls that this node has under way there, or any other measure that is the same for all.
    pub load: u32,
}

/// The instance for a call without a hash key, given two random numbers. `None`: none is healthy.
pub fn pick(instances: &[Instance], random: [u64; 2]) -> Option<InstanceId> {
    let healthy: Vec<_> = instances.iter().filter(|instance| instance.healthy).collect();
    if let Some(local) = healthy.iter().find(|instance| instance.local) {
        return Some(local.id);
    }
    let [first, second] = match healthy.len() as u64 {
        0 => return None,
        1 => [0, 0],
        count => {
            // The second is one of the others.
            let (first, other) = (random[0] % count, random[1] % (count - 1));
            [first, other + u64::from(other >= first)]
        }
    };
    let (first, second) = (healthy[first as usize], healthy[second as usize]);
    Some(if second.load < first.load { second.id } else { first.id })
}

/// The instance for a call with a hash key. `None`: none is healthy.
pub fn keyed(ring: &Ring<InstanceId>, key: &[u8], is_healthy: impl Fn(InstanceId) -> bool) -> Option<InstanceId> {
    ring.walk(key).find(|instance| is_healthy(*instance))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn remote(id: u64, load: u32) -> Instance {
        Instance { id: InstanceId(id), local: false, healthy: true, load }
    }

    #[test]
    fn the_local_instance_comes_first_while_it_is_healthy() {
        let local = Instance { local: true, ..remote(2, 99) };
        assert_eq!(pick(&[remote(1, 0), local], [0, 0]), Some(InstanceId(2)));
        let sick = Instance { healthy: false, ..local };
        assert_eq!(pick(&[remote(1, 0), sick], [7, 7]), Some(InstanceId(1)));
        assert_eq!(pick(&[sick], [0, 0]), None);
        assert_eq!(pick(&[], [0, 0]), None);
    }

    #[test]
    fn of_two_different_ones_the_less_loaded_is_taken() {
        let three = [remote(1, 5), remote(2, 3), remote(3, 9)];
        assert_eq!(pick(&three, [0, 0]), Some(InstanceId(2)), "drawn 1 and 2");
        assert_eq!(pick(&three, [0, 1]), Some(InstanceId(1)), "drawn 1 and 3");
        assert_eq!(pick(&three, [2, 1]), Some(InstanceId(2)), "drawn 3 and 2");
        assert_eq!(pick(&three, [5, 0]), Some(InstanceId(1)), "drawn 3 and 1");
        let even = [remote(1, 4), remote(2, 4)];
        assert_eq!([pick(&even, [0, 0]), pick(&even, [1, 0])], [Some(InstanceId(1)), Some(InstanceId(2))]);
    }

    #[test]
    fn a_key_goes_to_one_instance_until_that_is_unhealthy_and_then_comes_back() {
        let ring = Ring::new((1..=5).map(|id| (InstanceId(id), 1)));
        let keys: Vec<_> = (0..200).map(|number| format!("session-{number}")).collect();
        let all: Vec<_> = keys.iter().map(|key| keyed(&ring, key.as_bytes(), |_| true)).collect();
        let without: Vec<_> = keys.iter().map(|key| keyed(&ring, key.as_bytes(), |id| id != InstanceId(3))).collect();
        for (all, without) in all.iter().zip(without) {
            assert!(without == *all || (*all == Some(InstanceId(3)) && without.is_some()));
        }
        assert!((1..=5).all(|id| all.contains(&Some(InstanceId(id)))));
        assert_eq!(keyed(&ring, b"k", |_| false), None);
    }

    #[test]
    fn names_and_nodes_are_instances() {
        assert_eq!(InstanceId::from(NodeId(7)), InstanceId(7));
        assert_ne!(InstanceId::named("rest:a:80"), InstanceId::named("rest:a:81"));
    }

    proptest! {
        #[test]
        fn only_healthy_instances_are_drawn_and_never_the_most_loaded_of_three(
            loads in prop::collection::vec((0..100_u32, any::<bool>()), 0..12), random in any::<[u64; 2]>(),
        ) {
            let instances: Vec<_> = (0..).zip(&loads)
                .map(|(id, (load, healthy))| Instance { healthy: *healthy, ..remote(id, *load) })
                .collect();
            let healthy: Vec<_> = instances.iter().filter(|one| one.healthy).collect();
            match pick(&instances, random) {
                None => prop_assert!(healthy.is_empty()),
                Some(id) => {
                    let chosen = instances[id.0 as usize];
                    prop_assert!(chosen.healthy);
                    let worse = healthy.iter().filter(|one| one.id != id && one.load >= chosen.load).count();
                    prop_assert!(healthy.len() < 2 || worse >= 1, "it beat the other draw");
                }
            }
        }
    }
}
