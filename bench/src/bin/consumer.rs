//! Reads a topic with glibc's allocator and prints messages per second: see [`bench::consumer`].

use std::io::Write as _;

use bench::consumer::{Args, read};
use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let rate = read(Args::parse()).await?;
    Ok(writeln!(std::io::stdout(), "{rate}")?)
}
