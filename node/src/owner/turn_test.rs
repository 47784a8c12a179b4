//! A turn and its owner: what is sent to the app, what is released, and who may leave.

use super::Error;
use super::stage_test::{Stage, answered};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_dispatched_once_the_ownership_is_over() {
    let mut stage = Stage::open().await;
    stage.reign.tenure.resign();
    let call = stage.call("felix");
    let answer = stage.answered_unasked(call).await;
    assert!(matches!(answer, Err(Error::NotServing(_))), "{answer:?}");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_that_waits_for_the_app_is_not_sent_once_the_ownership_is_over() {
    let mut stage = Stage::open_narrow().await;
    let mut first = stage.call("felix");
    let asked = stage.asked_by(&mut first).await;
    let mut second = stage.call("tom");
    stage.not_asked_by(&mut second).await;
    stage.reign.tenure.resign();
    asked.answer();
    answered(first).await.expect_err("the ownership is over");
    let answer = stage.answered_unasked(second).await;
    assert!(matches!(answer, Err(Error::NotServing(_))), "{answer:?}");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_not_released_once_the_ownership_is_over() {
    let mut stage = Stage::open().await;
    let mut call = stage.call("felix");
    let asked = stage.asked_by(&mut call).await;
    stage.reign.tenure.resign();
    asked.answer();
    let answer = answered(call).await;
    assert!(matches!(answer, Err(Error::Unknown(_))), "{answer:?}");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_lasts_until_the_app_has_answered_even_if_its_caller_has_left() {
    let mut stage = Stage::open().await;
    let mut left = stage.call("felix");
    let running = stage.asked_by(&mut left).await;
    drop(left);
    let mut next = stage.call("felix");
    stage.not_asked_by(&mut next).await;
    running.answer();
    let asked = stage.asked_by(&mut next).await;
    assert_eq!(asked.line, "PUT /actors/Cat/felix/method/stroke");
    asked.answer();
    assert_eq!(answered(next).await.expect("an answer").body(), "purr");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turns_of_one_actor_wait_for_each_other_and_those_of_two_do_not() {
    let mut stage = Stage::open().await;
    let mut first = stage.call("felix");
    let running = stage.asked_by(&mut first).await;
    let mut second = stage.call("felix");
    stage.not_asked_by(&mut second).await;
    let mut other = stage.call("tom");
    let asked = stage.asked_by(&mut other).await;
    assert_eq!(asked.line, "PUT /actors/Cat/tom/method/stroke");
    asked.answer();
    answered(other).await.expect("an answer");
    running.answer();
    answered(first).await.expect("an answer");
    stage.asked_by(&mut second).await.answer();
    answered(second).await.expect("an answer");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_an_earlier_life_left_is_deleted_before_the_actors_first_turn() {
    let mut stage = Stage::open_after("+[\"default\",\"Cat\",\"felix\"]\n").await;
    let mut call = stage.call("felix");
    let asked = stage.asked_by(&mut call).await;
    assert_eq!(asked.line, "DELETE /actors/Cat/felix");
    stage.not_asked_by(&mut call).await;
    asked.answer();
    let asked = stage.asked_by(&mut call).await;
    assert_eq!(asked.line, "PUT /actors/Cat/felix/method/stroke");
    asked.answer();
    answered(call).await.expect("an answer");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_actor_is_on_the_list_before_the_app_hears_of_it() {
    let mut stage = Stage::open().await;
    let mut call = stage.call("felix");
    let asked = stage.asked_by(&mut call).await;
    assert_eq!(stage.opened(), "+[\"default\",\"Cat\",\"felix\"]\n");
    asked.answer();
    answered(call).await.expect("an answer");
    stage.end().await;
}
