//! The interface of an operation, and the validated request that contains one.

use std::{collections::HashMap, fmt};

use bytes::BufMut;

use crate::{
    config::{Config, ThingSpaceConfig},
    domain::{
        change::{Change, SentDevice},
        change_type::ChangeType,
        clock::Timestamp,
        device_states::DeviceCounts,
        evidence::EvidenceRules,
        identifier::DeviceId,
        newtypes::{AccountName, ChangeId, ClientReference, IdempotencyKey, ServicePlan},
        state::ChangeState,
        violation::Violation,
    },
    operations::wire::OutboundRequest,
    proto,
};

/// The static description of an operation.
#[derive(Debug)]
pub struct OperationInfo {
    /// The type of its changes in the journal.
    pub change_type: ChangeType,
    /// The type of its changes in the API.
    pub proto_type: proto::ChangeType,
    /// The name of its RPC in `GatewayService`.
    pub rpc: &'static str,
    /// The field number of the repeated identifiers in a device message; `None` if a device has a fixed
    /// number of identifiers.
    pub device_ids_field: Option<u32>,
    /// The rules by which its results are recognised.
    pub evidence: EvidenceRules,
    /// The settings to check if ThingSpace has no endpoint for the request.
    pub endpoint_settings: &'static str,
}

/// The part of a [`ChangeRequest`] that differs between operations.
///
/// `Debug` must not show names or addresses.
pub trait Operation: fmt::Debug + Send + Sync {
    /// Returns the description of the operation.
    fn info(&self) -> &'static OperationInfo;

    /// Returns everything that the idempotency key stands for, beyond the common fields.
    fn fingerprint_fields(&self) -> Vec<&str>;

    /// Returns the same for the device at this index, beyond its identifiers.
    fn device_fingerprint_fields(&self, _index: usize) -> Vec<&str> {
        Vec::new()
    }

    /// Writes the HTTP request for ThingSpace.
    ///
    /// # Errors
    ///
    /// If the body cannot be written as JSON.
    fn outbound_request(
        &self,
        request: &ChangeRequest,
        settings: &ThingSpaceConfig,
    ) -> Result<OutboundRequest, serde_json::Error>;

    /// Reorders what belongs to single devices: `order` holds the present index of each device in its
    /// new position. Returns `None` if an index is missing or repeated.
    fn reorder(&mut self, _order: &[usize]) -> Option<()> {
        Some(())
    }

    /// Returns names and addresses in the request, which must not appear in a message about it.
    fn sensitive_values(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// An operation with an RPC of its own.
pub trait RpcOperation: Operation + 'static {
    /// The request message of the RPC.
    type Request: Send + 'static;
    /// The response message of the RPC.
    type Response: Send + 'static;

    /// Validates a request message.
    ///
    /// # Errors
    ///
    /// All invalid fields of the message.
    fn validate(
        request: Self::Request,
        rules: ValidationRules,
    ) -> Result<ChangeRequest, Vec<Violation>>;

    /// Builds the response message.
    fn response(change: proto::Change, warnings: Vec<String>) -> Self::Response;
}

/// The rules of validation that come from the settings.
#[derive(Debug, Clone, Copy)]
pub struct ValidationRules {
    /// Maximum number of devices of a change.
    pub max_devices_per_request: usize,
    /// True if the idempotency key is required.
    pub require_key: bool,
    /// True if the identifiers reserved for the sandbox are rejected, because ThingSpace is real.
    pub reject_reserved: bool,
}

impl ValidationRules {
    pub(crate) fn new(config: &Config) -> Self {
        let max_devices = config.changes.max_devices_per_request;
        Self {
            max_devices_per_request: usize::try_from(max_devices).unwrap_or(usize::MAX),
            require_key: config.changes.require_key,
            // Only Verizon's own host changes real devices.
            reject_reserved: config.thingspace.is_production(),
        }
    }
}

/// A validated request for a change, with everything that is needed to send it.
#[derive(Debug)]
pub struct ChangeRequest {
    /// The billing account.
    pub account: AccountName,
    /// The client's idempotency key; `None` only if `changes.require_key` is off.
    pub key: Option<IdempotencyKey>,
    /// True to check the request without sending it.
    pub validate_only: bool,
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

/// The version of the fingerprint's input. A stored fingerprint is only equal to one of the same version.
const FINGERPRINT_VERSION: &[u8] = b"thingspace.gateway/content/1";

impl ChangeRequest {
    /// Returns the type of the change.
    pub fn change_type(&self) -> ChangeType {
        self.operation.info().change_type
    }

    /// Returns everything that the idempotency key stands for, in one canonical form: all fields of the
    /// message except the key, `validate_only` and the client references, with the devices in any order.
    ///
    /// Every text is preceded by its length, so that different requests never have the same bytes.
    pub fn fingerprint_input(&self) -> Vec<u8> {
        let mut input = FINGERPRINT_VERSION.to_vec();
        put(&mut input, self.account.as_str().as_bytes());
        put(&mut input, self.service_plan.as_str().as_bytes());
        for text in self.operation.fingerprint_fields() {
            put(&mut input, text.as_bytes());
        }
        let devices = self.devices.iter().enumerate().map(|(index, device)| {
            let mut out = Vec::new();
            for id in device.sorted_ids() {
                put(&mut out, id.kind().as_str().as_bytes());
                put(&mut out, id.id().as_bytes());
            }
            for text in self.operation.device_fingerprint_fields(index) {
                put(&mut out, text.as_bytes());
            }
            out
        });
        let mut devices: Vec<Vec<u8>> = devices.collect();
        devices.sort_unstable();
        for device in &devices {
            put(&mut input, device);
        }
        input
    }

    /// Returns the request with its devices in the stored order, and with the stored client references.
    /// Returns `None` if `stored` are not exactly the devices of the request.
    ///
    /// A change that is sent again keeps the device indexes that clients have seen.
    pub fn in_stored_order(mut self, stored: Vec<SentDevice>) -> Option<Self> {
        let devices = self.devices.iter().map(SentDevice::sorted_ids);
        let mut indexes: HashMap<Vec<&DeviceId>, usize> = devices.zip(0..).collect();
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

/// Appends bytes, preceded by their length.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u64(bytes.len() as u64);
    out.put_slice(bytes);
}
