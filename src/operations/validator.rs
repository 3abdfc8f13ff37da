//! Validation of the fields that every change request has.

use crate::{
    domain::{
        change::SentDevice,
        identifier::DeviceId,
        matching::SeenIdentifiers,
        newtypes::{AccountName, ClientReference, IdempotencyKey, ServicePlan},
        violation::{FieldPath, FieldReason, Violation, Violations},
    },
    operations::{change_request::ChangeRequest, operation::Operation},
};

/// The rules that come from the settings.
#[derive(Debug, Clone, Copy)]
pub struct ValidationRules {
    /// Maximum number of devices of a change: `changes.max_devices_per_request`.
    pub max_devices_per_request: usize,
    /// True if the idempotency key is required: `changes.require_key`.
    pub require_key: bool,
    /// True if the identifiers reserved for the sandbox are rejected, because ThingSpace is real.
    pub reject_reserved: bool,
}

/// The fields that every change request has, as the client sent them.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommonFields {
    pub(crate) account_name: String,
    pub(crate) service_plan: String,
    pub(crate) idempotency_key: String,
    pub(crate) client_reference: String,
}

/// Collects the valid parts of a request, and all its violations.
pub(crate) struct Validator {
    /// The violations found so far.
    pub(crate) violations: Violations,
    rules: ValidationRules,
    common: Option<ValidCommonFields>,
    seen: SeenIdentifiers,
    devices: Vec<SentDevice>,
    check_digit_failures: usize,
    warnings: Vec<String>,
}

struct ValidCommonFields {
    account: AccountName,
    service_plan: ServicePlan,
    key: Option<IdempotencyKey>,
    client_reference: ClientReference,
}

/// Maximum number of warnings about single identifiers.
const MAX_WARNINGS: usize = 20;

impl Validator {
    /// Validates the common fields and the number of devices.
    ///
    /// They come first because an error has space for a part of the violations only.
    pub(crate) fn new(rules: ValidationRules, fields: CommonFields, device_count: usize) -> Self {
        let mut violations = Violations::default();
        let common = fields.validate(rules, &mut violations);
        let path = FieldPath::root("devices");
        if device_count == 0 {
            let description = "must have at least one device";
            violations.add(path, FieldReason::Required, description);
        }
        if device_count > rules.max_devices_per_request {
            let description = format!(
                "must have at most {} devices (changes.max_devices_per_request), not {device_count}",
                rules.max_devices_per_request
            );
            violations.add(path, FieldReason::TooLong, description);
        }
        Self {
            violations,
            rules,
            common,
            seen: SeenIdentifiers::default(),
            devices: Vec::with_capacity(device_count.min(rules.max_devices_per_request)),
            check_digit_failures: 0,
            warnings: Vec::new(),
        }
    }

    /// Iterates over the devices with their indexes. Yields none if there are too many of them.
    pub(crate) fn devices<D>(&self, devices: Vec<D>) -> impl Iterator<Item = (usize, D)> + use<D> {
        let limit = match devices.len() <= self.rules.max_devices_per_request {
            true => devices.len(),
            false => 0,
        };
        devices.into_iter().take(limit).enumerate()
    }

    /// Adds a device with its identifiers and their paths. A device that was added before is a violation.
    pub(crate) fn add_device(
        &mut self,
        index: usize,
        ids: Vec<(FieldPath, DeviceId)>,
        is_identifying: impl Fn(&DeviceId) -> bool,
        client_reference: ClientReference,
    ) {
        for (path, id) in &ids {
            let path = *path;
            if self.rules.reject_reserved && id.is_reserved() {
                let description = "is reserved for the sandbox; no real device has it";
                self.violations.add(path, FieldReason::Value, description);
            }
            if is_identifying(id)
                && let Some(first) = self.seen.insert(index, id)
            {
                let description = format!("is the same device as devices[{first}]");
                self.violations.add(path, FieldReason::Duplicate, description);
            }
            if id.has_invalid_check_digit() {
                self.check_digit_failures += 1;
                if self.check_digit_failures <= MAX_WARNINGS {
                    self.warnings.push(format!("{path}: the IMEI has an invalid check digit"));
                }
            }
        }
        self.devices.push(SentDevice {
            ids: ids.into_iter().map(|(_, id)| id).collect(),
            client_reference,
        });
    }

    /// Parses the client reference of the device at `path`.
    pub(crate) fn client_reference(
        &mut self,
        path: FieldPath,
        text: String,
    ) -> Option<ClientReference> {
        let path = path.field("client_reference");
        self.violations.ok_or_add(path, ClientReference::parse(text))
    }

    /// Returns the valid request, or all violations.
    pub(crate) fn finish(
        mut self,
        operation: Box<dyn Operation>,
    ) -> Result<ChangeRequest, Vec<Violation>> {
        if self.check_digit_failures > MAX_WARNINGS {
            let more = self.check_digit_failures - MAX_WARNINGS;
            self.warnings.push(format!("{more} more IMEIs have an invalid check digit"));
        }
        let request = self.common.map(|common| ChangeRequest {
            account: common.account,
            key: common.key,
            client_reference: common.client_reference,
            service_plan: common.service_plan,
            devices: self.devices,
            operation,
            warnings: self.warnings,
        });
        self.violations.into_result(request)
    }
}

impl CommonFields {
    fn validate(
        self,
        rules: ValidationRules,
        violations: &mut Violations,
    ) -> Option<ValidCommonFields> {
        let account = AccountName::parse(self.account_name);
        let account = violations.ok_or_add(FieldPath::root("account_name"), account);
        let plan = ServicePlan::parse(self.service_plan);
        let plan = violations.ok_or_add(FieldPath::root("service_plan"), plan);
        let key = if self.idempotency_key.is_empty() && !rules.require_key {
            Some(None)
        } else {
            let key = IdempotencyKey::parse(self.idempotency_key);
            violations.ok_or_add(FieldPath::root("idempotency_key"), key).map(Some)
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

/// Moves the common fields out of a request message. They have the same names in every one.
macro_rules! common_fields {
    ($request:expr) => {
        $crate::operations::validator::CommonFields {
            account_name: std::mem::take(&mut $request.account_name),
            service_plan: std::mem::take(&mut $request.service_plan),
            idempotency_key: std::mem::take(&mut $request.idempotency_key),
            client_reference: std::mem::take(&mut $request.client_reference),
        }
    };
}

pub(crate) use common_fields;
