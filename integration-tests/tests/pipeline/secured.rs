//! Kafka and PostgreSQL with TLS and passwords. The whole pipeline runs on them, reports rejected log-ins, and never shows a password.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use access::Identity;
use anyhow::{Context as _, ensure};
use integration_tests::check::gold_is_exact;
use integration_tests::environment::Environment;
use integration_tests::input::{producer, synthetic};
use integration_tests::pipeline::{Pipeline, connect};
use integration_tests::process::Process;
use integration_tests::server::Server;
use integration_tests::wait::eventually;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use service::http;

/// Longest wait of these tests: clients wait ten seconds for brokers before the next attempt.
const DEADLINE: Duration = Duration::from_mins(1);

/// User of both servers.
const USER: &str = "candle";
const KAFKA_PASSWORD: &str = "kafka-Tk49vWq7";
const POSTGRES_PASSWORD: &str = "postgres-Zr83mLx2";
/// A password that is valid on neither server.
const WRONG_PASSWORD: &str = "wrong-Hn57cDs1";

/// An authority whose certificate is trusted, and the certificates that it signs.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> anyhow::Result<Authority> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        Ok(Authority {
            certificate: parameters.self_signed(&key)?.pem(),
            issuer: Issuer::new(parameters, key),
        })
    }

    /// Writes a server's certificate for this machine, its key, and both in one file.
    fn sign(&self, folder: &Path) -> anyhow::Result<()> {
        let key = KeyPair::generate()?;
        let parameters = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        let certificate = parameters.signed_by(&key, &self.issuer)?.pem();
        fs::write(folder.join("ca.pem"), &self.certificate)?;
        fs::write(folder.join("server.pem"), &certificate)?;
        let write = |name: &str, text: &str| {
            let mut options = OpenOptions::new();
            options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(folder.join(name))?
                .write_all(text.as_bytes())
        };
        write("server.key", &key.serialize_pem())?;
        write("both.pem", &format!("{}{certificate}", key.serialize_pem()))?;
        Ok(())
    }
}

/// Both servers, and a pipeline that uses them.
struct Secured {
    kafka: Server,
    postgres: Server,
    pipeline: Pipeline,
    /// Authority of the servers, and one that has signed nothing.
    authorities: [PathBuf; 2],
}

impl Secured {
    async fn start(mut environment: Environment) -> anyhow::Result<Secured> {
        let authority = Authority::new("the servers' authority")?;
        let kafka = Server::start_with(&environment, "kafka", |folder| {
            authority.sign(folder)?;
            fs::write(folder.join("server.properties"), kafka_properties())?;
            let user = format!("--add-scram\nSCRAM-SHA-256=[name={USER},password={KAFKA_PASSWORD}]\n");
            Ok(fs::write(folder.join("format"), user)?)
        })?;
        let postgres = Server::start_with(&environment, "postgres", |folder| {
            authority.sign(folder)?;
            let settings =
                "ssl = on\nssl_cert_file = '@EXTRA@/server.pem'\nssl_key_file = '@EXTRA@/server.key'\n";
            fs::write(folder.join("postgresql.conf"), settings)?;
            // The test itself connects as the superuser.
            let users = format!(
                "host all postgres 127.0.0.1/32 scram-sha-256\nhostssl all {USER} 127.0.0.1/32 scram-sha-256\n"
            );
            Ok(fs::write(folder.join("pg_hba.conf"), users)?)
        })?;
        environment.kafka = kafka.address();
        environment.postgres = format!("postgres://postgres:postgres@{}", postgres.address());
        let pipeline = Pipeline::new(&environment).await?;
        let [trusted, other] = ["ca.pem", "other.pem"].map(|name| pipeline.folder.path().join(name));
        fs::write(&trusted, &authority.certificate)?;
        fs::write(&other, Authority::new("another authority")?.certificate)?;
        let mut secured = Secured { kafka, postgres, pipeline, authorities: [trusted, other] };

        let admin = secured.pipeline.database().await?;
        let database = secured.database().to_owned();
        admin
            .batch_execute(&format!(
                "CREATE ROLE {USER} LOGIN PASSWORD '{POSTGRES_PASSWORD}'; ALTER DATABASE {database} OWNER TO {USER}"
            ))
            .await?;
        secured.let_in();
        Ok(secured)
    }

