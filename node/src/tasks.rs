//! The only spawner: every long activity of the node has a name, a kind, and is waited for at the end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// What ends with the task, and what the task ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Serves until told to stop. Ending by itself or by panic stops the node: without it the node only pretends.
    Service,
    /// A bounded piece of work on somebody's behalf. A panic is logged and costs that one piece.
    Work,
}

/// Handle of the spawner; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    /// Cancelled when services must stop.
    stop: CancellationToken,
    /// Cancelled when the node must end because a service failed.
    failed: CancellationToken,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` under `kind` in a span with its name.
    #[allow(clippy::disallowed_methods)] // the one place that spawns
    pub fn spawn<F>(&self, kind: Kind, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match kind {
            Kind::Work => {
                self.tracker.spawn(future);
            }
            Kind::Service => {
                let tasks = self.clone();
                let service = future.instrument(tracing::info_span!("task", name));
                self.tracker.spawn(async move {
                    let mut ended = EndsNode { tasks: &tasks, name, returned: false };
                    service.await;
                    ended.returned = true;
                });
            }
        }
    }

    /// Runs `future` inside the caller's own task while the caller listens, and in a task of its own from the moment the
    /// caller leaves: the work is carried to its end either way, and costs no hop between tasks in the common case.
    pub fn carry<F>(&self, name: &'static str, future: F) -> Carried<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        Carried { work: Some(Box::pin(future)), name, tasks: self.clone() }
    }

    /// Tasks that have not ended.
    pub fn count(&self) -> usize {
        self.tracker.len()
    }

    /// Resolves when services must stop.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Resolves when a service ended that should not have.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Tells every service to stop.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Tells every service to stop and waits for all tasks.
    pub async fn join(&self) {
        self.stop();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Work that outlives its caller; see [`Tasks::carry`].
pub struct Carried<T: Send + 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    name: &'static str,
    tasks: Tasks,
}

impl<T: Send + 'static> Future for Carried<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let done = std::task::ready!(work.as_mut().poll(cx));
        self.work = None;
        Poll::Ready(done)
    }
}

impl<T: Send + 'static> Drop for Carried<T> {
    fn drop(&mut self) {
        // While a runtime ends it drops its tasks, and there is none to go on in.
        if let Some(work) = self.work.take()
            && tokio::runtime::Handle::try_current().is_ok()
            && !std::thread::panicking()
        {
            self.tasks.spawn(Kind::Work, self.name, async move {
                work.await;
            });
        }
    }
}

/// Ends the node when its service ends, by return or by panic, before it was told to.
struct EndsNode<'a> {
    tasks: &'a Tasks,
    name: &'static str,
    returned: bool,
}

impl Drop for EndsNode<'_> {
    fn drop(&mut self) {
        // Dropped by neither is dropped by a runtime that ends: nothing of the service's own doing.
        if !self.tasks.is_stopping() && (self.returned || std::thread::panicking()) {
            tracing::error!(task = self.name, "a service ended; the node stops");
            self.tasks.failed.cancel();
        }
    }
}

#[cfg(test)]
#[path = "tasks_test.rs"]
mod tests;
