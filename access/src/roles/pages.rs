//! Whose web pages may ask where no token is needed.
//!
//! A browser reaches ports of its own machine that nobody else does, and asks there what any page says that it shows: by a name of
//! the page's own that is made to mean this machine (DNS rebinding; then it reads the answer too), or blindly, as a form does. The one
//! shows in `Host`, the other in `Origin`.

use std::net::{IpAddr, SocketAddr};

use http::{
    HeaderMap, HeaderValue, Uri,
    header::{HOST, ORIGIN},
    uri::Authority,
};

use super::Role;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pages {
    /// This machine's own, and those of these origins.
    Local(Vec<HeaderValue>),
    /// Anybody's, as far as no token is needed.
    Any,
}

/// What tells that a page of elsewhere asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    Host,
    Origin,
}

impl Pages {
    /// Those that a port at `addr` is for: this machine's if nobody else reaches it, unless it is said that anybody may ask.
    #[must_use]
    pub fn of_port(addr: SocketAddr, anybody: bool, origins: Vec<HeaderValue>) -> Self {
        if addr.ip().to_canonical().is_loopback() && !anybody {
            Self::Local(origins)
        } else {
            Self::Any
        }
    }

    /// Whether what is sent without a token may be what it asks to be.
    pub(super) fn check(&self, role: Role, headers: &HeaderMap) -> Result<(), Foreign> {
        match self {
            Self::Local(origins) => local(role, headers, origins),
            Self::Any => Ok(()),
        }
    }
}

/// What comes from this machine is this machine's own. A browser always says a host, and of what is more than a look the
/// origin; gRPC clients say neither.
pub(super) fn local(
    role: Role,
    headers: &HeaderMap,
    origins: &[HeaderValue],
) -> Result<(), Foreign> {
    if !headers.get_all(HOST).iter().all(|host| names_this_machine(host.as_bytes())) {
        return Err(Foreign::Host);
    }
    let is_own = |origin: &HeaderValue| origins.contains(origin) || is_of_this_machine(origin);
    if role != Role::View && !headers.get_all(ORIGIN).iter().all(is_own) {
        return Err(Foreign::Origin);
    }
    Ok(())
}

fn is_of_this_machine(origin: &HeaderValue) -> bool {
    let Ok(origin) = Uri::try_from(origin.as_bytes()) else {
        return false;
    };
    let is_web = matches!(origin.scheme_str(), Some("http" | "https"));
    is_web && origin.authority().is_some_and(|host| names_this_machine(host.as_str().as_bytes()))
}

/// Names that nobody can make mean another machine, nor this one.
fn names_this_machine(authority: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(authority) else {
        return false;
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(host: Option<&str>, origin: Option<&str>) -> HeaderMap {
        let header = |name, value: &str| (name, HeaderValue::from_str(value).unwrap());
        let host = host.map(|host| header(HOST, host));
        host.into_iter().chain(origin.map(|origin| header(ORIGIN, origin))).collect()
    }

    #[test]
    fn a_name_of_elsewhere_is_none_of_this_machine() {
        let ports = Pages::Local(vec![]);
        for own in
            ["localhost", "LocalHost:3000", "127.0.0.1", "127.1.2.3:3000", "[::1]", "[::1]:3000"]
        {
            for role in Role::ALL {
                assert_eq!(ports.check(role, &asks(Some(own), None)), Ok(()), "{own}");
            }
        }
        assert_eq!(ports.check(Role::Ingest, &asks(None, None)), Ok(()), "gRPC has none");
        for foreign in [
            "evil.example",
            "evil.example:3000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil-localhost",
            "10.0.0.1",
            "0.0.0.0:3000",
            "[::ffff:10.0.0.1]",
            "localhost@evil.example",
            "localhost/",
            "",
            "a b",
        ] {
            let asked = asks(Some(foreign), None);
            for role in Role::ALL {
                assert_eq!(ports.check(role, &asked), Err(Foreign::Host), "{foreign:?}");
            }
            assert_eq!(Pages::Any.check(Role::View, &asked), Ok(()));
        }
        let mut twice = asks(Some("localhost"), None);
        twice.append(HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(ports.check(Role::View, &twice), Err(Foreign::Host));
    }

    #[test]
    fn a_page_of_elsewhere_changes_nothing() {
        let named = HeaderValue::from_static("https://dashboard.example");
        let ports = Pages::Local(vec![named]);
        let asks = |origin: &str| asks(Some("localhost:3000"), Some(origin));
        for own in [
            "http://localhost:3000",
            "http://127.0.0.1:5173",
            "https://[::1]",
            "https://dashboard.example",
        ] {
            for role in Role::ALL {
                assert_eq!(ports.check(role, &asks(own)), Ok(()), "{own}");
            }
        }
        for foreign in [
            "null",
            "https://evil.example",
            "https://dashboard.example.evil.example",
            "http://dashboard.example",
            "http://localhost.evil.example",
            "chrome-extension://localhost",
            "localhost",
            "",
        ] {
            for role in [Role::Ingest, Role::Admin] {
                assert_eq!(ports.check(role, &asks(foreign)), Err(Foreign::Origin), "{foreign:?}");
            }
            assert_eq!(ports.check(Role::View, &asks(foreign)), Ok(()), "browsers keep the answer");
        }
    }

    #[test]
    fn a_port_that_others_reach_is_for_any_page() {
        let of = |addr: &str, anybody| Pages::of_port(addr.parse().unwrap(), anybody, vec![]);
        assert_eq!(of("127.0.0.1:1", false), Pages::Local(vec![]));
        assert_eq!(of("[::1]:1", false), Pages::Local(vec![]));
        for (addr, anybody) in [("127.0.0.1:1", true), ("0.0.0.0:1", false), ("10.0.0.1:1", true)] {
            assert_eq!(of(addr, anybody), Pages::Any);
        }
    }
}
