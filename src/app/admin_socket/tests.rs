use tempfile::TempDir;

use super::*;

#[tokio::test]
async fn the_file_is_removed_unless_another_one_has_replaced_it() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("admin.sock");
    drop(AdminSocket::bind(&path).unwrap());
    assert!(!path.exists());

    let socket = AdminSocket::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "another file").unwrap();
    drop(socket);
    assert_eq!(fs::read_to_string(&path).unwrap(), "another file");
}
