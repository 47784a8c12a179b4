//! One group's way, state by state. Nodes are letters; a voter in a row is upper case, a learner lower case.

use callboard_types::NodeId;

use super::*;
use crate::Instant;

fn node(letter: char) -> NodeId {
    NodeId(u64::from(letter.to_ascii_lowercase() as u32 - 'a' as u32) + 1)
}

fn nodes(letters: &str) -> Vec<NodeId> {
    letters.chars().map(node).collect()
}

/// The first one leads.
fn row(text: &str) -> Row {
    let role = |letter: char| if letter.is_ascii_uppercase() { ReplicaRole::Voter } else { ReplicaRole::Learner };
    let replicas = text.chars().map(|letter| Replica { node: node(letter), role: role(letter) }).collect();
    Row { replicas, leader: node(text.chars().next().expect("not empty")) }
}

/// Everybody has caught up, everybody holds what the membership says.
fn group(leader: char, voters: &str, learners: &str) -> Group {
    let members = format!("{voters}{learners}");
    Group {
        voters: nodes(voters),
        incoming: None,
        learners: nodes(learners),
        leader: Some(node(leader)),
        behind: nodes(&members).into_iter().map(|node| (node, 0)).collect(),
        holders: nodes(&members),
        uncommitted: false,
        begun: None,
    }
}

fn lagging(mut group: Group, letters: &str) -> Group {
    group.behind.extend(nodes(letters).into_iter().map(|node| (node, 257)));
    group
}

fn held_by(mut group: Group, letters: &str) -> Group {
    group.holders = nodes(letters);
    group
}

fn joint(leader: char, voters: &str, incoming: &str, learners: &str) -> Group {
    Group { incoming: Some(nodes(incoming)), ..group(leader, voters, learners) }
}

/// All of a to j are up but these.
fn without(silent: &str) -> Liveness {
    let mut liveness = Liveness::new(LivenessConfig::default());
    let silent = nodes(silent);
    liveness.observe(Instant(0), nodes("abcdefghij"), |node| !silent.contains(&node));
    liveness
}

fn next_with(wanted: &str, group: &Group, silent: &str) -> Next {
    step::next(&row(wanted), group, Sight { nodes: &without(silent), caught_up: 256, now: Instant(1) })
}

fn next(wanted: &str, group: &Group) -> Next {
    next_with(wanted, group, "")
}

fn voters(letters: &str) -> Next {
    Next::Step(Step::ChangeVoters(nodes(letters)))
}

fn add(letter: char) -> Next {
    Next::Step(Step::AddLearner(node(letter)))
}

fn transfer(letter: char) -> Next {
    Next::Step(Step::TransferLeader(node(letter)))
}

fn remove(letter: char) -> Next {
    Next::Step(Step::RemoveLearner(node(letter)))
}

fn drop_replica(letter: char) -> Next {
    Next::Step(Step::DropReplica(node(letter)))
}

#[test]
fn a_replica_moves_step_by_step() {
    assert_eq!(next("DBC", &group('a', "abc", "")), add('d'));
    assert_eq!(next("DBC", &lagging(group('a', "abc", "d"), "d")), Next::Waiting);
    assert_eq!(next("DBC", &group('a', "abc", "d")), transfer('b'), "before its vote goes");
    assert_eq!(next("DBC", &group('b', "abc", "d")), voters("bcd"));
    assert_eq!(next("DBC", &group('b', "bcd", "a")), remove('a'));
    assert_eq!(next("DBC", &held_by(group('b', "bcd", ""), "abcd")), drop_replica('a'));
    assert_eq!(next("DBC", &group('b', "bcd", "")), Next::Prefer(node('d')));
    assert_eq!(next("DBC", &group('d', "bcd", "")), Next::Settled);
}

#[test]
fn a_group_grows_from_one_voter_to_three_in_one_change() {
    assert_eq!(next("ABC", &group('a', "a", "b")), add('c'), "two voters would be one too few");
    assert_eq!(next("ABC", &lagging(group('a', "a", "bc"), "c")), Next::Waiting);
    assert_eq!(next("ABC", &group('a', "a", "bc")), voters("abc"));
    assert_eq!(next("ABCDE", &group('a', "abc", "de")), voters("abcde"));
    assert_eq!(next("ABCDE", &lagging(group('a', "abc", "de"), "e")), Next::Waiting);
}

#[test]
fn an_even_group_becomes_odd_and_nothing_else() {
    assert_eq!(next("ABC", &group('a', "ab", "c")), voters("abc"));
    assert_eq!(next("A", &group('a', "ab", "")), voters("a"));
    assert_eq!(next_with("CDE", &group('a', "ab", "c"), "de"), Next::Blocked);
}

#[test]
fn a_group_shrinks_by_two_and_keeps_its_learner() {
    assert_eq!(next("Ab", &group('c', "abc", "")), transfer('a'));
    assert_eq!(next("Ab", &group('a', "abc", "")), voters("a"));
    assert_eq!(next("Ab", &group('a', "a", "bc")), remove('c'));
    assert_eq!(next("Ab", &group('a', "a", "b")), Next::Settled);
    assert_eq!(next("A", &group('a', "abcde", "")), voters("a"));
}

#[test]
fn a_sole_voter_hands_its_vote_over() {
    assert_eq!(next("B", &group('a', "a", "")), add('b'));
    assert_eq!(next("B", &lagging(group('a', "a", "b"), "b")), Next::Waiting);
    assert_eq!(next("B", &group('a', "a", "b")), voters("b"));
    assert_eq!(next("B", &joint('a', "a", "b", "")), voters("b"));
    assert_eq!(next("B", &group('b', "b", "a")), remove('a'));
    assert_eq!(next_with("B", &group('a', "a", "b"), "b"), Next::Blocked);
    // Towards three voters its vote is not handed to one.
    assert_eq!(next_with("BCD", &group('a', "a", "b"), "cd"), Next::Blocked);
    assert_eq!(next("BCD", &group('a', "a", "bc")), voters("abc"));
}

