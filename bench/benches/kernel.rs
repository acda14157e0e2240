//! Kernel of gold: all windows over a series of candles, by frame and size.

use bench::kernel::Candles;
use divan::Bencher;
use divan::counter::ItemsCount;
use kernel::{Averages, Frame, compute};
use schema::gold::WINDOWS;

/// Numbers of candles: a fresh candle with the rows of its windows, and the numbers that gold computes at a time.
const SIZES: [usize; 3] = [60, 4096, 65_536];

fn main() {
    divan::main();
}

#[divan::bench(args = SIZES)]
fn time(bencher: Bencher<'_, '_>, rows: usize) {
    windows(bencher, Frame::Time, rows);
}

#[divan::bench(args = SIZES)]
fn rows(bencher: Bencher<'_, '_>, rows: usize) {
    windows(bencher, Frame::Rows, rows);
}

fn windows(bencher: Bencher<'_, '_>, frame: Frame, rows: usize) {
    let candles = Candles::generate(rows, 1);
    bencher.counter(ItemsCount::new(rows)).bench(|| {
        let mut averages: [Averages; WINDOWS.len()] = Default::default();
        compute(candles.series(), frame, 0..rows, &mut averages);
        averages
    });
}
