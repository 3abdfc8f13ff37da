//! Where the journal must not be.

use super::{OpenError, Options};

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

/// SQLite's locks and syncs are not to be trusted on a network file system.
pub(super) fn refuse_network_filesystem(options: &Options) -> Result<(), OpenError> {
    let dir = &options.dir;
    let found = rustix::fs::statfs(dir.as_path()).map_err(|error| OpenError::Directory {
        dir: dir.clone(),
        source: error.into(),
    })?;
    match NETWORK
        .iter()
        .find(|(magic, _)| i128::from(*magic) == i128::from(found.f_type))
    {
        Some((_, name)) if !options.allow_network_filesystem => Err(OpenError::NetworkFilesystem {
            dir: dir.clone(),
            name,
        }),
        _ => Ok(()),
    }
}