#[test]
fn all_voters_are_replaced_without_taking_the_leaders_vote() {
    assert_eq!(next("DEF", &group('a', "abc", "def")), voters("ade"));
    assert_eq!(next("DEF", &group('a', "ade", "bcf")), transfer('d'));
    assert_eq!(next("DEF", &group('d', "ade", "bcf")), voters("def"));
}

#[test]
fn a_silent_voter_gives_its_vote_first() {
    assert_eq!(next_with("ADE", &group('a', "abc", "d"), "c"), voters("abd"));
    assert_eq!(next_with("ADE", &group('a', "abc", "d"), "b"), voters("acd"));
    assert_eq!(next_with("ABD", &group('a', "abc", ""), "c"), add('d'));
}

#[test]
fn the_leader_gives_its_vote_last() {
    assert_eq!(next_with("DBE", &group('a', "abc", "d"), "e"), voters("abd"));
    assert_eq!(next_with("DBE", &group('c', "abc", "d"), "e"), voters("bcd"));
}

#[test]
fn one_learner_is_filled_after_the_other() {
    assert_eq!(next("ADE", &lagging(group('a', "abc", "d"), "d")), Next::Waiting);
    assert_eq!(next("ADE", &group('a', "abc", "d")), voters("acd"), "and votes before the next one comes");
}

#[test]
fn votes_are_not_changed_without_a_living_majority() {
    // b and c are down: nothing can be committed.
    assert_eq!(next_with("ADE", &group('a', "abc", "de"), "bc"), Next::Blocked);
    // The change itself would leave one of three.
    assert_eq!(next_with("ABCDE", &group('a', "abc", "de"), "bde"), Next::Blocked);
    assert_eq!(next_with("ABC", &group('a', "abcde", ""), "bc"), Next::Blocked, "those who would stay are down");
    assert_eq!(next_with("A", &group('a', "abc", ""), "b"), voters("a"));
}

#[test]
fn only_who_has_caught_up_is_given_a_vote_or_the_lead() {
    let mut unknown = group('a', "abc", "d");
    unknown.behind.remove(&node('d'));
    assert_eq!(next("ABD", &unknown), Next::Waiting);
    assert_eq!(next("DBC", &lagging(group('a', "abc", "d"), "b")), transfer('c'));
    assert_eq!(next("DBC", &lagging(group('a', "abc", "d"), "bc")), Next::Blocked);
    assert_eq!(next("BAC", &lagging(group('a', "abc", ""), "b")), Next::Settled);
}

#[test]
fn a_joint_membership_is_finished_to_where_it_was_going() {
    assert_eq!(next("ABE", &joint('a', "abc", "abd", "")), voters("abd"));
    assert_eq!(next("ABE", &joint('c', "abc", "abd", "")), transfer('a'));
    assert_eq!(next_with("ABE", &joint('c', "abc", "abd", ""), "ab"), voters("abd"), "there is nobody to lead it");
}

#[test]
fn nothing_is_begun_while_a_change_is_under_way() {
    for base in [group('a', "abc", "d"), joint('a', "abc", "abd", ""), held_by(group('a', "abc", ""), "abcd")] {
        assert_eq!(next("ABD", &Group { uncommitted: true, ..base.clone() }), Next::Waiting);
        let begun = Some(Step::ChangeVoters(nodes("abd")));
        assert_eq!(next("ABD", &Group { begun, ..base }), Next::Waiting);
    }
}

#[test]
fn without_a_living_leader_nothing_is_done() {
    assert_eq!(next("ABD", &Group { leader: None, ..group('a', "abc", "") }), Next::Blocked);
    assert_eq!(next_with("ABD", &group('a', "abc", ""), "a"), Next::Blocked);
}

#[test]
fn what_a_changed_mind_left_behind_is_removed() {
    assert_eq!(next("ABC", &group('a', "abc", "d")), remove('d'));
    assert_eq!(next("ABC", &held_by(group('a', "abc", ""), "abcd")), drop_replica('d'));
    assert_eq!(next_with("ABC", &held_by(group('a', "abc", ""), "abcd"), "d"), drop_replica('d'), "silent or not");
}

#[test]
fn a_replica_that_is_named_by_a_membership_or_the_table_is_not_dropped() {
    assert_eq!(next("ABD", &held_by(group('a', "abc", ""), "abcd")), add('d'), "begun, and begun again");
    assert_eq!(next("ABD", &group('a', "abd", "c")), remove('c'));
}

#[test]
fn a_learner_on_a_silent_node_is_not_waited_for() {
    assert_eq!(next_with("ADE", &lagging(group('a', "abc", "d"), "d"), "d"), add('e'));
    assert_eq!(next_with("ABD", &lagging(group('a', "abc", "d"), "d"), "d"), Next::Blocked);
}

#[test]
fn a_node_that_has_just_come_back_is_not_preferred_yet() {
    let mut liveness = without("b");
    liveness.observe(Instant(1_000_000), nodes("abc"), |_| true);
    let at = |second: u64| {
        let sight = Sight { nodes: &liveness, caught_up: 0, now: Instant(second * 1_000_000) };
        step::next(&row("BAC"), &group('a', "abc", ""), sight)
    };
    assert_eq!(at(10), Next::Settled);
    assert_eq!(at(11), Next::Prefer(node('b')));
}