    /// Returns the name of the database.
    fn database(&self) -> &str {
        &self.pipeline.topic
    }

    /// Sets the credentials that both servers accept.
    fn let_in(&mut self) {
        let [trusted, _] = self.authorities.clone();
        self.kafka("SCRAM-SHA-256", KAFKA_PASSWORD, &trusted);
        self.postgres(POSTGRES_PASSWORD, "?sslmode=verify-full", Some(&trusted));
    }

    fn kafka(&mut self, mechanism: &str, password: &str, authority: &Path) {
        let options = kafka_options(mechanism, password, authority);
        let lines: Vec<String> = options.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
        self.pipeline.set("CANDLEFLIGHT_KAFKA_OPTIONS", &lines.concat());
    }

    fn postgres(&mut self, password: &str, parameters: &str, authority: Option<&Path>) {
        let url = format!(
            "postgres://{USER}:{password}@{}/{}{parameters}",
            self.postgres.address(),
            self.database()
        );
        self.pipeline.set("CANDLEFLIGHT_POSTGRES", &url);
        let authority = authority.map(|path| path.display().to_string()).unwrap_or_default();
        self.pipeline.set("CANDLEFLIGHT_POSTGRES_CA", &authority);
    }

    /// Checks that no log, status page or help text contains a password.
    async fn keeps_secrets(&self, processes: &[&Process]) -> anyhow::Result<()> {
        let mut texts = Vec::new();
        for file in fs::read_dir(self.pipeline.folder.path())? {
            let file = file?.path();
            if file.extension().is_some_and(|extension| extension == "log") {
                texts.push((file.display().to_string(), fs::read_to_string(file)?));
            }
        }
        for process in processes {
            for page in ["/", "/status.json", "/metrics", "/ready"] {
                let (_, body) = http::get(process.address(), page, &Identity::default()).await?;
                texts.push((page.to_owned(), body));
            }
        }
        for command in ["up", "producer", "ingest", "gold", "verify"] {
            let help = self.pipeline.run(&[command, "--help"]).await?;
            ensure!(help.status.success(), "{command} --help");
            texts.push((format!("{command} --help"), String::from_utf8(help.stdout)?));
        }
        for (place, text) in texts {
            for secret in [KAFKA_PASSWORD, POSTGRES_PASSWORD, WRONG_PASSWORD] {
                ensure!(!text.contains(secret), "{place} has a password:\n{text}");
            }
        }
        Ok(())
    }
}

fn kafka_properties() -> String {
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule";
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule";
    format!(
        "listener.security.protocol.map=CLIENTS:SASL_SSL,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.clients.plain.sasl.jaas.config={plain} required username=\"{USER}\" password=\"{KAFKA_PASSWORD}\" user_{USER}=\"{KAFKA_PASSWORD}\";
listener.name.clients.scram-sha-256.sasl.jaas.config={scram} required;
ssl.keystore.type=PEM
ssl.keystore.location=@EXTRA@/both.pem
ssl.truststore.type=PEM
ssl.truststore.location=@EXTRA@/ca.pem
"
    )
}

