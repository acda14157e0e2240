//! The certificate that people usually create first. The server reports its fault, and its advice works.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use integration_tests::check::pipeline;
use integration_tests::pipeline::Pipeline;
use integration_tests::wait::eventually;
use tokio::process::Command;

/// Longest wait of this test.
const DEADLINE: Duration = Duration::from_mins(1);
/// Command in most tutorials.
const USUAL: &str = "openssl req -x509 -newkey rsa:2048 -nodes -days 365 -keyout key.pem -out certificate.pem -subj /CN=localhost";

/// Runs a command line in the pipeline's folder.
async fn shell(pipeline: &Pipeline, command: &str) -> anyhow::Result<()> {
    let output =
        Command::new("sh").args(["-c", command]).current_dir(pipeline.folder.path()).output().await?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_certificate_works_as_advised() -> anyhow::Result<()> {
    let Some((_, pipeline)) = pipeline().await? else { return Ok(()) };
    shell(&pipeline, USUAL).await?;
    let file = |name: &str| pipeline.folder.path().join(name).display().to_string();
    let (certificate, key) = (file("certificate.pem"), file("key.pem"));
    let own = ["--tls-cert", &certificate, "--tls-key", &key];
    let refused = pipeline.run(&[&["flight"], &own[..]].concat()).await?;
    let text = error(&refused);
    ensure!(!refused.status.success() && text.contains("CA:TRUE"), "{text}");
    let (_, advice) = text.trim().split_once("create one with: ").context("advice")?;
    shell(&pipeline, &advice.replace("HOST", "localhost")).await?;

    let trusted = ["--tls-ca", &certificate];
    let mut flight = pipeline.start(&[&["flight"], &own[..], &trusted].concat())?;
    let (_, port) = pipeline.flight.rsplit_once(':').context("a port")?;
    let url = format!("grpc+tls://localhost:{port}");
    let query = [&["sql", "--flight", &url, "SELECT 1"], &trusted[..]].concat();
    eventually("a client that trusts the certificate gets an answer", DEADLINE, async || {
        assert!(flight.is_running().unwrap_or(false), "{}", flight.log().unwrap_or_default());
        pipeline.run(&query).await.ok().filter(|output| output.status.success())
    })
    .await;
    Ok(())
}
