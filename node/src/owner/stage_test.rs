//! The stage of the owner's tests: a partition that replicates for real, in memory, and an app behind a real socket that
//! answers when the test tells it to.

use std::fmt::Debug;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::guard::SessionConfig;
use callboard_engine::mailbox::RequestKind;
use callboard_machine::meta::{NodeRecord, Role, Settings};
use callboard_machine::partition::{ActorOp, Effect, StateValue};
use callboard_raft::{Groups, GroupsConfig, NoPeers, Observer};
use callboard_storage::Memory;
use callboard_types::{ActorKey, ClusterId, NodeId, PartitionId};
use http::{HeaderMap, Response};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::hosts::Hosts;
use super::{AppCall, Common, Error, Owner, Reign, Turn};
use crate::app::fake::{FakeApp, read_request, send};
use crate::app::{AppChannel, ChannelLimits};
use crate::clock;
use crate::config::{AppConfig, Limits};
use crate::host::opened::Opened;
use crate::host::{Host, HostLimits};
use crate::links::Alone;
use crate::tasks::Tasks;

const NODE: NodeId = NodeId(7);
const CLUSTER: ClusterId = ClusterId(9);
const P: PartitionId = PartitionId(0);
/// Enough for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Enough for what must not happen: it would take a millisecond or two.
const A_WHILE: Duration = Duration::from_millis(150);

pub type Call = Pin<Box<dyn Future<Output = Result<Response<Bytes>, Error>> + Send>>;

/// A request that the app has read and not answered.
#[derive(Debug)]
pub struct Asked {
    /// Verb and path.
    pub line: String,
    answer: oneshot::Sender<()>,
}

impl Asked {
    pub fn answer(self) {
        // The connection may be gone.
        let _ = self.answer.send(());
    }
}

pub struct Stage {
    pub memory: Memory,
    /// Under an epoch that ends only when the test ends it.
    pub reign: Arc<Reign>,
    groups: Groups,
    tasks: Tasks,
    asked: mpsc::UnboundedReceiver<Asked>,
    _app: FakeApp,
    folder: tempfile::TempDir,
}

struct Deaf;

impl Observer for Deaf {
    fn applied(&self, _partition: PartitionId, _effects: &[Effect]) {}
}

pub fn cat(id: &str) -> ActorKey {
    ActorKey::new("default", "Cat", id)
}

pub fn upsert(key: &str, value: &'static str) -> ActorOp {
    ActorOp::Upsert { key: key.to_owned(), value: Bytes::from_static(value.as_bytes()), expires_at: None }
}

impl Stage {
    pub async fn open() -> Self {
        Self::open_with("", |config| config).await
    }

    /// On a node whose earlier life left this list of opened actors.
    pub async fn open_after(opened: &str) -> Self {
        Self::open_with(opened, |config| config).await
    }

    /// With an app that is asked one thing at a time.
    pub async fn open_narrow() -> Self {
        Self::open_with("", |config| AppConfig { max_concurrency: Some(1), ..config }).await
    }

    async fn open_with(opened: &str, change: impl FnOnce(AppConfig) -> AppConfig) -> Self {
        let (tasks, memory) = (Tasks::new(), Memory::new());
        let folder = tempfile::tempdir().expect("a folder");
        let list = folder.path().join("opened");
        std::fs::write(&list, opened).expect("writes the list");
        let (record, asked) = mpsc::unbounded_channel();
        let app = FakeApp::raw(&tasks, move |stream| play(stream, record.clone())).await;
        let groups = groups(&memory).await;
        let common = common(change(app.config()), &list, &groups, &tasks).await;
        let owner = Owner::new(groups.partition(P).expect("the partition is here"), common);
        // From here on nobody but the test ends the reign.
        tokio::select! {
            () = owner.clone().run_until_retired() => panic!("the owner stops"),
            () = owner.served() => {}
        }
        let reign = owner.reign().expect("it owns the partition");
        Self { memory, reign, groups, tasks, asked, _app: app, folder }
    }

    /// A call of a method of the actor, which begins when it is polled.
    pub fn call(&self, id: &str) -> Call {
        let turn = Turn {
            actor: cat(id),
            kind: RequestKind::Call,
            chain: None,
            call: Arc::new(AppCall {
                uri: format!("/actors/Cat/{id}/method/stroke").parse().expect("a path"),
                headers: HeaderMap::new(),
                body: Bytes::new(),
            }),
            deadline: clock::monotonic().saturating_add(PATIENCE),
            wanted: None,
            tick: None,
        };
        let reign = self.reign.clone();
        Box::pin(async move { reign.turn(Arc::new(turn)).await })
    }

