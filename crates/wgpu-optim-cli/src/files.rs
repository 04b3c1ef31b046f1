//! Files that are written whole or not at all.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Links that are followed to a file that does not exist yet, as many as Linux follows.
const LINKS: usize = 40;

/// Writes a new file next to `path` and renames it to `path`, so that `path` holds all of the old bytes or all of the new.
///
/// Permissions of an existing file are kept. A symbolic link stays, and the file that it names is written. A pipe or a device
/// is written in place.
///
/// # Errors
/// If the directory or the file cannot be written. The old file is as it was then.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (path, existing) = match fs::metadata(path) {
        Ok(found) if !found.is_file() => return fs::write(path, bytes),
        Ok(found) => (fs::canonicalize(path)?, Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => (without_links(path)?, None),
        Err(error) => return Err(error),
    };
    let mut file = new_in(directory(&path))?;
    if let Some(existing) = existing {
        file.as_file().set_permissions(existing.permissions())?;
    }
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// A new file of a unique name, with the permissions of any new file. It goes away when it is dropped.
pub fn new_in(directory: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".wgpu-optim-").suffix(".partial");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(directory)
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Follows links at `path` to the file that the last one names, which need not exist.
fn without_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        // Anything but a link is an error here.
        let Ok(target) = fs::read_link(&path) else { return Ok(path) };
        path = directory(&path).join(target);
    }
    Err(io::Error::other("too many symbolic links"))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn permissions_are_those_of_the_old_file_or_of_any_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, usual) = (folder.path().join("out"), folder.path().join("usual"));
        fs::write(&usual, "").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(mode(&path), mode(&usual));
        for kept in [0o600, 0o640, 0o666] {
            fs::set_permissions(&path, PermissionsExt::from_mode(kept)).unwrap();
            write(&path, b"newer").unwrap();
            assert_eq!(mode(&path), kept);
        }
        assert_eq!(fs::read(&path).unwrap(), b"newer");
        assert_eq!(names(folder.path()), ["out", "usual"]);
    }

    #[test]
    fn links_stay_and_their_targets_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("there");
        fs::create_dir(&there).unwrap();
        let (first, second, file) = (folder.path().join("first"), there.join("second"), there.join("file"));
        symlink("there/second", &first).unwrap();
        symlink("file", &second).unwrap();
        // A target that does not exist yet, and one that does.
        for bytes in ["one", "two"] {
            write(&first, bytes.as_bytes()).unwrap();
            assert!(first.is_symlink() && second.is_symlink() && !file.is_symlink());
            assert_eq!(fs::read_to_string(&file).unwrap(), bytes);
        }
        assert_eq!(names(&there), ["file", "second"]);

        let circle = folder.path().join("circle");
        symlink("circle", &circle).unwrap();
        write(&circle, b"x").unwrap_err();
        assert!(circle.is_symlink());
    }

    #[test]
    fn pipes_are_written_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        write(&pipe, b"bytes").unwrap();
        assert!(!fs::metadata(&pipe).unwrap().is_file());
        assert_eq!(reader.join().unwrap(), b"bytes");
        write(folder.path(), b"x").unwrap_err();
        assert_eq!(names(folder.path()), ["pipe"]);
    }

    #[test]
    fn a_path_without_a_directory_is_in_the_current_one() {
        assert_eq!(directory(Path::new("out")), Path::new("."));
        assert_eq!(directory(Path::new("/out")), Path::new("/"));
    }
}
