//! Stores a callback.

use crate::{
    domain::{
        change::Change,
        device_states::{DeviceRef, DeviceStateStore as _},
        newtypes::AccountName,
        result::{Match, ResultSource},
    },
    failpoints,
    journal::{
        ForwardOptions, JournalError, NewResult, ReceivedCallback, Stored,
        apply::{
            ApplyError, Command, Dirty, EarlyResult, Keys, NewEvent, NewForward, Row, WorkingSet,
            link::{add_result, finish_if_complete},
            working_set::EventContent,
        },
        record::{Digest, digest_of, encode_result},
    },
};

/// Stores a callback, unless an equal one of the same request is stored. Stores a result of a lookup only if it decides
/// its device, or has none.
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

/// Stores callbacks in this order. One that is rejected has no effect on the others.
#[derive(Debug)]
pub(in crate::journal) struct StoreCallbacks(Vec<StoreCallback>);

impl StoreCallbacks {
    /// Encodes the results, on the caller's thread.
    pub(in crate::journal) fn new(received: Vec<ReceivedCallback>) -> Self {
        Self(received.into_iter().map(StoreCallback::new).collect())
    }
}

impl Command for StoreCallbacks {
    type Output = Vec<Result<Stored, JournalError>>;

    fn collect(&self, keys: &mut Keys) {
        self.0.iter().for_each(|callback| callback.collect(keys));
    }

    fn apply(self, set: &mut WorkingSet) -> Result<Self::Output, ApplyError> {
        let apply = |callback: StoreCallback| match callback.apply(set) {
            Err(ApplyError::Rejected(error)) => Ok(Err(error)),
            result => result.map(Ok),
        };
        self.0.into_iter().map(apply).collect()
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
        let result = &self.received.callback.result;
        let request = set.request(&result.request_id)?;
        let change = request.change;
        let mut is_stored = request.digests.contains(&self.digest);
        let mut found = (None, Match::None);
        if let Some(change) = change {
            let devices = &mut set.change(change)?.devices;
            found = devices.find(&result.device_ids)?;
            if let Some(device) = found.0 {
                is_stored |= devices.has_digest(device, &self.digest);
                // The callback of the device can be stored between the request and the response of a lookup.
                is_stored |= result.source == ResultSource::Reconciled
                    && devices.state(DeviceRef::Device(device))?.precedence >= result.precedence();
            }
        }
        if is_stored && !failpoints::is_active("no-deduplication") {
            return Ok(Stored::Duplicate);
        }
        match change {
            Some(change) => self.store_for_change(set, change, found),
            None => self.store_unattributed(set),
        }
    }
}

impl StoreCallback {
    /// Stores a result of a request that is linked to a change.
    fn store_for_change(
        self,
        set: &mut WorkingSet,
        change: Row,
        found: (Option<u32>, Match),
    ) -> Result<Stored, ApplyError> {
        let position = set.next_position();
        let (result, now) = (&self.received.callback.result, self.received.receive_time);
        let request = set.request(&result.request_id)?;
        let (stream, evidence) = (request.row, request.evidence.clone());
        // The device has the digest of a result that matches it.
        match found.0 {
            Some(device) => set.change(change)?.devices.add_digest(device, self.digest)?,
            None => request.add_digest(self.digest),
        }
        let link = add_result(set, change, position, result, found, &evidence, now)?;
        let Change { account, change_id, trace, .. } = &set.change(change)?.change;
        let owner = Some((*change_id, trace.clone()));
        let account = account.clone();
        self.append(set, position, stream, Some(&account), Some(link))?;
        finish_if_complete(set, change, now)?;
        Ok(Stored::New(NewResult { position, change: owner }))
    }

    /// Stores a result of a request that is not linked to a change, or not yet.
    fn store_unattributed(self, set: &mut WorkingSet) -> Result<Stored, ApplyError> {
        let position = set.next_position();
        let ReceivedCallback { callback, account, service, receive_time, .. } = &self.received;
        let request = set.request(&callback.result.request_id)?;
        if request.row == 0 {
            request.row = position;
            request.dirty = Dirty::New;
        }
        request.account = request.account.take().or_else(|| account.clone());
        request.service = request.service.take().or_else(|| service.clone());
        request.last_result = position;
        request.last_result_time = *receive_time;
        request.dirty.mark();
        request.add_digest(self.digest);
        let (account, stream) = (request.account.clone(), request.row);
        let early = EarlyResult {
            position,
            result: callback.result.clone(),
            account: account.as_ref().map(|account| set.account(account)).transpose()?,
        };
        set.request(&callback.result.request_id)?.early_results.push(early);
        set.mark_unattributed(&callback.result.request_id);
        self.append(set, position, stream, account.as_ref(), None)?;
        Ok(Stored::New(NewResult { position, change: None }))
    }

    /// Appends the event, and queues the callback for forwarding.
    fn append(
        self,
        set: &mut WorkingSet,
        position: u64,
        stream: Row,
        account: Option<&AccountName>,
        link: Option<(Match, Vec<u8>)>,
    ) -> Result<(), ApplyError> {
        let account = account.map(|account| set.account(account)).transpose()?;
        let ReceivedCallback { callback, service, forwarding, .. } = self.received;
        let content = EventContent::Result { body: self.body, link, raw_json: callback.raw_json };
        set.events.push(NewEvent { position, stream, account, content });
        if let Some(ForwardOptions { now: queue_time, max_waiting }) = forwarding {
            set.forwards.push(NewForward { position, service, queue_time, max_waiting });
        }
        Ok(())
    }
}
