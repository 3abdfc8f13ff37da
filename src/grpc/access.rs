//! Access control of calls: identifies the caller, and checks the permissions that a method needs.
//!
//! A call is checked twice: before its message is read, that the caller has the permission on any account, and in
//! its handler, with the policy and the credentials of that time, that the caller has it on the account of the call.

use std::{fmt, net::Ipv4Addr, sync::Arc};

use axum::extract::Request;
use tokio::time::Instant;
use tonic::Extensions;

use crate::{
    access::{AccessControl, Caller, policy::Permission},
    audit::AuditLog,
    domain::{clock::Clock, newtypes::AccountName},
    grpc::{
        admission::method_class::{Method, MethodAccess, MethodClass},
        call_audit::CallAudit,
        error::{ApiError, Executed, reason::ErrorReason},
    },
    telemetry::names,
    tls::Peer,
    watch::StreamAccess,
};

/// The access of a caller to a stream.
pub(super) struct WatchAccess {
    control: Arc<AccessControl>,
    clock: Arc<dyn Clock>,
    caller: Caller,
    peer: Peer,
    /// `None` for results that belong to no account.
    account: Option<AccountName>,
}

/// Identifies the caller of a call again, once its message has arrived. Extension of its request.
#[derive(Clone)]
struct SecondCheck {
    control: Arc<AccessControl>,
    access: MethodAccess,
}

/// Identifies the caller of a call, and checks that it has the permission of the method on some account. The caller
/// becomes an extension of the request.
pub(super) async fn identify(
    control: &Arc<AccessControl>,
    method: Method,
    request: &mut Request,
) -> Result<(), ApiError> {
    let access = method.access;
    if access == MethodAccess::Public {
        return Ok(());
    }
    let peer = peer(request.extensions());
    let caller = control.identify(request.headers(), &peer).await?;
    CallAudit::of(request.extensions()).set_caller(&caller);
    require(access, &caller)?;
    let extensions = request.extensions_mut();
    extensions.insert(Arc::clone(caller.policy()));
    extensions.insert(caller);
    extensions.insert(SecondCheck { control: Arc::clone(control), access });
    Ok(())
}

/// Returns the caller of a call, and its audit. Called by every handler, first.
///
/// The message of a call may take two minutes to arrive. So the caller is identified again, with the credentials and
/// the policy that are in force now.
///
/// # Errors
///
/// The credential is no longer accepted, or the policy no longer permits the method. `executed` is UNKNOWN for a change:
/// an earlier call with its key may have been executed.
pub(super) fn caller(extensions: &Extensions) -> Result<(Caller, CallAudit), ApiError> {
    let caller: Option<&Caller> = extensions.get();
    let caller = caller.ok_or_else(|| ApiError::new(ErrorReason::Internal, "internal error"))?;
    // There is no such check for the admin socket.
    let caller = match extensions.get() {
        Some(check) => identify_again(check, caller, extensions)?,
        None => caller.clone(),
    };
    let audit = CallAudit::of(extensions);
    audit.set_caller(&caller);
    audit.enter_handler();
    Ok((caller, audit))
}

fn identify_again(
    SecondCheck { control, access }: &SecondCheck,
    caller: &Caller,
    extensions: &Extensions,
) -> Result<Caller, ApiError> {
    let checked = control.identify_again(caller, &peer(extensions)).map_err(ApiError::from);
    let checked = checked.and_then(|caller| require(*access, &caller).map(|()| caller));
    let is_change = *access == MethodAccess::Needs(Permission::Change);
    checked.map_err(|error| error.with_executed(is_change.then_some(Executed::Unknown)))
}

/// Checks that a caller has the permission of a method on some account.
fn require(access: MethodAccess, caller: &Caller) -> Result<(), ApiError> {
    match access {
        MethodAccess::Public | MethodAccess::KnownCaller => Ok(()),
        MethodAccess::Needs(permission) => Ok(caller.require_any(permission)?),
    }
}

/// Starts the audit of a call. It becomes an extension of the request. Health checks and reflection have none.
pub(super) fn start_audit(log: &AuditLog, method: Method, request: &mut Request) -> CallAudit {
    let is_audited =
        method.class != MethodClass::Reflection && method.access != MethodAccess::Public;
    if is_audited { insert_audit(log, method.name, request) } else { CallAudit::default() }
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
        caller.is_ok_and(|caller| caller.sees(Permission::Watch, self.account.as_ref()))
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
