//! What this node does when another one calls.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_proto::peer::Kind;
use futures_util::future::BoxFuture;

use super::error::Failure;
use super::hello::PeerId;

/// A call of another node.
#[derive(Debug, Clone)]
pub struct Call {
    pub from: Arc<PeerId>,
    pub kind: Kind,
    pub body: Bytes,
    /// How long the caller waited for the answer when it sent the call.
    pub timeout: Duration,
}

/// Answers calls.
///
/// Calls of one link begin in the order in which they were made: `handle` and the first step of what it returns run on
/// the link's own task, which they must not block. What is not ready then goes on in a task of its own.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, call: Call) -> BoxFuture<'static, Result<Bytes, Failure>>;
}

impl<F, R> Handler for F
where
    F: Fn(Call) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Bytes, Failure>> + Send + 'static,
{
    fn handle(&self, call: Call) -> BoxFuture<'static, Result<Bytes, Failure>> {
        Box::pin(self(call))
    }
}

/// One handler per kind. Clones share them.
#[derive(Clone, Default)]
pub struct Handlers {
    by_kind: HashMap<i32, Entry>,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub kind: Kind,
    pub handler: Arc<dyn Handler>,
    pub end: End,
}

/// When work ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// By itself, whatever becomes of the caller.
    OfItsOwn,
    /// Also when nobody waits for it any more.
    WithCaller,
}

impl Handlers {
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls of `kind` go to `handler`, whose work runs to its end whatever becomes of the caller.
    #[must_use]
    pub fn on(self, kind: Kind, handler: impl Handler) -> Self {
        self.with(kind, Arc::new(handler), End::OfItsOwn)
    }

    /// The same, but the work is dropped where it stands when its caller leaves, its time is up, or the link is lost.
    #[must_use]
    pub fn on_cancellable(self, kind: Kind, handler: impl Handler) -> Self {
        self.with(kind, Arc::new(handler), End::WithCaller)
    }

    fn with(mut self, kind: Kind, handler: Arc<dyn Handler>, end: End) -> Self {
        self.by_kind.insert(kind.into(), Entry { kind, handler, end });
        self
    }

    pub(super) fn get(&self, kind: i32) -> Option<&Entry> {
        self.by_kind.get(&kind)
    }
}
