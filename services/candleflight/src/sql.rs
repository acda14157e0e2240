//! `sql`: runs one Flight SQL query and prints the result.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, ensure};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::pretty::pretty_format_batches_with_schema;
use arrow::{csv, json};
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt as _;
use parquet::arrow::ArrowWriter;
use transport::client::hint;

/// Maximum number of rows in one printed table, which bounds memory. A longer result continues in another table.
const TABLE_ROWS_MAX: usize = 10_000;

/// Flags of `sql`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Query on the tables `bronze`, `gold` and `system.*`. `-` reads it from standard input.
    query: String,
    /// Address of the Flight server.
    #[arg(long, env = "CANDLEFLIGHT_FLIGHT", default_value = crate::up::FLIGHT_URL)]
    flight: String,
    /// Output format. `json` is one object per line.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Output file [default: standard output].
    #[arg(long, short)]
    output: Option<PathBuf>,
    #[command(flatten)]
    access: access::Identity,
}

#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
    Parquet,
}

/// Runs the query and prints its result while it arrives.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let query = if args.query == "-" { io::read_to_string(io::stdin())? } else { args.query };
    let client = transport::client::connect(&args.flight, &args.access).await?;
    let mut client = FlightSqlServiceClient::new_from_inner(client);
    let result = client.execute(query, None).await.map_err(server_error)?;
    let schema = SchemaRef::new(result.clone().try_decode_schema().context("read the schema of the result")?);
    let mut printer = Printer::new(args.format, args.output, schema)?;
    for endpoint in result.endpoint {
        let ticket = endpoint.ticket.context("the server sent an endpoint without a ticket")?;
        let mut batches = client.do_get(ticket).await.map_err(server_error)?;
        while let Some(batch) = batches.try_next().await.map_err(server_error)? {
            if is_closed(printer.print(&batch))? {
                return Ok(());
            }
        }
    }
    is_closed(printer.finish()).map(|_| ())
}

/// Returns true if the reader of the output has closed it (`candleflight sql … | head`), which is not an error.
fn is_closed(printed: anyhow::Result<()>) -> anyhow::Result<bool> {
    let Err(error) = printed else { return Ok(false) };
    let is_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
            // For standard output, Arrow's writers keep only the text of an error.
            || cause.to_string().contains("Broken pipe")
    };
    if error.chain().any(is_pipe) { Ok(true) } else { Err(error) }
}

type Output = Box<dyn Write + Send>;

#[expect(clippy::large_enum_variant, reason = "there is one")]
enum Printer {
    Table(Table),
    Csv(csv::Writer<Output>),
    Json(json::LineDelimitedWriter<Output>),
    Parquet(Box<ArrowWriter<Output>>),
}

impl Printer {
    fn new(format: Format, file: Option<PathBuf>, schema: SchemaRef) -> anyhow::Result<Printer> {
        let out = output(format, file)?;
        Ok(match format {
            Format::Table => Printer::Table(Table { out, schema, batches: Vec::new(), rows: 0, tables: 0 }),
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().with_header(true).build(out);
                // An empty result also has a header.
                writer.write(&RecordBatch::new_empty(schema))?;
                Printer::Csv(writer)
            }
            Format::Json => Printer::Json(json::LineDelimitedWriter::new(out)),
            Format::Parquet => Printer::Parquet(Box::new(ArrowWriter::try_new(out, schema, None)?)),
        })
    }

    fn print(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        match self {
            Printer::Table(table) => table.push(batch)?,
            Printer::Csv(writer) => writer.write(batch)?,
            Printer::Json(writer) => writer.write(batch)?,
            Printer::Parquet(writer) => writer.write(batch)?,
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        let mut out = match self {
            Printer::Table(table) => table.finish()?,
            Printer::Csv(writer) => writer.into_inner(),
            Printer::Json(mut writer) => {
                writer.finish()?;
                writer.into_inner()
            }
            Printer::Parquet(writer) => writer.into_inner()?,
        };
        Ok(out.flush()?)
    }
}

