//! Values in the binary format of PostgreSQL.

use std::{error::Error, fmt};

use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type as PostgresType, to_sql_checked};

use crate::journal::sql::{Batch, Column, Result, Row, SqlError, Type, Value};

/// An encoded parameter.
pub(super) struct Parameter(Option<Bytes>);

type EncodeError = Box<dyn Error + Sync + Send>;

/// Encodes the values of a statement that runs once, with the types that it was prepared with.
pub(super) fn encode_values(
    values: &[Value<'_>],
    types: &[PostgresType],
) -> Result<Vec<Parameter>> {
    let mut encoded = BytesMut::new();
    values
        .iter()
        .zip(types)
        .map(|(value, expected)| {
            let is_null =
                encode_value(value, expected, &mut encoded).map_err(SqlError::Database)?;
            Ok(Parameter(matches!(is_null, IsNull::No).then(|| encoded.split().freeze())))
        })
        .collect()
}

fn encode_value(
    value: &Value<'_>,
    expected: &PostgresType,
    out: &mut BytesMut,
) -> Result<IsNull, EncodeError> {
    match value {
        Value::Null => Ok(IsNull::Yes),
        Value::Int(value) => match *expected {
            PostgresType::BOOL => (*value != 0).to_sql(expected, out),
            PostgresType::INT4 => i32::try_from(*value)?.to_sql(expected, out),
            PostgresType::INT8 => value.to_sql(expected, out),
            _ => Err(format!("a number as a parameter of type {expected}").into()),
        },
        Value::Text(value) => value.as_ref().to_sql(expected, out),
        Value::Bytes(value) => value.as_ref().to_sql(expected, out),
    }
}

/// Encodes the rows of a batch: an array for each parameter.
pub(super) fn encode_batch(batch: &Batch<'_>, types: &[Type]) -> Result<Vec<Parameter>> {
    let encode = |(column, param): (usize, &Type)| {
        let values = batch.rows().filter_map(|row| row.get(column));
        encode_array(values, *param).map(|array| Parameter(Some(array)))
    };
    types.iter().enumerate().map(encode).collect()
}

/// Encodes a one-dimensional array: its header, and each value with its length.
fn encode_array<'v>(values: impl Iterator<Item = &'v Value<'v>>, param: Type) -> Result<Bytes> {
    let element = match param {
        Type::Int => PostgresType::INT8,
        Type::Text => PostgresType::TEXT,
        Type::Bytes => PostgresType::BYTEA,
    };
    let mut out = BytesMut::new();
    out.put_i32(1);
    let has_null = out.len();
    out.put_i32(0);
    out.put_u32(element.oid());
    let length = out.len();
    out.put_i32(0);
    out.put_i32(1);
    let (mut count, mut nulls) = (0, 0);
    for value in values {
        count += 1;
        match (value, param) {
            (Value::Null, _) => {
                nulls = 1;
                out.put_i32(-1);
            }
            (Value::Int(value), Type::Int) => {
                out.put_i32(8);
                out.put_i64(*value);
            }
            (Value::Text(value), Type::Text) => put_bytes(value.as_bytes(), &mut out)?,
            (Value::Bytes(value), Type::Bytes) => put_bytes(value, &mut out)?,
            _ => return Err(SqlError::column()),
        }
    }
    put_at(&mut out, has_null, nulls);
    put_at(&mut out, length, count);
    Ok(out.freeze())
}

fn put_bytes(bytes: &[u8], out: &mut BytesMut) -> Result<()> {
    out.put_i32(i32::try_from(bytes.len()).map_err(|_| SqlError::column())?);
    out.put_slice(bytes);
    Ok(())
}

fn put_at(out: &mut BytesMut, offset: usize, value: i32) {
    if let Some(field) = out.get_mut(offset..offset + 4) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

impl ToSql for Parameter {
    fn to_sql(&self, _: &PostgresType, out: &mut BytesMut) -> Result<IsNull, EncodeError> {
        Ok(match &self.0 {
            Some(encoded) => {
                out.put_slice(encoded);
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn accepts(_: &PostgresType) -> bool {
        true
    }

    to_sql_checked!();
}

/// The client logs parameters at level DEBUG. They have device identifiers and names.
impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A row without its first columns.
pub(super) struct PostgresRow<'r> {
    pub(super) row: &'r tokio_postgres::Row,
    pub(super) skipped: usize,
}

impl Row for PostgresRow<'_> {
    fn column(&self, index: usize) -> Result<Column<'_>> {
        let index = index + self.skipped;
        let column = self.row.columns().get(index).ok_or_else(SqlError::column)?;
        let row = self.row;
        Ok(match *column.type_() {
            PostgresType::INT8 => int(row.try_get::<_, Option<i64>>(index)?),
            PostgresType::INT4 => int(row.try_get::<_, Option<i32>>(index)?),
            PostgresType::BOOL => int(row.try_get::<_, Option<bool>>(index)?),
            PostgresType::BYTEA => {
                row.try_get::<_, Option<&[u8]>>(index)?.map_or(Column::Null, Column::Bytes)
            }
            _ => row.try_get::<_, Option<&str>>(index)?.map_or(Column::Null, Column::Text),
        })
    }
}

fn int(value: Option<impl Into<i64>>) -> Column<'static> {
    value.map_or(Column::Null, |value| Column::Int(value.into()))
}
