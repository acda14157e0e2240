//! Authenticates callers by password or token, and limits guessing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::HeaderValue;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::attempts::{Attempts, Who};
use crate::token::{Claim, Key};
use crate::users::{ANYONE, NAME_BYTES_MAX, Users};
use crate::{Args, Error, Role, Secret, named, password, token};

/// Interval at which the users file is checked for changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of concurrent password checks: each takes 20 ms of a core and 19 MiB.
const CHECKS_MAX: usize = 1;
/// Maximum number of log-ins that are being checked or wait for a check. Further log-ins are rejected with a retry delay.
const WAITING_MAX: usize = 64;
/// Retry delay for callers that find this queue full.
const BUSY_PAUSE: Duration = Duration::from_secs(2);
/// Maximum number of verified passwords that are kept. They make a client fast that sends its password with each call. When there are this
/// many, all are forgotten.
const REMEMBERED_MAX: usize = 1_000;

/// Base64 decoder that accepts texts with and without padding: Go's Flight client sends none.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Hash that is checked for an unknown user, so that the time of the answer does not reveal which users exist.
static NOBODY: LazyLock<String> =
    LazyLock::new(|| password::hash("nobody").expect("the password is not empty"));

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name of the user.
    pub user: Arc<str>,
    /// Role of the user.
    pub role: Role,
}

impl Caller {
    /// Returns true if the caller is anonymous, because authentication is off.
    pub fn is_anyone(&self) -> bool {
        &*self.user == ANYONE
    }
}

/// The result of a successful authentication.
#[derive(Debug)]
pub struct Admitted {
    /// The caller.
    pub caller: Caller,
    /// New bearer token for the next calls. `None` if the caller needs no new token.
    pub token: Option<String>,
}

/// Reason why a caller is rejected. It never reveals whether a user exists.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The call has no `authorization` header.
    #[error("log in: this server requires a user and a password, or a token")]
    Missing,
    /// The header has an unknown scheme or cannot be parsed.
    #[error("the authorization header is neither Basic nor Bearer")]
    Unreadable,
    /// The user does not exist, or the password is wrong.
    #[error("user or password is wrong")]
    Wrong,
    /// The token is unknown, or it was signed for an old password or with a different key.
    #[error("the token is invalid or no longer valid: log in again")]
    BadToken,
    /// The token has expired.
    #[error("the token has expired: log in again")]
    Expired,
    /// Too many log-ins have failed, or too many are waiting.
    #[error("too many log-ins have failed or are waiting: try again in {} s", pause.as_secs().max(1))]
    TooMany {
        /// Time until the next try.
        pause: Duration,
    },
}

/// Authentication of the callers of a server.
#[derive(Debug)]
pub struct Guard {
    /// Login of this process. The guard accepts it as an admin.
    own: Option<(String, Secret)>,
    file: Option<UsersFile>,
    key: Key,
    /// Codes ([`Key::code`]) of recently verified passwords, by user.
    remembered: Mutex<HashMap<String, [u8; 32]>>,
    attempts: Mutex<Attempts>,
    waiting: Semaphore,
    checks: Arc<Semaphore>,
}

#[derive(Debug)]
struct UsersFile {
    path: PathBuf,
    known: Mutex<Known>,
}

/// Content of the users file when it was last read.
#[derive(Debug)]
struct Known {
    users: Arc<Users>,
    /// User names by the code ([`Key::code`]) of a token's hash.
    tokens: Arc<HashMap<[u8; 32], String>>,
    changed: Option<SystemTime>,
    looked: Instant,
}

impl Default for Guard {
    fn default() -> Self {
        Guard {
            own: None,
            file: None,
            key: Key::random(),
            remembered: Mutex::default(),
            attempts: Mutex::default(),
            waiting: Semaphore::new(WAITING_MAX),
            checks: Arc::new(Semaphore::new(CHECKS_MAX)),
        }
    }
}

