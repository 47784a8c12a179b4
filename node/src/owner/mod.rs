//! The owner of one partition: it runs the mailboxes of its actors, fires their reminders and serves their state.
//!
//! ```text
//!   claim    becoming the owner, and ceasing to be (the loop that ends every epoch properly)
//!   turn     one turn: admission, dispatch to the host, the end        <- the road of an actor call
//!   writes   one command of one actor, from proposal to answer
//!   reads    what is stored, between two checks of the tenure
//!   fire     one due occurrence of a reminder
//!   keeper   what happens without a caller: idle actors, due reminders
//! ```
//!
//! One epoch is one [`Reign`]: a value of its own, behind one short mutex; nothing awaits while it is held. Whatever was
//! begun under an epoch keeps that epoch's reign and never meets the next one, so a task that is late finds its own
//! table ended and changes nothing. The rule that makes an owner safe is [`Tenure::check`]: asked right before each
//! dispatch, before each proposal, around each read, and before a reply is released.

mod answer;
mod claim;
mod fire;
pub mod hosts;
mod keeper;
pub mod reads;
mod turn;
pub mod writes;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use callboard_engine::Instant;
use callboard_engine::actor_config::TypeConfig;
use callboard_engine::due::{DueEntry, DueKey, DueTable, ReminderId};
use callboard_engine::guard::{Answers, SessionConfig};
use callboard_engine::mailbox::{
    self, CallId, Counts, Effect, Mailboxes, Refusal, Start, TypeConfig as MailboxConfig, TypeName,
};
use callboard_machine::partition::Effect as Applied;
use callboard_raft::{NotOwner, Partition, Tenure};
use callboard_types::{Class, ClusterId, Epoch, NodeId, PartitionId, ReplicaId, Timestamp};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::app::Error as AppError;
use crate::clock;
use crate::config::Limits;
use crate::tasks::Tasks;

use hosts::Hosts;

pub use turn::{AppCall, REENTRANCY_ID, Turn};

/// What every owner of the node shares.
#[derive(Clone)]
pub struct Common {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// Raised by `recover`.
    pub generation: u64,
    pub max_clock_offset: Duration,
    /// The leases that hosts on other nodes get.
    pub session: SessionConfig,
    pub hosts: Hosts,
    pub limits: Arc<Limits>,
    /// Reminder turns asked for at a time on this node.
    pub reminder_turns: Arc<Semaphore>,
    pub tasks: Tasks,
}

/// The owner of one partition, whether or not it owns it at the moment.
pub struct Owner {
    partition: Partition,
    common: Common,
    /// `None` while another node owns the partition, or nobody.
    reign: RwLock<Option<Arc<Reign>>>,
    /// Wakes those who wait for a reign to begin.
    began: Notify,
    /// Held while the partition is handed to another node.
    handing: Arc<AsyncMutex<()>>,
    /// The epoch that its former owner brought to a stand before handing the partition to this node.
    handed: Mutex<Option<u64>>,
    /// The node gives its replica up.
    gone: CancellationToken,
}

/// Everything of one epoch.
pub struct Reign {
    partition: Partition,
    common: Common,
    tenure: Tenure,
    table: Mutex<Table>,
    /// Wakes the keeper: something is due earlier than it thinks.
    keeper: Notify,
    /// Wakes who waits for the table to stand still.
    drained: Notify,
    /// Running turns are cut off: the partition moves and they have outlived their drain time.
    cut: CancellationToken,
}

struct Table {
    mailboxes: Mailboxes,
    /// Where waiting calls learn of their turn. Dropped when the epoch ends, which tells them that.
    grants: HashMap<CallId, oneshot::Sender<Start>>,
    due: DueTable,
    last_call: u64,
    keeper_wakes: KeeperWakes,
    /// When each host was last told that this node owns the partition.
    answers: Answers,
    /// The node stops: nothing is begun without a caller.
    closing: bool,
}

/// The instants that the keeper has taken into account.
#[derive(Debug, Clone, Copy)]
struct KeeperWakes {
    idle: Instant,
    due: Timestamp,
}

