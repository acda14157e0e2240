//! A fast decoder for the usual message. The usual message is a flat object of the seven fields, each exactly once, in any order. Its
//! strings have no escapes, and its numbers have no exponents.
//!
//! Any other message goes to the general parser, which also reports what is wrong with it.

use super::Candle;

/// Names of the numeric fields, in the order of [`Candle`]'s fields. Each may be capitalised.
const NUMBERS: [&[u8]; 6] = [b"timestamp", b"open", b"high", b"low", b"close", b"volume"];
/// Number of digits that a float64 always holds exactly.
const DIGITS_MAX: usize = 15;
/// Powers of ten, all exact. A quotient of two exact numbers is rounded once, to the nearest float64.
const POWERS: [f64; DIGITS_MAX + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Decodes a usual message. Returns `None` for any other.
pub(super) fn read(json: &[u8]) -> Option<Candle<'_>> {
    let mut rest = Rest(json);
    let (mut symbol, mut numbers) = (None, [None; NUMBERS.len()]);
    rest.expect(b'{')?;
    loop {
        let name = rest.string()?;
        rest.expect(b':')?;
        let is_repeated = if is_name(name, b"symbol") {
            symbol.replace(std::str::from_utf8(rest.string()?).ok()?).is_some()
        } else {
            let index = NUMBERS.iter().position(|number| is_name(name, number))?;
            numbers[index].replace(rest.number()?).is_some()
        };
        if is_repeated {
            return None;
        }
        match rest.token()? {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    if rest.token().is_some() {
        return None;
    }
    let [timestamp, open, high, low, close, volume] = numbers;
    Some(Candle {
        symbol: symbol?.into(),
        timestamp: timestamp?,
        open: open?,
        high: high?,
        low: low?,
        close: close?,
        volume: volume?,
    })
}

/// Returns true if a field has this name, capitalised or not.
fn is_name(field: &[u8], name: &[u8]) -> bool {
    field == name
        || (field.len() == name.len() && field[0] == name[0].to_ascii_uppercase() && field[1..] == name[1..])
}

/// The part of the message that has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// Takes the next byte that is not white space.
    fn token(&mut self) -> Option<u8> {
        loop {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.token()? == byte).then_some(())
    }

    /// Takes a string without escapes.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let length = self.0.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))?;
        let (string, rest) = self.0.split_at(length);
        self.0 = rest;
        self.expect(b'"')?;
        Some(string)
    }

    /// Takes a number and returns the nearest float64.
    fn number(&mut self) -> Option<f64> {
        let first = self.token()?;
        let is_negative = first == b'-';
        let leading = if is_negative { self.digit()? } else { first.is_ascii_digit().then_some(first)? };
        let (mut mantissa, mut digits, mut decimals) = (u64::from(leading - b'0'), 1, 0);
        while let Some(digit) = self.digit() {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            digits += 1;
        }
        if leading == b'0' && digits > 1 {
            return None;
        }
        if self.0.first() == Some(&b'.') {
            self.0 = &self.0[1..];
            while let Some(digit) = self.digit() {
                mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
                decimals += 1;
            }
            if decimals == 0 {
                return None;
            }
        }
        if digits + decimals > DIGITS_MAX || matches!(self.0.first(), Some(b'e' | b'E')) {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "the number has at most 15 digits")]
        let number = mantissa as f64 / POWERS[decimals];
        Some(if is_negative { -number } else { number })
    }

    fn digit(&mut self) -> Option<u8> {
        let (digit, rest) = self.0.split_first().filter(|(byte, _)| byte.is_ascii_digit())?;
        self.0 = rest;
        Some(*digit)
    }
}
