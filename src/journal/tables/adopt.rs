//! Binding by evidence: a request that nobody owns, and the change whose outcome nobody knows.

use rusqlite::{OptionalExtension, params};

use super::{
    apply::{Applied, Batch},
    entry::{Entry, from_json, state_code},
    results::sent_with,
};
use crate::{
    broken::Rule,
    domain::{
        adoption::{Extent, GIVEN_UP_COUNTS_FOR, Orphan, Sighting, only_one},
        change::{Change, ChangeState, Step},
        clock::Timestamp,
        identifier::ReportedId,
        matching::find_device,
        names::{AccountName, RequestId, ServiceName},
        result::DeviceReport,
    },
    journal::Adoption,
};

impl Batch<'_> {
    /// Finds the one change that a request can be, if there is exactly one, and binds it. Changes that are
    /// being sent, or were given up lately, count: one of them may be the request's as well.
    pub(in crate::journal) fn adopt(
        &mut self,
        request_id: &RequestId,
        listed: Option<&[Vec<ReportedId>]>,
        bind: bool,
        now: Timestamp,
    ) -> Applied<Adoption> {
        let Some((request, orphan)) = self.orphan(request_id)? else {
            return Ok(Ok(Adoption::Unproven));
        };
        let reports = self.reports(request)?;
        let mut seen = Vec::new();
        for id in self.unanswered(now)? {
            let change = self.load(id)?.change.clone();
            if orphan.may_be(&change, now) {
                let extent = match self.extent(id, &change, &reports, listed)? {
                    Extent::Part if Rule::WholeSet.is_broken() => Extent::Whole,
                    extent => extent,
                };
                seen.push((change, extent));
            }
        }
        let adoption = match only_one(&seen, listed.is_some()) {
            Some((change, Extent::Whole)) if bind => {
                let step = Step::Accept {
                    request_id: request_id.clone(),
                    evidence: evidence(change, listed.is_some()),
                };
                let adopted = self.step(change.change_id, &step, now)?;
                return Ok(adopted.map(|change| Adoption::Adopted(Box::new(change))));
            }
            Some((change, Extent::Whole)) => Adoption::Whole(Box::new(change.clone())),
            Some((change, _)) => Adoption::Part(Box::new(change.clone())),
            None => Adoption::Unproven,
        };
        Ok(Ok(adoption))
    }

    /// A request that nobody owns, if it is one and has results.
    fn orphan(&self, request_id: &RequestId) -> rusqlite::Result<Option<(i64, Orphan)>> {
        self.connection
            .prepare_cached(
                "SELECT r.id, r.account, r.service,
                   (SELECT at FROM entry WHERE request = r.id ORDER BY position LIMIT 1) AS first
                 FROM request r WHERE r.request_id = ? AND r.change IS NULL AND first IS NOT NULL",
            )?
            .query_row([request_id.as_str()], |row| {
                let account = row.get::<_, Option<String>>(1)?;
                let service = row.get::<_, Option<String>>(2)?;
                let orphan = Orphan {
                    first_time: Timestamp::from_micros(row.get(3)?),
                    account: account.and_then(|name| AccountName::parse(name).ok()),
                    service: service.and_then(|name| ServiceName::parse(name).ok()),
                };
                Ok((row.get(0)?, orphan))
            })
            .optional()
    }

    /// Changes that were sent and have no answer, those that were given up lately included.
    fn unanswered(&self, now: Timestamp) -> rusqlite::Result<Vec<i64>> {
        let mut found = Vec::new();
        for state in [ChangeState::OutcomeUnknown, ChangeState::Dispatched] {
            let mut statement = self
                .connection
                .prepare_cached("SELECT id FROM change WHERE state = ? AND trimmed = 0")?;
            for id in statement.query_map([state_code(state)], |row| row.get(0))? {
                found.push(id?);
            }
        }
        let since = now.minus(GIVEN_UP_COUNTS_FOR);
        let mut closed = self.connection.prepare_cached(
            "SELECT id FROM change
             WHERE state = ? AND accept_time IS NULL AND last_time >= ? AND trimmed = 0",
        )?;
        let code = state_code(ChangeState::Closed);
        for id in closed.query_map([code, since.as_micros()], |row| row.get(0))? {
            found.push(id?);
        }
        Ok(found)
    }

    fn reports(&self, request: i64) -> rusqlite::Result<Vec<DeviceReport>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT body FROM entry WHERE request = ? ORDER BY position")?;
        let mut rows = statement.query(params![request])?;
        let mut reports = Vec::new();
        while let Some(row) = rows.next()? {
            if let Entry::Result { report, .. } = from_json(row.get_ref(0)?.as_str()?)? {
                reports.push(*report);
            }
        }
        Ok(reports)
    }

    fn extent(
        &self,
        id: i64,
        change: &Change,
        reports: &[DeviceReport],
        listed: Option<&[Vec<ReportedId>]>,
    ) -> rusqlite::Result<Extent> {
        let find = |ids: &[ReportedId]| {
            find_device(change.change_type, change.device_count, ids, |key| {
                sent_with(self.connection, id, key)
            })
        };
        let mut seen = Sighting::default();
        for report in reports {
            let (device, matched) = find(&report.device_ids)?;
            seen.see(change.change_type, report, device, matched);
        }
        for ids in listed.unwrap_or_default() {
            let (device, matched) = find(ids)?;
            seen.see_device(device, matched);
        }
        Ok(seen.extent(change.device_count))
    }
}

/// What the binding rests on, for people.
fn evidence(change: &Change, listed: bool) -> String {
    let how = if listed {
        "ThingSpace's status of this request lists"
    } else {
        "the callbacks of this request named"
    };
    format!(
        "bound by evidence: the answer to the change was lost, and {how} exactly its {} devices, \
         after it was sent; no other change can be meant",
        change.device_count
    )
}
