use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use super::{Denied, Guard};
use crate::users::Users;
use crate::{Args, Identity, Role, Secret};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn basic(user: &str, password: &str) -> HeaderValue {
    HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))).unwrap()
}

fn bearer(token: &str) -> HeaderValue {
    HeaderValue::try_from(format!("Bearer {token}")).unwrap()
}

fn guard(users: &Path, password: Option<&str>) -> Guard {
    let client = Identity {
        password: password.map(|password| Secret::from(password.to_owned())),
        ..Identity::default()
    };
    Guard::open(&Args { client, users: Some(users.to_owned()), ..Args::default() }).unwrap()
}

/// Writes a users file with `ada` (reader, password `lovelace`) and returns one of her tokens.
fn write_users(path: &Path) -> String {
    let mut users = Users::default();
    users.set("ada", Role::Reader, Some(&Secret::from("lovelace".to_owned()))).unwrap();
    let token = users.add_token("ada", "notebook").unwrap();
    users.write(path).unwrap();
    token
}

/// Makes the next check of the file due.
fn look_again(guard: &Guard) {
    let mut known = super::locked(&guard.file.as_ref().unwrap().known);
    known.looked -= super::CHECK_INTERVAL;
}

async fn admitted(guard: &Guard, header: &HeaderValue) -> Result<(String, Role), Denied> {
    let admitted = guard.admit(Some(header), HERE).await?;
    Ok((admitted.caller.user.to_string(), admitted.caller.role))
}

#[tokio::test]
async fn a_login_is_read_with_and_without_the_padding_of_base64() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.json");
    let mut users = Users::default();
    users.set("ada", Role::Reader, Some(&Secret::from("babbage".to_owned()))).unwrap();
    users.write(&path).unwrap();
    let guard = guard(&path, None);
    let padded = basic("ada", "babbage");
    let padded = padded.to_str().unwrap();
    let bare = padded.trim_end_matches('=');
    assert_ne!(padded, bare);
    for header in [padded, bare] {
        let header = HeaderValue::try_from(header).unwrap();
        assert_eq!(admitted(&guard, &header).await, Ok(("ada".to_owned(), Role::Reader)));
    }
}

#[tokio::test]
async fn a_password_lets_in_and_hands_out_a_token_that_does_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.json");
    let listed = write_users(&path);
    let guard = guard(&path, Some("own"));
    let ada = Ok(("ada".to_owned(), Role::Reader));
    for _ in 0..2 {
        assert_eq!(admitted(&guard, &basic("ada", "lovelace")).await, ada);
    }
    let token = guard.admit(Some(&basic("ada", "lovelace")), HERE).await.unwrap().token.unwrap();
    assert_eq!(admitted(&guard, &bearer(&token)).await, ada);
    assert_eq!(admitted(&guard, &bearer(&listed)).await, ada);
    assert_eq!(
        admitted(&guard, &basic("candleflight", "own")).await,
        Ok(("candleflight".to_owned(), Role::Admin))
    );
    assert_eq!(guard.admit(None, HERE).await.unwrap_err(), Denied::Missing);
    assert_eq!(admitted(&guard, &bearer(&format!("{token}x"))).await, Err(Denied::BadToken));
    assert_eq!(admitted(&guard, &bearer("cft_guess")).await, Err(Denied::BadToken));
    assert_eq!(admitted(&guard, &HeaderValue::from_static("Digest x")).await, Err(Denied::Unreadable));
    assert_eq!(admitted(&guard, &basic("ada", "Lovelace")).await, Err(Denied::Wrong));
    assert_eq!(admitted(&guard, &basic("candleflight", "")).await, Err(Denied::Wrong));
}

#[tokio::test]
async fn guessing_is_stopped_also_for_the_right_password_but_a_token_stays_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.json");
    let listed = write_users(&path);
    let guard = guard(&path, None);
    for guess in 0..5 {
        assert_eq!(admitted(&guard, &basic("ada", &guess.to_string())).await, Err(Denied::Wrong));
    }
    let refused = admitted(&guard, &basic("ada", "lovelace")).await;
    assert!(matches!(refused, Err(Denied::TooMany { .. })), "{refused:?}");
    assert!(admitted(&guard, &bearer(&listed)).await.is_ok());
}

#[tokio::test]
async fn a_change_of_the_file_counts_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.json");
    let listed = write_users(&path);
    let guard = guard(&path, None);
    let token = guard.admit(Some(&basic("ada", "lovelace")), HERE).await.unwrap().token.unwrap();

    let mut users = Users::read(&path).unwrap();
    users.set("ada", Role::Writer, Some(&Secret::from("byron".to_owned()))).unwrap();
    users.remove_token("ada", "notebook").unwrap();
    users.write(&path).unwrap();
    look_again(&guard);
    assert_eq!(admitted(&guard, &basic("ada", "byron")).await, Ok(("ada".to_owned(), Role::Writer)));
    assert_eq!(admitted(&guard, &basic("ada", "lovelace")).await, Err(Denied::Wrong));
    assert_eq!(admitted(&guard, &bearer(&token)).await, Err(Denied::BadToken), "signed for the old password");
    assert_eq!(admitted(&guard, &bearer(&listed)).await, Err(Denied::BadToken));

    std::fs::write(&path, "{").unwrap();
    look_again(&guard);
    assert!(admitted(&guard, &basic("ada", "byron")).await.is_ok(), "a broken file changes nothing");
}

#[tokio::test]
async fn an_open_guard_lets_everyone_in_whatever_they_show() {
    let guard = Guard::default();
    assert!(guard.is_open());
    assert_eq!(guard.admit(None, HERE).await.unwrap().caller.role, Role::Admin);
    let token = guard.admit(Some(&basic("any", "thing")), HERE).await.unwrap().token.unwrap();
    assert!(admitted(&guard, &bearer(&token)).await.is_ok());
}

#[test]
fn a_password_that_is_not_hashed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users.json");
    std::fs::write(&path, r#"{"ada": {"role": "reader", "password": "lovelace"}}"#).unwrap();
    let error = Users::read(&path).unwrap_err().to_string();
    assert!(error.contains("not a hash") && !error.contains("lovelace"), "{error}");
}
