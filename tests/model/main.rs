//! A model of the protocol of changes. Its tests explore every order of events.
//!
//! **Modelled.** An atomic and durable journal with claims and state transitions. One or two replicas that
//! can crash between any two transitions and start again. Leases that expire at any time. A replica that is
//! stopped between any two steps while the other one settles its change, and continues later. Clients that
//! repeat calls at any replica and at any time, and a second change of the same devices. ThingSpace executes,
//! refuses or loses a POST, sooner or later than any timeout. Its response can be lost. Its callbacks arrive
//! before the response, much later, or never. Foreign requests for some of the same devices. Lookups that
//! fail, and lists that lack devices. Deadlines that pass at any time. A clock that is set back.
//!
//! **Code of the gateway.** `ChangeState::after` and its predicates decide state transitions, `find_device`
//! matches results, and `domain::attribution` selects the change of a request. The model writes only the
//! order of the steps in `dispatch/` and the journal's claim again: they are async code and SQL.
//!
//! **Two replicas** share a journal on PostgreSQL. Each claim is an attempt to send the change, and the journal
//! accepts a step of a sender only from the last attempt. A change is settled only if the lease of its claim has expired
//! on the database's clock. The replica checks this lease on its own clock before the POST. This check can fail at
//! any time, and succeeds only while the database has the lease: clocks advance at about the same rate. A replica
//! that has passed the check can be stopped again before the POST, until `changes.close_after` has passed.
//!
//! **Assumptions of attribution** are in [`protocol::CallbackTiming`] and [`protocol::Lookups`]. The tests
//! of the limits show what happens without them.
//!
//! **Not modelled.** Other content under the same key, retention, throttling and log-in before DISPATCHED,
//! the outcomes of results and their precedence, the device list of 5G, other accounts and services, a list
//! with devices of another request, and a journal that lags behind a replica. A restored journal lacks events of the protocol,
//! so no rule of the protocol protects its changes: it sends nothing until an operator resumes changes, and tests of the
//! gateway check that. Repeated callbacks change
//! nothing that is stored, so the model has no event for them.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by a panic"
)]

mod actions;
mod effects;
mod flaws;
mod holds;
mod limits;
mod properties;
mod protocol;
mod rules;
mod scenarios;
