//! Streams that resume.

use std::{
    fmt,
    future::poll_fn,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_core::Stream;
use sealed::Kind;
use tokio::time::{Instant, Sleep, sleep};
use tonic::{Code, Response, Status, Streaming};

use crate::{
    Backoff, BoxFuture, CallOptions, FailedAttempt, GatewayError, must_repeat_read,
    v1::{
        WatchAccountResponse, WatchRequestResponse, watch_account_response, watch_request_response,
    },
};

/// The events of a watch: each once, in order, also if the stream breaks.
///
/// Read it with [`try_next`](Self::try_next), or as a [`Stream`]. It opens the stream again with the token
/// of the last event that the program has processed. An event counts as processed when the program asks for
/// the next one. The first event is `Opened`. The `Opened` of a resumed stream and `Reconnect` are left out.
/// All others are delivered. The event is `None` if it is of a kind that this version does not know.
///
/// The stream ends when the gateway ends it with OK. It returns an error if it cannot be resumed. To cancel
/// it, drop it.
#[must_use = "a watch does nothing unless it is read"]
pub struct Watch<E> {
    /// Opens the stream with a resume token.
    open: Box<dyn Fn(String) -> Opening<E> + Send + Sync>,
    options: CallOptions,
    has_token_function: bool,
    state: State<E>,
    /// While waiting: the delay before the next attempt. Otherwise: the limit of the time without an event.
    timer: Option<Pin<Box<Sleep>>>,
    /// The token of the last event that the program has processed.
    resume_token: String,
    /// The token of the event that the program has, but may not have processed.
    delivered: Option<String>,
    was_opened: bool,
    /// The program has the last event.
    has_finished: bool,
    backoff: Backoff,
    /// The number of failed attempts.
    failures: u32,
    /// An attempt without an event has followed UNAUTHENTICATED.
    refreshed: bool,
    /// The delay in `Reconnect`.
    reconnect_after: Option<Duration>,
    opened_at: Instant,
    last_event: Instant,
}

type Opening<E> = BoxFuture<Result<Response<Streaming<E>>, Status>>;

enum State<E> {
    Waiting,
    Opening(Opening<E>),
    Open(Box<Streaming<E>>),
    Ended,
}

impl<E: WatchEvent> Watch<E> {
    pub(crate) fn new(
        resume_token: String,
        options: CallOptions,
        has_token_function: bool,
        open: impl Fn(String) -> Opening<E> + Send + Sync + 'static,
    ) -> Self {
        let now = Instant::now();
        Self {
            open: Box::new(open),
            options,
            has_token_function,
            state: State::Waiting,
            timer: None,
            resume_token,
            delivered: None,
            was_opened: false,
            has_finished: false,
            backoff: Backoff::default(),
            failures: 0,
            refreshed: false,
            reconnect_after: None,
            opened_at: now,
            last_event: now,
        }
    }

    /// Returns the next event, or `None` at the end. If the future is dropped, no event is lost.
    pub async fn try_next(&mut self) -> Result<Option<E>, GatewayError> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await.transpose()
    }

    /// The token of the last event that the program has processed. The event that it processes now has its
    /// own token.
    pub fn resume_token(&self) -> &str {
        &self.resume_token
    }

    fn start_attempt(&mut self) {
        self.opened_at = Instant::now();
        if self.failures == 0 {
            self.last_event = self.opened_at;
        }
        self.reconnect_after = None;
        self.state = State::Opening((self.open)(self.resume_token.clone()));
        self.restart_idle_timer();
    }

    fn restart_idle_timer(&mut self) {
        self.timer = Some(Box::pin(sleep(self.options.idle_timeout)));
    }

    /// Returns the event if the program receives it.
    fn take_event(&mut self, event: E) -> Option<E> {
        self.refreshed = false;
        let token = event.resume_token().to_owned();
        let is_repeated = match event.kind() {
            Kind::Reconnect(reconnect) => {
                let retry_after = reconnect.retry_after.unwrap_or_default();
                self.reconnect_after = Some(retry_after.try_into().unwrap_or_default());
                true
            }
            Kind::Opened => mem::replace(&mut self.was_opened, true),
            kind @ (Kind::Finished | Kind::Other) => {
                self.has_finished |= matches!(kind, Kind::Finished);
                self.was_opened = true;
                self.backoff.reset();
                false
            }
        };
        self.delivered = Some(token);
        if is_repeated {
            self.count_delivered_as_processed();
            return None;
        }
        Some(event)
    }

    fn count_delivered_as_processed(&mut self) {
        if let Some(token) = self.delivered.take() {
            if !token.is_empty() {
                self.resume_token = token;
            }
            self.last_event = Instant::now();
            self.restart_idle_timer();
        }
    }

    /// Ends the attempt. Returns the error if there is no other one.
    fn fail(&mut self, error: GatewayError) -> Option<GatewayError> {
        if self.has_finished {
            // A new stream would deliver the last event again.
            self.state = State::Ended;
            return None;
        }
        self.state = State::Waiting;
        self.failures = self.failures.saturating_add(1);
        let (mut repeats, delay);
        if error.code() == Code::Unauthenticated {
            repeats = self.has_token_function && !self.refreshed;
            delay = Duration::ZERO;
            self.refreshed = true;
        } else {
            if self.opened_at.elapsed() > Duration::from_secs(60) {
                self.backoff.reset();
            }
            repeats = must_repeat_read(&error);
            delay = self.backoff.next(self.reconnect_after.or(error.retry_after()));
        }
        if let Some(limit) = self.options.reopen_timeout {
            repeats &= self.last_event.elapsed().saturating_add(delay) <= limit;
        }
        if !repeats {
            self.state = State::Ended;
            return Some(error);
        }
        self.options.report(FailedAttempt {
            number: self.failures,
            error: &error,
            delay,
            resume_token: &self.resume_token,
        });
        self.timer = Some(Box::pin(sleep(delay)));
        None
    }

    fn poll_timer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().map_or(Poll::Ready(()), |timer| timer.as_mut().poll(context))
    }
}

