//! What one `fdatasync` costs on a file system: the floor under every durable write, printed beside the results.

use std::fs::OpenOptions;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::stats::{Latencies, Summary};

/// Bytes written before each sync: one small log batch.
const WRITE: usize = 4 << 10;
/// The file is written in a circle of this size, as a recycled log file is.
const FILE: u64 = 4 << 20;

/// Writes and syncs in `folder` for `duration`.
///
/// # Errors
///
/// The folder cannot be written.
pub fn sync_cost(folder: &Path, duration: Duration) -> io::Result<Summary> {
    let path = folder.join(format!(".callboard-bench-{}", std::process::id()));
    let result = measure(&path, duration);
    let removed = std::fs::remove_file(&path);
    let summary = result?;
    removed?;
    Ok(summary)
}

fn measure(path: &Path, duration: Duration) -> io::Result<Summary> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(&vec![0; usize::try_from(FILE).unwrap_or(WRITE)])?;
    file.sync_all()?;
    let block = [7_u8; WRITE];
    let mut latencies = Latencies::default();
    let started = Instant::now();
    let mut at = 0;
    while started.elapsed() < duration || latencies.is_empty() {
        let wrote = Instant::now();
        file.seek(SeekFrom::Start(at))?;
        file.write_all(&block)?;
        file.sync_data()?;
        latencies.record(wrote.elapsed());
        at = (at + WRITE as u64) % FILE;
    }
    Ok(latencies.summary())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_are_measured_and_leave_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let summary = sync_cost(dir.path(), Duration::from_millis(20)).unwrap();
        assert!(summary.count > 0 && summary.p50 > 0.0, "{summary:?}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(sync_cost(&dir.path().join("absent"), Duration::ZERO).is_err());
    }
}
