//! The admin socket: a Unix socket that only the gateway's user can open.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::Path,
};

use axum::Router;
use tempfile::TempPath;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// The bound socket. Its file is removed when it is dropped.
pub(super) struct AdminSocket {
    listener: UnixListener,
    _file: TempPath,
}

impl AdminSocket {
    /// Creates the socket. Replaces a socket without a listener, which a killed process leaves behind.
    ///
    /// # Errors
    ///
    /// Fails if the path is not a socket, or if another process listens on it.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
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
        let file = TempPath::try_from_path(path)?;
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

fn remove_abandoned(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::other(
            "another process listens on it; stop that process, or choose another path",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}
