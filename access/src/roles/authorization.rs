//! What a request says about who sends it: `Authorization: Bearer TOKEN`, or Basic with the token as password, which is what
//! scrapers and push clients know.

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderMap, header::AUTHORIZATION};

/// Padding or not, as clients will have it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a request brings.
pub(super) enum Presented {
    /// No Authorization at all.
    Nothing,
    /// Another scheme, broken base64, two headers.
    Unreadable,
    Token(Vec<u8>),
}

pub(super) fn presented(headers: &HeaderMap) -> Presented {
    let mut stated = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = stated.next() else {
        return Presented::Nothing;
    };
    if stated.next().is_some() {
        return Presented::Unreadable;
    }
    read(value.as_bytes()).map_or(Presented::Unreadable, Presented::Token)
}

fn read(value: &[u8]) -> Option<Vec<u8>> {
    let value = value.trim_ascii();
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at_checked(space)?;
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let decoded = BASE64.decode(rest).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    decoded.get(colon + 1..).map(<[u8]>::to_owned)
}
