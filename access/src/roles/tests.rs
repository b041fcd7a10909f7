use std::{path::Path, time::Duration};

use http::{HeaderValue, header::AUTHORIZATION};

use super::*;

fn access(dir: &Path, files: [Option<&str>; 3]) -> Result<Access, TokenError> {
    let file = |name: &str, text: Option<&str>| {
        text.map(|text| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path
        })
    };
    let [ingest, view, admin] = files;
    let files = TokenFiles {
        ingest: file("ingest", ingest),
        view: file("view", view),
        admin: file("admin", admin),
    };
    Access::open(files, Pages::Local(vec![]), metrics(&Registry::new()))
}

/// Writes a file that is not young.
fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    let file = std::fs::File::options().append(true).open(path).unwrap();
    file.set_modified(std::time::SystemTime::now() - Duration::from_secs(1)).unwrap();
}

fn metrics(registry: &Registry) -> AccessMetrics {
    AccessMetrics::register("test", registry).unwrap()
}

fn peer(addr: &str) -> Peer {
    Peer { addr: addr.parse().unwrap(), certificate: None }
}

fn sends(values: &[&str]) -> HeaderMap {
    values.iter().map(|v| (AUTHORIZATION, HeaderValue::from_str(v).unwrap())).collect()
}

#[test]
fn files_that_cannot_be_used_are_refused_without_a_word_of_them() {
    let long = "s3cret".repeat(100);
    for (text, problem) in [
        ("", "it has no token; `openssl rand -hex 32` makes one"),
        ("\n\r\n\n", "it has no token"),
        ("s3cret-1\n\ns3cret-2\ns3cret-3\n", "line 4 has a third token"),
        (&*format!("ok\n{long}\n"), "line 2 is over 512 bytes"),
        ("s3cret 1\n", "line 1 has a character that no token can have"),
        ("\n s3cret\n", "line 2 has a character"),
        ("s3cret\t\n", "line 1 has a character"),
        ("s3cr\u{e9}t\n", "line 1 has a character"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let error = access(dir.path(), [None, Some(text), None]).unwrap_err();
        let file = dir.path().join("view");
        let said = format!("{error} {error:?}");
        assert!(error.to_string().contains(&format!("--view-token-file {}", file.display())));
        assert!(said.contains(problem) && !said.contains("s3cr"), "{text:?}: {said}");
    }
    let missing = TokenFiles { admin: Some("/no/such/file".into()), ..TokenFiles::default() };
    let error = Access::open(missing, Pages::Any, metrics(&Registry::new())).unwrap_err();
    assert!(error.to_string().starts_with("--admin-token-file /no/such/file: No such file"));
}

#[test]
fn nothing_prints_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let access = access(dir.path(), [Some("s3cret"); 3]).unwrap();
    assert!(!format!("{access:?}").contains("s3cret"));
    let digest = tokens::digest(b"s3cret");
    assert!(!format!("{access:?}").contains(&digest[0].to_string()), "not even its digest");
}

#[test]
fn a_token_is_read_from_what_clients_send() {
    let dir = tempfile::tempdir().unwrap();
    // Blank lines and Windows' line ends are nothing.
    let access = access(dir.path(), [Some("\nab:c\r\n\r\nnext"), None, None]).unwrap();
    let check = |values: &[&str]| access.decide(Role::Ingest, &sends(values), None);
    for values in [
        &["Bearer ab:c"][..],
        &["bearer   ab:c "],
        &["BEARER next"],
        &["Basic eDphYjpj"],     // x:ab:c
        &["basic OmFiOmM="],     // :ab:c
        &["Basic OmFiOmM"],      // the same without padding
        &["Basic dXNlcjpuZXh0"], // user:next
    ] {
        assert_eq!(check(values), Ok(()), "{values:?}");
    }
    for (values, why) in [
        (&[][..], Why::Missing),
        (&[""], Why::Unreadable),
        (&["ab:c"], Why::Unreadable),
        (&["Bearer"], Why::Unreadable),
        (&["Digest ab:c"], Why::Unreadable),
        (&["Basic ab:c"], Why::Unreadable),
        (&["Basic YWI="], Why::Unreadable), // no colon
        (&["Bearer ab:c", "Bearer ab:c"], Why::Unreadable),
        (&["Bearer ab:"], Why::Unknown),
        (&["Bearer ab:cd"], Why::Unknown),
        (&["Bearer AB:C"], Why::Unknown),
        (&["Bearer ab:c next"], Why::Unknown),
        (&["Basic YWI6Yw=="], Why::Unknown), // ab:c, of which the token is c
    ] {
        assert_eq!(check(values), Err(why), "{values:?}");
    }
}

