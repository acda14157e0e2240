//! Live queries: followers of bronze and gold in Python and Rust, which are killed and restarted, and SQL on earlier versions.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use arrow::array::AsArray as _;
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use arrow_flight::FlightDescriptor;
use futures::TryStreamExt as _;
use integration_tests::check::{count, drained, gold_is_exact, pipeline};
use integration_tests::environment::Environment;
use integration_tests::pipeline::Pipeline;
use integration_tests::process::program;
use integration_tests::wait::eventually;
use position::{OffsetRange, Position};
use proto::ticket::{Follow, Start, Ticket};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use schema::RangedBatch;
use tokio::process::{Child, Command};
use transport::client::{self, connect};
use transport::stream::{encode_batch, encode_schema};

/// Longest time for a row to reach a follower, and for other steps: far more than it takes on a busy machine.
const DEADLINE: Duration = Duration::from_mins(1);
/// Symbols. Each is in the partition of its index.
const SYMBOLS: [&str; 2] = ["ONE-USD", "TWO-USD"];
/// Kafka time of the candle of minute 0, in milliseconds. The others are a second apart.
const PRODUCED_MILLIS: i64 = 1_767_225_600_000;

/// Producer of candles of every symbol.
struct Candles {
    producer: FutureProducer,
    topic: String,
}

impl Candles {
    async fn new(environment: &Environment, pipeline: &Pipeline) -> anyhow::Result<Candles> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &environment.kafka);
        let admin: AdminClient<DefaultClientContext> = config.create()?;
        let topic = NewTopic::new(&pipeline.topic, SYMBOLS.len().try_into()?, TopicReplication::Fixed(1));
        for result in admin.create_topics([&topic], &AdminOptions::new()).await? {
            result.map_err(|(topic, code)| anyhow::anyhow!("create {topic}: {code}"))?;
        }
        Ok(Candles { producer: config.create()?, topic: pipeline.topic.clone() })
    }

    /// Sends a candle of each symbol for each minute.
    async fn send(&self, minutes: std::ops::Range<i64>, close: f64) -> anyhow::Result<()> {
        for minute in minutes {
            for (partition, symbol) in (0..).zip(SYMBOLS) {
                let payload = format!(
                    r#"{{"symbol":"{symbol}","timestamp":{},"open":{close},"high":{close},"low":{close},"close":{close},"volume":1.5}}"#,
                    1_700_000_040 + 60 * minute,
                );
                let record = FutureRecord::to(&self.topic).partition(partition).key(symbol).payload(&payload);
                let record = record.timestamp(PRODUCED_MILLIS + 1000 * minute);
                self.producer.send(record, DEADLINE).await.map_err(|(error, _)| error)?;
            }
        }
        Ok(())
    }
}

/// The example in Python, which keeps rows and position in an `SQLite` file.
struct PythonFollower {
    python: PathBuf,
    database: PathBuf,
    flight: String,
    child: Option<Child>,
}

impl PythonFollower {
    fn new(environment: &Environment, pipeline: &Pipeline) -> PythonFollower {
        let database = pipeline.folder.path().join("gold.sqlite");
        let (python, flight) = (environment.python.clone(), pipeline.flight.clone());
        PythonFollower { python, database, flight, child: None }
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.python);
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/follow.py"))
            .arg(&self.database)
            .args(["--flight", &self.flight])
            // Only the first start needs a position. After it, the file contains the position.
            .args(if self.database.exists() { &[][..] } else { &["--from", "{}"] })
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        self.child = Some(command.spawn()?);
        Ok(())
    }

    /// Returns a number from the file.
    async fn number(&self, query: &str) -> Option<i64> {
        let script =
            "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchone())";
        let mut command = Command::new(&self.python);
        let output = command.args(["-c", script]).arg(&self.database).arg(query).output().await.ok()?;
        String::from_utf8(output.stdout).ok()?.trim().parse().ok()
    }

    async fn has(&self, what: &str, query: &str, expected: i64) {
        eventually(what, DEADLINE, async || (self.number(query).await? == expected).then_some(())).await;
    }

    /// Waits until its rows equal those of gold in every column.
    async fn has_gold(&self) -> anyhow::Result<()> {
        let said = eventually("the follower in Python has gold", DEADLINE, async || {
            let mut command = Command::new(&self.python);
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/check_follow.py"));
            let output = command.arg(&self.database).arg(&self.flight).output().await.ok()?;
            output.status.success().then_some(output.stdout)
        })
        .await;
        eprintln!("{}", String::from_utf8(said)?);
        Ok(())
    }
}

