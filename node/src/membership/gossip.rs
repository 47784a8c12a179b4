//! Runs the gossip library: starts it, tells it what this node says, reads what it knows, stops it.
//!
//! The library is asked twice per round instead of listening to it: its own notices copy the state of every node each
//! time, and know nothing of the dead. What a node said is read again only when its version moved.
//!
//! Seeds are this module's business alone. While nobody is known some are asked in every round, later one that is not
//! live once in a while, so that two halves of a cluster that lost each other find together; one that does not answer
//! costs a datagram and no line in the log.
//!
//! A change of what this node says is pushed to a few peers at once, who have it everywhere a few rounds later. If the
//! library ends by itself it is started again under the next generation; that is counted and logged as an error.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use callboard_engine::Instant;
use callboard_engine::view::View;
use chitchat::transport::Transport;
use chitchat::{Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, spawn_chitchat};
use rand::seq::IteratorRandom;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::announce::{self, Announcement, Keys};
use super::members::{Members, Observer, Seen};
use super::transport::Counters;
use super::{MembershipConfig, Tuning};
use crate::clock;
use crate::tasks::Tasks;

/// Peers a change is pushed to at once.
const PUSH_TO: usize = 8;
/// Peers a leaving node says so itself.
const GOODBYES: usize = 64;
/// Seeds asked in one round while nobody is known.
const SEEDS_PER_ROUND: usize = 3;
/// Rounds between questions to a seed while somebody is known.
const SEED_ROUNDS: u32 = 10;
/// Looks at the library per round.
const LOOKS: u32 = 2;
/// This node stood still if it did nothing for so many rounds.
const STALL: u32 = 2;
/// How long nobody is declared dead after that.
const STALL_GRACE: u32 = 3;
/// Before the library is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// How long a deleted key is remembered: a node that was away for longer is told everything anew.
const TOMBSTONES: Duration = Duration::from_secs(15 * 60);

/// Everything the task works with.
pub(super) struct Gossip {
    pub config: MembershipConfig,
    pub transport: Arc<dyn Transport>,
    pub announced: watch::Receiver<Announcement>,
    pub seeds: watch::Receiver<Arc<BTreeSet<SocketAddr>>>,
    pub members: watch::Sender<Arc<Members>>,
    pub view: watch::Sender<Arc<View>>,
    pub counters: Arc<Counters>,
    /// Cancelled when the node is to leave.
    pub leave: CancellationToken,
    /// Cancelled when it has left, or cannot any more.
    pub left: CancellationToken,
    pub tasks: Tasks,
}

enum End {
    Stopped,
    Left,
    Failed,
}

impl Gossip {
    /// Gossips until the node leaves or the tasks stop.
    pub async fn run(mut self) {
        let left = self.left.clone().drop_guard();
        let mut observer = Observer::default();
        let time = Time::start();
        let mut generation = self.config.generation;
        loop {
            match self.session(generation, &mut observer, &time).await {
                End::Stopped => return,
                End::Left => break,
                End::Failed => {
                    tracing::error!(generation, "gossip ended by itself; it is started again");
                    Counters::add(&self.counters.restarts, 1);
                    generation += 1;
                    tokio::select! {
                        biased;
                        () = self.tasks.stopping() => return,
                        () = tokio::time::sleep(RESTART_AFTER) => {}
                    }
                }
            }
        }
        drop(left);
        self.tasks.stopping().await;
    }

    /// One life of the library.
    async fn session(&mut self, generation: u64, observer: &mut Observer, time: &Time) -> End {
        let mut said = announce::Encoded::default();
        let me = self.config.id(generation);
        let handle = match spawn_chitchat(self.config.library(me.clone()), Vec::new(), &*self.transport).await {
            Ok(handle) => handle,
            Err(error) => {
                tracing::error!(%error, "gossip cannot start");
                return End::Failed;
            }
        };
        let mut library = Library { handle, me, read: BTreeMap::new() };
        let mut ended = pin!(library.handle.termination_watcher());
        let tuning = self.config.tuning.clone();
        let mut ticks = tokio::time::interval(tuning.interval / LOOKS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut round, mut awake) = (0u32, time.now());
        self.say(&mut library, &mut said).await;
        let mut may_say = time.now();
        let mut alone = false;
        loop {
            let push = tokio::select! {
                biased;
                () = self.tasks.stopping() => {
                    library.stop().await;
                    return End::Stopped;
                }
                end = &mut ended => {
                    tracing::debug!(?end, "the gossip library ended");
                    return End::Failed;
                }
                () = self.leave.cancelled() => {
                    self.say(&mut library, &mut said).await;
                    library.push(GOODBYES).await;
                    tokio::time::sleep(tuning.interval * 2).await;
                    library.stop().await;
                    return End::Left;
                }
                changed = self.announced.changed(), if !alone && time.now() >= may_say => {
                    alone = changed.is_err();
                    may_say = time.now().saturating_add(tuning.coalesce);
                    !alone
                }
                _ = ticks.tick() => false,
            };
            if time.now().saturating_since(awake) > tuning.interval * STALL {
                observer.stalled(time.now(), tuning.interval * STALL_GRACE);
            }
            awake = time.now();
            if push {
                self.say(&mut library, &mut said).await;
                library.push(PUSH_TO).await;
            } else {
                if round.is_multiple_of(LOOKS) {
                    self.ask_seeds(&library, round / LOOKS).await;
                }
                round = round.wrapping_add(1);
            }
            let seen = library.look().await;
            let own = self.announced.borrow().cluster;
            if let Some(members) = observer.observe(time.now(), own, seen) {
                self.view.send_replace(Arc::new(members.view()));
                self.members.send_replace(members);
            }
        }
    }

