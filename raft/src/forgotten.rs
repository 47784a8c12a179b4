//! A log whose end is gone although the state holds what stood there.
//!
//! A vote is on disk before anything is proposed under it, and an entry before it is applied. So a state that is ahead of
//! its log shows a disk that did not keep what it was given, or was never told to keep it; and a state of a term for which
//! the log has no vote shows that the vote went the same way. openraft would campaign at a term that is over, and what it
//! then appends counts as older than what is applied: it would lead, and wait for ever for its first entry to apply.
//!
//! A replica that decides alone goes on from its state: there is nobody to whom the forgotten vote could matter. One that
//! has others could vote twice in one term, so it is quarantined.

use callboard_types::GroupId;
use openraft::storage::{RaftLogReader, RaftLogStorage};

use crate::error::StartError;
use crate::group_state::GroupState;
use crate::log_store::LogStore;
use crate::type_config::{LogId, Vote, term_of};

/// Gives the log the vote that its state shows to have been given. Does nothing to a log that is whole.
pub async fn mend(log: &LogStore, state: &GroupState) -> Result<(), StartError> {
    let (group, applied) = (state.group, state.applied());
    let failed = |error: std::io::Error| StartError::Raft { group, why: error.to_string() };
    let mut log = log.clone();
    let last = log.get_log_state().await.map_err(failed)?.last_log_id;
    if last < applied.last {
        tracing::warn!(
            %group,
            log = shown(last),
            state = shown(applied.last),
            "the end of a log is lost: the disk did not keep what was written to it. The state goes on from what it \
             holds; acknowledged writes that it had not yet stored are gone"
        );
    }
    let term = last.max(applied.last).as_ref().map_or(0, term_of);
    let voted = log.read_vote().await.map_err(failed)?.map_or(0, |vote| vote.leader_id.term);
    if voted >= term {
        return Ok(());
    }
    let voters: Vec<u64> = applied.membership.membership().voter_ids().collect();
    if voters != [state.replica] {
        return Err(StartError::Quarantined(forgot(group, voted, term)));
    }
    log.save_vote(&Vote::new(term, state.replica)).await.map_err(failed)
}

fn shown(id: Option<LogId>) -> String {
    id.map_or_else(|| "nothing".to_owned(), |id| format!("entry {} of term {}", id.index, term_of(&id)))
}

fn forgot(group: GroupId, voted: u64, term: u64) -> String {
    format!(
        "the log of {group} knows of votes up to term {voted}, its state is of term {term}: the end of the log is lost, and \
         the replica could vote twice"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use callboard_storage::{LogWriter, Memory, WriterConfig};
    use callboard_types::PartitionId;

    use super::*;
    use crate::group_state::Applied;
    use crate::log_store::{LogMeter, LogShared};
    use crate::tail::TailBudget;
    use crate::type_config::{Member, Membership, StoredMembership, log_id};

    const OWN: u64 = 3;

    fn state(voters: &[u64]) -> GroupState {
        let nodes: BTreeMap<_, _> = voters.iter().map(|voter| (*voter, Member::default())).collect();
        let config: BTreeSet<_> = voters.iter().copied().collect();
        let membership = Membership::new(vec![config], nodes);
        let membership = StoredMembership::new(Some(log_id(1, 0)), membership.expect("every voter is known"));
        let applied = Applied { last: Some(log_id(2, 7)), membership };
        GroupState::new(GroupId::Partition(PartitionId(0)), OWN, 1, applied)
    }

    /// Opens an empty log, in which `vote` has been saved, beside a state at term 2.
    async fn log(vote: Option<Vote>, state: &Arc<GroupState>) -> LogStore {
        let db = Memory::new().open().log;
        let writer = LogWriter::start(db.clone(), WriterConfig::default()).unwrap();
        let (budget, meter) = (Arc::new(TailBudget::new(0)), Arc::new(LogMeter::new(1)));
        let mut log = LogStore::open(LogShared { db, writer, budget, meter }, state.clone()).unwrap();
        if let Some(vote) = vote {
            log.save_vote(&vote).await.unwrap();
        }
        log
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_vote_that_the_state_shows_to_have_been_given_is_remembered_by_who_decides_alone() {
        let state = Arc::new(state(&[OWN]));
        for (saved, expected) in [
            (None, Vote::new(2, OWN)),
            (Some(Vote::new_committed(1, OWN)), Vote::new(2, OWN)),
            (Some(Vote::new(2, OWN)), Vote::new(2, OWN)),
            (Some(Vote::new(5, OWN)), Vote::new(5, OWN)),
        ] {
            let mut log = log(saved, &state).await;
            mend(&log, &state).await.unwrap();
            assert_eq!(log.read_vote().await.unwrap(), Some(expected), "{saved:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_replica_with_others_that_forgot_a_vote_is_quarantined() {
        for voters in [&[OWN, 4, 5][..], &[4]] {
            let state = Arc::new(state(voters));
            let refused = mend(&log(Some(Vote::new(1, OWN)), &state).await, &state).await;
            assert!(matches!(refused, Err(StartError::Quarantined(_))), "{voters:?}: {refused:?}");
            mend(&log(Some(Vote::new(2, 4)), &state).await, &state).await.unwrap();
        }
    }
}
