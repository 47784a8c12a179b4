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

use callboard_machine::meta::{MetaCommand, MetaResponse, MetaState, NodeRecord, Settings};
use callboard_storage::{Error, LogDb, LogWriter, StateView, Stores, Table, WriterConfig, WriterStats, keyspace};
use callboard_types::{GroupId, NodeId, PartitionId, Timestamp};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::bootstrap;
use crate::convert::{ReplicaRecord, Storable};
use crate::error::{ProposeError, StartError};
use crate::flusher::{FlushPolicy, Flusher};
use crate::group_state::{Applied, GroupState};
use crate::incarnations::Incarnations;
use crate::log_store::{LogMeter, LogShared};
use crate::partition::Partition;
use crate::replica::{NodeStores, Replica};
use crate::rules::{Live, MetaRules, Observer, PartitionRules, Rules};
use crate::snapshot;
use crate::tail::TailBudget;
use crate::type_config::{Answer, Member, Proposal, Timing};

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
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    config: GroupsConfig,
    stores: NodeStores,
    observer: Arc<dyn Observer>,
    flusher: Arc<Flusher>,
    replicas: watch::Sender<Vec<Arc<Replica>>>,
    meta: Mutex<Option<Arc<Replica>>>,
    meta_state: watch::Sender<Arc<MetaState>>,
    partitions: Mutex<BTreeMap<PartitionId, Partition>>,
    /// The flusher, and one follower per group.
    tasks: Mutex<JoinSet<()>>,
    failure: watch::Sender<Option<String>>,
    /// One bootstrap at a time.
    pub(crate) forming: tokio::sync::Mutex<()>,
}

impl Groups {
    /// Opens the meta group and every partition replica this node holds. On an empty data directory there are none
    /// until [`Groups::bootstrap`].
    pub async fn open(config: GroupsConfig, stores: Stores, observer: Arc<dyn Observer>) -> Result<Self, StartError> {
        let tuning = Tuning { flush: FlushPolicy::new(config.flush_every), start_writer: LogWriter::start };
        Self::open_with(config, tuning, stores, observer).await
    }

