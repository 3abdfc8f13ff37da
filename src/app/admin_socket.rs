//! The admin socket: a Unix socket that only the gateway's user can open.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use axum::Router;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// The bound socket.
pub(super) struct AdminSocket {
    listener: UnixListener,
    _file: SocketFile,
}

/// The file of a socket. Removed when dropped, unless another file has replaced it.
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl AdminSocket {
    /// Creates the socket, and its directory if that is missing. Replaces a socket without a listener, which a killed process leaves behind.
    ///
    /// # Errors
    ///
    /// Fails if the path is not a socket, or if another process listens on it.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::other(
                    "the file is not a socket; remove it, or choose another path",
                ));
            }
            Ok(_) => remove_abandoned(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(path)?;
        let file = SocketFile { path: path.to_owned(), id: file_id(path)? };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, _file: file })
    }

    /// Serves requests until `stop`.
    pub(super) async fn serve(self, router: Router, stop: CancellationToken) {
        let served = axum::serve(self.listener, router);
        if let Err(error) = served.with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::error!(%error, "admin socket failed");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if file_id(&self.path).is_ok_and(|id| id == self.id) {
            let _removed = fs::remove_file(&self.path);
        }
    }
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

fn remove_abandoned(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::other(
            "another process listens on it; stop that process, or choose another path",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