#[test]
fn without_any_token_only_this_machine_is_admin() {
    let dir = tempfile::tempdir().unwrap();
    let none = access(dir.path(), [None; 3]).unwrap();
    let some = access(dir.path(), [None, Some("v"), None]).unwrap();
    let here = [peer("127.0.0.1:1"), peer("[::1]:1"), peer("[::ffff:127.0.0.1]:1")];
    let there = [peer("10.0.0.1:1"), peer("[2001:db8::1]:1")];
    for headers in [sends(&[]), sends(&["Bearer v"])] {
        for peer in &here {
            assert_eq!(none.decide(Role::Admin, &headers, Some(peer)), Ok(()));
            assert_eq!(some.decide(Role::Admin, &headers, Some(peer)), Err(Why::NoAdmin));
        }
        for peer in there.iter().map(Some).chain([None]) {
            assert_eq!(none.decide(Role::Admin, &headers, peer), Err(Why::NoAdmin));
            assert_eq!(none.decide(Role::Ingest, &headers, peer), Ok(()), "open");
            assert_eq!(some.decide(Role::Ingest, &headers, peer), Ok(()), "open");
        }
    }
}

#[test]
fn a_token_of_two_roles_has_both() {
    let dir = tempfile::tempdir().unwrap();
    let access = access(dir.path(), [Some("a\nboth"), Some("both"), Some("admin")]).unwrap();
    let both = sends(&["Bearer both"]);
    assert_eq!(access.decide(Role::Ingest, &both, None), Ok(()));
    assert_eq!(access.decide(Role::View, &both, None), Ok(()));
    assert_eq!(access.decide(Role::Admin, &both, None), Err(Why::Other(Role::Ingest)));
}

#[test]
fn a_file_that_changes_is_read_again_and_a_bad_one_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let access = access(dir.path(), [Some("one\ntwo"), None, None]).unwrap();
    let valid = |token: &str| {
        access.decide(Role::Ingest, &sends(&[&format!("Bearer {token}")]), None).is_ok()
    };
    let file = dir.path().join("ingest");
    for bad in [Some(""), Some("a b"), Some("1\n2\n3"), None] {
        match bad {
            Some(text) => write(&file, text),
            None => std::fs::remove_file(&file).unwrap(),
        }
        access.reload();
        assert!(valid("one") && valid("two"), "{bad:?}");
    }
    std::fs::write(&file, "two\nthree\n").unwrap();
    assert!(!valid("three"), "before it is read");
    access.reload();
    assert!(!valid("one") && valid("two") && valid("three"));
    // Without the end of its line it may be half a token, until it is a second old.
    std::fs::write(&file, "fou").unwrap();
    access.reload();
    assert!(valid("two") && !valid("fou"));
    write(&file, "four");
    access.reload();
    assert!(!valid("two") && valid("four"));
}

#[test]
fn what_is_refused_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let access = access(dir.path(), [Some("i"), None, None]).unwrap();
    for _ in 0..5 {
        access.check(Role::Ingest, &sends(&[]), None).unwrap_err();
    }
    let counted = access.metrics.unauthorized.with_label_values(&["ingest"]).get();
    assert_eq!(counted, 5);
}

#[test]
fn pages_of_elsewhere_are_refused_where_no_token_is_needed() {
    let headers = |host: &'static str, token: Option<&str>| {
        let mut headers = sends(token.as_slice());
        headers.insert(http::header::HOST, HeaderValue::from_static(host));
        headers
    };
    let here = peer("127.0.0.1:1");
    let dir = tempfile::tempdir().unwrap();
    let open = access(dir.path(), [None; 3]).unwrap();
    for role in Role::ALL {
        open.check(role, &headers("localhost", None), Some(&here)).unwrap();
        let denied = open.check(role, &headers("evil.example", None), Some(&here)).unwrap_err();
        assert!(!denied.wants_token());
        let said = denied.to_string();
        let cures = ["localhost", &format!("--{}-token-file", role.as_str())];
        assert!(cures.iter().all(|cure| said.contains(cure)), "{said}");
        assert!(said.contains(&format!("no {} token", role.as_str())), "{said}");
        assert_eq!(said.contains("--allow-unauthenticated"), role != Role::Admin, "{said}");
    }
    // Who has a token comes as whoever they like.
    let closed = access(dir.path(), [Some("i"), Some("v"), Some("a")]).unwrap();
    for (role, token) in Role::ALL.into_iter().zip(["Bearer i", "Bearer v", "Bearer a"]) {
        closed.check(role, &headers("manager.example", Some(token)), Some(&here)).unwrap();
    }
    // Where anybody may look, this machine's browser still changes nothing for a page of elsewhere.
    let files = TokenFiles::default();
    let any = Access::open(files, Pages::Any, metrics(&Registry::new())).unwrap();
    any.check(Role::View, &headers("evil.example", None), Some(&here)).unwrap();
    any.check(Role::Admin, &headers("evil.example", None), Some(&here)).unwrap_err();
    any.check(Role::Admin, &headers("localhost", None), Some(&here)).unwrap();
}
