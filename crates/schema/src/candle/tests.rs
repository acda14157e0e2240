use proptest::prelude::*;

use super::{Candle, SYMBOL_BYTES_MAX, TIME_MICROS_MAX, TIMESTAMP_SECONDS_MAX, is_symbol, plain};

#[test]
fn a_candle_reads_back_bit_for_bit() {
    let candle = Candle {
        symbol: "BTC-USD".into(),
        timestamp: 1_748_545_200.0,
        open: 0.1 + 0.2,
        high: 123_456_789.123_456_79,
        low: 5e-324,
        close: 4.584_999_999_999_999,
        volume: 9_007_199_254_740_993.0,
    };
    let json = serde_json::to_string(&candle).unwrap();
    assert!(json.contains(r#""timestamp":1748545200,"#), "{json}");
    assert_eq!(Candle::from_json(json.as_bytes()).unwrap(), candle);
}

#[test]
fn usual_messages_need_no_general_parser() {
    let usual = [
        r#"{"symbol":"BTC-USD","timestamp":1748545200,"open":105796.01,"high":105911.5,"low":0,"close":-1.5,"volume":277.44811234}"#,
        r#" { "Symbol" : "é" , "Timestamp":1748545200.0,"Open":0.5,"High":1,"Low":2,"Close":3,"Volume":4 } "#,
    ];
    for json in usual {
        let candle: Candle<'_> = serde_json::from_str(json).unwrap();
        assert_eq!(plain::read(json.as_bytes()), Some(candle), "{json}");
    }
}

#[test]
fn a_symbol_is_short_and_readable() {
    let longest = "x".repeat(SYMBOL_BYTES_MAX);
    for symbol in ["BTC-USD", "é", "BRK A", "1INCH", &longest] {
        assert!(is_symbol(symbol), "{symbol:?}");
    }
    let too_long = "x".repeat(SYMBOL_BYTES_MAX + 1);
    for text in ["", "BTC\0USD", "BTC\nUSD", "\t", "\u{7f}", "BTC\u{85}", &too_long] {
        assert!(!is_symbol(text), "{text:?}");
    }
}

#[test]
fn the_latest_time_is_the_same_in_seconds_and_in_microseconds() {
    assert_eq!(super::event_time_micros(TIMESTAMP_SECONDS_MAX), TIME_MICROS_MAX);
}

/// Texts that are numbers, nearly numbers, or other JSON.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?[0-9]{1,18}(\\.[0-9]{0,18})?([eE][+-]?[0-9]{1,3})?",
        any::<f64>().prop_map(|number| format!("{number:?}")),
        "[-+.0-9a-z\" ]{0,5}",
    ]
}

proptest! {
    /// The fast decoder declines a message or agrees with the general parser. It accepts no invalid message.
    #[test]
    fn the_usual_way_agrees_with_the_general_parser(
        values in prop::collection::vec(value(), 6),
        symbol in "\\PC{0,8}",
        order in Just([0, 1, 2, 3, 4, 5, 6]).prop_shuffle(),
        cut in prop::option::of((0..200_usize, any::<u8>())),
    ) {
        let names = ["timestamp", "open", "high", "low", "close", "Volume"];
        let mut fields: Vec<String> = names.iter().zip(&values).map(|(name, value)| format!("\"{name}\":{value}")).collect();
        fields.push(format!("\"symbol\":\"{symbol}\""));
        let ordered: Vec<&str> = order.iter().map(|field| fields[*field].as_str()).collect();
        let mut json = format!("{{{}}}", ordered.join(", ")).into_bytes();
        if let Some((at, byte)) = cut && at < json.len() {
            json[at] = byte;
        }
        if let Some(candle) = plain::read(&json) {
            let general: Candle<'_> = serde_json::from_slice(&json).unwrap();
            for (one, other) in [(candle.open, general.open), (candle.volume, general.volume), (candle.timestamp, general.timestamp)] {
                prop_assert_eq!(one.to_bits(), other.to_bits());
            }
            prop_assert_eq!(candle, general);
        }
    }
}
