//! Where to find the first peers: addresses that were given, and names that are looked up again and again.
//!
//! A name may stand for many nodes, and for others tomorrow, so no answer is final; but a resolver that fails takes
//! nothing away: the last answer counts until there is another. Few look-ups run at a time and none is repeated before
//! its answer has come, because each holds a thread until the resolver of the system gives up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use tokio::net::lookup_host;
use tokio::sync::watch;

use crate::tasks::Tasks;

/// Seeds that are looked at.
pub const MAX_SEEDS: usize = 64;
/// Addresses of one name.
const MAX_ADDRESSES: usize = 32;
/// Look-ups at a time.
const MAX_LOOKUPS: usize = 4;

/// Keeps `addresses` to what `seeds` stand for until `tasks` stop.
pub async fn follow(
    mut seeds: watch::Receiver<Vec<String>>,
    addresses: watch::Sender<Arc<BTreeSet<SocketAddr>>>,
    every: Duration,
    tasks: Tasks,
) {
    let mut book = Book::default();
    // Without a handle nobody changes the seeds, and the names still move.
    let mut alone = false;
    'seeds: loop {
        book.keep(&seeds.borrow_and_update().clone());
        publish(&book, &addresses);
        let names: Vec<_> = book.names.keys().cloned().collect();
        let mut answers = stream::iter(names).map(look_up).buffer_unordered(MAX_LOOKUPS);
        loop {
            tokio::select! {
                biased;
                () = tasks.stopping() => return,
                changed = seeds.changed(), if !alone => match changed {
                    Ok(()) => continue 'seeds,
                    Err(_) => alone = true,
                },
                answer = answers.next() => match answer {
                    Some((name, answer)) => {
                        book.learn(&name, answer);
                        publish(&book, &addresses);
                    }
                    None => break,
                },
            }
        }
        tokio::select! {
            biased;
            () = tasks.stopping() => return,
            changed = seeds.changed(), if !alone => alone = changed.is_err(),
            () = tokio::time::sleep(every) => {}
        }
    }
}

type Answer = Result<Vec<SocketAddr>, String>;

async fn look_up(name: String) -> (String, Answer) {
    let answer = match lookup_host(name.as_str()).await {
        Ok(found) => Ok(found.take(MAX_ADDRESSES).collect()),
        Err(error) => Err(error.to_string()),
    };
    (name, answer)
}

fn publish(book: &Book, addresses: &watch::Sender<Arc<BTreeSet<SocketAddr>>>) {
    let found = book.addresses();
    addresses.send_if_modified(|known| {
        let changed = **known != found;
        if changed {
            *known = Arc::new(found);
        }
        changed
    });
}

/// What is known of the seeds.
#[derive(Debug, Default)]
struct Book {
    fixed: BTreeSet<SocketAddr>,
    names: BTreeMap<String, Name>,
}

#[derive(Debug, Default)]
struct Name {
    addresses: Vec<SocketAddr>,
    /// It was said that the name cannot be looked up, and it still cannot.
    complained: bool,
}

impl Book {
    fn keep(&mut self, wanted: &[String]) {
        if wanted.len() > MAX_SEEDS {
            tracing::warn!(given = wanted.len(), "only the first {MAX_SEEDS} seeds are used");
        }
        let (mut fixed, mut names) = (BTreeSet::new(), BTreeMap::new());
        for seed in wanted.iter().take(MAX_SEEDS) {
            match seed.parse() {
                Ok(address) => {
                    fixed.insert(address);
                }
                Err(_) => {
                    names.insert(seed.clone(), self.names.remove(seed).unwrap_or_default());
                }
            }
        }
        (self.fixed, self.names) = (fixed, names);
    }

    fn learn(&mut self, name: &str, answer: Answer) {
        let Some(known) = self.names.get_mut(name) else { return };
        match answer {
            Ok(addresses) => {
                if known.complained {
                    tracing::info!(name, "the seed can be looked up again");
                }
                *known = Name { addresses, complained: false };
            }
            Err(error) if !known.complained => {
                tracing::warn!(name, error, "the seed cannot be looked up; it is tried again");
                known.complained = true;
            }
            Err(_) => {}
        }
    }

    fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.names.values().flat_map(|name| &name.addresses).chain(&self.fixed).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn book(seeds: &[&str]) -> Book {
        let mut book = Book::default();
        book.keep(&seeds.iter().map(|seed| (*seed).to_owned()).collect::<Vec<_>>());
        book
    }

    #[test]
    fn addresses_count_as_given_and_names_from_their_first_answer() {
        let mut book = book(&["10.0.0.1:5", "[::1]:5", "cats:5", "no port"]);
        assert_eq!(book.addresses(), BTreeSet::from([at("10.0.0.1:5"), at("[::1]:5")]));
        book.learn("cats:5", Ok(vec![at("10.0.0.2:5"), at("10.0.0.1:5")]));
        book.learn("no port", Err("invalid".into()));
        assert_eq!(book.addresses(), BTreeSet::from([at("10.0.0.1:5"), at("10.0.0.2:5"), at("[::1]:5")]));
    }

    #[test]
    fn a_failed_look_up_keeps_the_last_answer_and_a_new_answer_replaces_it() {
        let mut book = book(&["cats:5"]);
        book.learn("cats:5", Ok(vec![at("10.0.0.2:5")]));
        book.learn("cats:5", Err("no network".into()));
        assert_eq!(book.addresses(), BTreeSet::from([at("10.0.0.2:5")]));
        book.learn("cats:5", Ok(vec![at("10.0.0.3:5")]));
        assert_eq!(book.addresses(), BTreeSet::from([at("10.0.0.3:5")]));
    }

    #[test]
    fn a_seed_that_is_taken_out_is_forgotten_with_its_addresses() {
        let mut book = book(&["cats:5", "dogs:5", "10.0.0.1:5"]);
        book.learn("cats:5", Ok(vec![at("10.0.0.2:5")]));
        book.learn("dogs:5", Ok(vec![at("10.0.0.3:5")]));
        book.keep(&["dogs:5".to_owned()]);
        book.learn("cats:5", Ok(vec![at("10.0.0.4:5")]));
        assert_eq!(book.addresses(), BTreeSet::from([at("10.0.0.3:5")]));
    }

    #[test]
    fn no_more_seeds_are_used_than_the_limit() {
        let mut book = Book::default();
        book.keep(&(0..MAX_SEEDS + 5).map(|n| format!("10.0.0.1:{}", n + 1)).collect::<Vec<_>>());
        assert_eq!(book.addresses().len(), MAX_SEEDS);
    }

    #[tokio::test]
    async fn localhost_is_found_and_follows_the_seeds_that_are_given() {
        let (sender, seeds) = watch::channel(vec!["localhost:7".to_owned()]);
        let (found, mut addresses) = watch::channel(Arc::default());
        let tasks = Tasks::new();
        let following = follow(seeds, found, Duration::from_millis(5), tasks.clone());
        let checks = async {
            addresses.wait_for(|all| all.contains(&at("127.0.0.1:7"))).await.unwrap();
            sender.send_replace(vec!["10.0.0.1:8".to_owned()]);
            addresses.wait_for(|all| **all == BTreeSet::from([at("10.0.0.1:8")])).await.unwrap();
            drop(sender);
            tasks.stop();
        };
        let both = async { tokio::join!(following, checks) };
        tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
    }
}
