//! The contract in `proto/`: clients that others generate from it follow both tables.

use std::path::Path;

use anyhow::{Context as _, ensure};
use integration_tests::check::{drained, pipeline};
use integration_tests::input::{self, synthetic};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_generated_from_the_contract_follow_both_tables() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let inputs = [synthetic(&pipeline, "ONE-USD", 3, 1).await?, synthetic(&pipeline, "TWO-USD", 3, 2).await?];
    let _flight = pipeline.start(&["flight", "--flush-interval", "300ms"])?;
    let _gold = pipeline.start(&["gold", "--flush-interval", "300ms"])?;
    let _ingest = pipeline.start(&["ingest"])?;
    let arguments = input::producer(&inputs, &["--rate", "max", "--quiet"]);
    ensure!(pipeline.run(&arguments).await?.status.success(), "the producer ends well");
    drained(&pipeline, &environment.kafka).await?;

    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = tests.parent().context("the crate lies in the checkout")?;
    let mut python = Command::new(&environment.python);
    python.arg("-B").arg(tests.join("python/check_proto.py")).args(["--flight", &pipeline.flight]);
    python.arg("--proto").arg(root.join("proto"));
    let mut go = Command::new(&environment.go_check);
    go.args([&pipeline.flight, "follow", "0"]);
    for program in [&mut python, &mut go] {
        let output = program.output().await?;
        let (printed, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{printed}{error}");
        eprintln!("{printed}");
    }
    Ok(())
}
