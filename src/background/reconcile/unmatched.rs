//! Results that name no identifier that was sent: the device list knows all identifiers of a device,
//! and so which device of the change it is. A look-up that is ambiguous, contradicts what is known, or
//! fails changes nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::{MAX_LOOKUP_INTERVAL, Reconciler, SweepError};
use crate::{
    domain::{change::Change, evidence::LookupMethod, matching::MatchKey},
    journal::{ChangeSelector, UnmatchedResult},
    operations,
    thingspace::{ListedDevice, LookupError},
};

/// Strays of one page.
const PAGE: usize = 500;
/// Strays that are remembered as asked about; beyond that they are asked about in a later sweep.
const MAX_SCHEDULED: usize = 100_000;
/// Identifiers of one stray that are asked about.
const MAX_LOOKUPS_PER_RESULT: usize = 4;
/// How long after the last news of a settled change its strays are still asked about.
const FINISHED_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

impl Reconciler {
    /// Asks about each stray at the first sweep that sees it, then after ever longer waits.
    pub(super) async fn resolve_unmatched_results(&mut self) -> Result<(), SweepError> {
        let since = self.clock.now().minus(FINISHED_WINDOW);
        let mut seen = std::collections::HashSet::new();
        let (mut after, mut last) = (0, None::<Change>);
        loop {
            let page = self.journal.unmatched_results(since, after, PAGE).await?;
            let Some(end) = page.last().map(|unmatched| unmatched.first_result) else {
                break;
            };
            after = end;
            for unmatched in page {
                seen.insert(unmatched.first_result);
                if !self.is_due(&unmatched) {
                    continue;
                }
                if last.as_ref().map(|change| change.change_id) != Some(unmatched.change_id) {
                    last = self
                        .journal
                        .change(ChangeSelector::Id(unmatched.change_id))
                        .await?;
                }
                let Some(change) = &last else { continue };
                if operations::evidence(change.change_type).lookup == LookupMethod::DeviceList {
                    self.resolve_result(change, &unmatched).await?;
                }
                self.reschedule(&unmatched);
            }
        }
        self.unmatched_schedule
            .retain(|number, _| seen.contains(number));
        Ok(())
    }

    fn is_due(&self, unmatched: &UnmatchedResult) -> bool {
        match self.unmatched_schedule.get(&unmatched.first_result) {
            Some((at, _)) => *at <= Instant::now(),
            None => self.unmatched_schedule.len() < MAX_SCHEDULED,
        }
    }

    fn reschedule(&mut self, unmatched: &UnmatchedResult) {
        let asked = self.unmatched_schedule.get(&unmatched.first_result);
        let wait = asked.map_or(self.initial_delay, |(_, wait)| {
            (*wait * 2).min(MAX_LOOKUP_INTERVAL.max(self.initial_delay))
        });
        self.unmatched_schedule
            .insert(unmatched.first_result, (Instant::now() + wait, wait));
    }

    async fn resolve_result(
        &self,
        change: &Change,
        unmatched: &UnmatchedResult,
    ) -> Result<(), SweepError> {
        let change_id = change.change_id;
        let listed = match self.find_device(change, unmatched).await {
            Ok(Some(listed)) => listed,
            Ok(None) => return Ok(()),
            Err(LookupError::Throttled(wait)) => return Err(SweepError::Throttled(wait)),
            Err(error) => {
                tracing::info!(%change_id, %error, "a result's device could not be looked up");
                return Ok(());
            }
        };
        let now = self.clock.now();
        let named = self.journal.resolve_unmatched_result(
            change_id,
            unmatched.first_result,
            listed.ids,
            now,
        );
        if named.await? {
            tracing::info!(%change_id, "a result's device was looked up");
        }
        Ok(())
    }

    /// The device that the first of its identifiers names that any does.
    async fn find_device(
        &self,
        change: &Change,
        unmatched: &UnmatchedResult,
    ) -> Result<Option<ListedDevice>, LookupError> {
        let known = unmatched.ids.iter();
        let known = known.filter(|id| MatchKey::from_reported(id).is_some());
        let mut failed = None;
        for id in known.take(MAX_LOOKUPS_PER_RESULT) {
            match self.thingspace.device(&change.account, id).await {
                Ok(Some(listed)) => return Ok(Some(listed)),
                Ok(None) => {}
                // A kind that it does not take, or a device that it does not know by this one.
                Err(error @ LookupError::Refused(_)) => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }
}