    /// What the app is asked next, while the call goes on.
    pub async fn asked_by<T: Debug>(&mut self, call: &mut (impl Future<Output = T> + Unpin)) -> Asked {
        tokio::select! {
            biased;
            asked = self.asked.recv() => asked.expect("the app runs"),
            answer = call => panic!("{answer:?} without asking the app"),
            () = tokio::time::sleep(PATIENCE) => panic!("the app is not asked"),
        }
    }

    /// The answer of a call, for which the app is not asked.
    pub async fn answered_unasked<T>(&mut self, call: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            asked = self.asked.recv() => panic!("the app is asked {asked:?}"),
            answer = call => answer,
            () = tokio::time::sleep(PATIENCE) => panic!("no answer"),
        }
    }

    /// The app is asked nothing for a while, during which the call goes on without an answer.
    pub async fn not_asked_by<T: Debug>(&mut self, call: &mut (impl Future<Output = T> + Unpin)) {
        tokio::select! {
            biased;
            asked = self.asked.recv() => panic!("the app is asked {asked:?}"),
            answer = call => panic!("{answer:?} too early"),
            () = tokio::time::sleep(A_WHILE) => {}
        }
    }

    /// What is stored, whoever owns it.
    pub fn stored(&self, id: &str, key: &str) -> Option<StateValue> {
        self.reign.partition.reader().state(&cat(id), key, clock::wall()).expect("the store is read")
    }

    /// The list of actors whose instances the app may hold.
    pub fn opened(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("opened")).expect("reads the list")
    }

    pub async fn end(self) {
        let Self { groups, tasks, reign, .. } = self;
        drop(reign);
        tasks.join().await;
        groups.shutdown().await;
    }
}

/// An answer in time.
pub async fn answered<T>(answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, answer).await.expect("an answer in time")
}

/// One connection to the app.
async fn play(mut stream: tokio::net::TcpStream, record: mpsc::UnboundedSender<Asked>) {
    // Whoever looks for the port asks nothing.
    while stream.peek(&mut [0; 1]).await.is_ok_and(|bytes| bytes > 0) {
        let request = read_request(&mut stream).await;
        let line = request.lines().next().and_then(|line| line.strip_suffix(" HTTP/1.1")).unwrap_or_default();
        if line == "GET /dapr/config" {
            send(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"entities\":[\"Cat\"]}").await;
            continue;
        }
        let (answer, answered) = oneshot::channel();
        if record.send(Asked { line: line.to_owned(), answer }).is_err() || answered.await.is_err() {
            return;
        }
        send(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\npurr").await;
    }
}

/// A cluster of one with one partition.
async fn groups(memory: &Memory) -> Groups {
    let config = GroupsConfig {
        node: NODE,
        heartbeat: Duration::from_millis(150),
        election_min: Duration::from_millis(400),
        election_max: Duration::from_millis(700),
        flush_bytes: u64::MAX,
        flush_every: Duration::from_secs(3_600),
        max_proposals: 64,
    };
    let settings = Settings {
        name: "default".to_owned(),
        partitions: 1,
        replicas: 1,
        hash_version: 1,
        ring_version: 1,
        host_lease_ms: 600,
        max_clock_offset_ms: 1_000,
        ephemeral: false,
    };
    let record = NodeRecord {
        name: "node".to_owned(),
        role: Role::Storage,
        zone: String::new(),
        incarnation: 1,
        address: String::new(),
        leaving: false,
    };
    let groups = Groups::open(config, memory.open(), Arc::new(Deaf), Arc::new(NoPeers)).await.expect("the groups open");
    groups.bootstrap(settings, record, clock::wall()).await.expect("the cluster forms");
    groups
}

/// What the owner shares, once the app is known.
async fn common(app: AppConfig, opened: &Path, groups: &Groups, tasks: &Tasks) -> Common {
    let limits = ChannelLimits { head: 4_096, body: 1 << 20, answer: PATIENCE };
    let channel = AppChannel::start(Some(app), "own", None, tasks, limits);
    let opened = Opened::open(opened.to_owned()).expect("the list is read");
    let limits = HostLimits { activations: 100, timers: 100, turn: 6 * PATIENCE };
    let host = Host::start(channel.clone(), opened, NODE, limits, tasks.clone());
    channel.watch().wait_for(|view| view.hosted.is_some()).await.expect("the app is reached");
    Common {
        cluster: CLUSTER,
        node: NODE,
        generation: 0,
        max_clock_offset: Duration::from_secs(1),
        session: SessionConfig::default(),
        hosts: Hosts::new(NODE, CLUSTER, "default", host, Arc::new(Alone), groups.meta().watch()),
        limits: Arc::new(Limits::default()),
        reminder_turns: Arc::new(Semaphore::new(16)),
        tasks: tasks.clone(),
    }
}
