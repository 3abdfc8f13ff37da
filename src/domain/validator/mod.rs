//! What both plan changes have in common before they are known to be valid.

use super::{
    change::{ChangeRequest, OperationPayload, SentDevice},
    identifier::DeviceId,
    matching::SeenIdentifiers,
    newtypes::{AccountName, ClientReference, IdempotencyKey, ServicePlan},
    violation::{FieldPath, FieldReason, Violation, Violations},
};

/// The fields that both requests have, as a client sent them.
#[derive(Debug, Clone, Default)]
pub struct CommonFields {
    /// The billing account.
    pub account_name: String,
    /// The plan to change to.
    pub service_plan: String,
    /// The client's key.
    pub idempotency_key: String,
    /// The client's own text.
    pub client_reference: String,
}

/// What the settings ask of a change.
#[derive(Debug, Clone, Copy)]
pub struct ValidationRules {
    /// How many devices one POST may carry: `changes.max_devices_per_request`.
    pub max_devices: usize,
    /// Whether a key is required: `changes.require_key`.
    pub require_key: bool,
    /// Whether the sandbox's reserved identifiers are refused: they are where
    /// real devices are changed.
    pub refuse_reserved: bool,
}

/// Gathers what is valid, and everything that is not.
pub(super) struct Validator {
    rules: ValidationRules,
    common: Option<ValidCommonFields>,
    violations: Violations,
    seen: SeenIdentifiers,
    devices: Vec<SentDevice>,
    check_digit_failures: usize,
    warnings: Vec<String>,
}

/// The fields that both requests have, valid.
struct ValidCommonFields {
    account: AccountName,
    service_plan: ServicePlan,
    key: Option<IdempotencyKey>,
    client_reference: ClientReference,
}

/// Warnings are for people: nobody reads 10,000 of them.
const MAX_WARNINGS: usize = 20;

// === impl Drafting ===

impl Validator {
    /// Begins with the fields of the request itself and the number of devices, so
    /// that what is wrong with them is told first: of thousands of bad devices an
    /// answer has room for some.
    pub(super) fn new(limits: ValidationRules, draft: CommonFields, device_count: usize) -> Self {
        let mut violations = Violations::default();
        let mut validator = Self {
            rules: limits,
            common: draft.validate(limits, &mut violations),
            violations,
            seen: SeenIdentifiers::default(),
            devices: Vec::with_capacity(device_count.min(limits.max_devices)),
            check_digit_failures: 0,
            warnings: Vec::new(),
        };
        if device_count == 0 {
            let why = "must name at least one device";
            let path = FieldPath::root("devices");
            validator.violations.add(path, FieldReason::Required, why);
        }
        if device_count > limits.max_devices {
            let why = format!(
                "must name at most {} devices (setting changes.max_devices_per_request), not {device_count}",
                limits.max_devices
            );
            let path = FieldPath::root("devices");
            validator.violations.add(path, FieldReason::TooLong, why);
        }
        validator
    }

    /// Whether the devices are few enough to be looked at one by one.
    pub(super) fn is_within_device_limit(&self, device_count: usize) -> bool {
        device_count <= self.rules.max_devices
    }

    pub(super) fn violations(&mut self) -> &mut Violations {
        &mut self.violations
    }

    /// Takes one device, whose identifiers stand at the paths that come with
    /// them. One that is there already is a violation of its first such path.
    pub(super) fn add_device(
        &mut self,
        index: usize,
        ids: Vec<(FieldPath, DeviceId)>,
        is_identifying: impl Fn(&DeviceId) -> bool,
        reference: ClientReference,
    ) {
        for (path, id) in &ids {
            let path = *path;
            if self.rules.refuse_reserved && id.is_reserved() {
                let why = "is in a range reserved for the sandbox; no real device has it";
                self.violations.add(path, FieldReason::Value, why);
            }
            if is_identifying(id)
                && let Some(first) = self.seen.insert(index, id)
            {
                let why = format!("is the same device as devices[{first}]");
                self.violations.add(path, FieldReason::Duplicate, why);
            }
            if id.has_invalid_check_digit() {
                self.check_digit_failures += 1;
                if self.check_digit_failures <= MAX_WARNINGS {
                    self.warnings
                        .push(format!("{path}: the IMEI fails its check digit"));
                }
            }
        }
        self.devices.push(SentDevice {
            ids: ids.into_iter().map(|(_, id)| id).collect(),
            client_reference: reference,
        });
    }

    /// Reads a device's own client reference.
    pub(super) fn parse_client_reference(
        &mut self,
        path: FieldPath,
        text: String,
    ) -> Option<ClientReference> {
        let path = path.field("client_reference");
        self.violations
            .ok_or_add(path, ClientReference::parse(text))
    }

    /// The valid change, or everything that is wrong with it.
    pub(super) fn finish(
        mut self,
        order: OperationPayload,
    ) -> Result<ChangeRequest, Vec<Violation>> {
        if self.check_digit_failures > MAX_WARNINGS {
            let more = self.check_digit_failures - MAX_WARNINGS;
            self.warnings
                .push(format!("{more} more IMEIs fail their check digit"));
        }
        let (devices, warnings) = (self.devices, self.warnings);
        let change_request = self.common.map(|common| ChangeRequest {
            account: common.account,
            key: common.key,
            client_reference: common.client_reference,
            service_plan: common.service_plan,
            devices,
            payload: order,
            warnings,
        });
        self.violations.into_result(change_request)
    }
}

// === impl Draft ===

impl CommonFields {
    fn validate(
        self,
        limits: ValidationRules,
        violations: &mut Violations,
    ) -> Option<ValidCommonFields> {
        let account = AccountName::parse(self.account_name);
        let account = violations.ok_or_add(FieldPath::root("account_name"), account);
        let plan = ServicePlan::parse(self.service_plan);
        let plan = violations.ok_or_add(FieldPath::root("service_plan"), plan);
        let key = if self.idempotency_key.is_empty() && !limits.require_key {
            Some(None)
        } else {
            let key = IdempotencyKey::parse(self.idempotency_key);
            violations
                .ok_or_add(FieldPath::root("idempotency_key"), key)
                .map(Some)
        };
        let reference = ClientReference::parse(self.client_reference);
        let reference = violations.ok_or_add(FieldPath::root("client_reference"), reference);
        Some(ValidCommonFields {
            account: account?,
            service_plan: plan?,
            key: key?,
            client_reference: reference?,
        })
    }
}

#[cfg(test)]
mod tests;
