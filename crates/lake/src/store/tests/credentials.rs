//! Tests of the origins of credentials, and of their renewal when it is due. The keys are MinIO's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::credentials::Origin;
use super::server::{Answer, Request, serve};
use super::{Minio, until, use_lake, variables};

const REFUSED: &str = "does not accept the access key";
/// Lifetime of the credentials that the endpoints return. They are renewed before the next request.
const LIFE_SECONDS: i64 = 2;

fn written(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_first_origin_that_is_configured_counts() {
    let folder = tempfile::tempdir().unwrap();
    let credentials =
        written(&folder, "credentials", "[default]\naws_access_key_id=K\naws_secret_access_key=S\n");
    let config = written(
        &folder,
        "config",
        "[profile run]\ncredential_process = print\n[profile role]\nrole_arn = R\nsource_profile = default\n\
         [profile sso]\nsso_session = x\n[profile half]\naws_access_key_id = K\n[profile region]\nregion = x\n",
    );
    let files = [("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str()), ("AWS_CONFIG_FILE", &config)];
    let keys = [("AWS_ACCESS_KEY_ID", "K"), ("AWS_SECRET_ACCESS_KEY", "S")];
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "F"), ("AWS_ROLE_ARN", "R")];
    let task = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x")];
    let near = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/x")];
    let far = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/x")];
    let pod = [near[0], ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "F")];
    let on = [("AWS_EC2_METADATA_DISABLED", "false")];
    let profile = |name| [files[0], files[1], ("AWS_PROFILE", name)];
    let cases: [(Vec<(&str, &str)>, &str); 17] = [
        ([&keys[..], &web, &files, &task].concat(), "AWS_… variables"),
        ([&web[..], &files, &task].concat(), "the web identity in AWS_WEB_IDENTITY_TOKEN_FILE"),
        ([&files[..], &task].concat(), "the profile \"default\""),
        (profile("run").to_vec(), "credential_process of the profile \"run\""),
        ([&profile("region")[..], &task].concat(), "the container's endpoint"),
        ([&task[..], &on].concat(), "the container's endpoint"),
        (pod.to_vec(), "the container's endpoint"),
        (near.to_vec(), "the container's endpoint http://127.0.0.1:1/x"),
        (on.to_vec(), "the instance's metadata"),
        (vec![], "there are no AWS credentials"),
        (keys[..1].to_vec(), "set both"),
        (keys[1..].to_vec(), "set both"),
        (profile("missing").to_vec(), "which is in no file"),
        (profile("role").to_vec(), "aws configure export-credentials --profile role"),
        (profile("sso").to_vec(), "aws configure export-credentials --profile sso"),
        (profile("half").to_vec(), "without aws_secret_access_key"),
        (far.to_vec(), "write https://"),
    ];
    for (values, expected) in cases {
        let found = Origin::find(&variables(&values)).map_or_else(|error| error, |origin| origin.to_string());
        assert!(found.contains(expected), "{values:?}: {found}");
    }
}

/// An endpoint that returns MinIO's keys, or wrong ones. Both expire soon.
struct Endpoint {
    url: String,
    is_right: Arc<AtomicBool>,
}

impl Endpoint {
    fn start(minio: &Minio, token: Option<&'static str>) -> Endpoint {
        let is_right = Arc::new(AtomicBool::new(true));
        let (key, secret, right) = (minio.key.clone(), minio.secret.clone(), Arc::clone(&is_right));
        let url = serve(move |request| {
            let secret = if right.load(Ordering::SeqCst) { secret.as_str() } else { "wrong" };
            answer(&request, token, &key, secret)
        });
        Endpoint { url, is_right }
    }
}

/// Answers like the instance's metadata, and like the endpoints of containers.
fn answer(request: &Request, token: Option<&str>, key: &str, secret: &str) -> Answer {
    let text = |text: &str| ("200 OK", String::new(), text.to_owned());
    match (request.method.as_str(), request.path.as_str()) {
        ("PUT", "/latest/api/token") => text("session"),
        ("GET", "/latest/meta-data/iam/security-credentials/") => text("role"),
        ("GET", "/latest/meta-data/iam/security-credentials/role" | "/container")
            if request.authorization.as_deref() == token =>
        {
            let end =
                chrono::DateTime::from_timestamp_millis(crate::clock::now_millis() + LIFE_SECONDS * 1000);
            let end = end.unwrap().to_rfc3339();
            text(&format!(
                r#"{{"AccessKeyId":"{key}","SecretAccessKey":"{secret}","Token":"","Expiration":"{end}"}}"#
            ))
        }
        _ => ("403 Forbidden", String::new(), String::new()),
    }
}

