//! The life of the app as the node sees it: pure, driven by what the shell observes.
//!
//! First the port opens, then (with health checks) a first probe succeeds, then `/dapr/config` is read: once per life
//! of the app's process. The types it names are hosted while the app is healthy; a failing check withdraws them and a
//! passing one brings them back without asking again. The process is known to be gone only on proof: a refused
//! connection after the port had been open, or word of the child's exit. Then everything starts over, under a higher
//! incarnation. A reset, a time-out or a failed check proves nothing.
//!
//! Dapr's quirk is kept: while healthy, a success between failures does not clear their count.

use std::sync::Arc;

use callboard_engine::actor_config::HostedTypes;

use super::AppView;

/// Which observations are made at all.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Failures that make the app unhealthy; `None` without health checks.
    pub threshold: Option<u32>,
    /// Whether `/dapr/config` is asked for.
    pub read_config: bool,
}

/// What the shell saw.
#[derive(Debug)]
pub enum Event {
    /// The port accepted a connection.
    Accepted,
    /// The port refused a connection: nobody listens.
    Refused,
    /// The app's process is known to have ended.
    Gone,
    /// A health probe was answered well, or not.
    Probed { healthy: bool },
    /// The answer to `/dapr/config`, or `None` for an answer that hosts nothing.
    Config(Option<HostedTypes>),
}

/// What the shell does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Dial until the port opens.
    Dial,
    /// Probe until the first success.
    Probe,
    ReadConfig,
    /// Watch the port and, with health checks, probe.
    Watch,
}

/// What a change of the view means to whoever runs the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// Nobody listens on the port any more.
    Gone,
    /// It listens, and its health checks fail.
    Unhealthy,
    /// Its health checks pass, again or for the first time.
    Healthy,
}

impl News {
    /// `None` where the port opened without health checks, or something else changed.
    pub fn between(before: &AppView, after: &AppView) -> Option<Self> {
        match (before.port_open, after.port_open) {
            (true, false) => Some(Self::Gone),
            (true, true) if before.healthy && !after.healthy => Some(Self::Unhealthy),
            (true, true) if !before.healthy && after.healthy => Some(Self::Healthy),
            (_, _) => None,
        }
    }
}

#[derive(Debug)]
pub struct Life {
    plan: Plan,
    view: AppView,
    /// Failures counted towards the threshold.
    failures: u32,
    /// The types of this process life, remembered while the app is unhealthy.
    types: Option<Arc<HostedTypes>>,
    /// The port has refused since it was last open.
    gone: bool,
}

impl Life {
    pub fn new(plan: Plan) -> Self {
        Self { plan, view: AppView::default(), failures: 0, types: None, gone: false }
    }

    pub fn view(&self) -> &AppView {
        &self.view
    }

    pub fn next(&self) -> Next {
        if !self.view.port_open {
            Next::Dial
        } else if self.plan.threshold.is_some() && !self.view.healthy && !self.view.config_read {
            Next::Probe
        } else if !self.view.config_read {
            Next::ReadConfig
        } else {
            Next::Watch
        }
    }

    /// Takes in one observation. Returns whether the view changed.
    pub fn on(&mut self, event: Event) -> bool {
        match event {
            Event::Accepted => self.on_accepted(),
            // The first refusal of a closed period is proof, whether or not the port was ever seen open: what an earlier
            // life of the node may have left in the app is gone.
            Event::Refused => !self.gone && self.on_gone(),
            Event::Gone => self.on_gone(),
            Event::Probed { healthy: true } => self.on_healthy(),
            Event::Probed { healthy: false } => self.on_failure(),
            Event::Config(types) => self.on_config(types),
        }
    }

    fn on_accepted(&mut self) -> bool {
        if self.view.port_open {
            return false;
        }
        self.view.port_open = true;
        self.gone = false;
        self.view.healthy = self.plan.threshold.is_none();
        if !self.plan.read_config {
            self.view.config_read = true;
        }
        true
    }

    fn on_gone(&mut self) -> bool {
        self.gone = true;
        self.types = None;
        self.failures = 0;
        self.view = AppView { incarnation: self.view.incarnation + 1, ..AppView::default() };
        true
    }

    fn on_healthy(&mut self) -> bool {
        if self.view.healthy || !self.view.port_open {
            return false;
        }
        self.failures = 0;
        self.view.healthy = true;
        self.view.hosted = self.types.clone();
        true
    }

    fn on_failure(&mut self) -> bool {
        let Some(threshold) = self.plan.threshold else { return false };
        if !self.view.healthy {
            return false;
        }
        self.failures += 1;
        if self.failures < threshold {
            return false;
        }
        self.failures = 0;
        self.view.healthy = false;
        self.view.hosted = None;
        true
    }

