//! Who votes in the meta group.
//!
//! The meta group is one more group, and moves like one ([`step::next`](crate::placement::step::next)); only its row is
//! not in the table. [`target`] makes that row from the registered storage nodes: one voter on one or two, three from
//! three on, five from five on, and one learner more where there is a node to spare, so that a voter that is lost is
//! replaced without a copy first. Every other node follows the committed log as a reader, and is no member at all.
//!
//! What keeps this from doing harm by itself, at night, with half of the machines dark:
//!
//! - Nodes are counted as registered, never as alive. Voters become fewer only when somebody takes a node out.
//! - A voter is replaced when it has been silent for the whole of [`LIVENESS`]'s wait, and then by a node that answers.
//!   That wait is shorter than that of partitions: the meta group is small, and all placement waits for it.
//! - Nothing changes without a living majority, before and after; the steps see to that.
//! - Who votes keeps its vote, unless it is lost or leaves, or votes of one zone can be spread over more.

use std::time::Duration;

use callboard_types::NodeId;

use crate::placement::{Group, LivenessConfig, Member, Replica, ReplicaRole, Row, Standing};

/// How long the meta group waits for a silent voter.
pub const LIVENESS: LivenessConfig =
    LivenessConfig { lost_after: Duration::from_secs(60), settle: Duration::from_secs(10) };

/// Voters of the meta group on this many registered storage nodes.
pub const fn size(registered: usize) -> usize {
    match registered {
        0..=2 => 1,
        3..=4 => 3,
        _ => 5,
    }
}

/// What the meta group should become. `None`: no storage node is registered.
pub fn target(members: &[Member], group: &Group) -> Option<Row> {
    let mut registered: Vec<_> = members.iter().filter(|member| member.standing != Standing::Out).collect();
    registered.sort_unstable_by_key(|member| member.node);
    registered.dedup_by_key(|member| member.node);
    let mut chosen: Vec<&Member> = Vec::new();
    let size = size(registered.len());
    while chosen.len() < size {
        let next = registered.iter().copied().filter(|member| !chosen.contains(member));
        let next = next.min_by_key(|member| fitness(member, &chosen, group))?;
        chosen.push(next);
    }
    let spare = registered.into_iter().filter(|member| !chosen.contains(member) && could_learn(member, group));
    let learner = spare.min_by_key(|member| fitness(member, &chosen, group));
    let voter = |member: &Member| Replica { node: member.node, role: ReplicaRole::Voter };
    let learner = learner.map(|member| Replica { node: member.node, role: ReplicaRole::Learner });
    // Any voter may lead; who does goes on.
    let leader = chosen.iter().map(|member| member.node).find(|node| group.leader == Some(*node));
    let leader = leader.or_else(|| chosen.first().map(|member| member.node))?;
    Some(Row { replicas: chosen.into_iter().map(voter).chain(learner).collect(), leader })
}

/// Smaller is better.
fn fitness(member: &Member, chosen: &[&Member], group: &Group) -> (u8, usize, u8, NodeId) {
    let votes = group.voters.contains(&member.node);
    let answers = match member.standing {
        Standing::Live => 0,
        Standing::Down if votes => 0,
        Standing::Down => 1,
        Standing::Lost => 2,
        Standing::Out => 3,
    };
    let of_zone = chosen.iter().filter(|other| other.zone == member.zone).count();
    let place = if group.leader == Some(member.node) {
        0
    } else if votes {
        1
    } else {
        2 + u8::from(!group.learners.contains(&member.node))
    };
    (answers, of_zone, place, member.node)
}

