//! A read and its owner: it counts only between two checks of the ownership.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Error;
use super::stage_test::{Stage, answered, cat};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_read_once_the_ownership_is_over() {
    let stage = Stage::open().await;
    assert!(matches!(stage.reign.state(&cat("felix"), "food"), Ok(None)));
    assert!(matches!(stage.reign.reminder(&cat("felix"), "nap"), Ok(None)));
    stage.reign.tenure.resign();
    let state = stage.reign.state(&cat("felix"), "food");
    assert!(matches!(state, Err(Error::NotServing(_))), "{state:?}");
    let reminder = stage.reign.reminder(&cat("felix"), "nap");
    assert!(matches!(reminder, Err(Error::NotServing(_))), "{reminder:?}");
    let read = Arc::new(AtomicBool::new(false));
    let scan = {
        let read = read.clone();
        stage.reign.scan(move |_| {
            read.store(true, Ordering::SeqCst);
            Ok(())
        })
    };
    let rows = answered(scan).await;
    assert!(matches!(rows, Err(Error::NotServing(_))), "{rows:?}");
    assert!(!read.load(Ordering::SeqCst), "the store was read");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_read_while_the_ownership_ended_are_no_answer() {
    let stage = Stage::open().await;
    let tenure = stage.reign.tenure.clone();
    let rows = answered(stage.reign.scan(move |_| {
        tenure.resign();
        Ok(())
    }))
    .await;
    assert!(matches!(rows, Err(Error::NotServing(_))), "{rows:?}");
    stage.end().await;
}
