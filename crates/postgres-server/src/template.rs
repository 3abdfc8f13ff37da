//! Template clusters. `initdb` needs a second, a copy a fraction of it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use nix::unistd::Uid;

use crate::{
    directory::Directory,
    error::{Error, Result},
    installation::{Installation, run},
};

const CACHE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/postgres");

/// Copies the template cluster of a version to `to`. The first call for a version creates it.
///
/// A template belongs to the user of the servers, also in the directory of another user. Root copies
/// it with its owner, so the user of the servers needs no access to the workspace.
pub(crate) fn copy(installation: &Installation, to: &Path) -> Result<()> {
    let name = format!("{}-{}", file_name(&installation.version), Uid::effective());
    let template = Path::new(CACHE).join(name);
    {
        let _lock = lock()?;
        if !template.exists() {
            create(installation, &template)?;
        }
    }
    copy_directory(&template, to)
}

/// Locks the cache until the file is dropped, also against other processes.
pub(crate) fn lock() -> Result<File> {
    let path = PathBuf::from(CACHE).join("lock");
    fs::create_dir_all(CACHE).map_err(|error| Error::io("create", Path::new(CACHE), &error))?;
    let file = File::create(&path).map_err(|error| Error::io("create", &path, &error))?;
    file.lock().map_err(|error| Error::io("lock", &path, &error))?;
    Ok(file)
}

/// Replaces all characters that are unusual in names of files.
pub(crate) fn file_name(version: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '.';
    version.split(|c| !allowed(c)).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

fn create(installation: &Installation, template: &Path) -> Result<()> {
    let directory = Directory::create(installation.user)?;
    let mut initdb = installation.command("initdb", directory.path());
    run(initdb
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"])
        .args(["--no-sync", "--no-instructions", "--pgdata"])
        .arg(directory.data()))?;
    // A copy that was interrupted does not have the name of a template.
    let partial = Path::new(CACHE).join("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).map_err(|error| Error::io("remove", &partial, &error))?;
    }
    copy_directory(&directory.data(), &partial)?;
    fs::rename(&partial, template).map_err(|error| Error::io("create", template, &error))
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").args(["--archive", "--reflink=auto"]).args([from, to])).map(drop)
}
