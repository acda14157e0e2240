use crate::{Access, Args, Identity, Secret};

#[test]
fn without_a_password_only_loopback_is_listened_on() {
    let open = Access::default();
    for (address, is_allowed) in [
        ("127.0.0.1:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("10.0.0.1:1", false),
    ] {
        assert_eq!(open.check_listen(address.parse().unwrap()).is_ok(), is_allowed, "{address}");
    }
    let error = open.check_listen("0.0.0.0:1".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("CANDLEFLIGHT_PASSWORD"), "{error}");

    let client = Identity { password: Some(Secret::from("secret".to_owned())), ..Identity::default() };
    let guarded = Access::open(&Args { client, ..Args::default() }).unwrap();
    assert!(guarded.check_listen("0.0.0.0:1".parse().unwrap()).is_ok());
    assert!(!format!("{guarded:?}").contains("secret"));
}
