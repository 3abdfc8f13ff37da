use super::*;
use crate::journal::{
    apply::{Keys, WorkingSet},
    engine::Epoch,
    sql,
    sqlite::marker::{MarkerFile, create, load},
};

/// A command that only runs a function with the reply.
struct OnReply<F>(F);

impl<F: FnOnce(Result<(), &JournalError>) + Send> Action for OnReply<F> {
    fn collect(&self, _: &mut Keys) {}

    fn apply(&mut self, _: &mut WorkingSet) -> sql::Result<()> {
        Ok(())
    }

    fn reply(self: Box<Self>, committed: Result<(), &JournalError>) {
        (self.0)(committed);
    }
}

fn on_reply(
    reply: impl FnOnce(Result<(), &JournalError>) + Send + 'static,
) -> Vec<Box<dyn Action>> {
    vec![Box::new(OnReply(reply))]
}

fn marker(position: u64) -> Marker {
    Marker { epoch: Epoch(0xfeed), position }
}

#[test]
fn replies_fail_when_the_marker_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path(), marker(0)).unwrap();
    let writer = MarkerWriter::with(MarkerSlots::read_only(dir.path(), marker(0)), 0).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let reply = on_reply(move |result| sender.send(result.map_err(Clone::clone)).unwrap());
    writer.on_commit(Some(5), reply);
    let error = receiver.recv().unwrap().unwrap_err();
    assert!(matches!(error, JournalError::MayBeStored(_)), "{error}");
    drop(writer);
    assert_eq!(load(dir.path()).unwrap(), MarkerFile::Valid(marker(0)));
}

#[test]
fn replies_wait_for_the_marker_and_drop_flushes_it() {
    let dir = tempfile::tempdir().unwrap();
    create(dir.path(), marker(0)).unwrap();
    let writer = MarkerWriter::start(dir.path(), marker(0)).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let path = dir.path().to_owned();
    let reply = on_reply(move |result| {
        let is_ok = result.is_ok();
        sender.send((is_ok, load(&path).unwrap())).unwrap();
    });
    writer.on_commit(Some(5), reply);
    assert_eq!(receiver.recv().unwrap(), (true, MarkerFile::Valid(marker(5))));
    writer.on_commit(Some(6), Vec::new());
    drop(writer);
    assert_eq!(load(dir.path()).unwrap(), MarkerFile::Valid(marker(6)));
}
