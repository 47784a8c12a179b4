//! A node's own counters, read before and after a run: how many writes one sync of the log carried.

use std::net::SocketAddr;

use anyhow::Context;

use super::http;

/// Syncs of the log, and the writes they made durable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counters {
    pub syncs: f64,
    pub writes: f64,
}

/// Names under which a node shows them.
const SYNCS: &str = "callboard_log_syncs_total";
const WRITES: &str = "callboard_log_writes_total";

/// Reads them. `None` when the endpoint shows no such counters, as other Dapr endpoints do not.
///
/// # Errors
///
/// The endpoint does not answer.
pub async fn read(metrics: SocketAddr) -> anyhow::Result<Option<Counters>> {
    let request = http::request("GET", "/metrics", &metrics.to_string(), &[], b"");
    let (status, body) = http::ask(metrics, &request).await.with_context(|| format!("metrics at {metrics}"))?;
    anyhow::ensure!(status == 200, "metrics at {metrics}: status {status}");
    Ok(parse(&String::from_utf8_lossy(&body)))
}

fn parse(text: &str) -> Option<Counters> {
    Some(Counters { syncs: sum(text, SYNCS)?, writes: sum(text, WRITES)? })
}

/// The sum over all label sets of one counter.
fn sum(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let rest = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        rest.split_whitespace().next()?.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

impl Counters {
    pub fn since(self, before: Self) -> Self {
        Self { syncs: self.syncs - before.syncs, writes: self.writes - before.writes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_their_labels_and_told_from_names_that_only_start_alike() {
        let text = "# HELP callboard_log_syncs_total x\n\
                    callboard_log_syncs_total{group=\"a}b\"} 3\n\
                    callboard_log_syncs_total{group=\"c\"} 4 1700000000\n\
                    callboard_log_syncs_total_bucket 100\n\
                    callboard_log_writes_total 50\n";
        assert_eq!(parse(text), Some(Counters { syncs: 7.0, writes: 50.0 }));
        assert_eq!(parse("other 1\n"), None);
    }
}
