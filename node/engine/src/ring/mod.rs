//! The ring: which members a key prefers, in order, so that a member that joins or leaves takes only its share along.
//!
//! Picture a round table with many name cards on it, each member's name on many cards, all of them laid where chance put
//! them. A key is a place at the table. Walk clockwise from it and read the cards: the first name is the preferred member,
//! the next *other* name the second choice, and so on. When a member leaves, its cards are taken away and only the keys
//! that stopped at them walk on; when one comes, only the keys just before its cards stop earlier. That is said once, here:
//! clockwise, first card *at or after* the key, a member counted once.
//!
//! Two uses. Partitions ask for the order of all storage nodes ([`Ring::walk`]); [`placement`](crate::placement) takes that
//! as its wish, since a handful of large partitions is spread unevenly by any ring. Invoke asks for the instance of a hash
//! key ([`Ring::one`], or the first healthy one of the walk).
//!
//! The positions are part of what a cluster has agreed on: two builds that disagree would propose each other's moves for
//! ever. So they are xxh3-64 over fixed bytes with fixed seeds, equal positions are ordered by id, the order and repeats
//! of the members do not matter, [`RING_VERSION`] is stored with the cluster's settings, and golden vectors hold it fast.
//!
//! A member of weight w has w times [`VNODES`] cards. 128 of them leave a spread of about 4 % at 3 members and 25 % at 100.
//!
//! Not the `hashring` crate, which this design began from: what is left of it when the hash, the virtual nodes, their order
//! and the walk over *distinct* members are ours is a sort and a binary search, and its look-up of several members, which
//! clones the whole ring, repeats members and gives one too many, would have to be undone here.

#[cfg(test)]
mod ring_test;

use callboard_types::{NodeId, PartitionId};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The version of where cards and keys lie, stored in the cluster's settings.
pub const RING_VERSION: u32 = 1;

/// Cards of a member of weight 1.
pub const VNODES: u32 = 128;

/// A larger weight counts as this one; a weight of 0 is no card at all.
pub const MAX_WEIGHT: u32 = 16;

const CARD_SEED: u64 = 0x7269_6e67_6361_7264; // "ringcard"
const KEY_SEED: u64 = 0x7269_6e67_006b_6579; // "ring\0key"

/// What a ring can be made of.
pub trait RingId: Copy + Ord {
    /// The number whose bytes are hashed: for good, and different for different ids.
    fn to_u64(self) -> u64;
}

impl RingId for NodeId {
    fn to_u64(self) -> u64 {
        self.0
    }
}

/// A ring of members; immutable, made anew when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring<Id> {
    /// Sorted, each once.
    members: Vec<Id>,
    /// Sorted by position, then by id: (position, index of the member).
    cards: Vec<(u64, u32)>,
}

impl<Id: RingId> Ring<Id> {
    /// A ring of members and their weights. Of a repeated member the largest weight counts.
    pub fn new(members: impl IntoIterator<Item = (Id, u32)>) -> Self {
        let mut weighted: Vec<(Id, u32)> = members.into_iter().filter(|(_, weight)| *weight > 0).collect();
        weighted.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        weighted.dedup_by_key(|(id, _)| *id);
        let mut cards = Vec::new();
        for (index, (id, weight)) in weighted.iter().enumerate() {
            let count = VNODES * (*weight).min(MAX_WEIGHT);
            cards.extend((0..count).map(|number| (card_position(id.to_u64(), number), index as u32)));
        }
        // Members are sorted, so the index orders equal positions as the ids do.
        cards.sort_unstable();
        Self { members: weighted.into_iter().map(|(id, _)| id).collect(), cards }
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The member that the key prefers; `None`: the ring is empty.
    pub fn one(&self, key: &[u8]) -> Option<Id> {
        self.cards.get(self.first_card(key)).map(|&(_, member)| self.members[member as usize])
    }

    /// Every member once, the preferred one first.
    pub fn walk(&self, key: &[u8]) -> Walk<'_, Id> {
        let words = self.members.len().div_ceil(64);
        Walk { ring: self, at: self.first_card(key), cards_left: self.cards.len(), seen: SmallVec::from_elem(0, words) }
    }

    /// The `n` members that the key prefers, all of them when there are fewer.
    pub fn distinct(&self, key: &[u8], n: usize) -> Vec<Id> {
        self.walk(key).take(n).collect()
    }

    /// The first card at or after the key, the first of all after the last.
    fn first_card(&self, key: &[u8]) -> usize {
        let position = xxh3_64_with_seed(key, KEY_SEED);
        let at = self.cards.partition_point(|&(card, _)| card < position);
        if at == self.cards.len() { 0 } else { at }
    }
}

/// One way round the ring, from a key on.
#[derive(Debug, Clone)]
pub struct Walk<'a, Id> {
    ring: &'a Ring<Id>,
    at: usize,
    cards_left: usize,
    /// A bit per member.
    seen: SmallVec<[u64; 4]>,
}

impl<Id: RingId> Iterator for Walk<'_, Id> {
    type Item = Id;

    fn next(&mut self) -> Option<Id> {
        while self.cards_left > 0 {
            let (_, member) = self.ring.cards[self.at];
            self.at = if self.at + 1 == self.ring.cards.len() { 0 } else { self.at + 1 };
            self.cards_left -= 1;
            let (word, bit) = (member as usize / 64, 1 << (member % 64));
            if self.seen[word] & bit == 0 {
                self.seen[word] |= bit;
                return Some(self.ring.members[member as usize]);
            }
        }
        None
    }
}

/// The key of a partition.
pub const fn partition_key(partition: PartitionId) -> [u8; 4] {
    partition.0.to_le_bytes()
}

fn card_position(id: u64, number: u32) -> u64 {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    bytes[8..].copy_from_slice(&number.to_le_bytes());
    xxh3_64_with_seed(&bytes, CARD_SEED)
}
