//! The lock that lets one node of a machine form the cluster while the others wait.
//!
//! It is asked for again and again instead of waited for in the kernel: the wait has an end, and costs no thread.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use super::Error;
use crate::clock;

const FILE: &str = "forming";
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Of the holder's process id.
const MAX_TEXT: u64 = 32;

/// While this lives no other node of the machine forms the cluster. Keep it from the look at the others until the own
/// entry names the cluster that was joined or made.
#[derive(Debug)]
pub struct FormingGuard {
    /// Dropping it unlocks.
    _held: File,
}

pub(super) async fn take(folder: &Path, patience: Duration) -> Result<FormingGuard, Error> {
    let path = folder.join(FILE);
    let failed = |source| Error::Io { path: path.clone(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    let end = clock::runtime() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if clock::runtime() < end => tokio::time::sleep(ASK_AGAIN).await,
            Err(TryLockError::WouldBlock) => {
                let mut by = String::new();
                // Only a text for people: empty is as good.
                let _ = file.take(MAX_TEXT).read_to_string(&mut by);
                return Err(Error::StillForming { by: by.trim().to_owned(), waited: patience });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
    file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(FormingGuard { _held: file })
}