struct Table {
    out: Output,
    schema: SchemaRef,
    /// Rows of the next table, in total `rows`.
    batches: Vec<RecordBatch>,
    rows: usize,
    /// Number of tables printed so far.
    tables: usize,
}

impl Table {
    fn push(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        let mut first = 0;
        while first < batch.num_rows() {
            let rows = (batch.num_rows() - first).min(TABLE_ROWS_MAX - self.rows);
            self.batches.push(batch.slice(first, rows));
            self.rows += rows;
            first += rows;
            if self.rows == TABLE_ROWS_MAX {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let table = pretty_format_batches_with_schema(SchemaRef::clone(&self.schema), &self.batches)?;
        writeln!(self.out, "{table}")?;
        self.batches.clear();
        self.rows = 0;
        self.tables += 1;
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<Output> {
        if self.rows > 0 || self.tables == 0 {
            self.flush()?;
        }
        Ok(self.out)
    }
}

fn output(format: Format, file: Option<PathBuf>) -> anyhow::Result<Output> {
    let Some(path) = file else {
        let is_readable = format != Format::Parquet || !io::stdout().is_terminal();
        ensure!(is_readable, "cannot print Parquet to a terminal: give a file with --output");
        return Ok(Box::new(BufWriter::new(io::stdout())));
    };
    let file = File::create(&path).with_context(|| format!("create {} (--output)", path.display()))?;
    Ok(Box::new(BufWriter::new(file)))
}

/// Keeps the server's message and drops the wrapping of the transport.
fn server_error(error: FlightError) -> anyhow::Error {
    match error {
        FlightError::Tonic(status) => anyhow!("{}{} ({:?})", status.message(), hint(&status), status.code()),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, Int64Array, RecordBatch};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::{Format, Printer, TABLE_ROWS_MAX};

    fn batch(rows: std::ops::Range<i64>) -> RecordBatch {
        let column: Arc<dyn Array> = Arc::new(Int64Array::from_iter_values(rows));
        RecordBatch::try_from_iter([("n", column)]).unwrap()
    }

    fn printed(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result");
        let mut printer = Printer::new(format, Some(path.clone()), batch(0..0).schema()).unwrap();
        for batch in batches {
            printer.print(batch).unwrap();
        }
        printer.finish().unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn an_empty_result_still_names_its_columns() {
        assert_eq!(printed(Format::Csv, &[]), b"n\n");
        assert_eq!(printed(Format::Table, &[]), b"+---+\n| n |\n+---+\n+---+\n");
        assert_eq!(printed(Format::Json, &[]), b"");
    }

    #[test]
    fn batches_follow_each_other() {
        let batches = [batch(0..2), batch(2..3)];
        assert_eq!(printed(Format::Csv, &batches), b"n\n0\n1\n2\n");
        assert_eq!(printed(Format::Json, &batches), b"{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n");
        assert_eq!(printed(Format::Table, &batches), b"+---+\n| n |\n+---+\n| 0 |\n| 1 |\n| 2 |\n+---+\n");
    }

    #[test]
    fn a_long_table_goes_on_in_another_with_every_row_once() {
        let rows = i64::try_from(TABLE_ROWS_MAX).unwrap() * 2 + 1;
        let text =
            String::from_utf8(printed(Format::Table, &[batch(0..rows - 5), batch(rows - 5..rows)])).unwrap();
        let numbers = text.lines().filter_map(|line| line.trim_matches(['|', ' ']).parse::<i64>().ok());
        assert!(numbers.eq(0..rows));
        assert_eq!(text.lines().filter(|line| line.contains('n')).count(), 3);
    }

    #[test]
    fn a_parquet_file_holds_the_rows() {
        let file = bytes::Bytes::from(printed(Format::Parquet, &[batch(0..3)]));
        let mut batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        assert_eq!(batches.next().unwrap().unwrap(), batch(0..3));
    }
}
