//! Which change, or which request, a message names.

use crate::{
    domain::{
        newtypes::{AccountName, ChangeId, IdempotencyKey, RequestId},
        violation::{FieldPath, FieldReason, Violations},
    },
    grpc::error::ApiError,
    journal::ChangeSelector,
};

/// The flat fields that name a change.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SelectorFields<'a> {
    pub(super) change_id: &'a str,
    pub(super) request_id: &'a str,
    pub(super) account_name: &'a str,
    pub(super) idempotency_key: &'a str,
    /// Which of the fields a message has.
    pub(super) selectors: AllowedSelectors,
}

/// The fields that a message has for naming a change.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum AllowedSelectors {
    /// All of them.
    #[default]
    All,
    /// `change_id` and `request_id`.
    Ids,
}

// === impl Names ===

impl SelectorFields<'_> {
    /// The change that is named; `None` when all fields are empty.
    pub(super) fn parse(self) -> Result<Option<ChangeSelector>, ApiError> {
        let by_key = !self.account_name.is_empty() || !self.idempotency_key.is_empty();
        let given = [
            ("change_id", !self.change_id.is_empty()),
            ("request_id", !self.request_id.is_empty()),
            ("idempotency_key", by_key),
        ];
        let mut given = given.iter().filter(|(_, given)| *given);
        if let (Some(_), Some((second, _))) = (given.next(), given.next()) {
            let why = self.selectors.expected();
            return Err(ApiError::invalid_field(
                second,
                FieldReason::Combination,
                why,
            ));
        }
        let mut violations = Violations::default();
        let name = if !self.change_id.is_empty() {
            let id = ChangeId::parse(self.change_id);
            let id = violations.ok_or_add(FieldPath::root("change_id"), id);
            id.map(ChangeSelector::Id)
        } else if !self.request_id.is_empty() {
            let id = RequestId::parse(self.request_id);
            let id = violations.ok_or_add(FieldPath::root("request_id"), id);
            id.map(ChangeSelector::Request)
        } else if by_key {
            let account = AccountName::parse(self.account_name);
            let account = violations.ok_or_add(FieldPath::root("account_name"), account);
            let key = IdempotencyKey::parse(self.idempotency_key);
            let key = violations.ok_or_add(FieldPath::root("idempotency_key"), key);
            account
                .zip(key)
                .map(|(account, key)| ChangeSelector::Key(account, key))
        } else {
            return Ok(None);
        };
        violations
            .into_result(name)
            .map(Some)
            .map_err(ApiError::invalid_fields)
    }

    /// The change that is named; a failure when all fields are empty.
    pub(super) fn parse_required(self) -> Result<ChangeSelector, ApiError> {
        self.parse()?.ok_or_else(|| {
            let why = self.selectors.expected();
            ApiError::invalid_field("change_id", FieldReason::Combination, why)
        })
    }
}

// === impl Selectors ===

impl AllowedSelectors {
    fn expected(self) -> &'static str {
        match self {
            Self::All => {
                "is one of several selectors: set exactly one of change_id, request_id, or \
                 account_name with idempotency_key"
            }
            Self::Ids => "is one of two selectors: set exactly one of change_id and request_id",
        }
    }
}
