//! Interoperability: other engines read both tables from MinIO, other clients query them, and all see the same rows.

use anyhow::ensure;
use integration_tests::check::{drained, pipeline};
use integration_tests::input::{self, synthetic};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn deltalake_polars_and_adbc_in_python_see_the_same_rows() -> anyhow::Result<()> {
    let Some((environment, pipeline)) = pipeline().await? else { return Ok(()) };
    let inputs = [synthetic(&pipeline, "ONE-USD", 4, 1).await?, synthetic(&pipeline, "TWO-USD", 4, 2).await?];
    let _flight = pipeline.start(&["flight", "--flush-interval", "300ms"])?;
    let _gold = pipeline.start(&["gold", "--flush-interval", "300ms"])?;
    let _ingest = pipeline.start(&["ingest"])?;
    let arguments = input::producer(&inputs, &["--rate", "4000/s", "--quiet"]);
    ensure!(pipeline.run(&arguments).await?.status.success(), "the producer ends well");
    drained(&pipeline, &environment.kafka).await?;

    let output = Command::new(&environment.python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/python/check_interop.py"))
        .args(["--lake", &pipeline.lake, "--flight", &pipeline.flight, "--postgres", &pipeline.postgres])
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    eprintln!("{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}
