//! Metadata of the server and its tables, which clients request before a query.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables, Nullable, Searchable,
    SqlInfo, SqlNullOrdering, SqlSupportedCaseSensitivity, SqlSupportedTransaction, XdbcDataType,
    XdbcDatetimeSubcode,
};

use crate::catalog::Catalog;
use crate::catalog::schemas::{CATALOG, PUBLIC};
use crate::system;

/// Type of all tables: the word that every client supports.
const TABLE: &str = "TABLE";

/// Schema of primary keys, as JDBC's `getPrimaryKeys` defines it.
static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_name", DataType::Utf8, true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
});
static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});

/// Returns every table: its schema, its name and its columns.
fn all_tables() -> impl Iterator<Item = (&'static str, &'static str, SchemaRef)> {
    let public = proto::TABLES
        .into_iter()
        .map(|table| (PUBLIC, table, Catalog::schema(table).expect("every table has a schema")));
    public.chain(system::tables().map(|(table, columns)| (system::SCHEMA, table, columns)))
}

pub(super) fn catalogs(query: CommandGetCatalogs) -> Result<RecordBatch, FlightError> {
    let mut builder = query.into_builder();
    builder.append(CATALOG);
    builder.build()
}

pub(super) fn schemas(query: CommandGetDbSchemas) -> Result<RecordBatch, FlightError> {
    let mut builder = query.into_builder();
    builder.append(CATALOG, PUBLIC);
    builder.append(CATALOG, system::SCHEMA);
    builder.build()
}

pub(super) fn tables(query: CommandGetTables) -> Result<RecordBatch, FlightError> {
    let mut builder = query.into_builder();
    for (schema, table, columns) in all_tables() {
        builder.append(CATALOG, schema, table, TABLE, &columns)?;
    }
    builder.build()
}

pub(super) fn table_types(query: CommandGetTableTypes) -> Result<RecordBatch, FlightError> {
    let mut builder = query.into_builder();
    builder.append(TABLE);
    builder.build()
}

/// Returns the primary key of `table`, or no rows if the table is unknown or has no key.
pub(super) fn primary_keys(table: &str) -> Result<RecordBatch, ArrowError> {
    let columns = match table {
        "bronze" => [schema::bronze::KAFKA_PARTITION, schema::bronze::KAFKA_OFFSET].as_slice(),
        "gold" => [schema::SYMBOL, schema::EVENT_TIME].as_slice(),
        _ => [].as_slice(),
    };
    let same = |text| Arc::new(StringArray::from(vec![text; columns.len()]));
    let sequence = 1..=i32::try_from(columns.len()).expect("keys are short");
    RecordBatch::try_new(
        Arc::clone(&PRIMARY_KEYS),
        vec![
            same(CATALOG),
            same(PUBLIC),
            same(table),
            Arc::new(StringArray::from(columns.to_vec())),
            Arc::new(StringArray::new_null(columns.len())),
            Arc::new(Int32Array::from_iter_values(sequence)),
        ],
    )
}

/// Returns an empty list, because no table refers to another.
pub(super) fn foreign_keys() -> RecordBatch {
    RecordBatch::new_empty(Arc::clone(&FOREIGN_KEYS))
}

