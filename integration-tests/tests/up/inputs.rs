//! Files that fail at some line, or contain no candles. Each of them ends alone and does not affect the others.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use anyhow::ensure;
use integration_tests::check;
use integration_tests::input::{self, Input};
use integration_tests::wait::eventually;
use tokio::process::Command;

use crate::machine::{DEADLINE, Machine};

/// Kraken's layout: candles without a header.
const HEADERLESS: &str = "1735689600,93500.1,93550.0,93480.2,93510.5,12.25,310\n";
/// Candles whose times are not in seconds.
const MILLIS: &str =
    "Timestamp,Open,High,Low,Close,Volume\n1735689600000,1,1,1,1,1\n1735689660000,1,1,1,1,1\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_ends_badly_ends_itself_and_not_up() -> anyhow::Result<()> {
    let Some((_, machine)) = Machine::new()? else { return Ok(()) };
    let (good, rows) = machine.candles("good, and more.csv", 1).await?;
    let half = half_a_gzip(&machine).await?;
    let [headerless, millis] = [("kraken.csv", HEADERLESS), ("millis.csv", MILLIS)].map(|(name, content)| {
        let file = machine.join(name);
        fs::write(&file, content).map(|()| file)
    });
    let (headerless, millis) = (headerless?, millis?);
    let inputs = [(&*half, "HALF"), (&*headerless, "KRAKEN"), (&*millis, "MILLIS"), (&*good, "GOOD")];
    let mut up = machine.up(&inputs, &["--rate", "max"])?;
    // The second start reaches the broken file again at the point where it ended.
    for start in ["first", "second"] {
        up.ready().await;
        eventually(&format!("the {start} start reports each bad input"), DEADLINE, async || {
            let log = up.log().ok()?;
            let told = ["half.csv.gz\", line", "has no header", "Timestamp is in milliseconds"];
            told.iter().all(|told| log.contains(told)).then_some(())
        })
        .await;
        let query = "SELECT count(*) FROM bitcoin_gold_data WHERE symbol = 'GOOD'";
        eventually("the good input is replayed", DEADLINE, async || {
            let count: i64 = machine.database().await.ok()?.query_one(query, &[]).await.ok()?.get(0);
            (count == rows).then_some(())
        })
        .await;
        let status = Command::new(integration_tests::process::program()?)
            .args(["status", up.address()])
            .output()
            .await?;
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        ensure!(status.contains("an input failed"), "the status shows it, too: {status}");
        ensure!(up.terminate().await?.success(), "up ends well: {}", up.log()?);
        fs::remove_file(machine.join("up.log"))?;
        up.restart()?;
    }
    Ok(())
}

/// Compresses candles and drops the second half of the bytes, as a broken download does.
async fn half_a_gzip(machine: &Machine) -> anyhow::Result<PathBuf> {
    let (file, _) = machine.candles("half.csv", 1).await?;
    ensure!(Command::new("gzip").arg(&file).status().await?.success(), "gzip");
    let packed = file.with_extension("csv.gz");
    let bytes = fs::read(&packed)?;
    fs::write(&packed, &bytes[..bytes.len() / 2])?;
    Ok(packed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_with_nothing_usable_fails_with_a_hint() -> anyhow::Result<()> {
    let Some((_, pipeline)) = check::pipeline().await? else { return Ok(()) };
    let run = async |name: &str, content: &str, flags: &[&str]| -> anyhow::Result<Output> {
        let file = pipeline.folder.path().join(name);
        fs::write(&file, content)?;
        let input = Input { file, symbol: "X".to_owned() };
        pipeline.run(&input::producer(&[input], &[&["--rate", "max", "--quiet"], flags].concat())).await
    };
    let header = "Timestamp,Open,High,Low,Close,Volume\n";
    let cases = [
        ("millis.csv", MILLIS.to_owned(), "milliseconds; Unix seconds are needed"),
        ("iso.csv", format!("{header}2025-01-01 00:00:00,1,1,1,1,1\n"), "is a date; Unix seconds"),
        ("kraken.csv", HEADERLESS.to_owned(), "put this line first"),
        ("thousands.csv", format!("{header}1735689600,\"42,265.2\",1,1,1,1\n"), "write 42265.2"),
        ("header.csv", header.to_owned(), "has no line after its header"),
    ];
    for (name, content, hint) in cases {
        let output = run(name, &content, &[]).await?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && error.contains(hint), "{name}: {}, {error}", output.status);
    }
    // This follows the advice in one of the messages.
    let advised = format!("Timestamp,Open,High,Low,Close,Volume,column7\n{HEADERLESS}");
    let output = run("kraken.csv", &advised, &[]).await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // At the place of the resume, a file of the same name with other content is not a continuation.
    let output = run("kraken.csv", &advised.replace("93500.1", "93500.2"), &["--resume"]).await?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && error.contains("is another file"), "{error}");
    Ok(())
}
