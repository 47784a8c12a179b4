//! What the node tells about itself: trace context.

pub mod trace;
