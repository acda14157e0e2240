//! Arrow columns in PostgreSQL's binary format, for COPY and for array parameters.

use std::error::Error;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;
use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

/// Header of binary COPY data: signature, no flags, no header extension.
pub(super) const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Trailer of binary COPY data.
pub(super) const COPY_TRAILER: &[u8] = &(-1_i16).to_be_bytes();
/// Start of PostgreSQL's time scale, the year 2000, in Unix microseconds.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A gold column. As a parameter it is the array of its values.
#[derive(Debug)]
pub(super) enum Column<'a> {
    Text(&'a StringArray),
    Time(&'a TimestampMicrosecondArray),
    Float(&'a Float64Array),
    Int(&'a Int32Array),
}

/// A `timestamptz` in microseconds UTC.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Micros(pub(crate) i64);

/// Returns the columns of a gold batch that are in PostgreSQL: all but the last, the date.
pub(super) fn columns(batch: &RecordBatch) -> Vec<Column<'_>> {
    batch.columns()[..batch.num_columns() - 1].iter().map(Column::of).collect()
}

/// Writes a row as COPY data.
pub(super) fn write_row(columns: &[Column<'_>], row: usize, out: &mut BytesMut) {
    out.put_i16(i16::try_from(columns.len()).expect("gold has few columns"));
    for column in columns {
        column.write(row, out);
    }
}

impl<'a> Column<'a> {
    fn of(array: &'a ArrayRef) -> Self {
        match array.data_type() {
            DataType::Utf8 => Column::Text(array.as_string()),
            DataType::Timestamp(..) => Column::Time(array.as_primitive()),
            DataType::Float64 => Column::Float(array.as_primitive()),
            DataType::Int32 => Column::Int(array.as_primitive()),
            other => unreachable!("gold has no column of type {other}"),
        }
    }

    /// Returns the type of the array as a parameter.
    pub(super) fn array_type(&self) -> Type {
        match self {
            Column::Text(_) => Type::TEXT_ARRAY,
            Column::Time(_) => Type::TIMESTAMPTZ_ARRAY,
            Column::Float(_) => Type::FLOAT8_ARRAY,
            Column::Int(_) => Type::INT4_ARRAY,
        }
    }

    fn array(&self) -> &dyn Array {
        match self {
            Column::Text(array) => *array,
            Column::Time(array) => *array,
            Column::Float(array) => *array,
            Column::Int(array) => *array,
        }
    }

    /// Writes a value after its length. A COPY field and an array element have the same form.
    fn write(&self, row: usize, out: &mut BytesMut) {
        if self.array().is_null(row) {
            out.put_i32(-1);
            return;
        }
        match self {
            Column::Text(array) => {
                let text = array.value(row).as_bytes();
                out.put_i32(i32::try_from(text.len()).expect("a symbol is short"));
                out.put_slice(text);
            }
            Column::Time(array) => {
                out.put_i32(8);
                out.put_i64(array.value(row) - EPOCH_MICROS);
            }
            Column::Float(array) => {
                out.put_i32(8);
                out.put_f64(array.value(row));
            }
            Column::Int(array) => {
                out.put_i32(4);
                out.put_i32(array.value(row));
            }
        }
    }
}

impl ToSql for Column<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let Kind::Array(element) = ty.kind() else { return Err(format!("{ty} is not an array").into()) };
        let length = self.array().len();
        // One dimension, a flag for nulls, the element type, the length, and the index of the first element.
        out.put_i32(1);
        out.put_i32(i32::from(self.array().null_count() > 0));
        out.put_u32(element.oid());
        out.put_i32(i32::try_from(length)?);
        out.put_i32(1);
        (0..length).for_each(|row| self.write(row, out));
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::TEXT_ARRAY | Type::TIMESTAMPTZ_ARRAY | Type::FLOAT8_ARRAY | Type::INT4_ARRAY)
    }

    to_sql_checked!();
}

impl ToSql for Micros {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_i64(self.0 - EPOCH_MICROS);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Micros(i64::from_be_bytes(raw.try_into()?) + EPOCH_MICROS))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}