impl Guard {
    /// Reads the users file and the token key that `args` name.
    ///
    /// # Errors
    ///
    /// [`Error`]: a file is missing or cannot be read.
    pub(crate) fn open(args: &Args) -> Result<Guard, Error> {
        let own = args.client.login().map(|(user, password)| (user.to_owned(), password.clone()));
        let mut guard = Guard { own, ..Guard::default() };
        if let Some(path) = named(args.token_key.as_deref()) {
            guard.key = Key::open(path)?;
        }
        if let Some(path) = named(args.users.as_deref()) {
            let changed = changed(path);
            let users = Users::read(path)?;
            let known = Mutex::new(Known::new(&guard.key, users, changed));
            guard.file = Some(UsersFile { path: path.to_owned(), known });
        }
        Ok(guard)
    }

    /// Returns true if authentication is off: there is neither an own password nor a users file.
    pub fn is_open(&self) -> bool {
        self.own.is_none() && self.file.is_none()
    }

    /// Authenticates a caller by the password or token in the `authorization` header.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub async fn admit(&self, authorization: Option<&HeaderValue>, peer: IpAddr) -> Result<Admitted, Denied> {
        let Some(authorization) = authorization else {
            return if self.is_open() { Ok(Self::anyone(None)) } else { Err(Denied::Missing) };
        };
        let text = authorization.to_str().map_err(|_| Denied::Unreadable)?;
        let (scheme, proof) = text.split_once(' ').ok_or(Denied::Unreadable)?;
        let proof = proof.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return if self.is_open() { Ok(Self::anyone(None)) } else { self.check_token(proof) };
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(Denied::Unreadable);
        }
        let login = BASE64.decode(proof).ok().and_then(|login| String::from_utf8(login).ok());
        let (user, password) =
            login.as_deref().and_then(|login| login.split_once(':')).ok_or(Denied::Unreadable)?;
        self.log_in(user, password, peer).await
    }

    /// Authenticates a caller by name and password, and returns a token for the next calls.
    ///
    /// # Errors
    ///
    /// [`Denied`].
    pub async fn log_in(&self, user: &str, password: &str, peer: IpAddr) -> Result<Admitted, Denied> {
        if self.is_open() {
            // Some clients always send a user and a password: accept any.
            return Ok(Self::anyone(Some(self.key.sign(ANYONE, ANYONE, now_seconds()))));
        }
        if user.len() > NAME_BYTES_MAX {
            return Err(Denied::Wrong);
        }
        let who: Who = (peer, user.to_owned());
        if let Some(pause) = locked(&self.attempts).pause(&who, Instant::now()) {
            return Err(Denied::TooMany { pause });
        }
        let Some((role, credential)) = self.check_password(user, password).await? else {
            tracing::warn!(user, %peer, "a log-in failed");
            locked(&self.attempts).failed(who, Instant::now());
            return Err(Denied::Wrong);
        };
        locked(&self.attempts).succeeded(&who);
        let token = self.key.sign(user, &credential, now_seconds());
        Ok(Admitted { caller: Caller { user: user.into(), role }, token: Some(token) })
    }

    /// Returns the role and the credential of the user if the password is right.
    ///
    /// The time of the answer does not reveal which users exist: an unknown user costs a hash check, too. Only the password of this
    /// process and recently verified passwords skip it. All comparisons take constant time.
    async fn check_password(&self, user: &str, password: &str) -> Result<Option<(Role, String)>, Denied> {
        if let Some((own, own_password)) = &self.own {
            let is_right = self.key.is_same(password.as_bytes(), own_password.expose().as_bytes());
            if own == user && is_right {
                return Ok(Some((Role::Admin, own_password.expose().to_owned())));
            }
        }
        let known = self.known_users();
        let found = known
            .as_ref()
            .and_then(|users| users.get(user))
            .and_then(|user| Some((user.role, user.password.clone()?)));
        let hash = found.as_ref().map_or_else(|| NOBODY.clone(), |(_, hash)| hash.clone());
        let code = self.key.code(&[user.as_bytes(), hash.as_bytes(), password.as_bytes()]);
        if locked(&self.remembered).get(user).is_some_and(|remembered| self.key.is_same(remembered, &code)) {
            return Ok(found);
        }
        let busy = |_| Denied::TooMany { pause: BUSY_PAUSE };
        let _waiting = self.waiting.try_acquire().map_err(busy)?;
        let check = Arc::clone(&self.checks).acquire_owned().await.expect("the semaphore is never closed");
        let password = password.to_owned();
        let is_right = tokio::task::spawn_blocking(move || {
            let is_right = password::verify(&password, &hash);
            drop(check);
            is_right
        });
        if !is_right.await.unwrap_or(false) || found.is_none() {
            return Ok(None);
        }
        let mut remembered = locked(&self.remembered);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(user.to_owned(), code);
        Ok(found)
    }

    fn check_token(&self, token: &str) -> Result<Admitted, Denied> {
        let Some(claim) = Claim::read(token) else { return self.check_listed(token) };
        let (role, credential) = self
            .credentials(&claim.user)
            .into_iter()
            .find(|(_, credential)| self.key.holds(&claim, credential))
            .ok_or(Denied::BadToken)?;
        let now = now_seconds();
        if claim.expires <= now {
            return Err(Denied::Expired);
        }
        let token = claim.is_ageing(now).then(|| self.key.sign(&claim.user, &credential, now));
        Ok(Admitted { caller: Caller { user: claim.user.into(), role }, token })
    }

    fn check_listed(&self, token: &str) -> Result<Admitted, Denied> {
        let file = self.file.as_ref().ok_or(Denied::BadToken)?;
        let (users, tokens) = file.known(&self.key);
        // The key of the map is a code that no caller can compute, so the time of the search reveals nothing about listed tokens.
        let user =
            tokens.get(&self.key.code(&[token::hash_listed(token).as_bytes()])).ok_or(Denied::BadToken)?;
        let role = users.get(user).ok_or(Denied::BadToken)?.role;
        Ok(Admitted { caller: Caller { user: user.as_str().into(), role }, token: None })
    }

    /// Returns the credentials that a token of `user` may have been signed for, each with its role.
    fn credentials(&self, user: &str) -> Vec<(Role, String)> {
        let own = self
            .own
            .iter()
            .filter(|(own, _)| own == user)
            .map(|(_, password)| (Role::Admin, password.expose().to_owned()));
        let listed = self.known_users().and_then(|users| {
            let user = users.get(user)?;
            Some((user.role, user.password.clone()?))
        });
        own.chain(listed).collect()
    }

    fn known_users(&self) -> Option<Arc<Users>> {
        self.file.as_ref().map(|file| file.known(&self.key).0)
    }

    fn anyone(token: Option<String>) -> Admitted {
        Admitted { caller: Caller { user: ANYONE.into(), role: Role::Admin }, token }
    }
}

