//! What a PromQL expression asks for, as far as tests must know it: its selectors, and its comparisons.

use std::{collections::BTreeSet, iter::Peekable, str::CharIndices};

/// Words that stand between operands.
const BETWEEN: [&str; 7] = ["and", "or", "unless", "bool", "offset", "inf", "nan"];
/// Words that are followed by labels in parentheses.
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// A piece of an expression.
enum Token<'a> {
    /// A metric's name, a function's or a word of the language.
    Word(&'a str),
    /// Matchers with their braces.
    Matchers(&'a str),
    /// A comparison.
    Comparison(&'a str),
    /// Anything else that means nothing here, blanks among it.
    Other(&'a str),
}

struct Tokens<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
}

impl<'a> Tokens<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, chars: text.char_indices().peekable() }
    }

    /// From `start` as long as characters are wanted.
    fn run(&mut self, start: usize, wanted: impl Fn(char) -> bool) -> &'a str {
        while self.chars.next_if(|(_, c)| wanted(*c)).is_some() {}
        &self.text[start..self.position()]
    }

    fn position(&mut self) -> usize {
        self.chars.peek().map_or(self.text.len(), |(at, _)| *at)
    }

    /// From `start` up to this character, strings passed over.
    fn up_to(&mut self, start: usize, end: char) -> &'a str {
        while let Some((_, c)) = self.chars.next() {
            if c == end {
                break;
            }
            if c == '"' {
                self.string();
            }
        }
        &self.text[start..self.position()]
    }

    fn string(&mut self) {
        while let Some((_, c)) = self.chars.next() {
            match c {
                '\\' => drop(self.chars.next()),
                '"' => return,
                _ => {}
            }
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let (start, c) = self.chars.next()?;
        Some(match c {
            '{' => Token::Matchers(self.up_to(start, '}')),
            '[' => Token::Other(self.up_to(start, ']')),
            '"' => {
                self.string();
                Token::Other(&self.text[start..self.position()])
            }
            '<' | '>' | '=' | '!' => Token::Comparison(self.run(start, |c| c == '=')),
            'a'..='z' | 'A'..='Z' | '_' | ':' => {
                Token::Word(self.run(start, |c| c.is_ascii_alphanumeric() || "_:".contains(c)))
            }
            // A number or a duration.
            '0'..='9' => Token::Other(self.run(start, |c| c.is_ascii_alphanumeric() || c == '.')),
            _ => Token::Other(&self.text[start..self.position()]),
        })
    }
}

/// The selectors of an expression, without ranges and offsets.
pub(super) fn selectors(expression: &str) -> BTreeSet<String> {
    let blank = |token: &Token<'_>| matches!(token, Token::Other(text) if text.trim().is_empty());
    let tokens: Vec<_> = Tokens::of(expression).filter(|token| !blank(token)).collect();
    let mut found = BTreeSet::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let next = tokens.get(at + 1);
        at += 1;
        match token {
            Token::Matchers(matchers) => drop(found.insert((*matchers).to_owned())),
            Token::Word(word) if BEFORE_LABELS.contains(word) => {
                let labels = tokens.iter().skip(at);
                at += labels.take_while(|t| !matches!(t, Token::Other(")"))).count();
            }
            Token::Word(word) if BETWEEN.contains(word) => {}
            Token::Word(word) => match next {
                Some(Token::Other("(") | Token::Word("by" | "without")) => {}
                Some(Token::Matchers(matchers)) => {
                    found.insert(format!("{word}{matchers}"));
                    at += 1;
                }
                _ => drop(found.insert((*word).to_owned())),
            },
            Token::Comparison(_) | Token::Other(_) => {}
        }
    }
    found
}

/// The expression with comparisons that say 0 or 1 instead of leaving out what does not fulfil them.
pub(super) fn without_filters(expression: &str) -> String {
    let piece = |token| match token {
        Token::Word(text) | Token::Matchers(text) | Token::Other(text) => text.to_owned(),
        Token::Comparison(text) => format!("{text} bool"),
    };
    Tokens::of(expression).map(piece).collect()
}

#[test]
fn an_expression_is_taken_apart() {
    let of = |expression| selectors(expression).into_iter().collect::<Vec<_>>();
    assert_eq!(
        of("sum by (le) (rate(a_bucket{x=\"}\\\"\"}[5m] offset 1h))"),
        ["a_bucket{x=\"}\\\"\"}"]
    );
    assert_eq!(of("a == 0 and on (b) c:d > 1.5e3 unless sum(e) by (f) / 2"), ["a", "c:d", "e"]);
    assert_eq!(of("quantile by (g) (0.5, {h!=\"\"}) or vector(1)"), ["{h!=\"\"}"]);
    assert_eq!(of("label_replace(i, \"j\", \"k\", \"l\", \"(.+)\") >= time()"), ["i"]);
    let without = without_filters("a{b!=\"c\"} >= 1 and d != e");
    assert_eq!(without, "a{b!=\"c\"} >= bool 1 and d != bool e");
}