/// Properties and capabilities of the server.
pub(super) static SQL_INFO: LazyLock<SqlInfoData> = LazyLock::new(|| {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "Candleflight");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, true);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    info.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    info.append(SqlInfo::FlightSqlServerStatementTimeout, 0_i32);
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, 0_i32);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, false);
    // Names are folded to lower case unless they are quoted.
    info.append(SqlInfo::SqlIdentifierCase, SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i64);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(
        SqlInfo::SqlQuotedIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i64,
    );
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    info.append(SqlInfo::SqlKeywords, KEYWORDS);
    info.append(
        SqlInfo::SqlNumericFunctions,
        ["abs", "ceil", "exp", "floor", "ln", "log10", "power", "round", "sqrt"].as_slice(),
    );
    info.append(
        SqlInfo::SqlStringFunctions,
        ["concat", "length", "lower", "replace", "substr", "trim", "upper"].as_slice(),
    );
    info.append(SqlInfo::SqlSystemFunctions, ["coalesce", "nullif"].as_slice());
    info.append(
        SqlInfo::SqlDatetimeFunctions,
        ["date_bin", "date_part", "date_trunc", "now", "to_timestamp"].as_slice(),
    );
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlExtraNameCharacters, "");
    info.append(SqlInfo::SqlSupportsColumnAliasing, true);
    info.append(SqlInfo::SqlNullPlusNullIsNull, true);
    info.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    info.append(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false);
    info.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    info.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    info.append(SqlInfo::SqlSupportsLikeEscapeClause, true);
    info.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlProcedureTerm, "procedure");
    info.append(SqlInfo::SqlCatalogTerm, "catalog");
    info.append(SqlInfo::SqlCatalogAtStart, true);
    info.append(SqlInfo::SqlSelectForUpdateSupported, false);
    info.append(SqlInfo::SqlStoredProceduresSupported, false);
    info.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    info.append(SqlInfo::SqlTransactionsSupported, false);
    info.append(SqlInfo::SqlSavepointsSupported, false);
    info.append(SqlInfo::SqlNamedParametersSupported, false);
    info.append(SqlInfo::SqlBatchUpdatesSupported, false);
    info.append(SqlInfo::SqlNullOrdering, SqlNullOrdering::SqlNullsSortedHigh as i64);
    info.append(SqlInfo::SqlSupportedGroupBy, GROUP_BY_UNRELATED_AND_BEYOND_SELECT);
    info.append(SqlInfo::SqlSupportedGrammar, MINIMUM_GRAMMAR);
    info.append(SqlInfo::SqlSupportsIntegrityEnhancementFacility, false);
    info.append(SqlInfo::SqlOuterJoinsSupportLevel, LIMITED_AND_FULL_OUTER_JOINS);
    info.append(SqlInfo::SqlAnsi92SupportedLevel, ENTRY_LEVEL);
    info.append(SqlInfo::SqlSupportedSubqueries, ALL_FOUR_SUBQUERIES);
    info.append(SqlInfo::SqlSupportedUnions, UNION_AND_UNION_ALL);
    info.append(SqlInfo::SqlSchemasSupportedActions, 0_i32);
    info.append(SqlInfo::SqlCatalogsSupportedActions, 0_i32);
    info.append(SqlInfo::SqlSupportedPositionedCommands, 0_i32);
    info.append(SqlInfo::SqlSupportsConvert, BTreeMap::new());
    info.append(SqlInfo::SqlMaxRowSizeIncludesBlobs, false);
    info.append(SqlInfo::SqlDefaultTransactionIsolation, 0_i64);
    info.append(SqlInfo::SqlSupportedTransactionsIsolationLevels, 0_i32);
    info.append(SqlInfo::SqlDataDefinitionCausesTransactionCommit, false);
    info.append(SqlInfo::SqlDataDefinitionsInTransactionsIgnored, false);
    info.append(SqlInfo::SqlSupportedResultSetTypes, FORWARD_ONLY);
    info.append(SqlInfo::SqlLocatorsUpdateCopy, false);
    info.append(SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false);
    for unlimited in UNLIMITED {
        info.append(unlimited, 0_i64);
    }
    info.build().expect("the list above is well-formed")
});

/// Bit sets over the protocol's enumerations: bit n stands for value n.
const GROUP_BY_UNRELATED_AND_BEYOND_SELECT: i32 = 0b11;
const MINIMUM_GRAMMAR: i32 = 0b1;
const ENTRY_LEVEL: i32 = 0b1;
const LIMITED_AND_FULL_OUTER_JOINS: i32 = 0b110;
/// Quantified subqueries, and subqueries in comparisons, in EXISTS and in IN.
const ALL_FOUR_SUBQUERIES: i32 = 0b1111;
const UNION_AND_UNION_ALL: i32 = 0b11;
const FORWARD_ONLY: i32 = 0b10;

