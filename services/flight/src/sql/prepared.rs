//! Prepared statements. A handle holds the query and its bound parameters, so the server keeps no state. A handle survives a restart, and a
//! client that disappears leaves nothing behind.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::parameters;
use crate::error::CallError;
use crate::ipc;

/// Byte that marks the query of a handle as SQL.
const SQL: u8 = b'q';
/// Byte that marks the query of a handle as a Substrait plan.
const SUBSTRAIT: u8 = b's';

/// Query of a client, before it is planned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Query {
    /// SQL text with parameters `$1`, `$2`, ….
    Sql(String),
    /// Substrait plan as protobuf.
    Substrait(Bytes),
}

/// Query with its bound parameters, if any.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prepared {
    /// The query.
    pub(crate) query: Query,
    /// One row of parameters for each execution. `None` before parameters are bound.
    pub(crate) parameters: Option<RecordBatch>,
}

impl Prepared {
    /// Prepares a query. Replaces each `?`, the parameter mark of JDBC and ADBC, with the engine's `$1`, `$2`, ….
    ///
    /// # Errors
    ///
    /// The query is not SQL.
    pub(crate) fn new(query: &str) -> Result<Prepared, CallError> {
        let tokens = Tokenizer::new(&GenericDialect {}, query).tokenize_with_location();
        let tokens =
            tokens.map_err(|error| CallError::BadRequest(format!("the query is not SQL: {error}")))?;
        let is_mark = |token: &TokenWithSpan| token.token == Token::Placeholder("?".to_owned());
        // Replaced in the text at their positions, because tokens do not keep their quotes.
        let marks = tokens.iter().filter(|token| is_mark(token));
        let mut marks = marks.map(|token| (token.span.start.line, token.span.start.column)).peekable();
        let (mut line, mut column, mut count) = (1, 1, 0);
        let mut numbered = String::with_capacity(query.len());
        for c in query.chars() {
            if marks.next_if_eq(&(line, column)).is_some() {
                count += 1;
                numbered.push('$');
                numbered.push_str(&count.to_string());
            } else {
                numbered.push(c);
            }
            (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
        }
        Ok(Query::Sql(numbered).into())
    }

    /// Writes the handle: the kind of the query, its length, the query itself, and the parameters as an Arrow stream.
    ///
    /// # Errors
    ///
    /// The parameters cannot be written.
    pub(crate) fn encode(&self) -> Result<Bytes, CallError> {
        let (kind, query) = match &self.query {
            Query::Sql(text) => (SQL, text.as_bytes()),
            Query::Substrait(plan) => (SUBSTRAIT, &plan[..]),
        };
        let length = u32::try_from(query.len());
        let length = length.map_err(|_| CallError::BadRequest("the query is too long".to_owned()))?;
        let mut bytes = [&[kind][..], &length.to_le_bytes(), query].concat();
        if let Some(parameters) = &self.parameters {
            let mut writer = StreamWriter::try_new(&mut bytes, &parameters.schema())?;
            writer.write(parameters)?;
            writer.finish()?;
        }
        Ok(bytes.into())
    }

    /// Reads a handle.
    ///
    /// # Errors
    ///
    /// The bytes are not a handle of this server.
    pub(crate) fn decode(handle: &[u8]) -> Result<Prepared, CallError> {
        let bad = || CallError::BadRequest("this is not a handle of a prepared statement".to_owned());
        let (kind, rest) = handle.split_first().ok_or_else(bad)?;
        let (length, rest) = rest.split_first_chunk().ok_or_else(bad)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| bad())?;
        let (query, parameters) = rest.split_at_checked(length).ok_or_else(bad)?;
        let query = match *kind {
            SQL => Query::Sql(std::str::from_utf8(query).map_err(|_| bad())?.to_owned()),
            SUBSTRAIT => Query::Substrait(Bytes::copy_from_slice(query)),
            _ => return Err(bad()),
        };
        let prepared = Prepared::from(query);
        if parameters.is_empty() {
            return Ok(prepared);
        }
        let parameters = ipc::first_batch(parameters).map_err(|error| {
            CallError::BadRequest(format!("the parameters in the handle of a prepared statement: {error}"))
        })?;
        prepared.bind(parameters)
    }

    /// Binds rows of parameters. They replace all earlier ones.
    ///
    /// # Errors
    ///
    /// There are too many rows, or none.
    pub(crate) fn bind(self, parameters: RecordBatch) -> Result<Prepared, CallError> {
        parameters::check(&parameters)?;
        Ok(Prepared { parameters: Some(parameters), ..self })
    }

    /// Returns the parameters of each execution, in order. Without bound parameters, returns one execution with none.
    ///
    /// # Errors
    ///
    /// The engine does not support the type of a parameter.
    pub(crate) fn executions(&self) -> Result<Vec<Vec<ScalarValue>>, CallError> {
        let Some(parameters) = &self.parameters else { return Ok(vec![Vec::new()]) };
        let row = |row| {
            let columns = parameters.columns().iter();
            columns.map(|column| Ok(ScalarValue::try_from_array(column, row)?)).collect()
        };
        (0..parameters.num_rows()).map(row).collect()
    }
}

