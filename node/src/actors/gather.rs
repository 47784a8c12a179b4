//! Lists over all partitions: what each owner finds, here or on other nodes, becomes one list, in order and of bounded
//! length.
//!
//! An owner is followed as the road follows it: a wrong idea of where it is costs another look. Reads may be repeated,
//! so nothing ends this early but an error of the read itself, or the time being up. A partition whose owner has not
//! answered by then makes the whole list fail, under its number: a list never lacks a part without saying so.

use std::cmp::Ordering;
use std::time::Duration;

use bytes::Bytes;
use callboard_engine::Instant;
use callboard_proto::calls as wire;
use callboard_types::{NodeId, PartitionId};
use prost::Message;

use super::road::Place;
use super::{Actors, Error};
use crate::app::Error as AppError;
use crate::calls::failure;
use crate::calls::scan::{self, Listed, Page, Scan};
use crate::clock;
use crate::links::Errand;
use crate::owner::{Error as OwnerError, Reign};

/// One answer of an owner on another node is waited for this long; then it is looked for again.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

impl Actors {
    /// The first `limit` rows, by `order`, of those in all partitions that are `wanted`.
    pub(super) async fn gather<R: Listed>(
        &self,
        scan: Scan,
        limit: usize,
        order: fn(&R, &R) -> Ordering,
        wanted: impl Fn(&R) -> bool,
    ) -> Result<Vec<R>, Error> {
        let until = clock::monotonic().saturating_add(self.inner.limits.retry_for);
        let mut rows = Vec::new();
        for partition in (0..self.inner.partitions).map(PartitionId) {
            let more = self.list(partition, &scan, until).await?;
            merge(&mut rows, more, limit, order, &wanted);
        }
        Ok(rows)
    }

    /// The rows of one partition: as many pages as the scan's limit takes.
    async fn list<R: Listed>(&self, partition: PartitionId, scan: &Scan, until: Instant) -> Result<Vec<R>, OwnerError> {
        let mut scan = scan.clone();
        let mut rows: Vec<R> = Vec::new();
        let limit = scan.limit;
        loop {
            let page = self.at_owner(partition, until, |place| self.page(place, partition, &scan)).await?;
            let more = page.more;
            let found = R::take(page.rows);
            rows.extend(found.ok_or_else(|| OwnerError::Storage("the owner listed rows of another kind".to_owned()))?);
            match rows.last() {
                Some(last) if more && rows.len() < limit => {
                    scan = Scan { list: last.list_behind(&scan.list), limit: limit - rows.len() };
                }
                Some(_) | None => return Ok(rows),
            }
        }
    }

    async fn page(&self, place: Place, partition: PartitionId, scan: &Scan) -> Result<Page, OwnerError> {
        match place {
            Place::Here(owner) => owner.reign()?.list(scan).await,
            Place::There(node) => {
                let body = scan::put_scan(partition, scan).encode_to_vec();
                let answer = self.errand_to_owner(node, partition, Errand::Scan, body.into()).await?;
                let garbled = |why: &dyn std::fmt::Display| OwnerError::Unknown(why.to_string().into());
                let message = wire::Scanned::decode(answer).map_err(|error| garbled(&error))?;
                scan::get_page(&scan.list, message).map_err(|error| garbled(&error))
            }
            Place::Nowhere => Err(OwnerError::NotServing(partition)),
        }
    }

    /// Has the partition's owner show that it is one and that its log moves, wherever it is.
    pub(super) async fn prove_at_owner(&self, partition: PartitionId, until: Instant) -> Result<(), OwnerError> {
        self.at_owner(partition, until, |place| async move {
            match place {
                Place::Here(owner) => owner.reign()?.prove().await,
                Place::There(node) => {
                    let body = wire::Prove { partition: partition.0 }.encode_to_vec();
                    self.errand_to_owner(node, partition, Errand::Prove, body.into()).await.map(drop)
                }
                Place::Nowhere => Err(OwnerError::NotServing(partition)),
            }
        })
        .await
    }

