//! Tests of addresses, endpoints, regions and proxies.

use std::process::Command;
use std::sync::atomic::Ordering;

use super::super::bucket::endpoint;
use super::super::profile::Settings;
use super::server::{proxy, silent, untrusted};
use super::{Lake, Minio, use_lake, variables};

/// Variable that gives the proxy's target to the child of a test. The child has process variables of its own.
const CHILD: &str = "CANDLEFLIGHT_TEST_CHILD";

#[tokio::test]
async fn every_variable_that_names_an_endpoint_is_followed() {
    let Some(minio) = Minio::get() else { return };
    let endpoint = minio.endpoint.as_str();
    let cases: [&[(&str, &str)]; 5] = [
        &[("AWS_ENDPOINT_URL", endpoint)],
        &[("AWS_ENDPOINT", endpoint)],
        &[("AWS_ENDPOINT", endpoint), ("AWS_ALLOW_HTTP", "true")],
        &[("AWS_ENDPOINT_URL_S3", endpoint), ("AWS_ENDPOINT_URL", "http://127.0.0.1:9")],
        &[("AWS_ENDPOINT_URL", endpoint), ("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_SESSION_TOKEN", "")],
    ];
    for values in cases {
        use_lake(&minio.variables(values)).await.unwrap_or_else(|error| panic!("{values:?}: {error:?}"));
    }
}

