//! Addresses of the servers of `script/test`.

use std::env;
use std::path::PathBuf;

use anyhow::Context as _;

/// Default number of kills in the crash test.
const KILLS: usize = 54;

/// The real servers, one of each kind for all tests, and the programs that the tests need.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Bootstrap servers of Apache Kafka.
    pub kafka: String,
    /// URL of PostgreSQL with the name and password of a superuser, without a database.
    pub postgres: String,
    /// URL of MinIO. Its keys are in the usual `AWS_…` variables, which child processes inherit.
    pub s3_endpoint: String,
    /// Path of a Python with deltalake, polars, pandas, pyarrow, duckdb, psycopg2, playwright and `adbc_driver_flightsql`.
    pub python: PathBuf,
    /// Jars of the Arrow Flight SQL JDBC driver in each version in use. The recommended one comes first.
    pub jdbc_drivers: Vec<String>,
    /// Path of the built program of `integration-tests/go`.
    pub go_check: PathBuf,
    /// Path of `script/stack`, which starts, stops and kills servers.
    pub stack: PathBuf,
}

impl Environment {
    /// Reads the variables that `script/test` sets. If they are missing, prints a note and returns `None`: the test must be skipped.
    ///
    /// # Panics
    ///
    /// The variables are missing and `CI=true`, which does not allow skipped tests.
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

/// Returns the seed of random choices: `CANDLEFLIGHT_TEST_SEED`, which repeats a run, otherwise a new one. Tests print it.
pub fn seed() -> u64 {
    let given = env::var("CANDLEFLIGHT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(rand::random)
}

/// Returns the number of kills in the crash test: `CANDLEFLIGHT_TEST_KILLS`, which `script/test --kills N` sets, otherwise 54.
///
/// # Errors
///
/// The variable is not a number.
pub fn kills() -> anyhow::Result<usize> {
    let Ok(kills) = env::var("CANDLEFLIGHT_TEST_KILLS") else { return Ok(KILLS) };
    kills.parse().with_context(|| format!("CANDLEFLIGHT_TEST_KILLS={kills} is not a number"))
}
