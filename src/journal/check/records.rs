//! Checks that the records of the tables can be decoded, beside those of events and changes.

use prost::Message as _;

use crate::{
    domain::{
        clock::Timestamp,
        newtypes::{AccountName, CallbackService},
    },
    journal::{
        check::CheckReport,
        record::{DIGEST_LENGTH, KEY_BYTES, decode_block},
        sql::{Result, Row},
        transfer::{Source, TransferError},
    },
    proto,
};

/// Records of one kind.
pub(super) struct Records {
    /// The name of one of them, before its number.
    pub(super) name: &'static str,
    /// Returns their number and their columns.
    sql: &'static str,
    /// Returns false, or fails, for a record that cannot be decoded.
    is_valid: fn(&dyn Row) -> Result<bool>,
}

pub(super) const RECORDS: &[Records] = &[
    Records {
        name: "the devices of the change",
        sql: "SELECT id, devices, device_count FROM change WHERE devices IS NOT NULL AND trimmed = 0",
        is_valid: |row| {
            let devices = decode_block(row.get(1)?);
            Ok(devices.is_ok_and(|devices| {
                Ok(devices.len()) == usize::try_from(row.get::<i64>(2).unwrap_or(-1))
            }))
        },
    },
    Records {
        name: "the block of devices",
        sql: "SELECT id, devices FROM device_block",
        is_valid: |row| Ok(decode_block(row.get(1)?).is_ok()),
    },
    Records {
        name: "the part of a device index",
        sql: "SELECT id, keys FROM key_part",
        is_valid: |row| Ok(row.get::<&[u8]>(1)?.len().is_multiple_of(KEY_BYTES)),
    },
    Records {
        name: "the link of the result",
        sql: "SELECT position, link FROM event WHERE link IS NOT NULL",
        is_valid: |row| Ok(proto::DeviceResult::decode(row.get::<&[u8]>(1)?).is_ok()),
    },
    Records {
        name: "the body of the callback",
        sql: "SELECT position, raw_json FROM callback_body",
        is_valid: |row| Ok(std::str::from_utf8(row.get(1)?).is_ok()),
    },
    Records {
        name: "the digests of the device",
        sql: "SELECT id, digests FROM device_state",
        is_valid: |row| Ok(row.get::<&[u8]>(1)?.len().is_multiple_of(DIGEST_LENGTH)),
    },
    Records {
        name: "the digest of the request",
        sql: "SELECT request, digest FROM result_digest",
        is_valid: |row| Ok(row.get::<&[u8]>(1)?.len() == DIGEST_LENGTH),
    },
    Records {
        name: "the callback to forward",
        sql: "SELECT position, queue_time, due_time, attempts, service FROM forward_queue",
        is_valid: |row| {
            let (_, _): (Timestamp, Timestamp) = (row.get(1)?, row.get(2)?);
            let (_, _): (u32, Option<CallbackService>) = (row.get(3)?, row.get(4)?);
            Ok(true)
        },
    },
    Records {
        name: "the quarantined callback",
        sql: "SELECT id, receive_time, service, account, reason FROM quarantine",
        is_valid: |row| {
            let (_, _): (Timestamp, Option<CallbackService>) = (row.get(1)?, row.get(2)?);
            let (_, _): (Option<AccountName>, String) = (row.get(3)?, row.get(4)?);
            Ok(true)
        },
    },
];

impl CheckReport {
    /// Checks that the records of a kind can be decoded.
    pub(super) fn check_records(
        &mut self,
        source: &dyn Source,
        Records { name, sql, is_valid }: &Records,
    ) -> Result<(), TransferError> {
        let mut invalid = 0;
        source.stream(sql, &mut |row| {
            // A key of another type has no number.
            let number = row.get::<i64>(0);
            if !is_valid(row).unwrap_or(false) || number.is_err() {
                let number = number.map_or_else(|_| String::new(), |number| format!(" {number}"));
                self.add_row(&mut invalid, || format!("{name}{number} cannot be decoded"));
            }
            Ok(())
        })?;
        self.add_rest(invalid, name);
        Ok(())
    }
}
