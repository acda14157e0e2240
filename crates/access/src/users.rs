//! The users file: names, roles, hashed passwords and hashed tokens, as JSON.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Role, Secret, password, token};

/// User name of anonymous callers, when authentication is off.
pub(crate) const ANYONE: &str = "anyone";
/// Longest name of a user, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 64;

/// Users by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Users(BTreeMap<String, User>);

/// One user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Role of the user.
    pub role: Role,
    /// Hash of the password (PHC string). Without a password, the user can log in with tokens only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Hashes of the tokens, by purpose.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tokens: BTreeMap<String, String>,
}

impl Users {
    /// Reads a users file.
    ///
    /// # Errors
    ///
    /// [`Error::File`], [`Error::Users`], or [`Error::User`] for an invalid name or a password that is not hashed.
    pub fn read(path: &Path) -> Result<Users, Error> {
        let text = std::fs::read(path).map_err(Error::file("read the users in", path))?;
        let users: Users =
            serde_json::from_slice(&text).map_err(|source| Error::Users { path: path.to_owned(), source })?;
        for (name, user) in users.iter() {
            check_name(name)?;
            if user.password.as_deref().is_some_and(|hash| !password::is_hash(hash)) {
                return Err(Error::User(format!(
                    "the password of {name:?} in {} is not a hash: set it with `candleflight users set`",
                    path.display()
                )));
            }
        }
        Ok(users)
    }

    /// Writes the file, readable by its owner only. The file is replaced in one step: a reader sees the old content or the new one.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        let text = serde_json::to_string_pretty(self).expect("users have string keys");
        let written = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&beside, path));
        written.map_err(Error::file("write the users to", path))
    }

    /// Returns a user.
    pub fn get(&self, name: &str) -> Option<&User> {
        self.0.get(name)
    }

    /// Returns all users by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &User)> {
        self.0.iter().map(|(name, user)| (name.as_str(), user))
    }

    /// Sets the role and the password of a user, and adds the user if there is none. `None` keeps the password.
    ///
    /// # Errors
    ///
    /// [`Error::User`]: the name or the password is invalid.
    pub fn set(&mut self, name: &str, role: Role, password: Option<&Secret>) -> Result<(), Error> {
        check_name(name)?;
        let hash = password.map(|password| password::hash(password.expose())).transpose()?;
        let user =
            self.0.entry(name.to_owned()).or_insert(User { role, password: None, tokens: BTreeMap::new() });
        user.role = role;
        user.password = hash.or(user.password.take());
        Ok(())
    }

    /// Creates a token for a user and returns it. It replaces an older one for the same purpose. The file holds only the hash.
    ///
    /// # Errors
    ///
    /// [`Error::User`]: there is no such user.
    pub fn add_token(&mut self, name: &str, purpose: &str) -> Result<String, Error> {
        let user = self.0.get_mut(name).ok_or_else(|| unknown(name))?;
        let token = token::make_listed();
        user.tokens.insert(purpose.to_owned(), token::hash_listed(&token));
        Ok(token)
    }

    /// Removes one token of a user.
    ///
    /// # Errors
    ///
    /// [`Error::User`]: there is no such user or token.
    pub fn remove_token(&mut self, name: &str, purpose: &str) -> Result<(), Error> {
        let user = self.0.get_mut(name).ok_or_else(|| unknown(name))?;
        let removed = user.tokens.remove(purpose);
        removed.map(drop).ok_or_else(|| Error::User(format!("user {name:?} has no token for {purpose:?}")))
    }

    /// Removes a user.
    ///
    /// # Errors
    ///
    /// [`Error::User`]: there is no such user.
    pub fn remove(&mut self, name: &str) -> Result<(), Error> {
        self.0.remove(name).map(drop).ok_or_else(|| unknown(name))
    }
}

fn unknown(name: &str) -> Error {
    Error::User(format!("there is no user {name:?}"))
}

fn check_name(name: &str) -> Result<(), Error> {
    // A colon ends the name in HTTP's Basic scheme.
    let is_name = !name.is_empty()
        && name != ANYONE
        && name.len() <= NAME_BYTES_MAX
        && !name.contains(':')
        && !name.contains(char::is_control);
    if is_name {
        Ok(())
    } else {
        Err(Error::User(format!("{name:?} cannot be a user's name: 1 to {NAME_BYTES_MAX} bytes, no colon")))
    }
}
