//! Measures everything, prints one table and writes it where it is asked to.

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

/// The program's.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Measures the pipeline beside the limits of this machine and the alternatives, on the servers that script/bench starts.
#[derive(Debug, Parser)]
struct Args {
    /// A short run that shows that everything works; its figures say nothing.
    #[arg(long)]
    quick: bool,
    /// Candles of the large measurements.
    #[arg(long)]
    rows: Option<usize>,
    /// Runs, of which the median counts.
    #[arg(long)]
    runs: Option<usize>,
    /// Seconds that a measurement at a steady rate lasts.
    #[arg(long)]
    seconds: Option<u64>,
    /// Rows of the tables at which growth is measured, ascending.
    #[arg(long, value_name = "ROWS", value_delimiter = ',')]
    growth_rows: Option<Vec<usize>>,
    /// Versions of the bronze table at which growth is measured after that, ascending.
    #[arg(long, value_name = "VERSIONS", value_delimiter = ',')]
    growth_versions: Option<Vec<u32>>,
    /// Just this measurement; repeatable.
    #[arg(long, value_name = "MEASUREMENT")]
    only: Vec<String>,
    /// File of all values (JSON), which plots are drawn from; each measurement takes its own ones' place when it ends, so that a part can
    /// be measured again.
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// Document (Markdown) whose table is to be replaced by one of the values.
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
        bail!("there is no measurement {unknown}; there are: {}", known().collect::<Vec<_>>().join(", "));
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
            let document = report::insert(&document, &(report::machine() + &report::table(&figures)));
            let document =
                document.with_context(|| format!("{} has no place for a table", file.display()))?;
            write(file, document.as_bytes())?;
        }
    }
    print(&report::table(&figures));
    Ok(())
}

/// Reads the figures of earlier measurements; none where there is no file yet.
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
