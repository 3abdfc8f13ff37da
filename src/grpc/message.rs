//! Parses and validates the messages of calls: everything that needs neither the caller nor the journal.

use prost::Message;
use tonic::{Code, Status};

use crate::{
    domain::{
        newtypes::AccountName,
        violation::{FieldReason, Violations},
    },
    grpc::{
        error::{ApiError, reason::ErrorReason},
        selector::SelectorFields,
    },
    journal::{ChangeSelector, WatchTarget},
    operations::{
        RpcOperation, ValidationRules, esim_plan::EsimPlanChange,
        five_g_bi_plan::FiveGBiPlanChange, service_plan::ServicePlanChange,
    },
    proto,
    watch::{ResumeToken, Until, WatchOpenError},
};

/// A message that is validated before its call reads anything.
pub(super) trait RequestMessage: Message + Default {
    /// The valid content.
    type Parsed;

    /// Parses the fields.
    fn parse(self) -> Result<Self::Parsed, ApiError>;
}

/// Decodes and validates the message of a method such as `thingspace.gateway.v1.GatewayService/GetChange`, like a call.
/// Returns the decoded message, encoded again. `None` if there is no such method.
///
/// # Errors
///
/// The error of the call: INVALID_ARGUMENT if a field is invalid, INTERNAL if the message cannot be decoded.
pub fn validate_message(
    method: &str,
    message: &[u8],
    rules: ValidationRules,
) -> Option<Result<Vec<u8>, Status>> {
    let (service, method) = method.strip_prefix("thingspace.gateway.v1.")?.split_once('/')?;
    Some(match (service, method) {
        ("GatewayService", "ChangeEsimPlan") => change::<EsimPlanChange>(message, rules),
        ("GatewayService", "ChangeFiveGBiPlan") => change::<FiveGBiPlanChange>(message, rules),
        ("GatewayService", "ChangeServicePlan") => change::<ServicePlanChange>(message, rules),
        ("GatewayService", "GetChange") => parsed::<proto::GetChangeRequest>(message),
        ("GatewayService", "ListChanges") => parsed::<proto::ListChangesRequest>(message),
        ("GatewayService", "ListDevices") => parsed::<proto::ListDevicesRequest>(message),
        ("GatewayService", "ListDeviceResults") => {
            parsed::<proto::ListDeviceResultsRequest>(message)
        }
        ("GatewayService", "ListServicePlans") => parsed::<proto::ListServicePlansRequest>(message),
        ("GatewayService", "GetServerInfo") => decoded::<proto::GetServerInfoRequest>(message),
        ("GatewayService", "WatchRequest") => parsed::<proto::WatchRequestRequest>(message),
        ("GatewayService", "WatchAccount") => parsed::<proto::WatchAccountRequest>(message),
        ("OperatorService", "GetStatus") => decoded::<proto::GetStatusRequest>(message),
        ("OperatorService", "PauseChanges") => parsed::<proto::PauseChangesRequest>(message),
        ("OperatorService", "ResumeChanges") => parsed::<proto::ResumeChangesRequest>(message),
        ("OperatorService", "ResetLockout") => decoded::<proto::ResetLockoutRequest>(message),
        ("OperatorService", "SetLogFilter") => parsed::<proto::SetLogFilterRequest>(message),
        ("OperatorService", "ListQuarantinedCallbacks") => {
            parsed::<proto::ListQuarantinedCallbacksRequest>(message)
        }
        ("OperatorService", "GetQuarantinedCallback") => {
            decoded::<proto::GetQuarantinedCallbackRequest>(message)
        }
        ("OperatorService", "ReplayQuarantinedCallbacks") => {
            parsed::<proto::ReplayQuarantinedCallbacksRequest>(message)
        }
        ("OperatorService", "DropQuarantinedCallback") => {
            decoded::<proto::DropQuarantinedCallbackRequest>(message)
        }
        _ => return None,
    })
}

fn decode<M: Message + Default>(message: &[u8]) -> Result<(M, Vec<u8>), Status> {
    let decoded = M::decode(message);
    // The code that tonic returns.
    let decoded = decoded.map_err(|error| Status::new(Code::Internal, error.to_string()))?;
    let encoded = decoded.encode_to_vec();
    Ok((decoded, encoded))
}

