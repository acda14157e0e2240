//! The pure core of gold: moving averages and volatilities of one symbol's candles, from columns to columns.
//!
//! ```text
//!   event time    0   1   2   3   ·   ·   ·   7            (minutes; 4 to 6 are missing)
//!   close       100 101  99 102               103
//!                             ╰─ time: (2, 7] ─╯           2 samples, mean 102.5
//!                 ╰────────── rows: 5 ─────────╯           5 samples, mean 101.0
//! ```
//!
//! Every window is computed from its own values only, in ascending order. It takes two passes over the values minus the first one. No
//! running sum can drift, so the same candles give the same bits for every requested range of rows.

#![expect(clippy::inline_always, reason = "only inlined code is compiled for other vector widths, too")]

use std::ops::Range;

use multiversion::multiversion;
use schema::MINUTE_MICROS;
use schema::gold::WINDOWS;

/// Number of neighbouring rows that are summed side by side, each in its own order. Eight lanes hide the latency of dependent additions.
const LANES: usize = 8;

/// The widest window, in minutes or rows.
pub const WIDEST: u16 = WINDOWS[WINDOWS.len() - 1];

/// Unit in which a window of length w is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Frame {
    /// The candles of the last w minutes of event time: (t − w, t].
    Time,
    /// The last w candles, at any distance: the convention of Spark's `rowsBetween` and of TA-Lib.
    Rows,
}

/// One symbol's candles, strictly ascending by event time. The slices have the same length.
#[derive(Clone, Copy, Debug)]
pub struct Series<'a> {
    /// Event times in microseconds.
    pub event_times: &'a [i64],
    /// Closing prices, finite.
    pub closes: &'a [f64],
    /// Volumes, finite.
    pub volumes: &'a [f64],
}

/// The columns of one window length, with one row for each candle.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Averages {
    /// Mean of the closes.
    pub price_ma: Vec<f64>,
    /// Sample standard deviation (n − 1) of the closes. It is 0 for fewer than two candles, which have no deviation.
    pub price_volatility: Vec<f64>,
    /// Mean of the volumes.
    pub volume_ma: Vec<f64>,
    /// Number of candles.
    pub samples: Vec<i32>,
}

impl Frame {
    /// Returns the name as in the flag.
    pub fn name(self) -> &'static str {
        match self {
            Frame::Time => "time",
            Frame::Rows => "rows",
        }
    }

    /// Returns the frame with this name.
    pub fn from_name(name: &str) -> Option<Frame> {
        [Frame::Time, Frame::Rows].into_iter().find(|frame| frame.name() == name)
    }

    /// Returns the index of the first candle in the window of length `window` that ends at `row`. `known` must not be greater than this
    /// index.
    #[inline(always)]
    fn first(self, event_times: &[i64], row: usize, window: u16, known: usize) -> usize {
        match self {
            Frame::Rows => (row + 1).saturating_sub(usize::from(window)),
            Frame::Time => {
                let before = event_times[row] - micros(window);
                let outside = event_times[known..].iter().take_while(|event_time| **event_time <= before);
                known + outside.count()
            }
        }
    }

    /// Returns true if `N` consecutive windows slide by one candle each. They end at `row` and the rows after it, and must begin at `first`
    /// and the candles after it.
    #[inline(always)]
    fn slides<const N: usize>(self, event_times: &[i64], first: usize, row: usize, window: u16) -> bool {
        match self {
            Frame::Rows => first + usize::from(window) == row + 1,
            Frame::Time => {
                let (firsts, lasts) = (lanes::<_, N>(event_times, first), lanes::<_, N>(event_times, row));
                // The code has no branches, since the result is always true for minutes without gaps.
                (1..N).fold(true, |slides, lane| {
                    slides
                        & (lasts[lane] - firsts[lane - 1] >= micros(window))
                        & (lasts[lane] - firsts[lane] < micros(window))
                })
            }
        }
    }
}

/// Computes the windows that end at each of `rows` and appends them to `columns`, one for each length in [`WINDOWS`].
// Also compiled for the widest vectors of the machine. Every version adds the lanes in the same order, so the bits are the same.
#[multiversion(targets("x86_64+avx2"), dispatcher = "direct")]
pub fn compute(
    series: Series<'_>,
    frame: Frame,
    rows: Range<usize>,
    columns: &mut [Averages; WINDOWS.len()],
) {
    let Series { event_times, .. } = series;
    for (window, averages) in WINDOWS.into_iter().zip(columns) {
        averages.reserve(rows.len());
        let mut first = event_times.get(rows.start).map_or(0, |last| {
            event_times[..rows.start].partition_point(|event_time| *event_time <= last - micros(window))
        });
        let mut row = rows.start;
        while row < rows.end {
            first = frame.first(event_times, row, window, first);
            if row + LANES <= rows.end && frame.slides::<LANES>(event_times, first, row, window) {
                averages.append::<LANES>(series, first..row + 1);
                row += LANES;
            } else {
                averages.append::<1>(series, first..row + 1);
                row += 1;
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

    /// Appends `N` rows: one for `window`, and one for each of the windows shifted by one, two, … candles.
    #[inline(always)]
    fn append<const N: usize>(&mut self, series: Series<'_>, window: Range<usize>) {
        let samples = i32::try_from(window.len()).expect("a window is far shorter than 2³¹ candles");
        let n = f64::from(samples);
        let (price_ma, shifted_means) = means::<N>(series.closes, window.clone(), n);
        let (volume_ma, _) = means::<N>(series.volumes, window.clone(), n);
        self.price_ma.extend_from_slice(&price_ma);
        self.volume_ma.extend_from_slice(&volume_ma);
        self.samples.extend_from_slice(&[samples; N]);
        if samples < 2 {
            self.price_volatility.extend_from_slice(&[0.0; N]);
        } else {
            let squares = squared_deviations::<N>(series.closes, window, shifted_means);
            self.price_volatility.extend_from_slice(&squares.map(|sum| (sum / (n - 1.0)).sqrt()));
        }
    }
}

/// First pass: returns the means of `N` windows, and the same means minus the first value of each window.
#[inline(always)]
fn means<const N: usize>(values: &[f64], window: Range<usize>, n: f64) -> ([f64; N], [f64; N]) {
    let origins = lanes::<_, N>(values, window.start);
    let mut sums = [0.0; N];
    // The first value minus itself is zero.
    for index in window.start + 1..window.end {
        let values = lanes::<_, N>(values, index);
        for lane in 0..N {
            sums[lane] += values[lane] - origins[lane];
        }
    }
    let shifted = sums.map(|sum| sum / n);
    (std::array::from_fn(|lane| origins[lane] + shifted[lane]), shifted)
}

/// Second pass: returns the sums of squared deviations from the shifted means.
#[inline(always)]
fn squared_deviations<const N: usize>(
    values: &[f64],
    window: Range<usize>,
    shifted_means: [f64; N],
) -> [f64; N] {
    let origins = lanes::<_, N>(values, window.start);
    let mut sums = [0.0; N];
    for index in window {
        let values = lanes::<_, N>(values, index);
        for lane in 0..N {
            let deviation = (values[lane] - origins[lane]) - shifted_means[lane];
            sums[lane] += deviation * deviation;
        }
    }
    sums
}

fn micros(window: u16) -> i64 {
    i64::from(window) * MINUTE_MICROS
}

#[inline(always)]
fn lanes<T, const N: usize>(values: &[T], first: usize) -> &[T; N] {
    values[first..first + N].first_chunk().expect("the slice has N values")
}

#[cfg(test)]
mod tests;
