//! The token and the session at hand, and who may replace them.
//!
//! Both are numbered. A refusal names the numbers that were sent, and discards
//! only those: when a hundred calls are refused at once, the first of them
//! discards, one logs in, and all go on with what it got.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::header::HeaderValue;
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::{
    Unprepared,
    answer::Stale,
    http::{Endpoint, Http},
    log_in::{LogIn, LogInError, Secret},
    refusal,
    settings::{CredentialSource, Credentials, StrikeBook},
};
use crate::domain::{change::RefusalKind, trace::TraceParent};

/// A token is replaced when less than this is left of it. Up to a half more is
/// added by chance, so that several gateways do not all do so at once.
const MARGIN: Duration = Duration::from_secs(60);
/// Five refused log-ins lock the account for good ("Start Connectivity
/// Management Session"). At this many strikes there are no more: two refusals,
/// or four log-ins of which a crash hid the end, leave room for other clients.
const MAX_STRIKES: u32 = 4;
/// A refusal counts this many strikes.
const REFUSED: u32 = 2;
/// A log-in that has no end yet counts this many, and when the process died
/// meanwhile it never gets one: it may have been refused, but seldom was. Two
/// crashes at a bad moment must not take a gateway with good credentials out
/// of service.
const UNFINISHED: u32 = 1;

/// What gives passes.
#[derive(Clone)]
pub(super) struct Access(Arc<Inner>);

struct Inner {
    log_in: LogIn,
    source: Arc<dyn CredentialSource>,
    strikes: Arc<dyn StrikeBook>,
    held: Mutex<Held>,
    /// Held by whoever logs in.
    turn: tokio::sync::Mutex<()>,
}

/// What a call shows to ThingSpace.
#[derive(Clone)]
pub(super) struct Pass {
    token: Token,
    session: Numbered,
    credentials: Arc<Credentials>,
}

#[derive(Default)]
struct Held {
    token: Option<Token>,
    session: Option<Numbered>,
    /// Those of the latest log-in.
    credentials: Option<Arc<Credentials>>,
    /// The strikes of those, since they were last accepted.
    strikes: u32,
    /// The number given last.
    number: u64,
    /// How many log-ins have ended, and how the latest did.
    ended: u64,
    failure: Option<Unprepared>,
}

#[derive(Clone)]
struct Token {
    it: Numbered,
    renew_at: Instant,
    ends_at: Instant,
}

#[derive(Clone)]
struct Numbered {
    secret: Secret,
    number: u64,
}

// === impl Access ===

