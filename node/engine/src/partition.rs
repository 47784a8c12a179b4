//! Which partition an actor belongs to.
//!
//! `partition = hash(namespace, type, id) mod P`. The hash is part of the disk format: an actor's state lies in the
//! partition it was hashed to when it was written, so another hash is another cluster. [`HASH_VERSION`] is stored with
//! the cluster's settings, and golden vectors hold the bytes fast on every build and machine.
//!
//! The parts are hashed with their lengths in front, so `("a", "bc")` and `("ab", "c")` are different keys. The input is
//! bytes of a fixed order, never a Rust `Hash` impl, whose output may change with the compiler.

use callboard_types::{ActorKey, PartitionId};
use xxhash_rust::xxh3::Xxh3;

/// The version of [`key_hash`], stored in the cluster's settings.
pub const HASH_VERSION: u32 = 1;

const SEED: u64 = 0x6361_6c6c_626f_6172; // "callboar"

/// xxh3-64 over each part's length (u32, little endian) and bytes.
pub fn key_hash(namespace: &str, actor_type: &str, actor_id: &str) -> u64 {
    let mut hasher = Xxh3::with_seed(SEED);
    for part in [namespace, actor_type, actor_id] {
        // Parts are names: far below 4 GiB.
        hasher.update(&(part.len() as u32).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.digest()
}

/// The partition of an actor among `partitions` (at least 1).
pub fn partition_of(namespace: &str, actor_type: &str, actor_id: &str, partitions: u32) -> PartitionId {
    assert!(partitions > 0, "a cluster has at least one partition");
    PartitionId((key_hash(namespace, actor_type, actor_id) % u64::from(partitions)) as u32)
}

/// As [`partition_of`], of a key.
pub fn partition_of_key(actor: &ActorKey, partitions: u32) -> PartitionId {
    partition_of(&actor.namespace, &actor.actor_type, &actor.actor_id, partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (namespace, type, id, how often the id is repeated, hash, partition of 16). A change here is a change of the disk
    /// format. The lengths cross every path of the hash (up to 16, 128, 240 bytes, and beyond).
    const GOLDEN: &[(&str, &str, &str, usize, u64, u32)] = &[
        ("", "", "", 1, 0x6e22_0fba_ccd3_fc7b, 11),
        ("default", "Cat", "hobbit", 1, 0xac4c_12ec_c52a_9856, 6),
        ("default", "Cat", "Hobbit", 1, 0x5b0a_ed70_f166_8ea0, 0),
        ("prod", "Cat", "hobbit", 1, 0xbadc_61f8_d05a_291b, 11),
        ("default", "Dog", "hobbit", 1, 0x44e1_90b0_521f_9c1f, 15),
        ("default", "DemoActor", "1", 1, 0xfeb8_80e8_966a_c7d5, 5),
        ("default", "DemoActor", "2", 1, 0x082d_4c43_dcc9_181f, 15),
        ("default", "DemoActor", "10", 1, 0x5824_25a9_b8c6_463e, 14),
        ("a", "bc", "d", 1, 0x9cb9_ebe4_2162_51f6, 6),
        ("ab", "c", "d", 1, 0xb574_f97c_0546_86c7, 7),
        ("default", "MyActor", "remind||me||now", 1, 0x527e_272b_740d_1cd9, 9),
        ("default", "Größe", "straße", 1, 0x027d_19f2_fbe2_50ae, 14),
        ("default", "俳優", "一", 1, 0xb210_cea5_1968_e2ee, 14),
        ("default", "T", "0", 1, 0xff46_f473_e9ef_7177, 7),
        ("default", "T", "a b|c@d", 1, 0x13e0_2668_3750_2bd1, 1),
        ("ns-2", "counter", "00000000-0000-4000-8000-000000000000", 1, 0xf7f6_bbc1_87b6_489c, 12),
        ("default", "LongId", "x", 150, 0x252e_2010_6964_c49a, 10),
        ("default", "LongId", "x", 500, 0x8712_a66c_aa4e_e6ee, 14),
        ("default", "T", "é", 1, 0x2229_3bc5_8d16_3314, 4),
        ("default", "T", "\u{1f3ad}", 1, 0x3270_cfac_b49e_8bb3, 3),
    ];

    #[test]
    fn golden_vectors_hold() {
        for &(namespace, actor_type, actor_id, times, hash, partition) in GOLDEN {
            let actor_id = actor_id.repeat(times);
            assert_eq!(key_hash(namespace, actor_type, &actor_id), hash, "{namespace} {actor_type} {actor_id}");
            assert_eq!(partition_of(namespace, actor_type, &actor_id, 16), PartitionId(partition));
            assert_eq!(partition_of(namespace, actor_type, &actor_id, 1), PartitionId(0));
        }
        assert_eq!(GOLDEN.len(), 20);
    }

    #[test]
    fn the_border_between_the_parts_counts() {
        assert_ne!(key_hash("a", "bc", "d"), key_hash("ab", "c", "d"));
        assert_ne!(key_hash("a", "b", "cd"), key_hash("a", "bc", "d"));
        assert_ne!(key_hash("", "a", "a"), key_hash("a", "", "a"));
    }

    /// Chi-square over the partition counts; the bounds are seven standard deviations wide.
    #[test]
    fn numbered_actors_spread_evenly_over_the_partitions() {
        const ACTORS: u32 = 100_000;
        for partitions in [2, 3, 16, 31, 64, 128] {
            let mut counts = vec![0u32; partitions as usize];
            for n in 0..ACTORS {
                counts[partition_of("default", "Cat", &format!("cat-{n}"), partitions).0 as usize] += 1;
            }
            let mean = f64::from(ACTORS) / f64::from(partitions);
            let chi: f64 = counts.iter().map(|&count| (f64::from(count) - mean).powi(2) / mean).sum();
            let freedom = f64::from(partitions - 1);
            assert!((chi - freedom).abs() < 7.0 * (2.0 * freedom).sqrt(), "{partitions} partitions: chi-square {chi}");
        }
    }

    #[test]
    fn a_key_and_its_parts_have_one_partition() {
        let key = ActorKey::new("default", "Cat", "hobbit");
        assert_eq!(partition_of_key(&key, 16), partition_of("default", "Cat", "hobbit", 16));
    }
}