fn kafka_options(mechanism: &str, password: &str, authority: &Path) -> [(&'static str, String); 5] {
    [
        ("security.protocol", "SASL_SSL".to_owned()),
        ("ssl.ca.location", authority.display().to_string()),
        ("sasl.mechanisms", mechanism.to_owned()),
        ("sasl.username", USER.to_owned()),
        ("sasl.password", password.to_owned()),
    ]
}

/// Waits until a process is not ready and `/ready` contains all of `texts`.
async fn unready(process: &Process, texts: &[&str]) {
    eventually(&format!("/ready contains {texts:?}"), DEADLINE, async || {
        let ready = http::get(process.address(), "/ready", &Identity::default()).await;
        let (status, body) = ready.ok()?;
        (status != 200 && texts.iter().all(|text| body.contains(text))).then_some(())
    })
    .await;
}

/// Waits until the log has a warning or an error with all of `texts` on one line.
async fn logged(process: &Process, texts: &[&str]) {
    eventually(&format!("a warning in the log with {texts:?}"), DEADLINE, async || {
        let log = process.log().ok()?;
        let is_told = |line: &str| {
            ["WARN", "ERROR", "error:"].iter().any(|level| line.contains(level))
                && texts.iter().all(|text| line.contains(text))
        };
        log.lines().any(is_told).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_pipeline_runs_on_servers_that_want_tls_and_passwords() -> anyhow::Result<()> {
    let Some(environment) = Environment::get() else { return Ok(()) };
    let mut secured = Secured::start(environment).await?;
    let input = synthetic(&secured.pipeline, "ONE-USD", 2, 1).await?;
    let row_count = i64::try_from(input.row_count()?)?;
    let flight = secured.pipeline.start(&["flight", "--flush-interval", "200ms"])?;
    let ingest = secured.pipeline.start(&["ingest"])?;
    let gold = secured.pipeline.start(&["gold", "--flush-interval", "200ms"])?;
    let [trusted, _] = secured.authorities.clone();
    secured.kafka("PLAIN", KAFKA_PASSWORD, &trusted);
    let mut sending = secured.pipeline.start(&producer(&[input], &["--rate", "max", "--quiet"]))?;
    ensure!(sending.ended().await?.success(), "the producer has sent everything: {}", sending.log()?);

    let mut unusable = ClientConfig::new();
    unusable.set("bootstrap.servers", secured.kafka.address());
    for (key, value) in kafka_options("PLAIN", KAFKA_PASSWORD, &trusted) {
        unusable.set(key, value);
    }
    let unusable: FutureProducer = unusable.create()?;
    let record = FutureRecord::to(&secured.pipeline.topic).key("ONE-USD").payload("no candle");
    unusable.send(record, DEADLINE).await.map_err(|(error, _)| error)?;

    let superuser = secured.pipeline.database().await?;
    let counts =
        "SELECT (SELECT count(*) FROM bitcoin_gold_data), (SELECT count(*) FROM bitcoin_dead_letters)";
    eventually("all candles and the dead letter are in PostgreSQL", DEADLINE, async || {
        let row = superuser.query_one(counts, &[]).await.ok()?;
        ((row.get(0), row.get(1)) == (row_count, 1_i64)).then_some(())
    })
    .await;
    let in_the_lake = format!("count(*)\n{row_count}\n");
    eventually("all candles are in the lake", DEADLINE, async || {
        let found = secured.pipeline.sql("SELECT count(*) FROM gold").await.ok()?;
        (found == in_the_lake).then_some(())
    })
    .await;
    let connections = "SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                       WHERE usename = $1";
    let row = superuser.query_one(connections, &[&USER]).await?;
    let (all, encrypted): (i64, i64) = (row.get(0), row.get(1));
    ensure!(all > 0 && all == encrypted, "{encrypted} of {all} connections are encrypted");
    gold_is_exact(&secured.pipeline, &[]).await?;
    secured.keeps_secrets(&[&flight, &ingest, &gold]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_says_so_and_what_to_do_and_goes_on_once_let_in() -> anyhow::Result<()> {
    let Some(environment) = Environment::get() else { return Ok(()) };
    let mut secured = Secured::start(environment).await?;
    let [trusted, other] = secured.authorities.clone();
    let broker = secured.kafka.address();
    let input = synthetic(&secured.pipeline, "ONE-USD", 1, 1).await?;
    let mut flight = secured.pipeline.start(&["flight"])?;
    flight.ready().await;

    secured.kafka("SCRAM-SHA-256", WRONG_PASSWORD, &trusted);
    let ingest = secured.pipeline.start(&["ingest"])?;
    let without_dead_letters = secured.pipeline.start(&["gold"])?;
    secured.postgres(WRONG_PASSWORD, "?sslmode=require", Some(&trusted));
    let mut wrong_password = secured.pipeline.start(&["gold"])?;
    secured.kafka("PLAIN", KAFKA_PASSWORD, &other);
    let producing = secured.pipeline.start(&producer(std::slice::from_ref(&input), &["--quiet"]))?;
    secured.postgres(POSTGRES_PASSWORD, "", Some(&other));
    let wrong_authority = secured.pipeline.start(&["gold"])?;
    secured.postgres(POSTGRES_PASSWORD, "", None);
    let without_tls = secured.pipeline.start(&["gold"])?;
    secured.pipeline.set("CANDLEFLIGHT_KAFKA_OPTIONS", "");
    let plain_producing = secured.pipeline.start(&producer(&[input], &["--quiet"]))?;

    let refused = [&*broker, "Authentication failed", "--kafka-option", "sasl.password"];
    unready(&ingest, &refused).await;
    logged(&ingest, &refused).await;
    // The copy of dead letters does not affect /ready.
    logged(&without_dead_letters, &["dead letters", "Kafka rejects the connection", "Authentication failed"])
        .await;
    let untrusted = [&*broker, "certificate verify failed", "ssl.ca.location"];
    unready(&producing, &untrusted).await;
    logged(&producing, &untrusted).await;
    let unencrypted = [&*broker, "--kafka-option", "security.protocol"];
    unready(&plain_producing, &unencrypted).await;
    logged(&plain_producing, &unencrypted).await;
    let refused = ["PostgreSQL rejects the connection", "password authentication failed", "--postgres"];
    unready(&wrong_password, &refused).await;
    logged(&wrong_password, &refused[..2]).await;
    let untrusted = ["--postgres-ca", "UnknownIssuer"];
    unready(&wrong_authority, &untrusted).await;
    logged(&wrong_authority, &untrusted).await;
    unready(&without_tls, &["no encryption", "sslmode"]).await;

    let admin = connect(&secured.pipeline.postgres).await?;
    admin.batch_execute(&format!("ALTER ROLE {USER} PASSWORD '{WRONG_PASSWORD}'")).await?;
    wrong_password.ready().await;
    let verify =
        secured.pipeline.run(&["verify", "--postgres-ca", other.to_str().context("a path")?]).await?;
    let error = String::from_utf8(verify.stderr)?;
    ensure!(
        !verify.status.success() && error.contains("UnknownIssuer"),
        "verify ends with an error: {error}"
    );
    let producers = [&producing, &plain_producing];
    let golds = [&without_dead_letters, &wrong_password, &wrong_authority, &without_tls];
    secured.keeps_secrets(&[&[&flight, &ingest], &producers[..], &golds[..]].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_option_that_cannot_be_is_refused_at_once_without_its_value() -> anyhow::Result<()> {
    let Some(environment) = Environment::get() else { return Ok(()) };
    let mut pipeline = Pipeline::new(&environment).await?;
    for (option, expected) in [
        (WRONG_PASSWORD.to_owned(), "KEY=VALUE"),
        (format!("sasl.pasword={WRONG_PASSWORD}"), "sasl.pasword"),
        (format!("security.protocol={WRONG_PASSWORD}"), "security.protocol"),
        ("security.protocol=SSL\nssl.ca.location=/no/such/file".to_owned(), "ssl.ca.location failed"),
    ] {
        pipeline.set("CANDLEFLIGHT_KAFKA_OPTIONS", &option);
        let mut ingest = pipeline.start(&["ingest"])?;
        ensure!(!ingest.ended().await?.success(), "{expected}: it must end with an error");
        let log = ingest.log()?;
        ensure!(log.contains(expected) && !log.contains(WRONG_PASSWORD), "{expected}: {log}");
    }
    Ok(())
}
