//! How a listing goes through the rows of all partitions: from where, over what it skips, and to where.
//!
//! Rows come sorted by namespace, type, id and key, so a listing begins at the first row that its filter may match,
//! jumps over the types and ids that hold none, and ends behind the last. What is left over is bounded by the rows that
//! one answer looks at: it then says where the next one goes on, and nothing is ever left out silently.
//!
//! The filters are pure; the rows are read by whoever calls [`walk`]. There is no knowledge of HTTP here.

use std::collections::BTreeSet;

use callboard_types::ActorKey;

use crate::owner::reads::After;

/// What a filter says of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Wanted,
    /// It is not wanted, and neither is any up to this place.
    Jump(After),
    /// It is not wanted, and neither is any behind it.
    Beyond,
}

/// Sorted rows that are filtered.
pub trait Filter {
    /// No row up to this place is wanted; `None`: no row at all is.
    fn start(&self) -> Option<After>;
    fn judge(&self, actor: &ActorKey, key: &str) -> Verdict;
}

/// The bounds of one answer.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Rows in the answer.
    pub limit: usize,
    /// Rows read at a time.
    pub page: usize,
    /// Rows looked at, by whole pages.
    pub visited: usize,
}

/// What was found, in order.
#[derive(Debug)]
pub struct Found<R> {
    pub rows: Vec<R>,
    /// There may be more behind this place. `None`: this is the end.
    pub more: Option<After>,
}

/// Finds the rows behind `after` that `filter` wants. `read` gives at most so many rows behind a place, in order, and
/// fewer only at the end; `place` says where a row is.
pub async fn walk<R, E, F>(
    filter: &impl Filter,
    after: Option<After>,
    bounds: Bounds,
    place: impl Fn(&R) -> After,
    mut read: impl FnMut(After, usize) -> F,
) -> Result<Found<R>, E>
where
    F: Future<Output = Result<Vec<R>, E>>,
{
    let mut rows = Vec::new();
    let Some(start) = filter.start() else { return Ok(Found { rows, more: None }) };
    let mut after = after.map_or_else(|| start.clone(), |after| after.max(start.clone()));
    let mut visited = 0;
    loop {
        let page = read(after.clone(), bounds.page).await?;
        let is_last = page.len() < bounds.page;
        visited += page.len();
        for row in page {
            let at = place(&row);
            // Jumped over.
            if at <= after {
                continue;
            }
            let verdict = filter.judge(&at.0, &at.1);
            after = at;
            match verdict {
                Verdict::Wanted => {
                    rows.push(row);
                    if rows.len() == bounds.limit {
                        return Ok(Found { rows, more: Some(after) });
                    }
                }
                Verdict::Jump(to) => after = after.max(to),
                Verdict::Beyond => return Ok(Found { rows, more: None }),
            }
        }
        if is_last {
            return Ok(Found { rows, more: None });
        }
        if visited >= bounds.visited {
            return Ok(Found { rows, more: Some(after) });
        }
    }
}

/// The rows of one namespace, of one type and one id where they are given.
#[derive(Debug)]
pub struct Of<'a> {
    pub namespace: &'a str,
    pub actor_type: Option<&'a str>,
    pub id: Option<&'a str>,
}

impl Of<'_> {
    pub fn holds(&self, actor: &ActorKey) -> bool {
        *actor.namespace == *self.namespace
            && self.actor_type.is_none_or(|kind| *actor.actor_type == *kind)
            && self.id.is_none_or(|id| *actor.actor_id == *id)
    }
}

impl Filter for Of<'_> {
    fn start(&self) -> Option<After> {
        let id = self.actor_type.and(self.id).unwrap_or_default();
        Some(place(self.namespace, self.actor_type.unwrap_or_default(), id))
    }

    fn judge(&self, actor: &ActorKey, _key: &str) -> Verdict {
        let (kind, id) = (&*actor.actor_type, &*actor.actor_id);
        if *actor.namespace != *self.namespace || self.actor_type.is_some_and(|only| kind > only) {
            return Verdict::Beyond;
        }
        match (self.actor_type, self.id) {
            (Some(only), _) if kind < only => Verdict::Jump(place(self.namespace, only, self.id.unwrap_or_default())),
            (_, None) => Verdict::Wanted,
            (_, Some(only)) if id == only => Verdict::Wanted,
            (_, Some(only)) if id < only => Verdict::Jump(place(self.namespace, kind, only)),
            (Some(_), Some(_)) => Verdict::Beyond,
            (None, Some(_)) => Verdict::Jump(behind_type(actor)),
        }
    }
}

