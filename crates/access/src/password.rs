//! Passwords, hashed with Argon2id.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};

use crate::Error;

/// Hashes a password with a random salt. The result is a PHC string, which names the algorithm, its parameters and the salt.
pub(crate) fn hash(password: &str) -> Result<String, Error> {
    if password.is_empty() {
        return Err(Error::User("a password cannot be empty".to_owned()));
    }
    let hash: Result<PasswordHash, _> = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|error| Error::User(format!("hash the password: {error}")))
}

/// Returns true if `password` matches `hash`. It takes 20 ms and 19 MiB, whatever the result.
pub(crate) fn verify(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Returns true if `text` is the hash of a password.
pub(crate) fn is_hash(text: &str) -> bool {
    PasswordHash::new(text).is_ok()
}
