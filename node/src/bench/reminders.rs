//! Registers reminders and sees them fire.
//!
//! Each is due once at an absolute instant, which its data repeats, so that the app can tell how late it came. All are
//! due after the last one has been registered: registration and firing are measured apart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::app::{Stats, unix_now};
use super::http;
use super::load::{Arrival, Plan, Repeat};
use super::report::{ReminderRun, Run};
use super::scenario::Target;

/// Connections that register.
const CONNECTIONS: usize = 64;
/// Registrations per second that are counted on, to have them done before the first is due.
const EXPECTED_RATE: f64 = 1_500.0;
/// On top of that.
const LEAD: Duration = Duration::from_secs(3);
/// Time after the last due instant in which firings are still waited for.
const LATEST: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Registers `count` reminders due over `window` and waits until all have fired, or [`LATEST`] has passed.
///
/// # Errors
///
/// The app does not tell what it has seen.
pub async fn measure(target: &Target, count: u32, window: Duration, threads: u8) -> anyhow::Result<ReminderRun> {
    forget(target).await?;
    let lead = LEAD + Duration::from_secs_f64(f64::from(count) / EXPECTED_RATE);
    let first = unix_now() + lead;
    let due = |number: u32| first + window.mul_f64(f64::from(number) / f64::from(count));
    let micros = |at: Duration| u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
    let requests: Vec<_> =
        (0..count).map(|number| target.reminder(usize::try_from(number).unwrap_or(0), micros(due(number)))).collect();
    let plan = Plan {
        to: target.dapr,
        requests: Arc::from(requests),
        connections: CONNECTIONS,
        arrival: Arrival::Closed,
        warm_up: Duration::ZERO,
        duration: lead + window,
        repeat: Repeat::Once,
    };
    let outcome = super::offer(plan, threads).await?;
    if unix_now() > first {
        eprintln!(
            "callboard: registration took longer than expected; the first reminders were due before they were registered"
        );
    }
    let registered = outcome.latencies.len();
    let firing = fired(target, registered, first + window).await?;
    Ok(ReminderRun {
        registered,
        registration: Run::of("remind", CONNECTIONS, Arrival::Closed, &outcome),
        firing: firing.reminders,
        firing_seconds: unix_now().saturating_sub(first).as_secs_f64(),
    })
}

async fn fired(target: &Target, registered: u64, last_due: Duration) -> anyhow::Result<Stats> {
    let limit = Instant::now() + last_due.saturating_sub(unix_now()) + LATEST;
    loop {
        let stats = seen(target).await?;
        if stats.reminders.distinct >= registered || Instant::now() >= limit {
            return Ok(stats);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What the app has seen.
///
/// # Errors
///
/// Its address is not known, or it is not the echo app.
pub async fn seen(target: &Target) -> anyhow::Result<Stats> {
    let (status, body) = ask(target, "GET").await?;
    anyhow::ensure!(status == 200, "the app has no /stats: status {status}; is it the echo app?");
    serde_json::from_slice(&body).context("the app's /stats is not that of the echo app")
}

async fn forget(target: &Target) -> anyhow::Result<()> {
    ask(target, "DELETE").await.map(drop)
}

async fn ask(target: &Target, method: &str) -> anyhow::Result<(u16, Vec<u8>)> {
    let app = target.app.context("reminders need the app's address: give --app, or --reminders 0")?;
    http::ask(app, &http::request(method, "/stats", &app.to_string(), &[], b"")).await.context("--app")
}
