//! Access control of calls: identifies the caller, and checks the permissions that a method needs.
//!
//! A call is checked twice: before its message is read, that the caller has the permission on any account, and in
//! its handler, that the caller has it on the account of the call.

use std::{fmt, net::Ipv4Addr, sync::Arc};

use axum::extract::Request;
use tokio::time::Instant;
use tonic::Extensions;

use crate::{
    access::{AccessControl, Caller, policy::Permission},
    audit::AuditLog,
    domain::{clock::Clock, newtypes::AccountName},
    grpc::{
        admission::method_class::MethodClass,
        call_audit::CallAudit,
        error::{ApiError, reason::ErrorReason},
    },
    telemetry::names,
    tls::Peer,
    watch::StreamAccess,
};

/// The access that a method requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MethodAccess {
    /// Every client may call it.
    Public,
    /// Every caller of the policy may call it.
    KnownCaller,
    /// The caller needs this permission.
    Needs(Permission),
}

/// The access of a caller to a stream.
pub(super) struct WatchAccess {
    control: Arc<AccessControl>,
    clock: Arc<dyn Clock>,
    caller: Caller,
    peer: Peer,
    /// `None` for results that belong to no account.
    account: Option<AccountName>,
}

const OPERATOR_SERVICE: &str = "thingspace.gateway.v1.OperatorService/";
const GET_SERVER_INFO: &str = "thingspace.gateway.v1.GatewayService/GetServerInfo";
const HEALTH_SERVICE: &str = "grpc.health.v1.Health/";

impl MethodAccess {
    /// Returns the access that a served method requires.
    fn of(method: &str, class: MethodClass) -> Self {
        match class {
            _ if method.starts_with(HEALTH_SERVICE) => Self::Public,
            _ if method.starts_with(OPERATOR_SERVICE) => Self::Needs(Permission::Operate),
            _ if method == GET_SERVER_INFO => Self::KnownCaller,
            MethodClass::Change { .. } => Self::Needs(Permission::Change),
            MethodClass::Watch => Self::Needs(Permission::Watch),
            MethodClass::Read | MethodClass::Health => Self::Needs(Permission::List),
            MethodClass::Reflection => Self::KnownCaller,
        }
    }
}

/// Identifies the caller of a call, and checks that it has the permission of the method on some account. The caller
/// becomes an extension of the request.
pub(super) async fn identify(
    control: &AccessControl,
    method: &str,
    class: MethodClass,
    request: &mut Request,
) -> Result<(), ApiError> {
    let access = MethodAccess::of(method, class);
    if access == MethodAccess::Public {
        return Ok(());
    }
    let peer = peer(request.extensions());
    let caller = control.identify(request.headers(), &peer).await?;
    CallAudit::of(request.extensions()).set_caller(&caller);
    if let MethodAccess::Needs(permission) = access {
        caller.require_any(permission)?;
    }
    request.extensions_mut().insert(Arc::clone(caller.policy()));
    request.extensions_mut().insert(caller);
    Ok(())
}

/// Returns the caller of a call, and its audit. Called by every handler, first.
pub(super) fn caller(extensions: &Extensions) -> Result<(Caller, CallAudit), ApiError> {
    let caller: Option<&Caller> = extensions.get();
    let caller = caller.ok_or_else(|| ApiError::new(ErrorReason::Internal, "internal error"))?;
    let audit = CallAudit::of(extensions);
    audit.set_caller(caller);
    audit.enter_handler();
    Ok((caller.clone(), audit))
}

/// Starts the audit of a call. It becomes an extension of the request. Health checks and reflection have none.
pub(super) fn start_audit(
    log: &AuditLog,
    method: &'static str,
    class: MethodClass,
    request: &mut Request,
) -> CallAudit {
    let is_audited =
        class != MethodClass::Reflection && MethodAccess::of(method, class) != MethodAccess::Public;
    if is_audited { insert_audit(log, method, request) } else { CallAudit::default() }
}

/// Starts the audit of a call of a method that does not exist.
pub(super) fn start_audit_of_unknown(log: &AuditLog, request: &mut Request) -> CallAudit {
    insert_audit(log, names::OTHER, request)
}

fn insert_audit(log: &AuditLog, method: &'static str, request: &mut Request) -> CallAudit {
    let peer: Option<&Peer> = request.extensions().get();
    let audit = CallAudit::new(log, method, peer.map(|peer| peer.address.ip()));
    request.extensions_mut().insert(audit.clone());
    audit
}

/// Returns the client of the connection of a call.
fn peer(extensions: &http::Extensions) -> Peer {
    let unknown = || Peer { address: (Ipv4Addr::UNSPECIFIED, 0).into(), certificates: None };
    extensions.get().cloned().unwrap_or_else(unknown)
}

impl WatchAccess {
    /// Creates the access of a caller that may watch the account at present.
    pub(super) fn new(
        control: Arc<AccessControl>,
        clock: Arc<dyn Clock>,
        caller: Caller,
        extensions: &Extensions,
        account: Option<AccountName>,
    ) -> Arc<Self> {
        Arc::new(Self { control, clock, caller, peer: peer(extensions), account })
    }
}

impl StreamAccess for WatchAccess {
    fn is_allowed(&self) -> bool {
        let caller = self.control.recheck(&self.caller, &self.peer);
        caller.is_some_and(|caller| caller.sees(Permission::Watch, self.account.as_ref()))
    }

    fn expires_at(&self) -> Option<Instant> {
        let expires_at = self.caller.identity()?.expires_at()?;
        Instant::now().checked_add(expires_at.since(self.clock.now()))
    }
}

impl fmt::Debug for WatchAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchAccess").field("caller", &self.caller.name()).finish_non_exhaustive()
    }
}
