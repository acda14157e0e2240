//! Exactly once. Every service is killed at every arrow of the walk and at random times under load. The results show no trace of it.
//!
//! `script/test --kills N` kills more often, and `CANDLEFLIGHT_TEST_SEED` repeats the choice of kills.

use std::time::Duration;

use anyhow::ensure;
use integration_tests::check::{drained, gold_is_exact, offsets_tile, pipeline};
use integration_tests::environment::{self, Environment};
use integration_tests::input::{self, Input, synthetic};
use integration_tests::pipeline::Pipeline;
use integration_tests::process::Process;
use integration_tests::wait::eventually;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Every failpoint of the walk, with its service.
const FAILPOINTS: [(Service, &str); 15] = [
    (Service::Producer, "producer.sent"),
    (Service::Ingest, "ingest.polled"),
    (Service::Ingest, "ingest.dead_letter"),
    (Service::Ingest, "ingest.put"),
    (Service::Ingest, "ingest.acknowledged"),
    (Service::Ingest, "ingest.committed"),
    (Service::Flight, "flight.received"),
    (Service::Flight, "bronze.written"),
    (Service::Flight, "bronze.committed"),
    (Service::Gold, "gold.computed"),
    (Service::Gold, "gold.postgres_before_commit"),
    (Service::Gold, "gold.postgres_committed"),
    (Service::Gold, "gold.lake_before_flush"),
    (Service::Gold, "gold.written"),
    (Service::Gold, "gold.committed"),
];
/// Number of kills at random times after one kill at each failpoint.
const RANDOM_KILLS: usize = 12;
/// Pause between two unusable messages.
const BAD_PAUSE: Duration = Duration::from_millis(50);
/// Candles a second while services die. It is slow enough that the replay outlasts the kills.
const RATE: &str = "400/s";
/// Longest time for a service to pass an armed failpoint under load.
const KILL_DEADLINE: Duration = Duration::from_mins(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    Producer,
    Ingest,
    Flight,
    Gold,
}

struct Walk {
    producer: Process,
    ingest: Process,
    flight: Process,
    gold: Process,
    bad: BadMessages,
}

impl Walk {
    fn start(environment: &Environment, pipeline: &Pipeline, inputs: &[Input]) -> anyhow::Result<Walk> {
        let producer = input::producer(inputs, &["--resume", "--rate", RATE, "--quiet"]);
        Ok(Walk {
            flight: pipeline.start(&["flight", "--flush-interval", "300ms"])?,
            producer: pipeline.start(&producer)?,
            ingest: pipeline.start(&["ingest", "--group-instance", "one"])?,
            gold: pipeline.start(&["gold", "--flush-interval", "500ms"])?,
            bad: BadMessages::start(&environment.kafka, &pipeline.topic)?,
        })
    }

    fn service(&mut self, service: Service) -> &mut Process {
        match service {
            Service::Producer => &mut self.producer,
            Service::Ingest => &mut self.ingest,
            Service::Flight => &mut self.flight,
            Service::Gold => &mut self.gold,
        }
    }

    /// Kills a service at the `passes`-th pass of a failpoint, and restarts it.
    async fn kill_at(&mut self, service: Service, failpoint: &str, passes: u32) -> anyhow::Result<()> {
        let process = self.service(service);
        process.kill().await?;
        process.restart_with(&[(failpoint::VARIABLE, &format!("{failpoint}:{passes}"))])?;
        tokio::time::timeout(KILL_DEADLINE, process.hit_failpoint()).await??;
        process.restart()
    }
}

/// A producer of unusable messages, beside the one that sends candles.
struct BadMessages {
    stop: CancellationToken,
    sent: JoinHandle<anyhow::Result<i64>>,
}

impl BadMessages {
    fn start(kafka: &str, topic: &str) -> anyhow::Result<Self> {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", kafka)
            .set("enable.idempotence", "true")
            .set("topic.metadata.refresh.interval.ms", "500")
            .create()?;
        let (stop, topic) = (CancellationToken::new(), topic.to_owned());
        let stopped = stop.clone();
        let send = async move {
            let mut sent = 0;
            while stopped.run_until_cancelled(tokio::time::sleep(BAD_PAUSE)).await.is_some() {
                let record = FutureRecord::to(&topic).key("BAD-USD").payload("not a candle");
                producer.send(record, KILL_DEADLINE).await.map_err(|(error, _)| error)?;
                sent += 1;
            }
            Ok(sent)
        };
        #[expect(clippy::disallowed_methods, reason = "its end is awaited by `finish`")]
        let sent = tokio::spawn(send);
        Ok(BadMessages { stop, sent })
    }

