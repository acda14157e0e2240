//! A private Apache Kafka: one node that is broker and controller, on the loopback interface, with its topics in the data folder.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::child::{Child, Kind, run_to_end};

/// Maximum size of the Java heap: twice what a single broker with a few partitions needs.
const HEAP: &str = "-Xmx256m";
/// Line that Kafka logs once it answers, on a logger that the configuration below enables.
const READY: &str = "Kafka Server started";

/// Folder of the cluster's data, in the server's folder.
const DATA: &str = "data";
/// File of Kafka's configuration, in the server's folder.
const PROPERTIES: &str = "server.properties";
/// File of Kafka's log configuration, in the server's folder.
const LOGGING_PROPERTIES: &str = "log4j2.properties";

pub(super) static KAFKA: Kind = Kind {
    name: "Apache Kafka",
    stop_signal: "TERM",
    death_signal: "KILL",
    user: None,
    // In the C locale, Java cannot open a path that contains an accent.
    variables: &[("LC_ALL", "C.UTF-8")],
};

/// Ports that it listens on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// Port for clients.
    pub(super) clients: u16,
    /// Port for the controller, a quorum of one.
    pub(super) controller: u16,
}

/// Starts Kafka from the jars in `home/lib` with its data in `folder`. Returns once it answers.
pub(super) async fn start(folder: &Path, home: &Path, ports: Ports) -> anyhow::Result<Child> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    fs::write(folder.join(PROPERTIES), server_properties(ports))?;
    fs::write(folder.join(LOGGING_PROPERTIES), LOGGING)?;

    let java = java()?;
    // Paths are relative to the folder: Kafka reads its properties as ISO 8859-1 and splits `log.dirs` at commas.
    let home = std::path::absolute(home)?;
    let mut options: Vec<OsString> =
        [HEAP, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(OsString::from).into();
    options.push(format!("-Dlog4j2.configurationFile={LOGGING_PROPERTIES}").into());
    let classes = home.join("classes.jsa");
    if classes.exists() {
        options.push(prefixed("-XX:SharedArchiveFile=", &classes));
    }
    options.extend([OsString::from("-cp"), home.join("lib/*").into()]);
    let arguments = |rest: &[OsString]| [&options, rest].concat();

    if !folder.join(DATA).join("meta.properties").exists() {
        let id = uuid::Uuid::new_v4().simple().to_string();
        // A cluster id has 22 characters of base64, which includes hexadecimal digits.
        let format = ["kafka.tools.StorageTool", "format", "-t", &id[..22], "-c", PROPERTIES];
        run_to_end(&KAFKA, folder, &java, &arguments(&format.map(OsString::from)))
            .await
            .context("format Apache Kafka's data folder")?;
    }
    let serve = ["kafka.Kafka", PROPERTIES].map(OsString::from);
    let mut child = Child::start(&KAFKA, folder, &java, &arguments(&serve), &[])?;
    let log = child.log_file();
    child.until_ready(async || Ok(fs::read(&log).is_ok_and(|log| contains(&log, READY)))).await?;
    Ok(child)
}

/// Returns the newest Kafka that `script/setup` has put into the cache folder.
pub(super) fn home() -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let cache = cache.context("neither HOME nor XDG_CACHE_HOME is set")?.join("candleflight");
    newest(&cache).with_context(|| {
        format!(
            "no Apache Kafka in {}: run script/setup, or give the address of a running Kafka with --kafka host:port",
            cache.display()
        )
    })
}

/// Returns the folder `kafka-VERSION` of the highest version that has jars.
fn newest(cache: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    let versions = entries.filter_map(|entry| {
        let version = entry.file_name().to_str()?.strip_prefix("kafka-")?.to_owned();
        // Versions are compared as numbers: 4.10 is after 4.9.
        let numbers: Vec<u64> = version.split('.').map(|part| part.parse().unwrap_or_default()).collect();
        entry.path().join("lib").is_dir().then(|| (numbers, entry.path()))
    });
    versions.max().map(|(_, home)| home)
}

fn java() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let java = home.into_iter().chain(std::env::split_paths(&path)).map(|folder| folder.join("java"));
    match java.into_iter().find(|java| java.is_file()) {
        Some(java) => Ok(java),
        None => bail!(
            "no java on the PATH: Apache Kafka needs Java 17 or newer (Debian: default-jre-headless); script/setup installs it"
        ),
    }
}

fn contains(log: &[u8], text: &str) -> bool {
    log.windows(text.len()).any(|window| window == text.as_bytes())
}

fn prefixed(option: &str, path: &Path) -> OsString {
    let mut option = OsString::from(option);
    option.push(path);
    option
}

/// Returns the configuration. The topics are the write-ahead log of the pipeline, and a resume reads their end, so nothing is deleted.
///
/// Each batch is on disk before it is acknowledged. With one replica, a power failure could otherwise lose messages that bronze holds.
///
/// The session time-out is the time that a restart after a crash waits for the previous session of the node. The default is 9 s.
fn server_properties(Ports { clients, controller }: Ports) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller}
log.dirs={DATA}
log.retention.ms=-1
log.flush.interval.messages=1
auto.create.topics.enable=false
message.max.bytes=12582912
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=5000
log.cleaner.dedupe.buffer.size=16777216
"
    )
}

/// Log configuration: warnings, and the line that reports readiness.
const LOGGING: &str = "rootLogger.level=WARN
rootLogger.appenderRef.console.ref=console
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=INFO
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %m (%c)%n
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kafka_is_that_of_the_highest_version() {
        let cache = tempfile::tempdir().unwrap();
        for name in ["kafka-4.9.0/lib", "kafka-4.10.0/lib", "kafka-4.11.0", "kafka.k3Xz/lib", "target/lib"] {
            fs::create_dir_all(cache.path().join(name)).unwrap();
        }
        assert_eq!(newest(cache.path()), Some(cache.path().join("kafka-4.10.0")));
    }
}
