//! Detects network file systems.

use crate::journal::sqlite::{error::JournalOpenError, options::SqliteOptions};

/// Magic numbers of statfs(2).
const NETWORK: [(i64, &str); 7] = [
    (0x6969, "NFS"),
    (0x517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x00C3_6400, "Ceph"),
    (0x0102_1997, "9p"),
    (0x0BD0_0BD0, "Lustre"),
];

/// Returns true if the directory is on a network file system, and an error if that is not permitted.
pub(super) fn check_network_filesystem(options: &SqliteOptions) -> Result<bool, JournalOpenError> {
    let dir = options.dir.as_path();
    let found =
        rustix::fs::statfs(dir).map_err(|error| JournalOpenError::directory(dir, error.into()))?;
    let network = NETWORK.iter().find(|(magic, _)| i128::from(*magic) == i128::from(found.f_type));
    match network {
        Some((_, name)) if !options.allow_network_filesystem => {
            Err(JournalOpenError::NetworkFilesystem { dir: dir.to_owned(), name })
        }
        _ => Ok(network.is_some()),
    }
}