    /// Returns the number of messages sent.
    async fn finish(&mut self) -> anyhow::Result<i64> {
        self.stop.cancel();
        (&mut self.sent).await?
    }
}

/// A planned kill.
#[derive(Clone, Copy, Debug)]
enum Kill {
    /// The process kills itself at a failpoint.
    At(Service, &'static str),
    /// The test kills the process at a random time.
    Random,
}

/// Returns `count` kills: all failpoints in a random order, then some at random times, and again.
fn kills(count: usize, random: &mut StdRng) -> Vec<Kill> {
    let mut kills = Vec::new();
    while kills.len() < count {
        let mut failpoints = FAILPOINTS;
        failpoints.shuffle(random);
        kills.extend(failpoints.map(|(service, failpoint)| Kill::At(service, failpoint)));
        kills.extend([Kill::Random; RANDOM_KILLS]);
    }
    kills.truncate(count);
    kills
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_leave_every_offset_once_and_gold_exact() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let (seed, count) = (environment::seed(), environment::kills()?);
    eprintln!("{count} kills; CANDLEFLIGHT_TEST_SEED={seed} repeats their choice");
    kill(&environment, &pipeline, count, StdRng::seed_from_u64(seed)).await?;
    eprintln!("{count} kills survived, seed {seed}");
    Ok(())
}

async fn kill(
    environment: &Environment,
    pipeline: &Pipeline,
    count: usize,
    mut random: StdRng,
) -> anyhow::Result<()> {
    // With this number of candles, the replay outlasts the kills.
    let days = 30 + u32::try_from(count)? / 8;
    let inputs = [
        synthetic(pipeline, "ONE-USD", days, 1).await?,
        synthetic(pipeline, "TWO-USD", days, 2).await?,
        synthetic(pipeline, "THREE-USD", days, 3).await?,
    ];
    let mut walk = Walk::start(environment, pipeline, &inputs)?;
    first_gold(pipeline).await;
    for (number, kill) in (1..).zip(kills(count, &mut random)) {
        match kill {
            Kill::At(service, failpoint) => {
                let passes = random.random_range(1..=3);
                eprintln!("kill {number} at {failpoint}, pass {passes}");
                walk.kill_at(service, failpoint, passes).await?;
            }
            Kill::Random => {
                let services = [Service::Producer, Service::Ingest, Service::Flight, Service::Gold];
                let service = services[random.random_range(0..services.len())];
                let pause = Duration::from_millis(random.random_range(0..700));
                eprintln!("kill {number}: {service:?} after {pause:?}");
                // The random moment is the purpose of this test, not a wait for a condition.
                tokio::time::sleep(pause).await;
                walk.service(service).kill().await?;
                walk.service(service).restart()?;
            }
        }
    }
    finish(environment, pipeline, &mut walk, &inputs).await
}

/// Finishes the replay quickly, and checks that no row is missing, duplicate or different.
async fn finish(
    environment: &Environment,
    pipeline: &Pipeline,
    walk: &mut Walk,
    inputs: &[Input],
) -> anyhow::Result<()> {
    walk.producer.kill().await?;
    let rest = input::producer(inputs, &["--resume", "--rate", "max", "--quiet"]);
    let produced = pipeline.run(&rest).await?;
    ensure!(produced.status.success(), "producer: {}", String::from_utf8_lossy(&produced.stderr));
    let bad = walk.bad.finish().await?;
    drained(pipeline, &environment.kafka).await?;
    offsets_tile(pipeline, &environment.kafka, bad).await?;
    gold_is_exact(pipeline, &[]).await?;
    let expected: usize = inputs.iter().map(Input::row_count).sum::<anyhow::Result<usize>>()?;
    let rows: i64 =
        pipeline.database().await?.query_one("SELECT count(*) FROM bitcoin_gold_data", &[]).await?.get(0);
    ensure!(rows == i64::try_from(expected)?, "gold has {rows} rows of {expected} candles");
    Ok(())
}

async fn first_gold(pipeline: &Pipeline) {
    eventually("the first gold row", KILL_DEADLINE, async || {
        let database = pipeline.database().await.ok()?;
        let rows: i64 = database.query_one("SELECT count(*) FROM bitcoin_gold_data", &[]).await.ok()?.get(0);
        (rows > 0).then_some(())
    })
    .await;
}