impl UsersFile {
    /// Returns the current users, or the last good ones while the file cannot be read.
    fn known(&self, key: &Key) -> (Arc<Users>, Arc<HashMap<[u8; 32], String>>) {
        let mut known = locked(&self.known);
        if known.looked.elapsed() >= CHECK_INTERVAL {
            known.looked = Instant::now();
            let changed = changed(&self.path);
            if changed.is_some() && changed != known.changed {
                match Users::read(&self.path) {
                    Ok(users) => {
                        tracing::info!(users = users.iter().count(), "read the users file again");
                        *known = Known::new(key, users, changed);
                    }
                    Err(error) => {
                        known.changed = changed;
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "the users file cannot be read: keeping the previous users"
                        );
                    }
                }
            }
        }
        (Arc::clone(&known.users), Arc::clone(&known.tokens))
    }
}

impl Known {
    fn new(key: &Key, users: Users, changed: Option<SystemTime>) -> Known {
        let codes = users.iter().flat_map(|(name, user)| {
            user.tokens.values().map(move |hash| (key.code(&[hash.as_bytes()]), name.to_owned()))
        });
        let tokens = Arc::new(codes.collect());
        Known { users: Arc::new(users), tokens, changed, looked: Instant::now() }
    }
}

fn changed(path: &std::path::Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

#[expect(clippy::disallowed_methods, reason = "a token expires at a wall-clock time that all servers share")]
fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Locks `mutex`, even if a thread panicked while it held the lock: every change is one step, so the value is consistent.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
