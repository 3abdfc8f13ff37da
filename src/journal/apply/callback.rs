//! Stores a callback.

use crate::{
    domain::result::Match,
    failpoints,
    journal::{
        NewResult, ReceivedCallback, Stored,
        apply::{
            ApplyError, Command, Dirty, EarlyResult, Keys, NewEvent, NewForward, WorkingSet,
            link::{add_result, finish_if_complete},
            working_set::EventContent,
        },
        record::{Digest, digest_of, encode_result},
    },
};

/// Stores a callback, unless an equal one of the same request is stored.
#[derive(Debug)]
pub(in crate::journal) struct StoreCallback {
    received: ReceivedCallback,
    digest: Digest,
    body: Vec<u8>,
}

impl StoreCallback {
    /// Encodes the result, on the caller's thread.
    pub(in crate::journal) fn new(received: ReceivedCallback) -> Self {
        let result = &received.callback.result;
        Self {
            digest: digest_of(&received.callback),
            body: encode_result(result, received.service.as_ref(), received.receive_time),
            received,
        }
    }
}

impl Command for StoreCallback {
    type Output = Stored;

    fn collect(&self, keys: &mut Keys) {
        let result = &self.received.callback.result;
        keys.accounts.extend(self.received.account.clone());
        let request = keys.request(&result.request_id);
        request.digests.push(self.digest);
        request.lookups.add(&result.device_ids);
    }

    fn apply(self, set: &mut WorkingSet) -> Result<Stored, ApplyError> {
        let Self { received, digest, body } = self;
        let ReceivedCallback { callback, account, service, receive_time: now, forwarding } =
            received;
        let result = callback.result;
        let request = set.request(&result.request_id)?;
        let change = request.change;
        let mut is_stored = request.digests.contains(&digest);
        let mut found = (None, Match::None);
        if let Some(change) = change {
            let devices = &set.change(change)?.devices;
            found = devices.find(&result.device_ids)?;
            is_stored |= found.0.is_some_and(|device| devices.has_digest(device, &digest));
        }
        if is_stored && !failpoints::is_active("no-deduplication") {
            return Ok(Stored::Duplicate);
        }

        let position = set.next_position();
        let request = set.request(&result.request_id)?;
        if request.row == 0 {
            request.row = position;
            request.dirty = Dirty::New;
        }
        if change.is_none() {
            request.account = request.account.take().or(account);
            request.service = request.service.take().or_else(|| service.clone());
            request.last_result = position;
            request.last_result_time = now;
            request.dirty.mark();
            request.early_results.push(EarlyResult {
                position,
                result: result.clone(),
                has_account: request.account.is_some(),
            });
        }
        let (stream, evidence) = (request.row, request.evidence.clone());
        // The device has the digest of a result that matches it.
        match (change, found.0) {
            (Some(change), Some(device)) => {
                set.change(change)?.devices.add_digest(device, digest)?;
            }
            _ => request.add_digest(digest),
        }

        let (account, link) = match change {
            Some(change) => {
                let link = add_result(set, change, position, &result, found, &evidence, now)?;
                (Some(set.change(change)?.change.account.clone()), Some(link))
            }
            None => {
                set.mark_unattributed(&result.request_id);
                (set.request(&result.request_id)?.account.clone(), None)
            }
        };
        let account = match account {
            Some(account) => Some(set.account(&account)?),
            None => None,
        };
        let content = EventContent::Result { body, link, raw_json: callback.raw_json };
        set.events.push(NewEvent { position, stream, account, content });
        if let Some(options) = forwarding {
            let (queue_time, max_waiting) = (options.now, options.max_waiting);
            set.forwards.push(NewForward { position, service, queue_time, max_waiting });
        }
        if let Some(change) = change {
            finish_if_complete(set, change, now)?;
        }
        let change = match change {
            Some(change) => {
                let change = &set.change(change)?.change;
                Some((change.change_id, change.trace.clone()))
            }
            None => None,
        };
        Ok(Stored::New(NewResult { position, change }))
    }
}
