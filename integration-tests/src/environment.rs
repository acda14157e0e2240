//! Where the servers of `script/test` are.

use std::env;
use std::path::PathBuf;

use anyhow::Context as _;

/// Kills of the crash test by default.
const KILLS: usize = 54;

/// The real servers, one each for all tests, and how to have more.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Bootstrap servers of Apache Kafka.
    pub kafka: String,
    /// URL of PostgreSQL with a superuser's name and password, without a database.
    pub postgres: String,
    /// URL of MinIO; its keys are in the usual `AWS_…` variables, which child processes inherit.
    pub s3_endpoint: String,
    /// A Python with deltalake, polars, pandas, pyarrow, duckdb, psycopg2, playwright and `adbc_driver_flightsql`.
    pub python: PathBuf,
    /// The Arrow Flight SQL JDBC driver in each version that people have, jars; the one to recommend first.
    pub jdbc_drivers: Vec<String>,
    /// The program of `integration-tests/go`, built.
    pub go_check: PathBuf,
    /// `script/stack`, which starts, stops and kills servers.
    pub stack: PathBuf,
}

impl Environment {
    /// Reads the variables that `script/test` sets; `None`, after saying so, where they are missing: the test is to be skipped.
    ///
    /// # Panics
    ///
    /// When they are missing and `CI=true`: there nothing may be skipped.
    pub fn get() -> Option<Environment> {
        let environment = Self::read();
        if environment.is_none() {
            let message = "the integration tests need real servers: run script/test";
            assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{message}");
            eprintln!("SKIPPED: {message}");
        }
        environment
    }

    fn read() -> Option<Environment> {
        Some(Environment {
            kafka: env::var("CANDLEFLIGHT_TEST_KAFKA").ok()?,
            postgres: env::var("CANDLEFLIGHT_TEST_POSTGRES").ok()?.rsplit_once('/')?.0.to_owned(),
            s3_endpoint: env::var("CANDLEFLIGHT_TEST_S3_ENDPOINT").ok()?,
            python: env::var_os("CANDLEFLIGHT_TEST_PYTHON")?.into(),
            jdbc_drivers: env::var("CANDLEFLIGHT_TEST_JDBC_DRIVERS")
                .ok()?
                .split(':')
                .map(str::to_owned)
                .collect(),
            go_check: env::var_os("CANDLEFLIGHT_TEST_GO_CHECK")?.into(),
            stack: env::var_os("CANDLEFLIGHT_TEST_STACK")?.into(),
        })
    }
}

/// Returns the seed of random choices: `CANDLEFLIGHT_TEST_SEED`, which repeats a run, else a new one. Tests print it.
pub fn seed() -> u64 {
    let given = env::var("CANDLEFLIGHT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(rand::random)
}

/// Returns how often the crash test kills: `CANDLEFLIGHT_TEST_KILLS`, which `script/test --kills N` sets, by default 54.
///
/// # Errors
///
/// The variable is no number.
pub fn kills() -> anyhow::Result<usize> {
    let Ok(kills) = env::var("CANDLEFLIGHT_TEST_KILLS") else { return Ok(KILLS) };
    kills.parse().with_context(|| format!("CANDLEFLIGHT_TEST_KILLS={kills} is no number"))
}
