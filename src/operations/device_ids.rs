//! Validation of a device's identifiers, as pairs of a kind and a value.

use crate::{
    domain::{
        identifier::{DeviceId, IdentifierKind},
        violation::{FieldPath, FieldReason, Violations},
    },
    proto,
};

/// Validates the identifiers of one device: at least one, and at most one of each allowed kind.
///
/// Returns each valid identifier with the path of its value.
pub(crate) fn parse_device_ids(
    path: FieldPath,
    ids: Vec<proto::DeviceId>,
    violations: &mut Violations,
) -> Vec<(FieldPath, DeviceId)> {
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
        let path = path.at(index);
        let kind_path = path.field("kind");
        let Some(kind) = violations.ok_or_add(kind_path, id.kind.parse::<IdentifierKind>()) else {
            continue;
        };
        if parsed.iter().any(|(_, other)| other.kind() == kind) {
            let description = "is the kind of another identifier of this device";
            violations.add(kind_path, FieldReason::Duplicate, description);
            continue;
        }
        let path = path.field("id");
        let id = violations.ok_or_add(path, DeviceId::new(kind, id.id));
        parsed.extend(id.map(|id| (path, id)));
    }
    parsed
}