    /// Asks one place after the other until the partition's owner has answered, or `until` has come.
    async fn at_owner<R, F>(
        &self,
        partition: PartitionId,
        until: Instant,
        ask: impl Fn(Place) -> F,
    ) -> Result<R, OwnerError>
    where
        F: Future<Output = Result<R, OwnerError>>,
    {
        let mut tries = 0;
        loop {
            let place = self.place(partition, tries);
            tries += 1;
            let left = until.saturating_since(clock::monotonic());
            let asked = tokio::time::timeout(left, ask(place.clone())).await;
            match asked.unwrap_or(Err(OwnerError::NotServing(partition))) {
                Ok(answer) => return Ok(answer),
                // Asked again: it is a read, or as good as one.
                Err(OwnerError::NotServing(_) | OwnerError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
            if clock::monotonic() >= until || self.inner.tasks.is_stopping() {
                return Err(OwnerError::NotServing(partition));
            }
            self.pause(&place).await;
        }
    }

    async fn errand_to_owner(
        &self,
        node: NodeId,
        partition: PartitionId,
        errand: Errand,
        body: Bytes,
    ) -> Result<Bytes, OwnerError> {
        let answer = self.inner.links.send(node, errand, body, ANSWER_LIMIT).await;
        answer.map_err(|error| self.unanswered(node, partition, error))
    }

    /// Another node asks for rows of a partition that is owned here.
    pub async fn listed(&self, body: Bytes) -> Result<Bytes, Bytes> {
        let message = wire::Scan::decode(body).map_err(malformed)?;
        let (partition, scan) = scan::get_scan(message).map_err(malformed)?;
        let page = match self.reign_of(partition) {
            Ok(reign) => reign.list(&scan).await,
            Err(error) => Err(error),
        };
        page.map(|page| scan::put_page(page).encode_to_vec().into()).map_err(|error| self.refused(partition, &error))
    }

    /// Another node asks the owner of a partition to show that it is one.
    pub async fn proved(&self, body: Bytes) -> Result<Bytes, Bytes> {
        let partition = PartitionId(wire::Prove::decode(body).map_err(malformed)?.partition);
        let proof = match self.reign_of(partition) {
            Ok(reign) => reign.prove().await,
            Err(error) => Err(error),
        };
        proof.map(|()| wire::Nothing {}.encode_to_vec().into()).map_err(|error| self.refused(partition, &error))
    }

    fn reign_of(&self, partition: PartitionId) -> Result<std::sync::Arc<Reign>, OwnerError> {
        self.inner.owners.get(partition).ok_or(OwnerError::NotServing(partition))?.reign()
    }

    /// With a word of where the owner is.
    fn refused(&self, partition: PartitionId, error: &OwnerError) -> Bytes {
        let hint = self.inner.whereabouts.owner(partition).filter(|owner| *owner != self.inner.node);
        failure::put(error, hint).encode_to_vec().into()
    }
}

fn malformed(error: impl std::fmt::Display) -> Bytes {
    failure::put(&OwnerError::App(AppError::Invalid(error.to_string())), None).encode_to_vec().into()
}

/// Keeps the first `limit` of `rows` and of what is wanted of `more`, so that no more than two partitions' rows are held
/// at a time.
pub(super) fn merge<R>(
    rows: &mut Vec<R>,
    more: Vec<R>,
    limit: usize,
    order: fn(&R, &R) -> Ordering,
    wanted: impl Fn(&R) -> bool,
) {
    rows.extend(more.into_iter().filter(wanted));
    rows.sort_by(order);
    rows.truncate(limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rows_of_all_partitions_are_kept_in_order() {
        let mut rows = Vec::new();
        for more in [vec![2, 5, 9], vec![], vec![1, 6, 7], vec![3]] {
            merge(&mut rows, more, 4, i32::cmp, |_| true);
        }
        assert_eq!(rows, [1, 2, 3, 5]);
    }
}
