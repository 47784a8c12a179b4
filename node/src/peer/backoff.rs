//! How long to wait before the next attempt to reach a node.
//!
//! Doubles from the shortest pause to the longest. A link that held proves the road, and the next loss begins again at
//! the shortest; one that ended at once proves nothing, so that a node that accepts and drops is not dialled in a loop.

use std::time::Duration;

#[derive(Debug, Clone)]
pub(super) struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest: longest.max(shortest), next: shortest }
    }

    /// The pause before the next attempt, after one more that failed.
    pub fn failed(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        pause
    }

    /// A link held: the next pause is the shortest.
    pub fn held(&mut self) {
        self.next = self.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again_after_a_link_that_held() {
        let mut backoff = Backoff::new(ms(50), ms(1_000));
        let pauses: Vec<_> = (0..7).map(|_| backoff.failed()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_000, 1_000].map(ms));
        backoff.held();
        assert_eq!(backoff.failed(), ms(50));
        assert_eq!(backoff.failed(), ms(100));
    }

    #[test]
    fn a_longest_pause_below_the_shortest_is_the_shortest() {
        let mut backoff = Backoff::new(ms(50), ms(1));
        assert_eq!((backoff.failed(), backoff.failed()), (ms(50), ms(50)));
    }
}
