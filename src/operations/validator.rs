//! Validation of the fields and the devices that every change request has.

use crate::{
    domain::{
        change::SentDevice,
        evidence::IdentifyingKinds,
        identifier::{DeviceId, IdentifierKind},
        matching::SeenIdentifiers,
        newtypes::{AccountName, ClientReference, IdempotencyKey, ServicePlan},
        violation::{FieldPath, FieldReason, Violation, Violations},
    },
    operations::operation::{ChangeRequest, Operation, OperationInfo, ValidationRules},
    proto,
};

/// The fields that every change request has, as the client sent them.
pub(crate) struct CommonFields {
    pub(crate) account_name: String,
    pub(crate) service_plan: String,
    pub(crate) idempotency_key: String,
    pub(crate) client_reference: String,
    pub(crate) validate_only: bool,
}

/// Collects the valid parts of a request, and all its violations.
pub(crate) struct Validator {
    /// The violations found so far.
    pub(crate) violations: Violations,
    rules: ValidationRules,
    identifying_kinds: IdentifyingKinds,
    /// The valid common fields. A key that is not required can be missing.
    account: Option<AccountName>,
    service_plan: Option<ServicePlan>,
    key: Option<Option<IdempotencyKey>>,
    client_reference: Option<ClientReference>,
    validate_only: bool,
    seen: SeenIdentifiers,
    devices: Vec<SentDevice>,
    check_digit_failures: usize,
    warnings: Vec<String>,
}

/// Maximum number of warnings about single identifiers.
const MAX_WARNINGS: usize = 20;

impl Validator {
    /// Validates the common fields and the number of devices.
    ///
    /// They come first because an error has space for a part of the violations only.
    pub(crate) fn new(
        info: &OperationInfo,
        rules: ValidationRules,
        fields: CommonFields,
        device_count: usize,
    ) -> Self {
        let mut violations = Violations::default();
        let account = AccountName::parse(fields.account_name);
        let account = violations.ok_or_add("account_name", account);
        let plan = ServicePlan::parse(fields.service_plan);
        let plan = violations.ok_or_add("service_plan", plan);
        let key = if fields.idempotency_key.is_empty() && !rules.require_key {
            Some(None)
        } else {
            let key = IdempotencyKey::parse(fields.idempotency_key);
            violations.ok_or_add("idempotency_key", key).map(Some)
        };
        let reference = ClientReference::parse(fields.client_reference);
        let reference = violations.ok_or_add("client_reference", reference);
        if device_count == 0 {
            let description = "must have at least one device";
            violations.add("devices", FieldReason::Required, description);
        }
        if device_count > rules.max_devices_per_request {
            let description = format!(
                "must have at most {} devices (changes.max_devices_per_request), not {device_count}",
                rules.max_devices_per_request
            );
            violations.add("devices", FieldReason::TooLong, description);
        }
        Self {
            violations,
            rules,
            identifying_kinds: info.evidence.identifying_kinds,
            account,
            service_plan: plan,
            key,
            client_reference: reference,
            validate_only: fields.validate_only,
            seen: SeenIdentifiers::default(),
            devices: Vec::with_capacity(device_count.min(rules.max_devices_per_request)),
            check_digit_failures: 0,
            warnings: Vec::new(),
        }
    }

    /// Iterates over the devices with their indexes and paths. Yields none if there are too many of them.
    pub(crate) fn devices<D>(
        &self,
        mut devices: Vec<D>,
    ) -> impl Iterator<Item = (usize, FieldPath, D)> + use<D> {
        if devices.len() > self.rules.max_devices_per_request {
            devices.clear();
        }
        let path = FieldPath::from("devices");
        (0..).zip(devices).map(move |(index, device)| (index, path.at(index), device))
    }

    /// Validates the identifiers of one device: at least one, at most one of each kind, and only these kinds.
    /// Returns each valid identifier with the path of its value.
    pub(crate) fn device_ids(
        &mut self,
        path: FieldPath,
        ids: Vec<proto::DeviceId>,
        accepted_kinds: &[IdentifierKind],
    ) -> Vec<(FieldPath, DeviceId)> {
        let violations = &mut self.violations;
        if ids.is_empty() {
            let description = "must have at least one identifier";
            violations.add(path, FieldReason::Required, description);
        }
        if ids.len() > IdentifierKind::ALL.len() {
            let description = "must have at most 9 identifiers, one of each kind";
            violations.add(path, FieldReason::TooLong, description);
            return Vec::new();
        }
        let mut parsed: Vec<(FieldPath, DeviceId)> = Vec::new();
        for (index, id) in ids.into_iter().enumerate() {
            let (path, kind_path) = (path.at(index).field("id"), path.at(index).field("kind"));
            let kind = violations.ok_or_add(kind_path, id.kind.parse::<IdentifierKind>());
            let Some(kind) = kind else { continue };
            if !accepted_kinds.contains(&kind) {
                let names: Vec<&str> = accepted_kinds.iter().map(|kind| kind.as_str()).collect();
                let description = format!("must be one of {}", names.join(", "));
                violations.add(kind_path, FieldReason::Value, description);
            }
            if parsed.iter().any(|(_, other)| other.kind() == kind) {
                let description = "is the kind of another identifier of this device";
                violations.add(kind_path, FieldReason::Duplicate, description);
                continue;
            }
            let id = violations.ok_or_add(path, DeviceId::new(kind, id.id));
            parsed.extend(id.map(|id| (path, id)));
        }
        parsed
    }

    /// Adds a device with its identifiers and their paths. A device that was added before is a violation.
    pub(crate) fn add_device(
        &mut self,
        index: usize,
        ids: Vec<(FieldPath, DeviceId)>,
        client_reference: ClientReference,
    ) {
        for (path, id) in &ids {
            let path = *path;
            if self.rules.reject_reserved && id.is_reserved() {
                let description = "is reserved for the sandbox; no real device has it";
                self.violations.add(path, FieldReason::Value, description);
            }
            if self.identifying_kinds.includes(id.kind())
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
        let request = || {
            Some(ChangeRequest {
                account: self.account?,
                key: self.key?,
                validate_only: self.validate_only,
                client_reference: self.client_reference?,
                service_plan: self.service_plan?,
                devices: self.devices,
                operation,
                warnings: self.warnings,
            })
        };
        self.violations.into_result(request())
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
            validate_only: $request.validate_only,
        }
    };
}

pub(crate) use common_fields;
