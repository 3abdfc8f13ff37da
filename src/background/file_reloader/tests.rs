use std::{convert::Infallible, sync::atomic::AtomicUsize};

use tokio::time::{Instant, advance};

use super::*;

/// Adds a file whose reads are counted, and then do something else.
fn add_file(
    files: &mut FileReloader,
    name: &str,
    then: impl Fn() + Send + Sync + 'static,
) -> Arc<AtomicUsize> {
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    files.add(name, move || {
        counted.fetch_add(1, Relaxed);
        then();
        Ok::<_, Infallible>(())
    });
    reads
}

/// Runs a reloader until each of these files has been read this many times.
async fn run_until_read(files: FileReloader, reads: &[&AtomicUsize], count: usize) {
    // The threads work in real time.
    let until_read = async {
        for _ in 0..10_000_000 {
            if reads.iter().all(|reads| reads.load(Relaxed) >= count) {
                return;
            }
            advance(RELOAD_INTERVAL).await;
        }
        panic!("{reads:?} reads");
    };
    tokio::select! {
        () = files.run() => panic!("ended"),
        () = until_read => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_one_file_is_read_does_not_stop_the_reload_of_any() {
    let mut files = FileReloader::default();
    let bad = add_file(&mut files, "bad", || panic!("a defect"));
    let last = add_file(&mut files, "last", || {});
    run_until_read(files, &[&bad, &last], 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_read_that_does_not_end_does_not_delay_the_other_files_and_is_not_repeated() {
    let mut files = FileReloader::default();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = parking_lot::Mutex::new(released);
    let hung = add_file(&mut files, "hung", move || {
        let _released = released.lock().recv();
    });
    let last = add_file(&mut files, "last", || {});
    run_until_read(files, &[&last], 20).await;
    assert_eq!(hung.load(Relaxed), 1);
    drop(release);
}

#[tokio::test(start_paused = true)]
async fn a_reloader_without_files_never_ends() {
    let begin = Instant::now();
    let run = FileReloader::default().run();
    tokio::select! {
        () = run => panic!("ended"),
        () = advance(Duration::from_secs(60)) => {}
    }
    assert!(begin.elapsed() >= Duration::from_secs(60));
}