/// The example in Rust, which writes rows to its standard output and the position to a file.
struct RustFollower {
    position: PathBuf,
    output: PathBuf,
    flight: String,
    child: Option<Child>,
}

impl RustFollower {
    fn new(pipeline: &Pipeline) -> RustFollower {
        let file = |name| pipeline.folder.path().join(name);
        let (position, output) = (file("position.json"), file("gold.jsonl"));
        RustFollower { position, output, flight: pipeline.flight.clone(), child: None }
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let example = program()?.with_file_name("examples").join("follow");
        let mut command = Command::new(&example);
        command
            .arg(&self.position)
            .args(["--flight", &self.flight, "--from", "{}"])
            .stdin(Stdio::null())
            .stdout(File::options().create(true).append(true).open(&self.output)?)
            .kill_on_drop(true);
        self.child = Some(command.spawn().with_context(|| format!("start {}", example.display()))?);
        Ok(())
    }

    /// Waits until the rows that it has written equal those of gold. Each row replaces an earlier one of its key.
    async fn has_gold(&self, pipeline: &Pipeline) -> anyhow::Result<()> {
        let columns =
            "symbol, CAST(to_unixtime(event_time) AS BIGINT) AS seconds, close, price_ma_30m, samples_30m";
        let gold = pipeline.run(&["sql", &format!("SELECT {columns} FROM gold"), "--format", "json"]).await?;
        let gold: Vec<serde_json::Value> = lines(&String::from_utf8(gold.stdout)?)?;
        let key = |symbol: &serde_json::Value, seconds: i64| (symbol.to_string(), seconds);
        let values = |row: &serde_json::Value| {
            ["close", "price_ma_30m", "samples_30m"].map(|column| row[column].to_string())
        };
        let gold: BTreeMap<_, _> = gold
            .iter()
            .map(|row| (key(&row["symbol"], row["seconds"].as_i64().unwrap_or(0)), values(row)))
            .collect();
        eventually("the follower in Rust has gold", DEADLINE, async || {
            // The last line may be incomplete.
            let rows = lines(&fs::read_to_string(&self.output).ok()?).ok()?;
            let seconds = |row: &serde_json::Value| {
                let time = row["event_time"].as_str()?.parse::<Seconds>().ok()?;
                Some(time.0)
            };
            let followed: Option<BTreeMap<_, _>> =
                rows.iter().map(|row| Some((key(&row["symbol"], seconds(row)?), values(row)))).collect();
            (followed? == gold).then_some(())
        })
        .await;
        Ok(())
    }
}

/// Unix seconds of a time in JSON, such as `2023-11-14T22:14:00Z`.
struct Seconds(i64);

impl std::str::FromStr for Seconds {
    type Err = arrow::error::ArrowError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let nanos = arrow::compute::kernels::cast_utils::string_to_timestamp_nanos(text)?;
        Ok(Seconds(nanos / 1_000_000_000))
    }
}

