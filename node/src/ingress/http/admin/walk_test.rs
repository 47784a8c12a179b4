//! A walk finds every match, whatever it has to pass over, and looks at a bounded number of rows.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::convert::Infallible;

use super::*;

const NS: &str = "ns";

fn row(kind: &str, id: &str, key: &str) -> After {
    (ActorKey::new(NS, kind, id), key.to_owned())
}

/// Rows that hold nothing but their place, and how many of them were read.
struct Rows {
    sorted: BTreeSet<After>,
    read: Cell<usize>,
}

impl Rows {
    fn of(rows: impl IntoIterator<Item = After>) -> Self {
        Self { sorted: rows.into_iter().collect(), read: Cell::new(0) }
    }

    async fn page(&self, filter: &impl Filter, after: Option<After>, bounds: Bounds) -> Found<After> {
        let read = |after: After, limit: usize| {
            let page: Vec<_> = self.sorted.iter().filter(|row| **row > after).take(limit).cloned().collect();
            self.read.set(self.read.get() + page.len());
            std::future::ready(Ok::<_, Infallible>(page))
        };
        walk(filter, after, bounds, After::clone, read).await.unwrap()
    }

    /// All that is wanted, over all pages; and how many there were.
    async fn all(&self, filter: &impl Filter, bounds: Bounds) -> (Vec<After>, usize) {
        let (mut all, mut after) = (Vec::new(), None);
        for pages in 1.. {
            let found = self.page(filter, after.clone(), bounds).await;
            assert!(found.rows.len() <= bounds.limit);
            all.extend(found.rows);
            match found.more {
                Some(more) => {
                    assert!(after.is_none_or(|after| after < more), "a page goes on");
                    after = Some(more);
                }
                None => return (all, pages),
            }
        }
        unreachable!("listings end")
    }
}

fn owners(of: &[(&'static str, &'static str)]) -> BTreeMap<&'static str, &'static str> {
    of.iter().copied().collect()
}

fn named<'a>(prefix: &'a str, owners: &BTreeMap<&'a str, &'a str>) -> Named<'a, impl Fn(&str) -> &'a str> {
    let of = owners.clone();
    let apps = owners.values().copied().chain(["own"]).collect();
    Named { namespace: NS, prefix, apps, app_of: move |kind: &str| of.get(kind).copied().unwrap_or("own") }
}

const SMALL: Bounds = Bounds { limit: 3, page: 5, visited: 10 };

#[tokio::test]
async fn a_row_behind_more_rows_than_one_answer_looks_at_is_found_by_going_on() {
    // No type sorts so that it could be skipped: the ids decide, and a reader without a type sees them all.
    let rows = (0..200).map(|n| row("Ant", &format!("a{n:03}"), "k")).chain([row("Ant", "a200", "z")]);
    let rows = Rows::of(rows);
    struct Only(&'static str);
    impl Filter for Only {
        fn start(&self) -> Option<After> {
            Some(place(NS, "", ""))
        }
        fn judge(&self, actor: &ActorKey, key: &str) -> Verdict {
            if key == self.0 { Verdict::Wanted } else { Verdict::Jump((actor.clone(), key.to_owned())) }
        }
    }
    let first = rows.page(&Only("z"), None, SMALL).await;
    assert_eq!((first.rows, first.more), (vec![], Some(row("Ant", "a009", "k"))), "nothing found is not the end");
    let (found, pages) = rows.all(&Only("z"), SMALL).await;
    assert_eq!(found, [row("Ant", "a200", "z")]);
    assert_eq!(pages, 21);
}

#[tokio::test]
async fn a_prefix_reads_neither_what_lies_before_nor_what_lies_behind_it() {
    let many = |kind: &'static str| (0..1_000).map(move |n| row(kind, &format!("i{n:03}"), "k"));
    let rows = Rows::of(many("Ant").chain([row("Zoo", "z", "mine")]).chain(many("zz")));
    let of = owners(&[("Ant", "one"), ("Zoo", "two"), ("zz", "one")]);
    let bounds = Bounds { visited: 100, ..SMALL };
    for prefix in ["two||", "two||Z", "two||Zoo||z||mine", "two||Zoo||z||"] {
        rows.read.set(0);
        let (found, pages) = rows.all(&named(prefix, &of), bounds).await;
        assert_eq!(found, [row("Zoo", "z", "mine")], "{prefix}");
        assert_eq!(pages, 1, "{prefix}");
        assert!(rows.read.get() <= 15, "{prefix}: {} rows", rows.read.get());
    }
    rows.read.set(0);
    let (found, _) = rows.all(&named("one||Ant||i500||", &of), SMALL).await;
    assert_eq!(found, [row("Ant", "i500", "k")]);
    assert!(rows.read.get() <= 15, "{} rows", rows.read.get());
    let (found, _) = rows.all(&named("nobody||", &of), SMALL).await;
    assert_eq!(found, []);
}

#[tokio::test]
async fn every_prefix_finds_exactly_the_rows_whose_joined_text_begins_with_it() {
    let parts = ["a", "a|", "a||b", "b", "|", "a\0", "ab"];
    let mut all = Vec::new();
    for kind in parts {
        for id in parts {
            all.extend(["a", "a|", "a||b", "b", "é"].map(|key| row(kind, id, key)));
        }
    }
    let rows = Rows::of(all);
    let of = owners(&[("a", "x"), ("a||b", "x||a"), ("b", "y"), ("a|", "x")]);
    let name = |(actor, key): &After| {
        let app = of.get(&*actor.actor_type).copied().unwrap_or("own");
        format!("{app}||{}||{}||{key}", actor.actor_type, actor.actor_id)
    };
    let mut prefixes: BTreeSet<String> = ["q", "x|||", "x||a||c", "own||zz"].map(str::to_owned).into();
    for row in &rows.sorted {
        let name = name(row);
        prefixes.extend(name.char_indices().map(|(cut, _)| name[..cut].to_owned()));
        prefixes.insert(name);
    }
    for prefix in prefixes {
        let expected: Vec<_> = rows.sorted.iter().filter(|row| name(row).starts_with(&prefix)).cloned().collect();
        let (found, _) = rows.all(&named(&prefix, &of), SMALL).await;
        assert_eq!(found, expected, "{prefix:?}");
    }
}

#[tokio::test]
async fn a_type_and_an_id_are_found_wherever_they_stand_and_other_namespaces_are_not() {
    let many = |kind: &'static str| (0..100).map(move |n| row(kind, &format!("i{n:02}"), "k"));
    let mut rows: Vec<_> = many("Ant").chain(many("Bee")).chain(many("Cow")).collect();
    rows.push((ActorKey::new("other", "Bee", "i50"), "k".to_owned()));
    rows.push((ActorKey::new("a", "Bee", "i50"), "k".to_owned()));
    let rows = Rows::of(rows);
    for kind in [None, Some("Bee"), Some("Bat")] {
        for id in [None, Some("i50"), Some("i505")] {
            rows.read.set(0);
            let filter = Of { namespace: NS, actor_type: kind, id };
            let expected: Vec<_> = rows.sorted.iter().filter(|(actor, _)| filter.holds(actor)).cloned().collect();
            let (found, _) = rows.all(&filter, SMALL).await;
            assert_eq!(found, expected, "{kind:?} {id:?}");
            if id.is_some() {
                assert!(rows.read.get() <= 60, "{kind:?} {id:?}: {} rows", rows.read.get());
            }
        }
    }
}
