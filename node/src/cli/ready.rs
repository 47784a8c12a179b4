//! Says once that the node can be used.
//!
//! Scripts wait for these lines: `You're up and running!` from `dapr run`, `dapr initialized. Status: Running.` from the
//! sidecar itself. They are printed when the APIs answer, the app has been reached and its actor types are hosted.

use std::io::Write;
use std::time::Duration;

use super::persona::Persona;
use crate::node::BoundPorts;

/// To be used when the node is ready, at most once.
#[derive(Debug)]
pub struct Announce {
    persona: Persona,
    /// Whether there is an app whose output appears beside ours.
    with_app: bool,
}

impl Announce {
    pub fn new(persona: Persona, with_app: bool) -> Self {
        Self { persona, with_app }
    }

    /// Tells that the node became ready `elapsed` after its start.
    pub fn ready(self, ports: &BoundPorts, elapsed: Duration) {
        let ms = elapsed.as_millis();
        match self.persona {
            Persona::Daprd => tracing::info!("dapr initialized. Status: Running. Init Elapsed {ms}ms"),
            Persona::Callboard | Persona::Dapr => {
                // A closed stdout has no reader to disappoint.
                let _ = write!(std::io::stdout().lock(), "{}", self.text(ports, ms));
            }
        }
    }

    fn text(&self, ports: &BoundPorts, ms: u128) -> String {
        let initialized = format!("dapr initialized. Status: Running. Init Elapsed {ms}ms\n");
        match (self.persona, self.with_app) {
            (Persona::Dapr, true) => {
                format!("{initialized}✅  You're up and running! Both Dapr and your app logs will appear here.\n\n")
            }
            (Persona::Dapr, false) => {
                format!("{initialized}✅  You're up and running! Dapr logs will appear here.\n\n")
            }
            (Persona::Callboard | Persona::Daprd, _) => {
                format!("{initialized}You're up and running! http://127.0.0.1:{} is the Dapr API.\n", ports.http)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_that_scripts_wait_for_are_there_under_either_name() {
        for persona in [Persona::Callboard, Persona::Dapr] {
            for with_app in [true, false] {
                let text = Announce::new(persona, with_app).text(&BoundPorts { http: 3500, ..Default::default() }, 12);
                assert!(text.contains("You're up and running!"), "{text}");
                assert!(text.contains("dapr initialized. Status: Running."), "{text}");
            }
        }
    }
}