#[test]
fn an_endpoint_is_an_address_of_the_bucket_or_refused_with_a_sentence() {
    let cases: [(&[(&str, &str)], &str); 9] = [
        (&[("AWS_ENDPOINT_URL", "http://minio:9000/")], "http://minio:9000"),
        (&[("AWS_ENDPOINT_URL", "https://x.example/storage/s3")], "https://x.example/storage/s3"),
        (
            &[("AWS_ENDPOINT", "minio:9000")],
            "AWS_ENDPOINT is \"minio:9000\": write http://host:port or https://host",
        ),
        (
            &[("AWS_ENDPOINT_URL", "minio")],
            "AWS_ENDPOINT_URL is \"minio\": write http://host:port or https://host",
        ),
        (
            &[("AWS_ENDPOINT_URL", "ftp://minio")],
            "AWS_ENDPOINT_URL is \"ftp://minio\": write http://host:port or https://host",
        ),
        (
            &[("AWS_ENDPOINT", "http://minio"), ("AWS_ALLOW_HTTP", "false")],
            "AWS_ALLOW_HTTP forbids the http:// of AWS_ENDPOINT: remove it, or write https://",
        ),
        (
            &[("AWS_ENDPOINT_URL", "https://s3.example"), ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")],
            "https://lake.s3.example",
        ),
        (
            &[("AWS_ENDPOINT_URL", "https://lake.s3.example"), ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true")],
            "https://lake.s3.example",
        ),
        (&[], "none"),
    ];
    for (values, expected) in cases {
        let found = endpoint("lake", &variables(values), &Settings::new());
        let found =
            found.map_or_else(|error| error, |endpoint| endpoint.unwrap_or_else(|| "none".to_owned()));
        assert_eq!(found, expected, "{values:?}");
    }
}

#[tokio::test]
async fn a_store_that_is_not_there_or_not_trusted_is_waited_for() {
    let keys = [("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_TIMEOUT", "1s")];
    let (untrusted, silent) = (untrusted(), silent());
    let cases = [
        (silent.as_str(), "does not answer in time: check AWS_ENDPOINT_URL"),
        (untrusted.as_str(), "certificate is not trusted: name its authority in SSL_CERT_FILE"),
        ("http://127.0.0.1:9", "there is no connection to the store: check AWS_ENDPOINT_URL"),
        ("http://nowhere.invalid", "host name is not known: check AWS_ENDPOINT_URL"),
    ];
    for (endpoint, advice) in cases {
        let error =
            use_lake(&variables(&[&keys[..], &[("AWS_ENDPOINT_URL", endpoint)]].concat())).await.unwrap_err();
        assert!(error.is_transient(), "{endpoint}: {error:?}");
        assert!(error.to_string().contains(advice), "{endpoint}: {error}");
    }
}

#[tokio::test]
async fn what_minio_refuses_is_waited_for_or_ends_with_a_sentence() {
    let Some(minio) = Minio::get() else { return };
    let endpoint = ("AWS_ENDPOINT_URL", minio.endpoint.as_str());
    let tls = minio.endpoint.replace("http://", "https://");
    let cases = [
        (
            minio.variables(&[endpoint, ("AWS_SECRET_ACCESS_KEY", "wrong")]),
            true,
            "does not accept the access key",
        ),
        (
            minio.variables(&[endpoint, ("AWS_ACCESS_KEY_ID", "nobody")]),
            true,
            "does not accept the access key",
        ),
        (minio.variables(&[("AWS_ENDPOINT_URL", &tls)]), false, "does not speak TLS"),
    ];
    for (variables, passes, advice) in cases {
        let error = use_lake(&variables).await.unwrap_err();
        assert_eq!(error.is_transient(), passes, "{advice}: {error:?}");
        assert!(error.to_string().contains(advice), "{advice}: {error}");
    }
    let error = Lake::open_with("s3://No_Bucket", &minio.variables(&[endpoint])).await.unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("bucket's name"), "{error:?}");
}

#[tokio::test]
async fn a_proxy_named_for_the_store_alone_is_used() {
    let Some(minio) = Minio::get() else { return };
    let (address, count) = proxy(minio.endpoint.trim_start_matches("http://"));
    // Only the proxy can reach this host.
    let values = [("AWS_ENDPOINT_URL", "http://store.invalid:9000"), ("AWS_PROXY_URL", &address)];
    use_lake(&minio.variables(&values)).await.unwrap();
    assert!(count.load(Ordering::SeqCst) > 0);
}

#[test]
fn the_systems_proxy_is_used_unless_the_host_is_excepted() {
    let Some(minio) = Minio::get() else { return };
    let (address, count) = proxy(minio.endpoint.trim_start_matches("http://"));
    for (excepted, succeeds) in [("", true), ("store.invalid", false)] {
        let before = count.load(Ordering::SeqCst);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::tests::bucket::child_with_variables_of_its_own", "--ignored"])
            .envs([(CHILD, "http://store.invalid:9000"), ("HTTP_PROXY", &address), ("NO_PROXY", excepted)])
            .output()
            .unwrap();
        assert_eq!(child.status.success(), succeeds, "{child:?}");
        assert_eq!(count.load(Ordering::SeqCst) > before, succeeds, "{excepted:?}");
    }
}

#[tokio::test]
#[ignore = "run by the test of the system's proxy"]
async fn child_with_variables_of_its_own() {
    let minio = Minio::get().expect("the parent has a MinIO");
    let endpoint = std::env::var(CHILD).expect("the parent sets it");
    use_lake(&minio.variables(&[("AWS_ENDPOINT_URL", &endpoint)])).await.unwrap();
}

/// A MinIO that stops with the test.
struct Own {
    stack: String,
    folder: tempfile::TempDir,
}

impl Own {
    /// Starts MinIO with these variables, or prints that the test is skipped.
    fn start(variables: &[(&str, &str)]) -> Option<Own> {
        let Ok(stack) = std::env::var("CANDLEFLIGHT_TEST_STACK") else {
            eprintln!("SKIPPED: nothing can start a MinIO");
            return None;
        };
        let own = Own { stack, folder: tempfile::tempdir().unwrap() };
        own.run("start", variables);
        Some(own)
    }

    fn run(&self, action: &str, variables: &[(&str, &str)]) -> String {
        let mut command = Command::new(&self.stack);
        let output =
            command.args([action, "minio"]).arg(self.folder.path()).envs(variables.iter().copied()).output();
        String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
    }

    fn endpoint(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.run("port", &[]))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.run("kill", &[]);
    }
}

#[tokio::test]
async fn the_buckets_region_is_found_or_named() {
    let region = "eu-central-1";
    let Some(minio) = Own::start(&[("MINIO_SITE_REGION", region), ("MINIO_REGION", region)]) else { return };
    let endpoint = minio.endpoint("http");
    let keys = [
        ("AWS_ACCESS_KEY_ID", "minioadmin"),
        ("AWS_SECRET_ACCESS_KEY", "minioadmin"),
        ("AWS_ENDPOINT_URL", endpoint.as_str()),
    ];
    // The first call names the region, because a MinIO that has just started does not compare it yet.
    use_lake(&variables(&[&keys[..], &[("AWS_REGION", region)]].concat())).await.unwrap();
    use_lake(&variables(&keys)).await.unwrap();
    let error =
        use_lake(&variables(&[&keys[..], &[("AWS_REGION", "us-west-2")]].concat())).await.unwrap_err();
    assert!(!error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("set AWS_REGION=eu-central-1"), "{error}");
}
