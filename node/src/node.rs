//! What every door of the node can reach: one value, made at boot, shared by all handlers.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::actors::Actors;
use crate::app::AppChannel;
use crate::cluster::Running;
use crate::config::Config;
use crate::resources::Resources;
use crate::tasks::Tasks;

/// The ports in use, after moving those that were taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct BoundPorts {
    pub http: u16,
    pub grpc: u16,
    pub peer: u16,
    pub metrics: Option<u16>,
}

pub struct Node {
    pub config: Config,
    pub ports: BoundPorts,
    pub app: AppChannel,
    /// The road of actor calls, state, reminders and timers.
    pub actors: Actors,
    /// This node as one of its cluster.
    pub cluster: Running,
    pub resources: Arc<Resources>,
    /// `extended` of the metadata answer: what apps have put, and the runtime version.
    pub extended: RwLock<BTreeMap<String, String>>,
    pub phase: watch::Sender<Phase>,
    pub shutdown: Shutdown,
    pub tasks: Tasks,
}

/// Where the node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Listeners are open; partitions are being opened.
    Starting,
    /// Outbound APIs work: `healthz/outbound` answers 204. Never waits for the app.
    Outbound,
    /// The app (if any) has been reached and its types are hosted: `healthz` answers 204.
    Ready,
    /// Told to stop: takes nothing that is not already under way.
    Draining,
}

/// Asks the node to end.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Finish what runs within the grace period, then exit 0.
    pub graceful: CancellationToken,
    /// Exit 1 at once.
    pub forced: CancellationToken,
}