    /// Gives the library what this node says, as far as it differs from what it said.
    async fn say(&mut self, library: &mut Library, said: &mut announce::Encoded) {
        let next = self.announced.borrow_and_update().encode();
        if next.left_out > said.left_out {
            tracing::error!(
                left_out = next.left_out,
                "too many actor types: other nodes do not hear of some of this node"
            );
        }
        library.set(&said.keys, &next.keys).await;
        *said = next;
    }

    async fn ask_seeds(&self, library: &Library, round: u32) {
        let live = library.live().await;
        let own = self.config.advertise;
        let seeds = self.seeds.borrow().clone();
        let candidates = seeds.iter().copied().filter(|seed| *seed != own && !live.contains(seed));
        let count = match (live.is_empty(), round.is_multiple_of(SEED_ROUNDS)) {
            (true, _) => SEEDS_PER_ROUND,
            (false, true) => 1,
            (false, false) => 0,
        };
        library.ask(candidates.choose_multiple(&mut rand::rng(), count));
    }
}

/// The library and what has been read from it.
struct Library {
    handle: ChitchatHandle,
    me: ChitchatId,
    /// What each participant said, and at which version.
    read: BTreeMap<ChitchatId, (u64, Option<Arc<Announcement>>)>,
}

impl Library {
    async fn set(&self, old: &Keys, new: &Keys) {
        let apply = |library: &mut Chitchat| {
            let own = library.self_node_state();
            for (key, value) in new.iter().filter(|(key, value)| old.get(*key) != Some(value)) {
                own.set(key, value);
            }
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                own.delete(key);
            }
        };
        self.handle.with_chitchat(apply).await;
    }

    async fn look(&mut self) -> Vec<Seen> {
        let (read, me) = (&mut self.read, &self.me);
        self.handle.with_chitchat(|library| look(library, me, read)).await
    }

    /// Where the other live participants gossip.
    async fn live(&self) -> BTreeSet<SocketAddr> {
        let others = |library: &mut Chitchat| {
            let live = library.live_nodes().filter(|id| **id != self.me);
            live.map(|id| id.gossip_advertise_addr).collect()
        };
        self.handle.with_chitchat(others).await
    }

    /// Exchanges news with some live peers out of turn.
    async fn push(&self, count: usize) {
        let live = self.live().await;
        self.ask(live.into_iter().choose_multiple(&mut rand::rng(), count));
    }

    fn ask(&self, addresses: Vec<SocketAddr>) {
        for address in addresses {
            // It fails when the library has ended, which is noticed elsewhere.
            let _ = self.handle.gossip(address);
        }
    }

    async fn stop(self) {
        if let Err(error) = self.handle.shutdown().await {
            tracing::debug!(%error, "gossip ended with an error");
        }
    }
}

fn look(
    library: &Chitchat,
    me: &ChitchatId,
    read: &mut BTreeMap<ChitchatId, (u64, Option<Arc<Announcement>>)>,
) -> Vec<Seen> {
    let live: BTreeSet<&ChitchatId> = library.live_nodes().collect();
    let states = library.node_states();
    read.retain(|id, _| states.contains_key(id));
    let mut seen = Vec::with_capacity(states.len());
    for (id, state) in states {
        let Some(node) = announce::node_of(&id.node_id) else { continue };
        let version = state.max_version();
        let known = read.get(id).filter(|(at, _)| *at == version).map(|(_, said)| said.clone());
        let said = known.unwrap_or_else(|| {
            let said = Announcement::decode(state.key_values()).map(Arc::new);
            read.insert(id.clone(), (version, said.clone()));
            said
        });
        if let Some(said) = said {
            let alive = id == me || live.contains(id);
            seen.push(Seen { node, generation: id.generation_id, gossip: id.gossip_advertise_addr, alive, said });
        }
    }
    seen
}

impl MembershipConfig {
    fn id(&self, generation: u64) -> ChitchatId {
        ChitchatId::new(announce::node_text(self.node), generation, self.advertise)
    }

    fn library(&self, me: ChitchatId) -> ChitchatConfig {
        let Tuning { interval, phi, initial_interval, window, max_interval, forget_dead, .. } = self.tuning;
        ChitchatConfig {
            chitchat_id: me,
            cluster_id: self.cluster.clone(),
            gossip_interval: interval,
            listen_addr: self.advertise,
            seed_nodes: Vec::new(),
            failure_detector_config: FailureDetectorConfig::new(
                phi,
                window,
                max_interval,
                initial_interval,
                forget_dead,
            ),
            marked_for_deletion_grace_period: TOMBSTONES,
            catchup_callback: None,
            extra_liveness_predicate: None,
        }
    }
}

/// The runtime's clock as instants of the decisions: it runs with the monotonic one, and a test can pause it.
struct Time {
    origin: tokio::time::Instant,
    at_origin: Instant,
}

impl Time {
    fn start() -> Self {
        Self { origin: clock::runtime(), at_origin: clock::monotonic() }
    }

    fn now(&self) -> Instant {
        self.at_origin.saturating_add(clock::runtime().saturating_duration_since(self.origin))
    }
}
