//! Bodies that come in parts, put together again within bounds.
//!
//! The first frame announces the length, so that a body that cannot be taken is refused before it arrives, and memory is
//! set aside for as much as has come, never for as much as was promised. Parts of a call that is not gathered are
//! ignored: it was refused or cancelled while they were under way. A body that grows beyond its announced length, or a
//! second one under the same number, is an error of the protocol.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

/// Bodies up to this size are copied out of the receive buffer, which they would keep alive as a whole.
const COPIED: usize = 16 << 10;
/// What a body that is being gathered counts at least, so that many short ones have a bound, too.
const LEAST: usize = 4 << 10;
/// Set aside for a body at first.
const FIRST: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Gathering<H> {
    open: HashMap<u64, Open<H>>,
    /// Announced lengths of all that are open.
    held: usize,
    max_body: usize,
    max_held: usize,
}

#[derive(Debug)]
struct Open<H> {
    head: H,
    length: usize,
    body: BytesMut,
}

/// What became of a first frame.
#[derive(Debug, PartialEq)]
pub(super) enum Begun<H> {
    Whole(H, Bytes),
    /// More has to come.
    Open,
    /// Longer than any body may be.
    TooLarge(H),
    /// No room for it beside those that are being gathered.
    NoRoom(H),
}

/// The other side does not keep to the protocol; there is no going on with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Violation(pub &'static str);

impl<H> Gathering<H> {
    pub fn new(max_body: usize, max_held: usize) -> Self {
        Self { open: HashMap::new(), held: 0, max_body, max_held: max_held.max(max_body) }
    }

    pub fn begin(&mut self, call: u64, head: H, length: u64, first: Bytes) -> Result<Begun<H>, Violation> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if first.len() > length {
            return Err(Violation("a body beyond its length"));
        }
        if length > self.max_body {
            return Ok(Begun::TooLarge(head));
        }
        if first.len() == length {
            return Ok(Begun::Whole(head, own(first)));
        }
        if self.held.saturating_add(charge(length)) > self.max_held {
            return Ok(Begun::NoRoom(head));
        }
        if self.open.contains_key(&call) {
            return Err(Violation("two bodies under one number"));
        }
        let mut body = BytesMut::with_capacity(length.min(FIRST));
        body.extend_from_slice(&first);
        self.held += charge(length);
        self.open.insert(call, Open { head, length, body });
        Ok(Begun::Open)
    }

    /// The next bytes of a body; the whole of it with its last part.
    pub fn part(&mut self, call: u64, bytes: &Bytes) -> Result<Option<(H, Bytes)>, Violation> {
        let Some(open) = self.open.get_mut(&call) else { return Ok(None) };
        if bytes.len() > open.length - open.body.len() {
            return Err(Violation("a body beyond its length"));
        }
        open.body.extend_from_slice(bytes);
        if open.body.len() < open.length {
            return Ok(None);
        }
        Ok(self.forget(call).map(|open| (open.head, open.body.freeze())))
    }

    /// Ends gathering a body that nobody waits for.
    pub fn drop_call(&mut self, call: u64) {
        self.forget(call);
    }

    fn forget(&mut self, call: u64) -> Option<Open<H>> {
        let open = self.open.remove(&call)?;
        self.held -= charge(open.length);
        Some(open)
    }
}

fn charge(length: usize) -> usize {
    length.max(LEAST)
}

