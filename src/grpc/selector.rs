//! Parses the fields of a request that select a change or a ThingSpace request.

use crate::{
    domain::{
        newtypes::{AccountName, ChangeId, IdempotencyKey, RequestId},
        violation::{FieldReason, Violations},
    },
    grpc::error::ApiError,
    journal::ChangeSelector,
};

/// The selector fields of a message. Exactly one selector may be set.
#[derive(Clone, Copy)]
pub(super) struct SelectorFields<'a> {
    pub(super) change_id: &'a str,
    pub(super) request_id: &'a str,
    /// `account_name` and `idempotency_key`, if the message has these fields.
    pub(super) account_and_key: Option<(&'a str, &'a str)>,
}

impl SelectorFields<'_> {
    /// Returns the selector, or `None` if all fields are empty.
    pub(super) fn parse(self) -> Result<Option<ChangeSelector>, ApiError> {
        let mut violations = Violations::default();
        let account_and_key = self.account_and_key.unwrap_or_default();
        let selector = match (self.change_id, self.request_id, account_and_key) {
            ("", "", ("", "")) => return Ok(None),
            (id, "", ("", "")) => {
                violations.ok_or_add("change_id", ChangeId::parse(id)).map(ChangeSelector::Id)
            }
            ("", id, ("", "")) => {
                let id = violations.ok_or_add("request_id", RequestId::parse(id));
                id.map(ChangeSelector::Request)
            }
            ("", "", (account, key)) => {
                let account = violations.ok_or_add("account_name", AccountName::parse(account));
                let key = violations.ok_or_add("idempotency_key", IdempotencyKey::parse(key));
                account.zip(key).map(|(account, key)| ChangeSelector::Key(account, key))
            }
            ("", ..) | (_, "", _) => return Err(self.invalid_combination("idempotency_key")),
            _ => return Err(self.invalid_combination("request_id")),
        };
        violations.into_result(selector).map(Some).map_err(ApiError::invalid_fields)
    }

    /// Returns the selector, or an error if all fields are empty.
    pub(super) fn parse_required(self) -> Result<ChangeSelector, ApiError> {
        self.parse()?.ok_or_else(|| self.invalid_combination("change_id"))
    }

    fn invalid_combination(self, field: &str) -> ApiError {
        let expected = match self.account_and_key {
            Some(_) => {
                "is one of several selectors: set exactly one of change_id, request_id, or \
                 account_name with idempotency_key"
            }
            None => "is one of two selectors: set exactly one of change_id and request_id",
        };
        ApiError::invalid_field(field, FieldReason::Combination, expected)
    }
}
