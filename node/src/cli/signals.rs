//! SIGINT and SIGTERM: the first asks the node to drain, the second ends it at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::node::Shutdown;

/// Watches until the answer is dropped. The handlers are in place when this returns.
///
/// # Errors
///
/// The handlers cannot be set.
pub fn watch(shutdown: &Shutdown) -> io::Result<JoinSet<()>> {
    let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let shutdown = shutdown.clone();
    let mut watcher = JoinSet::new();
    watcher.spawn(async move { relay(interrupt, terminate, &shutdown).await });
    Ok(watcher)
}

async fn relay(mut interrupt: Signal, mut terminate: Signal, shutdown: &Shutdown) {
    for token in [&shutdown.graceful, &shutdown.forced] {
        let name = tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        };
        if shutdown.graceful.is_cancelled() {
            tracing::warn!(signal = name, "the node ends at once");
            shutdown.forced.cancel();
            return;
        }
        tracing::info!(signal = name, "the node drains; a second signal ends it at once");
        token.cancel();
    }
}
