//! Messages arrive whole or not at all, only under the right key, and nothing that is sent here costs memory for long.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn from(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn key(byte: u8) -> Option<ClusterKey> {
    Some(ClusterKey::new([byte; 32]))
}

fn message(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 % 251) as u8).collect()
}

/// What `joiner` makes of `datagrams`.
fn joined(joiner: &mut Joiner, datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
    datagrams.iter().filter_map(|datagram| joiner.take(from(1), datagram).unwrap()).collect()
}

#[test]
fn a_message_of_any_length_arrives_once_in_whatever_order_its_parts_come() {
    for key in [None, key(1)] {
        for length in [1, 2, DATAGRAM - HEAD - TAG, DATAGRAM - HEAD - TAG + 1, 5_000, MAX_MESSAGE] {
            let sent = message(length);
            let mut datagrams = Cutter::new(key.clone(), 9).cut(&sent).unwrap();
            assert!(datagrams.iter().all(|datagram| datagram.len() <= DATAGRAM));
            assert_eq!(joined(&mut Joiner::new(key.clone()), &datagrams), [sent.as_slice()], "{length}");
            datagrams.reverse();
            datagrams.extend(datagrams.last().cloned().filter(|_| datagrams.len() > 1));
            assert_eq!(joined(&mut Joiner::new(key.clone()), &datagrams), [sent], "{length}");
        }
    }
}

#[test]
fn what_no_message_can_be_is_not_cut() {
    let mut cutter = Cutter::new(None, 0);
    assert_eq!(cutter.cut(&[]), None);
    assert_eq!(cutter.cut(&message(MAX_MESSAGE + 1)), None);
}

#[test]
fn a_message_without_one_of_its_parts_does_not_arrive() {
    let datagrams = Cutter::new(None, 1).cut(&message(10_000)).unwrap();
    for missing in 0..datagrams.len() {
        let mut some = datagrams.clone();
        some.remove(missing);
        assert_eq!(joined(&mut Joiner::new(None), &some), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn parts_of_different_senders_and_messages_are_not_mixed() {
    let (one, other) = (message(3_000), vec![0xFF; 3_000]);
    let ours = Cutter::new(None, 5).cut(&one).unwrap();
    let theirs = Cutter::new(None, 5).cut(&other).unwrap();
    let mut joiner = Joiner::new(None);
    let mut arrived = Vec::new();
    for (a, b) in ours.iter().zip(&theirs) {
        arrived.extend(joiner.take(from(1), a).unwrap());
        arrived.extend(joiner.take(from(2), b).unwrap());
    }
    assert_eq!(arrived, [one, other]);
}

#[test]
fn without_the_key_nobody_is_heard_and_nobody_hears() {
    let kinds = [None, key(1), key(2)];
    for sender in &kinds {
        for receiver in &kinds {
            let same = match (sender, receiver) {
                (None, None) => true,
                (Some(_), Some(_)) => std::ptr::eq(sender, receiver),
                (None, Some(_)) | (Some(_), None) => false,
            };
            let datagrams = Cutter::new(sender.clone(), 1).cut(&message(50)).unwrap();
            let answer = Joiner::new(receiver.clone()).take(from(1), &datagrams[0]);
            assert_eq!(answer, if same { Ok(Some(message(50))) } else { Err(Refused::Forged) });
        }
    }
}

#[test]
fn a_sealed_datagram_with_any_bit_changed_is_refused() {
    let datagram = Cutter::new(key(1), 1).cut(&message(40)).unwrap().remove(0);
    for bit in 0..datagram.len() * 8 {
        let mut changed = datagram.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(Joiner::new(key(1)).take(from(1), &changed).is_err(), "bit {bit}");
    }
}

#[test]
fn half_messages_are_kept_up_to_a_number_and_a_size() {
    let mut joiner = Joiner::new(None);
    let mut last = Vec::new();
    for number in 0..1_000 {
        last = Cutter::new(None, number).cut(&message(MAX_MESSAGE)).unwrap();
        for part in &last[1..] {
            assert_eq!(joiner.take(from(number as u16), part), Ok(None));
        }
        assert!(joiner.pending.len() <= MAX_PENDING && joiner.bytes <= MAX_PENDING_BYTES);
        assert_eq!(joiner.order.len(), joiner.pending.len());
    }
    assert_eq!(joiner.take(from(999), &last[0]), Ok(Some(message(MAX_MESSAGE))));
    assert_eq!(joiner.bytes, joiner.pending.values().map(|pending| pending.bytes).sum::<usize>());
}

#[test]
fn the_key_is_not_shown() {
    assert_eq!(format!("{:?}", ClusterKey::new([7; 32])), "ClusterKey(..)");
}

proptest! {
    #[test]
    fn any_bytes_are_taken_without_a_panic_and_within_the_limits(
        datagrams in vec((0u16..4, vec(any::<u8>(), 0..64)), 0..200),
        sealed: bool,
        shaped: bool,
    ) {
        let mut joiner = Joiner::new(if sealed { key(1) } else { None });
        for (port, mut datagram) in datagrams {
            if shaped && datagram.len() >= 2 {
                datagram[0] = MAGIC;
                datagram[1] = PLAIN;
            }
            let _ = joiner.take(from(port), &datagram);
            prop_assert!(joiner.pending.len() <= MAX_PENDING);
            prop_assert_eq!(joiner.bytes, joiner.pending.values().map(|pending| pending.bytes).sum::<usize>());
        }
    }

    #[test]
    fn messages_whose_parts_are_interleaved_all_arrive(
        lengths in vec(1usize..8_000, 1..8),
        order in any::<prop::sample::Index>(),
    ) {
        let mut cutter = Cutter::new(key(3), u32::MAX - 2);
        let mut all: Vec<_> = lengths.iter().flat_map(|length| cutter.cut(&message(*length)).unwrap()).collect();
        let start = order.index(all.len());
        all.rotate_left(start);
        let mut arrived: Vec<_> = joined(&mut Joiner::new(key(3)), &all).iter().map(Vec::len).collect();
        arrived.sort_unstable();
        let mut wanted = lengths;
        wanted.sort_unstable();
        prop_assert_eq!(arrived, wanted);
    }
}