/// Uses a lake while the endpoint returns right, then wrong, then right credentials.
async fn renews(minio: &Minio, endpoint: &Endpoint, values: &[(&str, &str)]) {
    let variables = variables(&[&[("AWS_ENDPOINT_URL", minio.endpoint.as_str())], values].concat());
    let lake = use_lake(&variables).await.unwrap();
    endpoint.is_right.store(false, Ordering::SeqCst);
    until(&lake, Some(REFUSED)).await;
    endpoint.is_right.store(true, Ordering::SeqCst);
    until(&lake, None).await;
}

#[tokio::test]
async fn an_instances_role_is_used_and_renewed() {
    let Some(minio) = Minio::get() else { return };
    let endpoint = Endpoint::start(&minio, None);
    for name in ["AWS_METADATA_ENDPOINT", "AWS_EC2_METADATA_SERVICE_ENDPOINT"] {
        renews(&minio, &endpoint, &[(name, &endpoint.url), ("AWS_EC2_METADATA_DISABLED", "false")]).await;
    }
}

#[tokio::test]
async fn a_containers_endpoint_is_used_and_renewed_with_a_token_a_token_file_or_none() {
    let Some(minio) = Minio::get() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = written(&folder, "token", "sesame");
    let shown = [
        (None, None),
        (Some("sesame"), Some(("AWS_CONTAINER_AUTHORIZATION_TOKEN", "sesame"))),
        (Some("sesame"), Some(("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.as_str()))),
    ];
    for (token, value) in shown {
        let endpoint = Endpoint::start(&minio, token);
        let url = format!("{}/container", endpoint.url);
        let values = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str())];
        renews(&minio, &endpoint, &values.into_iter().chain(value).collect::<Vec<_>>()).await;
    }
}

#[tokio::test]
async fn an_endpoint_that_gives_nothing_is_waited_for_by_its_name() {
    let endpoint = serve(|_| ("403 Forbidden", String::new(), String::new()));
    let url = format!("{endpoint}/container");
    let values =
        [("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()), ("AWS_ENDPOINT_URL", "http://127.0.0.1:9")];
    let error = use_lake(&variables(&values)).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(
        error
            .to_string()
            .contains(&format!("no AWS credentials from the container's endpoint {url}: it answers 403"))
    );
}

#[tokio::test]
async fn a_profile_is_read_again_when_somebody_has_changed_it() {
    let Some(minio) = Minio::get() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = |secret: &str| {
        written(
            &folder,
            "credentials",
            &format!("[lake]\naws_access_key_id = {}\naws_secret_access_key = {secret}\n", minio.key),
        )
    };
    let config = written(
        &folder,
        "config",
        &format!("[profile lake]\nregion = us-east-1\nendpoint_url = {}\n", minio.endpoint),
    );
    let credentials = file(&minio.secret);
    let values = [
        ("AWS_PROFILE", "lake"),
        ("AWS_SHARED_CREDENTIALS_FILE", credentials.as_str()),
        ("AWS_CONFIG_FILE", &config),
    ];
    let lake = use_lake(&variables(&values)).await.unwrap();
    file("wrong");
    until(&lake, Some(REFUSED)).await;
    file(&minio.secret);
    until(&lake, None).await;
}

#[tokio::test]
async fn a_profiles_program_is_run_again_when_its_credentials_end() {
    let Some(minio) = Minio::get() else { return };
    let folder = tempfile::tempdir().unwrap();
    let print = |secret: &str| {
        let printed = format!(
            r#"{{"Version":1,"AccessKeyId":"{}","SecretAccessKey":"{secret}","Expiration":"2020-01-01T00:00:00+00:00"}}"#,
            minio.key
        );
        written(&folder, "printed", &printed)
    };
    let printed = print(&minio.secret);
    let config = written(&folder, "config", &format!("[default]\ncredential_process = cat '{printed}'\n"));
    let values = [("AWS_CONFIG_FILE", config.as_str()), ("AWS_ENDPOINT_URL", &minio.endpoint)];
    let lake = use_lake(&variables(&values)).await.unwrap();
    print("wrong");
    until(&lake, Some(REFUSED)).await;
    std::fs::remove_file(&printed).unwrap();
    until(&lake, Some("no AWS credentials from credential_process of the profile \"default\"")).await;
    print(&minio.secret);
    until(&lake, None).await;
}
