//! Where work goes when more than one place could take it.
//!
//! | module | decides |
//! |---|---|
//! | [`hosts`] | at the owner: which node's app runs a new activation |
//! | [`invoke`] | at an entrance: which instance of an app answers a service call |
//!
//! Two questions with different answers. An activation stays where it was put, so its place is a function of the actor
//! that hardly changes when hosts come and go. A service call is over when it is answered, so its place is a matter of
//! the moment, unless the caller asks for the same one each time with a hash key.

pub mod hosts;
pub mod invoke;