/// Limits that this server does not have. The protocol writes them as 0.
const UNLIMITED: [SqlInfo; 20] = [
    SqlInfo::SqlMaxBinaryLiteralLength,
    SqlInfo::SqlMaxCharLiteralLength,
    SqlInfo::SqlMaxColumnNameLength,
    SqlInfo::SqlMaxColumnsInGroupBy,
    SqlInfo::SqlMaxColumnsInIndex,
    SqlInfo::SqlMaxColumnsInOrderBy,
    SqlInfo::SqlMaxColumnsInSelect,
    SqlInfo::SqlMaxColumnsInTable,
    SqlInfo::SqlMaxConnections,
    SqlInfo::SqlMaxCursorNameLength,
    SqlInfo::SqlMaxIndexLength,
    SqlInfo::SqlDbSchemaNameLength,
    SqlInfo::SqlMaxProcedureNameLength,
    SqlInfo::SqlMaxCatalogNameLength,
    SqlInfo::SqlMaxRowSize,
    SqlInfo::SqlMaxStatementLength,
    SqlInfo::SqlMaxStatements,
    SqlInfo::SqlMaxTableNameLength,
    SqlInfo::SqlMaxTablesInSelect,
    SqlInfo::SqlMaxUsernameLength,
];

/// Keywords of the engine that need quotes as names of tables or columns.
const KEYWORDS: &[&str] = &[
    "ALL",
    "AND",
    "ANY",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CROSS",
    "DESC",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "FALSE",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IN",
    "INNER",
    "INTERSECT",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NATURAL",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "RIGHT",
    "SELECT",
    "THEN",
    "TRUE",
    "UNION",
    "USING",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// Types of the tables' columns and of values computed from them.
pub(super) static TYPES: LazyLock<XdbcTypeInfoData> = LazyLock::new(|| {
    let whole = |name: &str, data_type, bits| XdbcTypeInfo {
        column_size: Some(bits),
        unsigned_attribute: Some(false),
        num_prec_radix: Some(2),
        minimum_scale: Some(0),
        maximum_scale: Some(0),
        fixed_prec_scale: true,
        ..kind(name, data_type)
    };
    let quoted = |info: XdbcTypeInfo| XdbcTypeInfo {
        literal_prefix: Some("'".to_owned()),
        literal_suffix: Some("'".to_owned()),
        ..info
    };
    let mut types = XdbcTypeInfoDataBuilder::new();
    types.append(kind("BOOLEAN", XdbcDataType::XdbcBit));
    types.append(whole("INTEGER", XdbcDataType::XdbcInteger, 32));
    types.append(whole("BIGINT", XdbcDataType::XdbcBigint, 64));
    let double = kind("DOUBLE", XdbcDataType::XdbcDouble);
    types.append(XdbcTypeInfo {
        column_size: Some(53),
        unsigned_attribute: Some(false),
        num_prec_radix: Some(2),
        ..double
    });
    types.append(quoted(XdbcTypeInfo { case_sensitive: true, ..kind("VARCHAR", XdbcDataType::XdbcVarchar) }));
    types.append(quoted(XdbcTypeInfo {
        sql_data_type: XdbcDataType::XdbcDatetime,
        datetime_subcode: Some(XdbcDatetimeSubcode::XdbcSubcodeYear), // The protocol's number for a date, 1.
        ..kind("DATE", XdbcDataType::XdbcDate)
    }));
    types.append(quoted(XdbcTypeInfo {
        sql_data_type: XdbcDataType::XdbcDatetime,
        datetime_subcode: Some(XdbcDatetimeSubcode::XdbcSubcodeTimestamp),
        maximum_scale: Some(6),
        ..kind("TIMESTAMP", XdbcDataType::XdbcTimestamp)
    }));
    types.build().expect("the list above is well-formed")
});

fn kind(name: &str, data_type: XdbcDataType) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.to_owned(),
        local_type_name: Some(name.to_owned()),
        data_type,
        sql_data_type: data_type,
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        auto_increment: Some(false),
        ..XdbcTypeInfo::default()
    }
}
