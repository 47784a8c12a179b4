//! One write of an actor at a time.
//!
//! Write numbers of one activation must reach the partition in their order: an older number after a newer one is
//! refused there. Whoever takes a number holds the actor's place here until its command has an answer. Different actors
//! do not wait for each other.

use std::collections::HashMap;
use std::sync::Arc;

use callboard_types::ActorKey;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

type Places = Arc<Mutex<HashMap<ActorKey, Arc<AsyncMutex<()>>>>>;

/// The places of all actors that have a write under way; clones share them.
#[derive(Clone, Default)]
pub struct WriteOrder {
    places: Places,
}

/// Held while one write is under way.
pub struct Turnstile {
    places: Places,
    actor: ActorKey,
    held: Option<OwnedMutexGuard<()>>,
}

impl WriteOrder {
    /// Waits until no earlier write of the actor is under way. Bounded by the callers' own number.
    pub async fn enter(&self, actor: &ActorKey) -> Turnstile {
        // Made first: its drop cleans up behind a waiter that leaves, too.
        let mut turnstile = Turnstile { places: self.places.clone(), actor: actor.clone(), held: None };
        let place = self.places.lock().entry(actor.clone()).or_default().clone();
        turnstile.held = Some(place.lock_owned().await);
        turnstile
    }
}

impl Drop for Turnstile {
    fn drop(&mut self) {
        let mut places = self.places.lock();
        self.held = None;
        // One reference is the map's; nobody can get another while the map is locked.
        if places.get(&self.actor).is_some_and(|place| Arc::strong_count(place) == 1) {
            places.remove(&self.actor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_write_of_an_actor_waits_and_another_actor_does_not() {
        let order = WriteOrder::default();
        let (a, b) = (ActorKey::new("ns", "t", "a"), ActorKey::new("ns", "t", "b"));
        let first = order.enter(&a).await;
        let other = order.enter(&b).await;
        let mut second = Box::pin(order.enter(&a));
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        drop(second.await);
        drop(other);
        assert!(order.places.lock().is_empty());
    }

    #[tokio::test]
    async fn a_waiter_that_leaves_blocks_nobody() {
        let order = WriteOrder::default();
        let a = ActorKey::new("ns", "t", "a");
        let first = order.enter(&a).await;
        {
            let mut waiter = Box::pin(order.enter(&a));
            assert!(futures_util::poll!(&mut waiter).is_pending());
        }
        drop(first);
        drop(order.enter(&a).await);
        assert!(order.places.lock().is_empty());
    }

    #[tokio::test]
    async fn a_waiter_that_leaves_after_the_holder_leaves_nothing_behind() {
        let order = WriteOrder::default();
        let a = ActorKey::new("ns", "t", "a");
        let first = order.enter(&a).await;
        let mut waiter = Box::pin(order.enter(&a));
        assert!(futures_util::poll!(&mut waiter).is_pending());
        drop(first);
        drop(waiter);
        assert!(order.places.lock().is_empty());
    }
}
