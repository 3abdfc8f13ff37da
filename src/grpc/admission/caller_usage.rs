//! The usage of the limits of each caller, which the policy file sets.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use crate::{
    access::policy::{CallerLimit, CallerLimits, CallerPolicy},
    domain::caller_name::CallerName,
    grpc::{admission::token_bucket::TokenBucket, error::ApiError},
    telemetry::CallerGauges,
};

/// The usage of all callers. Never has more entries than the policy has callers, apart from removed ones
/// whose calls are still in flight.
pub struct CallerUsages {
    callers: RwLock<HashMap<CallerName, Arc<CallerUsage>>>,
    /// Permits of the refusals of all callers that are delayed.
    delayed_refusals: Arc<Semaphore>,
}

/// The usage of one caller: all clients with its identities together.
#[derive(Debug)]
pub(in crate::grpc) struct CallerUsage {
    name: CallerName,
    quotas: Mutex<Quotas>,
    calls: AtomicUsize,
    streams: AtomicUsize,
    /// Permits of the refusals of all callers that are delayed.
    delayed_refusals: Arc<Semaphore>,
    /// Number of delayed refusals of this caller.
    delayed: AtomicUsize,
    /// Refused calls, by limit.
    refusals: [AtomicU64; CallerLimit::ALL.len()],
}

/// The limits of a caller, and its rates. A rate without a limit has no bucket.
#[derive(Debug, Default)]
struct Quotas {
    limits: CallerLimits,
    changes: Option<TokenBucket>,
    devices: Option<TokenBucket>,
}

/// Counts one call of a caller until it is dropped.
#[derive(Debug)]
pub(in crate::grpc) struct CallerPermit {
    usage: Arc<CallerUsage>,
    is_stream: bool,
}

/// Counts a delayed refusal until it is dropped.
struct DelayedRefusal<'a>(&'a AtomicUsize);

impl Drop for DelayedRefusal<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Delay before a retry after a caller has reached its number of calls or streams. Its calls end at times
/// that are not known.
const CONCURRENCY_RETRY_DELAY: Duration = Duration::from_secs(1);

const NANOS_PER_MILLISECOND: u128 = 1_000_000;

/// Maximum delay of a refusal by a limit of a caller, if few of them are delayed.
const MAX_REFUSAL_DELAY: Duration = Duration::from_secs(1);
/// Minimum delay of a refusal for each other one of its caller that is delayed: at most 400 of them end in a second.
const DELAY_PER_REFUSAL: Duration = Duration::from_millis(5);
/// Maximum delay of a refusal by a limit of a caller.
const MAX_CROWDED_DELAY: Duration = Duration::from_secs(5);
/// Each delay is up to this fraction shorter.
const REFUSAL_JITTER: f64 = 0.5;
/// Maximum number of delayed refusals of all callers together. Each takes a few KiB.
const MAX_DELAYED_REFUSALS: usize = 1_024;

/// The caller of each call while clients are not authenticated.
static ANONYMOUS: LazyLock<Arc<CallerPolicy>> =
    LazyLock::new(|| CallerPolicy::unrestricted(CallerName::anonymous()));

/// Returns the caller that the extensions of a request name. Without one, it is anonymous.
pub(in crate::grpc) fn caller_of(extensions: &http::Extensions) -> Arc<CallerPolicy> {
    Arc::clone(extensions.get::<Arc<CallerPolicy>>().unwrap_or(&ANONYMOUS))
}

// === impl CallerUsages ===

impl Default for CallerUsages {
    /// The usage of the anonymous caller.
    fn default() -> Self {
        let delayed_refusals = Arc::new(Semaphore::new(MAX_DELAYED_REFUSALS));
        let this = Self { callers: RwLock::default(), delayed_refusals };
        this.set_callers(std::slice::from_ref(&*ANONYMOUS));
        this
    }
}

