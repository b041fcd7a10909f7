//! Long records, in pieces.

use super::*;

/// A record of that many pieces, each of other bytes.
fn long(pieces: usize) -> Vec<u8> {
    (0..pieces).flat_map(|n| vec![n as u8; PIECE_BYTES]).collect()
}

/// Adds a long record with a short one before each of its pieces; gives the offset at which each ends.
fn mixed(log: &mut Log<FaultyDisk>, long: &[u8]) -> Vec<u64> {
    let mut ends = Vec::new();
    for (n, piece) in super::super::pieces(long).unwrap().enumerate() {
        log.append(&[n as u8]).unwrap();
        ends.push(log.disk_bytes());
        log.append_piece(&piece).unwrap();
        ends.push(log.disk_bytes());
    }
    ends
}

#[test]
fn a_long_record_comes_back_whole_where_it_ended() {
    let dir = TempDir::new().unwrap();
    let (mut log, ..) = reopen(dir.path());
    let (first, mut second) = (long(3), long(2));
    second.push(7);
    mixed(&mut log, &first);
    mixed(&mut log, &second);
    log.append(b"last").unwrap();
    let appended = log.since_checkpoint();
    drop(log);
    let shorts = |n: u8| (0..n).map(|n| vec![n]);
    let expected: Vec<_> =
        shorts(3).chain([first]).chain(shorts(3)).chain([second, b"last".to_vec()]).collect();
    let (log, recovered, replayed) = reopen(dir.path());
    assert!(replayed.into_iter().map(|(payload, _)| payload).eq(expected));
    assert_eq!((flaws(&recovered), log.since_checkpoint()), (vec![], appended));
}

#[test]
fn one_that_was_cut_off_is_not_there_and_what_stood_between_is() {
    let whole = TempDir::new().unwrap();
    let (mut log, ..) = reopen(whole.path());
    let record = long(3);
    let ends = mixed(&mut log, &record);
    drop(log);
    let bytes = fs::read(segment(whole.path(), 1)).unwrap();
    for (n, end) in ends.iter().enumerate() {
        for cut in [end - 1, *end, end + 1] {
            let dir = TempDir::new().unwrap();
            let bytes = bytes.get(..cut as usize).unwrap_or(&bytes);
            fs::write(segment(dir.path(), 1), bytes).unwrap();
            // Each second thing is a short record.
            let shorts = (n + usize::from(cut >= *end)).div_ceil(2);
            let mut expected: Vec<_> = (0..shorts).map(|n| vec![n as u8]).collect();
            let is_whole = cut as usize >= ends[5] as usize;
            expected.extend(is_whole.then(|| record.clone()));
            let (mut log, recovered, replayed) = reopen(dir.path());
            assert!(replayed.iter().map(|(payload, _)| payload).eq(&expected), "cut at {cut}");
            let is_torn = !is_whole && cut != ends[0];
            assert_eq!(flaws(&recovered), vec![Flaw::Torn; is_torn.into()], "cut at {cut}");
            // What follows in the next segment has nothing to do with it.
            log.append(b"new").unwrap();
            drop(log);
            assert_eq!(payloads(dir.path()).last().unwrap(), b"new");
        }
    }
}

#[test]
fn pieces_of_more_than_a_record_may_have_are_damage() {
    let dir = TempDir::new().unwrap();
    let (mut log, ..) = reopen(dir.path());
    let piece = Piece { flag: PIECE, payload: &vec![0; MAX_PAYLOAD_BYTES] };
    log.append_piece(&piece).unwrap();
    log.append_piece(&Piece { flag: LAST_PIECE, payload: &[1] }).unwrap();
    drop(log);
    assert_eq!(flaws(&reopen(dir.path()).1), [Flaw::Length]);
}

#[test]
fn what_the_version_before_wrote_is_read() {
    let dir = written(&["kept"]);
    let path = segment(dir.path(), 1);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    let crc = crc32fast::hash(&bytes[..24]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, &bytes).unwrap();
    assert_eq!(payloads(dir.path()), [b"kept"]);
}