impl Access {
    pub(super) fn new(
        http: Http,
        endpoint: Endpoint,
        source: Arc<dyn CredentialSource>,
        strikes: Arc<dyn StrikeBook>,
    ) -> Self {
        Self(Arc::new(Inner {
            log_in: LogIn { http, endpoint },
            source,
            strikes,
            held: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// A pass that will do for a while. A log-in that it takes is part of `trace`.
    pub(super) async fn fresh_pass(&self, trace: Option<&TraceParent>) -> Result<Pass, Unprepared> {
        let (fresh, ended) = {
            let held = self.0.held();
            (held.pass(|token| token.renew_at), held.ended)
        };
        match fresh {
            Some(pass) => Ok(pass),
            None => self.log_in(ended, trace.cloned()).await,
        }
    }

    /// Any pass that has not ended: for a call that should not wait.
    pub(super) async fn pass(&self, trace: Option<&TraceParent>) -> Result<Pass, Unprepared> {
        let any = self.0.held().pass(|token| token.ends_at);
        match any {
            Some(pass) => Ok(pass),
            None => self.fresh_pass(trace).await,
        }
    }

    /// Discards what was refused, unless it has been replaced since.
    pub(super) fn refused(&self, pass: &Pass, stale: Stale) {
        let mut held = self.0.held();
        if matches!(stale, Stale::Token | Stale::Both) {
            held.token
                .take_if(|token| token.it.number == pass.token.it.number);
        }
        if matches!(stale, Stale::Session | Stale::Both) {
            held.session
                .take_if(|session| session.number == pass.session.number);
        }
    }

    /// Forgets the refusals of the present credentials.
    pub(super) async fn unlatch(&self) -> Result<(), String> {
        let read = self.0.source.read()?;
        self.0.strikes.record(&read, 0).await?;
        self.0.held().strikes = 0;
        Ok(())
    }

    /// When the token should be replaced, if there is one.
    pub(super) fn renew_at(&self) -> Option<Instant> {
        self.0.held().token.as_ref().map(|token| token.renew_at)
    }

    /// Waits for one's turn, then logs in unless somebody has in the meantime.
    /// `ended` is how many log-ins had ended when the need was seen.
    async fn log_in(&self, ended: u64, trace: Option<TraceParent>) -> Result<Pass, Unprepared> {
        let inner = Arc::clone(&self.0);
        // On a task of its own: the log-in goes on for the others, and counts,
        // also when the one who began it has given up.
        let task = tokio::spawn(async move {
            let _turn = inner.turn.lock().await;
            let news = inner.held().news_since(ended);
            match news {
                Some(news) => news,
                None => inner.log_in(trace.as_ref()).await,
            }
        });
        task.await.unwrap_or_else(|_| {
            let detail = "the log-in ended early: the gateway is stopping";
            Err(Unprepared(refusal(RefusalKind::NotSent, detail)))
        })
    }
}

// === impl Inner ===

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing panics while it is held; and if it did, each field is valid.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn log_in(&self, trace: Option<&TraceParent>) -> Result<Pass, Unprepared> {
        let result = match self.credentials().await {
            Ok(credentials) => self.replace_missing(&credentials, trace).await,
            Err(unprepared) => Err(unprepared),
        };
        let mut held = self.held();
        held.ended += 1;
        held.failure = result.as_ref().err().cloned();
        // What is left of the old token does, when there is no new one yet.
        match (held.pass(|token| token.ends_at), result) {
            (Some(pass), _) => Ok(pass),
            (None, Err(unprepared)) => Err(unprepared),
            (None, Ok(())) => Err(Unprepared(refusal(
                RefusalKind::NotSent,
                "the log-in was refused again at once",
            ))),
        }
    }

    /// The credentials as they are now, if they may be tried.
    async fn credentials(&self) -> Result<Arc<Credentials>, Unprepared> {
        let read = self.source.read().map_err(|why| {
            let detail = format!("the gateway's credentials cannot be read: {why}");
            Unprepared(refusal(RefusalKind::Credentials, detail))
        })?;
        let known = self.held().credentials.clone();
        let credentials = match known.filter(|known| known.same_as(&read)) {
            Some(known) => known,
            None => {
                let strikes = self.strikes.strikes(&read).await.map_err(uncounted)?;
                let read = Arc::new(read);
                let mut held = self.held();
                held.strikes = strikes;
                held.credentials = Some(Arc::clone(&read));
                read
            }
        };
        if self.held().strikes >= MAX_STRIKES {
            let detail = "ThingSpace has refused the gateway's credentials twice in a row, or log-ins with \
                 them had no known end; they are not tried again, since five refusals lock the account";
            return Err(Unprepared(refusal(RefusalKind::Credentials, detail)));
        }
        Ok(credentials)
    }

    async fn replace_missing(
        &self,
        credentials: &Credentials,
        trace: Option<&TraceParent>,
    ) -> Result<(), Unprepared> {
        // Counted before it is tried: a crash in between must not make it uncounted.
        let before = self.held().strikes;
        self.count(credentials, before + UNFINISHED).await?;
        match self.try_replace_missing(credentials, trace).await {
            Ok(()) => self.count(credentials, 0).await,
            Err(error) => {
                let refusal = error.into_refusal();
                // Time-outs and 5xx answers do not count.
                let refused = refusal.kind == RefusalKind::Credentials;
                let strikes = if refused { REFUSED } else { 0 };
                self.count(credentials, before + strikes).await?;
                Err(Unprepared(refusal))
            }
        }
    }

    async fn count(&self, credentials: &Credentials, strikes: u32) -> Result<(), Unprepared> {
        self.strikes
            .record(credentials, strikes)
            .await
            .map_err(uncounted)?;
        self.held().strikes = strikes;
        Ok(())
    }

    async fn try_replace_missing(
        &self,
        credentials: &Credentials,
        trace: Option<&TraceParent>,
    ) -> Result<(), LogInError> {
        let (token, session_missing) = {
            let held = self.held();
            let fresh = |token: &&Token| Instant::now() < token.renew_at;
            let token = held.token.as_ref().filter(fresh);
            let token = token.map(|token| token.it.secret.clone());
            (token, held.session.is_none())
        };
        let token = match token {
            Some(token) => token,
            None => self.new_token(credentials, trace).await?,
        };
        if !session_missing {
            return Ok(());
        }
        let session = match self.log_in.session(&token, credentials, trace).await {
            // Refused before it came to the user's name: no failed log-in.
            Err(LogInError::StaleToken(_)) => {
                let token = self.new_token(credentials, trace).await?;
                self.log_in.session(&token, credentials, trace).await
            }
            other => other,
        }?;
        let mut held = self.held();
        let session = held.number(session);
        held.session = Some(session);
        Ok(())
    }

    async fn new_token(
        &self,
        credentials: &Credentials,
        trace: Option<&TraceParent>,
    ) -> Result<Secret, LogInError> {
        let (secret, lifetime) = self.log_in.token(credentials, trace).await?;
        let now = Instant::now();
        // The same token may come again with only seconds left: then half of
        // them are used, rather than asking for it at every call.
        let margin = MARGIN + MARGIN.mul_f64(fastrand::f64() / 2.0);
        let mut held = self.held();
        held.token = Some(Token {
            it: held.number(secret.clone()),
            renew_at: now + (lifetime - margin.min(lifetime / 2)),
            ends_at: now + lifetime,
        });
        Ok(secret)
    }
}

/// A log-in that cannot be counted is not tried: it may be the fifth.
fn uncounted(why: String) -> Unprepared {
    let detail = format!("the count of refused log-ins cannot be kept: {why}");
    Unprepared(refusal(RefusalKind::NotSent, detail))
}

// === impl Held ===

impl Held {
    /// A pass, if there is one whose token is not yet at this end.
    fn pass(&self, end: impl Fn(&Token) -> Instant) -> Option<Pass> {
        Some(Pass {
            token: self
                .token
                .as_ref()
                .filter(|token| Instant::now() < end(token))?
                .clone(),
            session: self.session.clone()?,
            credentials: self.credentials.clone()?,
        })
    }

    /// What others have got while one waited: a failure is theirs and ours, or
    /// a hundred waiting calls would try bad credentials a hundred times.
    fn news_since(&self, ended: u64) -> Option<Result<Pass, Unprepared>> {
        if let Some(pass) = self.pass(|token| token.renew_at) {
            return Some(Ok(pass));
        }
        let failure = (self.ended > ended)
            .then(|| self.failure.clone())
            .flatten()?;
        let rest = self.pass(|token| token.ends_at);
        Some(rest.ok_or(failure))
    }

    fn number(&mut self, secret: Secret) -> Numbered {
        self.number += 1;
        Numbered {
            secret,
            number: self.number,
        }
    }
}

// === impl Pass ===

impl Pass {
    /// The value of `Authorization`.
    pub(super) fn bearer(&self) -> HeaderValue {
        self.token.it.secret.header.clone()
    }

    /// The value of `VZ-M2M-Token`.
    pub(super) fn session(&self) -> HeaderValue {
        self.session.secret.header.clone()
    }

    /// All that must never be shown.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        [&self.token.it.secret, &self.session.secret]
            .into_iter()
            .map(|secret| secret.text.expose_secret())
            .chain(self.credentials.texts())
    }
}
