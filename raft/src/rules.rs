//! What entries mean: a partition's commands, or the meta group's.
//!
//! [`Rules`] is what the state store calls for the content of an entry. It holds the decoded facts of its group, writes
//! rows through the batch's [`Overlay`], and tells the world only after the batch has been stored
//! ([`Rules::committed`]): nobody sees an effect of rows that are not there.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use callboard_machine::meta::{MetaCommand, MetaKey, MetaState};
use callboard_machine::partition::{self, Effect, Ownership};
use callboard_storage::{Error, StateDb, StateView, Table, keyspace};
use callboard_types::{Epoch, PartitionId, Timestamp};
use tokio::sync::watch;

use crate::convert::{Storable, corrupt, decode_meta_row, encode_meta_key, encode_meta_row, pieces};
use crate::meta_feed::Board;
use crate::overlay::Overlay;
use crate::tables::{Facts, PartitionTables};
use crate::type_config::{Answer, Entry, Payload, Proposal};

/// Told of every applied entry of every partition, in order, on the apply path: must be quick and must not block. Entries
/// that a start replays are told too; an installed snapshot is not, so an owner reads its reminders after its claim.
pub trait Observer: Send + Sync + 'static {
    fn applied(&self, partition: PartitionId, effects: &[Effect]);
}

/// What others may know of a partition's facts without reading rows. Follows the stored batches.
pub struct Live {
    clock: AtomicI64,
    ownership: watch::Sender<Option<Ownership>>,
}

impl Live {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { clock: AtomicI64::new(0), ownership: watch::Sender::new(None) })
    }

    /// The highest proposer clock applied.
    pub fn clock(&self) -> Timestamp {
        Timestamp::from_micros(self.clock.load(Ordering::Acquire))
    }

    /// The epoch of the last applied claim.
    pub fn epoch(&self) -> Epoch {
        self.ownership.borrow().map_or(Epoch::NONE, |owner| owner.epoch)
    }

    pub fn watch(&self) -> watch::Receiver<Option<Ownership>> {
        self.ownership.subscribe()
    }

    fn publish(&self, facts: &Facts) {
        self.clock.store(facts.clock.as_micros(), Ordering::Release);
        self.ownership.send_if_modified(|owner| {
            let changed = *owner != facts.ownership;
            *owner = facts.ownership;
            changed
        });
    }
}

pub enum Rules {
    Partition(PartitionRules),
    Meta(MetaRules),
}

pub struct PartitionRules {
    partition: PartitionId,
    facts: Facts,
    effects: Vec<Effect>,
    live: Arc<Live>,
    observer: Arc<dyn Observer>,
}

impl PartitionRules {
    pub fn new(partition: PartitionId, live: Arc<Live>, observer: Arc<dyn Observer>) -> Self {
        Self { partition, facts: Facts::default(), effects: Vec::new(), live, observer }
    }
}

pub struct MetaRules {
    state: MetaState,
    board: Arc<Board>,
    /// Of the batch that is not stored yet.
    commands: Vec<(u64, Arc<MetaCommand>)>,
}

impl MetaRules {
    pub fn new(board: Arc<Board>) -> Self {
        Self { state: MetaState::default(), board, commands: Vec::new() }
    }
}

impl Rules {
    /// Reads the facts of `incarnation`, which stands at log `index`, at start and after an installed snapshot.
    pub fn load(&mut self, view: &(impl StateView + ?Sized), incarnation: u64, index: u64) -> Result<(), Error> {
        match self {
            Rules::Partition(rules) => {
                rules.facts = Facts::read(view, incarnation)?;
                rules.live.publish(&rules.facts);
            }
            Rules::Meta(rules) => {
                rules.state = read_meta(view, incarnation)?;
                rules.board.load(index, Arc::new(rules.state.clone()));
            }
        }
        Ok(())
    }

