//! Joins identities and the policy.

use std::sync::Arc;

use http::HeaderMap;

use crate::{
    access::{
        caller::Caller,
        identity::{AuthenticationError, Authenticator, Connection, Identity},
        policy::ReloadingPolicy,
    },
    tls::Peer,
};

/// Authenticates callers, and finds their permissions.
pub struct AccessControl(Mode);

enum Mode {
    /// `auth.mode = none`.
    Open(Caller),
    Restricted {
        authenticator: Arc<Authenticator>,
        policy: Arc<ReloadingPolicy>,
    },
}

/// A call whose caller is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The call has no credential that is accepted.
    #[error(transparent)]
    Unauthenticated(#[from] AuthenticationError),
    /// The policy has no caller with the identity of the call.
    #[error("the policy of the gateway has no caller for this identity")]
    UnknownCaller(Arc<Identity>),
}

impl AccessControl {
    /// Joins the two. Without them, every client may do everything but operate.
    pub fn new(
        authenticator: Option<Arc<Authenticator>>,
        policy: Option<Arc<ReloadingPolicy>>,
    ) -> Arc<Self> {
        Arc::new(Self(match authenticator.zip(policy) {
            Some((authenticator, policy)) => Mode::Restricted { authenticator, policy },
            None => Mode::Open(Caller::anonymous()),
        }))
    }

    /// Identifies the caller of a call. Waits only for a token with an unknown key.
    ///
    /// # Errors
    ///
    /// The call has no accepted credential, or the policy does not know the caller.
    pub async fn identify(&self, headers: &HeaderMap, peer: &Peer) -> Result<Caller, AccessError> {
        let (authenticator, policy) = match &self.0 {
            Mode::Open(anonymous) => return Ok(anonymous.clone()),
            Mode::Restricted { authenticator, policy } => (authenticator, policy),
        };
        let identity = authenticator.authenticate(headers, connection(peer)).await?;
        let caller = Caller::find(&identity, &policy.current());
        caller.ok_or(AccessError::UnknownCaller(identity))
    }

    /// Identifies the caller of a call again, with the credentials and the policy that are in force now. Counts a
    /// credential that is no longer accepted.
    ///
    /// # Errors
    ///
    /// The credential is no longer accepted, or the policy does not know the caller any more.
    pub fn identify_again(&self, caller: &Caller, peer: &Peer) -> Result<Caller, AccessError> {
        let checked = self.recheck(caller, peer);
        if let (Mode::Restricted { authenticator, .. }, Err(AccessError::Unauthenticated(error))) =
            (&self.0, &checked)
        {
            authenticator.count_failure(error);
        }
        checked
    }

    /// Identifies the caller of a stream again, with the credentials and the policy that are in force now. Counts
    /// nothing.
    ///
    /// # Errors
    ///
    /// The credential is no longer accepted, or the policy does not know the caller any more.
    pub fn recheck(&self, caller: &Caller, peer: &Peer) -> Result<Caller, AccessError> {
        let (Mode::Restricted { authenticator, policy }, Some(identity)) =
            (&self.0, caller.identity())
        else {
            return Ok(caller.clone());
        };
        authenticator.recheck(identity, connection(peer))?;
        let policy = policy.current();
        if caller.is_found_in(&policy) {
            return Ok(caller.clone());
        }
        let caller = Caller::find(identity, &policy);
        caller.ok_or_else(|| AccessError::UnknownCaller(Arc::clone(identity)))
    }

    /// Keeps the keys of the issuer of tokens up to date. Never returns.
    pub async fn run(&self) {
        match &self.0 {
            Mode::Open(_) => std::future::pending().await,
            Mode::Restricted { authenticator, .. } => authenticator.run().await,
        }
    }

    /// Calls `changed` after each change of the policy, or of the keys of the issuer. Never returns.
    pub async fn watch(&self, changed: impl Fn()) {
        let Mode::Restricted { authenticator, policy } = &self.0 else {
            return std::future::pending().await;
        };
        let (mut keys, mut policy) = (authenticator.subscribe(), policy.subscribe());
        loop {
            let keys_changed = async {
                match &mut keys {
                    Some(keys) => keys.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = keys_changed => {}
                // `self` holds the sender.
                _ = policy.changed() => {}
            }
            changed();
        }
    }
}

fn connection(peer: &Peer) -> Connection<'_> {
    let certificates = peer.certificates.as_ref();
    Connection {
        address: peer.address.ip(),
        certificate: certificates.and_then(|certificates| certificates.chain().first()),
        is_certificate_trusted: certificates.is_some_and(|certificates| certificates.is_trusted()),
    }
}
