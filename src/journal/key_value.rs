//! Small values by name.

use async_trait::async_trait;

use crate::journal::error::JournalError;

/// Stores small values by name.
#[async_trait]
pub trait KeyValueStore: Send + Sync {
    /// Returns a value; empty if there is none.
    async fn get_kv(&self, name: String) -> Result<Vec<u8>, JournalError>;

    /// Sets a value. An empty value deletes it.
    async fn put_kv(&self, name: String, value: Vec<u8>) -> Result<(), JournalError>;
}