/// Why a turn, a read or a write has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This node does not own the partition at the moment. Nothing happened.
    #[error("partition {0} has no owner here at the moment")]
    NotServing(PartitionId),
    /// No app of the node hosts the type. Nothing happened.
    #[error("the actor type is not hosted")]
    NoHost,
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It waited for its turn as long as it may. Nothing happened.
    #[error("no turn within {0:?}")]
    NoTurn(Duration),
    #[error(transparent)]
    App(AppError),
    /// The app was asked, and this node ceased to be the owner before the answer counted.
    #[error("the outcome is not known: {0}")]
    Unknown(Cow<'static, str>),
    /// The token is superseded: nothing was written.
    #[error("superseded: the actor's activation is over")]
    Fenced,
    /// The command's content was refused: nothing was written.
    #[error(transparent)]
    Rejected(#[from] callboard_machine::partition::Rejection),
    #[error(transparent)]
    TooLarge(#[from] callboard_machine::limits::Exceeded),
    /// Whoever asked for the turn no longer wants it: a reminder or timer that is gone. Nothing happened.
    #[error("the turn is not wanted any more")]
    Unwanted,
    #[error("an actor has at most {0} reminders")]
    TooManyReminders(usize),
    #[error("read the store: {0}")]
    Storage(String),
}

impl Error {
    pub fn class(&self) -> Class {
        match self {
            Error::NotServing(_) => Class::Redirected,
            Error::NoHost | Error::NoTurn(_) | Error::TooManyReminders(_) => Class::Busy,
            Error::Refused(refusal) => refusal.class(),
            Error::App(error) => error.class(),
            Error::Unknown(_) => Class::Unknown,
            Error::Fenced => Class::Fenced,
            Error::Rejected(_) | Error::TooLarge(_) | Error::Unwanted => Class::Rejected,
            Error::Storage(_) => Class::Fatal,
        }
    }
}

impl From<NotOwner> for Error {
    fn from(over: NotOwner) -> Self {
        Error::NotServing(over.partition)
    }
}

impl Owner {
    pub fn new(partition: Partition, common: Common) -> Arc<Self> {
        Arc::new(Self {
            partition,
            common,
            reign: RwLock::new(None),
            began: Notify::new(),
            handing: Arc::default(),
            handed: Mutex::new(None),
            gone: CancellationToken::new(),
        })
    }

    /// The node gives its replica up: nothing is owned here any more.
    pub fn retire(&self) {
        self.gone.cancel();
    }

    /// Answers a host's ping: whether this node owns the partition at this moment, so that the host may go on.
    pub fn confirm(&self, host: NodeId) -> bool {
        let Ok(reign) = self.reign() else { return false };
        let mut table = reign.table.lock();
        // Counted first: the host's lease must never outlast what is remembered of it.
        table.answers.answering(clock::monotonic(), host);
        drop(table);
        reign.tenure.check().is_ok()
    }

    pub fn id(&self) -> PartitionId {
        self.partition.id()
    }

    pub fn replica_id(&self) -> ReplicaId {
        self.partition.replica_id()
    }

    /// The current epoch's reign.
    pub fn reign(&self) -> Result<Arc<Reign>, Error> {
        self.reign.read().clone().ok_or(Error::NotServing(self.id()))
    }

    pub fn is_serving(&self) -> bool {
        self.reign.read().is_some()
    }

    /// Waits, where nobody owns the partition here, until somebody does.
    pub async fn served(&self) {
        loop {
            let began = self.began.notified();
            tokio::pin!(began);
            began.as_mut().enable();
            if self.is_serving() {
                return;
            }
            began.await;
        }
    }

    /// An entry of the partition's log was applied on this replica.
    pub fn applied(&self, effects: &[Applied]) {
        if let Some(reign) = self.reign.read().as_ref() {
            reign.applied(effects);
        }
    }

    /// Active actors by type; none while it does not own the partition.
    pub fn active_counts(&self) -> Vec<(TypeName, usize)> {
        self.reign().map(|reign| reign.table.lock().mailboxes.active_counts()).unwrap_or_default()
    }

    /// Totals; `None` while it does not own the partition.
    pub fn counts(&self) -> Option<Counts> {
        self.reign().ok().map(|reign| reign.table.lock().mailboxes.counts())
    }
}

/// What the mailbox needs of a type's configuration.
fn mailbox_config(config: TypeConfig) -> MailboxConfig {
    let reentrancy = config.reentrancy;
    MailboxConfig {
        idle_timeout: config.idle_timeout,
        reentrancy: mailbox::Reentrancy { enabled: reentrancy.enabled, max_depth: reentrancy.max_stack_depth },
    }
}

impl Reign {
    pub fn id(&self) -> PartitionId {
        self.partition.id()
    }

    pub fn epoch(&self) -> Epoch {
        self.tenure.epoch()
    }

    /// Keeps the due table in step with the log. Called on the apply path: quick, and never waits.
    fn applied(&self, effects: &[Applied]) {
        let mut table = self.table.lock();
        for effect in effects {
            match effect {
                Applied::ReminderSet { actor, name, reminder } => {
                    let id = ReminderId { actor: actor.clone(), name: name.as_str().into() };
                    let key = DueKey { due: reminder.due, id };
                    table.due.put(DueEntry { key, generation: reminder.generation, occurrence: reminder.occurrence });
                    if reminder.due < table.keeper_wakes.due {
                        self.keeper.notify_one();
                    }
                }
                Applied::ReminderGone { actor, name, generation } => {
                    table.due.remove(&ReminderId { actor: actor.clone(), name: name.as_str().into() }, *generation);
                }
                Applied::ClockLowered { by_micros } => {
                    tracing::error!(partition = %self.id(), by_micros, "the stored clock was ahead and has been lowered");
                }
                Applied::Claimed { .. } => {}
            }
        }
    }

    /// Performs what the mailboxes asked for. Called without the lock.
    fn carry_out(self: &Arc<Self>, effects: impl IntoIterator<Item = Effect>) {
        for effect in effects {
            match effect {
                Effect::Start { call, start } => self.grant(call, start),
                Effect::Deactivate(deactivation) => self.spawn_deactivation(deactivation),
                Effect::Drained => self.drained.notify_waiters(),
            }
        }
    }
}

#[cfg(test)]
mod fire_test;
#[cfg(test)]
mod reads_test;
#[cfg(test)]
mod stage_test;
#[cfg(test)]
mod turn_test;
#[cfg(test)]
mod writes_test;
