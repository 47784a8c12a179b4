//! A command and its owner: what is proposed, and what waits for its outcome.

use callboard_types::{Activation, Epoch, FencingToken, WriteNumber};

use super::Error;
use super::stage_test::{Stage, answered, cat, upsert};
use super::writes::Write;
use crate::clock;

/// A write of felix in the name of an activation, or of nobody.
fn write(author: Option<FencingToken>) -> Write {
    let author = author.map(|token| (token, WriteNumber(1)));
    Write { author, ops: vec![upsert("food", "fish")], now: clock::wall() }
}

/// A stage on which felix is active, and the token of his activation.
async fn with_felix() -> (Stage, FencingToken) {
    let mut stage = Stage::open().await;
    let mut call = stage.call("felix");
    stage.asked_by(&mut call).await.answer();
    answered(call).await.expect("an answer");
    let token = stage.reign.table.lock().mailboxes.token(Activation(1));
    (stage, token)
}

async fn commit(stage: &Stage, author: Option<FencingToken>) -> Result<(), Error> {
    answered(stage.reign.commit(&cat("felix"), write(author))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_proposed_once_the_ownership_is_over() {
    let (stage, felix) = with_felix().await;
    stage.reign.tenure.resign();
    for author in [None, Some(felix)] {
        let outcome = commit(&stage, author).await;
        assert!(matches!(outcome, Err(Error::NotServing(_))), "{outcome:?}");
    }
    assert_eq!(stage.stored("felix", "food"), None);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_present_activation_of_this_epoch_writes_in_its_name() {
    let (stage, felix) = with_felix().await;
    let strangers = [
        FencingToken { epoch: Epoch(felix.epoch.0 - 1), ..felix },
        FencingToken { epoch: felix.epoch.next(), ..felix },
        FencingToken { activation: Activation(2), ..felix },
    ];
    for stranger in strangers {
        let outcome = commit(&stage, Some(stranger)).await;
        assert!(matches!(outcome, Err(Error::Fenced)), "{outcome:?}");
    }
    assert_eq!(stage.stored("felix", "food"), None);
    commit(&stage, Some(felix)).await.expect("felix writes");
    assert!(stage.stored("felix", "food").is_some());
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_turn_waits_for_a_write_even_if_who_asked_for_it_has_left() {
    let (mut stage, felix) = with_felix().await;
    stage.memory.hold_commits();
    {
        let reign = stage.reign.clone();
        let mut commit = Box::pin(async move { reign.commit(&cat("felix"), write(Some(felix))).await });
        assert!(futures_util::poll!(&mut commit).is_pending());
    }
    let mut call = stage.call("felix");
    stage.not_asked_by(&mut call).await;
    stage.memory.release_commits();
    stage.asked_by(&mut call).await.answer();
    assert!(stage.stored("felix", "food").is_some());
    answered(call).await.expect("an answer");
    stage.end().await;
}
