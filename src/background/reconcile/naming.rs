//! Results that name no identifier that was sent: the device list knows all identifiers of a device,
//! and so which device of the change it is. A look-up that is ambiguous, contradicts what is known, or
//! fails changes nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::{LONGEST, Reconciler, Stopped};
use crate::{
    domain::{
        change::{Change, ChangeType},
        matching::MatchKey,
    },
    journal::{ChangeSelector, UnmatchedResult},
    thingspace::{ListedDevice, LookUpError},
};

/// Strays of one page.
const PAGE: usize = 500;
/// Strays that are remembered as asked about; beyond that they are asked about in a later sweep.
const MAX_ASKED: usize = 100_000;
/// Identifiers of one stray that are asked about.
const MAX_QUESTIONS: usize = 4;
/// How long after the last news of a settled change its strays are still asked about.
const SETTLED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

impl Reconciler {
    /// Asks about each stray at the first sweep that sees it, then after ever longer waits.
    pub(super) async fn name_strays(&mut self) -> Result<(), Stopped> {
        let since = self.clock.now().minus(SETTLED_FOR);
        let mut seen = std::collections::HashSet::new();
        let (mut after, mut last) = (0, None::<Change>);
        loop {
            let page = self.journal.unmatched_results(since, after, PAGE).await?;
            let Some(end) = page.last().map(|stray| stray.first_result) else {
                break;
            };
            after = end;
            for stray in page {
                seen.insert(stray.first_result);
                if !self.is_due(&stray) {
                    continue;
                }
                if last.as_ref().map(|change| change.change_id) != Some(stray.change_id) {
                    last = self
                        .journal
                        .change(ChangeSelector::Id(stray.change_id))
                        .await?;
                }
                let Some(change) = &last else { continue };
                // eSIM has no such list: a profile is its ICCID there.
                if change.change_type == ChangeType::FiveGBiPlan {
                    self.name(change, &stray).await?;
                }
                self.ask_later(&stray);
            }
        }
        self.asked.retain(|number, _| seen.contains(number));
        Ok(())
    }

    fn is_due(&self, stray: &UnmatchedResult) -> bool {
        match self.asked.get(&stray.first_result) {
            Some((at, _)) => *at <= Instant::now(),
            None => self.asked.len() < MAX_ASKED,
        }
    }

    fn ask_later(&mut self, stray: &UnmatchedResult) {
        let asked = self.asked.get(&stray.first_result);
        let wait = asked.map_or(self.after, |(_, wait)| {
            (*wait * 2).min(LONGEST.max(self.after))
        });
        self.asked
            .insert(stray.first_result, (Instant::now() + wait, wait));
    }

    async fn name(&self, change: &Change, stray: &UnmatchedResult) -> Result<(), Stopped> {
        let change_id = change.change_id;
        let listed = match self.ask(change, stray).await {
            Ok(Some(listed)) => listed,
            Ok(None) => return Ok(()),
            Err(LookUpError::Throttled(wait)) => return Err(Stopped::Throttled(wait)),
            Err(error) => {
                tracing::info!(%change_id, %error, "a result's device could not be looked up");
                return Ok(());
            }
        };
        let now = self.clock.now();
        let named =
            self.journal
                .resolve_unmatched_result(change_id, stray.first_result, listed.ids, now);
        if named.await? {
            tracing::info!(%change_id, "a result's device was looked up");
        }
        Ok(())
    }

    /// The device that the first of its identifiers names that any does.
    async fn ask(
        &self,
        change: &Change,
        stray: &UnmatchedResult,
    ) -> Result<Option<ListedDevice>, LookUpError> {
        let known = stray.ids.iter();
        let known = known.filter(|id| MatchKey::from_reported(id).is_some());
        let mut failed = None;
        for id in known.take(MAX_QUESTIONS) {
            match self.thingspace.device(&change.account, id).await {
                Ok(Some(listed)) => return Ok(Some(listed)),
                Ok(None) => {}
                // A kind that it does not take, or a device that it does not know by this one.
                Err(error @ LookUpError::Refused(_)) => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(None), Err)
    }
}
