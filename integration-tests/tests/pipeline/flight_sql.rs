//! Flight SQL in detail: everything that clients check in an answer, and their calls before a query.

use anyhow::{Context as _, ensure};
use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use arrow_flight::FlightInfo;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys,
    CommandGetPrimaryKeys, CommandGetTables, CommandGetXdbcTypeInfo,
};
use futures::TryStreamExt as _;
use integration_tests::check::{count, drained, pipeline};
use integration_tests::input::{self, synthetic};
use tonic::transport::Channel;

type Client = FlightSqlServiceClient<Channel>;

/// Reads the result that a `FlightInfo` describes and checks that its schema is as advertised.
async fn read(client: &mut Client, info: FlightInfo) -> anyhow::Result<RecordBatch> {
    let advertised: SchemaRef = info.clone().try_decode_schema()?.into();
    let mut batches = Vec::new();
    for endpoint in info.endpoint {
        ensure!(endpoint.location.is_empty(), "a location would mislead clients on other machines");
        let stream = client.do_get(endpoint.ticket.context("an endpoint has a ticket")?).await?;
        let read: Vec<RecordBatch> = stream.try_collect().await?;
        for batch in &read {
            ensure!(batch.schema() == advertised, "advertised {advertised}, streamed {}", batch.schema());
        }
        batches.extend(read);
    }
    Ok(arrow::compute::concat_batches(&advertised, &batches)?)
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    let column = batch.column_by_name(column).expect("the column is there");
    column.as_string::<i32>().iter().map(|text| text.unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_is_answered_as_it_is_advertised() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let _flight = pipeline.start(&["flight", "--flush-interval", "300ms"])?;
    let _gold = pipeline.start(&["gold", "--flush-interval", "300ms"])?;
    let _ingest = pipeline.start(&["ingest"])?;
    let input = synthetic(&pipeline, "ONE-USD", 2, 1).await?;
    let arguments = input::producer(&[input], &["--rate", "max", "--quiet"]);
    ensure!(pipeline.run(&arguments).await?.status.success(), "the producer ends well");
    drained(&pipeline, &environment.kafka).await?;

    let rows = count(&pipeline.sql("SELECT count(*) FROM gold").await?).context("a count")?;

    let channel = Channel::from_shared(pipeline.flight.replace("grpc://", "http://"))?.connect().await?;
    let mut client = Client::new_from_inner(FlightServiceClient::new(channel));
    let info = client.get_catalogs().await?;
    ensure!(texts(&read(&mut client, info).await?, "catalog_name") == ["candleflight"]);
    let info = client.get_db_schemas(CommandGetDbSchemas::default()).await?;
    ensure!(texts(&read(&mut client, info).await?, "db_schema_name") == ["public", "system"]);
    for include_schema in [false, true] {
        let query = CommandGetTables {
            table_name_filter_pattern: Some("%o%".to_owned()),
            db_schema_filter_pattern: Some("public".to_owned()),
            include_schema,
            ..CommandGetTables::default()
        };
        let info = client.get_tables(query).await?;
        let tables = read(&mut client, info).await?;
        ensure!(tables.num_columns() == if include_schema { 5 } else { 4 });
        ensure!(texts(&tables, "table_name") == ["bronze", "gold"], "{tables:?}");
    }
    let info = client.get_table_types().await?;
    ensure!(texts(&read(&mut client, info).await?, "table_type") == ["TABLE"]);
    let query = CommandGetPrimaryKeys { table: "gold".to_owned(), ..CommandGetPrimaryKeys::default() };
    let info = client.get_primary_keys(query).await?;
    ensure!(texts(&read(&mut client, info).await?, "column_name") == ["symbol", "event_time"]);
    let info = client.get_exported_keys(CommandGetExportedKeys::default()).await?;
    ensure!(read(&mut client, info).await?.num_rows() == 0);
    let info = client.get_imported_keys(CommandGetImportedKeys::default()).await?;
    ensure!(read(&mut client, info).await?.num_rows() == 0);
    let info = client.get_cross_reference(CommandGetCrossReference::default()).await?;
    ensure!(read(&mut client, info).await?.num_rows() == 0);
    let info = client.get_sql_info(Vec::new()).await?;
    ensure!(read(&mut client, info).await?.num_rows() > 60, "all that JDBC asks for");
    let info = client.get_xdbc_type_info(CommandGetXdbcTypeInfo::default()).await?;
    ensure!(texts(&read(&mut client, info).await?, "type_name").contains(&"TIMESTAMP".to_owned()));

    let mut prepared =
        client.prepare("SELECT count(*) AS n FROM gold WHERE symbol = ?".to_owned(), None).await?;
    ensure!(prepared.parameter_schema()?.fields().len() == 1, "a parameter is announced");
    let symbols = StringArray::from(vec!["ONE-USD", "none"]);
    prepared.set_parameters(RecordBatch::try_from_iter([("$1", std::sync::Arc::new(symbols) as _)])?)?;
    let info = prepared.execute().await?;
    let counts = read(&mut client, info).await?;
    let counts = counts.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec();
    ensure!(counts == [rows, 0], "an execution for each row of parameters: {counts:?}");
    prepared.close().await?;

    let refused = client.execute_update("DELETE FROM gold".to_owned(), None).await;
    let refused = refused.err().context("an update must be refused")?.to_string();
    ensure!(refused.contains("read-only"), "{refused}");
    Ok(())
}
