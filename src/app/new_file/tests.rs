use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn a_file_appears_only_when_it_is_complete_and_replaces_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("backup");
    let names = || fs::read_dir(directory.path()).unwrap().count();
    let create_hidden = || {
        let content = Content::create_hidden(&path, directory.path()).unwrap();
        NewFile { path: path.clone(), parent: directory.path().to_owned(), content }
    };
    for create in [&(|| NewFile::create(&path).unwrap()) as &dyn Fn() -> NewFile, &create_hidden] {
        drop(create());
        assert_eq!(names(), 0, "nothing is left of an incomplete file");
        let (mut first, second) = (create(), create());
        first.write_all(b"content").unwrap();
        assert_eq!(first.device().unwrap(), directory.path().metadata().unwrap().dev());
        assert!(!path.exists());
        first.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, MODE);
        let refused = second.finish().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        let refused = NewFile::create(&path).map(drop).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
        assert_eq!(names(), 1);
        fs::remove_file(&path).unwrap();
    }
}