impl CallerUsages {
    /// Applies the limits of a new policy. A caller keeps its usage if its name stays. A removed one is
    /// forgotten once its calls have ended.
    pub fn set_callers(&self, callers: &[Arc<CallerPolicy>]) {
        let now = Instant::now();
        let mut usages = self.callers.write();
        let names: HashMap<_, _> = callers.iter().map(|it| (it.name(), it)).collect();
        usages.retain(|name, usage| names.contains_key(name) || usage.is_active());
        for caller in callers {
            let usage = usages.entry(caller.name().clone());
            let usage = usage.or_insert_with(|| self.new_usage(caller, now));
            usage.quotas.lock().set_limits(*caller.limits(), now);
        }
    }

    /// Returns the usage of a caller. The caller of a policy that is about to be applied is added.
    pub(in crate::grpc) fn usage(&self, caller: &CallerPolicy) -> Arc<CallerUsage> {
        if let Some(usage) = self.callers.read().get(caller.name()) {
            return Arc::clone(usage);
        }
        let mut usages = self.callers.write();
        let usage = usages.entry(caller.name().clone());
        Arc::clone(usage.or_insert_with(|| self.new_usage(caller, Instant::now())))
    }

    fn new_usage(&self, caller: &CallerPolicy, now: Instant) -> Arc<CallerUsage> {
        Arc::new(CallerUsage::new(caller, Arc::clone(&self.delayed_refusals), now))
    }

    /// Returns the values of the metrics, one for each caller.
    pub fn gauges(&self) -> Vec<CallerGauges> {
        let usages = self.callers.read();
        let count = |count: &AtomicUsize| u64::try_from(count.load(Relaxed)).unwrap_or(u64::MAX);
        let gauges = usages.values().map(|usage| CallerGauges {
            caller: usage.name.clone(),
            calls: count(&usage.calls),
            streams: count(&usage.streams),
            refusals: std::array::from_fn(|index| {
                let refusals = usage.refusals.get(index);
                let limit = CallerLimit::ALL.get(index).map_or("", |limit| limit.as_str());
                (limit, refusals.map_or(0, |count| count.load(Relaxed)))
            }),
        });
        gauges.collect()
    }
}

// === impl CallerUsage ===

impl CallerUsage {
    fn new(caller: &CallerPolicy, delayed_refusals: Arc<Semaphore>, now: Instant) -> Self {
        let mut quotas = Quotas::default();
        quotas.set_limits(*caller.limits(), now);
        Self {
            name: caller.name().clone(),
            quotas: Mutex::new(quotas),
            calls: AtomicUsize::new(0),
            streams: AtomicUsize::new(0),
            delayed_refusals,
            delayed: AtomicUsize::new(0),
            refusals: Default::default(),
        }
    }

    /// Returns the name of the caller.
    pub(in crate::grpc) fn name(&self) -> &CallerName {
        &self.name
    }

    /// Counts a call, or a stream, if its number is below the limit.
    pub(in crate::grpc) fn begin(
        self: &Arc<Self>,
        is_stream: bool,
    ) -> Result<CallerPermit, ApiError> {
        let (count, limit) = match is_stream {
            true => (&self.streams, CallerLimit::Streams),
            false => (&self.calls, CallerLimit::InflightCalls),
        };
        // Counted first, so that two calls at once cannot both take the last place.
        let before = count.fetch_add(1, Relaxed);
        let permit = CallerPermit { usage: Arc::clone(self), is_stream };
        let max = self.quotas.lock().limits.get(limit);
        match max.and_then(|max| usize::try_from(max.get()).ok()) {
            Some(max) if before >= max => Err(self.refuse(limit, CONCURRENCY_RETRY_DELAY)),
            _ => Ok(permit),
        }
    }

