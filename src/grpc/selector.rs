//! Parses the fields of a request that select a change or a ThingSpace request.

use crate::{
    domain::{
        newtypes::{AccountName, ChangeId, IdempotencyKey, RequestId},
        violation::{FieldPath, FieldReason, Violations},
    },
    grpc::error::ApiError,
    journal::ChangeSelector,
};

/// The selector fields of a message. Exactly one selector may be set.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SelectorFields<'a> {
    pub(super) change_id: &'a str,
    pub(super) request_id: &'a str,
    pub(super) account_name: &'a str,
    pub(super) idempotency_key: &'a str,
    /// The fields that the message has.
    pub(super) selectors: AllowedSelectors,
}

/// The selector fields that a message has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum AllowedSelectors {
    /// All of them.
    #[default]
    All,
    /// `change_id` and `request_id`.
    Ids,
}

impl SelectorFields<'_> {
    /// Returns the selector, or `None` if all fields are empty.
    pub(super) fn parse(self) -> Result<Option<ChangeSelector>, ApiError> {
        let by_key = !self.account_name.is_empty() || !self.idempotency_key.is_empty();
        let given = [
            ("change_id", !self.change_id.is_empty()),
            ("request_id", !self.request_id.is_empty()),
            ("idempotency_key", by_key),
        ];
        let mut given = given.iter().filter(|(_, given)| *given);
        if let (Some(_), Some((second, _))) = (given.next(), given.next()) {
            let expected = self.selectors.expected();
            return Err(ApiError::invalid_field(second, FieldReason::Combination, expected));
        }
        let mut violations = Violations::default();
        let selector = if !self.change_id.is_empty() {
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
            account.zip(key).map(|(account, key)| ChangeSelector::Key(account, key))
        } else {
            return Ok(None);
        };
        violations.into_result(selector).map(Some).map_err(ApiError::invalid_fields)
    }

    /// Returns the selector, or an error if all fields are empty.
    pub(super) fn parse_required(self) -> Result<ChangeSelector, ApiError> {
        self.parse()?.ok_or_else(|| {
            let expected = self.selectors.expected();
            ApiError::invalid_field("change_id", FieldReason::Combination, expected)
        })
    }
}

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
