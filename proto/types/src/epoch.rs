//! Epochs and fencing tokens: the numbers that make a superseded owner or host have no effect.
//!
//! An epoch is the number of a *claim* that a partition's state machine has applied. It is never compared with a Raft
//! term. A fencing token names one activation of one actor under one epoch; it travels with every dispatch and write
//! and is compared where it lands.

use std::fmt;

use crate::{ClusterId, PartitionId};

/// The number of an applied claim. 0 is "never claimed"; the first claim makes 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    pub const NONE: Epoch = Epoch(0);

    /// The epoch that the next claim of the partition gets.
    pub const fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.0)
    }
}

/// The number of an activation within its partition and epoch; rises from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Activation(pub u64);

/// The number of a state command within its fencing token; rises from 1. Makes a repeated command exactly repeatable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriteNumber(pub u64);

/// Names one activation of one actor. Ordered by (recovery generation, epoch, activation) within one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FencingToken {
    pub cluster: ClusterId,
    /// Raised by `recover`; a token of a lower generation is refused everywhere.
    pub generation: u64,
    pub partition: PartitionId,
    pub epoch: Epoch,
    pub activation: Activation,
}

impl FencingToken {
    /// What two tokens of one actor are compared by: higher supersedes lower.
    pub const fn rank(&self) -> (u64, Epoch, Activation) {
        (self.generation, self.epoch, self.activation)
    }
}