fn decoded<M: Message + Default>(message: &[u8]) -> Result<Vec<u8>, Status> {
    decode::<M>(message).map(|(_, encoded)| encoded)
}

fn parsed<M: RequestMessage>(message: &[u8]) -> Result<Vec<u8>, Status> {
    let (decoded, encoded) = decode::<M>(message)?;
    decoded.parse()?;
    Ok(encoded)
}

fn change<O: RpcOperation<Request: Message + Default>>(
    message: &[u8],
    rules: ValidationRules,
) -> Result<Vec<u8>, Status> {
    let (decoded, encoded) = decode::<O::Request>(message)?;
    O::validate(decoded, rules).map_err(ApiError::invalid_fields)?;
    Ok(encoded)
}

/// The selection of a watch of a change or a request.
pub(super) struct WatchFields {
    /// `None` if only the token names the target.
    pub(super) selector: Option<ChangeSelector>,
    pub(super) token: Option<ResumeToken>,
    pub(super) until: Until,
}

/// The selection of a watch of an account.
pub(super) struct AccountWatchFields {
    pub(super) account: AccountName,
    pub(super) token: Option<ResumeToken>,
    pub(super) until: Until,
}

impl RequestMessage for proto::WatchRequestRequest {
    type Parsed = WatchFields;

    fn parse(self) -> Result<WatchFields, ApiError> {
        let until = match proto::Until::try_from(self.until) {
            Ok(proto::Until::Unspecified | proto::Until::Settled) => Until::Settled,
            Ok(proto::Until::Finished) => Until::Finished,
            Ok(proto::Until::CaughtUp) => Until::CaughtUp,
            Err(_) => {
                let description = "is not a value of this enum";
                return Err(ApiError::invalid_field("until", FieldReason::Value, description));
            }
        };
        let token = parse_token(&self.resume_token)?;
        if token.as_ref().is_some_and(|token| matches!(token.target, WatchTarget::Account(_))) {
            return Err(WatchOpenError::TargetMismatch.into());
        }
        let selector = SelectorFields {
            change_id: &self.change_id,
            request_id: &self.request_id,
            account_and_key: Some((&self.account_name, &self.idempotency_key)),
        };
        Ok(WatchFields { selector: selector.parse()?, token, until })
    }
}

impl RequestMessage for proto::WatchAccountRequest {
    type Parsed = AccountWatchFields;

    fn parse(self) -> Result<AccountWatchFields, ApiError> {
        let mut violations = Violations::default();
        let account = violations.ok_or_add("account_name", AccountName::parse(self.account_name));
        let until = match proto::Until::try_from(self.until) {
            Ok(proto::Until::CaughtUp) => Until::CaughtUp,
            Ok(proto::Until::Unspecified) => Until::Finished,
            Ok(proto::Until::Settled | proto::Until::Finished) | Err(_) => {
                let description = "must be UNTIL_CAUGHT_UP or not set: an account never ends";
                violations.add("until", FieldReason::Value, description);
                Until::Finished
            }
        };
        let account = violations.into_result(account).map_err(ApiError::invalid_fields)?;
        Ok(AccountWatchFields { account, token: parse_token(&self.resume_token)?, until })
    }
}

impl RequestMessage for proto::GetChangeRequest {
    type Parsed = ChangeSelector;

    fn parse(self) -> Result<ChangeSelector, ApiError> {
        let selector = SelectorFields {
            change_id: &self.change_id,
            request_id: &self.request_id,
            account_and_key: Some((&self.account_name, &self.idempotency_key)),
        };
        selector.parse_required()
    }
}

impl RequestMessage for proto::ListServicePlansRequest {
    type Parsed = AccountName;

    fn parse(self) -> Result<AccountName, ApiError> {
        let mut violations = Violations::default();
        let account = violations.ok_or_add("account_name", AccountName::parse(self.account_name));
        violations.into_result(account).map_err(ApiError::invalid_fields)
    }
}

/// Parses a resume token. `None` if the field is empty.
fn parse_token(text: &str) -> Result<Option<ResumeToken>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let token = ResumeToken::decode(text);
    token.map(Some).map_err(|error| {
        ApiError::new(ErrorReason::ResumeTokenInvalid, format!("resume_token: {error}"))
    })
}
