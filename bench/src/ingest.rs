//! Kafka to bronze: rows per second until they can be queried and until they are durable, compared with a consumer that only reads.

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use integration_tests::pipeline::Pipeline;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use service::metrics::names::{self, Description};
use tokio::time::Instant;

use crate::Setting;
use crate::figure::{Aim, Figure};
use crate::json::{Messages, read};
use crate::objects::Files;
use crate::{consumer, input, watch};

/// Partitions of the topics.
const PARTITIONS: [usize; 2] = [1, 4];
/// Flags that prevent all flushes: the whole topic stays hot.
const HOT: [&str; 6] =
    ["--flush-interval", "1h", "--flush-rows-max", "1000000000", "--hot-bytes-max", "8GiB"];
/// Flags of the durable run: the last rows wait one second for their flush, not ten.
const DURABLE: [&str; 2] = ["--flush-interval", "1s"];
/// Rows that are encoded to measure the speed of the encoder.
const ENCODED_ROWS: usize = 500_000;

/// Measures topics of one and of four partitions.
pub fn measure(setting: &Setting) -> LocalBoxFuture<'_, anyhow::Result<Vec<Figure>>> {
    async {
        let mut figures = Vec::new();
        for partitions in PARTITIONS {
            figures.extend(measure_topic(setting, partitions).await?);
        }
        Ok(figures)
    }
    .boxed_local()
}

async fn measure_topic(setting: &Setting, partitions: usize) -> anyhow::Result<Vec<Figure>> {
    let mut pipeline = Pipeline::new(&setting.environment).await?;
    let inputs = input::files(&pipeline, setting.scale.rows, partitions).await?;
    input::send(&pipeline, &inputs, partitions, None).await?;
    let kafka = &setting.environment.kafka;
    let rows = input::count(setting, &pipeline.topic).await?;

    let (mut bare, mut with_jemalloc, mut and_encoded, mut hot) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut durable, mut puts, mut file_count) = (Vec::new(), Vec::new(), 0);
    for run in 0..setting.scale.runs {
        let consumer = consumer::run(kafka, &pipeline.topic).await?;
        bare.push(consumer);
        with_jemalloc.push(consumer::consume(kafka, &pipeline.topic).await?);
        let encoder = tokio::task::spawn_blocking(encode).await??;
        and_encoded.push(1.0 / (1.0 / consumer + 1.0 / encoder));
        hot.push(ingest(&mut pipeline, &format!("hot-{run}"), &HOT, names::BRONZE_ROWS, rows).await?);
        let metric = names::BRONZE_DURABLE_ROWS;
        let name = format!("durable-{run}");
        durable.push(ingest(&mut pipeline, &name, &DURABLE, metric, rows).await?);
        let files = Files::list(&format!("{}/{name}", pipeline.lake)).await?;
        file_count = files.count();
        puts.push(rows / files.put_like(&format!("{}/puts-{run}", pipeline.topic)).await?);
    }
    let topic = if partitions == 1 { "1 partition".to_owned() } else { format!("{partitions} partitions") };
    Ok(vec![
        Figure::new("ingest", format!("Kafka → hot bronze, {topic}"), "rows/s", hot.clone())
            .beside("librdkafka consumer", bare.clone())
            .aim(Aim::TimesGreatest(0.7))
            .aim(Aim::AtLeast(500_000.0)),
        Figure::new("ingest", format!("Kafka → hot bronze, {topic}, same allocator"), "rows/s", hot)
            .beside("librdkafka consumer with jemalloc", with_jemalloc)
            .note("Speed of librdkafka's consumer when glibc's allocator does not slow it down."),
        Figure::new("ingest", format!("Kafka → durable bronze, {topic}"), "rows/s", durable)
            .beside("librdkafka consumer", bare)
            .beside("consumer, then Parquet encoding", and_encoded)
            .beside("puts of as many files alone, 16 at once", puts)
            .aim(Aim::TimesGreatest(0.6))
            .note(format!("Into {file_count} files, one for each date, partition and flush.")),
    ])
}

/// Ingests the whole topic into a new lake. Returns rows per second by `metric` of the Flight server, counted from the first row in it.
async fn ingest(
    pipeline: &mut Pipeline,
    name: &str,
    flight_flags: &[&str],
    metric: Description,
    rows: f64,
) -> anyhow::Result<f64> {
    pipeline.set("CANDLEFLIGHT_LAKE", &format!("{}/{name}", pipeline.lake));
    pipeline.set("CANDLEFLIGHT_GROUP", &format!("{}-{name}", pipeline.topic));
    let mut flight = pipeline.start(&[&["flight"], flight_flags].concat())?;
    flight.ready().await;
    let _ingest = pipeline.start(&["ingest"])?;
    // The time starts when the first row has been received, even if `metric` shows it later.
    let (begin, first) = watch::reaches(&flight, names::BRONZE_ROWS, &[], 1.0).await?;
    let (end, _) = watch::reaches(&flight, metric, &[], rows).await?;
    flight.kill().await?;
    Ok((rows - first) / (end - begin).as_secs_f64())
}

/// Encodes rows like bronze's as Parquet, compressed like bronze, into one file on one thread. Returns rows per second.
fn encode() -> anyhow::Result<f64> {
    let messages = Messages::generate(ENCODED_ROWS);
    let batches: Vec<_> = messages.batches().map(|batch| read(&batch)).collect::<Result<_, _>>()?;
    let started = Instant::now();
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema::bronze::schema(), Some(properties))?;
    for batch in &batches {
        writer.write(batch)?;
    }
    std::hint::black_box(writer.into_inner()?);
    #[expect(clippy::cast_precision_loss, reason = "half a million")]
    Ok(ENCODED_ROWS as f64 / started.elapsed().as_secs_f64())
}
