//! The origins of AWS credentials, in the order of the AWS SDKs. The first configured origin counts.
//!
//! The order is: variables, a web identity, a profile, a container's endpoint, the instance's metadata. The store's client supports most of
//! them. [`super::renewal`] supports the profile, and the endpoint without a token file.

use std::fmt;

use url::Url;

use super::profile::{Profile, Settings};
use super::variables::Variables;

/// Hosts of container endpoints that may be reached without TLS: those of ECS and EKS. Loopback addresses are also allowed.
const PLAIN_HOSTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];

/// The origin of credentials.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`. The store's client reads them.
    Variables,
    /// A token file of the cluster, for a role. The store's client exchanges the token.
    WebIdentity,
    /// Keys in a profile.
    Profile(Profile),
    /// A program that a profile names. It prints the keys.
    Process {
        /// The profile.
        profile: String,
        /// The command for the shell.
        command: String,
    },
    /// A container's endpoint that the store's client reads.
    Container,
    /// A container's endpoint without a token file.
    Endpoint {
        /// The address of the endpoint.
        url: String,
        /// The token for the endpoint, if it requires one.
        token: Option<String>,
    },
    /// The metadata of the instance. The store's client reads it.
    Instance,
}

impl Origin {
    /// Returns the first origin that is configured.
    ///
    /// # Errors
    ///
    /// A text that names the mistake in the configuration, and what to do.
    pub(crate) fn find(variables: &Variables) -> Result<Origin, String> {
        let has = |name| variables.get(name).is_some();
        if has("AWS_ACCESS_KEY_ID") || has("AWS_SECRET_ACCESS_KEY") {
            if has("AWS_ACCESS_KEY_ID") && has("AWS_SECRET_ACCESS_KEY") {
                return Ok(Origin::Variables);
            }
            return Err("set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or neither".to_owned());
        }
        if has("AWS_WEB_IDENTITY_TOKEN_FILE") && has("AWS_ROLE_ARN") {
            return Ok(Origin::WebIdentity);
        }
        let profile = Profile::chosen(variables);
        match profile.read().map_err(|error| format!("the profile cannot be read: {error}"))? {
            None if profile.is_chosen => {
                return Err(format!("AWS_PROFILE names the profile {:?}, which is in no file", profile.name));
            }
            Some(settings) => {
                if let Some(origin) = of_profile(profile, &settings)? {
                    return Ok(origin);
                }
            }
            None => (),
        }
        if has("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            return Ok(Origin::Container);
        }
        let Some(url) = variables.get("AWS_CONTAINER_CREDENTIALS_FULL_URI") else {
            if variables.is_true("AWS_EC2_METADATA_DISABLED") {
                return Err(NOT_FOUND.to_owned());
            }
            return Ok(Origin::Instance);
        };
        if has("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") {
            return Ok(Origin::Container);
        }
        let host = Url::parse(url)
            .map_err(|error| format!("AWS_CONTAINER_CREDENTIALS_FULL_URI is {url}: {error}"))?;
        if host.scheme() != "https" && !is_near(&host) {
            return Err(format!("AWS_CONTAINER_CREDENTIALS_FULL_URI is {url}: write https://"));
        }
        let token = variables.get("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(str::to_owned);
        Ok(Origin::Endpoint { url: url.to_owned(), token })
    }
}

/// Message if nothing provides credentials.
pub(crate) const NOT_FOUND: &str = "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_ENDPOINT_URL \
     unless the store is Amazon's), or AWS_PROFILE, or run on a host that has a role";

/// Returns the origin that a profile names for its credentials. Returns `None` if the profile names no origin.
fn of_profile(profile: Profile, settings: &Settings) -> Result<Option<Origin>, String> {
    let name = &profile.name;
    let export = |what: &str| {
        format!(
            "the profile {name:?} needs {what}, which Candleflight does not support: add a profile of another name with \
             `credential_process = aws configure export-credentials --profile {name}`, and set AWS_PROFILE to the new name"
        )
    };
    if settings.contains_key("role_arn") {
        return Err(export("another role (role_arn)"));
    }
    if settings.contains_key("aws_access_key_id") {
        if settings.contains_key("aws_secret_access_key") {
            return Ok(Some(Origin::Profile(profile)));
        }
        return Err(format!("the profile {name:?} has an aws_access_key_id without aws_secret_access_key"));
    }
    if let Some(command) = settings.get("credential_process") {
        return Ok(Some(Origin::Process { command: command.clone(), profile: profile.name }));
    }
    match settings.keys().find(|setting| setting.starts_with("sso_")) {
        Some(_) => Err(export("a log-in (sso)")),
        None => Ok(None),
    }
}

fn is_near(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let is_loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    is_loopback || PLAIN_HOSTS.contains(&host)
}

/// Writes the name of the origin, for errors.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Variables => f.write_str("AWS_… variables"),
            Origin::WebIdentity => f.write_str("the web identity in AWS_WEB_IDENTITY_TOKEN_FILE"),
            Origin::Profile(profile) => write!(f, "the profile {:?}", profile.name),
            Origin::Process { profile, .. } => write!(f, "credential_process of the profile {profile:?}"),
            Origin::Container => f.write_str("the container's endpoint"),
            Origin::Endpoint { url, .. } => write!(f, "the container's endpoint {url}"),
            Origin::Instance => f.write_str("the instance's metadata"),
        }
    }
}
