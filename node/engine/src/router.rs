//! Where a call of an actor goes next: here, to another node, nowhere for a moment, or back to the caller.
//!
//! One [`Route`] belongs to one call at one node. The shell asks it where to go ([`Route::next`]), goes there, and tells
//! it when that failed ([`Route::failed`]); in between it does what a shell does: sends, sleeps, wakes early because the
//! view or the ownership changed.
//!
//! Two rules make up all of it.
//!
//! *One forward.* A node that was handed the call by another runs it or sends it back, with the name of the owner it
//! believes in; only the entrance looks further, and only the entrance tries again. So wrong views of two nodes cost a round trip and never a circle. Of two
//! names the entrance follows the one with the later claim, and at once when it learned it just then.
//!
//! *Nothing that may have happened is repeated.* What certainly had no effect is tried again until its time is up; the
//! rest is the caller's to decide. The one exception: a turn that a planned move cut off is run again although it had
//! begun, because its token is dead and nothing it did after counts.
//!
//! | failure | happened? | tried again |
//! |---|---|---|
//! | no owner known, or not the one asked | no | until the caller's deadline, else [`RouteLimits::retry_for`] |
//! | the owner's node is not reached, nothing sent | no | same |
//! | cut off by a planned move | not so that it counts | same, from the cut on |
//! | nobody hosts the type; the app is away, nothing sent | no | [`RouteLimits::host_wait`], at most until the deadline |
//! | refused: mailbox full, invalid, fenced | no | never: the answer is clear |
//! | sent and no answer | perhaps | never |
//!
//! Time counts from the first failure in a row, not from the call's arrival: waiting in a mailbox is no failure, and a
//! call whose owner moves after a long wait gets as long to find the next one. [`RouteLimits::longest`] bounds all of it.

#[cfg(test)]
mod router_test;

use std::time::Duration;

use callboard_types::{Class, NodeId};

use crate::Instant;
use crate::view::Located;

/// Spans of the retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteLimits {
    /// How long the owner is looked for when the caller named no deadline.
    pub retry_for: Duration,
    /// How long a host of the type is waited for.
    pub host_wait: Duration,
    /// No call without a deadline is tried again when it is older.
    pub longest: Duration,
    /// The pause after the first failure; it doubles with each.
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

impl Default for RouteLimits {
    fn default() -> Self {
        Self {
            retry_for: Duration::from_secs(15),
            host_wait: Duration::from_secs(5),
            longest: Duration::from_secs(55),
            first_pause: Duration::from_millis(10),
            longest_pause: Duration::from_millis(200),
        }
    }
}

/// An attempt that was answered after this long had been taken in by an owner: what follows is another row of failures.
const TAKEN_IN: Duration = Duration::from_secs(1);

/// Who handed the call to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A caller, or this node itself: it is the entrance.
    Caller,
    /// Another node, which has forwarded it.
    Peer,
}

/// What a node sees when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    pub me: NodeId,
    /// This node owns the partition, and its tenure is valid.
    pub serving: bool,
    /// The view's owner.
    pub owner: Option<Located>,
}

/// Where the call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// This node's owner takes it.
    Local,
    /// Once, with the remaining time.
    Forward {
        to: NodeId,
    },
    /// Ask again after the pause, or earlier when the view or the ownership has changed.
    Retry {
        after: Duration,
    },
    Reject(Reject),
}

/// Why a call ends without an answer of the actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// To the node that forwarded it: not here. Nothing happened.
    NotHere { owner: Option<Located> },
    /// It was tried for as long as it may be, and this was the last failure. Nothing happened.
    TimeUp(Failure),
    /// The failure is the answer: nothing can be tried again, or the node that forwarded it will.
    Failed(Failure),
}

impl Reject {
    pub const fn class(&self) -> Class {
        match self {
            Reject::NotHere { owner: _ } => Class::Redirected,
            Reject::TimeUp(_) => Class::Busy,
            Reject::Failed(failure) => failure.class(),
        }
    }
}

/// How an attempt ended that brought no answer of the actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nobody is known to own the partition, or this node is and does not yet.
    NoOwner,
    /// The node asked is not the owner, and says who is.
    NotOwner { owner: Option<Located> },
    /// The node could not be reached; certainly nothing was sent.
    Unreachable,
    /// A planned move cut the turn off.
    Cut,
    /// No live node hosts the type.
    NoHost,
    /// The app could not be reached; certainly nothing was sent.
    AppAway,
    /// Anything else, by what may have happened.
    Final(Class),
}

impl Failure {
    pub const fn class(&self) -> Class {
        match self {
            Failure::NoOwner | Failure::NotOwner { owner: _ } => Class::Redirected,
            Failure::Unreachable | Failure::Cut | Failure::NoHost | Failure::AppAway => Class::Busy,
            Failure::Final(class) => *class,
        }
    }
}

