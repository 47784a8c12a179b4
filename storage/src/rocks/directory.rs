//! The data directory: its lock, and the number of its format.
//!
//! The lock is the operating system's (it goes with the process, however that ends), the text in the file is only for
//! whoever is refused. `FORMAT` is written to a temporary name, synced and renamed, and the directory synced, before the
//! first store is made.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::Error;

/// The number of the disk format that this program writes. It reads every one from 1 up to this.
pub const FORMAT: u32 = 1;

const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";
const LOG_DIR: &str = "log";
const STATE_DIR: &str = "state";
/// Files on their way into the state store; empty when nothing is loaded.
const INGEST_DIR: &str = "ingest";

/// A data directory that this process holds.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Open for as long as the lock is held.
    _lock: File,
}

impl Directory {
    /// Locks the directory, making it if it is not there, and checks its format.
    pub fn claim(path: &Path) -> Result<Self, Error> {
        let path = make(path).map_err(|error| Error::io("make the data directory", error))?;
        let lock = lock(&path)?;
        let directory = Self { path, _lock: lock };
        directory.check_format()?;
        directory.empty_ingest()?;
        Ok(directory)
    }

    pub fn log(&self) -> PathBuf {
        self.path.join(LOG_DIR)
    }

    pub fn state(&self) -> PathBuf {
        self.path.join(STATE_DIR)
    }

    pub fn ingest(&self) -> PathBuf {
        self.path.join(INGEST_DIR)
    }

    /// The stores' own directories are durable when this returns.
    pub fn sync(&self) -> Result<(), Error> {
        sync(&self.path).map_err(|error| Error::io("sync the data directory", error))
    }

    fn check_format(&self) -> Result<(), Error> {
        const WHAT: &str = "data directory";
        let text = match fs::read_to_string(self.path.join(FORMAT_FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if self.log().exists() || self.state().exists() {
                    return Err(Error::corrupt(
                        WHAT,
                        format!("{} holds stores but no {FORMAT_FILE} file", self.shown()),
                    ));
                }
                return self.write_format();
            }
            Err(error) => return Err(Error::io("read the format of the data directory", error)),
        };
        match text.trim().parse::<u32>() {
            Ok(1..=FORMAT) => Ok(()),
            Ok(0) | Err(_) => {
                Err(Error::corrupt(WHAT, format!("{}/{FORMAT_FILE} holds no format number", self.shown())))
            }
            Ok(newer) => Err(Error::corrupt(
                WHAT,
                format!("{} is of format {newer}; this program reads up to {FORMAT}: use a newer one", self.shown()),
            )),
        }
    }

    fn write_format(&self) -> Result<(), Error> {
        let temporary = self.path.join("FORMAT.new");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            writeln!(file, "{FORMAT}")?;
            file.sync_all()?;
            fs::rename(&temporary, self.path.join(FORMAT_FILE))?;
            sync(&self.path)
        };
        write().map_err(|error| Error::io("write the format of the data directory", error))
    }

    /// What a crash left of a load is of no use: a load starts again from its beginning.
    fn empty_ingest(&self) -> Result<(), Error> {
        match fs::remove_dir_all(self.ingest()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("clear the ingest directory", error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn shown(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

/// Makes the directory and what is missing above it, durably, and returns its full path.
fn make(path: &Path) -> std::io::Result<PathBuf> {
    let missing = path.ancestors().take_while(|ancestor| !ancestor.exists()).count();
    fs::create_dir_all(path)?;
    let path = path.canonicalize()?;
    path.ancestors().skip(1).take(missing).try_for_each(sync)?;
    Ok(path)
}

fn sync(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

fn lock(dir: &Path) -> Result<File, Error> {
    let failed = |error: std::io::Error| Error::io("lock the data directory", error);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(LOCK_FILE))
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(locked(dir, &mut file)),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let write = |file: &mut File| -> std::io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(failed)?;
    Ok(file)
}

/// Longest text of a lock file that is looked at.
const MAX_HOLDER: u64 = 32;

fn locked(dir: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    // An unreadable name only makes the message shorter.
    let read = file.take(MAX_HOLDER).read_to_string(&mut text);
    let holder = match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!(" (pid {pid})"),
        (Ok(_), Err(_)) | (Err(_), Ok(_) | Err(_)) => String::new(),
    };
    Error::Locked { path: dir.display().to_string(), holder }
}