impl From<Query> for Prepared {
    fn from(query: Query) -> Self {
        Prepared { query, parameters: None }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Query::Sql(text) => f.write_str(text),
            Query::Substrait(plan) => write!(f, "a Substrait plan of {} bytes", plan.len()),
        }
    }
}

/// Returns the schema of a plan's parameters, in order. The type is text where the query leaves it open. Times are in milliseconds: the
/// JDBC driver (18.3) writes milliseconds whatever unit the schema has, and the engine compares any unit.
///
/// # Errors
///
/// [`DataFusionError`] if the query implies two types for one parameter.
pub(crate) fn parameter_schema(plan: &LogicalPlan) -> Result<SchemaRef, DataFusionError> {
    let fields = plan.get_parameter_fields()?;
    let row_counts = row_counts(plan)?;
    let number = |name: &str| name.trim_start_matches('$').parse::<u32>().unwrap_or(u32::MAX);
    let mut names: Vec<&String> = fields.keys().collect();
    names.sort_by_key(|name| (number(name), (*name).clone()));
    let field = |name: &String| {
        let kind = match fields[name].as_ref().map(|field| field.data_type()) {
            None if row_counts.contains(name) => DataType::Int64,
            None => DataType::Utf8,
            Some(DataType::Timestamp(_, zone)) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
            Some(kind) => kind.clone(),
        };
        Field::new(name, kind, true)
    };
    Ok(Arc::new(Schema::new(names.into_iter().map(field).collect::<Vec<_>>())))
}

/// Returns the names of the parameters of `LIMIT ?` and `OFFSET ?`. The engine leaves their type open, and JDBC does not bind a number as
/// text.
fn row_counts(plan: &LogicalPlan) -> Result<HashSet<String>, DataFusionError> {
    let mut names = HashSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(_) = node {
            node.apply_expressions(|count| {
                count.apply(|part| {
                    if let Expr::Placeholder(parameter) = part {
                        names.insert(parameter.id.clone());
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
    use proptest::prelude::*;

    use super::Prepared;

    #[track_caller]
    fn check(written: &str, planned: &str) {
        assert_eq!(Prepared::new(written).unwrap().query.to_string(), planned);
    }

    #[test]
    fn question_marks_become_numbers_but_not_in_text_names_or_comments() {
        check("SELECT ? + ?", "SELECT $1 + $2");
        check("SELECT '?', \"a?\" FROM t WHERE x = ? -- ?", "SELECT '?', \"a?\" FROM t WHERE x = $1 -- ?");
        check("SELECT  $1 , '' FROM  t", "SELECT  $1 , '' FROM  t");
        check("SELECT 'it''s', 'ü?'\n, ?  WHERE\n\na = ?", "SELECT 'it''s', 'ü?'\n, $1  WHERE\n\na = $2");
    }

    #[test]
    fn a_handle_holds_the_query_and_its_parameters() {
        let prepared = Prepared::new("SELECT ?").unwrap();
        assert_eq!(Prepared::decode(&prepared.encode().unwrap()).unwrap(), prepared);
        let rows = Arc::new(Int64Array::from(vec![1, 2])) as _;
        let bound = prepared.bind(RecordBatch::try_from_iter([("$1", rows)]).unwrap()).unwrap();
        let decoded = Prepared::decode(&bound.encode().unwrap()).unwrap();
        assert_eq!(decoded, bound);
        assert_eq!(decoded.executions().unwrap(), [vec![1_i64.into()], vec![2_i64.into()]]);
    }

    /// A handle of four hundred bytes once ended the process. The only buffer of its parameters claims 2^62 bytes in an LZ4 frame.
    #[test]
    fn a_handle_whose_parameters_claim_more_than_all_memory_is_refused() {
        let rows = Arc::new(Int64Array::from(vec![7; 100])) as _;
        let rows = RecordBatch::try_from_iter([("$1", rows)]).unwrap();
        let options =
            IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).unwrap();
        let mut handle = Prepared::new("SELECT $1").unwrap().encode().unwrap().to_vec();
        let mut writer = StreamWriter::try_new_with_options(&mut handle, &rows.schema(), options).unwrap();
        writer.write(&rows).unwrap();
        writer.finish().unwrap();
        let claim = handle.windows(8).rposition(|bytes| bytes == 800_i64.to_le_bytes()).unwrap();
        handle[claim..claim + 8].copy_from_slice(&(1_i64 << 62).to_le_bytes());
        let refused = Prepared::decode(&handle).unwrap_err().to_string();
        assert!(refused.contains("compressed"), "{refused}");
    }

    proptest! {
        #[test]
        fn no_handle_panics(handle: Vec<u8>, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8)) {
            let _refused = Prepared::decode(&handle);
            let rows = Arc::new(Int64Array::from(vec![1, 2])) as _;
            let bound = Prepared::new("SELECT ?").unwrap().bind(RecordBatch::try_from_iter([("$1", rows)]).unwrap()).unwrap();
            let mut handle = bound.encode().unwrap().to_vec();
            for (index, byte) in flips {
                let index = index.index(handle.len());
                handle[index] = byte;
            }
            let _read_or_refused = Prepared::decode(&handle);
        }

        #[test]
        fn no_query_panics(query: String) {
            let _prepared_or_refused = Prepared::new(&query);
        }
    }
}
