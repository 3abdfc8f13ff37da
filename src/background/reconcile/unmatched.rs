//! Finds the devices of results that have no identifier that was sent.
//!
//! The device list has all identifiers of a device, so it can tell which device of the change it is. A lookup
//! that is ambiguous, contradicts what is known, or fails changes nothing.

use std::{collections::HashSet, time::Duration};

use crate::{
    background::reconcile::{reconciler::Reconciler, sweep::SweepError},
    domain::{change::Change, evidence::LookupMethod, matching::MatchKey},
    journal::{ChangeSelector, UnmatchedResult},
    operations,
    thingspace::{ListedDevice, LookupError},
};

/// Unmatched results of one page.
const PAGE_SIZE: usize = 500;
/// Maximum number of identifiers of one result that are looked up.
const MAX_LOOKUPS_PER_RESULT: usize = 4;
/// Time after the last event of a finished change in which its unmatched results are looked up.
const FINISHED_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

impl Reconciler {
    /// Looks up each unmatched result that is due. A result is due in the first sweep that sees it.
    pub(super) async fn sweep_unmatched(&mut self) -> Result<(), SweepError> {
        let since = self.clock.now().minus(FINISHED_WINDOW);
        let mut seen = HashSet::new();
        let (mut after, mut last) = (0, None::<Change>);
        loop {
            let page = self.journal.unmatched_results(since, after, PAGE_SIZE).await?;
            let Some(end) = page.last().map(|unmatched| unmatched.first_result) else {
                break;
            };
            after = end;
            for unmatched in page {
                let number = unmatched.first_result;
                seen.insert(number);
                if !self.unmatched.is_due_or_add(number, || Duration::ZERO) {
                    continue;
                }
                let change_id = unmatched.change_id;
                if last.as_ref().map(|change| change.change_id) != Some(change_id) {
                    last = self.journal.change(ChangeSelector::Id(change_id)).await?;
                }
                let Some(change) = &last else { continue };
                match self.resolve(change, &unmatched).await {
                    Err(SweepError::Lookup(error)) => {
                        tracing::info!(%change_id, %error, "cannot look up the device of a result");
                    }
                    resolved => resolved?,
                }
                self.unmatched.advance(&number);
            }
        }
        self.unmatched.retain(&seen);
        Ok(())
    }

    async fn resolve(
        &self,
        change: &Change,
        unmatched: &UnmatchedResult,
    ) -> Result<(), SweepError> {
        if operations::evidence(change.change_type).lookup != LookupMethod::DeviceList {
            return Ok(());
        }
        let Some(device) = self.look_up_device(change, unmatched).await? else {
            return Ok(());
        };
        let (change_id, now) = (change.change_id, self.clock.now());
        let number = unmatched.first_result;
        let resolved = self.journal.resolve_unmatched_result(change_id, number, device.ids, now);
        if resolved.await? {
            tracing::info!(%change_id, "resolved the device of a result by a lookup");
        }
        Ok(())
    }

    /// Looks up the result's identifiers until ThingSpace returns a device.
    async fn look_up_device(
        &self,
        change: &Change,
        unmatched: &UnmatchedResult,
    ) -> Result<Option<ListedDevice>, LookupError> {
        let ids = unmatched.ids.iter();
        let ids = ids.filter(|id| MatchKey::from_reported(id).is_some());
        let mut refused = None;
        for id in ids.take(MAX_LOOKUPS_PER_RESULT) {
            match self.thingspace.device(&change.account, id).await {
                Ok(Some(device)) => return Ok(Some(device)),
                Ok(None) => {}
                // ThingSpace does not accept this kind, or does not know the device by it.
                Err(error @ LookupError::Refused { .. }) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }
}
