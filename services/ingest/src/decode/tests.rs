use proptest::prelude::*;
use schema::candle::Candle;

use super::decode;

/// Time of a message in 2025, in milliseconds.
const KAFKA_MILLIS: i64 = 1_748_600_000_000;

fn reason(payload: &[u8]) -> Result<(), &'static str> {
    decode(Some(payload), Some(KAFKA_MILLIS)).map(|_| ()).map_err(|unusable| unusable.reason)
}

fn check(payload: &str, expected: Result<(), &'static str>) {
    assert_eq!(reason(payload.as_bytes()), expected, "{payload:.300}");
}

/// Returns a usable message with `field` written as `value`.
fn with(field: &str, value: &str) -> String {
    let fields = [
        ("symbol", "\"BTC-USD\""),
        ("timestamp", "1748545200"),
        ("open", "105796.0"),
        ("high", "105911.5"),
        ("low", "105796.0"),
        ("close", "105874.0"),
        ("volume", "277.448"),
    ];
    let fields =
        fields.map(|(name, text)| format!("\"{name}\":{}", if name == field { value } else { text }));
    format!("{{{}}}", fields.join(","))
}

#[test]
fn a_candle_is_read_with_its_times() {
    let decoded = decode(Some(br#"{"symbol":"B","timestamp":1748545200.5,"open":1,"high":2.5e0,"low":0.5,"close":2,"volume":0,"more":[{}]}"#), Some(KAFKA_MILLIS));
    let decoded = decoded.unwrap();
    assert_eq!((decoded.event_time, decoded.kafka_time), (1_748_545_200_500_000, 1_748_600_000_000_000));
    let candle = Candle {
        symbol: "B".into(),
        timestamp: 1_748_545_200.5,
        open: 1.0,
        high: 2.5,
        low: 0.5,
        close: 2.0,
        volume: 0.0,
    };
    assert_eq!(decoded.candle, candle);
}

#[test]
fn capitalised_names_and_escapes_are_read() {
    check(
        r#"{"Symbol":"B\u0054C","Timestamp":1748545200,"Open":1,"High":1,"Low":1,"Close":1,"Volume":0}"#,
        Ok(()),
    );
}

#[test]
fn a_message_without_a_value_is_null() {
    assert_eq!(decode(None, Some(KAFKA_MILLIS)).unwrap_err().reason, "null_value");
    check("", Err("null_value"));
}

#[test]
fn what_is_not_a_json_object_says_so() {
    check("garbage", Err("not_json"));
    check("{", Err("not_json"));
    check(&format!("{} trailing", with("", "")), Err("not_json"));
    check(&with("open", "NaN"), Err("not_json"));
    check(&with("open", "1,"), Err("not_json"));
    assert_eq!(reason(b"\xff\xfe\x00"), Err("not_json"));
    assert_eq!(reason(b"{\"symbol\":\"\xff\"}"), Err("not_json"));
    check(r#"["BTC-USD",1748545200,1,1,1,1,1]"#, Err("not_an_object"));
    check("42", Err("not_an_object"));
    check("null", Err("not_an_object"));
}

#[test]
fn missing_repeated_and_wrong_fields_are_told_apart() {
    check("{}", Err("missing_field"));
    check(&with("", "").replace(r#","volume":277.448"#, ""), Err("missing_field"));
    check(&with("open", r#"1,"open":1"#), Err("duplicate_field"));
    check(&with("open", r#"1,"Open":1"#), Err("duplicate_field"));
    for wrong in ["\"1.0\"", "\"NaN\"", "null", "true", "[]", "{}"] {
        check(&with("close", wrong), Err("not_a_number"));
    }
    check(&with("timestamp", "\"2025-05-29\""), Err("not_a_number"));
    let control =
        ["\"B\\u0000\"", "\"B\\n\"", "\"\\u001b[31mB\"", "\"B\\u007f\"", "\"B\\u0085\"", "\"B\u{7f}\""];
    for wrong in ["1", "null", "\"\"", &format!("\"{}\"", "x".repeat(65))].into_iter().chain(control) {
        check(&with("symbol", wrong), Err("bad_symbol"));
    }
    // Half a surrogate pair is not a text.
    check(&with("symbol", "\"\\ud800\""), Err("not_json"));
}

#[test]
fn numbers_out_of_bounds_are_rejected() {
    check(&with("open", "1e400"), Err("not_finite"));
    check(&with("volume", "1e16"), Err("number_out_of_range"));
    check(&with("volume", "-1"), Err("negative_volume"));
    check(&with("low", "105912"), Err("high_below_low"));
    check(&with("timestamp", "-1"), Err("time_out_of_range"));
    check(&with("timestamp", "1748545200000"), Err("time_out_of_range"));
    check(&with("timestamp", "1748686401"), Err("time_out_of_range"));
    check(&with("timestamp", "1748686400"), Ok(()));
}

#[test]
fn a_message_time_that_no_store_takes_is_rejected() {
    let payload = with("", "");
    for kafka_millis in [None, Some(-1), Some(i64::MAX), Some(253_402_300_800_000)] {
        let unusable = decode(Some(payload.as_bytes()), kafka_millis).unwrap_err();
        assert_eq!(unusable.reason, "kafka_time_out_of_range");
    }
}

#[test]
fn the_detail_of_a_huge_message_is_short() {
    let huge = with("close", &format!("\"{}\"", "x".repeat(10_000_000)));
    assert!(decode(Some(huge.as_bytes()), Some(KAFKA_MILLIS)).unwrap_err().detail.len() <= 200);
}

proptest! {
    #[test]
    fn numbers_read_back_bit_for_bit(open in -1e15..1e15, volume in 0.0..1e15, high in 0.0..1e15, depth in 0.0..1e3) {
        let candle = Candle { symbol: "S".into(), timestamp: 60.0, open, high, low: high - depth, close: open, volume };
        prop_assume!(candle.validate(0).is_ok());
        let json = serde_json::to_vec(&candle).unwrap();
        let decoded = decode(Some(&json), Some(KAFKA_MILLIS)).unwrap();
        prop_assert_eq!(decoded.candle, candle);
    }

    #[test]
    fn no_bytes_make_it_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(reason(&payload).is_err());
    }

    #[test]
    fn a_cut_message_is_never_a_candle(at in 0..100_usize) {
        let payload = with("", "");
        prop_assert!(reason(&payload.as_bytes()[..at.min(payload.len() - 1)]).is_err());
    }
}
