//! A validated request for a change.

use std::collections::HashMap;

use crate::{
    domain::{
        change::{Change, SentDevice},
        change_type::ChangeType,
        clock::Timestamp,
        device_states::DeviceCounts,
        identifier::DeviceId,
        newtypes::{AccountName, ChangeId, ClientReference, IdempotencyKey, ServicePlan},
        state::ChangeState,
    },
    operations::{fingerprint::FingerprintInput, operation::Operation},
};

/// A validated request for a change, with everything that is needed to send it.
#[derive(Debug)]
pub struct ChangeRequest {
    /// The billing account.
    pub account: AccountName,
    /// The client's idempotency key; `None` only if `changes.require_key` is off.
    pub key: Option<IdempotencyKey>,
    /// The client's label for the change.
    pub client_reference: ClientReference,
    /// The plan to change to.
    pub service_plan: ServicePlan,
    /// The devices in the order in which they are sent: 1 to 10,000, none twice.
    pub devices: Vec<SentDevice>,
    /// The operation and its own fields.
    pub operation: Box<dyn Operation>,
    /// Warnings for people about unusual but accepted values; at most 21.
    pub warnings: Vec<String>,
}

impl ChangeRequest {
    /// Returns the type of the change.
    pub fn change_type(&self) -> ChangeType {
        self.operation.info().change_type
    }

    /// Returns everything that the idempotency key stands for, in one canonical form: all fields of the
    /// message except the key, `validate_only` and the client references, with the devices in any order.
    pub fn fingerprint_input(&self) -> Vec<u8> {
        let mut input = FingerprintInput::new(&self.account, &self.service_plan, &self.devices);
        self.operation.add_to_fingerprint(&mut input);
        input.into_bytes()
    }

    /// Returns the request with its devices in the stored order, and with the stored client references.
    /// Returns `None` if `stored` are not exactly the devices of the request.
    ///
    /// A change that is sent again keeps the device indexes that clients have seen.
    pub fn in_stored_order(mut self, stored: Vec<SentDevice>) -> Option<Self> {
        let mut indexes: HashMap<Vec<&DeviceId>, usize> = self
            .devices
            .iter()
            .enumerate()
            .map(|(index, device)| (device.sorted_ids(), index))
            .collect();
        let is_complete = stored.len() == self.devices.len();
        let order = stored.iter().map(|device| indexes.remove(&device.sorted_ids()));
        let order: Vec<usize> = order.collect::<Option<_>>().filter(|_| is_complete)?;
        self.operation.reorder(&order)?;
        self.devices = stored;
        Some(self)
    }

    /// Returns the new change, in state QUEUED.
    pub fn to_change(&self, change_id: ChangeId, now: Timestamp) -> Change {
        Change {
            change_id,
            request_ids: Vec::new(),
            key: self.key.clone(),
            client_reference: self.client_reference.clone(),
            change_type: self.change_type(),
            state: ChangeState::Queued,
            account: self.account.clone(),
            service_plan: self.service_plan.clone(),
            device_count: u32::try_from(self.devices.len()).unwrap_or(u32::MAX),
            counts: DeviceCounts::default(),
            create_time: now,
            dispatch_time: None,
            accept_time: None,
            update_time: now,
            finish_time: None,
            refusal: None,
            trace: None,
            has_plan_snapshot: false,
        }
    }
}