    pub(crate) async fn open_with(
        config: GroupsConfig,
        tuning: Tuning,
        stores: Stores,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        if !stores.paired {
            return Err(StartError::Quarantined("log and state store are not of one making".to_owned()));
        }
        let (records, incarnations) = {
            let stores = stores.clone();
            let scan = tokio::task::spawn_blocking(move || prepare(&stores));
            scan.await.map_err(|_| Error::Stopped)??
        };
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
                flusher: flusher.clone(),
                replicas,
                meta: Mutex::new(None),
                meta_state: watch::Sender::new(Arc::default()),
                partitions: Mutex::new(BTreeMap::new()),
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

    /// True when this node has no cluster yet, or one that a crash left half made: [`Groups::bootstrap`] is to be called.
    pub fn is_empty(&self) -> bool {
        !bootstrap::is_complete(&self.inner.meta_state.borrow(), self.inner.config.node)
    }

    /// Makes the cluster of one: initialises the meta group with this node as sole voter, commits `Bootstrap`,
    /// `PutNode`, and a table that places every partition here; then opens the partitions. Resumable: a crash in
    /// between is continued by the next start.
    pub async fn bootstrap(&self, settings: Settings, node: NodeRecord, now: Timestamp) -> Result<(), StartError> {
        bootstrap::run(&self.inner, settings, node, now).await
    }

    pub fn meta(&self) -> MetaHandle {
        MetaHandle { inner: self.inner.clone() }
    }

    /// The replica of `partition` on this node.
    pub fn partition(&self, partition: PartitionId) -> Option<Partition> {
        self.inner.partitions.lock().get(&partition).cloned()
    }

    pub fn partitions(&self) -> Vec<Partition> {
        self.inner.partitions.lock().values().cloned().collect()
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

/// The meta group, as every node reads it.
#[derive(Clone)]
pub struct MetaHandle {
    inner: Arc<Inner>,
}

impl MetaHandle {
    /// The last received state; changes wake the receiver.
    pub fn watch(&self) -> watch::Receiver<Arc<MetaState>> {
        self.inner.meta_state.subscribe()
    }

    pub async fn propose(&self, command: MetaCommand) -> Result<MetaResponse, ProposeError> {
        self.inner.propose_meta(command).await
    }
}

impl Inner {
    pub(crate) fn node(&self) -> NodeId {
        self.config.node
    }

    pub(crate) fn meta_state(&self) -> Arc<MetaState> {
        self.meta_state.borrow().clone()
    }

    pub(crate) fn meta_replica(&self) -> Option<Arc<Replica>> {
        self.meta.lock().clone()
    }

    pub(crate) fn partition(&self, partition: PartitionId) -> Option<Partition> {
        self.partitions.lock().get(&partition).cloned()
    }

    pub(crate) async fn propose_meta(&self, command: MetaCommand) -> Result<MetaResponse, ProposeError> {
        let replica = self.meta_replica().ok_or(ProposeError::NotReady(GroupId::Meta))?;
        match replica.propose(Proposal::Meta(Arc::new(command))).await?.answer {
            Answer::Meta(response) => Ok(response),
            answer @ (Answer::Blank | Answer::Partition(_)) => {
                Err(ProposeError::Stopped(format!("the meta group answered {answer:?}")))
            }
        }
    }

    /// Gives this node a replica, under an id that has never been used, and opens it. It is on disk that the node holds
    /// it before it can vote.
    pub(crate) async fn create_replica(&self, group: GroupId, replica: u64) -> Result<Arc<Replica>, StartError> {
        let (db, incarnations) = (self.stores.state.clone(), self.stores.incarnations.clone());
        let create = tokio::task::spawn_blocking(move || {
            let record = ReplicaRecord { replica, incarnation: incarnations.allocate()? };
            let mut batch = callboard_storage::StateBatch::default();
            batch.put(Table::System, keyspace::pointer(group), record.encode());
            db.write(batch)?;
            db.flush()?;
            Ok::<_, Error>(record)
        });
        let record = create.await.map_err(|_| Error::Stopped)??;
        self.open_replica(group, record).await
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

    async fn open_replica(&self, group: GroupId, record: ReplicaRecord) -> Result<Arc<Replica>, StartError> {
        let applied = Applied::read(&*self.stores.state, record.incarnation)?;
        let state = GroupState::new(group, record.replica, record.incarnation, applied);
        let member = Member { node: self.config.node, address: String::new() };
        let live = Live::new();
        let (rules, timing) = match group {
            GroupId::Meta => (Rules::Meta(MetaRules::new(self.meta_state.clone())), Timing::META),
            GroupId::Partition(partition) => {
                let rules = PartitionRules::new(partition, live.clone(), self.observer.clone());
                (Rules::Partition(rules), self.timing())
            }
        };
        let replica = Replica::open(&self.stores, state, rules, member, timing, self.config.max_proposals).await?;
        let replica = Arc::new(replica);
        match group {
            GroupId::Meta => *self.meta.lock() = Some(replica.clone()),
            GroupId::Partition(partition) => {
                let db = self.stores.state.clone();
                let handle = Partition::new(partition, self.config.node, replica.clone(), live, db);
                self.partitions.lock().insert(partition, handle);
            }
        }
        self.replicas.send_modify(|replicas| replicas.push(replica.clone()));
        let (followed, failure) = (replica.clone(), self.failure.clone());
        self.tasks.lock().spawn(async move {
            let group = followed.group;
            let why = followed.follow().await;
            fail(&failure, format!("group {group} has ended: {why}"));
        });
        Ok(replica)
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

type Prepared = (BTreeMap<GroupId, ReplicaRecord>, Arc<Incarnations>);

/// Reads which replicas the node holds and drops rows that none of them refers to. Blocks.
fn prepare(stores: &Stores) -> Result<Prepared, StartError> {
    // What the store has after this is what it has after a crash.
    stores.state.flush()?;
    let records = replica_records(&*stores.state)?;
    if let Some(group) = stores.log.groups()?.into_iter().find(|group| !records.contains_key(group)) {
        return Err(StartError::Quarantined(format!("there is a log of {group}, and no replica of it")));
    }
    for incarnation in keyspace::incarnations(&*stores.state)? {
        if records.values().all(|record| record.incarnation != incarnation) {
            tracing::info!(incarnation, "dropping the rows of no replica");
            snapshot::clear(&*stores.state, incarnation)?;
        }
    }
    let incarnations = Arc::new(Incarnations::open(stores.state.clone())?);
    Ok((records, incarnations))
}

fn replica_records(view: &(impl StateView + ?Sized)) -> Result<BTreeMap<GroupId, ReplicaRecord>, Error> {
    let rows = view.scan(Table::System, keyspace::pointers_range(), usize::MAX)?;
    rows.iter().map(|(key, row)| Ok((keyspace::parse_pointer(key)?, ReplicaRecord::decode(row)?))).collect()
}
