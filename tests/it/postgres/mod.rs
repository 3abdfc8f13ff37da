//! Many replicas with one journal in PostgreSQL.
//!
//! The replicas are real gateway processes. They share a database, each through a proxy of its own, and one fake
//! ThingSpace. To repeat each race as often as issue 12 demands, and to open as many idle watches:
//!
//! ```text
//! TSGW_POSTGRES_RACES=500 TSGW_POSTGRES_WATCHES=10000 cargo test --locked --test it postgres -- --nocapture
//! ```

pub mod cluster;
mod commits_in_doubt;
mod idle;
mod keys;
mod leases;
mod load;
mod outages;
mod starts;
mod stopped;
mod watches;