/// The rows of one namespace whose outside key, `app||type||id||key`, begins with a text. Any part may itself contain
/// `||`: what counts is the joined text.
pub struct Named<'a, A> {
    pub namespace: &'a str,
    pub prefix: &'a str,
    /// Every app that a type may belong to.
    pub apps: BTreeSet<&'a str>,
    /// The app of a type.
    pub app_of: A,
}

impl<'a, A: Fn(&str) -> &'a str> Filter for Named<'a, A> {
    fn start(&self) -> Option<After> {
        let first = self.apps.iter().filter_map(|app| match rest(self.prefix, app) {
            Rest::All => Some(""),
            Rest::Of(rest) => Some(first_part(rest)),
            Rest::None => None,
        });
        first.min().map(|kind| place(self.namespace, kind, ""))
    }

    fn judge(&self, actor: &ActorKey, key: &str) -> Verdict {
        let (kind, id) = (&*actor.actor_type, &*actor.actor_id);
        if *actor.namespace != *self.namespace {
            return Verdict::Beyond;
        }
        let of_app = match rest(self.prefix, (self.app_of)(kind)) {
            Rest::All => return Verdict::Wanted,
            Rest::Of(rest) => rest,
            Rest::None => return self.other_type(actor),
        };
        let of_type = match rest(of_app, kind) {
            Rest::All => return Verdict::Wanted,
            Rest::Of(rest) => rest,
            Rest::None => return self.other_type(actor),
        };
        let of_id = match rest(of_type, id) {
            Rest::All => return Verdict::Wanted,
            Rest::Of(rest) => rest,
            // Ids that match begin with the first part of what is left, and so do not sort before it.
            Rest::None if id < first_part(of_type) => {
                return Verdict::Jump(place(self.namespace, kind, first_part(of_type)));
            }
            Rest::None if id > of_type => return Verdict::Jump(behind_type(actor)),
            Rest::None => return Verdict::Jump(behind_id(actor)),
        };
        if key.starts_with(of_id) {
            Verdict::Wanted
        } else if key < of_id {
            // Short of the first key that may match, by one character.
            let mut short = of_id.to_owned();
            short.pop();
            Verdict::Jump((actor.clone(), short))
        } else {
            Verdict::Jump(behind_id(actor))
        }
    }
}

impl<A> Named<'_, A> {
    /// Of a type that has no row that matches.
    fn other_type(&self, actor: &ActorKey) -> Verdict {
        let kind = &*actor.actor_type;
        // Types that match begin with what is asked of them, or are shorter and sort before it.
        let is_beyond = self.apps.iter().all(|app| match rest(self.prefix, app) {
            Rest::All => false,
            Rest::Of(rest) => kind > rest && !kind.starts_with(rest),
            Rest::None => true,
        });
        if is_beyond { Verdict::Beyond } else { Verdict::Jump(behind_type(actor)) }
    }
}

/// What a prefix asks behind `part||`.
enum Rest<'a> {
    /// The prefix ends within `part||` or with it.
    All,
    Of(&'a str),
    /// It asks for another part.
    None,
}

fn rest<'a>(prefix: &'a str, part: &str) -> Rest<'a> {
    match prefix.strip_prefix(part) {
        Some(rest) => match rest.strip_prefix("||") {
            Some("") => Rest::All,
            Some(rest) => Rest::Of(rest),
            None if "||".starts_with(rest) => Rest::All,
            None => Rest::None,
        },
        None if part.starts_with(prefix) => Rest::All,
        None => Rest::None,
    }
}

fn first_part(prefix: &str) -> &str {
    // A bar at the end may be the first half of a separator.
    let part = prefix.split("||").next().unwrap_or_default();
    if part.len() == prefix.len() { part.strip_suffix('|').unwrap_or(part) } else { part }
}

/// The place before all rows of an actor: no row has an empty key.
fn place(namespace: &str, actor_type: &str, id: &str) -> After {
    (ActorKey::new(namespace, actor_type, id), String::new())
}

/// The place behind all rows of the actor's type: the next text there is.
fn behind_type(actor: &ActorKey) -> After {
    place(&actor.namespace, &format!("{}\0", actor.actor_type), "")
}

fn behind_id(actor: &ActorKey) -> After {
    place(&actor.namespace, &actor.actor_type, &format!("{}\0", actor.actor_id))
}

#[cfg(test)]
#[path = "walk_test.rs"]
mod walk_test;