    /// Takes a change call from the rate, if the rate of devices has not been exceeded already.
    pub(in crate::grpc) fn take_change(&self) -> Result<(), ApiError> {
        let now = Instant::now();
        let mut quotas = self.quotas.lock();
        if let Some(Err(delay)) = quotas.devices.as_ref().map(|devices| devices.check(1, now)) {
            return Err(self.refuse(CallerLimit::DevicesPerMinute, delay));
        }
        match quotas.changes.as_mut().map(|changes| changes.take(1, now)) {
            Some(Err(delay)) => Err(self.refuse(CallerLimit::ChangesPerMinute, delay)),
            _ => Ok(()),
        }
    }

    /// Takes the devices of a change call from the rate. Gives the call back if they are too many.
    /// `count` is only called if devices are limited.
    pub(in crate::grpc) fn take_devices(
        &self,
        count: impl FnOnce() -> usize,
    ) -> Result<(), ApiError> {
        if self.quotas.lock().devices.is_none() {
            return Ok(());
        }
        let devices = u32::try_from(count()).unwrap_or(u32::MAX).max(1);
        let mut quotas = self.quotas.lock();
        let taken = quotas.devices.as_mut().map(|bucket| bucket.take(devices, Instant::now()));
        let Some(Err(delay)) = taken else {
            return Ok(());
        };
        if let Some(changes) = &mut quotas.changes {
            changes.give_back(1);
        }
        Err(self.refuse(CallerLimit::DevicesPerMinute, delay))
    }

    /// Delays the refusal of a call by a limit of the caller, so that a client that repeats it at once takes little
    /// of the processor from others. The more refusals of the caller are delayed, the longer. Beyond
    /// [`MAX_DELAYED_REFUSALS`] of all callers, refusals are not delayed.
    pub(in crate::grpc) async fn delay_refusal<T>(
        &self,
        admitted: Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let delay = admitted.as_ref().err().and_then(ApiError::caller_limit_delay);
        if let Some(delay) = delay
            && let Ok(_permit) = self.delayed_refusals.try_acquire()
        {
            let delayed = self.delayed.fetch_add(1, Relaxed);
            let _delayed = DelayedRefusal(&self.delayed);
            let crowded =
                DELAY_PER_REFUSAL.saturating_mul(u32::try_from(delayed).unwrap_or(u32::MAX));
            let delay = delay.min(MAX_REFUSAL_DELAY).max(crowded).min(MAX_CROWDED_DELAY);
            // At random, so that refusals at one moment do not end at one moment.
            sleep(delay.mul_f64(1.0 - REFUSAL_JITTER * fastrand::f64())).await;
        }
        admitted
    }

    fn refuse(&self, limit: CallerLimit, delay: Duration) -> ApiError {
        if let Some(refusals) = self.refusals.get(limit as usize) {
            refusals.fetch_add(1, Relaxed);
        }
        // Clients may wait in whole milliseconds.
        let delay = delay.as_nanos().div_ceil(NANOS_PER_MILLISECOND);
        let delay = Duration::from_millis(u64::try_from(delay).unwrap_or(u64::MAX));
        ApiError::caller_limit(&self.name, limit.as_str(), delay)
    }

    fn is_active(&self) -> bool {
        self.calls.load(Relaxed) > 0 || self.streams.load(Relaxed) > 0
    }
}

impl Drop for CallerPermit {
    fn drop(&mut self) {
        let count = if self.is_stream { &self.usage.streams } else { &self.usage.calls };
        count.fetch_sub(1, Relaxed);
    }
}

// === impl Quotas ===

impl Quotas {
    fn set_limits(&mut self, limits: CallerLimits, now: Instant) {
        self.limits = limits;
        for (bucket, limit) in [
            (&mut self.changes, CallerLimit::ChangesPerMinute),
            (&mut self.devices, CallerLimit::DevicesPerMinute),
        ] {
            match (limits.get(limit), &mut *bucket) {
                (None, _) => *bucket = None,
                (Some(rate), None) => *bucket = Some(TokenBucket::new(rate, now)),
                (Some(rate), Some(bucket)) if bucket.rate() != rate => bucket.set_rate(rate, now),
                (Some(_), Some(_)) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