/// One call at one node.
#[derive(Debug, Clone)]
pub struct Route {
    limits: RouteLimits,
    origin: Origin,
    arrived: Instant,
    deadline: Option<Instant>,
    /// The latest owner that an answer named.
    told: Option<Located>,
    /// The one last forwarded to.
    asked: Option<Located>,
    trouble: Option<Trouble>,
}

/// Failures in a row.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    since: Instant,
    no_host_since: Option<Instant>,
    failures: u32,
    last: Failure,
}

impl Route {
    /// `deadline` is the caller's, not a patience of this node.
    pub const fn new(limits: RouteLimits, origin: Origin, deadline: Option<Instant>, now: Instant) -> Self {
        Self { limits, origin, arrived: now, deadline, told: None, asked: None, trouble: None }
    }

    /// Where to go.
    pub fn next(&mut self, outlook: Outlook, now: Instant) -> Decision {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            let last = self.trouble.map_or(Failure::NoOwner, |trouble| trouble.last);
            return Decision::Reject(Reject::TimeUp(last));
        }
        if outlook.serving {
            return Decision::Local;
        }
        let owner = later(outlook.owner, self.told).filter(|owner| owner.node != outlook.me);
        match (self.origin, owner) {
            (Origin::Peer, owner) => Decision::Reject(Reject::NotHere { owner }),
            (Origin::Caller, Some(owner)) => {
                self.asked = Some(owner);
                Decision::Forward { to: owner.node }
            }
            (Origin::Caller, None) => self.failed(Failure::NoOwner, now, now),
        }
    }

    /// The attempt that began at `began` has failed: whether, and when, to ask for the next one.
    pub fn failed(&mut self, failure: Failure, began: Instant, now: Instant) -> Decision {
        let learned = match failure {
            Failure::Final(_) => return Decision::Reject(Reject::Failed(failure)),
            Failure::NotOwner { owner } if self.origin == Origin::Peer => {
                return Decision::Reject(Reject::NotHere { owner });
            }
            Failure::Unreachable | Failure::NoOwner | Failure::Cut | Failure::NoHost | Failure::AppAway
                if self.origin == Origin::Peer =>
            {
                return Decision::Reject(Reject::Failed(failure));
            }
            Failure::NotOwner { owner } => {
                let learned = owner.is_some_and(|owner| self.asked.is_none_or(|asked| owner.claim > asked.claim));
                self.told = if learned { owner } else { None };
                learned
            }
            // What was told may be what could not be reached.
            Failure::Unreachable => {
                self.told = None;
                false
            }
            Failure::NoOwner | Failure::Cut | Failure::NoHost | Failure::AppAway => false,
        };
        let trouble = self.trouble_after(failure, began, now);
        self.trouble = Some(trouble);
        let until = self.until(&trouble);
        if now >= until {
            return Decision::Reject(Reject::TimeUp(failure));
        }
        let pause = if learned && trouble.failures == 1 { Duration::ZERO } else { self.pause(trouble.failures) };
        Decision::Retry { after: pause.min(until.saturating_since(now)) }
    }

    fn trouble_after(&self, failure: Failure, began: Instant, now: Instant) -> Trouble {
        let taken_in = match failure {
            Failure::Cut => true,
            Failure::NotOwner { .. } | Failure::NoHost | Failure::AppAway => now.saturating_since(began) >= TAKEN_IN,
            // Silence of a node takes time, too.
            Failure::NoOwner | Failure::Unreachable | Failure::Final(_) => false,
        };
        let before = self.trouble.filter(|_| !taken_in);
        let mut trouble = before.unwrap_or(Trouble { since: now, no_host_since: None, failures: 0, last: failure });
        trouble.last = failure;
        trouble.failures = trouble.failures.saturating_add(1);
        match failure {
            Failure::NoHost | Failure::AppAway => trouble.no_host_since = trouble.no_host_since.or(Some(now)),
            Failure::NoOwner | Failure::NotOwner { .. } | Failure::Unreachable | Failure::Cut | Failure::Final(_) => {
                trouble.no_host_since = None;
            }
        }
        trouble
    }

    fn until(&self, trouble: &Trouble) -> Instant {
        let limits = &self.limits;
        let bound = self.arrived.saturating_add(limits.longest);
        let owned = self.deadline.unwrap_or_else(|| trouble.since.saturating_add(limits.retry_for).min(bound));
        let hosted = trouble.no_host_since.map_or(Instant::MAX, |since| since.saturating_add(limits.host_wait));
        owned.min(hosted)
    }

    fn pause(&self, failures: u32) -> Duration {
        let doubled = self.limits.first_pause.saturating_mul(1 << (failures - 1).min(16));
        doubled.min(self.limits.longest_pause)
    }
}

/// The one with the later claim; a claim is later than none.
fn later(a: Option<Located>, b: Option<Located>) -> Option<Located> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.claim > a.claim { b } else { a }),
        (a, b) => a.or(b),
    }
}
