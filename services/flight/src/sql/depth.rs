//! Limit of the nesting of a query. The engine plans by recursion, and a stack overflow would end the whole process.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::CallError;

/// Maximum number of operators of one query. The stack of a query thread has room for many times as many. The parser itself limits the
/// depth of brackets.
const OPERATORS_MAX: usize = 2_000;

/// Checks that a query's text has no more operators than the engine can plan. Each operator can add one level: `a + b + c` is `(a + b) +
/// c`.
///
/// # Errors
///
/// The text has too many operators, or is not SQL.
pub(crate) fn check_depth(query: &str) -> Result<(), CallError> {
    let tokens = Tokenizer::new(&GenericDialect {}, query).tokenize();
    let tokens = tokens.map_err(|error| CallError::BadRequest(format!("the query is not SQL: {error}")))?;
    let count = tokens.iter().filter(|token| deepens(token)).count();
    if count <= OPERATORS_MAX {
        return Ok(());
    }
    Err(CallError::BadRequest(format!(
        "the query has {count} operators and keywords; at most {OPERATORS_MAX} can be planned: use IN or VALUES for long lists"
    )))
}

/// Returns true if a token can add a level of nesting: any token except values, names, plain punctuation and space.
fn deepens(token: &Token) -> bool {
    match token {
        Token::Word(word) => word.keyword != Keyword::NoKeyword && word.quote_style.is_none(),
        Token::Whitespace(_)
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::Placeholder(_)
        | Token::Comma
        | Token::Period
        | Token::SemiColon
        | Token::LParen
        | Token::RParen
        | Token::EOF => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::{OPERATORS_MAX, check_depth};

    #[test]
    fn long_chains_are_refused_and_long_lists_are_not() {
        let list = format!("SELECT * FROM t WHERE x IN ({})", vec!["1"; 100_000].join(", "));
        assert!(check_depth(&list).is_ok());
        for (begin, link) in [
            ("SELECT 1", " + 1"),
            ("SELECT a", " OR a"),
            ("SELECT 1", " UNION ALL SELECT 1"),
            ("SELECT a", "::int"),
        ] {
            assert!(check_depth(&format!("{begin}{}", link.repeat(OPERATORS_MAX / 4))).is_ok(), "{link}");
            assert!(check_depth(&format!("{begin}{}", link.repeat(OPERATORS_MAX))).is_err(), "{link}");
        }
    }
}
