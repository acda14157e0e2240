//! Candles for the tests: the shipped sample, real market data if it exists beside the checkout, and synthetic candles of any length.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::pipeline::Pipeline;

/// A CSV file and the symbol of its candles.
#[derive(Clone, Debug)]
pub struct Input {
    /// The file.
    pub file: PathBuf,
    /// The symbol.
    pub symbol: String,
}

impl Input {
    /// Returns the value of the producer's `--input`.
    pub fn flag(&self) -> String {
        format!("{}={}", self.file.display(), self.symbol)
    }

    /// Returns the number of candles in the file: its lines without the header.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn row_count(&self) -> anyhow::Result<usize> {
        let text = fs::read_to_string(&self.file).with_context(|| format!("read {}", self.file.display()))?;
        Ok(text.lines().filter(|line| !line.trim().is_empty()).count().saturating_sub(1))
    }
}

/// Returns the arguments of a producer of `inputs`, with `flags` before the inputs.
pub fn producer(inputs: &[Input], flags: &[&str]) -> Vec<String> {
    let flags = flags.iter().map(|flag| (*flag).to_owned());
    let inputs = inputs.iter().flat_map(|input| ["--input".to_owned(), input.flag()]);
    ["producer".to_owned()].into_iter().chain(flags).chain(inputs).collect()
}

/// Returns the shipped sample and every file of real market data in `CANDLEFLIGHT_TEST_DATA`, each with its own symbol. The default folder
/// is `../shared/data`, beside the checkout.
///
/// # Errors
///
/// A folder cannot be listed.
pub fn all() -> anyhow::Result<Vec<Input>> {
    let root = root()?;
    let mut inputs = vec![Input { file: sample()?, symbol: "SAMPLE-USD".to_owned() }];
    let folder =
        std::env::var_os("CANDLEFLIGHT_TEST_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    if folder.is_dir() {
        let mut files: Vec<PathBuf> =
            fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "csv"));
        files.sort();
        inputs.extend(files.into_iter().map(|file| {
            let symbol =
                file.file_stem().map(|stem| stem.to_string_lossy().to_uppercase()).unwrap_or_default();
            Input { file, symbol }
        }));
    } else {
        eprintln!("no real market data in {}, only the sample is used", folder.display());
    }
    Ok(inputs)
}

/// Returns the shipped sample.
///
/// # Errors
///
/// The tests do not run in a checkout.
pub fn sample() -> anyhow::Result<PathBuf> {
    Ok(root()?.join("data/sample.csv"))
}

fn root() -> anyhow::Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate is in the checkout")
}

/// Writes `days` of synthetic candles from `seed`, from 2025 on, to the pipeline's folder.
///
/// # Errors
///
/// The program does not exist.
pub async fn synthetic(pipeline: &Pipeline, symbol: &str, days: u32, seed: u64) -> anyhow::Result<Input> {
    synthetic_from(pipeline, symbol, "2025-01-01T00:00:00Z", days, seed).await
}

/// Writes synthetic candles that begin at `start`. Candles of the future are rejected, so many days must begin earlier.
///
/// # Errors
///
/// The program does not exist.
pub async fn synthetic_from(
    pipeline: &Pipeline,
    symbol: &str,
    start: &str,
    days: u32,
    seed: u64,
) -> anyhow::Result<Input> {
    let file = pipeline.folder.path().join(format!("{symbol}.csv"));
    let path = file.to_string_lossy().into_owned();
    let (days, seed) = (days.to_string(), seed.to_string());
    let flags = ["--start", start, "--days", &days, "--seed", &seed, "--output", &path];
    let output = pipeline.run(&[&["sample"], &flags[..]].concat()).await?;
    anyhow::ensure!(output.status.success(), "sample: {}", String::from_utf8_lossy(&output.stderr));
    Ok(Input { file, symbol: symbol.to_owned() })
}
