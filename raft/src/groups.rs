//! All Raft groups of a node: opened from what the stores say, kept flushed, and ended in order.
//!
//! The node's own rows say which replicas it holds ([`ReplicaRecord`]); that, not the placement table, decides what is
//! opened, because a replica must answer for the votes it gave even where the table has moved on. Stores that do not
//! belong together are refused before anything can vote.
//!
//! Opening ends when every group that needs nobody else leads and has applied all of its log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use callboard_machine::meta::{MetaState, NodeRecord, Settings};
use callboard_storage::{Error, LogDb, LogWriter, Stores, WriterConfig, WriterStats};
use callboard_types::{GroupId, NodeId, PartitionId, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::bootstrap;
use crate::convert::ReplicaRecord;
use crate::error::StartError;
use crate::flusher::{FlushPolicy, Flusher};
use crate::group_state::{Applied, GroupState};
use crate::holding::{self, Holdings};
use crate::log_store::{LogMeter, LogShared};
use crate::meta_copy::MetaCopy;
use crate::meta_feed::Board;
use crate::network::{Transport, incoming};
use crate::partition::Partition;
use crate::replica::{NodeStores, Opening, Replica};
use crate::rules::{Live, MetaRules, Observer, PartitionRules, Rules};
use crate::tail::TailBudget;
use crate::type_config::{Member, Timing};

/// Bytes of synced log entries that a node keeps in memory, over all its groups.
const TAIL_BYTES: usize = 64 << 20;

/// Fixed at start.
#[derive(Debug, Clone)]
pub struct GroupsConfig {
    pub node: NodeId,
    /// Data partitions' heartbeat and election timeouts; the leader lease equals `election_max`.
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    /// The state store is flushed and logs are purged after this many bytes of log, or this long.
    pub flush_bytes: u64,
    pub flush_every: Duration,
    /// Proposals in flight per group; one more is answered `Busy`.
    pub max_proposals: usize,
}

/// What a test sets otherwise than a node does.
pub(crate) struct Tuning {
    pub flush: FlushPolicy,
    pub start_writer: fn(Arc<dyn LogDb>, WriterConfig) -> Result<LogWriter, Error>,
}

/// All groups of this node. Clones share them.
#[derive(Clone)]
pub struct Groups {
    pub(crate) inner: Arc<Inner>,
}

/// The partitions of a node.
pub type Held = Arc<BTreeMap<PartitionId, Partition>>;

pub(crate) struct Inner {
    config: GroupsConfig,
    pub(crate) stores: NodeStores,
    observer: Arc<dyn Observer>,
    transport: Arc<dyn Transport>,
    flusher: Arc<Flusher>,
    pub(crate) board: Arc<Board>,
    pub(crate) meta_copy: Mutex<MetaCopy>,
    /// Of every group, in no order.
    pub(crate) replicas: watch::Sender<Vec<Arc<Replica>>>,
    pub(crate) partitions: watch::Sender<Held>,
    pub(crate) holdings: tokio::sync::Mutex<Holdings>,
    /// Places for snapshots on their way in.
    snapshots: Arc<Semaphore>,
    pub(crate) changes: watch::Sender<u64>,
    /// The flusher, and one follower per group.
    tasks: Mutex<JoinSet<()>>,
    failure: watch::Sender<Option<String>>,
    /// One bootstrap at a time.
    pub(crate) forming: tokio::sync::Mutex<()>,
}

impl Groups {
    /// Opens the meta group and every partition replica this node holds. On an empty data directory there are none
    /// until [`Groups::bootstrap`].
    pub async fn open(
        config: GroupsConfig,
        stores: Stores,
        observer: Arc<dyn Observer>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StartError> {
        let tuning = Tuning { flush: FlushPolicy::new(config.flush_every), start_writer: LogWriter::start };
        Self::open_with(config, tuning, stores, observer, transport).await
    }

    pub(crate) async fn open_with(
        config: GroupsConfig,
        tuning: Tuning,
        stores: Stores,
        observer: Arc<dyn Observer>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, StartError> {
        if !stores.paired {
            return Err(StartError::Quarantined("log and state store are not of one making".to_owned()));
        }
        let holding::Prepared { holdings, incarnations, meta_copy, meta_state } = {
            let stores = stores.clone();
            let scan = tokio::task::spawn_blocking(move || holding::prepare(&stores));
            scan.await.map_err(|_| Error::Stopped)??
        };
        let records = holdings.held();
        let board = Arc::<Board>::default();
        board.load(meta_copy.index(), Arc::new(meta_state));
        let writer = (tuning.start_writer)(stores.log.clone(), WriterConfig::default())?;
        let meter = Arc::new(LogMeter::new(config.flush_bytes));
        let budget = Arc::new(TailBudget::new(TAIL_BYTES));
        let log = LogShared { db: stores.log, writer, budget, meter: meter.clone() };
        let stores = NodeStores { log, state: stores.state, incarnations };
        let replicas = watch::Sender::new(Vec::new());
        let flusher = Arc::new(Flusher {
            db: stores.state.clone(),
            meter,
            policy: tuning.flush,
            replicas: replicas.subscribe(),
            round: tokio::sync::Mutex::new(()),
        });
        let groups = Self {
            inner: Arc::new(Inner {
                config,
                stores,
                observer,
                transport,
                flusher: flusher.clone(),
                board,
                meta_copy: Mutex::new(meta_copy),
                replicas,
                partitions: watch::Sender::default(),
                holdings: tokio::sync::Mutex::new(holdings),
                snapshots: Arc::new(Semaphore::new(incoming::AT_ONCE)),
                changes: watch::Sender::new(0),
                tasks: Mutex::new(JoinSet::new()),
                failure: watch::Sender::new(None),
                forming: tokio::sync::Mutex::new(()),
            }),
        };
        let failure = groups.inner.failure.clone();
        groups.inner.tasks.lock().spawn(async move {
            let error = flusher.run().await;
            fail(&failure, format!("flush the state: {error}"));
        });
        if let Err(error) = groups.inner.open_replicas(records).await {
            groups.shutdown().await;
            return Err(error);
        }
        Ok(groups)
    }

    /// True when this node has no cluster yet, or one whose making here a crash has cut off: [`Groups::bootstrap`] or
    /// [`Groups::adopt`] is to be called.
    pub fn is_empty(&self) -> bool {
        let state = self.inner.board.state();
        let forms = self.inner.replica(GroupId::Meta).is_some();
        state.cluster.is_none() || (forms && !bootstrap::is_complete(&state))
    }

    /// Makes the cluster of one: initialises the meta group with this node as sole voter, commits `Bootstrap`,
    /// `PutNode`, and a table that places every group here; then opens the partitions. Resumable: a crash in
    /// between is continued by the next start.
    pub async fn bootstrap(&self, settings: Settings, node: NodeRecord, now: Timestamp) -> Result<(), StartError> {
        bootstrap::run(&self.inner, settings, node, now).await
    }

    /// The replica of `partition` on this node.
    pub fn partition(&self, partition: PartitionId) -> Option<Partition> {
        self.inner.partitions.borrow().get(&partition).cloned()
    }

    pub fn partitions(&self) -> Vec<Partition> {
        self.inner.partitions.borrow().values().cloned().collect()
    }

    /// The partitions of this node, as they come and go.
    pub fn held(&self) -> watch::Receiver<Held> {
        self.inner.partitions.subscribe()
    }

    /// Counters of the group-commit writer.
    pub fn writer_stats(&self) -> WriterStats {
        self.inner.stores.log.writer.stats()
    }

    /// Resolves with the reason when a group or the flusher has ended by itself: the disk failed or an invariant is
    /// broken, and the node ends.
    pub async fn failed(&self) -> String {
        let mut failure = self.inner.failure.subscribe();
        loop {
            if let Some(why) = &*failure.borrow_and_update() {
                return why.clone();
            }
            if failure.changed().await.is_err() {
                return "the groups are gone".to_owned();
            }
        }
    }

    /// Flushes the state of all groups and purges their logs behind it, without waiting for the time to come.
    pub async fn flush(&self) -> Result<(), Error> {
        self.inner.flusher.round().await
    }

    /// Ends every group, then flushes the state store.
    pub async fn shutdown(self) {
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock());
        tasks.shutdown().await;
        let replicas = self.inner.replicas.send_replace(Vec::new());
        futures_util::future::join_all(replicas.iter().map(|replica| replica.shutdown())).await;
        let (db, writer) = (self.inner.stores.state.clone(), self.inner.stores.log.writer.clone());
        let ended = tokio::task::spawn_blocking(move || {
            writer.shutdown();
            db.flush()
        });
        match ended.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the state is not flushed: the next start replays the log"),
            Err(error) => tracing::error!(%error, "the stores did not end well"),
        }
    }
}

impl Inner {
    pub(crate) fn node(&self) -> NodeId {
        self.config.node
    }

    pub(crate) fn meta_state(&self) -> Arc<MetaState> {
        self.board.state()
    }

    /// The replica of `group` on this node.
    pub(crate) fn replica(&self, group: GroupId) -> Option<Arc<Replica>> {
        self.replicas.borrow().iter().find(|replica| replica.group == group).cloned()
    }

    /// Opens what the node holds. Every group that needs nobody else gets its leader.
    async fn open_replicas(&self, records: BTreeMap<GroupId, ReplicaRecord>) -> Result<(), StartError> {
        for (group, record) in records {
            self.open_replica(group, record).await?;
        }
        let replicas = self.replicas.borrow().clone();
        futures_util::future::try_join_all(replicas.iter().map(|replica| replica.lead_alone())).await?;
        Ok(())
    }

    pub(crate) async fn open_replica(&self, group: GroupId, record: ReplicaRecord) -> Result<Arc<Replica>, StartError> {
        let applied = Applied::read(&*self.stores.state, record.incarnation)?;
        let state = GroupState::new(group, record.replica, record.incarnation, applied);
        let member = Member { node: self.config.node, address: String::new() };
        let live = Live::new();
        let (rules, timing) = match group {
            GroupId::Meta => (Rules::Meta(MetaRules::new(self.board.clone())), Timing::META),
            GroupId::Partition(partition) => {
                let rules = PartitionRules::new(partition, live.clone(), self.observer.clone());
                (Rules::Partition(rules), self.timing())
            }
        };
        let opening = Opening {
            stores: &self.stores,
            transport: self.transport.clone(),
            snapshots: self.snapshots.clone(),
            member,
            timing,
            max_proposals: self.config.max_proposals,
        };
        let replica = Arc::new(Replica::open(opening, state, rules).await?);
        self.replicas.send_modify(|replicas| replicas.push(replica.clone()));
        if let GroupId::Partition(partition) = group {
            let db = self.stores.state.clone();
            let handle = Partition::new(partition, self.config.node, replica.clone(), live, db);
            self.partitions.send_modify(|held| drop(Arc::make_mut(held).insert(partition, handle)));
        }
        let (followed, failure, changes) = (replica.clone(), self.failure.clone(), self.changes.clone());
        let mut tasks = self.tasks.lock();
        // Those of replicas that have left.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let why = followed.clone().follow(changes).await;
            if !followed.is_leaving() {
                fail(&failure, format!("group {} has ended: {why}", followed.group));
            }
        });
        Ok(replica)
    }

    /// Nothing finds the replica any more.
    pub(crate) fn forget_replica(&self, replica: &Arc<Replica>) {
        if let GroupId::Partition(partition) = replica.group {
            self.partitions.send_modify(|held| drop(Arc::make_mut(held).remove(&partition)));
        }
        self.replicas.send_modify(|replicas| replicas.retain(|other| !Arc::ptr_eq(other, replica)));
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn timing(&self) -> Timing {
        let GroupsConfig { heartbeat, election_min, election_max, .. } = self.config;
        Timing { heartbeat, election_min, election_max }
    }
}

/// The first reason is the one that counts.
fn fail(failure: &watch::Sender<Option<String>>, why: String) {
    failure.send_if_modified(|first| {
        let is_first = first.is_none();
        if is_first {
            tracing::error!(%why, "the groups of this node cannot go on");
            *first = Some(why);
        }
        is_first
    });
}
