//! JSON to the columns of bronze: one batch of ingest's largest size.

use bench::json::{Messages, read};
use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

#[divan::bench]
fn ours(bencher: Bencher<'_, '_>) {
    let messages = Messages::generate(16_384);
    let batch: Vec<&[u8]> = messages.batches().flatten().collect();
    bencher.counter(ItemsCount::new(batch.len())).bench(|| read(&batch));
}
