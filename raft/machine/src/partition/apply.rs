//! Applying one entry of a partition's log.

use super::command::{Command, Outcome};
use super::table::Tables;

/// Applies the entry at log `index`: writes go to `tables`, the rest is returned.
///
/// # Errors
///
/// Only those of `tables` (the disk): the batch must then be abandoned.
pub fn apply<T: Tables>(_tables: &mut T, _index: u64, _command: &Command) -> Result<Outcome, T::Error> {
    todo!("the machine's helper writes this")
}