impl<E: WatchEvent> Stream for Watch<E> {
    type Item = Result<E, GatewayError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let watch = self.get_mut();
        watch.count_delivered_as_processed();
        loop {
            let progress = match &mut watch.state {
                State::Waiting => {
                    ready!(watch.poll_timer(context));
                    watch.start_attempt();
                    continue;
                }
                State::Opening(call) => call.as_mut().poll(context).map(|result| match result {
                    Ok(response) => {
                        watch.state = State::Open(Box::new(response.into_inner()));
                        Ok(())
                    }
                    Err(status) => Err(status),
                }),
                State::Open(stream) => match Pin::new(stream.as_mut()).poll_next(context) {
                    Poll::Ready(Some(Ok(event))) => match watch.take_event(event) {
                        Some(event) => return Poll::Ready(Some(Ok(event))),
                        None => Poll::Ready(Ok(())),
                    },
                    Poll::Ready(Some(Err(status))) => Poll::Ready(Err(status)),
                    Poll::Ready(None) => {
                        watch.state = State::Ended;
                        Poll::Ready(Ok(()))
                    }
                    Poll::Pending => Poll::Pending,
                },
                State::Ended => return Poll::Ready(None),
            };
            let result = match progress {
                Poll::Ready(result) => result,
                Poll::Pending => {
                    ready!(watch.poll_timer(context));
                    let limit = watch.options.idle_timeout;
                    Err(Status::deadline_exceeded(format!("no event for {limit:?}")))
                }
            };
            if let Err(status) = result
                && let Some(error) = watch.fail(status.into())
            {
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl<E> fmt::Debug for Watch<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("resume_token", &self.resume_token).finish_non_exhaustive()
    }
}

/// A message of a watch: [`WatchRequestResponse`] or [`WatchAccountResponse`].
pub trait WatchEvent: sealed::HasKind + Send + 'static {
    /// The position in the stream after this event.
    fn resume_token(&self) -> &str;
}

mod sealed {
    use crate::v1::Reconnect;

    pub trait HasKind {
        fn kind(&self) -> Kind<'_>;
    }

    pub enum Kind<'a> {
        Opened,
        Reconnect(&'a Reconnect),
        /// The last event.
        Finished,
        Other,
    }
}

macro_rules! watch_event {
    ($message:ident, $module:ident $(, $finished:pat)?) => {
        impl WatchEvent for $message {
            fn resume_token(&self) -> &str {
                &self.resume_token
            }
        }

        impl sealed::HasKind for $message {
            fn kind(&self) -> Kind<'_> {
                match &self.event {
                    Some($module::Event::Opened(_)) => Kind::Opened,
                    Some($module::Event::Reconnect(reconnect)) => Kind::Reconnect(reconnect),
                    $(Some($finished) => Kind::Finished,)?
                    _ => Kind::Other,
                }
            }
        }
    };
}

watch_event!(
    WatchRequestResponse,
    watch_request_response,
    watch_request_response::Event::Finished(_)
);
watch_event!(WatchAccountResponse, watch_account_response);
