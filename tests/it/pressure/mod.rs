//! Callbacks are stored in time under pressure: while the quarantine fills, while a foreign request is judged,
//! beside many stored results, and while another process reads the database.
//!
//! Each test sends good callbacks at a constant rate, first without and then under the pressure.

mod attribution;
mod foreign_reader;
mod quarantine;
mod unknown_change;

use std::{
    fmt,
    fs::File,
    io::{self, Write as _},
    time::Duration,
};

use reqwest::Client;
use tokio::{
    sync::{Mutex, MutexGuard},
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until},
};

use crate::support::{env::TestEnv, http::http_client, wait::in_time};

/// Limit of the 99th percentile of the response times.
const P99_LIMIT: Duration = Duration::from_millis(200);
/// On a busy machine, other operations are slow too. Then the limit is this multiple of their 99th percentile.
const MAX_RATIO: u32 = 5;
/// Interval of the operations to compare with.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// The responses to callbacks.
#[derive(Default)]
struct Deliveries {
    response_times: Vec<Duration>,
    /// Statuses other than 200.
    refusals: Vec<u16>,
    /// The times of operations that do not need the journal, meanwhile.
    probe_times: Vec<Duration>,
}

/// The tests run one at a time, because one would be a pressure for the others.
async fn alone() -> MutexGuard<'static, ()> {
    static RUNNING: Mutex<()> = Mutex::const_new(());
    RUNNING.lock().await
}

/// Sends callbacks at a constant rate, and waits for all responses. A response time begins when the callback is
/// due.
async fn deliver_at_rate(
    env: &TestEnv,
    url: &str,
    callbacks: impl IntoIterator<Item = String>,
    per_second: u32,
) -> Deliveries {
    let deliver = async {
        let http = http_client();
        let start = Instant::now();
        let mut sends = JoinSet::new();
        for (number, callback) in (0..).zip(callbacks) {
            let due = start + Duration::from_secs(1) * number / per_second;
            sleep_until(due).await;
            sends.spawn(deliver_one(http.clone(), url.to_owned(), callback, due));
        }
        Deliveries::join(sends).await
    };
    probed(env, deliver).await
}

/// Sends one callback. Returns the status of the response, and its time since `due`.
async fn deliver_one(http: Client, url: String, callback: String, due: Instant) -> (u16, Duration) {
    let response = http.post(url).body(callback).send().await.expect("a response");
    (response.status().as_u16(), due.elapsed())
}

/// Makes deliveries, and probes the machine meanwhile: a request that does not need the journal, and a sync of
/// a file beside it.
async fn probed(env: &TestEnv, deliver: impl Future<Output = Deliveries>) -> Deliveries {
    let http = http_client();
    let url = format!("http://{}/livez", env.gateway.admin);
    let path = env.directory.join("probe");
    let probe = async |due: Instant| {
        sleep_until(due).await;
        http.get(&url).send().await.expect("a response");
        let path = path.clone();
        let sync = spawn_blocking(move || -> io::Result<()> {
            let mut file = File::create(path)?;
            file.write_all(&[0; 4096])?;
            file.sync_data()
        });
        sync.await.expect("no panic").expect("a file");
        due.elapsed()
    };
    let mut deliver = std::pin::pin!(deliver);
    let mut probe_times = Vec::new();
    let mut due = Instant::now();
    loop {
        tokio::select! {
            deliveries = &mut deliver => return Deliveries { probe_times, ..deliveries },
            time = probe(due) => probe_times.push(time),
        }
        due = (due + PROBE_INTERVAL).max(Instant::now());
    }
}

/// Prints a figure, which is visible if the test fails, or with `--nocapture`.
#[allow(clippy::print_stdout, reason = "the output of a test")]
fn report(line: fmt::Arguments<'_>) {
    println!("{line}");
}

impl Deliveries {
    async fn join(sends: JoinSet<(u16, Duration)>) -> Self {
        let mut deliveries = Self::default();
        for (status, response_time) in in_time(sends.join_all()).await {
            deliveries.response_times.push(response_time);
            if status != 200 {
                deliveries.refusals.push(status);
            }
        }
        deliveries
    }

    /// Checks that all callbacks under pressure were acknowledged, and in time.
    fn assert_unaffected(&self, without_pressure: &Self) {
        for (name, deliveries) in [("without", without_pressure), ("under", self)] {
            let Self { response_times, refusals, probe_times } = deliveries;
            let [p50, p99, max] = [50, 99, 100].map(|percent| percentile(response_times, percent));
            report(format_args!(
                "{name} pressure: {} of {} refused, p50 {p50:?}, p99 {p99:?}, maximum {max:?}; p99 of probes {:?}",
                refusals.len(),
                response_times.len(),
                percentile(probe_times, 99),
            ));
        }
        assert_eq!(without_pressure.refusals, [0; 0]);
        assert_eq!(self.refusals, [0; 0]);
        let comparable = [&without_pressure.response_times, &self.probe_times];
        let slowest = comparable.map(|times| percentile(times, 99)).into_iter().max();
        let limit = P99_LIMIT.max(slowest.unwrap_or_default() * MAX_RATIO);
        let p99 = percentile(&self.response_times, 99);
        assert!(p99 < limit, "p99 is {p99:?}, the limit is {limit:?}");
    }
}

/// Returns the time that this part of the operations does not exceed.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}
