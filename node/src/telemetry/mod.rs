//! What the node tells about itself: trace context, and times counted by their length.

pub mod histogram;
pub mod trace;
