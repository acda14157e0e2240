//! The usual message, read without a general parser: a flat object of the seven fields, in any order, each once, nothing escaped, numbers
//! without an exponent. Anything else is left to the general one, which also finds what is wrong with it.

use super::Candle;

/// Names of the numbers, in the order of [`Candle`]'s fields; each may be capitalised.
const NUMBERS: [&[u8]; 6] = [b"timestamp", b"open", b"high", b"low", b"close", b"volume"];
/// Digits that a float64 always holds exactly.
const DIGITS_MAX: usize = 15;
/// Powers of ten, exact: a quotient of two exact numbers is rounded once, to the nearest.
const POWERS: [f64; DIGITS_MAX + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Powers of ten by which eight digits and fewer move up.
const WHOLE_POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// Reads a usual message; `None` where it is not one.
pub(super) fn read(json: &[u8]) -> Option<Candle<'_>> {
    let mut rest = Rest(json);
    let (mut symbol, mut numbers) = (None, [None; NUMBERS.len()]);
    // Most senders keep the order of the names.
    let mut expected = 0;
    rest.expect(b'{')?;
    loop {
        let name = rest.string()?;
        rest.expect(b':')?;
        let is_repeated = if is_name(name, b"symbol") {
            symbol.replace(std::str::from_utf8(rest.string()?).ok()?).is_some()
        } else {
            let is_expected = NUMBERS.get(expected).is_some_and(|number| is_name(name, number));
            let found = || NUMBERS.iter().position(|number| is_name(name, number));
            let index = if is_expected { expected } else { found()? };
            expected = index + 1;
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

/// Tells whether a field has this name, or this name capitalised.
fn is_name(field: &[u8], name: &[u8]) -> bool {
    field == name
        || (field.len() == name.len() && field[0] == name[0].to_ascii_uppercase() && field[1..] == name[1..])
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// Takes the next byte that is no white space.
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

    /// Takes a number; the nearest float64.
    fn number(&mut self) -> Option<f64> {
        let first = self.token()?;
        let is_negative = first == b'-';
        let leading = if is_negative { self.digit()? } else { first.is_ascii_digit().then_some(first)? };
        let (mut mantissa, more) = self.digits(u64::from(leading - b'0'));
        if leading == b'0' && more > 0 {
            return None;
        }
        let mut decimals = 0;
        if self.0.first() == Some(&b'.') {
            self.0 = &self.0[1..];
            (mantissa, decimals) = self.digits(mantissa);
            if decimals == 0 {
                return None;
            }
        }
        if 1 + more + decimals > DIGITS_MAX || matches!(self.0.first(), Some(b'e' | b'E')) {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "it has few enough digits")]
        let number = mantissa as f64 / POWERS[decimals];
        Some(if is_negative { -number } else { number })
    }

    /// Takes all digits that come, behind those of `mantissa`, and counts them. The sum wraps where they are too many.
    fn digits(&mut self, mut mantissa: u64) -> (u64, usize) {
        let mut count = 0;
        while let Some(bytes) = self.0.first_chunk() {
            let (value, digits) = leading_digits(u64::from_le_bytes(*bytes));
            mantissa = mantissa.wrapping_mul(WHOLE_POWERS[digits]).wrapping_add(value);
            count += digits;
            self.0 = &self.0[digits..];
            if digits < WHOLE_POWERS.len() - 1 {
                return (mantissa, count);
            }
        }
        while let Some(digit) = self.digit() {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            count += 1;
        }
        (mantissa, count)
    }

    fn digit(&mut self) -> Option<u8> {
        let (digit, rest) = self.0.split_first().filter(|(byte, _)| byte.is_ascii_digit())?;
        self.0 = rest;
        Some(*digit)
    }
}

/// Returns the value of the digits that eight characters begin with, and how many these are; the first character is the lowest byte.
///
/// All eight are looked at together, as in Lemire's "Quickly parsing eight digits" (2022): pairs, fours, then eight.
fn leading_digits(characters: u64) -> (u64, usize) {
    const HIGH: u64 = 0xF0F0_F0F0_F0F0_F0F0;
    const ZEROS: u64 = 0x3030_3030_3030_3030;
    // A digit is 0x30 to 0x39: so are its high four bits, also with 6 more. A carry only spoils what comes after a character that is none.
    let others =
        ((characters & HIGH) ^ ZEROS) | ((characters.wrapping_add(0x0606_0606_0606_0606) & HIGH) ^ ZEROS);
    let digits = others.trailing_zeros() / 8;
    // Those that are none are shifted out: zeros in front take their place.
    let aligned = characters.checked_shl(64 - 8 * digits).unwrap_or(0);
    let pairs = (aligned & 0x0F0F_0F0F_0F0F_0F0F).wrapping_mul(10 * 0x100 + 1) >> 8;
    let fours = (pairs & 0x00FF_00FF_00FF_00FF).wrapping_mul(100 * 0x1_0000 + 1) >> 16;
    let value = (fours & 0x0000_FFFF_0000_FFFF).wrapping_mul(10_000 * 0x1_0000_0000 + 1) >> 32;
    (value, digits as usize)
}
