//! Promises that can be broken on purpose, so that the fault suite can show that it would notice.
//!
//! Nothing of this is in a build that anybody runs: without the feature `broken` (which no default, no
//! image and no script but the suite's own turns on) every question is answered with a constant `false`.
//! With it, the environment variable `TSGW_BROKEN` names the one promise that the process breaks.

/// A rule that a broken build leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invariant {
    /// A callback is answered 200 when it is on disk, not when it is in a queue.
    SyncBeforeAnswer,
    /// A key that is known makes no second change.
    KeyCheck,
    /// A change without a definite answer is never sent again.
    NoRetryOnTimeOut,
    /// A callback that comes again is stored once.
    Deduplication,
    /// A stream goes on behind its token, not at it.
    ResumeAfterToken,
    /// A request is attributed only to the change of which it names every device.
    CompleteDeviceSet,
    /// After a crash, what may have left is not said to have stayed.
    UnknownAfterCrash,
    /// Only a refusal in a form that ThingSpace uses counts towards the lock-out of the credentials.
    RecognisedRefusals,
    /// The two refusals that lock the credentials out lie apart in time.
    RefusalInterval,
    /// A change that is sent again is sent in the stored order of its devices.
    StoredOrder,
    /// A result that names two devices counts for neither.
    AmbiguousResults,
    /// A request is attributed only after it has been quiet, also after a restart.
    QuietPeriodOverRestart,
    /// ThingSpace's list of a request's devices is the whole set, or proves nothing.
    ExclusiveDeviceList,
    /// A closed change that has the devices and more may have made the request.
    ClosedCandidates,
    /// Positions, not clock times, decide if a result came after a change was sent.
    JournalPositions,
    /// Nothing is removed or closed by a system clock that has leapt ahead.
    SteadyClock,
    /// A journal that has lost something is refused.
    MarkerCheck,
    /// A journal answers only for the ThingSpace that its changes were sent to.
    OriginCheck,
    /// The database itself is locked against a second process.
    InodeLock,
}

impl Invariant {
    /// Every rule, with the name by which `TSGW_BROKEN` breaks it.
    pub const ALL: [(Self, &'static str); 19] = [
        (Self::SyncBeforeAnswer, "answer-before-sync"),
        (Self::KeyCheck, "no-key-check"),
        (Self::NoRetryOnTimeOut, "retry-on-time-out"),
        (Self::Deduplication, "no-de-duplication"),
        (Self::ResumeAfterToken, "token-off-by-one"),
        (Self::CompleteDeviceSet, "part-of-the-set"),
        (Self::UnknownAfterCrash, "crash-means-not-sent"),
        (Self::RecognisedRefusals, "any-refusal-counts"),
        (Self::RefusalInterval, "refusals-at-once"),
        (Self::StoredOrder, "order-of-the-later-call"),
        (Self::AmbiguousResults, "two-devices-count-for-one"),
        (Self::QuietPeriodOverRestart, "quiet-at-the-start"),
        (Self::ExclusiveDeviceList, "list-adds-to-callbacks"),
        (Self::ClosedCandidates, "closed-is-no-rival"),
        (Self::JournalPositions, "clock-times"),
        (Self::SteadyClock, "system-clock-removes"),
        (Self::MarkerCheck, "no-marker-check"),
        (Self::OriginCheck, "any-origin"),
        (Self::InodeLock, "no-database-lock"),
    ];

    /// Whether this process breaks it.
    #[cfg(feature = "broken")]
    pub fn is_disabled(self) -> bool {
        use std::sync::OnceLock;

        static BROKEN: OnceLock<Option<Invariant>> = OnceLock::new();
        let chosen = BROKEN.get_or_init(|| {
            let name = std::env::var("TSGW_BROKEN").ok()?;
            let rule = Self::ALL.into_iter().find(|(_, known)| *known == name);
            tracing::error!(%name, known = rule.is_some(), "this build breaks a promise on purpose");
            rule.map(|(rule, _)| rule)
        });
        *chosen == Some(self)
    }

    /// Whether this process breaks it: never.
    #[cfg(not(feature = "broken"))]
    pub const fn is_disabled(self) -> bool {
        false
    }
}
