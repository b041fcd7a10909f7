//! Entity tags (RFC 9110, sections 8.8.3, 13.1.1 and 13.1.2).

use axum::http::{HeaderMap, HeaderName, header};

use utoipa::ToSchema;

use super::problem::Problem;

/// A list of tags that a client knows, or any.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// `*`
    Any,
    Tags(Vec<Tag>),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tag {
    weak: bool,
    opaque: String,
}

/// How a list of tags is written.
#[derive(ToSchema)]
#[schema(
    value_type = String,
    pattern = r#"^(\*|(W/)?"[!#-~]*"(, (W/)?"[!#-~]*")*)$"#,
    example = "\"3\""
)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct TagList(String);

/// The tag of a revision, without quotes.
fn opaque(revision: u64) -> String {
    revision.to_string()
}

/// The tag of a revision, as a header.
pub(super) fn header_of(revision: u64) -> String {
    format!("\"{}\"", opaque(revision))
}

impl Known {
    /// Reads `If-Match`; `None` if it is not there.
    pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        Self::read(headers, &header::IF_MATCH)
    }

    /// Reads `If-None-Match`; `None` if it is not there, or no such list: then the client has nothing.
    pub(super) fn if_none_match(headers: &HeaderMap) -> Option<Self> {
        Self::read(headers, &header::IF_NONE_MATCH).ok().flatten()
    }

    fn read(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Problem> {
        let lines: Vec<_> = headers.get_all(name).iter().collect();
        if lines.is_empty() {
            return Ok(None);
        }
        let mut tags = Vec::new();
        for line in &lines {
            match line.to_str().ok().map(str::trim) {
                Some("*") if lines.len() == 1 => return Ok(Some(Self::Any)),
                Some(line) if parse(line, &mut tags).is_some() => {}
                _ => return Err(no_list(name)),
            }
        }
        if tags.is_empty() { Err(no_list(name)) } else { Ok(Some(Self::Tags(tags))) }
    }

    /// Strong comparison: for changes.
    pub(super) fn matches_strongly(&self, revision: u64) -> bool {
        self.matches(|tag| !tag.weak && tag.opaque == opaque(revision))
    }

    /// Weak comparison: for what a cache has.
    pub(super) fn matches_weakly(&self, revision: u64) -> bool {
        self.matches(|tag| tag.opaque == opaque(revision))
    }

    fn matches(&self, same: impl Fn(&Tag) -> bool) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => tags.iter().any(same),
        }
    }
}

fn no_list(name: &HeaderName) -> Problem {
    Problem::invalid(format!("{name} is neither * nor a list of tags, as in \"3\""))
}

/// `None` if the list is none.
fn parse(mut list: &str, tags: &mut Vec<Tag>) -> Option<()> {
    loop {
        list = list.trim_start_matches([' ', '\t', ',']);
        if list.is_empty() {
            return Some(());
        }
        let (weak, rest) = match list.strip_prefix("W/") {
            Some(rest) => (true, rest),
            None => (false, list),
        };
        let (opaque, rest) = rest.strip_prefix('"')?.split_once('"')?;
        list = rest.trim_start();
        if !list.is_empty() && !list.starts_with(',') {
            return None;
        }
        tags.push(Tag { weak, opaque: opaque.to_owned() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Option<Known> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::IF_MATCH, line.parse().unwrap());
        }
        Known::if_match(&headers).ok().flatten()
    }

    #[test]
    fn lists_of_tags_are_read() {
        let known = read(&["\"a,b\" , W/\"2\",,\"3\"", "\"\""]).unwrap();
        assert!(known.matches_strongly(3));
        assert!(!known.matches_strongly(2), "a weak tag");
        assert!(known.matches_weakly(2));
        assert!(!known.matches_weakly(1));
        assert_eq!(read(&["*"]), Some(Known::Any));
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bad in ["", " , ", "3", "\"3", "\"3\" \"4\"", "W\"3\"", "* , \"3\""] {
            let mut headers = HeaderMap::new();
            headers.append(header::IF_MATCH, bad.parse().unwrap());
            assert!(Known::if_match(&headers).is_err(), "{bad}");
        }
    }
}
