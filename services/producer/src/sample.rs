//! The synthetic sample: candles that look like those of bitcoin.
//!
//! The same seed gives the same bytes on every machine and in every version. So the code uses only additions, multiplications, divisions
//! and square roots, which all machines round alike, and its own random generator.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use chrono::{DateTime, Utc};

use crate::Error;

const HEADER: &str = "Timestamp,Open,High,Low,Close,Volume";
const MINUTE_SECONDS: i64 = 60;
const MINUTES_A_DAY: u32 = 1440;
/// Price at the start, in dollars.
const PRICE: f64 = 65_000.0;
/// Long-run standard deviation of the return of a minute: about 50 % a year, as for bitcoin.
const VOLATILITY: f64 = 7e-4;
/// GARCH(1,1) weight of the squared return of the last minute. This and [`PERSISTENCE`] are typical of fits to minute returns.
const SHOCK: f64 = 0.08;
/// GARCH(1,1) weight of the variance of the last minute.
const PERSISTENCE: f64 = 0.90;
/// Number of trades in a candle: enough that high and low usually differ from open and close.
const STEPS: u32 = 16;
/// Volume of an average minute, in bitcoin.
const VOLUME: f64 = 8.0;
/// Inverse of the probability that a minute begins a gap.
const GAP_ONE_IN: u64 = 500;
/// Longest gap, in minutes.
const GAP_MINUTES_MAX: u64 = 12;

/// Flags of `candleflight sample`.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "sample")]
pub struct Config {
    /// Seed of the random generator. The same seed gives the same file.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Number of days.
    #[arg(long, default_value_t = 3)]
    pub days: u32,
    /// Time of the first candle.
    #[arg(long, default_value = "2025-01-01T00:00:00Z")]
    pub start: DateTime<Utc>,
    /// File to write.
    #[arg(long, default_value = "data/sample.csv")]
    pub output: PathBuf,
}

/// Writes the sample. Returns the number of candles.
///
/// # Errors
///
/// [`Error::Write`].
pub fn run(config: &Config) -> Result<u64, Error> {
    let failed = |source| Error::Write { path: config.output.clone(), source };
    let mut output = BufWriter::new(File::create(&config.output).map_err(failed)?);
    let count = write(config, &mut output).map_err(failed)?;
    output.flush().map_err(failed)?;
    Ok(count)
}

fn write(config: &Config, output: &mut impl Write) -> io::Result<u64> {
    let mut market = Market::new(config.seed);
    let first = config.start.timestamp().div_euclid(MINUTE_SECONDS) * MINUTE_SECONDS;
    let mut count = 0;
    let mut gap = 0;
    writeln!(output, "{HEADER}")?;
    for minute in 0..i64::from(config.days) * i64::from(MINUTES_A_DAY) {
        let Candle { open, high, low, close, volume } = market.minute();
        if gap > 0 {
            gap -= 1;
            continue;
        }
        if market.random.below(GAP_ONE_IN) == 0 {
            gap = market.random.below(GAP_MINUTES_MAX);
            continue;
        }
        let timestamp = first + minute * MINUTE_SECONDS;
        writeln!(output, "{timestamp}.0,{open:.2},{high:.2},{low:.2},{close:.2},{volume:.8}")?;
        count += 1;
    }
    Ok(count)
}

struct Candle {
    open: f64,
    high: f64,
    low: f64,
    close: f64,
    volume: f64,
}

/// A price whose volatility clusters: GARCH(1,1) from minute to minute, a random walk within each.
struct Market {
    random: SplitMix64,
    price: f64,
    variance: f64,
}

impl Market {
    fn new(seed: u64) -> Self {
        Market { random: SplitMix64(seed), price: PRICE, variance: VOLATILITY * VOLATILITY }
    }

    fn minute(&mut self) -> Candle {
        let step_deviation = (self.variance / f64::from(STEPS)).sqrt();
        let open = self.price;
        let (mut high, mut low) = (open, open);
        for _ in 0..STEPS {
            self.price *= 1.0 + step_deviation * self.random.normal();
            (high, low) = (high.max(self.price), low.min(self.price));
        }
        let change = self.price / open - 1.0;
        let activity = (self.variance.sqrt() + change.abs()) / (2.0 * VOLATILITY);
        let volume = VOLUME * activity * (0.25 + 1.5 * self.random.uniform());
        let long_run = (1.0 - SHOCK - PERSISTENCE) * VOLATILITY * VOLATILITY;
        self.variance = long_run + SHOCK * change * change + PERSISTENCE * self.variance;
        Candle { open, high, low, close: self.price, volume }
    }
}

/// Vigna's SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>). It is used because generators of `rand` may change between versions.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number in [0, 1), a multiple of 2⁻³².
    fn uniform(&mut self) -> f64 {
        let high_bits = u32::try_from(self.next() >> 32).expect("32 bits are left");
        f64::from(high_bits) / (f64::from(u32::MAX) + 1.0)
    }

    /// Returns an integer below `bound`. The bias of the remainder is negligible here.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Returns a nearly normal number with mean 0 and deviation 1: the sum of twelve uniform numbers, which needs no logarithm.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

#[cfg(test)]
mod tests;
