use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::statvfs;
use rustix::system::uname;
use thiserror::Error;

/// What is true of this machine now: the part of a node's status that no configuration decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Cores that this process may use.
    pub cores: u32,
    /// Memory in bytes.
    pub memory: Room,
    /// The file system of the node's root directory, in bytes.
    pub disk: Room,
    /// The same file system's inodes; all zero where it does not count them.
    pub inodes: Room,
    /// Changes with every boot of the machine.
    pub boot_id: String,
    /// The machine's own id.
    pub machine_id: String,
    /// The firmware's id of the machine; the machine id where only root may read that.
    pub system_uuid: String,
    /// The kernel's release.
    pub kernel: String,
    /// The operating system's name and version.
    pub os_image: String,
}

/// Something of which there is so much, and of which some is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// How much there is.
    pub total: u64,
    /// How much of it is free.
    pub available: u64,
}

/// A fact without which no status can be written.
#[derive(Debug, Error)]
pub enum FactsError {
    /// The file system of the root directory cannot be asked.
    #[error("cannot read the free space under {0}")]
    Disk(std::path::PathBuf, #[source] io::Error),
    /// The machine's memory cannot be read.
    #[error("cannot read /proc/meminfo")]
    Memory(#[source] io::Error),
}

impl Facts {
    /// Reads the facts of this machine; `root_dir` is a directory on the file system that counts.
    ///
    /// # Errors
    /// When memory or disk cannot be read. Ids and names that cannot be read are empty.
    pub fn read(root_dir: &Path) -> Result<Self, FactsError> {
        let meminfo = fs::read_to_string("/proc/meminfo").map_err(FactsError::Memory)?;
        let (disk, inodes) =
            disk(root_dir).map_err(|error| FactsError::Disk(root_dir.to_owned(), error.into()))?;
        let machine_id = first_line("/etc/machine-id");
        let system_uuid = first_line("/sys/class/dmi/id/product_uuid");
        Ok(Self {
            cores: std::thread::available_parallelism().map_or(1, |cores| saturate(cores.get())),
            memory: memory(&meminfo),
            disk,
            inodes,
            boot_id: first_line("/proc/sys/kernel/random/boot_id"),
            system_uuid: if system_uuid.is_empty() { machine_id.clone() } else { system_uuid },
            machine_id,
            kernel: uname().release().to_string_lossy().into_owned(),
            os_image: pretty_name(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        })
    }
}

fn saturate(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default().trim().to_owned()
}

fn disk(root_dir: &Path) -> rustix::io::Result<(Room, Room)> {
    let found = statvfs(root_dir)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok((
        Room { total: bytes(found.f_blocks), available: bytes(found.f_bavail) },
        Room { total: found.f_files, available: found.f_favail },
    ))
}

fn memory(meminfo: &str) -> Room {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Room { total: bytes("MemTotal").unwrap_or(0), available: bytes("MemAvailable").unwrap_or(0) }
}

fn pretty_name(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim().trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let meminfo = "MemTotal:        2048 kB\nMemFree: 1 kB\nMemAvailable:     512 kB\n";
        assert_eq!(memory(meminfo), Room { total: 2 << 20, available: 512 << 10 });
        assert_eq!(memory("MemTotal: many\n"), Room::default());
    }

    #[test]
    fn the_operating_systems_name_is_unquoted() {
        assert_eq!(pretty_name("ID=debian\nPRETTY_NAME=\"Debian 13\"\n"), "Debian 13");
        assert_eq!(pretty_name(""), "Linux");
    }

    #[test]
    fn this_machine_has_facts() {
        let facts = Facts::read(Path::new("/")).unwrap();
        assert!(facts.cores > 0 && facts.memory.total > 0 && facts.disk.total > 0, "{facts:?}");
        assert!(facts.memory.available <= facts.memory.total && !facts.kernel.is_empty(), "{facts:?}");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = Facts::read(Path::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the free space under /nowhere/at/all");
    }
}
