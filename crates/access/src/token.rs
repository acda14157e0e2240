//! Bearer tokens: signed ones, which a log-in returns and which expire, and listed ones, whose hashes are in the users file.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::Error;

/// Lifetime of a signed token, in seconds. A token in use is renewed after half of this time.
const LIFETIME_SECONDS: u64 = 24 * 60 * 60;
/// Length of a key in bytes, and of the random part of a listed token.
const KEY_BYTES: usize = 32;
/// Prefix of listed tokens, so that people and secret scanners recognise such a token.
const LISTED_PREFIX: &str = "cft_";

type HmacSha256 = Hmac<Sha256>;

/// Secret key that signs and checks tokens.
#[derive(Clone)]
pub(crate) struct Key(HmacSha256);

/// Content of a signed token. It is not trustworthy until [`Key::holds`] has checked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) user: String,
    pub(crate) expires: u64,
    signed: Vec<u8>,
}

impl Key {
    pub(crate) fn random() -> Key {
        Key::new(&rand::random::<[u8; KEY_BYTES]>())
    }

    fn new(bytes: &[u8]) -> Key {
        Key(HmacSha256::new_from_slice(bytes).expect("HMAC takes a key of any length"))
    }

    /// Reads the key from the file. If the file is missing, creates it with a new key, readable by this user only.
    pub(crate) fn open(path: &Path) -> Result<Key, Error> {
        use std::io::{ErrorKind, Write as _};
        use std::os::unix::fs::OpenOptionsExt as _;
        let key: [u8; KEY_BYTES] = rand::random();
        match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                file.write_all(&key).map_err(Error::file("write the token key to", path))?;
                Ok(Key::new(&key))
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let key = std::fs::read(path).map_err(Error::file("read the token key in", path))?;
                if key.len() < KEY_BYTES {
                    return Err(Error::User(format!(
                        "{} is too short for a token key (--token-key): delete the file",
                        path.display()
                    )));
                }
                Ok(Key::new(&key))
            }
            Err(error) => Err(Error::file("make the token key", path)(error)),
        }
    }

    /// Returns the code (HMAC-SHA-256) of the parts. Equal parts have equal codes, and without the key a code reveals nothing else.
    pub(crate) fn code(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.mac(parts).finalize().into_bytes().into()
    }

    /// Returns true if two texts are the same. Takes constant time.
    pub(crate) fn is_same(&self, one: &[u8], other: &[u8]) -> bool {
        self.mac(&[one]).verify_slice(&self.code(&[other])).is_ok()
    }

    fn mac(&self, parts: &[&[u8]]) -> HmacSha256 {
        let mut mac = self.0.clone();
        for part in parts {
            // The length goes first, so that bytes moved from one part to the next give a different code.
            mac.update(&part.len().to_be_bytes());
            mac.update(part);
        }
        mac
    }

    /// Returns a token for `user`. It is valid until it expires or until `credential`, the user's password or its hash, changes.
    pub(crate) fn sign(&self, user: &str, credential: &str, now: u64) -> String {
        let expires = now + LIFETIME_SECONDS;
        let code = self.code(&[user.as_bytes(), &expires.to_be_bytes(), credential.as_bytes()]);
        let claim = [&expires.to_be_bytes(), user.as_bytes()].concat();
        format!("{}.{}", URL_SAFE_NO_PAD.encode(claim), URL_SAFE_NO_PAD.encode(code))
    }

    /// Returns true if the claim was signed with this key for the user's current `credential`.
    pub(crate) fn holds(&self, claim: &Claim, credential: &str) -> bool {
        let parts = [claim.user.as_bytes(), &claim.expires.to_be_bytes(), credential.as_bytes()];
        self.mac(&parts).verify_slice(&claim.signed).is_ok()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Claim {
    /// Parses a signed token, without checking its signature. Returns `None` for any other text.
    pub(crate) fn read(token: &str) -> Option<Claim> {
        let (claim, signed) = token.split_once('.')?;
        let claim = URL_SAFE_NO_PAD.decode(claim).ok()?;
        let (expires, user) = claim.split_at_checked(8)?;
        Some(Claim {
            user: String::from_utf8(user.to_vec()).ok()?,
            expires: u64::from_be_bytes(expires.try_into().ok()?),
            signed: URL_SAFE_NO_PAD.decode(signed).ok()?,
        })
    }

    /// Returns true if the token should be replaced by a new one.
    pub(crate) fn is_ageing(&self, now: u64) -> bool {
        self.expires.saturating_sub(now) < LIFETIME_SECONDS / 2
    }
}

/// Returns a new listed token. It has 256 random bits, so that its hash needs no salt and no slow algorithm.
pub(crate) fn make_listed() -> String {
    format!("{LISTED_PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; KEY_BYTES]>()))
}

/// Returns the hash of a listed token, as the users file stores it.
pub(crate) fn hash_listed(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(token))
}

#[cfg(test)]
mod tests {
    use super::{Claim, Key, LIFETIME_SECONDS};

    #[test]
    fn a_token_holds_for_its_user_until_the_password_changes() {
        let (key, other) = (Key::random(), Key::random());
        let token = key.sign("ada", "hash", 1_000);
        let claim = Claim::read(&token).unwrap();
        assert_eq!((claim.user.as_str(), claim.expires), ("ada", 1_000 + LIFETIME_SECONDS));
        assert!(key.holds(&claim, "hash"));
        assert!(!key.holds(&claim, "another hash"));
        assert!(!other.holds(&claim, "hash"));
        let forged = Claim { user: "admin".to_owned(), ..claim.clone() };
        assert!(!key.holds(&forged, "hash"));
        let longer = Claim { expires: claim.expires + 1, ..claim };
        assert!(!key.holds(&longer, "hash"));
    }

    #[test]
    fn invalid_token_text_is_none() {
        for text in ["", ".", "a.b", "AAAA.AAAA", "cft_AAAA", "ä.ö"] {
            assert_eq!(Claim::read(text), None, "{text}");
        }
    }

    #[test]
    fn the_key_is_kept_and_read_by_nobody_else() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.key");
        let token = Key::open(&path).unwrap().sign("ada", "hash", 0);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Key::open(&path).unwrap().holds(&Claim::read(&token).unwrap(), "hash"));
        std::fs::write(&path, "short").unwrap();
        assert!(Key::open(&path).is_err());
    }
}