fn could_learn(member: &Member, group: &Group) -> bool {
    let present = group.learners.contains(&member.node);
    match member.standing {
        Standing::Live => true,
        Standing::Down => present,
        Standing::Lost | Standing::Out => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::Instant;
    use crate::placement::{Liveness, Next, Sight, Step, step};

    fn member(node: u64, zone: &str, standing: Standing) -> Member {
        Member { node: NodeId(node), zone: zone.into(), weight: 1, standing }
    }

    fn live(count: u64) -> Vec<Member> {
        (1..=count).map(|node| member(node, "", Standing::Live)).collect()
    }

    fn group(voters: &[u64], learners: &[u64]) -> Group {
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
        let behind = voters.iter().chain(learners).map(|node| (NodeId(*node), 0)).collect::<BTreeMap<_, _>>();
        Group {
            voters: nodes(voters),
            learners: nodes(learners),
            leader: voters.first().copied().map(NodeId),
            holders: behind.keys().copied().collect(),
            behind,
            ..Group::default()
        }
    }

    fn chosen(members: &[Member], group: &Group) -> (Vec<u64>, Vec<u64>) {
        let row = target(members, group).expect("there are storage nodes");
        let mut voters: Vec<_> = row.voters().map(|node| node.0).collect();
        voters.sort_unstable();
        (voters, row.learners().map(|node| node.0).collect())
    }

    #[test]
    fn the_size_follows_the_registered_nodes() {
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 100].map(size), [1, 1, 1, 3, 3, 5, 5, 5]);
        assert_eq!(target(&[member(1, "", Standing::Out)], &Group::default()), None);
        assert_eq!(chosen(&live(2), &group(&[2], &[])), (vec![2], vec![1]));
        assert_eq!(chosen(&live(3), &group(&[2], &[1])), (vec![1, 2, 3], vec![]));
        assert_eq!(chosen(&live(4), &group(&[2, 3, 4], &[])), (vec![2, 3, 4], vec![1]));
        assert_eq!(chosen(&live(7), &group(&[1, 2, 7], &[])), (vec![1, 2, 3, 4, 7], vec![5]));
    }

    #[test]
    fn silence_makes_the_group_no_smaller() {
        let mut members = live(3);
        for standing in [Standing::Down, Standing::Lost] {
            members[1].standing = standing;
            members[2].standing = standing;
            assert_eq!(chosen(&members, &group(&[1, 2, 3], &[])), (vec![1, 2, 3], vec![]));
        }
        members[2].standing = Standing::Out;
        assert_eq!(chosen(&members, &group(&[1, 2, 3], &[])), (vec![1], vec![]));
    }

    #[test]
    fn a_voter_is_replaced_when_it_is_lost_and_not_when_it_is_down() {
        let mut members = live(4);
        members[1].standing = Standing::Down;
        assert_eq!(chosen(&members, &group(&[1, 2, 3], &[4])), (vec![1, 2, 3], vec![4]));
        members[1].standing = Standing::Lost;
        assert_eq!(chosen(&members, &group(&[1, 2, 3], &[4])), (vec![1, 3, 4], vec![]));
        // It returns: the others keep their votes, and it is the one to spare.
        members[1].standing = Standing::Live;
        assert_eq!(chosen(&members, &group(&[1, 3, 4], &[])), (vec![1, 3, 4], vec![2]));
    }

    #[test]
    fn a_node_that_leaves_gives_its_vote_and_the_leader_keeps_leading() {
        let mut members = live(4);
        members[0].standing = Standing::Out;
        assert_eq!(chosen(&members, &group(&[1, 2, 3], &[4])), (vec![2, 3, 4], vec![]));
        assert_eq!(target(&live(4), &group(&[3, 1, 2], &[])).map(|row| row.leader), Some(NodeId(3)));
        assert_eq!(target(&members[..2], &group(&[1], &[2])).map(|row| row.leader), Some(NodeId(2)));
    }

    #[test]
    fn votes_spread_over_zones() {
        let members: Vec<_> = [(1, "a"), (2, "a"), (3, "a"), (4, "b"), (5, "a"), (6, "c")]
            .map(|(node, zone)| member(node, zone, Standing::Live))
            .into();
        assert_eq!(chosen(&members[..4], &group(&[1, 2, 3], &[])), (vec![1, 2, 4], vec![3]));
        assert_eq!(chosen(&members, &group(&[1, 2, 3], &[])), (vec![1, 2, 3, 4, 6], vec![5]));
    }

    #[test]
    fn nothing_changes_without_a_living_majority() {
        let group = Group { leader: Some(NodeId(4)), ..group(&[1, 2, 3, 4, 5], &[6]) };
        let next_with_lost = |lost: u64| {
            let mut members = live(6);
            members.iter_mut().take(lost as usize).for_each(|member| member.standing = Standing::Lost);
            let row = target(&members, &group).expect("nodes");
            let mut nodes = Liveness::new(LIVENESS);
            nodes.observe(Instant(0), (1..=6).map(NodeId), |node| node.0 > lost);
            step::next(&row, &group, Sight { nodes: &nodes, caught_up: 0, now: Instant(0) })
        };
        assert_eq!(next_with_lost(3), Next::Blocked);
        let voters = [2, 3, 4, 5, 6].map(NodeId).to_vec();
        assert_eq!(next_with_lost(1), Next::Step(Step::ChangeVoters(voters)));
        // Six nodes, two of them lost: one vote stays with a lost node, since the others have theirs.
        let voters = [1, 3, 4, 5, 6].map(NodeId).to_vec();
        assert_eq!(next_with_lost(2), Next::Step(Step::ChangeVoters(voters)));
    }

    fn standing() -> impl Strategy<Value = Standing> {
        prop_oneof![
            5 => Just(Standing::Live), 1 => Just(Standing::Down), 1 => Just(Standing::Lost), 1 => Just(Standing::Out)
        ]
    }

    proptest! {
        #[test]
        fn a_target_is_odd_registered_and_its_own_answer(
            standings in prop::collection::vec((standing(), 0..3_u8), 1..9),
            voters in prop::collection::btree_set(1..9_u64, 1..6),
            learners in prop::collection::btree_set(1..9_u64, 0..3),
        ) {
            let members: Vec<_> = (1..).zip(&standings)
                .map(|(node, (standing, zone))| member(node, &format!("z{zone}"), *standing))
                .collect();
            let learners: Vec<_> = learners.difference(&voters).copied().collect();
            let voters: Vec<_> = voters.into_iter().collect();
            let registered = members.iter().filter(|member| member.standing != Standing::Out).count();
            let Some(row) = target(&members, &group(&voters, &learners)) else {
                prop_assert_eq!(registered, 0);
                return Ok(());
            };
            let nodes: BTreeSet<_> = row.replicas.iter().map(|replica| replica.node).collect();
            prop_assert_eq!(nodes.len(), row.replicas.len());
            prop_assert_eq!(row.voters().count(), size(registered));
            prop_assert!(row.learners().count() <= 1);
            prop_assert!(nodes.iter().all(|node| members[node.0 as usize - 1].standing != Standing::Out));
            let ids = |nodes: Vec<NodeId>| nodes.into_iter().map(|node| node.0).collect::<Vec<_>>();
            let reached = Group {
                leader: Some(row.leader),
                ..group(&ids(row.voters().collect()), &ids(row.learners().collect()))
            };
            let again = target(&members, &reached).expect("nodes");
            prop_assert_eq!(again.voters().collect::<BTreeSet<_>>(), row.voters().collect::<BTreeSet<_>>());
            prop_assert_eq!(again.learners().collect::<Vec<_>>(), row.learners().collect::<Vec<_>>());
            prop_assert_eq!(again.leader, row.leader);
        }
    }
}
