//! `--wait`: blocks until the node beside us answers, as `daprd --wait` does in start scripts.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::client::{Endpoint, Request};
use super::flags::Given;

/// In total.
const LIMIT: Duration = Duration::from_secs(60);
/// Per question.
const ONE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(100);

/// Exit code 0 once `healthz/outbound` answers well.
///
/// # Errors
///
/// It did not within [`LIMIT`].
pub fn outbound(given: &Given) -> anyhow::Result<u8> {
    let port = given.text("dapr-http-port").unwrap_or("3500");
    let endpoint = Endpoint::parse(port)?;
    super::runtime()?.block_on(until_outbound(&endpoint, LIMIT))
}

pub async fn until_outbound(endpoint: &Endpoint, limit: Duration) -> anyhow::Result<u8> {
    let started = Instant::now();
    loop {
        let asked = tokio::time::timeout(ONE, endpoint.ask(Request::get("/v1.0/healthz/outbound"))).await;
        if let Ok(Ok(answer)) = asked
            && answer.status.is_success()
        {
            return Ok(0);
        }
        if started.elapsed() >= limit {
            bail!("http://{} was not ready within {} s", endpoint.authority, limit.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
