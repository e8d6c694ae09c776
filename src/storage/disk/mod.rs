//! One data directory, behind a small trait, so that the log, the identity and the checkpoints can run on a disk that
//! loses, tears and refuses writes ([`MemoryDisk`]) exactly as they run on a real one ([`FileDisk`]).
//!
//! Names are relative to the directory and contain no separators. A file's bytes are durable after
//! [`DiskFile::sync_data`]. Its creation, renaming or removal is durable after [`Disk::sync_dir`].

mod memory;

pub use memory::MemoryDisk;

use std::any::Any;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A data directory.
pub trait Disk: Send + Sync {
    /// Returns the name of this directory for messages to people.
    fn place(&self) -> String;

    /// Creates an empty file, or empties the one that has this name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file to read and write.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file that will not be written.
    fn open_read_only(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Returns the names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Renames a file; a file that had the new name is gone.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every creation, renaming and removal so far durable.
    fn sync_dir(&self) -> io::Result<()>;

    /// Returns how many bytes can still be written, according to the system; `u64::MAX` if it does not say.
    fn free_bytes(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    /// Locks the directory for this process until the returned value is dropped. If another process holds the lock, the
    /// error is of the kind `WouldBlock`, and its text can be shown to the operator.
    fn lock(&self) -> io::Result<DiskLock>;
}

/// A file of a [`Disk`]. Several threads may use it at once, at different offsets.
pub trait DiskFile: Send + Sync {
    /// Returns the size of the file in bytes.
    fn size(&self) -> io::Result<u64>;

    /// Reads up to `buffer.len()` bytes; 0 means that the file ends at or before `offset`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes`. After an error any part of them may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything written so far durable. After an error it is unknown which writes since the last success are
    /// durable, and a second call would not show it: do not retry.
    fn sync_data(&self) -> io::Result<()>;

    /// Cuts or extends the file to `bytes`. The zeros at an extended end have no disk blocks of their own yet.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
}

/// The lock on a directory for this process. Dropping it releases the lock.
pub struct DiskLock {
    _held: Box<dyn Any + Send + Sync>,
}

/// Reads until `buffer` is full or the file ends. Returns the number of bytes read.
pub fn read_full(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(offset + filled as u64, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Replaces a small file so that a crash leaves either the old content or the new one, and makes the change durable.
pub fn replace(disk: &dyn Disk, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.new");
    let file = disk.create(&temporary)?;
    file.write_at(0, content)?;
    file.sync_data()?;
    disk.rename(&temporary, name)?;
    disk.sync_dir()
}

/// A directory of the operating system.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
}

/// The file whose lock stands for the whole directory.
const LOCK_FILE: &str = "lock";

impl FileDisk {
    /// Uses the directory at `path`, and creates it if it does not exist.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<FileDisk> {
        let path = path.into();
        let missing: Vec<&Path> = path.ancestors().take_while(|ancestor| !ancestor.is_dir()).collect();
        if path.exists() && !path.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is a file, not a directory"));
        }
        fs::create_dir_all(&path)?;
        // Without these syncs a power cut could take a whole new directory, with votes in it that seemed durable.
        for created in missing {
            match created.parent() {
                Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all()?,
                Some(parent) => File::open(parent)?.sync_all()?,
                None => {}
            }
        }
        Ok(FileDisk { path })
    }

    /// Uses the directory at `path`, which must exist. For commands that only read.
    pub fn existing(path: impl Into<PathBuf>) -> io::Result<FileDisk> {
        let path = path.into();
        fs::read_dir(&path)?;
        Ok(FileDisk { path })
    }
}

impl Disk for FileDisk {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(self.path.join(name))?))
    }

    fn open_read_only(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::open(self.path.join(name))?))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A file whose name is not UTF-8 does not belong to this program.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let system = rustix::fs::statvfs(&self.path)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn lock(&self) -> io::Result<DiskLock> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.path.join(LOCK_FILE))?;
        match file.try_lock() {
            Ok(()) => Ok(DiskLock { _held: Box::new(file) }),
            Err(TryLockError::WouldBlock) => Err(in_use(&self.place())),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn in_use(place: &str) -> io::Error {
    io::Error::new(io::ErrorKind::WouldBlock, format!("data directory {place} is in use by another process"))
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behaves_like_a_directory(disk: &dyn Disk) {
        let file = disk.create("a").unwrap();
        file.write_at(3, b"xyz").unwrap();
        file.set_len(5).unwrap();
        file.sync_data().unwrap();
        disk.rename("a", "b").unwrap();
        replace(disk, "c", b"content").unwrap();
        replace(disk, "c", b"other").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.list().unwrap(), ["b", "c"]);
        let mut buffer = [9; 8];
        assert_eq!(read_full(&*disk.open_read_only("b").unwrap(), 0, &mut buffer).unwrap(), 5);
        assert_eq!(&buffer[..5], b"\0\0\0xy");
        assert_eq!(disk.open("c").unwrap().size().unwrap(), 5);
        assert_eq!(disk.open("a").err().unwrap().kind(), io::ErrorKind::NotFound);
        disk.remove("b").unwrap();
        assert_eq!(disk.list().unwrap(), ["c"]);
        let held = disk.lock().unwrap();
        let refused = disk.lock().err().unwrap();
        assert_eq!(refused.to_string(), format!("data directory {} is in use by another process", disk.place()));
        drop(held);
        disk.lock().unwrap();
    }

    #[test]
    fn a_real_directory_and_one_in_memory_behave_alike() {
        let folder = tempfile::tempdir().unwrap();
        behaves_like_a_directory(&FileDisk::create(folder.path().join("new/data")).unwrap());
        behaves_like_a_directory(&MemoryDisk::new());
    }

    #[test]
    fn looking_at_a_directory_does_not_create_it() {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("file")).unwrap();
        let refused = FileDisk::create(folder.path().join("file")).unwrap_err();
        assert_eq!(refused.to_string(), "it is a file, not a directory");
        assert_eq!(FileDisk::existing(folder.path().join("none")).err().unwrap().kind(), io::ErrorKind::NotFound);
        assert!(!folder.path().join("none").exists());
    }
}