    fn on_config(&mut self, types: Option<HostedTypes>) -> bool {
        if !self.view.port_open || self.view.config_read {
            return false;
        }
        self.types = types.map(Arc::new);
        self.view.config_read = true;
        if self.view.healthy {
            self.view.hosted = self.types.clone();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn types() -> Option<HostedTypes> {
        Some(HostedTypes::default())
    }

    fn plain() -> Life {
        Life::new(Plan { threshold: None, read_config: true })
    }

    fn checked(threshold: u32) -> Life {
        Life::new(Plan { threshold: Some(threshold), read_config: true })
    }

    #[test]
    fn without_checks_an_open_port_is_a_healthy_app_and_its_config_is_read_once() {
        let mut life = plain();
        assert_eq!(life.next(), Next::Dial);
        assert!(life.on(Event::Accepted));
        assert!(life.view().healthy);
        assert_eq!(life.next(), Next::ReadConfig);
        assert!(life.on(Event::Config(types())));
        assert_eq!(life.next(), Next::Watch);
        assert!(life.view().hosted.is_some());
        assert!(!life.on(Event::Config(None)), "a second answer of one life counts for nothing");
        assert!(life.view().hosted.is_some());
    }

    #[test]
    fn the_first_refusal_of_a_closed_period_is_proof_that_nothing_is_left() {
        let mut life = plain();
        assert!(
            life.on(Event::Refused),
            "also before the port was ever open: an earlier life of the node may have been"
        );
        assert!(!life.on(Event::Refused));
        assert_eq!(life.view().incarnation, 1);
        life.on(Event::Accepted);
        life.on(Event::Config(types()));
        assert!(life.on(Event::Refused));
        assert_eq!(life.view().incarnation, 2);
        assert!(life.view().hosted.is_none() && !life.view().config_read && !life.view().healthy);
        assert!(!life.on(Event::Refused), "one end is counted once");
        life.on(Event::Accepted);
        assert_eq!(life.next(), Next::ReadConfig, "the next life is asked again");
    }

    #[test]
    fn with_checks_nothing_is_hosted_before_the_first_success() {
        let mut life = checked(3);
        life.on(Event::Accepted);
        assert!(!life.view().healthy);
        assert_eq!(life.next(), Next::Probe);
        assert!(!life.on(Event::Probed { healthy: false }));
        assert!(life.on(Event::Probed { healthy: true }));
        assert_eq!(life.next(), Next::ReadConfig);
        life.on(Event::Config(types()));
        assert!(life.view().hosted.is_some());
    }

    #[test]
    fn the_threshold_counts_failures_across_successes_while_healthy() {
        let mut life = checked(3);
        life.on(Event::Accepted);
        life.on(Event::Probed { healthy: true });
        life.on(Event::Config(types()));
        for healthy in [false, true, false, true] {
            assert!(!life.on(Event::Probed { healthy }));
            assert!(life.view().healthy);
        }
        assert!(life.on(Event::Probed { healthy: false }), "the third failure, successes notwithstanding");
        assert!(!life.view().healthy && life.view().hosted.is_none());
        assert!(life.view().config_read, "the types are remembered");
        assert_eq!(life.next(), Next::Watch);
    }

    #[test]
    fn one_success_restores_the_types_without_asking_again() {
        let mut life = checked(1);
        life.on(Event::Accepted);
        life.on(Event::Probed { healthy: true });
        life.on(Event::Config(types()));
        life.on(Event::Probed { healthy: false });
        assert!(life.view().hosted.is_none());
        assert!(life.on(Event::Probed { healthy: true }));
        assert!(life.view().hosted.is_some());
        assert_eq!(life.view().incarnation, 0, "a failed check is no proof of a process's end");
    }

    #[test]
    fn a_config_that_arrives_while_unhealthy_hosts_nothing_yet() {
        let mut life = checked(1);
        life.on(Event::Accepted);
        life.on(Event::Probed { healthy: true });
        life.on(Event::Probed { healthy: false });
        life.on(Event::Config(types()));
        assert!(life.view().hosted.is_none());
        life.on(Event::Probed { healthy: true });
        assert!(life.view().hosted.is_some());
    }

    #[test]
    fn a_disabled_config_is_never_read() {
        let mut life = Life::new(Plan { threshold: None, read_config: false });
        life.on(Event::Accepted);
        assert_eq!(life.next(), Next::Watch);
        assert!(life.view().config_read && life.view().hosted.is_none());
    }

    #[test]
    fn losing_the_app_is_news_once_and_so_is_its_being_back() {
        let mut life = checked(1);
        let mut news = |event| {
            let before = life.view().clone();
            life.on(event);
            News::between(&before, life.view())
        };
        assert_eq!(news(Event::Refused), None, "it was not there yet");
        assert_eq!(news(Event::Accepted), None);
        assert_eq!(news(Event::Probed { healthy: true }), Some(News::Healthy));
        assert_eq!(news(Event::Config(types())), None);
        assert_eq!(news(Event::Probed { healthy: false }), Some(News::Unhealthy));
        assert_eq!(news(Event::Probed { healthy: false }), None);
        assert_eq!(news(Event::Probed { healthy: true }), Some(News::Healthy));
        assert_eq!(news(Event::Refused), Some(News::Gone));
        assert_eq!(news(Event::Gone), None);
        assert_eq!(news(Event::Accepted), None);
        assert_eq!(news(Event::Gone), Some(News::Gone));
    }

    #[test]
    fn word_of_the_exit_ends_a_life_even_before_the_port_opened() {
        let mut life = plain();
        assert!(life.on(Event::Gone));
        assert_eq!(life.view().incarnation, 1);
    }
}
