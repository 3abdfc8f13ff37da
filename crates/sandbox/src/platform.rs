//! The state that handlers and deliveries share.

use std::{io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use reqwest::{Client, redirect, retry};
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use crate::{
    auth::Auth,
    devices::DeviceRegistry,
    ledger::Ledger,
    listeners::{CallbackListener, Registrations},
    one_shot::OneShot,
    rate_limiter::RateLimiter,
    scenario::identifiers::preloaded_devices,
    seeded_faults::token_rng,
    settings::Settings,
};

/// Maximum duration of a callback request.
const CALLBACK_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct Platform {
    pub(crate) settings: Settings,
    /// The HTTP client of callbacks.
    pub(crate) client: Client,
    /// One permit for each callback in flight.
    pub(crate) send_permits: Semaphore,
    /// Cancelled at shutdown: no new work starts.
    pub(crate) stop: CancellationToken,
    /// Cancelled at the end of the drain: running work ends.
    pub(crate) abort: CancellationToken,
    pub(crate) deliveries: TaskTracker,
    pub(crate) auth: Mutex<Auth>,
    pub(crate) registrations: Mutex<Registrations>,
    pub(crate) devices: Mutex<DeviceRegistry>,
    pub(crate) ledger: Mutex<Ledger>,
    pub(crate) rate_limiter: Mutex<RateLimiter>,
    pub(crate) one_shot: Mutex<OneShot>,
}

impl Platform {
    pub(crate) fn new(settings: Settings) -> io::Result<Arc<Self>> {
        let builder = || {
            Client::builder()
                .user_agent("Verizon's callback service")
                .http1_only()
                .no_proxy()
                .redirect(redirect::Policy::none())
                .retry(retry::never())
                .pool_max_idle_per_host(settings.callback_concurrency)
                .timeout(CALLBACK_REQUEST_TIMEOUT)
        };
        // A system without CA certificates can still call http listeners.
        let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
        Ok(Arc::new(Self {
            client: client.map_err(io::Error::other)?,
            send_permits: Semaphore::new(settings.callback_concurrency),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
            deliveries: TaskTracker::new(),
            auth: Mutex::new(Auth::new(&settings, token_rng(&settings))?),
            registrations: Mutex::default(),
            devices: Mutex::new(DeviceRegistry::with_preloaded(preloaded_devices())),
            ledger: Mutex::default(),
            rate_limiter: Mutex::new(RateLimiter::new(settings.requests_per_minute)),
            one_shot: Mutex::default(),
            settings,
        }))
    }

    /// Sleeps. Returns false if the platform stops first.
    pub(crate) async fn sleep_unless_stopped(&self, duration: Duration) -> bool {
        self.stop.run_until_cancelled(sleep(duration)).await.is_some()
    }

    /// Returns the registered listener of an account, or the default one.
    pub(crate) fn find_listener(&self, account: &str, service: &str) -> Option<CallbackListener> {
        let registered = self.registrations.lock().find(account, service);
        registered.or_else(|| {
            // A parsed URL has the braces of its path percent-encoded.
            let template = self.settings.callback_url.as_ref()?.as_str();
            let url = template.replace("{service}", service).replace("%7Bservice%7D", service);
            Some(CallbackListener { url: Url::parse(&url).ok()?, username: None, password: None })
        })
    }
}