fn lines(text: &str) -> anyhow::Result<Vec<serde_json::Value>> {
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

async fn kill(child: &mut Option<Child>) -> anyhow::Result<()> {
    child.take().context("it runs")?.kill().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_have_gold_whatever_is_killed() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let candles = Candles::new(&environment, &pipeline).await?;
    let mut flight = pipeline.start(&["flight", "--flush-interval", "200ms"])?;
    // Rows that followers receive before gold ends have not come through its table.
    let mut gold = pipeline.start(&["gold", "--flush-interval", "1h"])?;
    let _ingest = pipeline.start(&["ingest"])?;
    flight.ready().await;
    let (mut python, mut rust) = (PythonFollower::new(&environment, &pipeline), RustFollower::new(&pipeline));
    python.start()?;
    rust.start()?;
    let all = "SELECT count(*) FROM gold";
    let closes = |close: i64| format!("SELECT count(*) FROM gold WHERE close = {close}");

    candles.send(0..100, 1.0).await?;
    python.has("rows come live", all, 200).await;
    ensure!(count(&pipeline.sql(all).await?) == Some(0), "the table has nothing yet");
    candles.send(50..51, 2.0).await?;
    python.has("a correction comes live", &closes(2), 2).await;
    python.has("and all that it changes", "SELECT count(*) FROM gold WHERE price_ma_30m > 1", 60).await;

    kill(&mut python.child).await?;
    kill(&mut rust.child).await?;
    candles.send(100..150, 1.0).await?;
    candles.send(120..121, 3.0).await?;
    python.start()?;
    rust.start()?;
    python.has("what came meanwhile", all, 300).await;
    python.has("also the correction", &closes(3), 2).await;

    // The server loses the rows that it has passed on. The next rows must still join.
    flight.kill().await?;
    candles.send(150..160, 1.0).await?;
    flight.restart()?;
    python.has("rows come over a restart of the server", all, 320).await;

    // Followers that were away then find the rows only in the table.
    kill(&mut python.child).await?;
    kill(&mut rust.child).await?;
    candles.send(130..131, 4.0).await?;
    eventually("gold has it", DEADLINE, async || {
        let query = "SELECT count(*) FROM bitcoin_gold_data WHERE close = 4";
        let rows: i64 = pipeline.database().await.ok()?.query_one(query, &[]).await.ok()?.get(0);
        (rows == 2).then_some(())
    })
    .await;
    flight.kill().await?;
    flight.restart()?;
    flight.ready().await;
    python.start()?;
    rust.start()?;
    ensure!(gold.terminate().await?.success(), "a drain ends with exit code 0");
    python.has("the correction comes from the table", &closes(4), 2).await;
    gold.restart()?;
    candles.send(160..170, 1.0).await?;
    python.has("rows come live again", all, 340).await;

    ensure!(gold.terminate().await?.success(), "a drain ends with exit code 0");
    python.has_gold().await?;
    rust.has_gold(&pipeline).await?;
    gold_is_exact(&pipeline, &[]).await
}

/// Follower of a test. Reads until it has received `until`.
async fn read(pipeline: &Pipeline, ticket: Ticket) -> anyhow::Result<Vec<RangedBatch>> {
    let mut client = connect(&pipeline.flight, &access::Identity::default()).await?;
    let batches = pin!(client::follow(&mut client, &ticket).await?);
    Ok(tokio::time::timeout(DEADLINE, batches.try_collect()).await??)
}

/// Returns the ranges of the first, empty batches, and the closes of all rows.
fn describe(batches: &[RangedBatch]) -> (String, Vec<f64>) {
    let starts = batches.iter().take(SYMBOLS.len()).map(|batch| batch.range.to_string());
    let close = |batch: &RangedBatch| {
        let closes = batch.rows.column_by_name("close").expect("both tables have it");
        closes.as_primitive::<Float64Type>().values().to_vec()
    };
    let mut closes: Vec<f64> = batches.iter().flat_map(close).collect();
    closes.sort_by(f64::total_cmp);
    (starts.collect::<Vec<_>>().join(" "), closes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_starts_now_or_at_a_time_and_sql_sees_the_past() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let candles = Candles::new(&environment, &pipeline).await?;
    let mut flight = pipeline.start(&["flight", "--flush-interval", "200ms"])?;
    let _gold = pipeline.start(&["gold", "--flush-interval", "300ms"])?;
    let _ingest = pipeline.start(&["ingest"])?;
    flight.ready().await;
    candles.send(0..50, 1.0).await?;
    drained(&pipeline, &environment.kafka).await?;
    let version = eventually("bronze has a version of 100 rows", DEADLINE, async || {
        let of_100 = "SELECT max(version) FROM system.versions WHERE \"table\" = 'bronze' AND rows = 100";
        count(&pipeline.sql(of_100).await.ok()?)
    })
    .await;
    let ends: Position = [(0, 60), (1, 60)].into_iter().collect();

    // Both followers get the starting position before any rows, and end when the rows have arrived.
    let follow = |from: Start| Follow { from, until: Some(ends.clone()), ..Follow::default() };
    let one = |from: Start| Follow { symbols: Some(vec!["ONE-USD".to_owned()]), ..follow(from) };
    let now = async {
        let mut client = connect(&pipeline.flight, &access::Identity::default()).await?;
        let mut bronze = pin!(client::follow(&mut client, &Ticket::Bronze(one(Start::Now))).await?);
        let mut gold = pin!(client::follow(&mut client.clone(), &Ticket::Gold(follow(Start::Now))).await?);
        let mut begun = [Vec::new(), Vec::new()];
        for _partition in SYMBOLS {
            begun[0].extend(bronze.try_next().await?);
            begun[1].extend(gold.try_next().await?);
        }
        candles.send(50..60, 2.0).await?;
        let [mut bronze_batches, mut gold_batches] = begun;
        bronze_batches.extend(bronze.try_collect::<Vec<_>>().await?);
        gold_batches.extend(gold.try_collect::<Vec<_>>().await?);
        anyhow::Ok((bronze_batches, gold_batches))
    };
    let (bronze, gold) = tokio::time::timeout(DEADLINE, now).await??;
    ensure!(describe(&bronze) == ("0:50..50 1:50..50".to_owned(), vec![2.0; 10]), "{bronze:?}");
    ensure!(describe(&gold) == ("0:50..50 1:50..50".to_owned(), vec![2.0; 20]), "{gold:?}");

    let micros = (PRODUCED_MILLIS + 1000 * 45 - 500) * 1000;
    let bronze = read(&pipeline, Ticket::Bronze(follow(Start::Time(micros)))).await?;
    let expected = [[1.0; 10], [2.0; 10], [2.0; 10]].concat();
    ensure!(describe(&bronze) == ("0:45..45 1:45..45".to_owned(), expected), "{bronze:?}");
    let gold = read(&pipeline, Ticket::Gold(one(Start::Time(micros)))).await?;
    let times: std::collections::BTreeSet<i64> = gold
        .iter()
        .flat_map(|batch| batch.rows.column(1).as_primitive::<TimestampMicrosecondType>().values().to_vec())
        .collect();
    ensure!(describe(&gold).0 == "0:45..45 1:45..45" && times.len() >= 15, "{gold:?}");

    drained(&pipeline, &environment.kafka).await?;
    sql_sees_the_past(&pipeline, version).await?;
    refuses_what_is_not_gold(&pipeline).await
}

/// Queries 120 rows of bronze in earlier states: 100 rows at `version`, and others by position.
async fn sql_sees_the_past(pipeline: &Pipeline, version: i64) -> anyhow::Result<()> {
    let rows =
        async |from: &str| anyhow::Ok(count(&pipeline.sql(&format!("SELECT count(*) FROM {from}")).await?));
    ensure!(rows("bronze").await? == Some(120));
    ensure!(rows(&format!("bronze_at({version})")).await? == Some(100), "bronze as of version {version}");
    ensure!(rows("bronze_at(0)").await? == Some(0));
    ensure!(rows(r#"bronze_at('{"0":7,"1":3}')"#).await? == Some(10));
    ensure!(rows(r#"bronze_at('{"0":7}') WHERE kafka_offset >= 5"#).await? == Some(2));
    let listed = pipeline
        .sql("SELECT version, rows FROM system.versions WHERE \"table\" = 'gold' ORDER BY version")
        .await?;
    for line in listed.lines().skip(1) {
        let (version, expected) = line.split_once(',').context("two columns")?;
        ensure!(
            rows(&format!("gold_at({version})")).await? == expected.parse().ok(),
            "gold as of version {version}"
        );
    }
    for (query, reason) in [
        ("SELECT * FROM bronze_at(99999)", "there are versions 0 to"),
        ("SELECT * FROM gold_at(99999)", "there are versions 0 to"),
        ("SELECT * FROM bronze_at('{\"0\":99999}')", "has not reached 0:99999"),
        ("SELECT * FROM bronze_at('x')", "is not a position"),
        ("SELECT * FROM bronze_at(-1)", "write bronze_at(12)"),
        ("SELECT * FROM gold_at()", "write gold_at(12)"),
    ] {
        let output = pipeline.run(&["sql", query]).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains(reason), "{query}: {said}");
    }
    Ok(())
}

/// Puts bronze rows to the gold table, which must fail.
async fn refuses_what_is_not_gold(pipeline: &Pipeline) -> anyhow::Result<()> {
    let mut client = connect(&pipeline.flight, &access::Identity::default()).await?;
    let descriptor = FlightDescriptor::new_path(vec![proto::GOLD.to_owned()]);
    let schema = encode_schema(&schema::bronze::schema()).with_descriptor(descriptor);
    let range = OffsetRange { partition: 0, first: 0, next: 1 };
    let batch = encode_batch(&RangedBatch::empty(schema::bronze::schema(), range))?;
    let messages = futures::stream::iter([schema].into_iter().chain(batch));
    let answers = client::put(&mut client, messages).await?;
    let refused = answers.try_collect::<Vec<_>>().await.err().context("it must be refused")?;
    ensure!(refused.to_string().contains("the schema is not gold's"), "{refused}");
    Ok(())
}
