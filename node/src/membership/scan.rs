//! Whether a message may be given to the gossip library to decode.
//!
//! The library trusts what it decodes: it unpacks compressed blocks as they come, and a list of nodes that no longer
//! fits a datagram breaks its arithmetic. So the frame of a message is walked first, without unpacking anything, and
//! what exceeds a limit is dropped. The layout is that of the pinned version; `transport` tests hold the two together.

/// Nodes one message may list, restarts within the last minutes included.
const MAX_NODES: u16 = 1_000;
/// Longest name of a node: an id in hexadecimal and some room.
const MAX_NODE_NAME: u16 = 64;
/// Compressed blocks of one message. The library fills a block with 16 KiB; an empty promise unpacks to 64 KiB.
const MAX_BLOCKS: usize = 512;

/// What a digest says of a node after its name: restart number, address, heartbeat and two versions.
const GENERATION: usize = 8;
const PORT: usize = 2;
const COUNTERS: usize = 24;

/// Whether `message` is laid out as one and within the limits.
pub fn acceptable(message: &[u8]) -> bool {
    let mut rest = message;
    walk(&mut rest).is_some() && rest.is_empty()
}

fn walk(rest: &mut &[u8]) -> Option<()> {
    const MAGIC: u16 = 45_139;
    const VERSION: u8 = 0;
    (number(rest)? == MAGIC && byte(rest)? == VERSION).then_some(())?;
    match byte(rest)? {
        0 => {
            digest(rest)?;
            let name = number(rest)?;
            skip(rest, usize::from(name))
        }
        1 => {
            digest(rest)?;
            delta(rest)
        }
        2 => delta(rest),
        3 => Some(()),
        _ => None,
    }
}

fn digest(rest: &mut &[u8]) -> Option<()> {
    let nodes = number(rest)?;
    (nodes <= MAX_NODES).then_some(())?;
    for _ in 0..nodes {
        let name = number(rest)?;
        (name <= MAX_NODE_NAME).then_some(())?;
        skip(rest, usize::from(name) + GENERATION)?;
        let address = match byte(rest)? {
            4 => 4,
            6 => 16,
            _ => return None,
        };
        skip(rest, address + PORT + COUNTERS)?;
    }
    Some(())
}

fn delta(rest: &mut &[u8]) -> Option<()> {
    for _ in 0..=MAX_BLOCKS {
        match byte(rest)? {
            0 => return Some(()),
            1 | 2 => {
                let length = number(rest)?;
                skip(rest, usize::from(length))?;
            }
            _ => return None,
        }
    }
    None
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, tail) = rest.split_first()?;
    *rest = tail;
    Some(*first)
}

fn number(rest: &mut &[u8]) -> Option<u16> {
    let (first, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(u16::from_le_bytes(*first))
}

fn skip(rest: &mut &[u8], bytes: usize) -> Option<()> {
    *rest = rest.get(bytes..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use chitchat::{ChitchatMessage, Deserializable};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const HEAD: [u8; 3] = [0x53, 0xB0, 0];

    fn message(parts: &[&[u8]]) -> Vec<u8> {
        [&HEAD[..], &parts.concat()].concat()
    }

    /// One node of a digest, with a name of `length` bytes at an address of version 4 or 6.
    fn node(length: u16, version: u8) -> Vec<u8> {
        let address = if version == 4 { 4 } else { 16 };
        let rest = GENERATION + 1 + address + PORT + COUNTERS;
        let mut node = [&length.to_le_bytes()[..], &vec![b'a'; usize::from(length)], &vec![0; rest]].concat();
        node[2 + usize::from(length) + GENERATION] = version;
        node
    }

    fn question(nodes: &[Vec<u8>]) -> Vec<u8> {
        let count = nodes.len() as u16;
        message(&[&[0], &count.to_le_bytes(), &nodes.concat(), &4u16.to_le_bytes(), b"test"])
    }

    fn blocks(count: usize) -> Vec<u8> {
        let empty = [2, 0, 0].repeat(count);
        message(&[&[2], &empty, &[0]])
    }

    #[test]
    fn what_the_library_writes_is_acceptable_and_what_is_longer_or_shorter_is_not() {
        let names: Vec<_> = [(1, 4), (16, 6), (MAX_NODE_NAME, 4)].map(|(length, version)| node(length, version)).into();
        for good in [question(&[]), question(&names), message(&[&[3]]), blocks(0), blocks(3)] {
            assert!(acceptable(&good));
            assert!(ChitchatMessage::deserialize(&mut good.as_slice()).is_ok());
            assert!(!acceptable(&[&good[..], &[0]].concat()));
            for length in 0..good.len() {
                assert!(!acceptable(&good[..length]), "{length} of {}", good.len());
            }
        }
    }

    #[test]
    fn what_exceeds_a_limit_is_not_acceptable() {
        let nodes = |count: u16| {
            let different = (0..count).map(|n| {
                let mut one = node(16, 4);
                one[2..4].copy_from_slice(&n.to_le_bytes());
                one
            });
            question(&different.collect::<Vec<_>>())
        };
        assert!(acceptable(&nodes(MAX_NODES)) && !acceptable(&nodes(MAX_NODES + 1)));
        assert!(!acceptable(&question(&[node(MAX_NODE_NAME + 1, 4)])));
        assert!(acceptable(&blocks(MAX_BLOCKS)) && !acceptable(&blocks(MAX_BLOCKS + 1)));
    }

    #[test]
    fn another_version_or_kind_is_not_acceptable() {
        for bad in [[0x54, 0xB0, 0, 3], [0x53, 0xB0, 1, 3], [0x53, 0xB0, 0, 4], [0x53, 0xB0, 0, 255]] {
            assert!(!acceptable(&bad));
        }
        assert!(!acceptable(&question(&[node(1, 5)])));
    }

    proptest! {
        #[test]
        fn within_the_limits_whatever_the_library_can_decode_is_acceptable(
            mut bytes in vec(any::<u8>(), 0..100),
            kind in 0u8..4,
        ) {
            acceptable(&bytes);
            if bytes.len() >= 4 {
                bytes[..3].copy_from_slice(&HEAD);
                bytes[3] = kind;
            }
            let walked = acceptable(&bytes);
            let mut rest = bytes.as_slice();
            if ChitchatMessage::deserialize(&mut rest).is_ok() && rest.is_empty() {
                prop_assert!(walked);
            }
        }
    }
}