fn own(body: Bytes) -> Bytes {
    if body.len() <= COPIED { Bytes::copy_from_slice(&body) } else { body }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Bytes {
        (0..length).map(|n| n as u8).collect()
    }

    fn gathering() -> Gathering<char> {
        Gathering::new(100_000, 150_000)
    }

    #[test]
    fn bodies_are_put_together_however_they_were_cut() {
        for cuts in [vec![100_000], vec![0, 100_000], vec![1, 99_998, 1], vec![50_000, 0, 50_000]] {
            let (mut gathering, whole) = (gathering(), bytes(100_000));
            let mut at = 0;
            let mut parts = cuts.iter().map(|length| {
                at += length;
                whole.slice(at - length..at)
            });
            let begun = gathering.begin(1, 'a', 100_000, parts.next().unwrap()).unwrap();
            let mut result = match begun {
                Begun::Whole(head, body) => Some((head, body)),
                Begun::Open => None,
                other @ (Begun::TooLarge(_) | Begun::NoRoom(_)) => panic!("{other:?}"),
            };
            for part in parts {
                assert!(result.is_none());
                result = gathering.part(1, &part).unwrap();
            }
            assert_eq!(result, Some(('a', whole.clone())), "{cuts:?}");
            assert_eq!((gathering.held, gathering.open.len()), (0, 0));
        }
    }

    #[test]
    fn what_is_gathered_is_bounded_by_what_was_announced() {
        let mut gathering = gathering();
        assert_eq!(gathering.begin(1, 'a', 100_001, bytes(1)), Ok(Begun::TooLarge('a')));
        assert_eq!(gathering.begin(1, 'a', u64::MAX, bytes(1)), Ok(Begun::TooLarge('a')));
        assert_eq!(gathering.begin(2, 'b', 100_000, bytes(1)), Ok(Begun::Open));
        assert_eq!(gathering.begin(3, 'c', 50_001, bytes(1)), Ok(Begun::NoRoom('c')));
        assert_eq!(gathering.begin(3, 'c', 50_000, bytes(1)), Ok(Begun::Open));
        assert_eq!(gathering.begin(4, 'd', 2, bytes(1)), Ok(Begun::NoRoom('d')));
        assert_eq!(gathering.begin(5, 'e', 3, bytes(3)), Ok(Begun::Whole('e', bytes(3))));
        gathering.drop_call(2);
        assert_eq!(gathering.begin(4, 'd', 100_000, bytes(1)), Ok(Begun::Open));
    }

    #[test]
    fn memory_is_not_set_aside_for_promises() {
        let mut gathering = Gathering::new(1 << 30, 1 << 40);
        for call in 0..1_000 {
            assert_eq!(gathering.begin(call, 'a', 1 << 30, Bytes::new()), Ok(Begun::Open));
        }
        let set_aside: usize = gathering.open.values().map(|open| open.body.capacity()).sum();
        assert!(set_aside <= 1_000 * FIRST);
    }

    #[test]
    fn short_bodies_have_a_bound_too() {
        let mut gathering = Gathering::new(100, 10 * LEAST);
        let open = (0..100).filter(|call| gathering.begin(*call, 'a', 1, Bytes::new()) == Ok(Begun::Open)).count();
        assert_eq!(open, 10);
    }

    #[test]
    fn a_body_beyond_its_length_is_a_violation() {
        let mut gathering = gathering();
        assert!(gathering.begin(1, 'a', 2, bytes(3)).is_err());
        gathering.begin(2, 'b', 4, bytes(3)).unwrap();
        assert!(gathering.part(2, &bytes(2)).is_err());
        assert!(gathering.begin(2, 'c', 9, bytes(3)).is_err());
    }

    #[test]
    fn parts_of_a_call_that_is_not_gathered_are_ignored() {
        let mut gathering = gathering();
        assert_eq!(gathering.part(1, &bytes(10)), Ok(None));
        gathering.begin(2, 'b', 4, bytes(3)).unwrap();
        gathering.drop_call(2);
        assert_eq!(gathering.part(2, &bytes(10)), Ok(None));
    }

    #[test]
    fn a_small_body_does_not_keep_the_receive_buffer() {
        let buffer = bytes(100_000);
        let body = buffer.slice(10..20);
        let Begun::Whole(_, kept) = gathering().begin(1, 'a', 10, body.clone()).unwrap() else { panic!("not whole") };
        assert_eq!(kept, body);
        assert_ne!(kept.as_ptr(), body.as_ptr());
    }
}
