//! The pure heart of gold: moving averages and volatilities of one symbol's candles, columns in, columns out.
//!
//! ```text
//!   event time    0   1   2   3   ·   ·   ·   7            (minutes; 4 to 6 are missing)
//!   close       100 101  99 102               103
//!                             ╰─ time: (2, 7] ─╯           2 samples, mean 102.5
//!                 ╰────────── rows: 5 ─────────╯           5 samples, mean 101.0
//! ```
//!
//! Every window is computed from its own values alone, shifted by its first one, in two passes and ascending order: there is no running
//! sum to drift, and the same candles give the same bits whatever range of rows is asked for.

use std::ops::Range;

use schema::MINUTE_MICROS;
use schema::gold::WINDOWS;

/// Neighbouring rows that are summed side by side, each in its own order: eight hide the latency of a dependent addition.
const LANES: usize = 8;

/// The widest window, in minutes or rows.
pub(crate) const WIDEST: u16 = WINDOWS[WINDOWS.len() - 1];

/// What a window of length w counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Frame {
    /// The candles of the last w minutes of event time: (t − w, t].
    Time,
    /// The last w candles, however far apart: the convention of Spark's `rowsBetween` and of TA-Lib.
    Rows,
}

/// One symbol's candles, strictly ascending by event time; the slices are of one length.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// Event times in microseconds.
    pub event_times: &'a [i64],
    /// Closing prices, finite.
    pub closes: &'a [f64],
    /// Volumes, finite.
    pub volumes: &'a [f64],
}

/// The columns of one window length, a row a candle.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Averages {
    /// Mean of the closes.
    pub price_ma: Vec<f64>,
    /// Sample standard deviation (n − 1) of the closes, `None` for fewer than two.
    pub price_volatility: Vec<Option<f64>>,
    /// Mean of the volumes.
    pub volume_ma: Vec<f64>,
    /// Number of candles.
    pub samples: Vec<i32>,
}

impl Frame {
    /// Returns, for each of `rows`, the index of the first candle in its window of length `window`.
    fn firsts(self, event_times: &[i64], rows: Range<usize>, window: u16) -> Vec<usize> {
        match self {
            Frame::Rows => rows.map(|row| (row + 1).saturating_sub(usize::from(window))).collect(),
            Frame::Time => {
                let before = |row: usize| event_times[row] - i64::from(window) * MINUTE_MICROS;
                let mut first = rows
                    .clone()
                    .next()
                    .map_or(0, |row| event_times[..row].partition_point(|t| *t <= before(row)));
                let advance = |row| {
                    while event_times[first] <= before(row) {
                        first += 1;
                    }
                    first
                };
                rows.map(advance).collect()
            }
        }
    }
}

/// Computes the windows that end at each of `rows` and appends them to `columns`, one for each length of [`WINDOWS`].
pub fn compute(
    series: Series<'_>,
    frame: Frame,
    rows: Range<usize>,
    columns: &mut [Averages; WINDOWS.len()],
) {
    for (window, averages) in WINDOWS.into_iter().zip(columns) {
        let firsts = frame.firsts(series.event_times, rows.clone(), window);
        averages.reserve(rows.len());
        let mut index = 0;
        while index < rows.len() {
            let (first, row) = (firsts[index], rows.start + index);
            let side_by_side = firsts[index..]
                .iter()
                .take(LANES)
                .zip(first..)
                .take_while(|(next, of_lane)| **next == *of_lane);
            if side_by_side.count() == LANES {
                averages.append::<LANES>(series, first..row + 1);
                index += LANES;
            } else {
                averages.append::<1>(series, first..row + 1);
                index += 1;
            }
        }
    }
}

impl Averages {
    fn reserve(&mut self, rows: usize) {
        self.price_ma.reserve(rows);
        self.price_volatility.reserve(rows);
        self.volume_ma.reserve(rows);
        self.samples.reserve(rows);
    }

    /// Appends `N` rows: those of `window` and of the same window moved on by one, two, … candles.
    fn append<const N: usize>(&mut self, series: Series<'_>, window: Range<usize>) {
        let samples = i32::try_from(window.len()).expect("a window is far shorter than 2³¹ candles");
        let n = f64::from(samples);
        let (price_ma, shifted_means) = means::<N>(series.closes, window.clone(), n);
        let (volume_ma, _) = means::<N>(series.volumes, window.clone(), n);
        self.price_ma.extend_from_slice(&price_ma);
        self.volume_ma.extend_from_slice(&volume_ma);
        self.samples.extend_from_slice(&[samples; N]);
        if samples < 2 {
            self.price_volatility.extend_from_slice(&[None; N]);
        } else {
            let squares = squared_deviations::<N>(series.closes, window, shifted_means);
            self.price_volatility.extend_from_slice(&squares.map(|sum| Some((sum / (n - 1.0)).sqrt())));
        }
    }
}

/// First pass: the means of `N` windows, and the same less each window's first value.
fn means<const N: usize>(values: &[f64], window: Range<usize>, n: f64) -> ([f64; N], [f64; N]) {
    let origins = lanes::<N>(values, window.start);
    let mut sums = [0.0; N];
    for index in window {
        let values = lanes::<N>(values, index);
        for lane in 0..N {
            sums[lane] += values[lane] - origins[lane];
        }
    }
    let shifted = sums.map(|sum| sum / n);
    (std::array::from_fn(|lane| origins[lane] + shifted[lane]), shifted)
}

/// Second pass: the sums of squared deviations from the shifted means.
fn squared_deviations<const N: usize>(
    values: &[f64],
    window: Range<usize>,
    shifted_means: [f64; N],
) -> [f64; N] {
    let origins = lanes::<N>(values, window.start);
    let mut sums = [0.0; N];
    for index in window {
        let values = lanes::<N>(values, index);
        for lane in 0..N {
            let deviation = (values[lane] - origins[lane]) - shifted_means[lane];
            sums[lane] += deviation * deviation;
        }
    }
    sums
}

fn lanes<const N: usize>(values: &[f64], first: usize) -> &[f64; N] {
    values[first..first + N].first_chunk().expect("the slice has N values")
}

#[cfg(test)]
mod tests;
