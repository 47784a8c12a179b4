//! What is measured: the requests of each scenario.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::http;

/// One kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// The app itself, without a sidecar: what everything else is compared with.
    Direct,
    /// Service invocation of the same method through the sidecar.
    Invoke,
    /// A method of many actors that answers at once.
    Noop,
    /// A method of many actors that reads and writes state.
    ReadWrite,
    /// `Noop` on a single actor: turns queue.
    HotNoop,
    /// `ReadWrite` on a single actor.
    HotReadWrite,
}

impl Scenario {
    pub const ALL: [Self; 6] =
        [Self::Direct, Self::Invoke, Self::Noop, Self::ReadWrite, Self::HotNoop, Self::HotReadWrite];

    /// As written on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Invoke => "invoke",
            Self::Noop => "noop",
            Self::ReadWrite => "rw",
            Self::HotNoop => "hot-noop",
            Self::HotReadWrite => "hot-rw",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.name() == name)
    }

    /// Whether each call is a durable write.
    pub const fn writes(self) -> bool {
        match self {
            Self::ReadWrite | Self::HotReadWrite => true,
            Self::Direct | Self::Invoke | Self::Noop | Self::HotNoop => false,
        }
    }
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The sidecar's HTTP API.
    pub dapr: SocketAddr,
    /// The app; `None` = not known, and then `direct` is left out.
    pub app: Option<SocketAddr>,
    pub app_id: String,
    pub actor_type: String,
    pub token: Option<String>,
    /// Actors that the calls are spread over.
    pub actors: usize,
    /// Bytes of each request's body.
    pub body: usize,
    /// Keeps the actors of one run apart from those of another.
    pub run: String,
}

/// The requests of `scenario`, and where to send them; `None` when the target does not have it.
pub fn requests(scenario: Scenario, target: &Target) -> Option<(SocketAddr, Arc<[Bytes]>)> {
    let to = match scenario {
        Scenario::Direct => target.app?,
        Scenario::Invoke | Scenario::Noop | Scenario::ReadWrite | Scenario::HotNoop | Scenario::HotReadWrite => {
            target.dapr
        }
    };
    let post = |path: String| target.post(to, &path);
    let method = |method: &str, actors: usize| -> Arc<[Bytes]> {
        (0..actors).map(|n| post(target.actor_path(&n.to_string(), &format!("method/{method}")))).collect()
    };
    let requests = match scenario {
        Scenario::Direct => Arc::from([post("/echo".to_owned())]),
        Scenario::Invoke => Arc::from([post(format!("/v1.0/invoke/{}/method/echo", target.app_id))]),
        Scenario::Noop => method("noop", target.actors),
        Scenario::ReadWrite => method("rw", target.actors),
        Scenario::HotNoop => Arc::from([post(target.actor_path("hot", "method/noop"))]),
        Scenario::HotReadWrite => Arc::from([post(target.actor_path("hot", "method/rw"))]),
    };
    Some((to, requests))
}

impl Target {
    fn actor_path(&self, id: &str, rest: &str) -> String {
        format!("/v1.0/actors/{}/{}-{id}/{rest}", self.actor_type, self.run)
    }

    fn post(&self, to: SocketAddr, path: &str) -> Bytes {
        self.post_body(to, path, "text/plain", &vec![b'x'; self.body])
    }

    fn post_body(&self, to: SocketAddr, path: &str, content_type: &str, body: &[u8]) -> Bytes {
        let mut headers = vec![("content-type", content_type)];
        headers.extend(self.token.as_deref().filter(|_| to == self.dapr).map(|token| ("dapr-api-token", token)));
        http::request("POST", path, &to.to_string(), &headers, body)
    }

    /// Registers reminder `number`, which fires once at `due`, microseconds since 1970.
    pub fn reminder(&self, number: usize, due: u64) -> Bytes {
        let path = self.actor_path(&(number % self.actors.max(1)).to_string(), &format!("reminders/r-{number}"));
        let body = format!(r#"{{"data":{{"due":{due}}},"dueTime":"{}"}}"#, rfc3339(due));
        self.post_body(self.dapr, &path, "application/json", body.as_bytes())
    }
}

/// An absolute instant, as the Dapr time grammar takes it.
fn rfc3339(micros: u64) -> String {
    let at = chrono::DateTime::from_timestamp_micros(i64::try_from(micros).unwrap_or(i64::MAX)).unwrap_or_default();
    at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            dapr: "127.0.0.1:3500".parse().unwrap(),
            app: Some("127.0.0.1:8080".parse().unwrap()),
            app_id: "shop".into(),
            actor_type: "cat".into(),
            token: Some("t".into()),
            actors: 3,
            body: 4,
            run: "r1".into(),
        }
    }

    fn text(scenario: Scenario) -> Vec<String> {
        let (_, requests) = requests(scenario, &target()).unwrap();
        requests.iter().map(|request| String::from_utf8(request.to_vec()).unwrap()).collect()
    }

    #[test]
    fn each_scenario_sends_what_its_name_says() {
        let starts = [
            (Scenario::Direct, 1, "POST /echo HTTP/1.1\r\nhost: 127.0.0.1:8080\r\n"),
            (Scenario::Invoke, 1, "POST /v1.0/invoke/shop/method/echo HTTP/1.1\r\n"),
            (Scenario::Noop, 3, "POST /v1.0/actors/cat/r1-0/method/noop HTTP/1.1\r\n"),
            (Scenario::ReadWrite, 3, "POST /v1.0/actors/cat/r1-0/method/rw HTTP/1.1\r\n"),
            (Scenario::HotNoop, 1, "POST /v1.0/actors/cat/r1-hot/method/noop HTTP/1.1\r\n"),
            (Scenario::HotReadWrite, 1, "POST /v1.0/actors/cat/r1-hot/method/rw HTTP/1.1\r\n"),
        ];
        for (scenario, count, start) in starts {
            let requests = text(scenario);
            assert_eq!(requests.len(), count, "{scenario:?}");
            assert!(requests[0].starts_with(start), "{}", requests[0]);
            assert!(requests[0].ends_with("content-length: 4\r\n\r\nxxxx"), "{}", requests[0]);
            assert_eq!(requests[0].contains("dapr-api-token: t\r\n"), scenario != Scenario::Direct, "{scenario:?}");
        }
    }

    #[test]
    fn without_the_apps_address_there_is_nothing_direct() {
        assert!(requests(Scenario::Direct, &Target { app: None, ..target() }).is_none());
    }

    #[test]
    fn a_reminder_is_due_at_an_absolute_instant_that_its_data_repeats() {
        let request = String::from_utf8(target().reminder(4, 1_500_000_000_250_000).to_vec()).unwrap();
        assert!(request.starts_with("POST /v1.0/actors/cat/r1-1/reminders/r-4 HTTP/1.1\r\n"), "{request}");
        let body = request.split("\r\n\r\n").nth(1).unwrap();
        assert_eq!(body, r#"{"data":{"due":1500000000250000},"dueTime":"2017-07-14T02:40:00.250000Z"}"#);
    }

    #[test]
    fn names_are_read_back() {
        for scenario in Scenario::ALL {
            assert_eq!(Scenario::parse(scenario.name()), Some(scenario));
        }
        assert_eq!(Scenario::parse("x"), None);
    }
}
