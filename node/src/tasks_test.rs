//! Work that is carried to its end, whoever leaves.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::Tasks;

/// Enough for what must happen.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn carried_work_answers_a_caller_that_listens_and_is_no_task_of_its_own() {
    let tasks = Tasks::new();
    let name = tokio::task::try_id();
    let (answer, ran_in) = tasks.carry("test", async { (7, tokio::task::try_id()) }).await;
    assert_eq!((answer, ran_in), (7, name));
    tasks.join().await;
}

#[tokio::test]
async fn carried_work_goes_on_when_its_caller_leaves() {
    let tasks = Tasks::new();
    let (go, (done, end)) = (Arc::new(Notify::new()), oneshot::channel());
    let gate = go.clone();
    let mut work = Box::pin(tasks.carry("test", async move {
        gate.notified().await;
        done.send("done").expect("the test waits");
    }));
    assert!(futures_util::poll!(&mut work).is_pending());
    drop(work);
    go.notify_one();
    assert_eq!(tokio::time::timeout(PATIENCE, end).await.expect("in time"), Ok("done"));
    tasks.join().await;
}

#[tokio::test]
async fn work_whose_caller_left_before_it_began_runs_nevertheless() {
    let tasks = Tasks::new();
    let (done, end) = oneshot::channel();
    drop(tasks.carry("test", async move { done.send("done").expect("the test waits") }));
    assert_eq!(tokio::time::timeout(PATIENCE, end).await.expect("in time"), Ok("done"));
    tasks.join().await;
}

#[tokio::test]
async fn the_end_of_the_node_waits_for_work_whose_caller_left() {
    let tasks = Tasks::new();
    let go = Arc::new(Notify::new());
    let gate = go.clone();
    drop(tasks.carry("test", async move { gate.notified().await }));
    let mut joined = Box::pin(tasks.join());
    assert!(futures_util::poll!(&mut joined).is_pending());
    go.notify_one();
    tokio::time::timeout(PATIENCE, joined).await.expect("in time");
}
