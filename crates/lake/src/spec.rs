//! The two tables: their names, their folders and the order of their rows.

use arrow::datatypes::SchemaRef;

/// The name, the place and the contents of a table.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// `bronze` or `gold`: the name in errors and failpoints.
    pub name: &'static str,
    /// The table's folder in the lake.
    pub prefix: &'static str,
    /// The schema of its rows.
    pub schema: SchemaRef,
    /// The Kafka topic whose offsets the table's position counts.
    pub topic: String,
    /// The order of the rows, and their division into files.
    pub order: Order,
}

/// The order of the rows in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A file holds one date and one Kafka partition, ordered by offset. The log's statistics then show which offsets it holds.
    Offset,
    /// A file holds one date, ordered by symbol and event time.
    Key,
}

/// Returns the bronze table of `topic`: `streaming_raw`.
pub fn bronze(topic: &str) -> TableSpec {
    let topic = topic.to_owned();
    TableSpec {
        name: "bronze",
        prefix: "streaming_raw",
        schema: schema::bronze::schema(),
        topic,
        order: Order::Offset,
    }
}

/// Returns the gold table of `topic`: `gold_aggregates`.
pub fn gold(topic: &str) -> TableSpec {
    let topic = topic.to_owned();
    TableSpec {
        name: "gold",
        prefix: "gold_aggregates",
        schema: schema::gold::schema(),
        topic,
        order: Order::Key,
    }
}
