//! Runs the measurements, prints one table, and writes it with its headlines to the given document.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bench::figure::Figure;
use bench::scale::Scale;
use bench::{MEASUREMENTS, Setting, report};
use clap::Parser;
use integration_tests::environment::Environment;
use tikv_jemallocator::Jemalloc;

/// Allocator of this program, as in `candleflight`.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Measures the pipeline and compares it with the limits of this machine and with alternatives, on the servers that script/bench starts.
#[derive(Debug, Parser)]
struct Args {
    /// Do a short run that only shows that everything works. Its figures have no meaning.
    #[arg(long)]
    quick: bool,
    /// Number of candles in the large measurements.
    #[arg(long)]
    rows: Option<usize>,
    /// Number of runs. The median counts.
    #[arg(long)]
    runs: Option<usize>,
    /// Duration of a measurement at a steady rate, in seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Table rows at which growth is measured, ascending.
    #[arg(long, value_name = "ROWS", value_delimiter = ',')]
    growth_rows: Option<Vec<usize>>,
    /// Versions of the bronze table at which growth is measured after that, ascending.
    #[arg(long, value_name = "VERSIONS", value_delimiter = ',')]
    growth_versions: Option<Vec<u32>>,
    /// Run only this measurement. Repeatable.
    #[arg(long, value_name = "MEASUREMENT")]
    only: Vec<String>,
    /// JSON file of all values, from which plots are drawn. Each measurement replaces its own values when it ends, so that single
    /// measurements can be repeated.
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// Markdown document whose headlines and table are replaced by those of the values.
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut scale = if args.quick { Scale::quick() } else { Scale::full() };
    scale.rows = args.rows.unwrap_or(scale.rows);
    scale.runs = args.runs.unwrap_or(scale.runs);
    scale.seconds = args.seconds.unwrap_or(scale.seconds);
    scale.growth_rows = args.growth_rows.unwrap_or(scale.growth_rows);
    scale.growth_versions = args.growth_versions.unwrap_or(scale.growth_versions);
    let environment = Environment::get().context("run script/bench")?;
    let setting = Setting { environment, scale };

    let known = || MEASUREMENTS.iter().map(|(name, _)| *name);
    if let Some(unknown) = args.only.iter().find(|only| !known().any(|name| name == *only)) {
        bail!(
            "there is no measurement {unknown}; the measurements are: {}",
            known().collect::<Vec<_>>().join(", ")
        );
    }
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let mut figures = args.values.as_deref().map(read).transpose()?.unwrap_or_default();
    for (name, measure) in MEASUREMENTS.iter().filter(|(name, _)| wanted(name)) {
        eprintln!("bench: {name}");
        let measured = measure(&setting).await.with_context(|| format!("measure {name}"))?;
        eprint!("{}", report::table(&measured));
        figures.retain(|figure| figure.measurement != *name);
        figures.extend(measured);
        figures.sort_by_key(|figure| known().position(|name| name == figure.measurement));
        if let Some(file) = &args.values {
            write(file, &serde_json::to_vec_pretty(&figures)?)?;
        }
        if let Some(file) = &args.document {
            let document = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            let document = report::insert(&document, &report::machine(), &figures);
            let document =
                document.with_context(|| format!("{} has no places for the tables", file.display()))?;
            write(file, document.as_bytes())?;
        }
    }
    print(&report::table(&figures));
    Ok(())
}

/// Reads the figures of earlier measurements. Returns none if the file does not exist.
fn read(file: &Path) -> anyhow::Result<Vec<Figure>> {
    match fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("read {}", file.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", file.display())),
    }
}

fn write(file: &Path, text: &[u8]) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

#[expect(clippy::print_stdout, reason = "the table is what the program is for")]
fn print(table: &str) {
    println!("{table}");
}
