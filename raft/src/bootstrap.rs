//! Forming a cluster of one, step by step, each of them repeatable.
//!
//! A step looks at what is already there and does what is missing: the replica of the meta group, its first membership,
//! the commands that make the cluster, its row of the table, and then for each partition its placement, its replica, its
//! first membership and the record of that. A crash between any two is continued by running all steps again.
//!
//! A partition's group is initialised by the node that the table gives it to, once: a replica that has a membership is
//! left alone.

use std::sync::Arc;

use callboard_machine::meta::{
    FIRST_META_REPLICA, MetaCommand, MetaResponse, MetaState, NodeRecord, Placement, Settings,
};
use callboard_types::{ClusterId, GroupId, PartitionId, ReplicaId, Timestamp};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::{ProposeError, StartError};
use crate::groups::Inner;
use crate::holding::hold_first;
use crate::replica::Replica;

/// Partitions that are being made at once.
const PARTITIONS_AT_ONCE: usize = 8;

/// Nothing is left for [`run`] to do. It stays so, whatever becomes of the cluster.
pub fn is_complete(state: &MetaState) -> bool {
    state.cluster.is_some()
        && state.meta.version > 0
        && state.partitions.values().all(|record| record.version > 0 && record.initialized)
}

pub async fn run(inner: &Inner, settings: Settings, node: NodeRecord, now: Timestamp) -> Result<(), StartError> {
    let _one = inner.forming.lock().await;
    let meta = hold_first(inner, GroupId::Meta, FIRST_META_REPLICA).await?;
    form(&meta).await?;
    make_cluster(inner, settings, now).await?;
    commit(inner, MetaCommand::PutNode { node: inner.node(), record: node }).await?;
    place_meta(inner).await?;
    place_all(inner).await?;
    let state = inner.meta_state();
    stream::iter(state.partitions.keys().copied())
        .map(|partition| open_partition(inner, partition))
        .buffer_unordered(PARTITIONS_AT_ONCE)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

/// Makes the replica a group of one that leads.
async fn form(replica: &Arc<Replica>) -> Result<(), StartError> {
    replica.initialize().await?;
    replica.lead_alone().await
}

async fn make_cluster(inner: &Inner, settings: Settings, now: Timestamp) -> Result<(), StartError> {
    if let Some(made) = &inner.meta_state().settings {
        if made.name != settings.name {
            return Err(StartError::Mismatch(format!("it is of cluster {}, not {}", made.name, settings.name)));
        }
        return Ok(());
    }
    let cluster = ClusterId(rand::random());
    commit(inner, MetaCommand::Bootstrap { cluster, settings, now }).await
}

async fn place_meta(inner: &Inner) -> Result<(), StartError> {
    let version = 1;
    if inner.meta_state().meta.version == 0 {
        let replicas = vec![Placement { node: inner.node(), replica: FIRST_META_REPLICA, learner: false }];
        commit(inner, MetaCommand::PlaceMeta { version, replicas }).await?;
    }
    commit(inner, MetaCommand::Settled { group: GroupId::Meta, version }).await
}

/// Places every partition that has no place here. One after the other, since each takes the next replica id.
async fn place_all(inner: &Inner) -> Result<(), StartError> {
    let unplaced: Vec<PartitionId> = {
        let state = inner.meta_state();
        state.partitions.iter().filter(|(_, record)| record.version == 0).map(|(partition, _)| *partition).collect()
    };
    for partition in unplaced {
        let replica = ReplicaId(inner.meta_state().next_replica);
        let replicas = vec![Placement { node: inner.node(), replica, learner: false }];
        commit(inner, MetaCommand::Place { partition, version: 1, replicas }).await?;
    }
    Ok(())
}

async fn open_partition(inner: &Inner, partition: PartitionId) -> Result<(), StartError> {
    let state = inner.meta_state();
    let Some(record) = state.partitions.get(&partition) else { return Ok(()) };
    let Some(placed) = record.on(inner.node()) else { return Ok(()) };
    let replica = hold_first(inner, GroupId::Partition(partition), placed.replica).await?;
    if !record.initialized {
        form(&replica).await?;
        commit(inner, MetaCommand::GroupInitialized { partition }).await?;
    }
    Ok(())
}

async fn commit(inner: &Inner, command: MetaCommand) -> Result<(), StartError> {
    let failed = |why: String| StartError::Raft { group: GroupId::Meta, why };
    match inner.propose_meta(command).await {
        Ok(MetaResponse::Done) => Ok(()),
        Ok(MetaResponse::Rejected(rejection)) => Err(failed(rejection.to_string())),
        Err(error @ (ProposeError::NotReady { .. } | ProposeError::Unknown | ProposeError::Stopped(_))) => {
            Err(failed(error.to_string()))
        }
    }
}
