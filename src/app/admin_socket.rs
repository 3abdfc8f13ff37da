//! The admin socket: a Unix socket that only the gateway's user can open.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use axum::Router;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// Creates the socket. Replaces a socket without a listener, which a killed process leaves behind.
///
/// # Errors
///
/// Fails if the path is not a socket, or if another process listens on it.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
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
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
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

/// Serves requests until `stop`, then removes the socket.
pub(super) async fn serve(
    listener: UnixListener,
    path: PathBuf,
    router: Router,
    stop: CancellationToken,
) {
    // Also removes the socket if a drain cancels this future.
    let _guard = SocketGuard::new(path);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "admin socket failed");
    }
}

/// Removes the socket when dropped, unless another file has replaced it.
struct SocketGuard {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl SocketGuard {
    fn new(path: PathBuf) -> Self {
        let inode = inode(&path);
        Self { path, inode }
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            let _removed = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}
