//! Exactly once: every service is killed at every arrow of the walk and at random times under load, and nothing shows it afterwards.

use std::time::Duration;

use anyhow::ensure;
use integration_tests::check::{drained, gold_is_exact, offsets_tile, pipeline};
use integration_tests::environment::{self, Environment};
use integration_tests::input::{self, Input, synthetic};
use integration_tests::pipeline::Pipeline;
use integration_tests::process::Process;
use integration_tests::wait::eventually;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Every failpoint of the walk, with the service that passes it.
const FAILPOINTS: [(Service, &str); 14] = [
    (Service::Producer, "producer.sent"),
    (Service::Ingest, "ingest.polled"),
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
/// How often each failpoint kills.
const ROUNDS: usize = 2;
/// Kills at random times, beside those at failpoints: more than 50 together.
const RANDOM_KILLS: usize = 24;
/// Candles a second while services die; slow enough that the replay outlasts the kills.
const RATE: &str = "400/s";
/// How long a service may take to pass an armed failpoint under load.
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
}

impl Walk {
    fn start(pipeline: &Pipeline, inputs: &[Input]) -> anyhow::Result<Walk> {
        let producer = input::producer(inputs, &["--resume", "--rate", RATE, "--quiet"]);
        Ok(Walk {
            flight: pipeline.start(&["flight", "--flush-interval", "300ms"])?,
            producer: pipeline.start(&producer)?,
            ingest: pipeline.start(&["ingest", "--group-instance", "one"])?,
            gold: pipeline.start(&["gold", "--flush-interval", "500ms"])?,
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

    /// Kills a service the given time it passes a failpoint, and starts it again.
    async fn kill_at(&mut self, service: Service, failpoint: &str, passes: u32) -> anyhow::Result<()> {
        let process = self.service(service);
        process.kill().await?;
        process.restart_with(&[(failpoint::VARIABLE, &format!("{failpoint}:{passes}"))])?;
        tokio::time::timeout(KILL_DEADLINE, process.hit_failpoint()).await??;
        process.restart()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_leave_every_offset_once_and_gold_exact() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let seed = environment::seed();
    eprintln!("CANDLEFLIGHT_TEST_SEED={seed} repeats the choice of kills");
    kill(&environment, &pipeline, StdRng::seed_from_u64(seed)).await
}

async fn kill(environment: &Environment, pipeline: &Pipeline, mut random: StdRng) -> anyhow::Result<()> {
    let inputs = [
        synthetic(pipeline, "ONE-USD", 30, 1).await?,
        synthetic(pipeline, "TWO-USD", 30, 2).await?,
        synthetic(pipeline, "THREE-USD", 30, 3).await?,
    ];
    let mut walk = Walk::start(pipeline, &inputs)?;
    first_gold(pipeline).await;
    for _round in 0..ROUNDS {
        for (service, failpoint) in FAILPOINTS {
            let passes = random.random_range(1..=3);
            eprintln!("kill at {failpoint}, pass {passes}");
            walk.kill_at(service, failpoint, passes).await?;
        }
    }
    for _kill in 0..RANDOM_KILLS {
        let service =
            [Service::Producer, Service::Ingest, Service::Flight, Service::Gold][random.random_range(0..4)];
        let pause = Duration::from_millis(random.random_range(0..700));
        eprintln!("kill {service:?} after {pause:?}");
        // The random moment is the point of this test, not a wait for something.
        tokio::time::sleep(pause).await;
        walk.service(service).kill().await?;
        walk.service(service).restart()?;
    }
    finish(environment, pipeline, &mut walk, &inputs).await
}

/// Ends the replay quickly, and checks that nothing is missing, doubled or different.
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
    drained(pipeline, &environment.kafka).await?;
    offsets_tile(pipeline, &environment.kafka, 0).await?;
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