    /// Applies the entry at log `index`.
    pub fn apply(
        &mut self,
        rows: &mut Overlay,
        incarnation: u64,
        index: u64,
        proposal: &Proposal,
    ) -> Result<Answer, Error> {
        match (self, proposal) {
            (Rules::Partition(rules), Proposal::Partition(command)) => {
                let mut tables = PartitionTables { rows, facts: &mut rules.facts, incarnation };
                let outcome = partition::apply(&mut tables, index, command)?;
                rules.effects.extend(outcome.effects);
                Ok(Answer::Partition(outcome.response))
            }
            (Rules::Meta(rules), Proposal::Meta(command)) => {
                let (response, changed) = rules.state.apply(command);
                rules.commands.push((index, command.clone()));
                for key in changed {
                    match meta_row(&rules.state, incarnation, &key) {
                        (key, Some(value)) => rows.put(Table::System, key, value),
                        (key, None) => rows.delete(Table::System, key),
                    }
                }
                Ok(Answer::Meta(response))
            }
            (Rules::Partition(_), Proposal::Meta(_)) | (Rules::Meta(_), Proposal::Partition(_)) => {
                Err(corrupt("log entry", format!("entry {index} is of another kind of group")))
            }
        }
    }

    /// The batch is stored: what it did, up to log `index`, may be known.
    pub fn committed(&mut self, index: u64) {
        match self {
            Rules::Partition(rules) => {
                rules.live.publish(&rules.facts);
                if !rules.effects.is_empty() {
                    rules.observer.applied(rules.partition, &rules.effects);
                    rules.effects.clear();
                }
            }
            Rules::Meta(rules) => {
                let commands = std::mem::take(&mut rules.commands);
                rules.board.applied(index, commands, || Arc::new(rules.state.clone()));
            }
        }
    }
}

/// The meta state whose rows are under `incarnation`.
pub fn read_meta(view: &(impl StateView + ?Sized), incarnation: u64) -> Result<MetaState, Error> {
    let rows = view.scan(Table::System, keyspace::meta_range(incarnation), usize::MAX)?;
    let rows = rows.iter().map(|(key, row)| {
        let (_, table, _) = keyspace::parse_meta_row(key)?;
        decode_meta_row(table, row)
    });
    Ok(MetaState::load(rows.collect::<Result<Vec<_>, Error>>()?))
}

/// Where the row of `key` is stored, and what it is; `None`: there is none.
pub fn meta_row(state: &MetaState, incarnation: u64, key: &MetaKey) -> (Bytes, Option<Bytes>) {
    match state.row(key) {
        Some(row) => {
            let (table, name, value) = encode_meta_row(&row);
            (keyspace::meta_row(incarnation, table, &name), Some(value))
        }
        None => {
            let (table, name) = encode_meta_key(key);
            (keyspace::meta_row(incarnation, table, &name), None)
        }
    }
}

/// Fuzz body: any bytes as entries of the log, applied in order to an empty partition and an empty meta group. No
/// content panics, and what was stored is read as it was meant.
pub fn fuzz_apply(data: &[u8]) {
    struct Nobody;

    impl Observer for Nobody {
        fn applied(&self, _partition: PartitionId, _effects: &[Effect]) {}
    }

    const INCARNATION: u64 = 1;
    let db: Arc<dyn StateDb> = callboard_storage::Memory::new().open().state;
    let empty = || {
        let partition = PartitionRules::new(PartitionId(0), Live::new(), Arc::new(Nobody));
        (Rules::Partition(partition), Rules::Meta(MetaRules::new(Arc::default())))
    };
    let (mut partition, mut meta) = empty();
    let mut rows = Overlay::new(db.clone());
    for (index, piece) in (1..).zip(pieces(data)) {
        let Ok(Payload::Normal(proposal)) = Entry::decode(&piece).map(|entry| entry.payload) else { continue };
        let rules = match &proposal {
            Proposal::Partition(_) => &mut partition,
            Proposal::Meta(_) => &mut meta,
        };
        let answer = rules.apply(&mut rows, INCARNATION, index, &proposal);
        assert!(answer.is_ok(), "{answer:?}");
        rules.committed(index);
    }
    assert!(db.write(rows.take()).is_ok());
    let mut stored = empty();
    for rules in [&mut stored.0, &mut stored.1] {
        assert!(rules.load(&*db, INCARNATION, 0).is_ok());
    }
    if let (Rules::Partition(stored), Rules::Partition(applied)) = (&stored.0, &partition) {
        assert_eq!(stored.facts, applied.facts);
    }
    if let (Rules::Meta(stored), Rules::Meta(applied)) = (&stored.1, &meta) {
        assert_eq!(stored.state, applied.state);
    }
}
