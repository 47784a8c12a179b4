//! When an owner may act: not after its tenure is over, and not when nobody has confirmed it lately.

use std::collections::BTreeSet;

use callboard_storage::Memory;
use openraft::async_runtime::watch::Watch;
use openraft::membership::Membership;
use openraft::metrics::SerdeInstant;
use openraft_rt_tokio::TokioWatch;

use super::*;
use crate::tests::{claim, first, start_in};
use crate::type_config::StoredMembership;

/// The tenure as it were if a second voter counted, and the last answer of a quorum was asked for so long ago.
fn acked(tenure: &Tenure, ago: Duration) -> Tenure {
    let mut metrics = tenure.metrics.borrow_watched().clone();
    let voters = Membership::new_with_defaults(vec![BTreeSet::from([1, 2])], []);
    metrics.membership_config = Arc::new(StoredMembership::new(None, voters));
    metrics.last_quorum_acked = Some(SerdeInstant::new(TokioInstant::now() - ago));
    let (_sender, metrics) = TokioWatch::channel(metrics);
    Tenure { metrics, ..tenure.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_a_quorum_makes_an_owner_for_no_longer_than_the_lease() {
    let groups = start_in(&Memory::new(), 1).await;
    let tenure = claim(&first(&groups)).await;
    let lease = tenure.tenancy.replica.timing.election_max;
    acked(&tenure, Duration::ZERO).check().expect("just answered");
    assert!(acked(&tenure, usable(lease)).check().is_err(), "the quorum may have another leader by its own clocks");
    assert!(acked(&tenure, lease).check().is_err());
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_gave_up_may_not_act() {
    let groups = start_in(&Memory::new(), 1).await;
    let tenure = claim(&first(&groups)).await;
    tenure.check().expect("it owns the partition");
    tenure.resign();
    assert!(tenure.check().is_err());
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_may_not_act_after_a_later_claim() {
    let groups = start_in(&Memory::new(), 1).await;
    let earlier = claim(&first(&groups)).await;
    let later = claim(&first(&groups)).await;
    assert!(earlier.check().is_err());
    later.check().expect("it owns the partition");
    groups.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_may_not_act_while_its_leadership_is_handed_on() {
    let groups = start_in(&Memory::new(), 1).await;
    let tenure = claim(&first(&groups)).await;
    tenure.tenancy.replica.give_up(tenure.term);
    assert!(tenure.check().is_err());
    groups.shutdown().await;
}
