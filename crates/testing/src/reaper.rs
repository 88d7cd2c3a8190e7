//! What a test started ends with the test, however the test ends.
//!
//! Destructors do not run after a SIGKILL, nor for statics. So each process that starts something also starts one
//! small shell in a process group of its own, which reads from a pipe what to take down. The kernel closes the pipe
//! when the process is gone; then the shell kills the process groups and removes the folders it was told of.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

use rustix::process::Pid;

/// Terminal signals are not for it; folders are `$@`; a folder is tried again while the killed still let go of it. A node under
/// test may have mounts in its root directory: they are taken away, and `--one-file-system` spares those that cannot be.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
groups=
while IFS=' ' read -r word rest; do
  case $word in
    group) groups="$groups $rest" ;;
    gone) kept=; for group in $groups; do [ "$group" = "$rest" ] || kept="$kept $group"; done; groups=$kept ;;
    folder) set -- "$@" "$rest" ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
for folder in "$@"; do
  while read -r _ _ _ _ place _; do
    case $place in "$folder"/*) places="$place $places" ;; esac
  done 2>/dev/null </proc/self/mountinfo
  for place in $places; do umount -l -- "$place" 2>/dev/null; done
  tries=0; places=
  until rm -rf --one-file-system -- "$folder" 2>/dev/null || [ "$tries" -ge 50 ]; do
    tries=$((tries + 1)); sleep 0.1
  done
done
"#;

static PIPE: LazyLock<Option<Mutex<ChildStdin>>> = LazyLock::new(|| {
    let mut child = Command::new("/bin/sh")
        .args(["-c", SCRIPT])
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take().map(Mutex::new)
});

/// The process group led by `leader` is killed when this process is gone.
///
/// # Errors
/// The reaper could not be started or told.
pub fn owns_group(leader: Pid) -> std::io::Result<()> {
    tell(format!("group {}\n", leader.as_raw_nonzero()).as_bytes())
}

/// The process group ended; its number may be another's soon.
///
/// # Errors
/// The reaper could not be told.
pub fn released_group(leader: Pid) -> std::io::Result<()> {
    tell(format!("gone {}\n", leader.as_raw_nonzero()).as_bytes())
}

/// The folder is removed when this process is gone.
///
/// # Errors
/// The reaper could not be started or told, or the path is none that can be told in one line.
pub fn owns_folder(folder: &Path) -> std::io::Result<()> {
    let path = folder.as_os_str().as_encoded_bytes();
    if !path.starts_with(b"/") || path.contains(&b'\n') {
        return Err(std::io::Error::other(format!("{} is not a path for the reaper", folder.display())));
    }
    tell(&[b"folder ", path, b"\n"].concat())
}

fn tell(line: &[u8]) -> std::io::Result<()> {
    let pipe = PIPE.as_ref().ok_or_else(|| std::io::Error::other("/bin/sh could not be started"))?;
    pipe.lock().unwrap_or_else(PoisonError::into_inner).write_all(line)
}
